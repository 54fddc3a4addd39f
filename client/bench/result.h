/* SPDX-License-Identifier: MIT */
/*
 * What the user sees: progress, and the result for people or as JSON.
 */
#ifndef CRABCACHE_BENCH_RESULT_H
#define CRABCACHE_BENCH_RESULT_H

#include <stdint.h>

#include "client/bench/cpu.h"
#include "client/bench/plan.h"
#include "client/bench/tally.h"

/** @brief Sums over all threads. */
struct result {
    struct tally tally;
    uint64_t elapsed_ns;
    struct cpu_time client; /**< Used by this program during the measurement, */
    struct cpu_time server; /**< and by the process of --pid. */
};

/** @brief Write over the last line of the standard error: what goes on, replies so far, and the rate lately. */
void result_progress(const char *phase, uint64_t replies, double per_second);
/** @brief End the line of progress. */
void result_progress_end(void);
/** @brief Print the result on the standard output. @return 0, or -1 if it could not be written */
int result_print(const struct result *result, const struct plan *plan);

#endif
