/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Frames of an input, decoded as views into it, and the memory that executing them will look at.
 *
 * Where it stands: dispatch makes batches and executes them. A batch depends on nothing but its input: neither on the
 * session nor on what the store holds, of which it only fetches memory.
 */
#ifndef CRABCACHE_SERVER_BATCH_H
#define CRABCACHE_SERVER_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "crabcache/wire.h"
#include "server/store/store.h"

/** Most frames of a batch. */
#define BATCH_FRAMES 64U

/** A frame in its turn. */
struct batch_entry {
    union crab_request request; /**< Of a malformed frame only the head. */
    struct store_key key;       /**< Its length is 0 if there is none to look up. */
    uint64_t size;              /**< Of the whole frame; 0: the stream ends here. */
    uint16_t error;             /**< Of the decoder, or 0. */
    struct store_hint hint;     /**< Where the item seems to be. */
};

/** Frames of an input. */
struct batch {
    const uint8_t *in; /**< From where on; NULL: there is no batch. */
    size_t len;        /**< Of the input, from there on. */
    size_t bytes;      /**< Of it in the batch. */
    uint64_t need;     /**< Size of the first frame that is neither whole nor malformed, at the least; 0: none. */
    unsigned count;    /**< How many frames. */
    _Alignas(64) struct batch_entry entries[BATCH_FRAMES];
};

/**
 * @brief Decode whole and malformed frames from the start of an input.
 * @param in  bytes from the start of a frame on; borrowed as long as the batch is used.
 * @param len  how many. @param most  of the frames, up to BATCH_FRAMES. @param max_value  the limit of values.
 */
void batch_decode(struct batch *batch, const uint8_t *in, size_t len, unsigned most, uint32_t max_value);

/** @brief Hash the keys, and begin to fetch their places in the index. */
void batch_prefetch_index(struct batch *batch, const struct store *store);

/** @brief Begin to fetch the items, some hundred nanoseconds after the index. */
void batch_prefetch_items(struct batch *batch, const struct store *store);

#endif
