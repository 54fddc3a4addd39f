/* SPDX-License-Identifier: MIT */
/*
 * What the store costs: bytes per item (growth of the resident set), operations per second in batches of 64 with both
 * prefetch steps, two threads against one, the longest stall of a batch while the store fills and evicts, and how much
 * of the memory is live data after everything was overwritten ten times at the limit.
 *
 *     bench_store [overhead|speed|scaling|stall|overwrite ...]      default: all
 *
 * Speeds are per second of CPU time, as machines are shared; the median of five runs. It is a measurement, not a test:
 * nothing here passes or fails.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/store/store.h"

#define BATCH     64U
#define RUNS      5
#define KEY_BYTES 16U
#define MAX_VALUE 4096U

static uint8_t value[MAX_VALUE];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* Of this thread: what is left when the scheduler's share of a stall is taken away. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

struct worst {
    uint64_t wall_ns, cpu_ns;
    uint64_t over; /* Batches that took more than 1 ms of CPU. */
};

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static double resident_bytes(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &pages, &resident) != 2)
        abort();
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static struct store *make_store(size_t memory, enum store_eviction eviction)
{
    struct store *store;
    struct store_config config = {.memory_bytes = memory, .eviction = eviction, .max_workers = 8};
    if (store_create(&config, &store) != 0)
        abort();
    return store;
}

static struct store_worker *attach(struct store *store)
{
    struct store_worker *worker;
    if (store_worker_attach(store, &worker) != 0)
        abort();
    return worker;
}

/* ---- batches ---- */

struct batch {
    uint8_t keys[BATCH][KEY_BYTES];
    struct store_key hashed[BATCH];
};

static void name_key(uint8_t key[KEY_BYTES], uint64_t id)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < KEY_BYTES; i++, id >>= 4)
        key[i] = (uint8_t)digits[id & 15];
}

static void prepare(struct store *store, struct batch *batch)
{
    for (unsigned i = 0; i < BATCH; i++) {
        batch->hashed[i] = store_key(store, batch->keys[i], KEY_BYTES);
        store_prefetch_index(store, batch->hashed[i].hash);
    }
    for (unsigned i = 0; i < BATCH; i++)
        store_prefetch_item(store, batch->hashed[i].hash);
}

static unsigned get_batch(struct store *store, struct store_worker *worker, struct batch *batch)
{
    unsigned hits = 0;
    prepare(store, batch);
    for (unsigned i = 0; i < BATCH; i++) {
        struct store_view view;
        if (store_get_value(worker, &batch->hashed[i], &view) == STORE_OK) {
            hits++;
            __asm__ volatile("" ::"r"(view.value[0]) : "memory");
        }
    }
    store_quiesce(worker);
    return hits;
}

static unsigned put_batch(struct store *store, struct store_worker *worker, struct batch *batch, size_t len)
{
    struct store_put_args args = {.value = value, .value_len = len, .ttl_ms = STORE_NEVER, .version_unwanted = true};
    unsigned stored = 0;
    prepare(store, batch);
    for (unsigned i = 0; i < BATCH; i++)
        stored += store_put(worker, &batch->hashed[i], &args, NULL) == STORE_OK;
    store_quiesce(worker);
    return stored;
}

static void random_keys(struct batch *batch, uint64_t *random, uint64_t items)
{
    for (unsigned i = 0; i < BATCH; i++)
        name_key(batch->keys[i], next_random(random) % items);
}

static uint64_t fill(struct store *store, struct store_worker *worker, uint64_t items, size_t len,
                     struct worst *worst)
{
    struct batch batch;
    uint64_t stored = 0;
    for (uint64_t id = 0; id < items; id += BATCH) {
        for (unsigned i = 0; i < BATCH; i++)
            name_key(batch.keys[i], id + i);
        if (worst == NULL) {
            stored += put_batch(store, worker, &batch, len);
            continue;
        }
        uint64_t from = now_ns(), cpu_from = cpu_ns();
        stored += put_batch(store, worker, &batch, len);
        uint64_t cpu = cpu_ns() - cpu_from, wall = now_ns() - from;
        worst->wall_ns = wall > worst->wall_ns ? wall : worst->wall_ns;
        worst->cpu_ns = cpu > worst->cpu_ns ? cpu : worst->cpu_ns;
        worst->over += cpu > 1000000;
    }
    return stored;
}

