/* SPDX-License-Identifier: MIT */
/*
 * Items too large for a segment: pages of their own, in a range of addresses four times the memory, so that a run of
 * addresses is found without moving anything. Charged to the same budget as all else, page by page.
 *
 *     page n                                    page n + pages
 *     | struct store_large | item . . . . . . . | (next item)
 *
 * The page map has a bit for each page of the range, and another one where an item starts. Large items have a FIFO for
 * each pool, whose head competes with the pool's oldest segment by age (store_evict.c). If what survives leaves no run
 * of pages that is long enough, then what stands in the emptiest one is evicted, however often it was read, unless it is
 * pinned or not yet whole: then the next one is looked at. With STORE_REFUSE such a put is refused.
 *
 * Invariants: bits, list and budget change under the mutex; a large item is never moved, has room for any expiry always
 * (so EXPIRE never needs to copy it), and its pages go back to the kernel as soon as they are free, from its end on, in
 * slices, outside of the mutex.
 */
#include <sys/mman.h>

#include "server/store/store_impl.h"

#define DISCARD_AT_ONCE 512U  /* Pages that one call gives back to the kernel: a fraction of a millisecond. */
#define LOOK_AT_ONCE    1024U
#define OBSTACLES_MOST  8U /* Items that cannot be evicted, past which a run is looked for. */
#define NO_RUN          UINT64_MAX

/* store_large.listed */
#define LARGE_GONE   0U /* Retired, and counted in retired_large_bytes. */
#define LARGE_LISTED 1U
#define LARGE_HELD   2U /* Retired, and only pins hold it: not counted. */
#define LARGE_BUSY   3U /* Pages of it are being given back, outside of the mutex. */

uint64_t store_large_pages(uint64_t item_bytes)
{
    return (sizeof(struct store_large) + item_bytes + STORE_PAGE - 1) / STORE_PAGE;
}

/* ---- the page map; the mutex is held ---- */

static bool page_taken(const struct store *store, uint64_t page)
{
    return (store->page_map[page / 64] >> page % 64 & 1) != 0;
}

static void mark_pages(struct store *store, uint64_t page, uint64_t pages, bool taken)
{
    for (uint64_t end = page + pages; page < end;) {
        uint64_t bits = 64 - page % 64 < end - page ? 64 - page % 64 : end - page;
        uint64_t mask = (bits == 64 ? ~(uint64_t)0 : ((uint64_t)1 << bits) - 1) << page % 64;
        if (taken)
            store->page_map[page / 64] |= mask;
        else
            store->page_map[page / 64] &= ~mask;
        page += bits;
    }
}

/* An item begins here, or does so no more. */
static void mark_start(struct store *store, uint64_t page, bool begins)
{
    uint64_t bit = (uint64_t)1 << page % 64;
    store->page_starts[page / 64] = begins ? store->page_starts[page / 64] | bit : store->page_starts[page / 64] & ~bit;
}

/* A run of free pages that starts in [from, end), or STORE_NONE. */
static uint32_t find_pages(const struct store *store, uint64_t from, uint64_t end, uint64_t pages)
{
    uint64_t run = 0;
    for (uint64_t page = from; page < store->large_pages && page - run < end;) {
        if (page % 64 == 0 && page + 64 <= store->large_pages) {
            uint64_t word = store->page_map[page / 64];
            if (word == ~(uint64_t)0 || (word == 0 && run + 64 < pages)) {
                run = word == 0 ? run + 64 : 0;
                page += 64;
                continue;
            }
        }
        run = page_taken(store, page) ? 0 : run + 1;
        page++;
        if (run == pages)
            return (uint32_t)(page - run);
    }
    return STORE_NONE;
}

/* Runs of pages between items that cannot be evicted now: those that are being received, or pinned. */
struct gaps {
    uint64_t from[OBSTACLES_MOST + 1], end[OBSTACLES_MOST + 1]; /* In order. */
    unsigned count;
};

static void cut_out(struct gaps *gaps, uint64_t from, uint64_t end)
{
    unsigned at = 0;
    while (at + 1 < gaps->count && gaps->end[at] <= from)
        at++;
    for (unsigned i = gaps->count++; i > at + 1; i--) {
        gaps->from[i] = gaps->from[i - 1];
        gaps->end[i] = gaps->end[i - 1];
    }
    gaps->from[at + 1] = end;
    gaps->end[at + 1] = gaps->end[at];
    gaps->end[at] = from;
}

/* In [from, end): the start of a run of pages, of which the fewest are taken; `*least` are the fewest found so far. */
static uint64_t emptiest_run(const struct store *store, uint64_t from, uint64_t end, uint64_t pages, uint64_t *least)
{
    uint64_t words = (pages + 63) / 64, first = (from + 63) / 64, best = NO_RUN, taken = 0;
    for (uint64_t word = first; word < end / 64; word++) {
        taken += (uint64_t)__builtin_popcountll(store->page_map[word]);
        if (word >= first + words)
            taken -= (uint64_t)__builtin_popcountll(store->page_map[word - words]);
        if (word + 1 >= first + words && taken < *least) {
            *least = taken;
            best = (word + 1 - words) * 64;
        }
    }
    return best;
}

