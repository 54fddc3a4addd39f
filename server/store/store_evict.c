/* SPDX-License-Identifier: MIT */
/*
 * Making room: compaction, eviction, and whose turn it is. What one item's fate is stands in store_drain.c.
 *
 * The order of eviction is S3-FIFO's over segments. New items are in the small pool. When it has more than its share
 * of the segments, its oldest segment is drained: what was read since moves to the main pool, the rest goes and
 * leaves a ghost. Otherwise the oldest segment of the main pool is: what was read moves to its end, the rest goes.
 * Before either, a segment of which enough is dead is compacted. With STORE_REFUSE there is only that.
 *
 * One worker at a time is the maintainer; the others write on, out of the free segments. The work is done in slices
 * of up to 64 items, as much of it as what was written asks for (store_pay), so that free segments rarely run out;
 * if they do, a put does slices until it has one, or waits for a grace period.
 *
 * Invariants: every loop is bounded; a job's segment is DRAINING and nobody else touches it; nothing new is drained
 * while what was drained already will do once its grace period is over.
 */
#include <sched.h>
#include <unistd.h>

#include "server/store/store_drain.h"
#include "server/store/store_impl.h"

#define SMALL_SHARE     10U   /* Of the segments, in percent. */
#define SCAN_AT_ONCE    2048U /* Segments looked at for dead bytes. */
#define FIFO_LOOK       64U   /* Segments passed over, being pinned. */
#define EVICT_DEAD_MIN  6U    /* Compact rather than evict where 1/6 is dead. */
#define REFUSE_DEAD_MIN 20U   /* With STORE_REFUSE, 1/20. */
#define PAY_FROM        4096U
#define PAY_MOST        65536U
#define WAITS           2000U
#define WAIT_US         50U
#define ROOM_STEPS      100000U

static uint32_t low_water(const struct store *store)
{
    return store->reserve + 1 + store->segment_count / 128;
}

static bool try_maintain(struct store *store)
{
    return store_peek(&store->maintaining) == 0 &&
           __atomic_exchange_n(&store->maintaining, 1, __ATOMIC_ACQUIRE) == 0;
}

static void end_maintain(struct store *store)
{
    store_publish(&store->maintaining, 0U);
}

/* ---- choosing a victim ---- */

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

/* Begins a job, or frees something. Answers 0 if there is nothing that would help. */
static uint64_t choose(struct store_worker *worker)
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

/* One step for which `wanted` segments are to become available. Answers bytes looked at; 0: nothing to be done. */
static uint64_t step(struct store_worker *worker, uint32_t wanted)
{
    struct store *store = worker->store;
    if (store->job.kind == JOB_NONE) {
        uint32_t waiting = store_reclaim(store);
        if (store_peek(&store->available) + waiting >= wanted)
            return 0;
        uint64_t done = choose(worker);
        if (store->job.kind == JOB_NONE)
            return done;
    }
    return store_drain_slice(worker, &store->job, STORE_SLICE);
}

/* ---- room for one put ---- */

static bool take_room(struct store_worker *worker, const struct store_need *need, struct store_place *place)
{
    struct store *store = worker->store;
    if (need->large)
        return store_large_place(store, need->bytes, place);
    /* Whatever happens, moving has a free segment for each class and one more. */
    uint32_t keep = need->urgent && store->classes < store->reserve ? store->classes + 1 : store->reserve;
    return store_segment_room(store, &worker->writer, need->class, need->bytes, keep);
}

/* Lets others pass a quiescent state. */
static bool wait_for_others(struct store_worker *worker, unsigned waits)
{
    struct store *store = worker->store;
    if (worker->has_views || waits >= WAITS)
        return false;
    __atomic_fetch_add(&store->waited, 1, __ATOMIC_RELAXED);
    store_publish(&worker->epoch, (uint64_t)0);
    if (waits % 4 == 3)
        usleep(WAIT_US);
    else
        sched_yield();
    (void)store_enter(worker);
    return true;
}

bool store_make_room(struct store_worker *worker, const struct store_need *need, struct store_place *place)
{
    struct store *store = worker->store;
    uint64_t bytes = need->large ? store_large_pages(need->bytes) * STORE_PAGE : 0;
    uint32_t wanted = low_water(store) + (uint32_t)(bytes >> store->segment_shift) + 1;
    unsigned waits = 0;
    for (unsigned steps = 0; steps < ROOM_STEPS; steps++) {
        store_refresh(worker);
        if (take_room(worker, need, place))
            return true;
        uint32_t waiting = store_reclaim(store);
        if (take_room(worker, need, place))
            return true;
        bool mine = try_maintain(store);
        uint64_t done = mine ? step(worker, wanted) : 0;
        if (mine)
            end_maintain(store);
        if (done != 0)
            continue;
        if (mine && waiting == 0 && store_reclaim(store) == 0)
            return take_room(worker, need, place);
        if (!wait_for_others(worker, waits++))
            return false;
    }
    return false;
}

