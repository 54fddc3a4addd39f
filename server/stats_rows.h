/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Every number of the statistics in one table: its name, what kind it is, what it means, how to get it.
 *
 * STATS (stats_text.c) and the metrics of Prometheus (metrics_text.c) both go through it, so that neither knows a
 * number that the other does not. Names end in their unit: `_bytes`, `_ms`, `_ns`; without one they count things.
 */
#ifndef CRABCACHE_SERVER_STATS_ROWS_H
#define CRABCACHE_SERVER_STATS_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "server/latency.h"
#include "server/stats.h"
#include "server/store/store.h"

/** How a number moves. */
enum stats_kind {
    STATS_COUNTER, /**< It only grows, from 0 at the start. */
    STATS_GAUGE    /**< It goes up and down. */
};

/** What the numbers are read from: taken once, so that those of one answer fit together. */
struct stats_view {
    const struct stats *stats;
    struct store_stats store; /**< All zero before stats_look_at_store(). */
    uint64_t opened, closed; /**< Connections. */
};

/** One number of the whole server. */
struct stats_row {
    const char *section;
    const char *name;
    enum stats_kind kind;
    const char *help; /**< A sentence. */
    uint64_t (*read)(const struct stats_view *view, size_t at);
    size_t at; /**< Handed to it. */
};

/** One number of each worker. */
struct stats_worker_row {
    const char *name;
    enum stats_kind kind;
    const char *help;
    uint64_t (*read)(const struct stats_worker *worker);
};

/** One op. */
struct stats_op {
    const char *name; /**< In lower case. */
    unsigned op;      /**< Its number; 0: all unknown ones. */
};

extern const struct stats_row stats_rows[];
extern const size_t stats_row_count;
extern const struct stats_worker_row stats_worker_rows[];
extern const size_t stats_worker_row_count;
extern const struct stats_op stats_ops[]; /**< The known ones, in the order of enum stats_timed_op, then unknown. */
extern const size_t stats_op_count;

/** @brief Take the numbers, but those of the store. */
void stats_look(const struct stats *stats, struct stats_view *view);

/** @brief Take those of the store, too, which costs a lock. */
void stats_look_at_store(struct stats_view *view);

/** @brief How many requests of an op there were. */
uint64_t stats_op_requests(const struct stats *stats, const struct stats_op *op);

/** @brief How long those took that were timed. @param index  in stats_ops, of a known op. */
void stats_op_latency(const struct stats *stats, size_t index, struct latency_sum *sum);

#endif
