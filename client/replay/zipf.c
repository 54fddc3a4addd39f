/* SPDX-License-Identifier: MIT */
/*
 * Zipf-distributed ranks by rejection-inversion (W. Hoermann, G. Derflinger, "Rejection-inversion to generate
 * variates from monotone discrete distributions", ACM TOMACS 6(3), 1996): no tables, a few logarithms a draw, exact for
 * every exponent from 0 on.  Rank k is the key "zipf:k"; its value's size depends on the key and the seed alone.
 */
#include "client/replay/zipf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/replay/value.h"

struct zipf {
    struct zipf_options options;
    uint64_t made;
    uint64_t state;
    double first; /* integral at 1.5, less the height at 1 */
    double last;  /* integral at keys + 0.5 */
    double squeeze;
    char key[32];
};

/* (exp(x) - 1) / x, and log(1 + x) / x, also near 0. */
static double expm1_over(double x)
{
    return fabs(x) > 1e-8 ? expm1(x) / x : 1.0 + x * 0.5 * (1.0 + x / 3.0);
}

static double log1p_over(double x)
{
    return fabs(x) > 1e-8 ? log1p(x) / x : 1.0 - x * (0.5 - x / 3.0);
}

static double height(const struct zipf *zipf, double x)
{
    return exp(-zipf->options.exponent * log(x));
}

static double integral(const struct zipf *zipf, double x)
{
    double log_x = log(x);
    return expm1_over((1.0 - zipf->options.exponent) * log_x) * log_x;
}

static double inverse(const struct zipf *zipf, double y)
{
    double t = y * (1.0 - zipf->options.exponent);
    return exp(log1p_over(t < -1.0 ? -1.0 : t) * y);
}

static uint64_t next_random(struct zipf *zipf)
{
    zipf->state += VALUE_STEP;
    return value_mix(zipf->state);
}

static uint64_t draw(struct zipf *zipf)
{
    for (;;) {
        double uniform = (double)(next_random(zipf) >> 11) * 0x1.0p-53;
        double y = zipf->last + uniform * (zipf->first - zipf->last);
        double x = inverse(zipf, y);
        double rank = floor(x + 0.5);
        if (rank < 1.0)
            rank = 1.0;
        if (rank > (double)zipf->options.keys)
            rank = (double)zipf->options.keys;
        if (rank - x <= zipf->squeeze || y >= integral(zipf, rank + 0.5) - height(zipf, rank))
            return (uint64_t)rank;
    }
}

struct zipf *zipf_create(const struct zipf_options *options)
{
    struct zipf *zipf = calloc(1, sizeof *zipf);
    if (zipf == NULL)
        return NULL;
    zipf->options = *options;
    zipf->state = value_mix(options->seed);
    zipf->first = integral(zipf, 1.5) - 1.0;
    zipf->last = integral(zipf, (double)options->keys + 0.5);
    zipf->squeeze = 2.0 - inverse(zipf, integral(zipf, 2.5) - height(zipf, 2.0));
    return zipf;
}

int zipf_next(struct zipf *zipf, struct request *request)
{
    if (zipf->made == zipf->options.requests)
        return 0;
    zipf->made++;
    uint64_t rank = draw(zipf);
    int len = snprintf(zipf->key, sizeof zipf->key, "zipf:%llu", (unsigned long long)rank);
    uint64_t sizes = (uint64_t)zipf->options.most - zipf->options.least + 1;
    request->key = (const uint8_t *)zipf->key;
    request->key_len = (size_t)len;
    request->value_bytes = zipf->options.least + (uint32_t)(value_mix(rank ^ zipf->options.seed) % sizes);
    return 1;
}

void zipf_destroy(struct zipf *zipf)
{
    free(zipf);
}
