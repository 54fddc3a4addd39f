/* SPDX-License-Identifier: MIT */
/*
 * The same pipelines through hiredis, as its own documentation does them: redisAppendCommandArgv(), redisGetReply().
 */
#include "tests/bench/client/rig.h"

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <string.h>

static redisContext *context_of(struct redis_side *side)
{
    return (redisContext *)side;
}

struct redis_side *redis_side_open(struct rig *rig)
{
    redisContext *context = redisConnect("127.0.0.1", rig->redis_port);
    if (context == NULL || context->err != 0)
        rig_die("redis-server: %s", context != NULL ? context->errstr : "no memory");
    return (struct redis_side *)context;
}

void redis_side_close(struct redis_side *side)
{
    redisFree(context_of(side));
}

static void queue(struct rig *rig, redisContext *context, const char *key, int put)
{
    const char *words[3] = {put ? "SET" : "GET", key, (const char *)rig->value};
    size_t lengths[3] = {3, RIG_KEY_BYTES, rig->value_bytes};
    if (redisAppendCommandArgv(context, put ? 3 : 2, words, lengths) != REDIS_OK)
        rig_die("hiredis: %s", context->errstr);
}

static void take(redisContext *context, size_t value_bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        void *answer = NULL;
        if (redisGetReply(context, &answer) != REDIS_OK)
            rig_die("hiredis: %s", context->errstr);
        redisReply *reply = answer;
        if (value_bytes != 0 ? reply->type != REDIS_REPLY_STRING || reply->len != value_bytes
                             : reply->type != REDIS_REPLY_STATUS)
            rig_die("hiredis: not the answer that was expected");
        freeReplyObject(reply);
    }
}

void redis_side_fill(struct rig *rig, struct redis_side *side)
{
    for (unsigned i = 0; i < RIG_KEYS; i += RIG_DEPTH) {
        unsigned count = RIG_KEYS - i < RIG_DEPTH ? RIG_KEYS - i : RIG_DEPTH;
        for (unsigned j = 0; j < count; j++)
            queue(rig, context_of(side), rig->keys[i + j], 1);
        take(context_of(side), 0, count);
    }
}

struct rig_cost redis_side_run(struct rig *rig, struct redis_side *side, int put)
{
    struct rig_cost cost = {0};
    double began = rig_now(), cpu = rig_cpu();
    do {
        for (unsigned batch = 0; batch < 64; batch++) {
            for (unsigned i = 0; i < RIG_DEPTH; i++)
                queue(rig, context_of(side), rig_key(rig), put);
            take(context_of(side), put ? 0 : rig->value_bytes, RIG_DEPTH);
        }
        cost.ops += (uint64_t)64 * RIG_DEPTH;
        cost.seconds = rig_now() - began;
    } while (cost.seconds < rig->seconds);
    cost.cpu_seconds = rig_cpu() - cpu;
    return cost;
}

static void send_all(redisContext *context)
{
    for (int done = 0; !done;)
        if (redisBufferWrite(context, &done) != REDIS_OK)
            rig_die("hiredis: %s", context->errstr);
}

struct rig_cost redis_many_run(struct rig *rig, int put)
{
    redisContext *contexts[RIG_CONNECTIONS];
    struct rig_cost cost = {0};
    for (unsigned i = 0; i < RIG_CONNECTIONS; i++)
        contexts[i] = context_of(redis_side_open(rig));
    double began = rig_now(), cpu = rig_cpu();
    for (bool first = true; first || cost.seconds < rig->seconds; first = false) {
        for (unsigned i = 0; i < RIG_CONNECTIONS; i++) {
            if (!first)
                take(contexts[i], put ? 0 : rig->value_bytes, RIG_DEPTH);
            for (unsigned j = 0; j < RIG_DEPTH; j++)
                queue(rig, contexts[i], rig_key(rig), put);
            send_all(contexts[i]);
        }
        cost.ops += first ? 0 : (uint64_t)RIG_CONNECTIONS * RIG_DEPTH;
        cost.seconds = rig_now() - began;
    }
    cost.cpu_seconds = rig_cpu() - cpu;
    for (unsigned i = 0; i < RIG_CONNECTIONS; i++) {
        take(contexts[i], put ? 0 : rig->value_bytes, RIG_DEPTH);
        redisFree(contexts[i]);
    }
    return cost;
}
