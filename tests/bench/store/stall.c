/* SPDX-License-Identifier: MIT */
/*
 * The longest a batch of 64 takes while the store grows, while it evicts, and while very much expires at once. Wall
 * time is what a client feels, CPU time what the store did; where they part, somebody else had the processor. For each
 * slow batch the kernel says how often it was preempted and how many pages it had to be given.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "client/load/histogram.h"
#include "tests/bench/store/bench.h"

#define SLOW_NS  1000000U
#define TICK_NS  100000000U /* The server's loop does so ten times a second at least. */
#define SMALL    16U
#define VALUE    64U
#define LIFE_MS  60000U

struct watch {
    struct histogram wall, cpu;
    uint64_t slow;              /* Batches over SLOW_NS by the wall's clock; of them: */
    uint64_t slow_cpu;          /* by CPU time, too, */
    uint64_t slow_preempted;    /* preempted, */
    uint64_t slow_waited;       /* asleep by their own doing, */
    uint64_t slow_faulted;      /* with page faults. */
    uint64_t faults, preempted;
    uint64_t next_tick_ns;
    bool more;
};

static double quantile_ms(const struct histogram *times, double share)
{
    return (double)histogram_percentile(times, share) / 1e6;
}

/* Executes a batch as the server's loop does, with its housekeeping, and notes how long it took. */
static void run_watched(struct rig_worker *worker, struct watch *watch, const uint8_t *bytes, size_t len)
{
    struct rusage before, after;
    getrusage(RUSAGE_THREAD, &before);
    uint64_t wall = wall_ns(), cpu = cpu_ns();
    rig_run(worker, bytes, len);
    if (watch->more || wall >= watch->next_tick_ns) {
        watch->more = dispatch_tick(worker->dispatch);
        watch->next_tick_ns = wall + TICK_NS;
        dispatch_quiesce(worker->dispatch);
    }
    cpu = cpu_ns() - cpu;
    wall = wall_ns() - wall;
    getrusage(RUSAGE_THREAD, &after);
    histogram_add(&watch->wall, wall);
    histogram_add(&watch->cpu, cpu);
    watch->faults += (uint64_t)(after.ru_minflt - before.ru_minflt);
    watch->preempted += (uint64_t)(after.ru_nivcsw - before.ru_nivcsw);
    if (wall > SLOW_NS) {
        watch->slow++;
        watch->slow_cpu += cpu > SLOW_NS;
        watch->slow_preempted += after.ru_nivcsw != before.ru_nivcsw;
        watch->slow_waited += after.ru_nvcsw != before.ru_nvcsw;
        watch->slow_faulted += after.ru_minflt != before.ru_minflt;
    }
}

static void report_watch(const struct watch *watch, const char *when, struct store *store)
{
    char note[160];
    struct store_stats stats;
    store_stats(store, &stats);
    snprintf(note, sizeof note, "p50 %.3f, p99.9 %.3f, max %.3f ms; %llu batches, %llu faults, %llu waits",
             quantile_ms(&watch->cpu, 0.5),
             quantile_ms(&watch->cpu, 0.999), (double)watch->cpu.most / 1e6, (unsigned long long)watch->cpu.count,
             (unsigned long long)watch->faults, (unsigned long long)stats.grace_waits);
    report("stall", AT_MOST, 1, quantile_ms(&watch->cpu, 0.99999), "ms", note, "p99.999 of CPU time, %s", when);
    snprintf(note, sizeof note,
             "p99.9 %.3f, max %.3f ms; over 1 ms: %llu (%llu of CPU; %llu preempted, %llu waited, %llu faulted)",
             quantile_ms(&watch->wall, 0.999), (double)watch->wall.most / 1e6, (unsigned long long)watch->slow,
             (unsigned long long)watch->slow_cpu, (unsigned long long)watch->slow_preempted,
             (unsigned long long)watch->slow_waited, (unsigned long long)watch->slow_faulted);
    report("stall", AT_MOST, 1, quantile_ms(&watch->wall, 0.99999), "ms", note, "p99.999 of wall time, %s", when);
}

/* Puts new ids; of `reads` percent of the batches the requests read what came shortly before. */
static void put_watched(struct rig_worker *worker, struct watch *watch, uint64_t first, uint64_t items, size_t value,
                        unsigned reads)
{
    static uint8_t batch[BATCH * (MAX_VALUE + 64)];
    uint64_t random = first + 1;
    for (uint64_t id = first; id < first + items;) {
        size_t len = 0;
        bool read = random_below(random_next(&random), 100) < reads;
        for (unsigned i = 0; i < BATCH; i++) {
            if (read)
                len += encode_get(batch + len, id - random_below(random_next(&random), id / 2 + 1));
            else
                len += encode_put(batch + len, id++, value, 0);
        }
        run_watched(worker, watch, batch, len);
    }
}

