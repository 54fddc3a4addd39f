/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Inside the store: its memory layout, shared by the store's own files and by its tests.
 *
 * One mapping holds everything, so that the limit is kept by construction:
 *
 *     struct store | segments | workers | their view bitmaps || buckets || arena
 *                                                           (|| = next page)
 *
 * The arena is tiled without holes by tiles of a multiple of 8 bytes. A tile's first word is its size, and
 * bit 0 says whether it is a live item; all others are dead: deleted items, or space never used. One dead
 * tile is the *gap*: new items are cut from its start. When the gap is too small, another one is made, by
 * sliding the live items of a window of segments together or (STORE_EVICT) by dropping them.
 *
 *     arena  | item | dead | item | item | gap . . . . . . . . . . . | item | dead | item |
 *            |--- segment 0 ---|--- segment 1 ---|--- segment 2 ---|--- segment 3 ---|
 *
 * Segments cut the arena evenly; a tile may cross them. A segment knows how many of its bytes are live,
 * where the first tile that starts in it is, and who holds views into it: while anybody does, it is
 * "pinned". A view pins every segment of its tile. So a tile of which any segment is unpinned is free to be
 * moved or reused as a whole; one that lies in pinned segments only may be marked dead, but stays as it is.
 * (The gap may come to lie in pinned segments, too, and goes on being filled: nobody has views of its bytes.)
 *
 * The index is an array of links, chained through the items. A link is 0 or the item's place in the arena
 * (in words of 8 bytes, plus 1) with the upper 16 bits of its key's hash on top.
 *
 * @threads Everything here is guarded by store.mutex, except what is said to be fixed or a worker's own.
 */
#ifndef CRABCACHE_STORE_IMPL_H
#define CRABCACHE_STORE_IMPL_H

#include <assert.h>
#include <pthread.h>

#include "server/store/store.h"

#define STORE_SECRET_BYTES 192U
#define STORE_NO_TILE      UINT32_MAX /**< store_segment.first: no tile starts here. */
#define STORE_HELD_MAX     UINT16_MAX /**< Pins of one segment; more are refused. */
#define STORE_TILE_LIVE    ((uint64_t)1)
#define STORE_TAG_MASK     (~(uint64_t)0 << 48)

/** An item; the key's bytes follow, then the value's, then `padding` bytes. */
struct store_item {
    uint64_t head;      /**< Size of the tile, a multiple of 8; bit 0: live. All tiles have this word. */
    uint64_t next;      /**< Link to the next item of the bucket. */
    uint64_t expiry;    /**< Live while now < expiry; or STORE_NEVER. */
    uint64_t version;   /**< Never 0. */
    uint32_t app_flags; /**< The application's. */
    uint16_t key_len;   /**< Bytes of key. */
    uint16_t padding;   /**< Unused bytes at the end, 0 to 7. */
};
static_assert(sizeof(struct store_item) == 40, "the item's header has no holes");
static_assert(STORE_MAX_KEY <= UINT16_MAX, "a key's length fits its field");

struct store_segment {
    uint64_t min_expiry; /**< No item that starts here expires earlier. */
    uint32_t live;       /**< Bytes of live items here. */
    uint32_t first;      /**< Offset of the first tile that starts here, or STORE_NO_TILE. */
    uint16_t views;      /**< Workers that hold a view into it. */
    uint16_t held;       /**< Pins by store_pin(). */
    uint32_t unused;
};

struct store_worker {
    struct store *store; /**< NULL: nobody has attached. */
    uint64_t *views;     /**< A bit for each segment that the worker's views touch. */
    uint32_t first_word; /**< The words of `views` that may have bits: [first_word, end_word). */
    uint32_t end_word;
};

struct store {
    pthread_mutex_t mutex;

    /* Fixed once made. */
    struct store_config config;
    size_t mapped;                  /**< Bytes of the mapping that this struct begins. */
    uint8_t *arena;
    uint64_t arena_size;            /**< segment_count << segment_shift. */
    uint64_t live_limit;            /**< STORE_REFUSE admits live bytes up to here. */
    struct store_segment *segments;
    uint32_t segment_count;
    uint32_t segment_shift;
    uint64_t *buckets;
    uint64_t bucket_mask;
    struct store_worker *workers;
    uint32_t view_words;            /**< Words in each worker's bitmap. */
    uint8_t secret[STORE_SECRET_BYTES];

    uint64_t now;     /**< Read once in each operation, under the mutex. */
    uint64_t version; /**< The last one given out. */

    uint64_t gap;     /**< New items start here... */
    uint64_t gap_end; /**< ...and end here at the latest. */
    uint32_t hand;    /**< The segment that eviction empties next. */
    uint64_t live;    /**< Bytes of live items. */
    uint64_t items;

