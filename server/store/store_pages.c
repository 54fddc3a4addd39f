/* SPDX-License-Identifier: MIT */
/*
 * The pages of large items: a range of addresses four times the memory, so that a run of pages is found without moving
 * anything. Each page is one of
 *
 *     taken    by an item; charged
 *     idle     by no item any more, but the kernel has not got it back: charged, too
 *     unbacked                                                         not charged
 *
 * Taking memory from the kernel costs ten times as much as writing to it, so who takes a run gets idle pages where there
 * are any, the run that was freed last if that is as long. Idle pages are free memory to everybody else: who needs their
 * bytes for segments or the index gives them back (store_pages_trim), the last ones first, outside of the mutex. What
 * nobody has needed for IDLE_MS goes back anyhow, a slice at a time (store_pages_tick).
 *
 * Invariants: bits and budget change under the mutex; a page is never both taken and idle; what is being given back
 * is marked as taken meanwhile, but counts as idle, so that what others find free is never too little.
 */
#include <sys/mman.h>

#include "server/store/store_impl.h"

#define IDLE_MS      1000U
#define TRIM_AT_ONCE 512U /* Pages that go back to the kernel in one call: a fraction of a millisecond. */

/* ---- bits ---- */

static bool bit_of(const uint64_t *map, uint64_t page)
{
    return (map[page / 64] >> page % 64 & 1) != 0;
}

/* Sets or clears the bits of a run. Answers how many were set before. */
static uint64_t set_bits(uint64_t *map, uint64_t page, uint64_t pages, bool to)
{
    uint64_t before = 0;
    for (uint64_t end = page + pages; page < end;) {
        uint64_t bits = 64 - page % 64 < end - page ? 64 - page % 64 : end - page;
        uint64_t mask = (bits == 64 ? ~(uint64_t)0 : ((uint64_t)1 << bits) - 1) << page % 64;
        uint64_t *word = &map[page / 64];
        before += (uint64_t)__builtin_popcountll(*word & mask);
        *word = to ? *word | mask : *word & ~mask;
        page += bits;
    }
    return before;
}

/* How many bits from `page` on, up to the end of its word, are the same as `bit`. */
static uint64_t same_bits(const uint64_t *map, uint64_t page, bool bit)
{
    uint64_t word = (bit ? ~map[page / 64] : map[page / 64]) >> page % 64;
    return word == 0 ? 64 - page % 64 : (uint64_t)__builtin_ctzll(word);
}

/* The length of the free run at `page`, as far as it matters. */
static uint64_t free_from(const struct store *store, uint64_t page, uint64_t most)
{
    uint64_t count = 0;
    while (count < most && page + count < store->large_pages) {
        uint64_t at = page + count, same = same_bits(store->page_map, at, false);
        count += same;
        if (at % 64 + same < 64)
            break;
    }
    return count < most ? count : most;
}

bool store_pages_taken(const struct store *store, uint64_t page)
{
    return bit_of(store->page_map, page);
}

/* ---- runs; the mutex is held ---- */

/* A run of that length that was freed lately, or STORE_NONE. */
static uint32_t find_freed(const struct store *store, uint64_t pages)
{
    for (unsigned i = 1; i <= STORE_FREED; i++) {
        const struct store_run *run = &store->freed[(store->freed_next - i) % STORE_FREED];
        if (run->pages == pages && free_from(store, run->page, pages) == pages)
            return run->page;
    }
    return STORE_NONE;
}

uint32_t store_pages_find(const struct store *store, uint64_t pages)
{
    uint32_t freed = find_freed(store, pages);
    if (freed != STORE_NONE)
        return freed;
    /* First fit: what stays for long gathers at the start, and the rest of the range stays in one piece. */
    for (uint64_t page = 0; page < store->large_pages;) {
        page += same_bits(store->page_map, page, true);
        if (page >= store->large_pages || store_pages_taken(store, page))
            continue;
        uint64_t run = free_from(store, page, pages);
        if (run == pages)
            return (uint32_t)page;
        page += run;
    }
    return STORE_NONE;
}

