/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The thread that touches memory before requests need it.
 *
 * What it does stands in server/store/store_ahead.c. It sleeps unless the store grows.
 */
#ifndef CRABCACHE_SERVER_AHEAD_H
#define CRABCACHE_SERVER_AHEAD_H

#include <pthread.h>
#include <stdbool.h>

struct store;

/** All zero: it does not run. */
struct ahead {
    struct store *store; /**< Borrowed. */
    pthread_t thread;
    bool runs;
};

/** @brief Start it. @return 0, or what pthread_create() failed with; nothing runs then. @ownership The caller stops it. */
int ahead_start(struct ahead *ahead, struct store *store);

/** @brief Stop it, before the store is destroyed. One that does not run is accepted. */
void ahead_stop(struct ahead *ahead);

#endif