    uint32_t held_segments; /**< Segments with held > 0. */
    uint32_t sweep_segment; /**< Next segment of the sweep for expired items. */
    bool sweeping;          /**< A sweep is under way. */
    uint64_t sweep_after;   /**< The next sweep starts no earlier than this. */
    uint64_t expiry_due;    /**< No item of a segment that this sweep is done with expires earlier. */

    uint64_t pinned;
    uint64_t hits, misses, puts, deletes, evictions, expirations, refusals;
};

static inline struct store_item *store_item_at(const struct store *store, uint64_t offset)
{
    return (struct store_item *)(void *)(store->arena + offset);
}

static inline uint64_t store_tile_size(const struct store_item *item)
{
    return item->head & ~STORE_TILE_LIVE;
}

static inline bool store_tile_live(const struct store_item *item)
{
    return (item->head & STORE_TILE_LIVE) != 0;
}

static inline uint8_t *store_item_key(struct store_item *item)
{
    return (uint8_t *)item + sizeof(*item);
}

static inline uint8_t *store_item_value(struct store_item *item)
{
    return store_item_key(item) + item->key_len;
}

static inline size_t store_item_value_len(const struct store_item *item)
{
    return store_tile_size(item) - sizeof(*item) - item->key_len - item->padding;
}

static inline bool store_item_expired(const struct store *store, const struct store_item *item)
{
    return item->expiry != STORE_NEVER && item->expiry <= store->now;
}

static inline uint32_t store_segment_of(const struct store *store, uint64_t offset)
{
    return (uint32_t)(offset >> store->segment_shift);
}

static inline uint64_t store_segment_base(const struct store *store, uint32_t segment)
{
    return (uint64_t)segment << store->segment_shift;
}

static inline bool store_segment_pinned(const struct store_segment *segment)
{
    return segment->views != 0 || segment->held != 0;
}

/* ---- the index (store_index.c) ---- */

/** @brief Offset in the arena of the item that a link, which is not 0, names. */
static inline uint64_t store_link_offset(uint64_t link)
{
    return ((link & ~STORE_TAG_MASK) - 1) << 3;
}

/** @brief Find a key, expired or not. @return the link to its item, valid until the next change; or NULL. */
uint64_t *store_index_find(struct store *store, const struct store_key *key);

/** @brief The link to a live item. */
uint64_t *store_index_link_to(struct store *store, uint64_t offset);

/** @brief Enter an item whose key is not in the index. */
void store_index_insert(struct store *store, uint64_t hash, uint64_t offset);

/** @brief Let a link name another place of the same item. */
void store_index_move(uint64_t *link, uint64_t offset);

/** @brief Take the item out that a link names. */
void store_index_remove(struct store *store, uint64_t *link);

/** @brief Empty the index. */
void store_index_clear(struct store *store);

/* ---- the arena (store_arena.c) ---- */

/** @brief Make the whole arena one gap; nothing may be stored or pinned. */
void store_arena_init(struct store *store);

/**
 * @brief Let the gap have at least `size` bytes. Items may move or, with STORE_EVICT, go.
 * @return false if that is impossible: nothing was lost, though items may have moved.
 */
bool store_arena_make_room(struct store *store, uint64_t size);

/** @brief Cut a live tile of `size` bytes from the gap, which has room for it. @return its offset. */
uint64_t store_arena_take(struct store *store, uint64_t size);

/** @brief Out of the index with an item, and its bytes are dead. @param link  the one that names it. */
void store_arena_drop(struct store *store, uint64_t *link);

/** @brief Note that an item may expire then. */
void store_arena_note_expiry(struct store *store, uint64_t offset, uint64_t expiry);

/**
 * @brief Drop the expired items that start in a segment.
 * @param limit  how many at most.
 * @return false if the limit was reached before the segment's end.
 */
bool store_arena_expire(struct store *store, uint32_t segment, unsigned limit);

/** @brief Is any segment held by a view? */
bool store_arena_any_pinned(const struct store *store);

/** @brief All tiles die; the index is not touched. */
void store_arena_clear(struct store *store);

/* ---- numbers (store_number.c) ---- */

#define STORE_NUMBER_MAX_LEN 20U /**< "-9223372036854775808" */

/** @brief Read a decimal int64. @return false if it is none; the output is then untouched. */
bool store_number_parse(const uint8_t *text, size_t len, int64_t *number);

/** @brief Write a decimal int64. @return its length. */
size_t store_number_format(int64_t number, uint8_t text[STORE_NUMBER_MAX_LEN]);

#endif