uint64_t store_pages_unbacked(const struct store *store, uint32_t page, uint64_t pages)
{
    uint64_t count = 0;
    for (uint64_t at = page; at < page + pages;) {
        uint64_t same = same_bits(store->page_idle, at, false), left = page + pages - at;
        count += same < left ? same : left;
        at += same;
        if (at < page + pages)
            at += same_bits(store->page_idle, at, true);
    }
    return count;
}

static void give_up_idle(struct store *store, uint64_t pages)
{
    store->idle_bytes -= pages * STORE_PAGE;
    if (store->idle_bytes < store->idle_least)
        store->idle_least = store->idle_bytes;
}

void store_pages_take(struct store *store, uint32_t page, uint64_t pages)
{
    uint64_t idle = set_bits(store->page_idle, page, pages, false);
    (void)set_bits(store->page_map, page, pages, true);
    (void)set_bits(store->page_starts, page, 1, true);
    give_up_idle(store, idle);
    store->large_bytes += pages * STORE_PAGE;
    store->committed += (pages - idle) * STORE_PAGE;
}

void store_pages_free(struct store *store, uint32_t page, uint64_t pages)
{
    (void)set_bits(store->page_map, page, pages, false);
    (void)set_bits(store->page_starts, page, 1, false);
    (void)set_bits(store->page_idle, page, pages, true);
    store->idle_bytes += pages * STORE_PAGE;
    store->large_bytes -= pages * STORE_PAGE;
    if (page + pages > store->idle_end)
        store->idle_end = page + pages;
    store->freed[store->freed_next++ % STORE_FREED] = (struct store_run){.page = page, .pages = (uint32_t)pages};
}

/* ---- giving back ---- */

/* The end of the last run of idle pages, 0 if there is none. The mutex is held. */
static uint64_t idle_end(struct store *store)
{
    while (store->idle_end != 0 && !bit_of(store->page_idle, store->idle_end - 1)) {
        bool whole = store->idle_end % 64 == 0 && store->page_idle[store->idle_end / 64 - 1] == 0;
        store->idle_end -= whole ? 64 : 1;
    }
    return store->idle_end;
}

uint64_t store_pages_trim(struct store *store, uint64_t bytes)
{
    uint64_t most = (bytes + STORE_PAGE - 1) / STORE_PAGE, count = 0;
    most = most < TRIM_AT_ONCE ? most : TRIM_AT_ONCE;
    pthread_mutex_lock(&store->mutex);
    uint64_t end = idle_end(store);
    while (count < most && count < end && bit_of(store->page_idle, end - count - 1))
        count++;
    (void)set_bits(store->page_idle, end - count, count, false);
    (void)set_bits(store->page_map, end - count, count, true);
    pthread_mutex_unlock(&store->mutex);
    if (count == 0)
        return 0;
    madvise(store_large_at(store, (uint32_t)(end - count)), count * STORE_PAGE, MADV_DONTNEED);
    pthread_mutex_lock(&store->mutex);
    (void)set_bits(store->page_map, end - count, count, false);
    give_up_idle(store, count);
    store->committed -= count * STORE_PAGE;
    store_update_available(store);
    pthread_mutex_unlock(&store->mutex);
    return count * STORE_PAGE;
}

bool store_pages_tick(struct store *store)
{
    uint64_t now = store_now(store);
    pthread_mutex_lock(&store->mutex);
    if (now - store->idle_since >= IDLE_MS) {
        store->idle_unneeded = store->idle_least;
        store->idle_least = store->idle_bytes;
        store->idle_since = now;
    }
    uint64_t bytes = store->idle_unneeded < store->idle_bytes ? store->idle_unneeded : store->idle_bytes;
    pthread_mutex_unlock(&store->mutex);
    uint64_t done = bytes == 0 ? 0 : store_pages_trim(store, bytes);
    store->idle_unneeded = done < bytes && done != 0 ? bytes - done : 0;
    return store->idle_unneeded != 0;
}
