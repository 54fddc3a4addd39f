/* SPDX-License-Identifier: MIT */
/*
 * Histograms of times: recorded by their worker with plain loads and stores, summed up by whoever asks.
 */
#include "server/latency.h"

uint64_t latency_end(unsigned bucket)
{
    if (bucket == 0)
        return (uint64_t)1 << LATENCY_FIRST;
    if (bucket >= LATENCY_BUCKETS - 1)
        return UINT64_MAX;
    unsigned power = LATENCY_FIRST + (bucket - 1) / LATENCY_SUB;
    unsigned quarter = (bucket - 1) % LATENCY_SUB;
    return (uint64_t)(LATENCY_SUB + quarter + 1) << (power - 2);
}

static void add(_Atomic uint64_t *counter, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

void latency_record(struct latency *latency, uint64_t ns)
{
    add(&latency->buckets[latency_bucket(ns)], 1);
    add(&latency->sum_ns, ns);
}

void latency_add(struct latency_sum *sum, const struct latency *latency)
{
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        uint64_t count = atomic_load_explicit(&latency->buckets[i], memory_order_relaxed);
        sum->buckets[i] += count;
        sum->count += count;
    }
    sum->sum_ns += atomic_load_explicit(&latency->sum_ns, memory_order_relaxed);
}

uint64_t latency_within(const struct latency_sum *sum, double share)
{
    if (sum->count == 0)
        return 0;
    double wanted = share * (double)sum->count;
    uint64_t seen = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS - 1; i++) {
        seen += sum->buckets[i];
        if (seen != 0 && (double)seen >= wanted)
            return latency_end(i);
    }
    return (uint64_t)1 << LATENCY_LAST;
}
