/* SPDX-License-Identifier: MIT */
/*
 * memcached 1.6: slab classes 1.25 apart, each with its own segmented LRU (hot 20 %, warm 40 %, cold the rest), and a
 * page mover.  An item costs 56 bytes of header, key, value and 3 bytes more, rounded up to its class, and 11 bytes
 * of hash table.  Items over half a page take several chunks of the largest class.
 * Pages are 1 MiB, smaller for memories below 64 MiB (the real one would suffer more there).  Every second one page
 * may move from the class whose coldest item is oldest to the one whose is youngest (slab_automove's rule, ratio
 * 0.8, without its 30-second window).
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>

#define CLASSES 64
#define HEADER 56
#define HASH_BYTES 11

enum part { ABSENT, HOT, WARM, COLD, PARTS };

struct slab_class {
    uint32_t chunk;
    uint64_t pages, chunks_used;
    uint64_t evictions; /* in this window */
    struct sim_list list[PARTS];
};

struct cache {
    uint64_t memory, pages_bytes, clock;
    uint32_t page, keys, items, classes;
    struct slab_class class[CLASSES];
    struct sim_node *nodes;
    uint32_t *chunks; /* that the item takes */
    uint64_t *stamp;  /* last access */
    uint8_t *part, *in_class, *active;
    struct sim_counters counters;
};

static void *create(const struct sim_setup *setup)
{
    struct cache *c = sim_alloc(1, sizeof(*c));

    c->memory = setup->memory;
    c->keys = setup->keys;
    c->page = 1u << 20;
    while (c->page > 16384 && c->page > c->memory / 64)
        c->page /= 2;
    for (double chunk = 96; c->classes < CLASSES - 1 && chunk < c->page / 2; chunk *= 1.25)
        c->class[c->classes++].chunk = ((uint32_t)chunk + 7) & ~7u;
    c->class[c->classes++].chunk = c->page / 2;
    for (uint32_t i = 0; i < c->classes; i++)
        for (int p = 0; p < PARTS; p++)
            sim_list_init(&c->class[i].list[p]);
    c->nodes = sim_alloc(c->keys, sizeof(*c->nodes));
    c->chunks = sim_alloc(c->keys, sizeof(*c->chunks));
    c->stamp = sim_alloc(c->keys, sizeof(*c->stamp));
    c->part = sim_alloc(c->keys, 1);
    c->in_class = sim_alloc(c->keys, 1);
    c->active = sim_alloc(c->keys, 1);
    return c;
}

static uint64_t charged(const struct cache *c)
{
    return c->pages_bytes + (uint64_t)c->items * HASH_BYTES;
}

static void move(struct cache *c, uint32_t key, enum part to)
{
    struct slab_class *class = &c->class[c->in_class[key]];

    if (c->part[key] != ABSENT) {
        sim_list_remove(&class->list[c->part[key]], c->nodes, key, c->chunks[key]);
        class->chunks_used -= c->chunks[key];
        c->items--;
    }
    c->part[key] = (uint8_t)to;
    if (to != ABSENT) {
        sim_list_push(&class->list[to], c->nodes, key, c->chunks[key]);
        class->chunks_used += c->chunks[key];
        c->items++;
    }
}

static bool get(void *cache, uint32_t key)
{
    struct cache *c = cache;

    c->clock++;
    if (c->part[key] == ABSENT)
        return false;
    c->stamp[key] = c->clock;
    if (c->active[key] < 2)
        c->active[key]++; /* the first hit marks an item fetched, the second active */
    return true;
}

static void remove_key(void *cache, uint32_t key)
{
    move(cache, key, ABSENT);
}

/* What memcached's maintainer thread does: tails of hot and warm that are over their share move on. */
static void balance(struct cache *c, struct slab_class *class)
{
    while (class->list[HOT].tail != SIM_NONE && class->list[HOT].bytes * 5 > class->chunks_used) {
        uint32_t key = class->list[HOT].tail;
        move(c, key, c->active[key] == 2 ? WARM : COLD);
        c->active[key] = c->active[key] ? 1 : 0;
    }
    while (class->list[WARM].tail != SIM_NONE && class->list[WARM].bytes * 5 > class->chunks_used * 2) {
        uint32_t key = class->list[WARM].tail;
        move(c, key, c->active[key] == 2 ? WARM : COLD);
        c->active[key] = c->active[key] ? 1 : 0;
    }
}

static bool evict(struct cache *c, struct slab_class *class)
{
    balance(c, class);
    while (class->list[COLD].tail != SIM_NONE && c->active[class->list[COLD].tail] == 2) {
        uint32_t key = class->list[COLD].tail;
        c->active[key] = 1;
        move(c, key, WARM);
    }
    for (int part = COLD; part > ABSENT; part--) {
        if (class->list[part].tail != SIM_NONE) {
            move(c, class->list[part].tail, ABSENT);
            class->evictions++;
            c->counters.evicted++;
            return true;
        }
    }
    return false;
}

