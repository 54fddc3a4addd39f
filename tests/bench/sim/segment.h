/* SPDX-License-Identifier: MIT */
/*
 * S3-FIFO over segments: what segment.c (writing, accounting) and segment_reclaim.c (evicting, compacting) share.
 *
 *   new item --> small: [open][sealed]...[oldest] --hits >= needed--> main, else its fingerprint --> ghost
 *   in ghost --> main:  [open][sealed]...[oldest] --hits--> kept (with kept=0: main again), else gone
 *                kept:  [open][sealed]...[oldest] --hits--> kept again, one hit fewer, else gone
 *
 * Charged against the memory: every segment in use in full (open ones too), 64 bytes of table per segment, the index
 * slot of each item, the ghost.  Only copying may use the last `reserve` segments.  An item over a part of the
 * segment size gets a segment of its own, of whole pages: it moves between queues without being copied.
 */
#ifndef CRABCACHE_SIM_SEGMENT_H
#define CRABCACHE_SIM_SEGMENT_H

#include "tests/bench/sim/sim.h"

#define SEGMENT_TABLE_BYTES 64
#define MAX_WORKERS 16
#define MAX_CLASSES 8

enum pool { SMALL, MAIN, KEPT, POOLS };
enum state { FREE, OPEN, SEALED };

struct item {
    uint32_t segment; /* SIM_NONE: absent */
    uint32_t index;
    uint32_t bytes;
    uint32_t hits;
};

struct segment {
    uint32_t *keys; /* in the order of writing; entry i is live while its item points back */
    uint32_t count, cap;
    uint32_t live_items;
    uint64_t capacity, used, live;
    uint64_t last_expiry;
    uint32_t prev, next; /* in the pool's queue; a free segment: the next free one */
    uint8_t pool, state, class;
    bool solo;
};

struct queue {
    uint32_t head, tail; /* young, old */
    uint64_t live;
    uint32_t segments;
};

struct seg_cache {
    /* options: segment.c says what they mean */
    uint64_t memory, segment_bytes, reserve_bytes;
    double small_share, fill_share, kept_share, dead_share, copy_bound, relink_share;
    uint32_t threshold, fmax, workers, solo_part, classes, size_bias, main_bias, credit;
    double overwrite_small;
    bool in_place, overwrite_hits, has_ttl;
    /* state */
    uint32_t keys, items, segments, segment_cap, free_segment;
    uint64_t charged_segments, now_ms, item_bytes;
    struct item *item;
    uint64_t *expiry;
    struct segment *segment;
    struct queue queue[POOLS];
    uint32_t open[MAX_WORKERS][POOLS][MAX_CLASSES];
    uint32_t worker;
    double copy_tokens;
    struct sim_ghost *ghost;
    struct sim_sketch *sketch; /* NULL: admission by hits alone */
    double price;              /* mean sketch count of what left the main pool lately */
    uint32_t evictions; /* since the ghost was last fitted */
    uint32_t relinks;   /* in a row */
    struct sim_counters counters;
};

/* segment.c */
uint64_t seg_charged(const struct seg_cache *c);
uint32_t seg_new(struct seg_cache *c, enum pool pool, uint32_t class, uint64_t capacity);
void seg_free(struct seg_cache *c, uint32_t number);
void seg_seal(struct seg_cache *c, uint32_t number);
void seg_append(struct seg_cache *c, uint32_t number, uint32_t key, uint32_t bytes);
void seg_drop(struct seg_cache *c, uint32_t key);
void seg_enqueue(struct seg_cache *c, uint32_t number, enum pool pool);
void seg_dequeue(struct seg_cache *c, uint32_t number);
bool seg_live(const struct seg_cache *c, uint32_t number, uint32_t index);
bool seg_expired(const struct seg_cache *c, uint32_t key);
uint32_t seg_class(const struct seg_cache *c, uint32_t key);

/* segment_reclaim.c */
/* Frees memory or makes progress towards it; false: nothing is left to evict. */
bool seg_reclaim(struct seg_cache *c);
void seg_expire(struct seg_cache *c);
void seg_note(struct seg_cache *c, uint32_t key, uint32_t times);

#endif
