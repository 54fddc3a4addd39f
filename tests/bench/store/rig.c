/* SPDX-License-Identifier: MIT */
/* A server's workers without sockets: what a connection does with dispatch, and the clocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "server/store/store_impl.h"
#include "tests/bench/store/bench.h"

#define WORKERS       2U
#define HUGE_PAGE     ((size_t)2 << 20)
#define WARM_MS       0.3 /* For a huge page; the kernel alone takes 0.1 ms. */
#define WARM_TIMES    4U
#define RECEIVED_MOST 65536U /* As in the server: what was just received lies in the nearer caches. */

static void must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "bench_store: %s\n", what);
        abort();
    }
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t wall_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

double resident_bytes(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must(file != NULL && fscanf(file, "%ld %ld", &pages, &resident) == 2, "/proc/self/statm");
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

/* Touches memory and gives it back. Answers the CPU time, in ms per huge page. */
static double touch(size_t bytes)
{
    uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(at != MAP_FAILED, "no memory to warm");
    madvise(at, bytes, MADV_HUGEPAGE);
    uint64_t from = cpu_ns();
    for (size_t i = 0; i < bytes; i += 4096)
        at[i] = 1;
    uint64_t spent = cpu_ns() - from;
    munmap(at, bytes);
    return (double)spent / 1e6 / ((double)bytes / (double)HUGE_PAGE);
}

void warm_memory(size_t bytes)
{
    double first = touch(bytes), now = first;
    for (unsigned i = 0; i < WARM_TIMES && now > WARM_MS; i++)
        now = touch(bytes + bytes / 8);
    if (first > WARM_MS)
        fprintf(stderr, "%-9s the first touch of 2 MiB cost %.2f ms, a later one %.2f ms: so the host of this machine "
                        "gives memory\n", "", first, now);
}

static uint64_t rig_now(void *context)
{
    const struct rig *rig = context;
    return __atomic_load_n(&rig->now_ms, __ATOMIC_RELAXED);
}

void rig_init(struct rig *rig, size_t memory, enum store_eviction eviction, bool fake_clock)
{
    *rig = (struct rig){.now_ms = 1000};
    struct store_config config = {.memory_bytes = memory, .eviction = eviction, .max_workers = WORKERS + 1,
                                  .now_ms = fake_clock ? rig_now : NULL, .now_context = rig};
    must(store_create(&config, &rig->store) == 0, "store_create");
    must(stats_init(&rig->stats, WORKERS) == 0, "stats_init");
    buf_budget_init(&rig->budget, (size_t)16 << 20);
    rig->stats.store = rig->store;
    rig->stats.budget = &rig->budget;
    rig->stats.eviction = eviction == STORE_EVICT ? "evict" : "none";
}

void rig_touch(struct rig *rig, uint64_t items)
{
    struct store *store = rig->store;
    size_t index = items * 13, overflow = items * 5, all = (size_t)store->segment_count << store->segment_shift;
    must(madvise(store_at(store, store->arena_at), all, MADV_POPULATE_WRITE) == 0, "cannot touch the segments");
    must(madvise(store->buckets, index / 4096 * 4096, MADV_POPULATE_WRITE) == 0, "cannot touch the index");
    must(madvise(store->overflow, overflow / 4096 * 4096, MADV_POPULATE_WRITE) == 0, "cannot touch the index");
}

void rig_fini(struct rig *rig)
{
    stats_fini(&rig->stats);
    store_destroy(rig->store);
}

void rig_attach(struct rig_worker *worker, struct rig *rig, unsigned number)
{
    *worker = (struct rig_worker){.rig = rig, .out_bytes = malloc(DISPATCH_OUT_BYTES)};
    must(worker->out_bytes != NULL, "memory");
    buf_pool_init(&worker->pool, &rig->budget, 0);
    buf_out_init(&worker->out, worker->out_bytes, DISPATCH_OUT_BYTES, worker->refs);
    struct dispatch_config config = {.store = rig->store,
                                     .stats = &rig->stats,
                                     .counters = &rig->stats.workers[number],
                                     .pool = &worker->pool,
                                     .max_value = 1U << 20};
    must(dispatch_create(&config, &worker->dispatch) == 0, "dispatch_create");
}

void rig_detach(struct rig_worker *worker)
{
    dispatch_destroy(worker->dispatch);
    buf_pool_fini(&worker->pool);
    free(worker->out_bytes);
}

size_t rig_run(struct rig_worker *worker, const uint8_t *bytes, size_t len)
{
    size_t replies = 0;
    while (len != 0) {
        struct dispatch_result result;
        dispatch_run(worker->dispatch, &worker->session, bytes, len, &worker->out, &result);
        must(result.consumed != 0 && result.next != DISPATCH_CLOSE, "a request was not answered");
        bytes += result.consumed;
        len -= result.consumed;
        replies += worker->out.len;
        buf_out_drop(&worker->out, dispatch_releaser(worker->dispatch));
        buf_out_reset(&worker->out);
    }
    dispatch_quiesce(worker->dispatch);
    return replies;
}

uint64_t rig_run_stream(struct rig_worker *worker, const struct stream *stream)
{
    static _Thread_local uint8_t received[RECEIVED_MOST];
    const uint8_t *at = stream->bytes;
    uint64_t spent = 0;
    for (size_t batch = 0, next; batch < stream->batches; batch = next) {
        size_t len = 0;
        for (next = batch; next < stream->batches && len + stream->ends[next] <= sizeof received; next++)
            len += stream->ends[next];
        memcpy(received, at, len);
        at += len;
        const uint8_t *from = received;
        uint64_t start = cpu_ns();
        for (; batch < next; batch++) {
            rig_run(worker, from, stream->ends[batch]);
            from += stream->ends[batch];
        }
        spent += cpu_ns() - start;
    }
    return spent;
}

void rig_fill(struct rig_worker *worker, uint64_t first, uint64_t items, size_t value_len, uint64_t ttl_ms)
{
    uint8_t batch[BATCH * (MAX_VALUE + 64)];
    for (uint64_t id = 0; id < items;) {
        size_t len = 0;
        for (unsigned i = 0; i < BATCH && id < items; i++)
            len += encode_put(batch + len, first + id++, value_len, ttl_ms);
        rig_run(worker, batch, len);
    }
}
