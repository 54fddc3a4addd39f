/* SPDX-License-Identifier: MIT */
/*
 * The arena: where items lie, and how room is made for new ones. Called by the store's operations, under
 * its lock; the picture of tiles, gap and segments stands in store_impl.h.
 *
 * Invariants:
 * - The tiles cover the arena without holes. The gap, unless empty, is one dead tile.
 * - store_segment.live and .first are exact; .min_expiry is a lower bound.
 * - Bytes of a tile that touches only pinned segments are not written, but for its header.
 * - Each loop passes the segments at most once or twice.
 */
#include <string.h>

#include "server/store/store_impl.h"

static uint64_t segment_size(const struct store *store)
{
    return (uint64_t)1 << store->segment_shift;
}

static uint64_t dead_bytes(const struct store *store, uint32_t segment)
{
    return segment_size(store) - store->segments[segment].live;
}

/* ---- tiles ---- */

static void note_start(struct store *store, uint64_t offset)
{
    struct store_segment *segment = &store->segments[store_segment_of(store, offset)];
    uint32_t within = (uint32_t)(offset & (segment_size(store) - 1));
    if (within < segment->first)
        segment->first = within;
}

/* Adds the bytes of a tile to the segments that it touches, or takes them away. */
static void account(struct store *store, uint64_t offset, uint64_t size, bool live)
{
    for (uint64_t at = offset, end = offset + size; at < end;) {
        uint32_t segment = store_segment_of(store, at);
        uint64_t next = store_segment_base(store, segment + 1);
        uint32_t part = (uint32_t)((next < end ? next : end) - at);
        if (live)
            store->segments[segment].live += part;
        else
            store->segments[segment].live -= part;
        at = next;
    }
}

/* The tiles of [start, end) are no more; the caller writes new ones. Both are starts of tiles. */
static void forget_tiles(struct store *store, uint64_t start, uint64_t end)
{
    uint32_t last = store_segment_of(store, end - 1);
    for (uint32_t i = store_segment_of(store, start) + 1; i <= last; i++)
        store->segments[i].first = STORE_NO_TILE;
    if (end < store->arena_size)
        note_start(store, end);
}

static void write_dead_tile(struct store *store, uint64_t start, uint64_t end)
{
    if (start < end) {
        store_item_at(store, start)->head = end - start;
        note_start(store, start);
    }
}

void store_arena_note_expiry(struct store *store, uint64_t offset, uint64_t expiry)
{
    struct store_segment *segment = &store->segments[store_segment_of(store, offset)];
    if (expiry < segment->min_expiry)
        segment->min_expiry = expiry;
    if (expiry < store->expiry_due)
        store->expiry_due = expiry;
}

void store_arena_drop(struct store *store, uint64_t *link)
{
    uint64_t offset = store_link_offset(*link);
    struct store_item *item = store_item_at(store, offset);
    store_index_remove(store, link);
    item->head &= ~STORE_TILE_LIVE;
    account(store, offset, item->head, false);
    store->live -= item->head;
    store->items--;
}

uint64_t store_arena_take(struct store *store, uint64_t size)
{
    uint64_t offset = store->gap;
    assert(size <= store->gap_end - offset);
    store->gap += size;
    write_dead_tile(store, store->gap, store->gap_end);
    store_item_at(store, offset)->head = size | STORE_TILE_LIVE;
    account(store, offset, size, true);
    store->live += size;
    store->items++;
    return offset;
}

/* ---- windows ----
 *
 * A window is all the tiles that touch a row of unpinned segments. Those at its ends may reach into pinned
 * segments; they are free all the same, as a view holds every segment of its tile.
 */

/* The start of the tile that covers the first byte of a segment. */
static uint64_t tile_at_base(const struct store *store, uint32_t segment)
{
    uint64_t base = store_segment_base(store, segment);
    if (store->segments[segment].first == 0)
        return base;
    do
        segment--; /* Ends at 0 at the latest: there a tile starts with the arena. */
    while (store->segments[segment].first == STORE_NO_TILE);
    uint64_t at = store_segment_base(store, segment) + store->segments[segment].first;
    for (uint64_t next; (next = at + store_tile_size(store_item_at(store, at))) < base;)
        at = next;
    return at;
}

