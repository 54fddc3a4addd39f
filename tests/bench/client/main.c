/* SPDX-License-Identifier: MIT */
/*
 * What the client library costs beside hiredis: one thread, one connection, pipelines of RIG_DEPTH, 16-byte keys, and
 * blocking calls beside a bare socket.  One connection and one pipeline sleep and wake up for each batch; what is left when
 * neither side ever sleeps is seen with RIG_CONNECTIONS connections in an event loop.  run_client.py starts the
 * servers on another CPU and calls
 *
 *     bench_client CRAB_PORT REDIS_PORT SECONDS VALUE_BYTES       REDIS_PORT 0: without hiredis
 *
 * Both libraries take turns, a piece of each after the other, and the medians count: machines are shared.  CPU time is
 * that of the thread, user and system, and so without the servers'.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/client/rig.h"

#define PIECES 7U
#define LATENCY_ROUNDS 100U

struct series {
    double rate[PIECES];
    double cpu_ns[PIECES];
};

static void note(struct series *series, unsigned piece, struct rig_cost cost)
{
    series->rate[piece] = (double)cost.ops / cost.seconds;
    series->cpu_ns[piece] = cost.cpu_seconds * 1e9 / (double)cost.ops;
}

static void print_row(const char *name, const char *what, struct series *series)
{
    double rate = rig_median(series->rate, PIECES), cpu_ns = rig_median(series->cpu_ns, PIECES);
    printf("| %s | %s | %.2f | %.0f | %.2f |\n", what, name, rate / 1e6, cpu_ns, 1e3 / cpu_ns);
}

static void print_ratio(const char *name, const char *what, const struct series *ours, const struct series *theirs)
{
    printf("| %s | %s | %.2f | %.2f | |\n", what, name, ours->rate[PIECES / 2] / theirs->rate[PIECES / 2],
           theirs->cpu_ns[PIECES / 2] / ours->cpu_ns[PIECES / 2]);
}

static void compare(struct rig *rig, struct crab_side *crab, struct redis_side *redis, int put)
{
    struct series ours, theirs, bare, loop, many;
    for (unsigned piece = 0; piece < PIECES; piece++) {
        note(&ours, piece, crab_side_run(rig, crab, put));
        note(&bare, piece, bare_run(rig, put));
        note(&loop, piece, loop_run(rig, put));
        if (redis == NULL)
            continue;
        note(&theirs, piece, redis_side_run(rig, redis, put));
        note(&many, piece, redis_many_run(rig, put));
    }
    const char *what = put ? "PUT" : "GET";
    print_row("libcrabcache", what, &ours);
    print_row("send and recv of the same bytes", what, &bare);
    print_row("libcrabcache, 16 connections in an event loop", what, &loop);
    if (redis == NULL)
        return;
    print_row("hiredis", what, &theirs);
    print_row("hiredis, 16 connections in turn", what, &many);
    print_ratio("ratio, one connection", what, &ours, &theirs);
    print_ratio("ratio, 16 connections", what, &loop, &many);
}

int main(int argc, char **argv)
{
    static struct rig rig = {.random = 88172645463325252U};
    if (argc != 5)
        rig_die("usage: bench_client CRAB_PORT REDIS_PORT SECONDS VALUE_BYTES");
    rig.crab_port = (uint16_t)strtoul(argv[1], NULL, 10);
    rig.redis_port = (uint16_t)strtoul(argv[2], NULL, 10);
    rig.seconds = strtod(argv[3], NULL);
    rig.value_bytes = strtoul(argv[4], NULL, 10);
    rig.keys = malloc(sizeof *rig.keys * RIG_KEYS);
    if (rig.keys == NULL || rig.value_bytes == 0 || rig.value_bytes > RIG_MAX_VALUE)
        rig_die("VALUE_BYTES is 1 to %u", RIG_MAX_VALUE);
    memset(rig.value, 'v', sizeof rig.value);
    for (unsigned i = 0; i < RIG_KEYS; i++) {
        char text[RIG_KEY_BYTES + 1];
        (void)snprintf(text, sizeof text, "key:%012u", i);
        memcpy(rig.keys[i], text, RIG_KEY_BYTES);
    }
    struct crab_side *crab = crab_side_open(&rig);
    struct redis_side *redis = rig.redis_port != 0 ? redis_side_open(&rig) : NULL;
    crab_side_fill(&rig, crab);
    if (redis != NULL)
        redis_side_fill(&rig, redis);
    printf("| request | client | M requests/s | client CPU ns/request | M requests per CPU second |\n"
           "|---|---|--:|--:|--:|\n");
    compare(&rig, crab, redis, 0);
    compare(&rig, crab, redis, 1);
    printf("\n");
    latency_compare(&rig, LATENCY_ROUNDS);
    printf("\n");
    threads_compare(&rig);
    crab_side_close(crab);
    if (redis != NULL)
        redis_side_close(redis);
    free(rig.keys);
    return 0;
}
