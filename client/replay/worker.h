/* SPDX-License-Identifier: MIT */
/*
 * A worker: one thread, one connection, one share of the keys, replayed cache-aside with many requests on their way.
 */
#ifndef CRABCACHE_REPLAY_WORKER_H
#define CRABCACHE_REPLAY_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/replay/feed.h"
#include "client/load/histogram.h"
#include "client/replay/keys.h"
#include "crabcache/crabcache.h"

/** @brief What a worker counted. */
struct tally {
    uint64_t requests;       /**< Requests of the stream that are resolved: hits, misses and failed gets. */
    uint64_t hits;
    uint64_t misses;
    uint64_t keys;           /**< Different keys. */
    uint64_t earlier_hits;   /**< Hits on items that were there before this run put anything under the key. */
    uint64_t puts;           /**< Values stored. */
    uint64_t refused_memory; /**< Puts refused with OUT_OF_MEMORY. */
    uint64_t refused_size;   /**< Puts refused with VALUE_TOO_LARGE. */
    uint64_t refused_busy;   /**< Puts refused with BUSY. */
    uint64_t failed_gets;    /**< Gets answered with an error. */
    uint64_t failed_puts;    /**< Puts answered with any other error. */
    uint64_t wrong_values;   /**< Hits whose bytes or length were not what was put. */
    uint64_t verified_bytes; /**< Bytes of hits that were right. */
    uint64_t put_bytes;      /**< Bytes of values stored. */
};

/** @brief One request of the window. */
struct slot;

/** @brief A worker.  All zeros but the options at the start. */
struct worker {
    /* set before the start */
    const struct crab_conn_options *options;
    uint32_t depth;

    struct feed feed;
    pthread_t thread;
    struct crab_conn *conn;
    struct keys keys;
    struct slot *slots;
    uint32_t free_slots;           /**< List of slots not in use. */
    uint32_t used;                 /**< Slots in use. */
    uint32_t ready_first;          /**< List of slots whose next request can be queued. */
    uint32_t ready_last;
    uint32_t *flying;              /**< Ring of slots in the order of their requests on the connection. */
    uint32_t flying_first, flying_count;
    uint8_t *value;                /**< Where values to put are made. */
    size_t value_capacity;
    const struct batch *batch;     /**< The batch that is being worked off, or NULL. */
    uint32_t batch_next;
    bool ended;                    /**< Nothing more will come from the feed. */

    /* results */
    struct tally tally;
    struct histogram latency;      /**< Nanoseconds from queueing a request to taking its reply. */
    atomic_uint_fast64_t progress; /**< `tally.requests`, for the progress line. */
    atomic_uint_fast64_t progress_hits;
    enum crab_status status;       /**< What ended it early, or CRAB_OK. */
    struct crab_failure failure;   /**< With words for people. */
    char wrong[160];               /**< The first wrong value. */
};

/**
 * @brief Connect and make everything ready.
 * @param worker options and depth set
 * @return 0; or -1 with `failure` filled
 */
int worker_init(struct worker *worker);
/** @brief Replay what the feed gives until it ends; the body of the worker's thread. */
void *worker_run(void *worker);
/** @brief Free a worker; its results stay. */
void worker_fini(struct worker *worker);

#endif
