/* SPDX-License-Identifier: MIT */
/*
 * Segments and the budget: who may write where, and what all of it costs. The states are in store_impl.h.
 *
 * Invariants:
 * - store.committed is at most the limit, always, and counts all that is resident: segments that are not UNUSED,
 *   pages of large items, the index as far as it is charged, what was fixed at start.
 * - Only its writer writes to an open segment; what was published there is never written again, but for expiries.
 * - A segment is freed when no slot names any of its items, a grace period has passed, and no pin holds it.
 * - The last `reserve` free segments are for moving only, which always ends in more free segments.
 */
#include <sched.h>
#include <sys/mman.h>

#include "server/store/store_append.h"
#include "server/store/store_impl.h"

#define RECLAIM_AT_ONCE 64U
#define COPY_PER_BYTE   3U /* Bytes that may be copied for each byte written, */
#define COPY_BURST      16U /* and segments that may be saved up. */
#define SHORT_TTL_MS    4000U

/* ---- lists; the mutex is held ---- */

static void set_state(struct store_segment *segment, enum store_state state)
{
    store_publish(&segment->state, (uint8_t)state);
}

void store_list_init(struct store_list *list)
{
    *list = (struct store_list){.head = STORE_NONE, .tail = STORE_NONE};
}

void store_list_push(struct store *store, struct store_list *list, uint32_t segment)
{
    struct store_segment *at = &store->segments[segment];
    at->next = STORE_NONE;
    at->prev = list->tail;
    if (list->tail == STORE_NONE)
        list->head = segment;
    else
        store->segments[list->tail].next = segment;
    list->tail = segment;
    list->count++;
}

void store_list_remove(struct store *store, struct store_list *list, uint32_t segment)
{
    struct store_segment *at = &store->segments[segment];
    if (at->prev == STORE_NONE)
        list->head = at->next;
    else
        store->segments[at->prev].next = at->next;
    if (at->next == STORE_NONE)
        list->tail = at->prev;
    else
        store->segments[at->next].prev = at->prev;
    list->count--;
}

/* ---- pools ---- */

void store_segment_count(struct store *store, struct store_segment *segment, uint32_t live)
{
    uint32_t was = __atomic_exchange_n(&segment->counted, live, __ATOMIC_RELAXED);
    if (was != live)
        __atomic_fetch_add(&store->pool_live[store_peek(&segment->pool)], (int64_t)live - was, __ATOMIC_RELAXED);
}

void store_segment_enqueue(struct store *store, uint32_t segment, enum store_pool pool)
{
    struct store_segment *at = &store->segments[segment];
    store_poke(&at->pool, (uint8_t)pool);
    at->order = ++store->orders;
    set_state(at, SEGMENT_SEALED);
    store_list_push(store, &store->pool[pool], segment);
}

