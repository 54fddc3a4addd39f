/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief An HTTP server for those who watch: /metrics for Prometheus, /healthz for load balancers.
 *
 * Runs on a thread of its own, by libmicrohttpd, and only reads: the statistics, and whether the workers live. It knows
 * nothing of the cache's clients, and they nothing of it. There is no authentication: it tells numbers, no data.
 */
#ifndef CRABCACHE_SERVER_METRICS_H
#define CRABCACHE_SERVER_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log;
struct metrics; /**< A running one. */
struct stats;

/** Most connections at a time; more are closed. */
#define METRICS_CONNECTIONS 16U

/** Memory of each. */
#define METRICS_CONNECTION_BYTES ((size_t)8 << 10)

/** How long a connection may do nothing. */
#define METRICS_TIMEOUT_S 10U

/** What it needs; all borrowed. */
struct metrics_config {
    const char *address; /**< Numeric. */
    uint16_t port;       /**< 0: any free one. */
    const struct stats *stats;
    const atomic_bool *healthy; /**< What /healthz says. */
    const struct log *log;
};

/**
 * @brief Listen, and start the thread. The log says where, or what is wrong.
 * @param config  copied. @param[out] metrics  untouched on failure.
 * @return whether it runs.
 * @ownership The caller ends it with metrics_stop().
 */
bool metrics_start(const struct metrics_config *config, struct metrics **metrics);

/** @brief End it; answers under way are cut off. NULL is accepted. */
void metrics_stop(struct metrics *metrics);

#endif
