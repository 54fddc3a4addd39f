/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Whether the workers still have their turns.
 *
 * A worker takes a turn twice a second at the least, idle or not, and counts it (stats.h). The main thread looks at the
 * counters now and then; a worker whose counter stands still for too long is stuck, and the server not healthy. What
 * comes of it: a line in the log, no sign of life to the service manager (notify.h), and /healthz (metrics.h).
 */
#ifndef CRABCACHE_SERVER_HEALTH_H
#define CRABCACHE_SERVER_HEALTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/stats.h"

struct log;

/** How long a worker may take for a turn. */
#define HEALTH_LATE_MS 5000U

/** How often the main thread looks. */
#define HEALTH_LOOK_MS 500U

/** What was seen of the workers. All zero at the start. */
struct health {
    uint64_t turns[STATS_MAX_WORKERS];    /**< Counter of each worker when it last moved, */
    uint64_t moved_ms[STATS_MAX_WORKERS]; /**< and when that was. */
    bool late[STATS_MAX_WORKERS];         /**< The log says that it is. */
    uint64_t looked_ms;                   /**< When the last look was. */
    atomic_bool good;                     /**< All of them had a turn lately. Any thread may read this. */
};

/**
 * @brief Look at every worker.
 * @param stats  their counters. @param log  is told who is stuck, and who goes on.
 * @param now_ms  on a clock that only goes forward.
 * @return whether all of them had a turn lately; so does `health->good`.
 * @threads one
 */
bool health_look(struct health *health, const struct stats *stats, const struct log *log, uint64_t now_ms);

#endif
