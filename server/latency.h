/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief How long requests take: a histogram with one writer, of four buckets for each power of two.
 *
 * Dispatch times one request of LATENCY_EVERY on average, from its decoded form to the end of its reply, without the
 * network: two looks at the clock for so many requests cost nothing that can be measured.
 */
#ifndef CRABCACHE_SERVER_LATENCY_H
#define CRABCACHE_SERVER_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

/** One request of so many is timed, on average. */
#define LATENCY_EVERY 256U

/** Times below 2^LATENCY_FIRST ns share a bucket, and so do those from 2^LATENCY_LAST ns (a second) on. */
#define LATENCY_FIRST 6U
#define LATENCY_LAST 30U
#define LATENCY_SUB 4U
#define LATENCY_BUCKETS ((LATENCY_LAST - LATENCY_FIRST) * LATENCY_SUB + 2U)

/** What one worker has seen of one op. */
struct latency {
    _Atomic uint64_t buckets[LATENCY_BUCKETS];
    _Atomic uint64_t sum_ns;
};

/** The same, of all workers together. */
struct latency_sum {
    uint64_t buckets[LATENCY_BUCKETS];
    uint64_t sum_ns;
    uint64_t count;
};

/** @brief Which bucket a time belongs to. */
static inline unsigned latency_bucket(uint64_t ns)
{
    if (ns >> LATENCY_FIRST == 0)
        return 0;
    if (ns >> LATENCY_LAST != 0)
        return LATENCY_BUCKETS - 1;
    unsigned power = 63U - (unsigned)__builtin_clzll(ns);
    unsigned quarter = (unsigned)(ns >> (power - 2)) & 3U;
    return 1 + (power - LATENCY_FIRST) * LATENCY_SUB + quarter;
}

/** @brief The first time, in ns, that is too long for a bucket; UINT64_MAX for the last one. */
uint64_t latency_end(unsigned bucket);

/** @brief Count a time. @threads the one that owns the histogram */
void latency_record(struct latency *latency, uint64_t ns);

/** @brief Add a histogram to a sum. @threads any */
void latency_add(struct latency_sum *sum, const struct latency *latency);

/**
 * @brief The time within which a share of the requests were done.
 * @param share  from 0 to 1. @return in ns, rounded up to the end of its bucket (a quarter at the most from 256 ns on),
 *               or to a second; 0 if there are none.
 */
uint64_t latency_within(const struct latency_sum *sum, double share);

#endif
