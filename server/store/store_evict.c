/* SPDX-License-Identifier: MIT */
/*
 * Which segment or large item is next to be drained. What one item's fate is stands in store_drain.c, when it is
 * somebody's turn to make room in store_room.c.
 *
 * The order of eviction is S3-FIFO's over segments. New items are in the small pool. When it has more than its share
 * of the segments, its oldest segment is drained: what was read since moves to the main pool, the rest goes and
 * leaves a ghost. Otherwise the oldest segment of the main pool is: what was read moves to its end, the rest goes.
 * Before either, a segment of which enough is dead is compacted. With STORE_REFUSE there is only that.
 *
 * Invariants: every loop is bounded; a job's segment is DRAINING and nobody else touches it.
 */
#include "server/store/store_drain.h"
#include "server/store/store_impl.h"

#define SMALL_SHARE     10U   /* Of the segments, in percent. */
#define SCAN_AT_ONCE    2048U /* Segments looked at for dead bytes. */
#define FIFO_LOOK       64U   /* Segments passed over, being pinned. */
#define EVICT_DEAD_MIN  6U    /* Compact rather than evict where 1/6 is dead. */
#define REFUSE_DEAD_MIN 20U   /* With STORE_REFUSE, 1/20. */

static void begin_job(struct store *store, enum store_job_kind kind, uint32_t segment)
{
    struct store_segment *at = &store->segments[segment];
    pthread_mutex_lock(&store->mutex);
    store_list_remove(store, &store->pool[at->pool], segment);
    store_publish(&at->state, (uint8_t)SEGMENT_DRAINING);
    pthread_mutex_unlock(&store->mutex);
    store->job = (struct store_job){.kind = kind, .segment = segment, .seq = store_peek(&at->seq)};
}

/* The sealed segment with most dead bytes; `must` if nothing else will do (all of it is dead, or flushed). */
static uint32_t find_deadest(struct store *store, uint64_t *dead, bool *must)
{
    uint64_t flushed = store_load(&store->flushed);
    uint32_t best = STORE_NONE, looked = store_peek(&store->fresh) < SCAN_AT_ONCE ? store_peek(&store->fresh) : SCAN_AT_ONCE;
    *dead = 0;
    for (uint32_t i = 0; i < looked; i++) {
        store->scan_from = store->scan_from + 1 < store_peek(&store->fresh) ? store->scan_from + 1 : 0;
        struct store_segment *at = &store->segments[store->scan_from];
        if (store_load(&at->state) != SEGMENT_SEALED || store_peek(&at->pins) != 0)
            continue;
        uint64_t live = store_segment_live(at);
        *must = live == 0 || store_peek(&at->seq) < flushed;
        if (*must)
            return store->scan_from;
        if (store_segment_bytes(store) - (uint32_t)live > *dead) {
            *dead = store_segment_bytes(store) - (uint32_t)live;
            best = store->scan_from;
        }
    }
    return best;
}

/* The oldest segment of a pool that is not pinned. */
static uint32_t oldest_of(struct store *store, enum store_pool pool)
{
    pthread_mutex_lock(&store->mutex);
    uint32_t segment = store->pool[pool].head;
    for (unsigned i = 0; segment != STORE_NONE && store_peek(&store->segments[segment].pins) != 0; i++)
        segment = i < FIFO_LOOK ? store->segments[segment].next : STORE_NONE;
    pthread_mutex_unlock(&store->mutex);
    return segment;
}

/* Evicts, from the pool whose turn it is, or a large item. */
static uint64_t evict(struct store_worker *worker)
{
    struct store *store = worker->store;
    pthread_mutex_lock(&store->mutex);
    uint32_t small = store->pool[POOL_SMALL].count, all = small + store->pool[POOL_MAIN].count;
    uint32_t page = store->large.head;
    uint64_t page_order = page == STORE_NONE ? 0 : store_large_at(store, page)->order;
    pthread_mutex_unlock(&store->mutex);
    enum store_pool pool = small * 100 > all * SMALL_SHARE ? POOL_SMALL : POOL_MAIN;
    uint32_t segment = oldest_of(store, pool);
    if (segment == STORE_NONE) {
        pool = pool == POOL_SMALL ? POOL_MAIN : POOL_SMALL;
        segment = oldest_of(store, pool);
    }
    if (page != STORE_NONE && (segment == STORE_NONE || page_order < store_peek(&store->segments[segment].seq)))
        return store_drain_large(worker, page, true);
    if (segment == STORE_NONE)
        return 0;
    begin_job(store, pool == POOL_SMALL ? JOB_SMALL : JOB_MAIN, segment);
    return 1;
}

uint64_t store_evict_next(struct store_worker *worker)
{
    struct store *store = worker->store;
    bool refuse = store->config.eviction == STORE_REFUSE, must = false;
    uint64_t dead;
    uint32_t segment = find_deadest(store, &dead, &must);
    uint64_t least = store_segment_bytes(store) / (refuse ? REFUSE_DEAD_MIN : EVICT_DEAD_MIN);
    if (segment != STORE_NONE && (must || dead >= least)) {
        begin_job(store, JOB_COMPACT, segment);
        return 1;
    }
    return refuse ? 0 : evict(worker);
}
