/* SPDX-License-Identifier: MIT */
/*
 * Zipf-distributed ranks by rejection-inversion (W. Hoermann, G. Derflinger, "Rejection-inversion to generate
 * variates from monotone discrete distributions", ACM TOMACS 6(3), 1996): no tables, a few logarithms a draw, exact for
 * every exponent from 0 on.
 */
#include "client/load/zipf_law.h"

#include <math.h>

#include "client/load/random.h"

/* (exp(x) - 1) / x, and log(1 + x) / x, also near 0. */
static double expm1_over(double x)
{
    return fabs(x) > 1e-8 ? expm1(x) / x : 1.0 + x * 0.5 * (1.0 + x / 3.0);
}

static double log1p_over(double x)
{
    return fabs(x) > 1e-8 ? log1p(x) / x : 1.0 - x * (0.5 - x / 3.0);
}

static double height(const struct zipf_law *law, double x)
{
    return exp(-law->exponent * log(x));
}

static double integral(const struct zipf_law *law, double x)
{
    double log_x = log(x);
    return expm1_over((1.0 - law->exponent) * log_x) * log_x;
}

static double inverse(const struct zipf_law *law, double y)
{
    double t = y * (1.0 - law->exponent);
    return exp(log1p_over(t < -1.0 ? -1.0 : t) * y);
}

uint64_t zipf_law_draw(const struct zipf_law *law, uint64_t *state)
{
    for (;;) {
        double uniform = (double)(random_next(state) >> 11) * 0x1.0p-53;
        double y = law->last + uniform * (law->first - law->last);
        double x = inverse(law, y);
        double rank = floor(x + 0.5);
        if (rank < 1.0)
            rank = 1.0;
        if (rank > (double)law->keys)
            rank = (double)law->keys;
        if (rank - x <= law->squeeze || y >= integral(law, rank + 0.5) - height(law, rank))
            return (uint64_t)rank;
    }
}

void zipf_law_init(struct zipf_law *law, double exponent, uint64_t keys)
{
    *law = (struct zipf_law){.exponent = exponent, .keys = keys};
    law->first = integral(law, 1.5) - 1.0;
    law->last = integral(law, (double)keys + 0.5);
    law->squeeze = 2.0 - inverse(law, integral(law, 2.5) - height(law, 2.0));
}
