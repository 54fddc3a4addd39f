/* SPDX-License-Identifier: MIT */
/*
 * What the user sees: a line of progress, and the result for people or as JSON.
 */
#ifndef CRABCACHE_REPLAY_REPORT_H
#define CRABCACHE_REPLAY_REPORT_H

#include <stdint.h>

#include "client/load/histogram.h"
#include "client/replay/options.h"
#include "client/replay/worker.h"

/** @brief Sums over all workers. */
struct report {
    struct tally tally;
    struct histogram latency;
    uint64_t elapsed_ns;
    uint32_t depth;
    uint32_t threads;
};

/** @brief Write the progress so far over the last line of the standard error. */
void report_progress(uint64_t requests, uint64_t hits, uint64_t elapsed_ns);
/** @brief End the line of progress. */
void report_progress_end(void);
/** @brief Print the result on the standard output. @return 0, or -1 if it could not be written */
int report_print(const struct report *report, const struct options *options);

#endif
