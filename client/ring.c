/* SPDX-License-Identifier: MIT */
/*
 * Continuum and rendezvous, see ring.h.  Only integers decide, but for the number of a server's points, where libketama's
 * arithmetic in floats is followed, with the tiny addition of libmemcached, which keeps equal weights at exactly 160.
 */
#include "client/ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/md5.h"

_Static_assert(CRAB_MAX_SERVERS <= 64, "servers are bits of a uint64_t");

static uint32_t point_of(const uint8_t digest[16], unsigned part)
{
    const uint8_t *p = digest + 4 * (size_t)part;
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | (uint32_t)p[0];
}

/* A path names its server by itself. */
static size_t name_of(const struct uri_server *server, char *name, size_t size)
{
    int len = server->port != 0 ? snprintf(name, size, "%s:%u", server->host, (unsigned)server->port)
                                : snprintf(name, size, "%s", server->host);
    return len < 0 ? 0 : (size_t)len;
}

/* ---- the continuum */

static int by_value(const void *a, const void *b)
{
    const struct ring_point *p = a;
    const struct ring_point *q = b;
    if (p->value != q->value)
        return p->value < q->value ? -1 : 1;
    return p->server < q->server ? -1 : p->server > q->server;
}

static size_t digests_of(const struct uri *uri, size_t server)
{
    uint64_t total = 0;
    for (size_t i = 0; i < uri->count; i++)
        total += uri->servers[i].weight;
    float share = (float)uri->servers[server].weight / (float)total;
    double digests = (double)(share * (float)RING_DIGESTS * (float)uri->count) + 0.0000000001;
    return (size_t)digests; /* it is positive, so this is floor() */
}

static void add_points(struct ring *ring, const struct uri *uri, size_t server)
{
    char name[CRAB_MAX_URI + 32];
    size_t len = name_of(&uri->servers[server], name, sizeof name);
    size_t digests = digests_of(uri, server);
    for (size_t i = 0; i < digests; i++) {
        uint8_t digest[16];
        int tail = snprintf(name + len, sizeof name - len, "-%zu", i);
        md5(name, len + (tail > 0 ? (size_t)tail : 0), digest);
        for (unsigned part = 0; part < RING_POINTS_OF_DIGEST; part++)
            ring->points[ring->points_count++] =
                (struct ring_point){.value = point_of(digest, part), .server = (uint32_t)server};
    }
}

static size_t find_point(const struct ring *ring, const void *key, size_t len, uint64_t out)
{
    uint8_t digest[16];
    md5(key, len, digest);
    uint32_t hash = point_of(digest, 0);
    size_t low = 0;
    size_t high = ring->points_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ring->points[middle].value < hash)
            low = middle + 1;
        else
            high = middle;
    }
    size_t first = low == ring->points_count ? 0 : low;
    for (size_t i = 0; i < ring->points_count; i++) {
        size_t place = first + i < ring->points_count ? first + i : first + i - ring->points_count;
        if ((out >> ring->points[place].server & 1U) == 0)
            return ring->points[place].server;
    }
    return ring->points[first].server;
}

/* ---- rendezvous */

static uint64_t stir(uint64_t x) /* the finalizer of splitmix64 */
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

static uint64_t hash_of(const void *data, size_t len) /* FNV-1a, 64 bits, then stirred */
{
    const uint8_t *bytes = data;
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3U;
    return stir(hash);
}

/* -log2(x / 2^64) with 32 bits behind the point; x is not 0.  By squaring: each square gives one more bit. */
static uint64_t minus_log2(uint64_t x)
{
    unsigned zeros = (unsigned)__builtin_clzll(x);
    uint64_t mantissa = x << zeros >> 32; /* in [2^31, 2^32): 1 <= m < 2 */
    uint64_t fraction = 0;
    for (unsigned i = 0; i < 32; i++) {
        mantissa = mantissa * mantissa >> 31;
        fraction <<= 1;
        if (mantissa >= (uint64_t)1 << 32) {
            fraction |= 1;
            mantissa >>= 1;
        }
    }
    return ((uint64_t)(zeros + 1) << 32) - fraction;
}

static size_t find_least(const struct ring *ring, const void *key, size_t len, uint64_t out)
{
    uint64_t all = ring->servers == 64 ? UINT64_MAX : ((uint64_t)1 << ring->servers) - 1;
    if ((out & all) == all)
        out = 0;
    uint64_t hash = hash_of(key, len);
    size_t best = 0;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < ring->servers; i++) {
        if ((out >> i & 1U) != 0)
            continue;
        uint64_t own = stir(hash ^ ring->seeds[i]);
        uint64_t cost = minus_log2(own | 1U) / ring->weights[i];
        if (cost < least) {
            least = cost;
            best = i;
        }
    }
    return best;
}

/* ---- both */

bool ring_init(struct ring *ring, const struct uri *uri, enum crab_distribution distribution,
               const struct crab_allocator *allocator)
{
    *ring = (struct ring){.distribution = distribution, .servers = uri->count};
    for (size_t i = 0; i < uri->count; i++) {
        char name[CRAB_MAX_URI + 8];
        ring->seeds[i] = hash_of(name, name_of(&uri->servers[i], name, sizeof name));
        ring->weights[i] = uri->servers[i].weight;
    }
    if (uri->count == 1 || distribution != CRAB_KETAMA)
        return true;
    size_t most = 0;
    for (size_t i = 0; i < uri->count; i++)
        most += digests_of(uri, i) * RING_POINTS_OF_DIGEST;
    ring->points = allocator->resize(allocator->context, NULL, (most + 1) * sizeof *ring->points);
    if (ring->points == NULL)
        return false;
    for (size_t i = 0; i < uri->count; i++)
        add_points(ring, uri, i);
    qsort(ring->points, ring->points_count, sizeof *ring->points, by_value);
    return true;
}

void ring_fini(struct ring *ring, const struct crab_allocator *allocator)
{
    if (ring->points != NULL)
        (void)allocator->resize(allocator->context, ring->points, 0);
    ring->points = NULL;
}

size_t ring_find(const struct ring *ring, const void *key, size_t len, uint64_t out)
{
    if (ring->servers == 1)
        return 0;
    return ring->distribution == CRAB_KETAMA && ring->points_count != 0 ? find_point(ring, key, len, out)
                                                                        : find_least(ring, key, len, out);
}
