/* SPDX-License-Identifier: MIT */
/*
 * A log-linear histogram; see histogram.h.
 *
 * Values below 64 have a bucket each.  Any other value keeps its six bits below the highest one:
 *
 *     value = 1xxxxxx........   bucket = 64 * (highest bit - 5) + xxxxxx
 */
#include "client/load/histogram.h"

static size_t bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (size_t)value;
    unsigned highest = 63U - (unsigned)__builtin_clzll(value);
    return (size_t)HISTOGRAM_STEPS * (highest - 5) + (size_t)((value >> (highest - 6)) & (HISTOGRAM_STEPS - 1));
}

/* The largest value of a bucket. */
static uint64_t bucket_end(size_t bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    unsigned shift = (unsigned)(bucket / HISTOGRAM_STEPS) - 1;
    uint64_t first = (uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << shift;
    return first + ((UINT64_C(1) << shift) - 1);
}

void histogram_add_many(struct histogram *histogram, uint64_t value, uint64_t times)
{
    histogram->count += times;
    histogram->sum += value * times;
    histogram->buckets[bucket_of(value)] += times;
    if (value > histogram->most && times != 0)
        histogram->most = value;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram_add_many(histogram, value, 1);
}

void histogram_merge(struct histogram *histogram, const struct histogram *other)
{
    histogram->count += other->count;
    histogram->sum += other->sum;
    if (other->most > histogram->most)
        histogram->most = other->most;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        histogram->buckets[i] += other->buckets[i];
}

uint64_t histogram_percentile(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram->count);
    if ((double)wanted < share * (double)histogram->count || wanted == 0)
        wanted++;
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= wanted) {
            uint64_t end = bucket_end(i);
            return end < histogram->most ? end : histogram->most;
        }
    }
    return histogram->most;
}
