/* SPDX-License-Identifier: MIT */
/*
 * W-TinyLFU over single items (Einziger et al. 2017), as a yardstick: an LRU window, a segmented LRU main part, and
 * a sketch that admits a candidate only over a less frequent victim.
 * Options: window=1 (percent), protected=80 (percent of the main part), sketch=0.4 (percent of the memory).
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>

enum part { ABSENT, WINDOW, PROBATION, PROTECTED, PARTS };

struct cache {
    uint64_t memory, window_limit, protected_limit;
    enum sim_cost_model cost;
    uint32_t keys;
    struct sim_node *nodes;
    uint32_t *bytes;
    uint8_t *part;
    struct sim_sketch *sketch;
    struct sim_list list[PARTS];
    struct sim_counters counters;
};

static void *create(const struct sim_setup *setup)
{
    struct cache *c = sim_alloc(1, sizeof(*c));

    c->keys = setup->keys;
    c->cost = setup->cost;
    c->sketch = sim_sketch_create((uint64_t)((double)setup->memory * sim_option(setup->spec, "sketch", 0.4) / 100));
    c->memory = setup->memory - sim_sketch_bytes(c->sketch);
    c->window_limit = (uint64_t)((double)c->memory * sim_option(setup->spec, "window", 1) / 100);
    c->protected_limit = (uint64_t)((double)(c->memory - c->window_limit) *
                                    sim_option(setup->spec, "protected", 80) / 100);
    c->nodes = sim_alloc(c->keys, sizeof(*c->nodes));
    c->bytes = sim_alloc(c->keys, sizeof(*c->bytes));
    c->part = sim_alloc(c->keys, 1);
    for (int i = 0; i < PARTS; i++)
        sim_list_init(&c->list[i]);
    return c;
}

static void move(struct cache *c, uint32_t key, enum part to)
{
    if (c->part[key] != ABSENT)
        sim_list_remove(&c->list[c->part[key]], c->nodes, key, c->bytes[key]);
    c->part[key] = (uint8_t)to;
    if (to != ABSENT)
        sim_list_push(&c->list[to], c->nodes, key, c->bytes[key]);
}

static void balance(struct cache *c)
{
    while (c->list[PROTECTED].bytes > c->protected_limit)
        move(c, c->list[PROTECTED].tail, PROBATION);
}

static bool get(void *cache, uint32_t key)
{
    struct cache *c = cache;

    sim_sketch_add(c->sketch, key, 1);
    if (c->part[key] == ABSENT)
        return false;
    move(c, key, c->part[key] == WINDOW ? WINDOW : PROTECTED);
    balance(c);
    return true;
}

static void remove_key(void *cache, uint32_t key)
{
    move(cache, key, ABSENT);
}

static uint64_t used(const struct cache *c)
{
    return c->list[WINDOW].bytes + c->list[PROBATION].bytes + c->list[PROTECTED].bytes;
}

/* The candidate leaves the window: it stays only if it is asked for more often than each victim it would replace. */
static void admit(struct cache *c, uint32_t candidate)
{
    uint32_t worth = sim_sketch_estimate(c->sketch, candidate);

    move(c, candidate, PROBATION);
    while (used(c) > c->memory) {
        uint32_t victim = c->list[PROBATION].tail;
        if (victim == candidate && c->list[PROTECTED].tail != SIM_NONE)
            victim = c->list[PROTECTED].tail;
        c->counters.evicted++;
        if (worth <= sim_sketch_estimate(c->sketch, victim)) {
            move(c, candidate, ABSENT);
            return;
        }
        move(c, victim, ABSENT);
    }
}

static void put(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms)
{
    struct cache *c = cache;
    uint32_t bytes = sim_cost(c->cost, size, expiry_ms != SIM_NEVER);
    enum part to = c->part[key] == ABSENT ? WINDOW : c->part[key];

    if (c->part[key] != ABSENT)
        sim_sketch_add(c->sketch, key, 1);
    move(c, key, ABSENT);
    c->counters.written_bytes += bytes;
    if (bytes > c->memory / 2)
        return;
    c->bytes[key] = bytes;
    move(c, key, to);
    balance(c);
    while (c->list[WINDOW].bytes > c->window_limit)
        admit(c, c->list[WINDOW].tail);
    while (used(c) > c->memory)
        move(c, c->list[PROBATION].tail != SIM_NONE ? c->list[PROBATION].tail : c->list[PROTECTED].tail, ABSENT);
}

static void counters(const void *cache, struct sim_counters *out)
{
    const struct cache *c = cache;

    *out = c->counters;
    out->charged = out->live_bytes = used(c);
}

static bool audit(const void *cache)
{
    const struct cache *c = cache;
    uint64_t bytes[PARTS] = { 0 };

    for (uint32_t key = 0; key < c->keys; key++)
        bytes[c->part[key]] += c->bytes[key];
    for (int i = WINDOW; i < PARTS; i++)
        if (bytes[i] != c->list[i].bytes)
            return false;
    return true;
}

static void destroy(void *cache)
{
    struct cache *c = cache;

    free(c->nodes);
    free(c->bytes);
    free(c->part);
    sim_sketch_destroy(c->sketch);
    free(c);
}

const struct sim_policy sim_tinylfu = { "tinylfu", create, get, put, remove_key, counters, audit, destroy, NULL, false };
