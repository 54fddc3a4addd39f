/* SPDX-License-Identifier: MIT */
/*
 * The cache simulator: what its parts share.
 *
 *   stream.c, synth.c   make a request stream: a trace file or a synthetic one; keys are dense numbers 0..keys-1
 *   run.c               drives a policy over a stream, cache-aside, with a clock that advances per request
 *   list_policies.c, s3fifo.c, tinylfu.c, redis.c, memcached.c, segment*.c    the policies
 *   store_policy.c      the real store as a policy
 *   check.c             the self-check: hand-computed sequences, and byte accounting under random requests
 *   main.c              the command line
 *
 * No bytes are stored (but by the real store): a policy tracks what each item would cost and never charges more than its memory.  Every
 * policy keeps the invariant `charged <= memory` between calls, and run.c checks it.
 */
#ifndef CRABCACHE_SIM_H
#define CRABCACHE_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define SIM_NONE UINT32_MAX
#define SIM_NEVER UINT64_MAX

enum sim_op { SIM_GET, SIM_PUT };

struct sim_request {
    uint32_t key;
    uint32_t size;   /* bytes of the value that a fill or a PUT writes */
    uint32_t ttl_ms; /* of that write; 0: none */
    uint32_t op;     /* enum sim_op */
};

struct sim_stream {
    char name[64];
    struct sim_request *requests;
    size_t count;
    uint32_t keys;
    uint64_t footprint; /* key and value bytes of all keys, each at the size first seen */
    bool has_ttl;
};

/* A policy by name with options, from "name:option=number,option=number". */
#define SIM_MAX_OPTIONS 24
struct sim_spec {
    char text[200];
    char name[24];
    unsigned count;
    char option[SIM_MAX_OPTIONS][16];
    double value[SIM_MAX_OPTIONS];
    bool used[SIM_MAX_OPTIONS];
};

/* What one item costs beyond its value; see cost.c. */
enum sim_cost_model { SIM_COST_IDEAL, SIM_COST_CLASSES, SIM_COST_REDIS };

struct sim_setup {
    struct sim_spec *spec;
    uint64_t memory;
    uint32_t keys;
    bool has_ttl;
    enum sim_cost_model cost;
};

struct sim_counters {
    uint64_t copied_bytes;   /* by eviction and compaction */
    uint64_t written_bytes;  /* by PUTs and fills, as charged */
    uint64_t evicted;
    uint64_t live_bytes;     /* key, value and header bytes of live items, sampled at the end */
    uint64_t charged;
};

struct sim_policy {
    const char *name;
    void *(*create)(const struct sim_setup *setup);
    bool (*get)(void *cache, uint32_t key);
    /* Writes the item, new or not; the item may be refused, an old copy is gone in any case. */
    void (*put)(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms);
    void (*remove)(void *cache, uint32_t key);
    void (*counters)(const void *cache, struct sim_counters *out);
    /* Recounts everything from scratch; false: the books are wrong. */
    bool (*audit)(const void *cache);
    void (*destroy)(void *cache);
    void (*tick)(void *cache, uint64_t now_ms); /* may be NULL */
    bool finds_expired; /* it frees expired items itself; else run.c removes each at its very moment */
};

struct sim_result {
    uint64_t gets;
    uint64_t misses;
    uint64_t get_bytes;
    uint64_t miss_bytes;
    struct sim_counters counters;
    double ns_per_request;
    double live_mean; /* live bytes per byte of memory, mean of samples from the second half */
};

/* stream.c and synth.c */
int sim_stream_load(const char *path, struct sim_stream *out);
int sim_stream_make(const char *text, struct sim_stream *out);
void sim_stream_finish(struct sim_stream *stream);
void sim_stream_fini(struct sim_stream *stream);

/* run.c */
#define SIM_REQUESTS_PER_MS 100 /* the clock: 100,000 requests a second */
const struct sim_policy *sim_policy_find(const char *name);
int sim_spec_parse(const char *text, struct sim_spec *out);
double sim_option(struct sim_spec *spec, const char *option, double otherwise);
int sim_run(const struct sim_stream *stream, struct sim_spec *spec, uint64_t memory, struct sim_result *out);

/* cost.c */
extern const uint32_t sim_key_bytes, sim_header_bytes, sim_index_bytes;
uint32_t sim_item_bytes(uint32_t size, bool has_expiry);
uint32_t sim_cost(enum sim_cost_model model, uint32_t size, bool has_expiry);

/* util.c */
void *sim_alloc(size_t count, size_t size);
uint64_t sim_random(uint64_t *state);
uint64_t sim_hash(uint64_t key);

/* Doubly linked lists of keys; one node array serves all lists of a policy. */
struct sim_node {
    uint32_t prev, next;
};
struct sim_list {
    uint32_t head, tail; /* new items come in at the head */
    uint64_t bytes;
    uint32_t items;
};
void sim_list_init(struct sim_list *list);
void sim_list_push(struct sim_list *list, struct sim_node *nodes, uint32_t key, uint32_t bytes);
void sim_list_remove(struct sim_list *list, struct sim_node *nodes, uint32_t key, uint32_t bytes);

/* ghost.c: fingerprints of 16 bits in buckets of a cache line, first in first out within a bucket. */
struct sim_ghost;
struct sim_ghost *sim_ghost_create(double per_item);
void sim_ghost_destroy(struct sim_ghost *ghost);
void sim_ghost_resize(struct sim_ghost *ghost, uint32_t items);
void sim_ghost_add(struct sim_ghost *ghost, uint32_t key);
bool sim_ghost_take(struct sim_ghost *ghost, uint32_t key);
uint64_t sim_ghost_bytes(const struct sim_ghost *ghost);

/* sketch.c: how often keys were asked for lately. */
struct sim_sketch;
struct sim_sketch *sim_sketch_create(uint64_t bytes);
void sim_sketch_destroy(struct sim_sketch *sketch);
uint64_t sim_sketch_bytes(const struct sim_sketch *sketch);
uint32_t sim_sketch_estimate(const struct sim_sketch *sketch, uint32_t key);
bool sim_sketch_add(struct sim_sketch *sketch, uint32_t key, uint32_t times);

extern const struct sim_policy sim_fifo, sim_lru, sim_slru, sim_s3fifo, sim_tinylfu, sim_redis_lru, sim_redis_lfu,
    sim_memcached, sim_segment, sim_store;

/* check.c */
int sim_self_check(void);

#endif
