/* SPDX-License-Identifier: MIT */
/*
 * Redis's allkeys-lru and allkeys-lfu as of 7.0 (evict.c): each eviction samples 5 keys into a pool of 16 candidates
 * and drops the best candidate that still exists.
 * LRU keeps a clock of 24 bits; option `resolution` is one step of it in requests (1: finer than the real one; the
 * real step is a second: 100,000 at our clock).  LFU keeps a logarithmic counter of 8 bits (factor 10, starts at 5)
 * that loses one per `decay` requests (the real one: a minute, 6,000,000).
 * Redis cannot choose what it samples; here samples are uniform, which is a little better than its bucket walk.
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define SAMPLES 5
#define POOL 16
#define LFU_START 5
#define LFU_FACTOR 10

struct candidate {
    uint64_t idle;
    uint32_t key;
};

struct cache {
    bool lfu;
    uint64_t memory, used, clock, resolution, random;
    enum sim_cost_model cost;
    uint32_t keys, items;
    uint32_t *bytes;
    uint32_t *place; /* index in `live`, or SIM_NONE */
    uint32_t *live;
    uint32_t *stamp;
    uint8_t *count;
    struct candidate pool[POOL];
    unsigned pooled;
    struct sim_counters counters;
};

static void *create(const struct sim_setup *setup, bool lfu)
{
    struct cache *c = sim_alloc(1, sizeof(*c));

    c->lfu = lfu;
    c->memory = setup->memory;
    c->cost = setup->cost;
    c->keys = setup->keys;
    c->resolution = (uint64_t)(lfu ? sim_option(setup->spec, "decay", 6000000)
                                   : sim_option(setup->spec, "resolution", 100000));
    c->bytes = sim_alloc(c->keys, sizeof(*c->bytes));
    c->place = sim_alloc(c->keys, sizeof(*c->place));
    memset(c->place, 0xff, c->keys * sizeof(*c->place));
    c->live = sim_alloc(c->keys, sizeof(*c->live));
    c->stamp = sim_alloc(c->keys, sizeof(*c->stamp));
    c->count = sim_alloc(c->keys, sizeof(*c->count));
    return c;
}

static void *create_lru(const struct sim_setup *setup) { return create(setup, false); }
static void *create_lfu(const struct sim_setup *setup) { return create(setup, true); }

static uint32_t now(const struct cache *c)
{
    return (uint32_t)(c->clock / c->resolution);
}

static uint8_t decayed(const struct cache *c, uint32_t key)
{
    uint32_t periods = now(c) - c->stamp[key];

    return periods > c->count[key] ? 0 : (uint8_t)(c->count[key] - periods);
}

static void touch(struct cache *c, uint32_t key)
{
    if (c->lfu) {
        uint8_t count = decayed(c, key);
        unsigned base = count > LFU_START ? (unsigned)count - LFU_START : 0;
        if (count < 255 && sim_random(&c->random) % (base * LFU_FACTOR + 1) == 0)
            count++;
        c->count[key] = count;
    }
    c->stamp[key] = now(c);
}

static bool get(void *cache, uint32_t key)
{
    struct cache *c = cache;

    c->clock++;
    if (c->place[key] == SIM_NONE)
        return false;
    touch(c, key);
    return true;
}

static void remove_key(void *cache, uint32_t key)
{
    struct cache *c = cache;
    uint32_t at = c->place[key];

    if (at == SIM_NONE)
        return;
    c->live[at] = c->live[--c->items];
    c->place[c->live[at]] = at;
    c->place[key] = SIM_NONE;
    c->used -= c->bytes[key];
}

static void offer(struct cache *c, uint32_t key)
{
    uint64_t idle = c->lfu ? 255u - decayed(c, key) : now(c) - c->stamp[key];
    unsigned at = 0;

    for (unsigned i = 0; i < c->pooled; i++)
        if (c->pool[i].key == key)
            return;
    while (at < c->pooled && c->pool[at].idle < idle)
        at++;
    if (c->pooled < POOL) {
        memmove(&c->pool[at + 1], &c->pool[at], (c->pooled - at) * sizeof(c->pool[0]));
        c->pooled++;
    } else {
        if (at == 0)
            return;
        at--; /* the least idle candidate makes room */
        memmove(&c->pool[0], &c->pool[1], at * sizeof(c->pool[0]));
    }
    c->pool[at] = (struct candidate){ .idle = idle, .key = key };
}

static void evict(struct cache *c)
{
    for (;;) {
        for (unsigned i = 0; i < SAMPLES; i++)
            offer(c, c->live[sim_random(&c->random) % c->items]);
        while (c->pooled) {
            uint32_t key = c->pool[--c->pooled].key;
            if (c->place[key] != SIM_NONE) {
                remove_key(c, key);
                c->counters.evicted++;
                return;
            }
        }
    }
}

static void put(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms)
{
    struct cache *c = cache;
    uint32_t bytes = sim_cost(c->cost, size, expiry_ms != SIM_NEVER);
    bool known = c->place[key] != SIM_NONE;

    c->clock++;
    remove_key(c, key);
    c->counters.written_bytes += bytes;
    if (bytes > c->memory)
        return;
    while (c->used + bytes > c->memory)
        evict(c);
    c->bytes[key] = bytes;
    c->used += bytes;
    c->place[key] = c->items;
    c->live[c->items++] = key;
    if (!known)
        c->count[key] = LFU_START;
    if (known)
        touch(c, key);
    else
        c->stamp[key] = now(c);
}

static void counters(const void *cache, struct sim_counters *out)
{
    const struct cache *c = cache;

    *out = c->counters;
    out->charged = out->live_bytes = c->used;
}

static bool audit(const void *cache)
{
    const struct cache *c = cache;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < c->items; i++) {
        if (c->place[c->live[i]] != i)
            return false;
        bytes += c->bytes[c->live[i]];
    }
    return bytes == c->used;
}

static void destroy(void *cache)
{
    struct cache *c = cache;

    free(c->bytes);
    free(c->place);
    free(c->live);
    free(c->stamp);
    free(c->count);
    free(c);
}

const struct sim_policy sim_redis_lru = { "redis-lru", create_lru, get, put, remove_key,
                                          counters, audit, destroy, NULL, false };
const struct sim_policy sim_redis_lfu = { "redis-lfu", create_lfu, get, put, remove_key,
                                          counters, audit, destroy, NULL, false };
