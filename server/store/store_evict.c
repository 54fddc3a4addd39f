/* SPDX-License-Identifier: MIT */
/*
 * Which segment or large item is next to be drained. What one item's fate is stands in store_drain.c, when it is
 * somebody's turn to make room in store_room.c; why it is so in docs/decisions/0001-eviction.md.
 *
 *     new item --> small  --hits--> main  --hits--> kept --+   each a FIFO of segments, and one of large items,
 *                    |               |               ^     |   that share one order
 *                    v               v               +-----+
 *                  gone, a ghost    gone            or gone
 *
 * The small pool has a tenth of the live bytes, kept seven tenths at most, main the rest; the oldest of the pool that
 * has more than its share goes first. While the memory fills for the first time all are in the small pool: when it is
 * full, main gets its oldest segments whole, until small has three tenths. A segment of which enough is dead is
 * compacted before anything is evicted. With STORE_REFUSE there is only that.
 *
 * What is copied is paid for by what is written (store_earn). When that is used up nothing is compacted, and what
 * would have moved is evicted; but a segment that is mostly hit goes round whole, uncopied (JOB_WEIGH, JOB_RELINK).
 *
 * A write that has waited for long enough is in a hurry (store_room.c): then what is oldest goes, hit or not.
 *
 * Invariants: every loop is bounded; a job's segment is DRAINING and nobody else touches it.
 */
#include "server/store/store_drain.h"
#include "server/store/store_impl.h"

#define SMALL_SHARE     10U   /* Of the live bytes, in percent; */
#define KEPT_SHARE      70U   /* kept at most; */
#define FILL_SHARE      30U   /* small, after the memory was filled for the first time. */
#define FILL_AT_ONCE    64U   /* Segments that main gets whole in one step. */
#define SCAN_AT_ONCE    1024U /* Segments looked at for dead bytes. */
#define FIFO_LOOK       64U   /* Segments passed over, being pinned. */
#define EVICT_DEAD_MIN  5U    /* Compact rather than evict where 1/5 of a segment is dead. */
#define REFUSE_DEAD_MIN 20U   /* With STORE_REFUSE, where 1/20 of what was written is. */
#define RELINK_SHARE    80U   /* Of a segment's bytes, in percent, hit: it goes round whole; */
#define RELINK_SPENT    40U   /* when nothing may be copied. */
#define RELINKS_MOST    8U    /* In a row, before something must go. */
#define HITS_MOST       3U

unsigned store_hits_needed(const struct store *store, uint64_t bytes)
{
    uint64_t mean = store_peek(&store->mean_bytes) + 1;
    unsigned needed = 1;
    while (needed < HITS_MOST && bytes >> needed >= mean)
        needed++;
    return needed;
}

unsigned store_hits_first(const struct store *store, uint64_t bytes)
{
    uint64_t mean = store_peek(&store->mean_bytes);
    unsigned hits = 0;
    while (hits < 2 && bytes << (hits + 1) <= mean)
        hits++;
    return hits;
}

static void begin_job(struct store *store, enum store_job_kind kind, uint32_t segment)
{
    struct store_segment *at = &store->segments[segment];
    pthread_mutex_lock(&store->mutex);
    store_list_remove(store, &store->pool[at->pool], segment);
    store_publish(&at->state, (uint8_t)SEGMENT_DRAINING);
    pthread_mutex_unlock(&store->mutex);
    store->job = (struct store_job){.kind = kind, .segment = segment, .seq = store_peek(&at->seq)};
}

/* ---- compaction ---- */

/* Are all of a segment's items dead, expired, or flushed? */
static bool is_over(const struct store *store, const struct store_segment *at, uint64_t live, uint64_t now_s)
{
    uint32_t last = store_peek(&at->last_expiry);
    return live >> 32 == 0 || (last != STORE_NO_EXPIRY && last <= now_s) || store_peek(&at->seq) < store_load(&store->flushed);
}

/*
 * The sealed segment that compaction should take next, or STORE_NONE. Only dead items count, not the end that nothing
 * fitted into: copying would leave as much again. Brings the pools' live bytes up to date on its way.
 */
static uint32_t find_deadest(struct store *store, bool *over)
{
    bool refuse = store->config.eviction == STORE_REFUSE;
    bool may_copy = refuse || store_peek(&store->copy_tokens) > 0;
    uint64_t now_s = store_now(store) / 1000, most = 0, size = store_segment_bytes(store);
    uint32_t fresh = store_peek(&store->fresh), best = STORE_NONE;
    for (uint32_t i = 0; i < fresh && i < SCAN_AT_ONCE; i++) {
        store->scan_from = store->scan_from + 1 < fresh ? store->scan_from + 1 : 0;
        struct store_segment *at = &store->segments[store->scan_from];
        uint8_t state = store_load(&at->state);
        if (state != SEGMENT_SEALED && state != SEGMENT_OPEN)
            continue;
        uint64_t live = store_segment_live(at);
        if ((uint32_t)live <= size) /* Else an item is just being counted. */
            store_segment_count(store, at, (uint32_t)live);
        if (state == SEGMENT_OPEN || store_peek(&at->pins) != 0)
            continue;
        *over = is_over(store, at, live, now_s);
        if (*over)
            return store->scan_from;
        uint64_t dead = (uint32_t)store_load(&at->dead);
        uint64_t least = refuse ? store_peek(&at->used) / REFUSE_DEAD_MIN : size / EVICT_DEAD_MIN;
        if (may_copy && dead >= least && dead > most) {
            most = dead;
            best = store->scan_from;
        }
    }
    return best;
}

/* ---- the pools ---- */

