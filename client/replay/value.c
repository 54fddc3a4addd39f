/* SPDX-License-Identifier: MIT */
/*
 * Values that prove themselves; see value.h.  Words are independent of each other, so that the compiler can work on
 * several at once; checking costs about as much as reading.
 */
#include "client/replay/value.h"

#include <endian.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "client/load/random.h"

uint64_t value_hash(const uint8_t *key, size_t key_len)
{
    uint64_t hash = XXH3_64bits(key, key_len);
    return hash != 0 ? hash : 1;
}

static uint64_t seed_of(uint64_t hash, size_t bytes)
{
    return random_mix(hash ^ random_mix((uint64_t)bytes + RANDOM_STEP));
}

static uint64_t word(uint64_t seed, size_t index)
{
    return htole64(random_mix(seed + (uint64_t)index * RANDOM_STEP));
}

void value_fill(uint64_t hash, size_t bytes, uint8_t *value)
{
    uint64_t seed = seed_of(hash, bytes);
    size_t words = bytes / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t w = word(seed, i);
        memcpy(value + i * 8, &w, 8);
    }
    uint64_t last = word(seed, words);
    if (bytes % 8 != 0)
        memcpy(value + words * 8, &last, bytes % 8);
}

bool value_is_right(uint64_t hash, const uint8_t *value, size_t bytes)
{
    uint64_t seed = seed_of(hash, bytes);
    size_t words = bytes / 8;
    uint64_t wrong = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t w;
        memcpy(&w, value + i * 8, 8);
        wrong |= w ^ word(seed, i);
    }
    uint64_t last = word(seed, words);
    return wrong == 0 && (bytes % 8 == 0 || memcmp(value + words * 8, &last, bytes % 8) == 0);
}
