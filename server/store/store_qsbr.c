/* SPDX-License-Identifier: MIT */
/*
 * Grace periods. What is retired is not reused before each worker has passed a quiescent state, that is, a moment
 * at which it held no view and looked at nothing.
 *
 * A worker that looks at things has its epoch word set to an epoch that it has seen; one that does not has 0 there:
 * it is offline and holds up nothing. store_quiesce() goes offline, the next operation comes back. So a worker that
 * sleeps after store_quiesce() needs to tell nobody.
 *
 * Invariants: a thing is retired after its last slot was emptied, by adding 1 to store.epoch (R); it is reused when
 * all words are 0 or at least that.
 *
 * Why this holds by C11's rules, on any processor. A worker that comes back writes its word (W), then reads the epoch
 * (E), before it reads any slot; a reclaimer has done R before it reads the word (C); all four are sequentially
 * consistent. If C finds no word, C is before W in their one order, so R is before E, and E reads what R wrote or
 * later: the slot was emptied before, and the worker finds it so. If C finds an older word, what was retired waits. A
 * newer word was written by release after the worker's last look at anything older, having read that epoch by
 * acquire: then both hold at once.
 */
#include "server/store/store_impl.h"

#define PINNED_SHARE 3U /* Of the memory, what pins may hold. */

void store_enter_slow(struct store_worker *worker)
{
    struct store *store = worker->store;
    uint64_t epoch = __atomic_load_n(&store->epoch, __ATOMIC_SEQ_CST);
    (void)__atomic_exchange_n(&worker->epoch, epoch, __ATOMIC_SEQ_CST);
    uint64_t now = __atomic_load_n(&store->epoch, __ATOMIC_SEQ_CST);
    if (now != epoch)
        store_publish(&worker->epoch, now);
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

/* ---- who holds up memory, and for how long ---- */

/*
 * A worker's word that is behind the epoch stands still until the worker is done with what it looks at: had it come
 * back meanwhile, it would have a newer one. So two looks at the same old word are two looks at the same wait.
 */
bool store_grace(struct store *store, struct store_grace *grace)
{
    bool held = false;
    pthread_mutex_lock(&store->mutex);
    uint64_t now = store_now(store), epoch = __atomic_load_n(&store->epoch, __ATOMIC_SEQ_CST);
    uint32_t attached = store_load(&store->workers_attached);
    for (uint32_t i = 0; i < attached; i++) {
        struct store_worker *worker = &store->workers[i];
        uint64_t word = __atomic_load_n(&worker->epoch, __ATOMIC_SEQ_CST);
        if (word == 0 || word >= epoch) {
            worker->late_epoch = 0;
            continue;
        }
        if (worker->late_epoch != word) {
            worker->late_epoch = word;
            worker->late_since = now;
        }
        uint64_t lag_ms = now - worker->late_since;
        if (held && lag_ms <= grace->lag_ms)
            continue;
        held = true;
        *grace = (struct store_grace){.lag_ms = lag_ms, .worker = i};
    }
    if (held)
        grace->bytes = store_retired_bytes(store);
    pthread_mutex_unlock(&store->mutex);
    return held;
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
