/* SPDX-License-Identifier: MIT */
/*
 * What was counted.
 */
#ifndef CRABCACHE_BENCH_TALLY_H
#define CRABCACHE_BENCH_TALLY_H

#include <stdint.h>

#include "client/load/histogram.h"

/** @brief Counts of replies, and latencies in ns.  All zeros is the empty tally. */
struct tally {
    uint64_t gets;
    uint64_t hits;
    uint64_t misses;
    uint64_t puts;
    uint64_t stored;
    uint64_t errors;             /**< The server refused. */
    uint64_t wrong;              /**< Replies of the wrong kind or size. */
    uint64_t bytes_sent;
    uint64_t bytes_received;
    struct histogram get_ns;
    struct histogram put_ns;
    char first_error[200];       /**< "" or what the first refusal said. */
    char first_wrong[200];       /**< "" or what was wrong first. */
};

/** @brief Add all counts of another tally; keeps its own texts if it has some. */
void tally_add(struct tally *tally, const struct tally *other);

#endif
