/* SPDX-License-Identifier: MIT */
/*
 * Random numbers that a seed gives again: SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
 * generators", OOPSLA 2014).
 */
#ifndef CRABCACHE_LOAD_RANDOM_H
#define CRABCACHE_LOAD_RANDOM_H

#include <stdint.h>

/** @brief The step of the sequence that random_mix() scrambles. */
#define RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15)

/** @brief SplitMix64's finalizer: scrambles 64 bits. */
static inline uint64_t random_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/** @brief The next 64 bits of a sequence. @param[in,out] state where it stands; any number begins one */
static inline uint64_t random_next(uint64_t *state)
{
    *state += RANDOM_STEP;
    return random_mix(*state);
}

/** @brief Shrink 64 random bits to a number below `limit`, all of them alike but for limit / 2^64. */
static inline uint64_t random_below(uint64_t bits, uint64_t limit)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)(((wide)bits * limit) >> 64);
}

#endif
