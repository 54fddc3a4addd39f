/* SPDX-License-Identifier: MIT */
/*
 * Items too large for a segment: pages of their own, charged to the same budget as all else, page by page.
 *
 *     page n                                    page n + pages
 *     | struct store_large | item . . . . . . . | (next item)
 *
 * Which pages those are is for store_pages.c. Large items have a FIFO for each pool, whose head competes with the pool's
 * oldest segment by age (store_evict.c). If what survives leaves no run of pages that is long enough, then what stands in
 * the emptiest one is evicted, however often it was read, unless it is pinned or not yet whole: then the next one is
 * looked at. With STORE_REFUSE such a put is refused.
 *
 * Invariants: list and budget change under the mutex; a large item is never moved, and has room for any expiry always
 * (so EXPIRE never needs to copy it).
 */
#include <sched.h>

#include "server/store/store_impl.h"

#define FREE_AT_ONCE   64U   /* Retired items that become free in one call, */
#define LOOK_AT_ONCE   1024U /* and that are looked at for it. */
#define OBSTACLES_MOST 8U    /* Items that cannot be evicted, past which a run is looked for. */
#define NO_RUN         UINT64_MAX

/* store_large.listed */
#define LARGE_GONE   0U /* Retired, and counted in retired_large_bytes. */
#define LARGE_LISTED 1U
#define LARGE_HELD   2U /* Retired, and only pins hold it: not counted. */
#define LARGE_BUSY   3U /* Being written. */

uint64_t store_large_pages(uint64_t item_bytes)
{
    return (sizeof(struct store_large) + item_bytes + STORE_PAGE - 1) / STORE_PAGE;
}

/* ---- what stands in the way; the mutex is held ---- */

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
    while (page > 0 && store_pages_taken(store, page) && (store->page_starts[page / 64] >> page % 64 & 1) == 0)
        page--; /* It may begin before. */
    for (; page < from + pages && page < store->large_pages; page++) {
        uint64_t left = store->page_starts[page / 64] >> page % 64;
        if (left == 0) {
            page |= 63;
        } else if ((left & 1) != 0) {
            const struct store_large *large = store_large_at(store, (uint32_t)page);
            if (page + large->pages <= from)
                continue; /* What follows it is just being given back. */
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

/*
 * Takes a run of pages, if there is one and the budget allows for it. Answers false if something that is free must be
 * given back first, in which case *page is that run; STORE_NONE: there will be no room.
 */
static bool take_run(struct store *store, uint64_t pages, uint32_t *page)
{
    uint64_t keep = (uint64_t)store->reserve << store->segment_shift;
    *page = STORE_NONE;
    if (store_budget_room(store) < pages * STORE_PAGE + keep)
        return false;
    *page = store_pages_find(store, pages);
    if (*page == STORE_NONE) {
        store_poke(&store->large_wanted, store->config.eviction == STORE_EVICT ? pages : 0);
        return false;
    }
    if (store->committed + store_pages_unbacked(store, *page, pages) * STORE_PAGE > store->limit)
        return false;
    store_pages_take(store, *page, pages);
    *store_large_at(store, *page) = (struct store_large){.pages = (uint32_t)pages, .listed = LARGE_BUSY};
    store_update_available(store);
    return true;
}

bool store_large_place(struct store *store, uint64_t item_bytes, struct store_place *place)
{
    uint64_t pages = store_large_pages(item_bytes);
    uint32_t page;
    store_large_reclaim(store, store_oldest_epoch(store)); /* There may be a run then that needs no new memory. */
    for (bool taken = false; !taken;) {
        pthread_mutex_lock(&store->mutex);
        taken = take_run(store, pages, &page);
        pthread_mutex_unlock(&store->mutex);
        if (page == STORE_NONE)
            return false;
        if (!taken && !store_budget_ease(store, pages * STORE_PAGE))
            sched_yield(); /* Somebody is just about it. */
    }
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

void store_large_renew(struct store *store, uint32_t page)
{
    store_large_at(store, page)->seq = __atomic_add_fetch(&store->seq, 1, __ATOMIC_SEQ_CST);
}

void store_large_drop(struct store *store, uint32_t page)
{
    pthread_mutex_lock(&store->mutex);
    store_pages_free(store, page, store_large_at(store, page)->pages);
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

/* Whether a retired item may become free: nobody holds it. Else it does not count as one that soon will. */
static bool is_let_go(struct store *store, struct store_large *large)
{
    uint64_t bytes = (uint64_t)large->pages * STORE_PAGE;
    bool held = store_load(&large->pins) != 0;
    if (held && large->listed == LARGE_GONE) {
        large->listed = LARGE_HELD;
        store->retired_large_bytes -= bytes;
    } else if (!held && large->listed == LARGE_HELD) {
        large->listed = LARGE_GONE;
        store->retired_large_bytes += bytes;
    }
    return !held;
}

void store_large_reclaim(struct store *store, uint64_t epoch)
{
    pthread_mutex_lock(&store->mutex);
    uint32_t page = store->large_retired.head;
    for (unsigned looked = 0, freed = 0; looked < LOOK_AT_ONCE && freed < FREE_AT_ONCE && page != STORE_NONE; looked++) {
        struct store_large *large = store_large_at(store, page);
        if (large->retired_at > epoch)
            break;
        uint32_t next = large->next;
        if (is_let_go(store, large)) {
            list_remove(store, &store->large_retired, page);
            store->retired_large_bytes -= (uint64_t)large->pages * STORE_PAGE;
            store_pages_free(store, page, large->pages);
            freed++;
        }
        page = next;
    }
    store_update_available(store);
    pthread_mutex_unlock(&store->mutex);
}
