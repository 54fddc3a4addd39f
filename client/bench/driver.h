/* SPDX-License-Identifier: MIT */
/*
 * A thread of the load: an epoll loop over its share of the connections.
 */
#ifndef CRABCACHE_BENCH_DRIVER_H
#define CRABCACHE_BENCH_DRIVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/bench/choice.h"
#include "client/bench/link.h"
#include "client/bench/plan.h"
#include "client/bench/tally.h"

/** @brief What a run goes through.  Only the main thread moves it on. */
enum phase {
    PHASE_PRELOAD, /**< Connect, and put every key if that is wanted. */
    PHASE_WARM_UP, /**< Load that is not counted. */
    PHASE_MEASURE, /**< Load that is counted. */
    PHASE_END      /**< Issue nothing more. */
};

/** @brief What all threads share. */
struct run {
    const struct plan *plan;
    const uint8_t *payload;
    _Atomic int phase;
    uint64_t origin_ns;       /**< When the load began; set before PHASE_PRELOAD ends. */
    pthread_mutex_t lock;     /**< Guards what follows. */
    pthread_cond_t changed;
    uint32_t ready;           /**< Threads that are connected, and have preloaded. */
    uint32_t done;            /**< Threads that have ended, */
    uint32_t failed;          /**< and those of them that ended early. */
};

/** @brief A thread. */
struct driver {
    struct run *run;
    uint32_t index;
    pthread_t thread;
    uint32_t first;           /**< Its first connection, of all connections, */
    uint32_t count;           /**< and how many it has. */
    uint64_t quota;           /**< How many measured requests it issues. */
    _Atomic uint64_t replies; /**< For the progress. */
    bool failed;              /**< Ended early: see the kit's `failure`.  Read it after joining the thread. */

    struct link *links;
    struct link_kit kit;
    struct choice choice;
    struct tally tally;
    int epoll;
    uint64_t in_flight;       /**< Of all its connections. */
    uint64_t slot;            /**< Open loop: the next turn. */
    uint64_t checked_ns;      /**< When silence was last looked for. */
    uint32_t filled;          /**< Preload: connections that are through. */
};

/**
 * @brief Prepare a thread: its share of connections and requests, and its memory.
 * @param driver all zeros
 * @param run what all share; its plan says how many threads there are
 * @param index which one it is
 * @return 0, or -1 for lack of memory
 */
int driver_init(struct driver *driver, struct run *run, uint32_t index);
/** @brief Free what driver_init() allocated, and close the connections. */
void driver_fini(struct driver *driver);
/** @brief The thread: from connecting to the end. @param driver a struct driver @return NULL */
void *driver_run(void *driver);

#endif
