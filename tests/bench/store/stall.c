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
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/load/histogram.h"
#include "server/ahead.h"
#include "tests/bench/store/bench.h"

#define SLOW_NS  1000000U
#define TICK_NS  100000000U /* The server's loop does so ten times a second at least. */
#define SMALL    16U
#define VALUE    64U
#define LIFE_MS  60000U
#define SETTLE_S 10U /* While the host of a virtual machine takes back what was freed, it stops the machine now and then. */
#define CONTROL_BYTES    ((size_t)1 << 30)
#define CONTROL_STEP     ((size_t)2 << 20)
#define CONTROL_READS    4U    /* Lines of memory that a request needs, or so. */
#define CONTROL_PAUSE_US 5000U /* Between huge pages. */

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

static uint8_t *map_memory(size_t bytes)
{
    uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        abort();
    madvise(at, bytes, MADV_HUGEPAGE);
    return at;
}

static double quantile_ms(const struct histogram *times, double share)
{
    return (double)histogram_percentile(times, share) / 1e6;
}

/* The clocks before a batch. */
struct moment {
    struct rusage usage;
    uint64_t wall, cpu;
};

static void begin_batch(struct moment *before)
{
    getrusage(RUSAGE_THREAD, &before->usage);
    before->wall = wall_ns();
    before->cpu = cpu_ns();
}

static void end_batch(struct watch *watch, const struct moment *before)
{
    struct rusage after;
    uint64_t cpu = cpu_ns() - before->cpu, wall = wall_ns() - before->wall;
    getrusage(RUSAGE_THREAD, &after);
    histogram_add(&watch->wall, wall);
    histogram_add(&watch->cpu, cpu);
    watch->faults += (uint64_t)(after.ru_minflt - before->usage.ru_minflt);
    watch->preempted += (uint64_t)(after.ru_nivcsw - before->usage.ru_nivcsw);
    if (wall > SLOW_NS) {
        watch->slow++;
        watch->slow_cpu += cpu > SLOW_NS;
        watch->slow_preempted += after.ru_nivcsw != before->usage.ru_nivcsw;
        watch->slow_waited += after.ru_nvcsw != before->usage.ru_nvcsw;
        watch->slow_faulted += after.ru_minflt != before->usage.ru_minflt;
    }
}

/* Executes a batch as the server's loop does, with its housekeeping, and notes how long it took. */
static void run_watched(struct rig_worker *worker, struct watch *watch, const uint8_t *bytes, size_t len)
{
    struct moment before;
    begin_batch(&before);
    rig_run(worker, bytes, len);
    if (watch->more || before.wall >= watch->next_tick_ns) {
        watch->more = dispatch_tick(worker->dispatch);
        watch->next_tick_ns = before.wall + TICK_NS;
        dispatch_quiesce(worker->dispatch);
    }
    end_batch(watch, &before);
}

