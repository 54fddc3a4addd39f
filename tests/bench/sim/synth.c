/* SPDX-License-Identifier: MIT */
/*
 * Synthetic streams, from "zipf:option=number,...":
 *   alpha=0.99   skew; 0 is uniform          keys=200000      requests=3000000     seed=1
 *   put=0        percent of requests that are PUTs (the rest are GETs, filled on a miss)
 *   sizes=0      0: 32 + hash(key) % 480;  1: random 16..1024 at each write;  2: by phase: thirds of the stream
 *                small (32..255), large (2048..8191), small again;  3: 64 always
 *   ttl=0        1: each write lives 1 to 60 s (log-uniform; the clock runs at 100,000 requests a second);
 *                2: half of the keys only, those for 2 s
 *   scan=0       percent of requests that belong to scans: runs of 20,000 keys that are asked for once
 */
#include "tests/bench/sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_RUN 20000

/* Rank from a Zipf distribution by rejection (W. Hormann, G. Derflinger 1996): no table, any alpha >= 0. */
struct zipf {
    double alpha, n, h_half, h_n, cut;
};

static double zipf_h(const struct zipf *z, double x)
{
    double q = 1 - z->alpha;

    return fabs(q) < 1e-9 ? log(x) : pow(x, q) / q;
}

static double zipf_h_inverse(const struct zipf *z, double y)
{
    double q = 1 - z->alpha;

    return fabs(q) < 1e-9 ? exp(y) : pow(q * y, 1 / q);
}

static void zipf_init(struct zipf *z, double alpha, uint32_t n)
{
    z->alpha = alpha;
    z->n = n;
    z->h_half = zipf_h(z, 1.5) - 1;
    z->h_n = zipf_h(z, n + 0.5);
    z->cut = 2 - zipf_h_inverse(z, zipf_h(z, 2.5) - pow(2, -alpha));
}

static uint32_t zipf_draw(const struct zipf *z, uint64_t *random)
{
    for (;;) {
        double u = z->h_n + (double)(sim_random(random) >> 11) * 0x1p-53 * (z->h_half - z->h_n);
        double x = zipf_h_inverse(z, u), k = floor(x + 0.5);
        k = k < 1 ? 1 : k > z->n ? z->n : k;
        if (k - x <= z->cut || u >= zipf_h(z, k + 0.5) - pow(k, -z->alpha))
            return (uint32_t)k - 1;
    }
}

static uint32_t size_of(int sizes, uint32_t key, double progress, uint64_t *random)
{
    uint64_t hash = sim_hash(key);

    switch (sizes) {
    case 1:
        return 16 + (uint32_t)(sim_random(random) % 1009);
    case 2:
        return progress >= 1.0 / 3 && progress < 2.0 / 3 ? 2048 + (uint32_t)(hash % 6144) : 32 + (uint32_t)(hash % 224);
    case 3:
        return 64;
    default:
        return 32 + (uint32_t)(hash % 480);
    }
}

static uint32_t ttl_of(int ttl, uint32_t key, uint64_t *random)
{
    if (ttl == 1)
        return (uint32_t)(1000 * pow(60, (double)(sim_random(random) >> 11) * 0x1p-53));
    return ttl == 2 && (sim_hash(key) & 1) ? 2000 : 0;
}

int sim_stream_make(const char *text, struct sim_stream *out)
{
    struct sim_spec spec;
    struct zipf zipf;

    if (sim_spec_parse(text, &spec) || strcmp(spec.name, "zipf") != 0)
        return -1;
    uint32_t keys = (uint32_t)sim_option(&spec, "keys", 200000);
    size_t count = (size_t)sim_option(&spec, "requests", 3000000);
    uint64_t random = (uint64_t)sim_option(&spec, "seed", 1);
    int sizes = (int)sim_option(&spec, "sizes", 0), ttl = (int)sim_option(&spec, "ttl", 0);
    double put = sim_option(&spec, "put", 0) / 100, scan = sim_option(&spec, "scan", 0) / 100;
    zipf_init(&zipf, sim_option(&spec, "alpha", 0.99), keys);
    for (unsigned i = 0; i < spec.count; i++)
        if (!spec.used[i] || keys == 0 || count == 0)
            return -1;
    *out = (struct sim_stream){ .requests = sim_alloc(count, sizeof(*out->requests)), .count = count,
                                .keys = keys, .has_ttl = ttl != 0 };
    snprintf(out->name, sizeof(out->name), "%.63s", text);
    uint32_t scan_left = 0;
    double scanned = 0;
    for (size_t i = 0; i < count; i++) {
        struct sim_request *request = &out->requests[i];
        if (scan > 0 && scan_left == 0 && scanned < scan * (double)i)
            scan_left = SCAN_RUN;
        if (scan_left) {
            scan_left--;
            scanned++;
            request->key = out->keys++;
        } else {
            request->key = zipf_draw(&zipf, &random);
            request->op = put > 0 && (double)(sim_random(&random) >> 11) * 0x1p-53 < put ? SIM_PUT : SIM_GET;
        }
        request->size = size_of(sizes, request->key, (double)i / (double)count, &random);
        request->ttl_ms = ttl_of(ttl, request->key, &random);
    }
    sim_stream_finish(out);
    return 0;
}