/* The end of the tile that covers the last byte of a segment. */
static uint64_t tile_end_at_limit(const struct store *store, uint32_t segment)
{
    while (++segment < store->segment_count) {
        if (store->segments[segment].first != STORE_NO_TILE)
            return store_segment_base(store, segment) + store->segments[segment].first;
    }
    return store->arena_size;
}

static void move_item(struct store *store, uint64_t from, uint64_t to)
{
    struct store_item *item = store_item_at(store, from);
    uint64_t size = store_tile_size(item);
    if (from != to) {
        store_index_move(store_index_link_to(store, from), to);
        account(store, from, size, false);
        memmove(store->arena + to, item, size);
        account(store, to, size, true);
    }
    note_start(store, to);
    store_arena_note_expiry(store, to, store_item_at(store, to)->expiry);
}

/* Empties a window: the live items are dropped, or slide to its start; the rest becomes the gap. */
static void empty_window(struct store *store, uint64_t start, uint64_t end, bool evict)
{
    forget_tiles(store, start, end);
    uint64_t to = start;
    for (uint64_t from = start, size; from < end; from += size) {
        struct store_item *item = store_item_at(store, from);
        size = store_tile_size(item);
        if (!store_tile_live(item))
            continue;
        if (store_item_expired(store, item)) {
            store_arena_drop(store, store_index_link_to(store, from));
            store->expirations++;
        } else if (evict) {
            store_arena_drop(store, store_index_link_to(store, from));
            store->evictions++;
        } else {
            move_item(store, from, to);
            to += size;
        }
    }
    write_dead_tile(store, to, end);
    store->gap = to;
    store->gap_end = end;
}

static bool gap_fits(const struct store *store, uint64_t size)
{
    return store->gap_end - store->gap >= size;
}

/* ---- making room ---- */

/* Finds the shortest window of at most max_len unpinned segments that has `want` dead bytes. */
static bool find_dead_window(const struct store *store, uint64_t want, uint32_t max_len,
                             uint32_t *first, uint32_t *last)
{
    bool found = false;
    uint32_t low = 0;
    uint64_t dead = 0; /* In the segments [low, high]. */
    for (uint32_t high = 0; high < store->segment_count; high++) {
        if (store_segment_pinned(&store->segments[high])) {
            low = high + 1;
            dead = 0;
            continue;
        }
        dead += dead_bytes(store, high);
        for (; dead >= want; dead -= dead_bytes(store, low++)) {
            if (high - low < max_len) {
                max_len = high - low;
                *first = low;
                *last = high;
                found = true;
            }
        }
    }
    return found;
}

/* Slides the shortest window that yields enough; a segment's worth at once, if there is as much. */
static bool gather(struct store *store, uint64_t size, uint64_t ample, uint32_t max_len)
{
    uint32_t first, last;
    if (!find_dead_window(store, ample, max_len, &first, &last) &&
        !find_dead_window(store, size, max_len, &first, &last))
        return false;
    empty_window(store, tile_at_base(store, first), tile_end_at_limit(store, last), false);
    assert(gap_fits(store, size));
    return true;
}

/* Where eviction starts that is to empty a segment. */
static uint64_t eviction_start(const struct store *store, uint32_t segment)
{
    /* A gap that ends here is used up to its end, and what was just written before it stays. */
    return store_segment_of(store, store->gap_end) == segment ? store->gap : tile_at_base(store, segment);
}