/* `store` may be NULL. */
static void report_watch(const struct watch *watch, const char *when, struct store *store)
{
    char note[160];
    struct store_stats stats = {.grace_waits = 0};
    if (store != NULL)
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

/* `touched`: all memory was, before. `with_thread`: a thread touches it ahead, as in the server. */
static void grow(struct watch *watch, bool touched, bool with_thread)
{
    struct rig rig;
    struct ahead ahead = {.runs = false};
    struct rig_worker worker;
    uint64_t items = 50000000U / hurry;
    size_t memory = items * (4 + KEY_BYTES + SMALL) + items * 64 * 3 / 14;
    if (touched)
        warm_memory(memory);
    else
        sleep(SETTLE_S);
    rig_init(&rig, memory, STORE_EVICT, false);
    if (touched)
        rig_touch(&rig, items);
    if (with_thread && ahead_start(&ahead, rig.store) != 0)
        abort();
    rig_attach(&worker, &rig, 0);
    put_watched(&worker, watch, 0, items, SMALL, 0);
    char when[80];
    snprintf(when, sizeof when, "0 to %u M items%s", (unsigned)(items / 1000000),
             touched ? ", memory touched before" : with_thread ? ", as in the server" : ", nothing touched ahead");
    report_watch(watch, when, rig.store);
    ahead_stop(&ahead);
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

/* A store whose items take all of its memory. Answers how many were put. */
static uint64_t fill(struct rig *rig, struct rig_worker *worker, struct ahead *ahead)
{
    size_t memory = (size_t)1 << 30;
    uint64_t items = memory / (KEY_BYTES + VALUE);
    warm_memory(memory);
    rig_init(rig, memory, STORE_EVICT, false);
    rig_touch(rig, items);
    if (ahead_start(ahead, rig->store) != 0)
        abort();
    rig_attach(worker, rig, 0);
    rig_fill(worker, 0, items, VALUE, 0);
    return items;
}

static void evict(struct watch *watch)
{
    struct rig rig;
    struct rig_worker worker;
    struct ahead ahead;
    uint64_t items = fill(&rig, &worker, &ahead);
    put_watched(&worker, watch, items, 30000000U / hurry, VALUE, 0);
    report_watch(watch, "evicting, new keys only", rig.store);
    memset(watch, 0, sizeof *watch);
    put_watched(&worker, watch, items * 4, 30000000U / hurry, VALUE, 50);
    report_watch(watch, "evicting, half of the requests read", rig.store);
    ahead_stop(&ahead);
    rig_detach(&worker);
    rig_fini(&rig);
}

static void evict_both(struct watch *watch)
{
    struct rig rig;
    struct rig_worker worker;
    struct other other = {.stop = false};
    struct ahead ahead;
    uint64_t items = fill(&rig, &worker, &ahead);
    rig_attach(&other.worker, &rig, 1);
    pthread_create(&other.thread, NULL, run_other, &other);
    put_watched(&worker, watch, items, 30000000U / hurry, VALUE, 0);
    report_watch(watch, "evicting, with another worker that writes", rig.store);
    memset(watch, 0, sizeof *watch);
    put_watched(&worker, watch, items * 8, 30000000U / hurry, VALUE, 50);
    __atomic_store_n(&other.stop, true, __ATOMIC_RELAXED);
    pthread_join(other.thread, NULL);
    report_watch(watch, "the same, half of this one's requests reading", rig.store);
    ahead_stop(&ahead);
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

/* ---- what of it is the machine's ---- */

/* Touches memory for the first time, about as fast as a growing store does. */
static void *touch_memory(void *argument)
{
    struct other *other = argument;
    uint8_t *at = map_memory(CONTROL_BYTES);
    for (size_t i = 0; i < CONTROL_BYTES && !__atomic_load_n(&other->stop, __ATOMIC_RELAXED); i += CONTROL_STEP) {
        if (madvise(at + i, CONTROL_STEP, MADV_POPULATE_WRITE) != 0)
            abort();
        usleep(CONTROL_PAUSE_US);
    }
    munmap(at, CONTROL_BYTES);
    return NULL;
}

/* No store at all: batches of reads all over memory that was touched before, while a thread touches more. */
static void read_only(struct watch *watch)
{
    struct other other = {.stop = false};
    uint8_t *at = map_memory(CONTROL_BYTES);
    uint64_t random = 1, sum = 0;
    if (madvise(at, CONTROL_BYTES, MADV_POPULATE_WRITE) != 0)
        abort();
    pthread_create(&other.thread, NULL, touch_memory, &other);
    for (unsigned batch = 0; batch < 1000000U / hurry; batch++) {
        struct moment before;
        begin_batch(&before);
        for (unsigned i = 0; i < BATCH * CONTROL_READS; i++)
            sum += *(volatile uint8_t *)(at + random_below(random_next(&random), CONTROL_BYTES));
        end_batch(watch, &before);
    }
    __atomic_store_n(&other.stop, sum != 1, __ATOMIC_RELAXED);
    pthread_join(other.thread, NULL);
    report_watch(watch, "no store: reading memory while a thread touches more", NULL);
    munmap(at, CONTROL_BYTES);
}

static void measure(void (*part)(struct watch *watch))
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        abort();
    part(watch);
    free(watch);
}

static void grow_untouched(struct watch *watch)
{
    grow(watch, false, false);
}

static void grow_as_server(struct watch *watch)
{
    grow(watch, false, true);
}

static void grow_touched(struct watch *watch)
{
    grow(watch, true, false);
}

void measure_stalls_growing(void)
{
    measure(grow_as_server);
}

void measure_stalls_growing_untouched(void)
{
    measure(grow_untouched);
}

void measure_stalls_growing_touched(void)
{
    measure(grow_touched);
}

void measure_stalls_evicting(void)
{
    measure(evict);
}

void measure_stalls_both_evicting(void)
{
    measure(evict_both);
}

void measure_stalls_expiring(void)
{
    measure(expire);
}

void measure_stalls_of_nothing(void)
{
    measure(read_only);
}
