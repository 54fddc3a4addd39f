/* SPDX-License-Identifier: MIT */
/*
 * Latencies in a log-linear histogram: 64 steps for each power of two, so a percentile is right to 1.6 %.
 */
#ifndef CRABCACHE_LOAD_HISTOGRAM_H
#define CRABCACHE_LOAD_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_STEPS 64U
#define HISTOGRAM_BUCKETS (HISTOGRAM_STEPS * 59U)

/** @brief Counts by size.  All zeros is the empty histogram. */
struct histogram {
    uint64_t count;
    uint64_t most; /**< The largest value, exactly. */
    uint64_t sum;  /**< Of all values. */
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/** @brief Count one value. */
void histogram_add(struct histogram *histogram, uint64_t value);
/** @brief Count one value so many times. */
void histogram_add_many(struct histogram *histogram, uint64_t value, uint64_t times);
/** @brief Add all counts of another histogram. */
void histogram_merge(struct histogram *histogram, const struct histogram *other);
/**
 * @brief The value that a share of all values does not exceed.
 * @param histogram a histogram
 * @param share 0 to 1, such as 0.99
 * @return the upper end of the bucket in which it lies, never more than the largest value; 0 if it is empty
 */
uint64_t histogram_percentile(const struct histogram *histogram, double share);

#endif