/* Drops what lies at the hand, the oldest in about this order; one turn of the arena at most. */
static bool evict_at_hand(struct store *store, uint64_t size)
{
    uint32_t count = store->segment_count;
    uint32_t first = store->hand;
    for (uint32_t passed = 0; passed < count;) {
        uint64_t start = eviction_start(store, first);
        uint32_t last = first;
        for (; last < count && !store_segment_pinned(&store->segments[last]); last++) {
            if (store_segment_base(store, last + 1) - start < size)
                continue;
            uint64_t end = tile_end_at_limit(store, last);
            empty_window(store, start, end, true);
            store->hand = end == store->arena_size ? 0 : store_segment_of(store, end);
            return true;
        }
        passed += last < count ? last + 1 - first : count - first;
        first = last + 1 < count ? last + 1 : 0;
    }
    return false;
}

bool store_arena_make_room(struct store *store, uint64_t size)
{
    if (gap_fits(store, size))
        return true;
    uint64_t ample = size > segment_size(store) ? size : segment_size(store);
    if (store->config.eviction == STORE_EVICT) {
        /* Where at least half is dead, gathering costs less than what it saves. */
        uint32_t max_len = 2 * store_segment_of(store, ample + segment_size(store) - 1);
        if (gather(store, ample, ample, max_len) || evict_at_hand(store, size))
            return true;
    }
    return gather(store, size, ample, store->segment_count);
}

/* ---- expiry, flush ---- */

bool store_arena_expire(struct store *store, uint32_t segment, unsigned limit)
{
    struct store_segment *here = &store->segments[segment];
    uint64_t earliest = STORE_NEVER;
    uint64_t end = store_segment_base(store, segment + 1);
    uint64_t at = here->first == STORE_NO_TILE ? end : store_segment_base(store, segment) + here->first;
    for (uint64_t size; at < end; at += size) {
        struct store_item *item = store_item_at(store, at);
        size = store_tile_size(item);
        if (!store_tile_live(item))
            continue;
        if (store_item_expired(store, item)) {
            if (limit-- == 0)
                return false;
            store_arena_drop(store, store_index_link_to(store, at));
            store->expirations++;
        } else if (item->expiry < earliest) {
            earliest = item->expiry;
        }
    }
    here->min_expiry = earliest;
    return true;
}

bool store_arena_any_pinned(const struct store *store)
{
    for (uint32_t i = 0; i < store->segment_count; i++) {
        if (store_segment_pinned(&store->segments[i]))
            return true;
    }
    return false;
}

void store_arena_init(struct store *store)
{
    for (uint32_t i = 0; i < store->segment_count; i++)
        store->segments[i] =
            (struct store_segment){.min_expiry = STORE_NEVER, .first = STORE_NO_TILE};
    store->gap = 0;
    store->gap_end = store->arena_size;
    write_dead_tile(store, store->gap, store->gap_end);
}

/* Marks the tiles dead that start in [start, end). */
static void kill_tiles(struct store *store, uint64_t start, uint64_t end)
{
    for (uint64_t at = start; at < end;) {
        struct store_item *item = store_item_at(store, at);
        item->head &= ~STORE_TILE_LIVE;
        at += item->head;
    }
}

void store_arena_clear(struct store *store)
{
    uint32_t count = store->segment_count;
    for (uint32_t first = 0, last; first < count; first = last + 1) {
        last = first;
        if (store_segment_pinned(&store->segments[first])) {
            /* What is held must stay where it is: only the headers change. */
            if (store->segments[first].first != STORE_NO_TILE)
                kill_tiles(store, store_segment_base(store, first) + store->segments[first].first,
                           store_segment_base(store, first + 1));
            continue;
        }
        while (last + 1 < count && !store_segment_pinned(&store->segments[last + 1]))
            last++;
        uint64_t start = tile_at_base(store, first), end = tile_end_at_limit(store, last);
        forget_tiles(store, start, end);
        write_dead_tile(store, start, end);
        if (start < store->gap_end && store->gap < end)
            store->gap = store->gap_end = 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        store->segments[i].live = 0;
        store->segments[i].min_expiry = STORE_NEVER;
    }
    store->live = 0;
    store->items = 0;
    store->hand = 0;
}
