/* SPDX-License-Identifier: MIT */
/*
 * The real store as a policy of the simulator: the same streams, at the same memory, through store.h. Bytes are really
 * stored; so this shows what the store's own costs and the deviations of its policy are worth, against "segment".
 *
 *   workers [1] attached; the puts go round them, as in "segment"
 *   refuse [0] 1: without eviction
 *
 * The store needs 2 MiB; below that, "segment" stands alone.
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "server/store/store.h"

#define MAX_WORKERS 64
#define MAX_VALUE   (64u << 20)

struct real_cache {
    struct store *store;
    struct store_worker *worker[MAX_WORKERS];
    uint32_t workers, next;
    uint64_t now_ms, written_bytes;
    uint8_t *value; /* never written: all of it is the kernel's page of zeros */
};

static uint64_t now_of(void *context)
{
    return ((const struct real_cache *)context)->now_ms;
}

static void *create(const struct sim_setup *setup)
{
    struct real_cache *c = sim_alloc(1, sizeof(*c));
    uint32_t workers = (uint32_t)sim_option(setup->spec, "workers", 1);

    c->workers = workers < 1 ? 1 : workers > MAX_WORKERS ? MAX_WORKERS : workers;
    c->value = sim_alloc(1, MAX_VALUE);
    struct store_config config = {
        .memory_bytes = setup->memory,
        .eviction = sim_option(setup->spec, "refuse", 0) != 0 ? STORE_REFUSE : STORE_EVICT,
        .max_workers = c->workers,
        .now_ms = now_of,
        .now_context = c,
    };
    int failure = store_create(&config, &c->store);
    for (uint32_t i = 0; i < c->workers && !failure; i++)
        failure = store_worker_attach(c->store, &c->worker[i]);
    if (failure) {
        fprintf(stderr, "crabcache-sim: store: %s\n", strerror(failure));
        exit(1);
    }
    return c;
}

static struct store_key name(const struct real_cache *c, uint32_t key, uint8_t text[16])
{
    for (unsigned i = 0; i < 16; i++)
        text[i] = (uint8_t)"0123456789abcdef"[i < 8 ? key >> 4 * i & 15 : 0];
    return store_key(c->store, text, 16);
}

static bool get(void *cache, uint32_t key)
{
    struct real_cache *c = cache;
    uint8_t text[16];
    struct store_key named = name(c, key, text);
    struct store_view view;
    bool hit = store_get_value(c->worker[c->next], &named, &view) == STORE_OK;

    store_quiesce(c->worker[c->next]);
    return hit;
}

static void put(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms)
{
    struct real_cache *c = cache;
    uint8_t text[16];
    struct store_key named = name(c, key, text);
    struct store_put_args args = {
        .value = c->value,
        .value_len = size < MAX_VALUE ? size : MAX_VALUE,
        .ttl_ms = expiry_ms == SIM_NEVER ? STORE_NEVER : expiry_ms - c->now_ms,
        .version_unwanted = true,
    };

    c->next = c->next + 1 < c->workers ? c->next + 1 : 0;
    (void)store_put(c->worker[c->next], &named, &args, NULL);
    store_quiesce(c->worker[c->next]);
    c->written_bytes += sim_item_bytes(size, expiry_ms != SIM_NEVER);
}

static void remove_key(void *cache, uint32_t key)
{
    struct real_cache *c = cache;
    uint8_t text[16];
    struct store_key named = name(c, key, text);

    (void)store_delete(c->worker[c->next], &named);
    store_quiesce(c->worker[c->next]);
}

static void tick(void *cache, uint64_t now_ms)
{
    struct real_cache *c = cache;

    c->now_ms = now_ms;
    (void)store_tick(c->worker[c->next]);
    store_quiesce(c->worker[c->next]);
}

static void counters(const void *cache, struct sim_counters *out)
{
    const struct real_cache *c = cache;
    struct store_stats stats;

    store_stats(c->store, &stats);
    *out = (struct sim_counters){
        .copied_bytes = stats.moved_bytes,
        .written_bytes = c->written_bytes,
        .evicted = stats.evictions,
        .live_bytes = stats.bytes_live,
        .charged = stats.bytes_limit - stats.bytes_free,
    };
}

static bool audit(const void *cache)
{
    const struct real_cache *c = cache;
    struct store_stats stats;

    store_stats(c->store, &stats);
    return stats.bytes_live + stats.bytes_dead + stats.bytes_free + stats.bytes_index + stats.bytes_fixed ==
           stats.bytes_limit;
}

static void destroy(void *cache)
{
    struct real_cache *c = cache;

    for (uint32_t i = 0; i < c->workers; i++)
        store_worker_detach(c->worker[i]);
    store_destroy(c->store);
    free(c->value);
    free(c);
}

const struct sim_policy sim_store = { "store", create, get, put, remove_key, counters, audit, destroy, tick, true };