void store_pay(struct store_worker *worker, uint64_t bytes)
{
    struct store *store = worker->store;
    worker->debt += bytes;
    if (worker->debt < PAY_FROM)
        return;
    uint32_t available = store_peek(&store->available);
    if (available >= low_water(store)) {
        worker->debt = 0;
        return;
    }
    if (!try_maintain(store)) {
        worker->debt = worker->debt < PAY_MOST ? worker->debt : PAY_MOST;
        return;
    }
    store_refresh(worker);
    uint64_t quota = worker->debt * (available <= store->reserve ? 24 : 8), done = 1;
    quota = quota < PAY_MOST * 8 ? quota : PAY_MOST * 8;
    for (uint64_t sum = 0; sum < quota && done != 0; sum += done)
        done = step(worker, low_water(store) + 1);
    worker->debt = 0;
    end_maintain(store);
}

/* ---- STORE_REFUSE: what may become live ---- */

/* Bytes that may still become live, so that compaction always finds enough that is dead. */
static uint64_t live_room(struct store *store, bool large)
{
    uint64_t flushed = store_load(&store->flushed), size = store_segment_bytes(store), live = 0;
    pthread_mutex_lock(&store->mutex);
    uint64_t taken = store->fixed + store->large_bytes - store->retired_large_bytes +
                     (store_peek(&store->bucket_charged) + store_peek(&store->overflow_charged)) *
                         sizeof(struct store_bucket);
    uint32_t fresh = store_peek(&store->fresh);
    uint64_t aside = store_aside(store);
    pthread_mutex_unlock(&store->mutex);
    for (uint32_t i = 0; i < fresh; i++) {
        struct store_segment *at = &store->segments[i];
        uint8_t state = store_load(&at->state);
        uint64_t used = store_peek(&at->used);
        if ((state != SEGMENT_SEALED && state != SEGMENT_DRAINING) || store_peek(&at->seq) < flushed || used == 0)
            continue;
        /* The unused end is lost, wherever these items are. */
        live += (uint32_t)store_segment_live(at) * size / used;
    }
    uint64_t room = store->limit > taken ? (store->limit - taken) / size : 0;
    room = room > aside ? (room - aside) * size : 0;
    room -= room / 16;
    room = room > live ? room - live : 0;
    return large ? room / 2 : room; /* One more of its size, so that it can be overwritten. */
}

bool store_admit(struct store_worker *worker, uint64_t bytes, bool large)
{
    struct store *store = worker->store;
    if (!large && worker->credit >= bytes) {
        worker->credit -= bytes;
        return true;
    }
    uint64_t room = live_room(store, large);
    if (room < bytes && try_maintain(store)) {
        store_drain_expired(worker, UINT32_MAX, 4096);
        end_maintain(store);
        room = live_room(store, large);
    }
    if (room < bytes)
        return false;
    if (!large) {
        uint64_t credit = room / (4 * (uint64_t)store->workers_attached);
        credit = credit < store_segment_bytes(store) / 2 ? credit : store_segment_bytes(store) / 2;
        worker->credit = credit > bytes ? credit - bytes : 0;
    }
    return true;
}

/* ---- store_tick() ---- */

bool store_tick(struct store_worker *worker)
{
    struct store *store = store_enter(worker);
    store_refresh(worker);
    uint64_t flushed = store_load(&store->flushed);
    if (flushed != 0)
        store_segment_seal(store, &worker->writer, flushed);
    if (!try_maintain(store))
        return false;
    bool more = false;
    (void)store_reclaim(store);
    for (unsigned i = 0; i < 4; i++) {
        more = store->job.kind != JOB_NONE || store_peek(&store->available) < low_water(store);
        if (!more || step(worker, low_water(store)) == 0)
            break;
    }
    if (flushed != 0)
        more = store_drain_flushed(worker) || more;
    more = store_drain_expired(worker, SCAN_AT_ONCE, 8 * STORE_SLICE) || more;
    end_maintain(store);
    return more && store->config.eviction == STORE_EVICT ? true : more;
}
