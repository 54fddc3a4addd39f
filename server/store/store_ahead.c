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
 * large items and the index get their bytes, as if they had been used before. The index is charged a little further than it
 * reaches, in stores of 64 MiB and more. So the limit holds, and when the memory is full there is nothing left to be done.
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

#define INDEX_SHARE 16U /* Of what is touched ahead: that much of buckets, and of overflow buckets. */
#define GHOSTS_FROM 16U /* Ghosts are touched when 1/16 of the memory is in use. */

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

static bool touch_index(struct store *store)
{
    uint64_t from, bytes = store_index_ahead(store, store->ahead / INDEX_SHARE, &from);
    if (!touch(store, from, bytes))
        return false;
    bytes = store_overflow_ahead(store, store->ahead / INDEX_SHARE, &from);
    return touch(store, from, bytes);
}

void store_ahead_run(struct store *store)
{
    bool ghosts = false;
    pthread_mutex_lock(&store->mutex);
    while (!store->ahead_stop) {
        if (!store_ahead_due(store)) {
            pthread_cond_wait(&store->ahead_wanted, &store->mutex);
            continue;
        }
        bool many = store->committed > store->limit / GHOSTS_FROM;
        pthread_mutex_unlock(&store->mutex);
        uint32_t first, count = store_ahead_begin(store, &first);
        bool good = store_ahead_end(store, first, count) && touch_index(store);
        if (good && many && !ghosts) {
            uint64_t at = (uint64_t)((uint8_t *)store->ghosts - store->base);
            good = ghosts = touch(store, at, store->fixed - at);
        }
        pthread_mutex_lock(&store->mutex);
        if (!good)
            store->ahead = 0; /* Nothing is due from now on. */
    }
    pthread_mutex_unlock(&store->mutex);
}

void store_ahead_stop(struct store *store)
{
    pthread_mutex_lock(&store->mutex);
    store->ahead_stop = true;
    pthread_cond_signal(&store->ahead_wanted);
    pthread_mutex_unlock(&store->mutex);
}
