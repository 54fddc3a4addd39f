/* SPDX-License-Identifier: MIT */
/*
 * How requests get from the thread that reads the stream to a worker: a bounded ring of batches.
 */
#ifndef CRABCACHE_REPLAY_FEED_H
#define CRABCACHE_REPLAY_FEED_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FEED_BATCH 256U
#define FEED_BATCHES 8U
#define FEED_KEY_BYTES ((size_t)128 * 1024)

/** @brief One request of a batch. */
struct fed_request {
    uint64_t hash;        /**< The key's value_hash(). */
    uint32_t key_start;   /**< Where in the batch's `key_bytes`. */
    uint32_t key_len;     /**< In bytes. */
    uint32_t value_bytes; /**< Of the value that a miss puts. */
};

/** @brief Requests with their keys. */
struct batch {
    uint32_t count;
    uint32_t key_used;
    struct fed_request requests[FEED_BATCH];
    uint8_t key_bytes[FEED_KEY_BYTES];
};

/** @brief A ring of batches: one thread fills, one thread takes. */
struct feed {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t first;  /**< The oldest full batch. */
    uint32_t full;   /**< How many are full. */
    bool ended;      /**< Nothing more will come. */
    bool abandoned;  /**< Nobody takes any more. */
    struct batch *batches;
};

/** @brief Prepare a feed. @return 0, or -1 for lack of memory */
int feed_init(struct feed *feed);
/** @brief Free a feed. */
void feed_fini(struct feed *feed);

/**
 * @brief (Filling thread) The batch to fill; waits until one is free.
 * @return an empty or half-filled batch; NULL if the other side has abandoned the feed
 */
struct batch *feed_to_fill(struct feed *feed);
/** @brief (Filling thread) Hand over the batch that feed_to_fill() gave. */
void feed_commit(struct feed *feed);
/** @brief (Filling thread) Nothing more will come. */
void feed_end(struct feed *feed);

/**
 * @brief (Taking thread) The next full batch.
 * @param feed a feed
 * @param wait whether to wait for it
 * @param[out] ended set if nothing more will come
 * @return the batch; NULL at the end, or if there is none now and `wait` is false
 */
const struct batch *feed_take(struct feed *feed, bool wait, bool *ended);
/** @brief (Taking thread) Give back the batch that feed_take() gave. */
void feed_release(struct feed *feed);
/** @brief (Taking thread) Take no more. */
void feed_abandon(struct feed *feed);

#endif
