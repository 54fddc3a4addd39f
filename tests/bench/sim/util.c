/* SPDX-License-Identifier: MIT */
/* The simulator's tools: allocation, random numbers, lists, and what an item costs. */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>

/* The simulator is a tool with nothing to save: without memory it stops. */
void *sim_alloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (!p) {
        fputs("crabcache-sim: out of memory\n", stderr);
        exit(2);
    }
    return p;
}

uint64_t sim_hash(uint64_t key)
{
    key += 0x9e3779b97f4a7c15u;
    key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9u;
    key = (key ^ (key >> 27)) * 0x94d049bb133111ebu;
    return key ^ (key >> 31);
}

uint64_t sim_random(uint64_t *state)
{
    return sim_hash(*state += 0x9e3779b97f4a7c15u);
}

void sim_list_init(struct sim_list *list)
{
    *list = (struct sim_list){ .head = SIM_NONE, .tail = SIM_NONE };
}

void sim_list_push(struct sim_list *list, struct sim_node *nodes, uint32_t key, uint32_t bytes)
{
    nodes[key] = (struct sim_node){ .prev = SIM_NONE, .next = list->head };
    if (list->head != SIM_NONE)
        nodes[list->head].prev = key;
    else
        list->tail = key;
    list->head = key;
    list->bytes += bytes;
    list->items++;
}

void sim_list_remove(struct sim_list *list, struct sim_node *nodes, uint32_t key, uint32_t bytes)
{
    struct sim_node node = nodes[key];

    if (node.prev != SIM_NONE)
        nodes[node.prev].next = node.next;
    else
        list->head = node.next;
    if (node.next != SIM_NONE)
        nodes[node.next].prev = node.prev;
    else
        list->tail = node.prev;
    list->bytes -= bytes;
    list->items--;
}

/*
 * Costs.  Ours: a header of 6 bytes (8 more with an expiry), key, value, rounded up to 8; and an index of 64-byte
 * buckets of 7 slots at a load of 0.8: 11.4 bytes, charged as 12.
 */
const uint32_t sim_key_bytes = 16, sim_header_bytes = 6, sim_index_bytes = 12;

uint32_t sim_item_bytes(uint32_t size, bool has_expiry)
{
    return (sim_header_bytes + (has_expiry ? 8 : 0) + sim_key_bytes + size + 7) & ~7u;
}

/* Rounds up to one of 4 classes per doubling, as jemalloc does, and as a slab allocator might. */
static uint32_t class_of(uint32_t bytes, uint32_t per_doubling)
{
    uint32_t step = 8;

    while (bytes > step * per_doubling * 2)
        step *= 2;
    return (bytes + step - 1) / step * step;
}

uint32_t sim_cost(enum sim_cost_model model, uint32_t size, bool has_expiry)
{
    switch (model) {
    case SIM_COST_IDEAL:
        return sim_item_bytes(size, has_expiry) + sim_index_bytes;
    case SIM_COST_CLASSES:
        /* Size classes an eighth apart, 12 bytes of links, 3 % for partly filled slabs. */
        return class_of(sim_item_bytes(size, has_expiry) + 12, 8) * 103 / 100 + sim_index_bytes;
    case SIM_COST_REDIS:
        /* 98 bytes in all at a value of 64, of which 16 are jemalloc's rounding of that value. */
        return sim_key_bytes + 82 + class_of(size + (size < 250 ? 4 : 6), 4) + (has_expiry ? 40 : 0);
    default:
        return 0;
    }
}
