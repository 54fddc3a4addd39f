/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What the tests of the store share: a fake clock, values that prove themselves, and an inspection
 *        of all that the store promises itself about its memory.
 */
#ifndef CRABCACHE_TEST_STORE_SUPPORT_H
#define CRABCACHE_TEST_STORE_SUPPORT_H

#include "server/store/store_impl.h"

/** A clock that stands still until it is told. */
struct store_clock {
    uint64_t now_ms;
};

/** @brief store_config.now_ms with a struct store_clock as its context. */
uint64_t store_clock_now(void *context);

/** @brief Fill a buffer with the bytes that a seed stands for. */
void store_fill(uint8_t *to, size_t len, uint64_t seed);

/** @brief Are these the bytes that a seed stands for? */
bool store_filled(const uint8_t *from, size_t len, uint64_t seed);

/** @brief The next of a row of random numbers. */
uint64_t store_random(uint64_t *state);

/** @brief How much longer than usual to test: the environment's CRAB_TEST_SCALE, else 1. */
unsigned store_test_scale(void);

/** @brief Is there an item of this key, expired or not? No other thread may use the store. */
bool store_holds(struct store *store, const struct store_key *key);

/**
 * @brief Inspect a store that no other thread uses.
 * @return NULL, or what is wrong with it.
 */
const char *store_inspect(struct store *store);

#endif
