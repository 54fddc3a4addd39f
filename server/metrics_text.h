/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The statistics in the text format of Prometheus (version 0.0.4).
 *
 * Every number of STATS, as `crabcache_SECTION_NAME`, counters with `_total` behind it; those of workers and ops as one
 * metric each, with the labels `worker` and `op`.
 */
#ifndef CRABCACHE_SERVER_METRICS_TEXT_H
#define CRABCACHE_SERVER_METRICS_TEXT_H

#include <stddef.h>

struct stats;

/** Room that every text of metrics_render() fits. */
#define METRICS_TEXT_BYTES ((size_t)128 << 10)

/**
 * @brief Write all metrics.
 * @param[out] text  room for METRICS_TEXT_BYTES; not NUL-terminated.
 * @return bytes written.
 * @threads any
 */
size_t metrics_render(const struct stats *stats, char *text);

#endif