static void grow(struct watch *watch, bool touched)
{
    struct rig rig;
    struct rig_worker worker;
    uint64_t items = 50000000U / hurry;
    size_t memory = items * (4 + KEY_BYTES + SMALL) + items * 64 * 3 / 14;
    warm_memory(memory);
    rig_init(&rig, memory, STORE_EVICT, false);
    if (touched)
        rig_touch(&rig, items);
    rig_attach(&worker, &rig, 0);
    put_watched(&worker, watch, 0, items, SMALL, 0);
    char when[64];
    snprintf(when, sizeof when, "0 to %u M items%s", (unsigned)(items / 1000000), touched ? ", memory touched before" : "");
    report_watch(watch, when, rig.store);
    rig_detach(&worker);
    rig_fini(&rig);
}

/* Another worker, which writes as fast as it can. */
struct other {
    pthread_t thread;
    struct rig_worker worker;
    bool stop; /* Atomic. */
};

static void *run_other(void *argument)
{
    struct other *other = argument;
    uint64_t first = (uint64_t)1 << 40;
    while (!__atomic_load_n(&other->stop, __ATOMIC_RELAXED)) {
        rig_fill(&other->worker, first, 1000 * BATCH, VALUE, 0);
        first += 1000 * BATCH;
    }
    return NULL;
}

static void grow_untouched(struct watch *watch)
{
    grow(watch, false);
}

static void grow_touched(struct watch *watch)
{
    grow(watch, true);
}

static void evict(struct watch *watch)
{
    struct rig rig;
    struct rig_worker worker;
    size_t memory = (size_t)1 << 30;
    uint64_t items = memory / (KEY_BYTES + VALUE);
    warm_memory(memory);
    rig_init(&rig, memory, STORE_EVICT, false);
    rig_touch(&rig, items);
    rig_attach(&worker, &rig, 0);
    rig_fill(&worker, 0, items, VALUE, 0);
    put_watched(&worker, watch, items, 30000000U / hurry, VALUE, 0);
    report_watch(watch, "evicting, new keys only", rig.store);
    memset(watch, 0, sizeof *watch);
    put_watched(&worker, watch, items * 4, 30000000U / hurry, VALUE, 50);
    report_watch(watch, "evicting, half of the requests read", rig.store);
    memset(watch, 0, sizeof *watch);
    struct other other = {.stop = false};
    rig_attach(&other.worker, &rig, 1);
    pthread_create(&other.thread, NULL, run_other, &other);
    put_watched(&worker, watch, items * 8, 30000000U / hurry, VALUE, 50);
    __atomic_store_n(&other.stop, true, __ATOMIC_RELAXED);
    pthread_join(other.thread, NULL);
    report_watch(watch, "evicting, with another worker that writes", rig.store);
    rig_detach(&other.worker);
    rig_detach(&worker);
    rig_fini(&rig);
}

static void expire(struct watch *watch)
{
    struct rig rig;
    struct rig_worker worker;
    uint64_t items = 10000000U / hurry;
    size_t memory = items * (4 + 8 + 4 + KEY_BYTES + VALUE) * 5 / 4 + items * 16;
    warm_memory(memory);
    rig_init(&rig, memory, STORE_EVICT, true);
    rig_touch(&rig, items * 2);
    rig_attach(&worker, &rig, 0);
    rig_fill(&worker, 0, items, VALUE, LIFE_MS);
    __atomic_store_n(&rig.now_ms, rig.now_ms + 2 * LIFE_MS, __ATOMIC_RELAXED);
    put_watched(&worker, watch, items, items, VALUE, 50);
    struct store_stats stats;
    store_stats(rig.store, &stats);
    char when[64];
    snprintf(when, sizeof when, "%.1f M items expiring at once", (double)stats.expirations / 1e6);
    report_watch(watch, when, rig.store);
    rig_detach(&worker);
    rig_fini(&rig);
}

void measure_stalls(void)
{
    static void (*const parts[])(struct watch *watch) = {grow_untouched, grow_touched, evict, expire};
    struct watch *watch = malloc(sizeof *watch);
    if (watch == NULL)
        abort();
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        memset(watch, 0, sizeof *watch);
        parts[i](watch);
    }
    free(watch);
}