static bool is_obstacle(const struct store_large *large)
{
    return large->listed == LARGE_BUSY || large->listed == LARGE_HELD || store_load(&large->pins) != 0;
}

/* An item that stands in a run, to be evicted, or STORE_NONE: what is there waits for its end, or is an obstacle. */
static uint32_t item_in(const struct store *store, uint64_t from, uint64_t pages, uint32_t *obstacle)
{
    uint32_t found = STORE_NONE;
    uint64_t page = from;
    while (page > 0 && page_taken(store, page) && (store->page_starts[page / 64] >> page % 64 & 1) == 0)
        page--; /* It may begin before. */
    for (; page < from + pages && page < store->large_pages; page++) {
        uint64_t left = store->page_starts[page / 64] >> page % 64;
        if (left == 0) {
            page |= 63;
        } else if ((left & 1) != 0) {
            const struct store_large *large = store_large_at(store, (uint32_t)page);
            if (is_obstacle(large)) {
                *obstacle = (uint32_t)page;
                return STORE_NONE;
            }
            if (found == STORE_NONE && large->listed == LARGE_LISTED)
                found = (uint32_t)page;
        }
    }
    return found;
}

uint32_t store_large_in_the_way(struct store *store, uint64_t pages)
{
    struct gaps gaps = {.from = {0}, .end = {store->large_pages}, .count = 1};
    uint32_t found = STORE_NONE;
    while (found == STORE_NONE && gaps.count <= OBSTACLES_MOST) {
        uint64_t run = NO_RUN, least = UINT64_MAX;
        uint32_t obstacle = STORE_NONE;
        pthread_mutex_lock(&store->mutex);
        for (unsigned i = 0; i < gaps.count; i++) {
            uint64_t other = emptiest_run(store, gaps.from[i], gaps.end[i], pages, &least);
            run = other != NO_RUN ? other : run;
        }
        if (run != NO_RUN)
            found = item_in(store, run, pages, &obstacle);
        if (obstacle != STORE_NONE)
            cut_out(&gaps, obstacle, obstacle + store_large_at(store, obstacle)->pages);
        pthread_mutex_unlock(&store->mutex);
        if (obstacle == STORE_NONE)
            break;
    }
    return found;
}

/* ---- the list; the mutex is held ---- */

static void list_push(struct store *store, struct store_list *list, uint32_t page)
{
    struct store_large *large = store_large_at(store, page);
    large->next = STORE_NONE;
    large->prev = list->tail;
    if (list->tail == STORE_NONE)
        list->head = page;
    else
        store_large_at(store, list->tail)->next = page;
    list->tail = page;
    list->count++;
}

static void list_remove(struct store *store, struct store_list *list, uint32_t page)
{
    struct store_large *large = store_large_at(store, page);
    if (store->sweep_large == page)
        store->sweep_large = large->next;
    if (large->prev == STORE_NONE)
        list->head = large->next;
    else
        store_large_at(store, large->prev)->next = large->next;
    if (large->next == STORE_NONE)
        list->tail = large->prev;
    else
        store_large_at(store, large->next)->prev = large->prev;
    list->count--;
}

/* ---- life ---- */

bool store_large_place(struct store *store, uint64_t item_bytes, struct store_place *place)
{
    uint64_t pages = store_large_pages(item_bytes);
    if (!store_budget_take(store, pages * STORE_PAGE, store->reserve))
        return false;
    pthread_mutex_lock(&store->mutex);
    /* First fit: what stays for long gathers at the start, and the rest of the range stays in one piece. */
    uint32_t page = find_pages(store, 0, store->large_pages, pages);
    if (page == STORE_NONE) {
        store->committed -= pages * STORE_PAGE;
        store_update_available(store);
        store_poke(&store->large_wanted, store->config.eviction == STORE_EVICT ? pages : 0);
    } else {
        mark_pages(store, page, pages, true);
        mark_start(store, page, true);
        store_large_at(store, page)->listed = LARGE_BUSY; /* Being written. */
        store_large_at(store, page)->pages = (uint32_t)pages;
        store->large_bytes += pages * STORE_PAGE;
    }
    pthread_mutex_unlock(&store->mutex);
    if (page == STORE_NONE)
        return false;
    store_large_at(store, page)->seq = __atomic_add_fetch(&store->seq, 1, __ATOMIC_SEQ_CST);
    uint64_t location = store->large_at + (uint64_t)page * STORE_PAGE + sizeof(struct store_large);
    *place = (struct store_place){.at = store_at(store, location),
                                  .location = location,
                                  .bytes = item_bytes,
                                  .segment = STORE_NONE,
                                  .page = page};
    return true;
}

/* Into a pool, as its youngest. */
static void enqueue(struct store *store, uint32_t page, enum store_pool pool)
{
    struct store_large *large = store_large_at(store, page);
    store_poke(&large->pool, (uint8_t)pool);
    large->order = ++store->orders;
    list_push(store, &store->large[pool], page);
    __atomic_fetch_add(&store->pool_live[pool], (int64_t)large->pages * STORE_PAGE, __ATOMIC_RELAXED);
}

