/* SPDX-License-Identifier: MIT */
/*
 * Which server a key belongs to.  Made once, then only read, so any thread may ask.
 *
 * The continuum is libketama's: a server has 4 points for each of floor(40 * servers * its share of the weights) digests of
 * "host:port-0", "host:port-1", ...; a key belongs to the first point at or above its own hash.  The second choice of a key is
 * the next point of another server, and so on.
 *
 * Rendezvous: for each server a hash of its name and the key; the least of -log2(hash / 2^64) / weight wins, the second least is
 * the second choice.
 */
#ifndef CRABCACHE_CLIENT_RING_H
#define CRABCACHE_CLIENT_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/uri.h"

/** @brief Digests of a server of mean weight, and points of each. */
#define RING_DIGESTS 40U
#define RING_POINTS_OF_DIGEST 4U

struct ring_point {
    uint32_t value;
    uint32_t server;
};

struct ring {
    enum crab_distribution distribution;
    size_t servers;
    size_t points_count;
    struct ring_point *points;         /**< Sorted by value; of the continuum. */
    uint64_t seeds[CRAB_MAX_SERVERS];   /**< Hashes of the names; of rendezvous. */
    uint32_t weights[CRAB_MAX_SERVERS]; /**< Of rendezvous. */
};

/** @brief Make it. @return false: out of memory */
bool ring_init(struct ring *ring, const struct uri *uri, enum crab_distribution distribution,
               const struct crab_allocator *allocator);
/** @brief Free it. */
void ring_fini(struct ring *ring, const struct crab_allocator *allocator);
/**
 * @brief Find a key's server.
 * @param ring the ring
 * @param key the key
 * @param len its length
 * @param out servers that shall not be chosen, as bits; if none is left, they are chosen nevertheless
 * @return the server's number
 */
size_t ring_find(const struct ring *ring, const void *key, size_t len, uint64_t out);

#endif
