/* SPDX-License-Identifier: MIT */
/*
 * Making room, and whose turn it is. What is drained next stands in store_evict.c.
 *
 * One worker at a time is the maintainer; the others write on, out of the free segments. The work is done in slices
 * of up to 64 items, as much of it as what was written asks for (store_pay), so that free segments rarely run out;
 * if they do, a put does slices until it has one, or waits for a grace period.
 *
 * Invariants: every loop is bounded; nothing new is drained while what was drained already will do once its grace
 * period is over.
 */
#include <sched.h>
#include <unistd.h>

#include "server/store/store_drain.h"
#include "server/store/store_impl.h"

#define TICK_SEGMENTS 2048U /* Segments that one tick looks at for expired items. */
#define PAY_AT_ONCE   131072U /* Bytes looked at for a payment: what is owed beyond is left for the next ones. */
#define PAY_MOST      65536U  /* Bytes written that are owed for at the most. */
#define PAY_RATE      8U
#define PAY_RATE_MORE 16U
#define YIELDS        4U     /* Then who waits sleeps: it may be the others who need the processor. */
#define WAITS         500U   /* For views of other workers: some 50 ms. */
#define TURNS         10000U /* For another's turn at making room, which is never long unless it was preempted: 1 s. */
#define WAIT_US       50U
#define ROOM_STEPS    100000U
#define HURRY_STEPS   64U /* Slices for each segment wanted, after which nothing is spared any more. */

static uint32_t low_water(const struct store *store)
{
    return store->reserve + 1 + store->segment_count / 256;
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

/* One step for which `wanted` segments are to become available. Answers bytes looked at; 0: nothing to be done. */
static uint64_t step(struct store_worker *worker, uint32_t wanted)
{
    struct store *store = worker->store;
    if (store->job.kind == JOB_NONE) {
        uint32_t waiting = store_reclaim(store);
        if (store_peek(&store->available) + waiting >= wanted && store_peek(&store->large_wanted) == 0)
            return 0;
        uint64_t done = store_evict_next(worker);
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

/* Lets others go on: pass a quiescent state, or end their turn. Without views, the worker holds up nobody meanwhile. */
static void wait_for_others(struct store_worker *worker, unsigned waits)
{
    struct store *store = worker->store;
    __atomic_fetch_add(&store->waited, 1, __ATOMIC_RELAXED);
    if (!worker->has_views)
        store_publish(&worker->epoch, (uint64_t)0);
    if (waits < YIELDS)
        sched_yield();
    else
        usleep(WAIT_US);
    (void)store_enter(worker);
}

/* How often to wait for the others' views. Own ones never end here; and what was waited for in vain is not again. */
static unsigned most_waits(const struct store_worker *worker)
{
    if (worker->has_views)
        return 0;
    return worker->given_up == store_oldest_epoch(worker->store) ? 1 : WAITS;
}

/* Remembers what was waited for in vain, or it would cost each write that follows as much. */
static bool give_up(struct store_worker *worker)
{
    worker->given_up = store_oldest_epoch(worker->store);
    return false;
}

bool store_make_room(struct store_worker *worker, const struct store_need *need, struct store_place *place)
{
    struct store *store = worker->store;
    uint64_t bytes = need->large ? store_large_pages(need->bytes) * STORE_PAGE : 0;
    uint32_t wanted = low_water(store) + (uint32_t)(bytes >> store->segment_shift) + 1;
    uint32_t best = 0; /* Steps that bring more than there was do not count. */
    unsigned waits = 0, turns = 0, slices = 0, patience = HURRY_STEPS * (1 + (unsigned)(bytes >> store->segment_shift));
    for (unsigned steps = 0; steps < ROOM_STEPS; steps++) {
        store_refresh(worker);
        if (take_room(worker, need, place))
            return true;
        uint32_t waiting = store_reclaim(store), available = store_peek(&store->available) + waiting;
        if (take_room(worker, need, place))
            return true;
        if (available > best) {
            best = available;
            steps = 0;
        }
        bool mine = try_maintain(store);
        uint64_t done = 0;
        if (mine) {
            store->hurry = slices++ >= patience;
            done = step(worker, wanted);
            store->hurry = false;
            end_maintain(store);
        }
        if (done != 0)
            continue;
        uint32_t left = mine ? store_reclaim(store) : waiting;
        if (left < waiting)
            continue;
        if (mine && left == 0)
            return take_room(worker, need, place);
        unsigned *spent = mine ? &waits : &turns;
        if (*spent >= (mine ? most_waits(worker) : TURNS))
            return mine && !worker->has_views ? give_up(worker) : false;
        wait_for_others(worker, (*spent)++);
    }
    return false;
}

/* Bytes to be looked at for each byte written: the more, the fewer segments are left. */
static uint64_t pay_rate(const struct store *store, uint32_t available)
{
    uint32_t low = low_water(store), missing = available > store->reserve ? low - available : low - store->reserve;
    return PAY_RATE + PAY_RATE_MORE * (uint64_t)missing / (low - store->reserve);
}

void store_pay_now(struct store_worker *worker)
{
    struct store *store = worker->store;
    worker->unpaid = 0;
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
    uint64_t rate = pay_rate(store, available), done = 1, sum = 0;
    uint64_t quota = worker->debt * rate < PAY_AT_ONCE ? worker->debt * rate : PAY_AT_ONCE;
    for (; sum < quota && done != 0; sum += done)
        done = step(worker, low_water(store) + 1);
    worker->debt = done != 0 && sum / rate < worker->debt ? worker->debt - sum / rate : 0;
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

bool store_admit(struct store_worker *worker, uint64_t bytes)
{
    struct store *store = worker->store;
    bool large = bytes > store_segment_bytes(store) / 4;
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
        uint64_t credit = room / (4 * (uint64_t)store_peek(&store->workers_attached));
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
    more = store_drain_expired(worker, TICK_SEGMENTS, 8 * STORE_SLICE) || more;
    more = store_pages_tick(store) || more;
    end_maintain(store);
    return more;
}