void store_earn(struct store *store, uint64_t bytes)
{
    int64_t most = (int64_t)COPY_BURST << store->segment_shift, sum = store_peek(&store->copy_tokens);
    int64_t earned = (int64_t)(bytes * COPY_PER_BYTE);
    int64_t next;
    do {
        next = sum + earned < most ? sum + earned : most;
    } while (!__atomic_compare_exchange_n(&store->copy_tokens, &sum, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

/* ---- the budget ---- */

/* The mutex is held, as in the next one. */
void store_update_available(struct store *store)
{
    uint64_t more = (store->limit - store->committed + store->idle_bytes) >> store->segment_shift;
    uint64_t unused = store->segment_count - store->fresh + store->unused.count;
    store_poke(&store->available, store->free.count + (uint32_t)(more < unused ? more : unused));
}

/* Takes from the budget what is there. */
static bool try_take(struct store *store, uint64_t bytes)
{
    if (store->committed + bytes > store->limit)
        return false;
    store->committed += bytes;
    store_update_available(store);
    return true;
}

bool store_budget_ease(struct store *store, uint64_t bytes)
{
    if (store_pages_trim(store, bytes) != 0)
        return true;
    pthread_mutex_lock(&store->mutex);
    uint32_t segment = store->free.tail;
    if (segment != STORE_NONE) {
        store_list_remove(store, &store->free, segment);
        set_state(&store->segments[segment], SEGMENT_UNUSED);
    }
    pthread_mutex_unlock(&store->mutex);
    if (segment == STORE_NONE)
        return false;
    /* Outside of the mutex, as it takes its time. */
    madvise(store_at(store, store_segment_location(store, segment)), store_segment_bytes(store), MADV_DONTNEED);
    pthread_mutex_lock(&store->mutex);
    store_list_push(store, &store->unused, segment);
    store->committed -= store_segment_bytes(store);
    store_update_available(store);
    pthread_mutex_unlock(&store->mutex);
    return true;
}

bool store_budget_take(struct store *store, uint64_t bytes, uint32_t keep_segments)
{
    uint64_t keep = (uint64_t)keep_segments << store->segment_shift;
    for (;;) {
        pthread_mutex_lock(&store->mutex);
        bool enough = store_budget_room(store) >= bytes + keep, taken = enough && try_take(store, bytes);
        pthread_mutex_unlock(&store->mutex);
        if (!enough || taken)
            return enough;
        if (!store_budget_ease(store, bytes))
            sched_yield(); /* Somebody is just about it. */
    }
}

/* ---- writing ---- */

unsigned store_class_of(const struct store *store, uint64_t expiry, uint64_t now)
{
    if (expiry == STORE_NEVER || store->classes == 1)
        return 0;
    uint64_t ttl = expiry > now ? expiry - now : 0;
    return ttl <= SHORT_TTL_MS ? 1 : 2;
}

static void seal(struct store *store, struct store_writer *writer, unsigned class)
{
    struct store_open *open = &writer->open[class];
    struct store_segment *segment = &store->segments[open->segment];
    store_segment_enqueue(store, open->segment, (enum store_pool)segment->pool);
    uint64_t live = store_segment_live(segment), unused[POOL_COUNT];
    store_segment_count(store, segment, (uint32_t)live);
    (void)store_weigh_pools(store, unused);
    open->segment = STORE_NONE;
}

void store_segment_seal(struct store *store, struct store_writer *writer, uint64_t below_seq)
{
    for (unsigned class = 0; class < STORE_CLASSES; class ++) {
        uint32_t segment = writer->open[class].segment;
        if (segment == STORE_NONE || store_peek(&store->segments[segment].seq) >= below_seq)
            continue;
        pthread_mutex_lock(&store->mutex);
        seal(store, writer, class);
        pthread_mutex_unlock(&store->mutex);
    }
}

/* A segment to write to, or STORE_NONE. The mutex is held. */
static uint32_t take_segment(struct store *store, uint32_t keep)
{
    store_update_available(store);
    if (store->available <= keep)
        return STORE_NONE;
    uint32_t segment = store->free.head;
    if (segment != STORE_NONE) {
        store_list_remove(store, &store->free, segment);
    } else {
        segment = store->unused.head;
        if (segment != STORE_NONE) {
            store_list_remove(store, &store->unused, segment);
        } else {
            segment = store->fresh;
            store_poke(&store->fresh, segment + 1);
        }
        store->committed += store_segment_bytes(store);
    }
    store_update_available(store);
    if (store_ahead_due(store))
        pthread_cond_signal(&store->ahead_call);
    return segment;
}

static bool is_mover(const struct store *store, const struct store_writer *writer)
{
    return writer >= store->mover && writer < store->mover + POOL_COUNT;
}

/* A segment is to be had, but its bytes are still those of idle pages. The mutex is held. */
static bool must_trim(const struct store *store, uint32_t keep)
{
    return store->free.head == STORE_NONE && store->idle_bytes != 0 && store->available > keep &&
           store->committed + store_segment_bytes(store) > store->limit;
}

bool store_segment_room(struct store *store, struct store_writer *writer, unsigned class, uint64_t bytes,
                        uint32_t keep)
{
    struct store_open *open = &writer->open[class];
    if (store_segment_has_room(store, writer, class, bytes))
        return true;
    pthread_mutex_lock(&store->mutex);
    while (must_trim(store, keep)) {
        pthread_mutex_unlock(&store->mutex);
        if (store_pages_trim(store, store_segment_bytes(store)) == 0)
            sched_yield(); /* Somebody is just about it. */
        pthread_mutex_lock(&store->mutex);
    }
    uint32_t segment = take_segment(store, keep);
    if (segment != STORE_NONE) {
        if (open->segment != STORE_NONE)
            seal(store, writer, class);
        if (!is_mover(store, writer))
            store_earn(store, store_segment_bytes(store));
        struct store_segment *at = &store->segments[segment];
        store_poke(&at->dead, (uint64_t)0);
        store_poke(&at->min_expiry, STORE_NEVER);
        store_poke(&at->used, 0U);
        store_poke(&at->items, 0U);
        store_poke(&at->padding, 0U);
        store_poke(&at->last_expiry, class == 0 ? STORE_NO_EXPIRY : 0U);
        store_poke(&at->pool, (uint8_t)writer->pool);
        store_poke(&at->seq, __atomic_add_fetch(&store->seq, 1, __ATOMIC_SEQ_CST));
        set_state(at, SEGMENT_OPEN);
        *open = (struct store_open){.segment = segment};
    }
    pthread_mutex_unlock(&store->mutex);
    return segment != STORE_NONE;
}

/* ---- dying ---- */

uint64_t store_segment_live(const struct store_segment *segment)
{
    uint64_t written = (uint64_t)store_peek(&segment->items) << 32;
    written += store_peek(&segment->used) - store_peek(&segment->padding);
    return written - store_load(&segment->dead);
}

void store_release(struct store *store, uint64_t location, uint64_t bytes)
{
    if (store_is_large(store, location)) {
        store_large_retire(store, store_page_of(store, location));
        return;
    }
    store_item_kill(store_at(store, location));
    __atomic_fetch_add(&store->segments[store_segment_of(store, location)].dead, (uint64_t)1 << 32 | bytes,
                       __ATOMIC_ACQ_REL);
}

void store_segment_retire(struct store *store, uint32_t segment)
{
    struct store_segment *at = &store->segments[segment];
    pthread_mutex_lock(&store->mutex);
    set_state(at, SEGMENT_RETIRED);
    at->retired_at = __atomic_add_fetch(&store->epoch, 1, __ATOMIC_SEQ_CST);
    store_list_push(store, &store->retired, segment);
    pthread_mutex_unlock(&store->mutex);
}

static void set_free(struct store *store, uint32_t segment)
{
    set_state(&store->segments[segment], SEGMENT_FREE);
    store_list_push(store, &store->free, segment);
}

uint32_t store_reclaim(struct store *store)
{
    pthread_mutex_lock(&store->mutex);
    uint64_t epoch = store_oldest_epoch(store);
    uint32_t next = store->pinned.head;
    for (unsigned i = 0; i < RECLAIM_AT_ONCE && next != STORE_NONE; i++) {
        uint32_t segment = next;
        next = store->segments[segment].next;
        if (store_load(&store->segments[segment].pins) == 0) {
            store_list_remove(store, &store->pinned, segment);
            set_free(store, segment);
        }
    }
    for (unsigned i = 0; i < RECLAIM_AT_ONCE && store->retired.head != STORE_NONE; i++) {
        uint32_t segment = store->retired.head;
        if (store->segments[segment].retired_at > epoch)
            break;
        store_list_remove(store, &store->retired, segment);
        if (store_load(&store->segments[segment].pins) == 0)
            set_free(store, segment);
        else
            store_list_push(store, &store->pinned, segment);
    }
    store_update_available(store);
    bool large = store->large_retired.head != STORE_NONE;
    pthread_mutex_unlock(&store->mutex);
    if (large)
        store_large_reclaim(store, epoch);
    pthread_mutex_lock(&store->mutex);
    uint64_t waiting = store->retired.count + (store->retired_large_bytes >> store->segment_shift);
    pthread_mutex_unlock(&store->mutex);
    return (uint32_t)waiting;
}
