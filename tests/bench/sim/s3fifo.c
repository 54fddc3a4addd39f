/* SPDX-License-Identifier: MIT */
/*
 * S3-FIFO over single items (Yang et al., SOSP 2023), without fragmentation: a small FIFO, a main FIFO with second
 * chances, a ghost of what fell out of the small one.
 * Options: small=10 (percent), threshold=2 (hits that take an item from small to main), ghost=100 (entries in percent
 * of the items), fmax=3 (where the hit counter saturates).
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>

enum part { ABSENT, SMALL, MAIN, PARTS };

struct cache {
    uint64_t memory;
    double small_share;
    uint8_t threshold, fmax;
    enum sim_cost_model cost;
    uint32_t keys;
    struct sim_node *nodes;
    uint32_t *bytes;
    uint8_t *part, *hits;
    struct sim_list list[PARTS];
    struct sim_ghost *ghost;
    uint32_t evictions; /* since the ghost was last fitted to the number of items */
    struct sim_counters counters;
};

static void *create(const struct sim_setup *setup)
{
    struct cache *c = sim_alloc(1, sizeof(*c));

    c->memory = setup->memory;
    c->cost = setup->cost;
    c->keys = setup->keys;
    c->small_share = sim_option(setup->spec, "small", 10) / 100;
    c->threshold = (uint8_t)sim_option(setup->spec, "threshold", 2);
    c->fmax = (uint8_t)sim_option(setup->spec, "fmax", 3);
    c->ghost = sim_ghost_create(sim_option(setup->spec, "ghost", 100) / 100);
    c->nodes = sim_alloc(c->keys, sizeof(*c->nodes));
    c->bytes = sim_alloc(c->keys, sizeof(*c->bytes));
    c->part = sim_alloc(c->keys, sizeof(*c->part));
    c->hits = sim_alloc(c->keys, sizeof(*c->hits));
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

static bool get(void *cache, uint32_t key)
{
    struct cache *c = cache;

    if (c->part[key] == ABSENT)
        return false;
    if (c->hits[key] < c->fmax)
        c->hits[key]++;
    return true;
}

static void remove_key(void *cache, uint32_t key)
{
    move(cache, key, ABSENT);
}

static uint64_t charged(const struct cache *c)
{
    return c->list[SMALL].bytes + c->list[MAIN].bytes + sim_ghost_bytes(c->ghost);
}

/* One item leaves a queue's tail: for good, or for the main queue's head. */
static void evict(struct cache *c)
{
    double in_both = (double)(c->list[SMALL].bytes + c->list[MAIN].bytes);
    bool from_small = c->list[SMALL].items &&
                      ((double)c->list[SMALL].bytes > c->small_share * in_both || !c->list[MAIN].items);
    uint32_t key = c->list[from_small ? SMALL : MAIN].tail;

    if (from_small && c->hits[key] >= c->threshold) {
        move(c, key, MAIN);
        c->hits[key] = 0;
    } else if (!from_small && c->hits[key] > 0) {
        move(c, key, MAIN);
        c->hits[key]--;
    } else {
        move(c, key, ABSENT);
        if (from_small)
            sim_ghost_add(c->ghost, key);
        c->counters.evicted++;
        c->evictions++;
    }
}

static void put(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms)
{
    struct cache *c = cache;
    uint32_t bytes = sim_cost(c->cost, size, expiry_ms != SIM_NEVER);
    bool known = c->part[key] != ABSENT;
    enum part to = known ? c->part[key] : SMALL;

    move(c, key, ABSENT);
    c->counters.written_bytes += bytes;
    if (bytes > c->memory / 2)
        return;
    if (!known) {
        c->hits[key] = 0;
        if (sim_ghost_take(c->ghost, key))
            to = MAIN;
    } else if (c->hits[key] < c->fmax) {
        c->hits[key]++;
    }
    while (charged(c) + bytes > c->memory)
        evict(c);
    c->bytes[key] = bytes;
    move(c, key, to);
    if (c->evictions > 64 + (c->list[SMALL].items + c->list[MAIN].items) / 8) {
        c->evictions = 0;
        sim_ghost_resize(c->ghost, c->list[SMALL].items + c->list[MAIN].items);
        while (charged(c) > c->memory)
            evict(c);
    }
}

static void counters(const void *cache, struct sim_counters *out)
{
    const struct cache *c = cache;

    *out = c->counters;
    out->live_bytes = c->list[SMALL].bytes + c->list[MAIN].bytes;
    out->charged = charged(c);
}

static bool audit(const void *cache)
{
    const struct cache *c = cache;
    uint64_t bytes[PARTS] = { 0 };

    for (uint32_t key = 0; key < c->keys; key++)
        bytes[c->part[key]] += c->bytes[key];
    return bytes[SMALL] == c->list[SMALL].bytes && bytes[MAIN] == c->list[MAIN].bytes;
}

static void destroy(void *cache)
{
    struct cache *c = cache;

    sim_ghost_destroy(c->ghost);
    free(c->nodes);
    free(c->bytes);
    free(c->part);
    free(c->hits);
    free(c);
}

const struct sim_policy sim_s3fifo = { "s3fifo", create, get, put, remove_key, counters, audit, destroy, NULL, false };
