/* SPDX-License-Identifier: MIT */
/*
 * Memory: what an item costs beside its key and its value, as growth of the resident set; and how much of the resident
 * set is live data after everything was overwritten ten times, at random, at the limit.
 */
#include <stdio.h>

#include "tests/bench/store/bench.h"

#define OVERWRITE_MEMORY ((size_t)128 << 20)
#define HOUR_MS          3600000U

static void measure_overhead_of(uint64_t items, size_t len, bool ttl)
{
    struct rig rig;
    struct rig_worker worker;
    double before = resident_bytes();
    rig_init(&rig, items * (len + 64) + ((size_t)64 << 20), STORE_EVICT, false);
    rig_attach(&worker, &rig, 0);
    rig_fill(&worker, 0, items, len, ttl ? HOUR_MS : 0);
    double grown = resident_bytes() - before;
    report("overhead", AT_MOST, ttl ? 24 : 20, grown / (double)items - (double)(KEY_BYTES + len), "B", "",
           "%u M items, values of %zu B, %s", (unsigned)(items / 1000000), len, ttl ? "TTL" : "no TTL");
    rig_detach(&worker);
    rig_fini(&rig);
}

void measure_overhead(void)
{
    static const size_t lengths[] = {16, 64, 200};
    for (unsigned ttl = 0; ttl < 2; ttl++) {
        for (unsigned large = 0; large < 2; large++) {
            for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
                measure_overhead_of(large != 0 ? 20000000 / hurry : 2000000, lengths[i], ttl != 0);
        }
    }
}

static void measure_overwrite_of(size_t len, enum store_eviction eviction)
{
    struct rig rig;
    struct rig_worker worker;
    struct store_stats stats, after;
    uint8_t batch[BATCH * (MAX_VALUE + 64)];
    uint64_t wanted = OVERWRITE_MEMORY / (KEY_BYTES + len) / BATCH * BATCH, random = 1, spent = 0, done = 0;
    double before = resident_bytes();
    rig_init(&rig, OVERWRITE_MEMORY, eviction, false);
    rig_attach(&worker, &rig, 0);
    rig_fill(&worker, 0, wanted, len, 0);
    store_stats(rig.store, &stats);
    uint64_t items = stats.items, first = eviction == STORE_EVICT ? wanted - items : 0;
    while (done < items * 10 / hurry) {
        size_t bytes = 0;
        for (unsigned i = 0; i < BATCH; i++, done++)
            bytes += encode_put(batch + bytes, first + random_below(random_next(&random), items), len, 0);
        uint64_t from = cpu_ns();
        rig_run(&worker, batch, bytes);
        spent += cpu_ns() - from;
    }
    double grown = resident_bytes() - before;
    store_stats(rig.store, &after);
    char note[128];
    snprintf(note, sizeof note, "with headers and index %.1f %%; RSS %.1f %% of the limit; %.2f M/s, %.2f B moved per B",
             (double)(after.bytes_live + after.bytes_index) / grown * 100, grown / (double)OVERWRITE_MEMORY * 100,
             (double)done * 1e3 / (double)spent,
             (double)(after.moved_bytes - stats.moved_bytes) / ((double)done * (double)(KEY_BYTES + len + 4)));
    report("overwrite", AT_LEAST, 85, (double)after.items * (double)(KEY_BYTES + len) / grown * 100, "%", note,
           "keys and values of %zu B over RSS, %s", len, eviction == STORE_EVICT ? "evict" : "none");
    rig_detach(&worker);
    rig_fini(&rig);
}

void measure_overwrite(void)
{
    static const size_t lengths[] = {64, 200, 1000};
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        measure_overwrite_of(lengths[i], STORE_EVICT);
        measure_overwrite_of(lengths[i], STORE_REFUSE);
    }
}
