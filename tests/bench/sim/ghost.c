/* SPDX-License-Identifier: MIT */
/*
 * The ghost as the store would have it: buckets of 64 bytes, each 31 fingerprints of 16 bits and a cursor.  A bucket
 * is a ring: the newest fingerprint replaces the oldest.  The number of buckets is a power of two; how many ways of
 * each bucket are in use (16..31) makes the capacity follow the number of items.  Doubling copies a bucket into both
 * of its successors, halving keeps the newer ways of both: no key is needed to resize.
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define WAYS 31

struct bucket {
    uint16_t print[WAYS]; /* 0: none */
    uint16_t cursor;
};

_Static_assert(sizeof(struct bucket) == 64, "a bucket is a cache line");

struct sim_ghost {
    struct bucket *buckets;
    uint32_t count;
    uint32_t ways;
    double per_item;
};

struct sim_ghost *sim_ghost_create(double per_item)
{
    struct sim_ghost *ghost = sim_alloc(1, sizeof(*ghost));

    ghost->per_item = per_item;
    ghost->count = 1;
    ghost->ways = 16;
    ghost->buckets = sim_alloc(1, sizeof(*ghost->buckets));
    return ghost;
}

void sim_ghost_destroy(struct sim_ghost *ghost)
{
    free(ghost->buckets);
    free(ghost);
}

uint64_t sim_ghost_bytes(const struct sim_ghost *ghost)
{
    return ghost->per_item > 0 ? (uint64_t)ghost->count * sizeof(struct bucket) : 0;
}

static void put_print(struct bucket *bucket, uint32_t ways, uint16_t print)
{
    if (bucket->cursor >= ways)
        bucket->cursor = 0;
    bucket->print[bucket->cursor++] = print;
}

static void change_count(struct sim_ghost *ghost, uint32_t count)
{
    struct bucket *now = sim_alloc(count, sizeof(*now));

    if (count > ghost->count) {
        for (uint32_t i = 0; i < count; i++)
            now[i] = ghost->buckets[i & (ghost->count - 1)];
    } else {
        for (uint32_t i = 0; i < ghost->count; i++) {
            const struct bucket *old = &ghost->buckets[i];
            for (uint32_t back = WAYS / 2; back > 0; back--) {
                uint16_t print = old->print[(old->cursor + WAYS - back) % WAYS];
                if (print)
                    put_print(&now[i & (count - 1)], WAYS, print);
            }
        }
    }
    free(ghost->buckets);
    ghost->buckets = now;
    ghost->count = count;
}

void sim_ghost_resize(struct sim_ghost *ghost, uint32_t items)
{
    double wanted = ghost->per_item * items;

    while (wanted > (double)ghost->count * WAYS)
        change_count(ghost, ghost->count * 2);
    while (ghost->count > 1 && wanted < (double)ghost->count * 14)
        change_count(ghost, ghost->count / 2);
    ghost->ways = (uint32_t)(wanted / ghost->count) + 1;
    if (ghost->ways > WAYS)
        ghost->ways = WAYS;
    for (uint32_t i = 0; i < ghost->count && ghost->ways < WAYS; i += 1)
        memset(&ghost->buckets[i].print[ghost->ways], 0, (WAYS - ghost->ways) * sizeof(uint16_t));
}

static struct bucket *find(struct sim_ghost *ghost, uint32_t key, uint16_t *print)
{
    uint64_t hash = sim_hash(key);

    *print = (uint16_t)(hash >> 48);
    *print = *print ? *print : 1;
    return &ghost->buckets[hash & (ghost->count - 1)];
}

void sim_ghost_add(struct sim_ghost *ghost, uint32_t key)
{
    uint16_t print;
    struct bucket *bucket = find(ghost, key, &print);

    if (ghost->per_item > 0)
        put_print(bucket, ghost->ways, print);
}

bool sim_ghost_take(struct sim_ghost *ghost, uint32_t key)
{
    uint16_t print;
    struct bucket *bucket = find(ghost, key, &print);

    for (uint32_t i = 0; i < ghost->ways; i++) {
        if (bucket->print[i] == print) {
            bucket->print[i] = 0;
            return true;
        }
    }
    return false;
}
