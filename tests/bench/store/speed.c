/* SPDX-License-Identifier: MIT */
/*
 * Operations per second through dispatch, in batches of 64 of frames that were encoded beforehand: one thread, and two
 * against one. Per second of CPU time, as machines are shared; the median of several runs, with the least and the most.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "tests/bench/store/bench.h"

#define RUNS      5U
#define VALUE     64U
#define ITEM      (4U + KEY_BYTES + VALUE)
#define REQUESTS  (2000000U / hurry)
#define PUT_SHARE 0.6

/* A store with so many items. */
static void prepare(struct rig *rig, struct rig_worker *worker, uint64_t items, size_t memory)
{
    warm_memory(memory);
    rig_init(rig, memory, STORE_EVICT, false);
    rig_attach(worker, rig, 0);
    rig_fill(worker, 0, items, VALUE, 0);
}

/* Overwrites at random until dead space is collected, for which all memory was touched: the speed of every day. */
static void settle(struct rig *rig, struct rig_worker *worker, uint64_t items)
{
    struct load load = {.items = items, .seed = 7, .put_percent = 100, .value_len = VALUE};
    struct store_stats stats;
    for (store_stats(rig->store, &stats); stats.moved_bytes + stats.evictions == 0; store_stats(rig->store, &stats)) {
        struct stream stream;
        stream_make(&stream, &load, 500000);
        (void)rig_run_stream(worker, &stream);
        stream_free(&stream);
        load.seed++;
    }
}

static double run_once(struct rig_worker *worker, const struct load *load, size_t requests)
{
    struct stream stream;
    stream_make(&stream, load, requests);
    double ns = (double)rig_run_stream(worker, &stream);
    double speed = (double)(stream.batches * BATCH) * 1e3 / ns;
    stream_free(&stream);
    return speed;
}

static double run_many(struct rig_worker *worker, struct load load, char note[static 64])
{
    double speed[RUNS];
    for (unsigned run = 0; run < RUNS; run++) {
        load.seed += run + 1;
        speed[run] = run_once(worker, &load, REQUESTS);
    }
    double middle = median(speed, RUNS);
    snprintf(note, 64, "%.2f to %.2f", speed[0], speed[RUNS - 1]);
    return middle;
}

/* Answers the median speed of puts. */
static double measure_puts(struct rig *rig, struct rig_worker *worker, uint64_t items, char note[static 128])
{
    struct load load = {.items = items, .put_percent = 100, .value_len = VALUE};
    struct store_stats before, after;
    char range[64];
    store_stats(rig->store, &before);
    double put = run_many(worker, load, range);
    store_stats(rig->store, &after);
    snprintf(note, 128, "%s; %.2f B moved per B written", range,
             (double)(after.moved_bytes - before.moved_bytes) / ((double)(after.puts - before.puts) * ITEM));
    return put;
}

static size_t data_bytes(uint64_t items)
{
    return items * ITEM + items * 64 * 10 / 56;
}

/* With memory for 2.5 times the data. */
static void measure_ample(uint64_t items, double target, bool huge)
{
    struct rig rig;
    struct rig_worker worker;
    char note[128];
    unsigned millions = (unsigned)(items / 1000000);
    size_t memory = data_bytes(items) * 5 / 2;
    const char *pages = huge ? "" : ", without huge pages";
    enum sense sense = huge ? AT_LEAST : NO_TARGET;
    prepare(&rig, &worker, items, memory);
    struct load load = {.items = items, .value_len = VALUE};
    double get = run_many(&worker, load, note);
    report("speed", sense, target, get, "M/s", note, "GET, %u M items%s", millions, pages);
    settle(&rig, &worker, items);
    double later = run_many(&worker, load, note);
    report("speed", NO_TARGET, 0, later, "M/s", note, "GET, %u M items, after overwriting%s", millions, pages);
    double put = measure_puts(&rig, &worker, items, note);
    report("speed", sense, PUT_SHARE * target, put, "M/s", note, "PUT, %u M items%s", millions, pages);
    snprintf(note, sizeof note, "%.2f of GET before", put / get);
    if (huge)
        report("speed", AT_LEAST, PUT_SHARE, put / later, "", note, "PUT over GET after overwriting, %u M items", millions);
    rig_detach(&worker);
    rig_fini(&rig);
}

