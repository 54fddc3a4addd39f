/* SPDX-License-Identifier: MIT */
/*
 * Touching memory ahead of those who write. The first touch of a huge page costs 0.1 ms, as the kernel zeroes it, and
 * some milliseconds on a virtual machine whose host has yet to find the memory. A thread that does nothing else pays for
 * that while the store grows, so that no request does.
 *
 *     segments:  | in use . . . . . . . | free, touched | fresh: never touched . . . . . . |
 *                                        <-- ahead --->
 *
 * Segments are touched when they are in the list of free ones already, charged as all of these are: writers take them, and
 * large items and the index get their bytes, as if they had been used before. So the limit holds, and when
 * the memory is full only the index is left to be touched: the next huge page of it, shortly before it is reached. That is not
 * charged before it is, but no more than a huge page that is reached in part, of which the rest is resident, too.
 *
 * Invariants: touching never changes a byte, so that it does not matter who uses the memory meanwhile; what was given back
 * to the kernel while it was touched is given back again.
 */
#include <errno.h>
#include <sys/mman.h>

#include "server/store/store_impl.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Since Linux 5.14. */
#endif

#define INDEX_AHEAD ((uint64_t)1 << 20) /* Bytes of buckets to go, when the next huge page of them is touched. */
#define GHOSTS_FROM 16U                 /* Ghosts are touched when 1/16 of the memory is in use. */

/* Lets the kernel find the pages of [from, from + bytes). Answers false where it does not know how. */
static bool touch(const struct store *store, uint64_t from, uint64_t bytes)
{
    uint64_t at = from / STORE_PAGE * STORE_PAGE, end = (from + bytes + STORE_PAGE - 1) / STORE_PAGE * STORE_PAGE;
    for (uint64_t step; at < end; at += step) {
        step = end - at < STORE_HUGE_PAGE ? end - at : STORE_HUGE_PAGE;
        if (madvise(store_at(store, at), step, MADV_POPULATE_WRITE) != 0 && errno != EINTR && errno != EAGAIN)
            return false;
    }
    return true;
}

uint32_t store_ahead_begin(struct store *store, uint32_t *first)
{
    uint32_t count = 0;
    uint64_t size = store_segment_bytes(store);
    pthread_mutex_lock(&store->mutex);
    *first = store->fresh;
    while (store->fresh < store->segment_count && store->committed + size <= store->limit) {
        uint32_t segment = store->fresh;
        store_poke(&store->fresh, segment + 1);
        store->committed += size;
        store_publish(&store->segments[segment].state, (uint8_t)SEGMENT_FREE);
        store_list_push(store, &store->free, segment);
        count++;
        if (store_segment_location(store, segment + 1) % STORE_HUGE_PAGE == 0 || count * size >= store->ahead)
            break;
    }
    store_update_available(store);
    pthread_mutex_unlock(&store->mutex);
    return count;
}

bool store_ahead_end(struct store *store, uint32_t first, uint32_t count)
{
    bool good = touch(store, store_segment_location(store, first), (uint64_t)count << store->segment_shift);
    pthread_mutex_lock(&store->mutex);
    for (uint32_t i = first; i < first + count; i++) {
        if (store_load(&store->segments[i].state) == SEGMENT_UNUSED)
            madvise(store_at(store, store_segment_location(store, i)), store_segment_bytes(store), MADV_DONTNEED);
    }
    pthread_mutex_unlock(&store->mutex);
    return good;
}

/* ---- the index ---- */

/* A table of the index: where it is, how far it is charged, and how far it may grow. */
struct table {
    uint64_t at, charged, most;
};

static struct table table_of(const struct store *store, unsigned which)
{
    const struct store_bucket *buckets = which == 0 ? store->buckets : store->overflow;
    uint64_t charged = store_peek(which == 0 ? &store->bucket_charged : &store->overflow_charged);
    return (struct table){.at = (uint64_t)((const uint8_t *)buckets - store->base),
                          .charged = charged * sizeof(struct store_bucket),
                          .most = (which == 0 ? store->bucket_max : store->overflow_max) * sizeof(struct store_bucket)};
}

/* How far a table should be touched: small pages are no trouble, and are left alone. */
static uint64_t goal_of(const struct store *store, unsigned which)
{
    struct table table = table_of(store, which);
    if (!(which == 0 ? store->huge : store->huge_overflow) || store_peek(&store->ahead) == 0)
        return 0;
    uint64_t goal = (table.charged + INDEX_AHEAD + STORE_HUGE_PAGE - 1) / STORE_HUGE_PAGE * STORE_HUGE_PAGE;
    return goal < table.most ? goal : table.most;
}

static bool touch_index(struct store *store)
{
    bool good = true;
    for (unsigned which = 0; which < 2 && good; which++) {
        uint64_t from = store->ahead_touched[which], goal = goal_of(store, which);
        if (goal > from) {
            good = touch(store, table_of(store, which).at + from, goal - from);
            store_poke(&store->ahead_touched[which], goal);
        }
    }
    return good;
}

static bool index_wanted(const struct store *store)
{
    return store_peek(&store->ahead_touched[0]) < goal_of(store, 0) ||
           store_peek(&store->ahead_touched[1]) < goal_of(store, 1);
}

void store_ahead_tell(struct store *store)
{
    if (!index_wanted(store))
        return;
    pthread_mutex_lock(&store->mutex);
    pthread_cond_signal(&store->ahead_call);
    pthread_mutex_unlock(&store->mutex);
}

/* ---- the thread ---- */

bool store_ahead_wanted(const struct store *store)
{
    return store_ahead_due(store) || index_wanted(store);
}

/* Touches segments, if any are due. */
static bool touch_segments(struct store *store, bool due)
{
    uint32_t first, count = due ? store_ahead_begin(store, &first) : 0;
    return count == 0 || store_ahead_end(store, first, count);
}

void store_ahead_run(struct store *store)
{
    bool ghosts = false;
    pthread_mutex_lock(&store->mutex);
    while (!store->ahead_stop) {
        if (!store_ahead_wanted(store)) {
            pthread_cond_wait(&store->ahead_call, &store->mutex);
            continue;
        }
        bool due = store_ahead_due(store), many = store->committed > store->limit / GHOSTS_FROM;
        pthread_mutex_unlock(&store->mutex);
        bool good = touch_segments(store, due) && touch_index(store);
        if (good && many && !ghosts) {
            uint64_t at = (uint64_t)((uint8_t *)store->ghosts - store->base);
            good = ghosts = touch(store, at, store->fixed - at);
        }
        pthread_mutex_lock(&store->mutex);
        if (!good)
            store_poke(&store->ahead, (uint64_t)0); /* Nothing is due from now on. */
    }
    pthread_mutex_unlock(&store->mutex);
}

void store_ahead_stop(struct store *store)
{
    pthread_mutex_lock(&store->mutex);
    store->ahead_stop = true;
    pthread_cond_signal(&store->ahead_call);
    pthread_mutex_unlock(&store->mutex);
}
