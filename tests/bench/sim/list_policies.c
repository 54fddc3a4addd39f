/* SPDX-License-Identifier: MIT */
/*
 * FIFO, exact LRU and segmented LRU over single items, without fragmentation.
 * SLRU: new items enter probation; a hit moves to the protected part, whose overflow falls back to probation.
 * Options: slru: protected=80 (percent of the memory).
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>

enum kind { FIFO, LRU, SLRU };
enum part { ABSENT, PROBATION, PROTECTED, PARTS };

struct cache {
    enum kind kind;
    uint64_t memory, protected_limit;
    enum sim_cost_model cost;
    bool has_ttl;
    uint32_t keys;
    struct sim_node *nodes;
    uint32_t *bytes; /* what the item is charged */
    uint8_t *part;
    struct sim_list list[PARTS];
    struct sim_counters counters;
};

static void *create(const struct sim_setup *setup, enum kind kind)
{
    struct cache *c = sim_alloc(1, sizeof(*c));

    c->kind = kind;
    c->memory = setup->memory;
    c->cost = setup->cost;
    c->has_ttl = setup->has_ttl;
    c->keys = setup->keys;
    if (kind == SLRU)
        c->protected_limit = (uint64_t)((double)c->memory * sim_option(setup->spec, "protected", 80) / 100);
    c->nodes = sim_alloc(c->keys, sizeof(*c->nodes));
    c->bytes = sim_alloc(c->keys, sizeof(*c->bytes));
    c->part = sim_alloc(c->keys, sizeof(*c->part));
    for (int i = 0; i < PARTS; i++)
        sim_list_init(&c->list[i]);
    return c;
}

static void *create_fifo(const struct sim_setup *setup) { return create(setup, FIFO); }
static void *create_lru(const struct sim_setup *setup) { return create(setup, LRU); }
static void *create_slru(const struct sim_setup *setup) { return create(setup, SLRU); }

static void move(struct cache *c, uint32_t key, enum part to)
{
    if (c->part[key] != ABSENT)
        sim_list_remove(&c->list[c->part[key]], c->nodes, key, c->bytes[key]);
    c->part[key] = (uint8_t)to;
    if (to != ABSENT)
        sim_list_push(&c->list[to], c->nodes, key, c->bytes[key]);
}

static bool get(void *cache, uint32_t key)
{
    struct cache *c = cache;

    if (c->part[key] == ABSENT)
        return false;
    if (c->kind == LRU)
        move(c, key, PROBATION);
    if (c->kind == SLRU) {
        move(c, key, PROTECTED);
        while (c->list[PROTECTED].bytes > c->protected_limit)
            move(c, c->list[PROTECTED].tail, PROBATION);
    }
    return true;
}

static void remove_key(void *cache, uint32_t key)
{
    move(cache, key, ABSENT);
}

static void put(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms)
{
    struct cache *c = cache;
    uint32_t bytes = sim_cost(c->cost, size, expiry_ms != SIM_NEVER);
    enum part to = c->part[key] == PROTECTED ? PROTECTED : PROBATION;

    move(c, key, ABSENT);
    c->counters.written_bytes += bytes;
    if (bytes > c->memory)
        return;
    while (c->list[PROBATION].bytes + c->list[PROTECTED].bytes + bytes > c->memory) {
        uint32_t victim = c->list[PROBATION].tail;
        move(c, victim != SIM_NONE ? victim : c->list[PROTECTED].tail, ABSENT);
        c->counters.evicted++;
    }
    c->bytes[key] = bytes;
    move(c, key, to);
    while (c->kind == SLRU && c->list[PROTECTED].bytes > c->protected_limit)
        move(c, c->list[PROTECTED].tail, PROBATION);
}

static void counters(const void *cache, struct sim_counters *out)
{
    const struct cache *c = cache;

    *out = c->counters;
    out->charged = out->live_bytes = c->list[PROBATION].bytes + c->list[PROTECTED].bytes;
}

static bool audit(const void *cache)
{
    const struct cache *c = cache;
    uint64_t bytes[PARTS] = { 0 };

    for (uint32_t key = 0; key < c->keys; key++)
        bytes[c->part[key]] += c->bytes[key];
    return bytes[PROBATION] == c->list[PROBATION].bytes && bytes[PROTECTED] == c->list[PROTECTED].bytes;
}

static void destroy(void *cache)
{
    struct cache *c = cache;

    free(c->nodes);
    free(c->bytes);
    free(c->part);
    free(c);
}

const struct sim_policy sim_fifo = { "fifo", create_fifo, get, put, remove_key, counters, audit, destroy, NULL, false };
const struct sim_policy sim_lru = { "lru", create_lru, get, put, remove_key, counters, audit, destroy, NULL, false };
const struct sim_policy sim_slru = { "slru", create_slru, get, put, remove_key, counters, audit, destroy, NULL, false };
