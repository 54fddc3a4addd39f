/* SPDX-License-Identifier: MIT */
/*
 * Ranks by Zipf's law: rank k is drawn with a probability in proportion to 1 / k^exponent.
 */
#ifndef CRABCACHE_LOAD_ZIPF_LAW_H
#define CRABCACHE_LOAD_ZIPF_LAW_H

#include <stdint.h>

/** @brief A law, ready for drawing. */
struct zipf_law {
    double exponent;
    uint64_t keys;
    double first;   /**< The integral at 1.5, less the height at 1. */
    double last;    /**< The integral at keys + 0.5. */
    double squeeze; /**< Ranks this close above the drawn point are accepted at once. */
};

/**
 * @brief Prepare a law.
 * @param[out] law the law
 * @param exponent 0 (all ranks alike) or more
 * @param keys how many ranks, at least 1
 */
void zipf_law_init(struct zipf_law *law, double exponent, uint64_t keys);

/**
 * @brief Draw a rank.
 * @param law a law
 * @param[in,out] state a random sequence, see random_next()
 * @return 1 to `keys`
 */
uint64_t zipf_law_draw(const struct zipf_law *law, uint64_t *state);

#endif
