/* SPDX-License-Identifier: MIT */
/*
 * Grace periods. What is retired is not reused before each worker has passed a quiescent state, that is, a moment
 * at which it held no view and looked at nothing.
 *
 * A worker that looks at things has its epoch word set to an epoch that it has seen; one that does not has 0 there:
 * it is offline and holds up nothing. store_quiesce() goes offline, the next operation comes back. So a worker that
 * sleeps after store_quiesce() needs to tell nobody.
 *
 * Invariants: a thing is retired after its last slot was emptied, by adding 1 to store.epoch; it is reused when all
 * words are 0 or at least that. Coming back is one read-modify-write, before any slot is read: either the reclaimer
 * sees the word, or the worker sees the empty slot.
 */
#include "server/store/store_impl.h"

#define PINNED_SHARE 3U /* Of the memory, what pins may hold. */

void store_enter_slow(struct store_worker *worker)
{
    struct store *store = worker->store;
    (void)__atomic_exchange_n(&worker->epoch, __atomic_load_n(&store->epoch, __ATOMIC_SEQ_CST), __ATOMIC_SEQ_CST);
}

void store_refresh(struct store_worker *worker)
{
    if (!worker->has_views)
        store_publish(&worker->epoch, store_load(&worker->store->epoch));
}

void store_quiesce(struct store_worker *worker)
{
    worker->has_views = false;
    store_publish(&worker->epoch, (uint64_t)0);
}

void store_release_views(struct store_worker *worker)
{
    worker->has_views = false; /* Its writes do the rest: store_refresh(). */
}

void store_worker_offline(struct store_worker *worker)
{
    store_quiesce(worker);
}

void store_worker_online(struct store_worker *worker)
{
    (void)store_enter(worker);
}

uint64_t store_oldest_epoch(struct store *store)
{
    uint64_t oldest = __atomic_load_n(&store->epoch, __ATOMIC_SEQ_CST);
    uint32_t attached = store_load(&store->workers_attached);
    for (uint32_t i = 0; i < attached; i++) {
        uint64_t epoch = __atomic_load_n(&store->workers[i].epoch, __ATOMIC_SEQ_CST);
        if (epoch != 0 && epoch < oldest)
            oldest = epoch;
    }
    return oldest;
}

/* ---- pins ---- */

#define PIN_LARGE ((uint64_t)1 << 63)

/* The count of what a pin names, and the bytes that it holds. */
static uint16_t *pins_of(struct store *store, uint64_t pin, uint64_t *bytes)
{
    if ((pin & PIN_LARGE) != 0) {
        struct store_large *large = store_large_at(store, (uint32_t)pin);
        *bytes = (uint64_t)large->pages * STORE_PAGE;
        return &large->pins;
    }
    *bytes = store_segment_bytes(store);
    return &store->segments[(uint32_t)pin].pins;
}

bool store_pin(struct store_worker *worker, const struct store_view *view)
{
    struct store *store = worker->store;
    uint64_t bytes;
    uint16_t *pins = pins_of(store, view->pin, &bytes);
    uint16_t was = store_peek(pins);
    do {
        if (was >= STORE_HELD_MAX)
            return false;
        if (was == 0 && store_peek(&store->pinned_bytes) + bytes > store->limit / PINNED_SHARE)
            return false;
    } while (!__atomic_compare_exchange_n(pins, &was, (uint16_t)(was + 1), true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    if (was == 0)
        __atomic_fetch_add(&store->pinned_bytes, bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&store->pinned_views, 1, __ATOMIC_RELAXED);
    return true;
}

void store_unpin(struct store_worker *worker, uint64_t pin)
{
    struct store *store = worker->store;
    uint64_t bytes;
    uint16_t *pins = pins_of(store, pin, &bytes);
    /* The bytes go first: at 0 pins, what was pinned may be gone. */
    __atomic_fetch_sub(&store->pinned_views, 1, __ATOMIC_RELAXED);
    uint32_t was = __atomic_fetch_sub(pins, 1, __ATOMIC_ACQ_REL);
    assert(was > 0);
    if (was == 1)
        __atomic_fetch_sub(&store->pinned_bytes, bytes, __ATOMIC_RELAXED);
}