static void dequeue(struct store *store, uint32_t page)
{
    struct store_large *large = store_large_at(store, page);
    list_remove(store, &store->large[large->pool], page);
    __atomic_fetch_sub(&store->pool_live[large->pool], (int64_t)large->pages * STORE_PAGE, __ATOMIC_RELAXED);
}

void store_large_keep(struct store *store, uint32_t page, enum store_pool pool)
{
    uint64_t unused[POOL_COUNT];
    pthread_mutex_lock(&store->mutex);
    store_large_at(store, page)->listed = LARGE_LISTED;
    enqueue(store, page, pool);
    (void)store_weigh_pools(store, unused);
    pthread_mutex_unlock(&store->mutex);
    store_earn(store, (uint64_t)store_large_at(store, page)->pages * STORE_PAGE);
}

/* Gives an item's last pages back, all if `count` is as many; the memory itself is back already. The mutex is held. */
static void free_pages(struct store *store, uint32_t page, uint64_t first, uint64_t count)
{
    mark_pages(store, first, count, false);
    if (first == page)
        mark_start(store, page, false);
    store->large_bytes -= count * STORE_PAGE;
    store->committed -= count * STORE_PAGE;
}

void store_large_renew(struct store *store, uint32_t page)
{
    store_large_at(store, page)->seq = __atomic_add_fetch(&store->seq, 1, __ATOMIC_SEQ_CST);
}

void store_large_drop(struct store *store, uint32_t page)
{
    uint64_t pages = store_large_at(store, page)->pages;
    madvise(store_large_at(store, page), pages * STORE_PAGE, MADV_DONTNEED);
    pthread_mutex_lock(&store->mutex);
    free_pages(store, page, page, pages);
    store_update_available(store);
    pthread_mutex_unlock(&store->mutex);
}

void store_large_retire(struct store *store, uint32_t page)
{
    pthread_mutex_lock(&store->mutex);
    struct store_large *large = store_large_at(store, page);
    assert(large->listed == LARGE_LISTED);
    dequeue(store, page);
    large->listed = LARGE_GONE;
    large->retired_at = __atomic_add_fetch(&store->epoch, 1, __ATOMIC_SEQ_CST);
    list_push(store, &store->large_retired, page);
    store->retired_large_bytes += (uint64_t)large->pages * STORE_PAGE;
    pthread_mutex_unlock(&store->mutex);
}

void store_large_requeue(struct store *store, uint32_t page, enum store_pool pool)
{
    pthread_mutex_lock(&store->mutex);
    if (store_large_at(store, page)->listed == LARGE_LISTED) {
        dequeue(store, page);
        enqueue(store, page, pool);
    }
    pthread_mutex_unlock(&store->mutex);
}

/* A retired item that nobody holds, or STORE_NONE. The mutex is held. */
static uint32_t find_retired(struct store *store, uint64_t epoch)
{
    uint32_t page = store->large_retired.head;
    for (unsigned i = 0; i < LOOK_AT_ONCE && page != STORE_NONE; i++) {
        struct store_large *large = store_large_at(store, page);
        uint64_t bytes = (uint64_t)large->pages * STORE_PAGE;
        if (large->retired_at > epoch)
            break;
        bool held = store_load(&large->pins) != 0;
        if (held && large->listed == LARGE_GONE) {
            large->listed = LARGE_HELD;
            store->retired_large_bytes -= bytes;
        } else if (!held && large->listed == LARGE_HELD) {
            large->listed = LARGE_GONE;
            store->retired_large_bytes += bytes;
        }
        if (large->listed == LARGE_GONE)
            return page;
        page = large->next;
    }
    return STORE_NONE;
}

void store_large_reclaim(struct store *store, uint64_t epoch)
{
    for (uint64_t left = DISCARD_AT_ONCE; left > 0;) {
        pthread_mutex_lock(&store->mutex);
        uint32_t page = find_retired(store, epoch);
        if (page == STORE_NONE) {
            pthread_mutex_unlock(&store->mutex);
            return;
        }
        struct store_large *large = store_large_at(store, page);
        uint32_t count = large->pages < left ? large->pages : (uint32_t)left;
        uint32_t rest = large->pages - count, first = page + rest;
        large->listed = LARGE_BUSY;
        if (rest == 0)
            list_remove(store, &store->large_retired, page);
        pthread_mutex_unlock(&store->mutex);
        madvise(store_large_at(store, first), (uint64_t)count * STORE_PAGE, MADV_DONTNEED);
        pthread_mutex_lock(&store->mutex);
        free_pages(store, page, first, count);
        store->retired_large_bytes -= (uint64_t)count * STORE_PAGE;
        if (rest != 0) {
            large->pages = rest;
            large->listed = LARGE_GONE;
        }
        store_update_available(store);
        pthread_mutex_unlock(&store->mutex);
        left -= count;
    }
}