/* ---- what is measured ---- */

static void overhead(void)
{
    static const size_t lengths[] = {16, 64, 200};
    printf("overhead per item, 2 M items, 16-byte keys, no TTL\n");
    for (unsigned i = 0; i < 3; i++) {
        double before = resident_bytes();
        struct store *store = make_store((size_t)2 << 30, STORE_EVICT);
        struct store_worker *worker = attach(store);
        uint64_t items = 2000000;
        fill(store, worker, items, lengths[i], NULL);
        double grown = resident_bytes() - before;
        printf("  value %3zu: %5.1f B\n", lengths[i], grown / (double)items - (double)(KEY_BYTES + lengths[i]));
        store_worker_detach(worker);
        store_destroy(store);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Millions of operations per second of CPU time: on a shared machine, others' time is not ours. */
static double run_mix(struct store *store, struct store_worker *worker, uint64_t items, unsigned put_percent,
                      uint64_t operations, uint64_t seed)
{
    struct batch batch;
    uint64_t random = seed, spent = 0;
    for (uint64_t done = 0; done < operations; done += BATCH) {
        random_keys(&batch, &random, items);
        bool puts = next_random(&random) % 100 < put_percent;
        uint64_t from = cpu_ns();
        if (puts)
            put_batch(store, worker, &batch, 64);
        else
            get_batch(store, worker, &batch);
        spent += cpu_ns() - from;
    }
    return (double)operations * 1e3 / (double)spent;
}

static void speed(void)
{
    static const uint64_t sizes[] = {1000000, 20000000};
    for (unsigned i = 0; i < 2; i++) {
        struct store *store = make_store((size_t)(i == 0 ? 1 : 4) << 30, STORE_EVICT);
        struct store_worker *worker = attach(store);
        fill(store, worker, sizes[i], 64, NULL);
        double get[RUNS], put[RUNS];
        for (int run = 0; run < RUNS; run++) {
            get[run] = run_mix(store, worker, sizes[i], 0, 8000000, (uint64_t)run);
            put[run] = run_mix(store, worker, sizes[i], 100, 4000000, (uint64_t)run + 100);
        }
        qsort(get, RUNS, sizeof(get[0]), by_size);
        qsort(put, RUNS, sizeof(put[0]), by_size);
        printf("%2u M items, batches of 64, one thread: GET %5.2f M/s (%.2f-%.2f), PUT %5.2f M/s (%.2f-%.2f)\n",
               (unsigned)(sizes[i] / 1000000), get[RUNS / 2], get[0], get[RUNS - 1], put[RUNS / 2], put[0],
               put[RUNS - 1]);
        store_worker_detach(worker);
        store_destroy(store);
    }
}

struct runner {
    pthread_t thread;
    struct store *store;
    unsigned put_percent;
    uint64_t seed;
    double result;
};

static void *run_thread(void *argument)
{
    struct runner *r = argument;
    struct store_worker *worker = attach(r->store);
    r->result = run_mix(r->store, worker, 1000000, r->put_percent, 16000000, r->seed);
    store_worker_detach(worker);
    return NULL;
}

static double run_threads(struct store *store, unsigned threads, unsigned put_percent)
{
    struct runner runners[2];
    double sum = 0;
    for (unsigned i = 0; i < threads; i++) {
        runners[i] = (struct runner){.store = store, .put_percent = put_percent, .seed = i + 1};
        pthread_create(&runners[i].thread, NULL, run_thread, &runners[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(runners[i].thread, NULL);
        sum += runners[i].result;
    }
    return sum;
}

static void scaling(void)
{
    static const unsigned mixes[] = {0, 10, 50};
    struct store *store = make_store((size_t)1 << 30, STORE_EVICT);
    struct store_worker *worker = attach(store);
    fill(store, worker, 1000000, 64, NULL);
    store_worker_detach(worker);
    for (unsigned i = 0; i < 3; i++) {
        double one = run_threads(store, 1, mixes[i]), two = run_threads(store, 2, mixes[i]);
        printf("two threads, %2u %% puts, uniform: %.2f M/s over %.2f M/s = %.2f\n", mixes[i], two, one, two / one);
    }
    store_destroy(store);
}

static void print_worst(const char *when, struct worst *worst)
{
    printf("longest batch %s: %.3f ms, %.3f ms of CPU; %llu batches over 1 ms of CPU\n", when,
           (double)worst->wall_ns / 1e6, (double)worst->cpu_ns / 1e6, (unsigned long long)worst->over);
    *worst = (struct worst){0};
}

static void stall(void)
{
    struct worst worst = {0};
    struct store *store = make_store((size_t)2 << 30, STORE_EVICT);
    struct store_worker *worker = attach(store);
    fill(store, worker, 12000000, 64, &worst);
    print_worst("while 12 M items fill 2 GiB", &worst);
    fill(store, worker, 50000000, 64, &worst);
    print_worst("while 50 M more evict others", &worst);
    store_worker_detach(worker);
    store_destroy(store);
}

static void overwrite(void)
{
    static const size_t lengths[] = {64, 200, 1000};
    static const char *const names[] = {"evict", "refuse"};
    for (unsigned mode = 0; mode < 2; mode++) {
        for (unsigned i = 0; i < 3; i++) {
            size_t memory = (size_t)256 << 20;
            double before = resident_bytes();
            struct store *store = make_store(memory, mode == 0 ? STORE_EVICT : STORE_REFUSE);
            struct store_worker *worker = attach(store);
            uint64_t items = fill(store, worker, memory / (KEY_BYTES + lengths[i]), lengths[i], NULL), random = 1;
            struct store_stats stats;
            store_stats(store, &stats);
            items = stats.items;
            /* The ids that are there: with eviction, the newest. */
            uint64_t first = mode == 0 ? memory / (KEY_BYTES + lengths[i]) / BATCH * BATCH - items : 0;
            struct batch batch;
            uint64_t from = now_ns(), failed = 0;
            for (uint64_t done = 0; done < items * 10; done += BATCH) {
                for (unsigned k = 0; k < BATCH; k++)
                    name_key(batch.keys[k], first + next_random(&random) % items);
                failed += BATCH - put_batch(store, worker, &batch, lengths[i]);
            }
            double seconds = (double)(now_ns() - from) / 1e9, grown = resident_bytes() - before;
            store_stats(store, &stats);
            double data = (double)stats.items * (double)(KEY_BYTES + lengths[i]);
            printf("%-6s value %4zu, 10x overwritten: data/RSS %.1f %%, (live + index)/RSS %.1f %%, RSS/limit %.1f %%, "
                   "%.2f M puts/s, %.2f bytes moved per byte, %.1f %% left, %llu failed\n",
                   names[mode], lengths[i], data / grown * 100,
                   (double)(stats.bytes_live + stats.bytes_index) / grown * 100, grown / (double)memory * 100,
                   (double)items * 10 / seconds / 1e6,
                   (double)stats.moved_bytes / ((double)items * 10 * (double)(KEY_BYTES + lengths[i] + 4)),
                   (double)stats.items / (double)items * 100, (unsigned long long)failed);
            store_worker_detach(worker);
            store_destroy(store);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {{"overhead", overhead}, {"speed", speed}, {"scaling", scaling}, {"stall", stall}, {"overwrite", overwrite}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(value, 'v', sizeof(value));
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        bool wanted = argc == 1;
        for (int a = 1; a < argc; a++)
            wanted = wanted || strcmp(argv[a], parts[i].name) == 0;
        if (wanted)
            parts[i].run();
    }
    return 0;
}
