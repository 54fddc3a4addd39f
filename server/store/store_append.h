/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Appending an item to a writer's open segment: is there room, where does it go, keep it. The segments
 *        themselves, and who gets which, are in store_segment.c; this is what each put and each move does.
 */
#ifndef CRABCACHE_STORE_APPEND_H
#define CRABCACHE_STORE_APPEND_H

#include "server/store/store_impl.h"

#define STORE_WRITE_AHEAD 512U /**< Bytes before an open segment's end that are fetched for writing. */

/** @brief Has the open segment of a class room for so many bytes, and did no flush empty it? */
static inline bool store_segment_has_room(const struct store *store, const struct store_writer *writer, unsigned class,
                                          uint64_t bytes)
{
    const struct store_open *open = &writer->open[class];
    return open->segment != STORE_NONE && open->used + bytes <= store_segment_bytes(store) &&
           store_peek(&store->segments[open->segment].seq) >= store_load(&store->flushed);
}

/** @brief Where an item would be written; there must be room. */
static inline void store_segment_place(const struct store *store, const struct store_writer *writer, unsigned class,
                                       const struct store_shape *shape, struct store_place *place)
{
    const struct store_open *open = &writer->open[class];
    uint64_t start = store_segment_location(store, open->segment) + open->used;
    uint32_t padding = store_item_padding(shape->flags, start);
    *place = (struct store_place){.at = store_at(store, start + padding),
                                  .location = start + padding,
                                  .bytes = shape->bytes,
                                  .segment = open->segment,
                                  .padding = padding,
                                  .page = STORE_NONE,
                                  .class = class};
    assert(open->used + padding + place->bytes <= store_segment_bytes(store));
}

/**
 * The next items will be written here. A store that waits for its line does not stop a processor by itself, but the
 * next lock does, as it waits for all stores before it.
 */
static inline void store_segment_fetch_ahead(const struct store *store, const struct store_place *place,
                                             uint32_t used)
{
    uint32_t to = used + STORE_WRITE_AHEAD, from = to - (uint32_t)place->bytes - place->padding;
    if (to >= store_segment_bytes(store))
        return;
    const uint8_t *start = store_at(store, store_segment_location(store, place->segment));
    for (uint32_t at = (from + 63) & ~63U; at < to; at += 64) /* Each line once: that in which it starts. */
        __builtin_prefetch(start + at, 1);
}

/** @brief An item of the segment lives until then. */
static inline void store_segment_expires(struct store_segment *segment, uint64_t expiry)
{
    uint32_t was = store_peek(&segment->last_expiry);
    if (was == STORE_NO_EXPIRY)
        return;
    uint32_t until = expiry / 1000 + 1 < STORE_NO_EXPIRY ? (uint32_t)(expiry / 1000 + 1) : STORE_NO_EXPIRY;
    while (until > was &&
           !__atomic_compare_exchange_n(&segment->last_expiry, &was, until, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

/** @brief Keep a place, its item being written. Before it is published. */
static inline void store_segment_keep(struct store *store, struct store_writer *writer,
                                      const struct store_place *place, uint64_t expiry)
{
    struct store_open *open = &writer->open[place->class];
    struct store_segment *segment = &store->segments[place->segment];
    if (place->padding != 0) {
        memset(place->at - place->padding, ITEM_PADDING, place->padding);
        store_count(&segment->padding, place->padding);
    }
    open->used += place->padding + (uint32_t)place->bytes;
    store_segment_fetch_ahead(store, place, open->used);
    store_count(&segment->items, 1U);
    /* Who sweeps resets min_expiry, then reads `used`: either it sees the item, or we see the reset. */
    __atomic_store_n(&segment->used, open->used, expiry == STORE_NEVER ? __ATOMIC_RELEASE : __ATOMIC_SEQ_CST);
    if (expiry != STORE_NEVER)
        store_min(&segment->min_expiry, expiry);
    store_segment_expires(segment, expiry);
}

#endif
