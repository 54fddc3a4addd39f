/* SPDX-License-Identifier: MIT */
/*
 * Items too large for a segment: pages of their own, in a range of addresses four times the memory, so that a run of
 * addresses is found without moving anything. Charged to the same budget as all else, page by page.
 *
 *     page n                                    page n + pages
 *     | struct store_large | item . . . . . . . | (next item)
 *
 * The page map has a bit for each page of the range. Large items are in a FIFO of their own, in which one that was
 * read gets another turn; its head competes with the oldest segment by age (store_evict.c).
 *
 * Invariants: bits, list and budget change under the mutex; a large item is never moved, has an expiry field always
 * (so EXPIRE never needs to copy it), and its pages go back to the kernel as soon as they are free.
 */
#include <sys/mman.h>

#include "server/store/store_impl.h"

#define RECLAIM_AT_ONCE 16U
#define LOOK_AT_ONCE    1024U

/* store_large.listed */
#define LARGE_GONE   0U
#define LARGE_LISTED 1U
#define LARGE_READY  2U /* Retired, and only pins hold it. */

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
    } else {
        mark_pages(store, page, pages, true);
        store->large_bytes += pages * STORE_PAGE;
    }
    pthread_mutex_unlock(&store->mutex);
    if (page == STORE_NONE)
        return false;
    struct store_large *large = store_large_at(store, page);
    large->pages = (uint32_t)pages;
    large->seq = __atomic_add_fetch(&store->seq, 1, __ATOMIC_SEQ_CST);
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

/* Frees pages. The mutex is held. */
static void free_pages(struct store *store, uint32_t page)
{
    struct store_large *large = store_large_at(store, page);
    uint64_t pages = large->pages;
    madvise(large, pages * STORE_PAGE, MADV_DONTNEED);
    mark_pages(store, page, pages, false);
    store->large_bytes -= pages * STORE_PAGE;
    store->committed -= pages * STORE_PAGE;
}

void store_large_drop(struct store *store, uint32_t page)
{
    pthread_mutex_lock(&store->mutex);
    free_pages(store, page);
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

void store_large_reclaim(struct store *store, uint64_t epoch)
{
    uint32_t next = store->large_retired.head;
    unsigned freed = 0;
    for (unsigned i = 0; i < LOOK_AT_ONCE && freed < RECLAIM_AT_ONCE && next != STORE_NONE; i++) {
        struct store_large *large = store_large_at(store, next);
        uint32_t page = next;
        next = large->next;
        if (large->retired_at > epoch)
            break;
        if (large->listed != LARGE_READY)
            store->retired_large_bytes -= (uint64_t)large->pages * STORE_PAGE;
        large->listed = LARGE_READY;
        if (store_load(&large->pins) != 0)
            continue;
        list_remove(store, &store->large_retired, page);
        free_pages(store, page);
        freed++;
    }
}
