/* SPDX-License-Identifier: MIT */
/*
 * Threads with blocking GETs: all of them on one crab_client, beside a hiredis context each.  Both take turns.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/hiredis.h>

#include "crabcache/crabcache.h"
#include "tests/bench/client/rig.h"

#define THREADS 8U
#define ROUNDS 5U

struct crowd {
    struct rig *rig;
    struct crab_client *client; /* NULL: hiredis */
    _Atomic int stop;
};

struct member {
    struct crowd *crowd;
    pthread_t thread;
    uint64_t random;
    uint64_t ops;
};

static void *get_shared(void *argument)
{
    struct member *m = argument;
    struct crab_value value = {0};
    while (!atomic_load_explicit(&m->crowd->stop, memory_order_relaxed)) {
        if (crab_client_get(m->crowd->client, rig_next_key(m->crowd->rig, &m->random), RIG_KEY_BYTES, &value, NULL) != CRAB_OK ||
            value.len != m->crowd->rig->value_bytes)
            rig_die("a get on the shared client failed");
        m->ops++;
    }
    crab_value_fini(&value);
    return NULL;
}

static void *get_alone(void *argument)
{
    struct member *m = argument;
    redisContext *context = redisConnect("127.0.0.1", m->crowd->rig->redis_port);
    if (context == NULL || context->err != 0)
        rig_die("no connection to Redis");
    while (!atomic_load_explicit(&m->crowd->stop, memory_order_relaxed)) {
        redisReply *reply = redisCommand(context, "GET %b", rig_next_key(m->crowd->rig, &m->random), (size_t)RIG_KEY_BYTES);
        if (reply == NULL || reply->type != REDIS_REPLY_STRING)
            rig_die("a get from Redis failed");
        freeReplyObject(reply);
        m->ops++;
    }
    redisFree(context);
    return NULL;
}

static struct rig_cost run(struct crowd *crowd)
{
    struct member members[THREADS];
    struct rig_cost cost = {0};
    double cpu = rig_process_cpu();
    double start = rig_now();
    double whole = (double)(long)crowd->rig->seconds;
    struct timespec pause = {.tv_sec = (time_t)whole, .tv_nsec = (long)((crowd->rig->seconds - whole) * 1e9)};
    atomic_store(&crowd->stop, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        members[i] = (struct member){.crowd = crowd, .random = 88172645463325252U + i * 7919U};
        if (pthread_create(&members[i].thread, NULL, crowd->client != NULL ? get_shared : get_alone, &members[i]) != 0)
            rig_die("no thread");
    }
    (void)nanosleep(&pause, NULL);
    atomic_store(&crowd->stop, 1);
    for (unsigned i = 0; i < THREADS; i++) {
        (void)pthread_join(members[i].thread, NULL);
        cost.ops += members[i].ops;
    }
    cost.seconds = rig_now() - start;
    cost.cpu_seconds = rig_process_cpu() - cpu;
    return cost;
}

static int by_rate(const void *a, const void *b)
{
    const struct rig_cost *x = a, *y = b;
    double p = (double)x->ops / x->seconds, q = (double)y->ops / y->seconds;
    return (p > q) - (p < q);
}

static double print_row(const char *name, struct rig_cost *costs)
{
    qsort(costs, ROUNDS, sizeof *costs, by_rate);
    const struct rig_cost *middle = &costs[ROUNDS / 2];
    double rate = (double)middle->ops / middle->seconds;
    printf("| %u threads | %s | %.0f | %.1f |\n", THREADS, name, rate / 1e3,
           middle->cpu_seconds * 1e6 / (double)middle->ops);
    return rate;
}

void threads_compare(struct rig *rig)
{
    struct rig_cost ours[ROUNDS];
    struct rig_cost theirs[ROUNDS];
    struct crowd crowd = {.rig = rig};
    char uri[64];
    (void)snprintf(uri, sizeof uri, "crab://127.0.0.1:%u", (unsigned)rig->crab_port);
    struct crab_client *client = NULL;
    if (crab_client_open(uri, NULL, &client, NULL) != CRAB_OK)
        rig_die("no shared client");
    for (unsigned i = 0; i < ROUNDS; i++) {
        crowd.client = client;
        ours[i] = run(&crowd);
        crowd.client = NULL;
        if (rig->redis_port != 0)
            theirs[i] = run(&crowd);
    }
    printf("| blocking GETs | client | K requests/s | client CPU us/request |\n|---|---|--:|--:|\n");
    double rate = print_row("one crab_client, one connection", ours);
    if (rig->redis_port != 0)
        printf("| ratio | | %.2f | |\n", rate / print_row("hiredis, a connection each", theirs));
    crab_client_close(client);
}
