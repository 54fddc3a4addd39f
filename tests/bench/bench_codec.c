/* SPDX-License-Identifier: MIT */
/*
 * What the codec costs: nanoseconds per message for decoding and encoding pipelines of 64, on one thread, from
 * memory that stays in the cache. Prints one row per message; the median of several runs, since machines are
 * shared. It is a measurement, not a test: nothing here passes or fails.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crabcache/wire.h"

#define BATCH 64
#define RUNS 9
#define BATCHES_PER_RUN 20000

static uint8_t pipeline[BATCH * 256];
static const char *volatile key = "key:000000000001"; /* volatile: what is encoded must not be known beforehand */
static uint8_t value[64];

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Keep the compiler from dropping work whose result nobody reads. */
static void use(uint64_t x)
{
    __asm__ volatile("" ::"r"(x) : "memory");
}

static size_t encode_gets(void)
{
    struct crab_req_get get = {.flags = 0};
    size_t used = 0;
    for (int i = 0; i < BATCH; i++) {
        get.key = crab_slice_str(key);
        used += crab_req_get_encode(&get, pipeline + used, sizeof pipeline - used);
    }
    return used;
}

static size_t encode_puts(void)
{
    struct crab_req_put put = {.flags = CRAB_PUT_TTL, .ttl_ms = 60000};
    put.value = crab_slice_of(value, sizeof value);
    size_t used = 0;
    for (int i = 0; i < BATCH; i++) {
        put.key = crab_slice_str(key);
        used += crab_req_put_encode(&put, pipeline + used, sizeof pipeline - used);
    }
    return used;
}

static size_t encode_values(void)
{
    struct crab_rep_value reply = {.value = crab_slice_of(value, sizeof value)};
    size_t used = 0;
    for (int i = 0; i < BATCH; i++)
        used += crab_rep_value_encode(&reply, pipeline + used, sizeof pipeline - used);
    return used;
}

static void decode_requests(size_t size)
{
    uint64_t sum = 0;
    for (size_t at = 0; at < size;) {
        union crab_request request;
        struct crab_frame frame;
        if (crab_request_decode(pipeline + at, size - at, CRAB_DEFAULT_MAX_VALUE, &request, &frame) != CRAB_WHOLE)
            abort();
        at += frame.size;
        sum += request.head.key.len + request.head.value.len;
    }
    use(sum);
}

static void decode_replies(size_t size)
{
    uint64_t sum = 0;
    for (size_t at = 0; at < size;) {
        union crab_reply reply;
        struct crab_frame frame;
        if (crab_reply_decode(pipeline + at, size - at, UINT32_MAX, &reply, &frame) != CRAB_WHOLE)
            abort();
        at += frame.size;
        sum += reply.value.value.len;
    }
    use(sum);
}

static double median(double (*run)(size_t (*)(void), void (*)(size_t)), size_t (*encode)(void), void (*decode)(size_t))
{
    double times[RUNS];
    for (int i = 0; i < RUNS; i++)
        times[i] = run(encode, decode);
    qsort(times, RUNS, sizeof times[0], by_size);
    return times[RUNS / 2];
}

static double time_encode(size_t (*encode)(void), void (*decode)(size_t))
{
    (void)decode;
    double start = now_ns();
    for (int i = 0; i < BATCHES_PER_RUN; i++)
        use(encode());
    return (now_ns() - start) / BATCHES_PER_RUN / BATCH;
}

static double time_decode(size_t (*encode)(void), void (*decode)(size_t))
{
    size_t size = encode();
    double start = now_ns();
    for (int i = 0; i < BATCHES_PER_RUN; i++)
        decode(size);
    return (now_ns() - start) / BATCHES_PER_RUN / BATCH;
}

static void row(const char *name, size_t (*encode)(void), void (*decode)(size_t))
{
    printf("%-28s %8.2f %8.2f\n", name, median(time_decode, encode, decode), median(time_encode, encode, decode));
}

int main(void)
{
    printf("%-28s %8s %8s\n", "message (ns each)", "decode", "encode");
    row("GET, key 16", encode_gets, decode_requests);
    row("PUT+TTL, key 16, value 64", encode_puts, decode_requests);
    row("VALUE, 64 bytes", encode_values, decode_replies);
    return 0;
}