uint64_t store_weigh_pools(struct store *store, uint64_t live[POOL_COUNT])
{
    int64_t items = store_peek(&store->index_items);
    uint64_t sum = 0;
    for (unsigned pool = 0; pool < POOL_COUNT; pool++) {
        int64_t bytes = store_peek(&store->pool_live[pool]);
        live[pool] = bytes > 0 ? (uint64_t)bytes : 0;
        sum += live[pool];
    }
    uint64_t mean = items > 0 ? sum / (uint64_t)items : 0, was = store_peek(&store->mean_bytes);
    /* Every put reads it, so that it is not written for a trifle. */
    if (mean > was + was / 64 || mean < was - was / 64)
        store_poke(&store->mean_bytes, mean);
    return sum;
}

/* What is oldest in a pool: a segment that is not pinned, or a large item. */
struct oldest {
    uint32_t segment; /* Or STORE_NONE. */
    uint32_t page;    /* Likewise; one of the two at most is given. */
};

static bool oldest_of(struct store *store, enum store_pool pool, struct oldest *oldest)
{
    pthread_mutex_lock(&store->mutex);
    uint32_t segment = store->pool[pool].head, page = store->large[pool].head;
    for (unsigned i = 0; segment != STORE_NONE && store_peek(&store->segments[segment].pins) != 0; i++)
        segment = i < FIFO_LOOK ? store->segments[segment].next : STORE_NONE;
    if (segment != STORE_NONE && page != STORE_NONE) {
        if (store_large_at(store, page)->order < store->segments[segment].order)
            segment = STORE_NONE;
        else
            page = STORE_NONE;
    }
    pthread_mutex_unlock(&store->mutex);
    *oldest = (struct oldest){.segment = segment, .page = page};
    return segment != STORE_NONE || page != STORE_NONE;
}

/* Gives the oldest segments of an overfull small pool to main. Answers whether there were any. */
static bool fill_main(struct store *store, uint64_t small, uint64_t all)
{
    uint64_t share = store_segment_bytes(store) + all / 100 * FILL_SHARE;
    struct oldest oldest;
    unsigned given = 0;
    while (given < FILL_AT_ONCE && small > share && oldest_of(store, POOL_SMALL, &oldest)) {
        uint64_t bytes;
        if (oldest.segment != STORE_NONE) {
            struct store_segment *at = &store->segments[oldest.segment];
            bytes = store_peek(&at->counted);
            store_segment_count(store, at, 0);
            pthread_mutex_lock(&store->mutex);
            store_list_remove(store, &store->pool[POOL_SMALL], oldest.segment);
            store_segment_enqueue(store, oldest.segment, POOL_MAIN);
            pthread_mutex_unlock(&store->mutex);
            store_segment_count(store, at, (uint32_t)bytes);
        } else {
            bytes = (uint64_t)store_large_at(store, oldest.page)->pages * STORE_PAGE;
            store_large_requeue(store, oldest.page, POOL_MAIN);
        }
        small -= bytes < small ? bytes : small;
        given++;
    }
    return given != 0;
}

/* Whose turn it is: the pool, and what is oldest there. */
static bool choose_victim(struct store *store, const uint64_t live[POOL_COUNT], uint64_t all, enum store_pool *pool,
                          struct oldest *oldest)
{
    enum store_pool order[POOL_COUNT] = {POOL_SMALL, POOL_MAIN, POOL_KEPT};
    bool going_round = store->relinks >= RELINKS_MOST || store->large_relinks >= STORE_LARGE_RELINKS;
    if (live[POOL_SMALL] <= all / 100 * SMALL_SHARE && !going_round) {
        bool kept_first = live[POOL_KEPT] > all / 100 * KEPT_SHARE;
        order[0] = kept_first ? POOL_KEPT : POOL_MAIN;
        order[1] = kept_first ? POOL_MAIN : POOL_KEPT;
        order[2] = POOL_SMALL;
    }
    for (unsigned i = 0; i < POOL_COUNT; i++) {
        *pool = order[i];
        if (oldest_of(store, *pool, oldest))
            return true;
    }
    return false;
}

static uint64_t evict(struct store_worker *worker)
{
    struct store *store = worker->store;
    uint64_t live[POOL_COUNT], all = store_weigh_pools(store, live);
    enum store_pool pool;
    struct oldest oldest;
    if (fill_main(store, live[POOL_SMALL], all))
        return FILL_AT_ONCE;
    if (!choose_victim(store, live, all, &pool, &oldest))
        return 0;
    if (oldest.page != STORE_NONE)
        return store_drain_large(worker, oldest.page, LARGE_IF_HIT);
    bool may_relink = pool != POOL_SMALL && store->relinks < RELINKS_MOST && !store->hurry;
    bool spent = store_peek(&store->copy_tokens) <= 0;
    begin_job(store, may_relink ? JOB_WEIGH : JOB_EVICT, oldest.segment);
    store->job.least = store_segment_bytes(store) / 100 * (spent ? RELINK_SPENT : RELINK_SHARE);
    return 1;
}

uint64_t store_evict_next(struct store_worker *worker)
{
    struct store *store = worker->store;
    bool over = false;
    uint32_t segment = find_deadest(store, &over);
    if (segment != STORE_NONE) {
        begin_job(store, JOB_COMPACT, segment);
        return 1;
    }
    if (store->config.eviction == STORE_REFUSE)
        return 0;
    uint64_t pages = store_peek(&store->large_wanted);
    if (pages != 0) {
        store_poke(&store->large_wanted, (uint64_t)0);
        uint32_t page = store_large_in_the_way(store, pages);
        return page == STORE_NONE ? 0 : store_drain_large(worker, page, LARGE_GOES);
    }
    store_ghost_fit(store);
    return evict(worker);
}