/* With memory for 1.25 times the data: most of a put is making room. */
static void measure_tight(uint64_t items)
{
    struct rig rig;
    struct rig_worker worker;
    char note[128];
    size_t memory = data_bytes(items) * 5 / 4;
    prepare(&rig, &worker, items, memory);
    settle(&rig, &worker, items);
    double put = measure_puts(&rig, &worker, items, note);
    report("speed", NO_TARGET, 0, put, "M/s", note, "PUT, %u M items, memory 1.25 times the data",
           (unsigned)(items / 1000000));
    rig_detach(&worker);
    rig_fini(&rig);
}

void measure_speed(void)
{
    measure_ample(1000000, 12, true);
    measure_tight(1000000);
}

void measure_speed_many(void)
{
    measure_ample(20000000 / hurry, 8, true);
}

void measure_speed_small_pages(void)
{
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0) {
        measure_ample(1000000, 12, false);
        measure_ample(20000000 / hurry, 8, false);
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    }
}

/* ---- two threads ---- */

struct runner {
    pthread_t thread;
    struct rig_worker worker;
    struct stream stream;
    pthread_barrier_t *start;
    double speed;
};

static void *run_thread(void *argument)
{
    struct runner *r = argument;
    pthread_barrier_wait(r->start);
    r->speed = (double)(r->stream.batches * BATCH) * 1e3 / (double)rig_run_stream(&r->worker, &r->stream);
    return NULL;
}

/* The sum of what so many threads do per second of CPU time, all at once. */
static double run_threads(struct runner *runners, unsigned threads, struct load load)
{
    double sum = 0;
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        load.seed++;
        stream_make(&runners[i].stream, &load, REQUESTS);
        runners[i].start = &start;
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_create(&runners[i].thread, NULL, run_thread, &runners[i]);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(runners[i].thread, NULL);
        stream_free(&runners[i].stream);
        sum += runners[i].speed;
    }
    pthread_barrier_destroy(&start);
    return sum;
}

void measure_threads(void)
{
    static const struct {
        unsigned put_percent;
        double target;
    } mixes[] = {{0, 1.9}, {10, 1.85}, {50, 1.7}};
    struct runner runners[2];
    struct rig rig;
    prepare(&rig, &runners[0].worker, 1000000, (size_t)256 << 20);
    settle(&rig, &runners[0].worker, 1000000);
    rig_attach(&runners[1].worker, &rig, 1);
    for (unsigned zipf = 0; zipf < 2; zipf++) {
        for (unsigned i = 0; i < sizeof mixes / sizeof mixes[0]; i++) {
            struct load load = {.items = 1000000, .put_percent = mixes[i].put_percent, .value_len = VALUE,
                                .zipf = zipf != 0};
            double ratio[RUNS], one = 0, two = 0;
            for (unsigned run = 0; run < RUNS; run++) {
                load.seed += 10;
                one = run_threads(runners, 1, load);
                two = run_threads(runners, 2, load);
                ratio[run] = two / one;
            }
            double middle = median(ratio, RUNS);
            char note[64];
            snprintf(note, sizeof note, "%.2f to %.2f; at last %.1f over %.1f M/s", ratio[0], ratio[RUNS - 1], two, one);
            report("threads", AT_LEAST, mixes[i].target, middle, "x", note, "two over one, GET %u / PUT %u, %s",
                   100 - mixes[i].put_percent, mixes[i].put_percent, zipf != 0 ? "Zipf 0.99" : "uniform");
        }
    }
    rig_detach(&runners[0].worker);
    rig_detach(&runners[1].worker);
    rig_fini(&rig);
}