/* Takes a page from a class, evicting as many items as no longer fit. */
static void release_page(struct cache *c, struct slab_class *class)
{
    class->pages--;
    c->pages_bytes -= c->page;
    while (class->chunks_used > class->pages * (c->page / class->chunk))
        evict(c, class);
}

static struct slab_class *largest(struct cache *c, const struct slab_class *but)
{
    struct slab_class *best = NULL;

    for (uint32_t i = 0; i < c->classes; i++)
        if (&c->class[i] != but && c->class[i].pages && (!best || c->class[i].pages > best->pages))
            best = &c->class[i];
    return best;
}

static bool make_room(struct cache *c, struct slab_class *class, uint32_t chunks)
{
    while (class->chunks_used + chunks > class->pages * (c->page / class->chunk)) {
        if (charged(c) + c->page + HASH_BYTES <= c->memory) {
            class->pages++;
            c->pages_bytes += c->page;
        } else if (class->pages == 0 || !evict(c, class)) {
            struct slab_class *donor = largest(c, class);
            if (!donor)
                return false;
            release_page(c, donor); /* every class may have a first page, and an item its room */
        }
    }
    while (charged(c) + HASH_BYTES > c->memory)
        release_page(c, largest(c, NULL));
    return class->chunks_used + chunks <= class->pages * (c->page / class->chunk);
}

static void put(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms)
{
    struct cache *c = cache;
    uint32_t bytes = HEADER + sim_key_bytes + size + 3, at = 0;
    bool known = c->part[key] != ABSENT;

    (void)expiry_ms;
    c->clock++;
    move(c, key, ABSENT);
    c->counters.written_bytes += bytes;
    if (bytes > c->memory / 2)
        return;
    while (at < c->classes - 1 && c->class[at].chunk < bytes)
        at++;
    uint32_t chunks = (bytes + c->class[at].chunk - 1) / c->class[at].chunk;
    if (!make_room(c, &c->class[at], chunks))
        return;
    c->in_class[key] = (uint8_t)at;
    c->chunks[key] = chunks;
    c->stamp[key] = c->clock;
    if (!known)
        c->active[key] = 0;
    move(c, key, HOT);
    balance(c, &c->class[at]);
}

static void tick(void *cache, uint64_t now_ms)
{
    struct cache *c = cache;
    struct slab_class *oldest = NULL, *youngest = NULL;
    uint64_t oldest_age = 0, youngest_age = UINT64_MAX;

    if (now_ms % 1000)
        return;
    for (uint32_t i = 0; i < c->classes; i++) {
        struct slab_class *class = &c->class[i];
        uint32_t tail = class->list[COLD].tail;
        if (class->pages == 0 || tail == SIM_NONE)
            continue;
        uint64_t age = c->clock - c->stamp[tail];
        if (class->pages > 2 && age > oldest_age) {
            oldest_age = age;
            oldest = class;
        }
        if (class->evictions && age < youngest_age) {
            youngest_age = age;
            youngest = class;
        }
        class->evictions = 0;
    }
    if (oldest && youngest && oldest != youngest && (double)youngest_age < 0.8 * (double)oldest_age) {
        release_page(c, oldest);
        youngest->pages++;
        c->pages_bytes += c->page;
    }
}

static void counters(const void *cache, struct sim_counters *out)
{
    const struct cache *c = cache;

    *out = c->counters;
    out->charged = charged(c);
    for (uint32_t i = 0; i < c->classes; i++)
        out->live_bytes += c->class[i].chunks_used * c->class[i].chunk;
}

static bool audit(const void *cache)
{
    const struct cache *c = cache;
    uint64_t used[CLASSES] = { 0 }, pages = 0;

    for (uint32_t key = 0; key < c->keys; key++)
        if (c->part[key] != ABSENT)
            used[c->in_class[key]] += c->chunks[key];
    for (uint32_t i = 0; i < c->classes; i++) {
        pages += c->class[i].pages;
        if (used[i] != c->class[i].chunks_used || used[i] > c->class[i].pages * (c->page / c->class[i].chunk))
            return false;
    }
    return pages * c->page == c->pages_bytes;
}

static void destroy(void *cache)
{
    struct cache *c = cache;

    free(c->nodes);
    free(c->chunks);
    free(c->stamp);
    free(c->part);
    free(c->in_class);
    free(c->active);
    free(c);
}

const struct sim_policy sim_memcached = { "memcached", create, get, put, remove_key,
                                          counters, audit, destroy, tick, false };
