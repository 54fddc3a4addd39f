/* SPDX-License-Identifier: MIT */
/*
 * Values that prove themselves: the bytes follow from the key and the length alone, so that every returned value can be
 * checked byte for byte without having kept it.
 */
#ifndef CRABCACHE_REPLAY_VALUE_H
#define CRABCACHE_REPLAY_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** @brief The number that stands for a key everywhere in the program; never 0. */
uint64_t value_hash(const uint8_t *key, size_t key_len);

/**
 * @brief Write the value of a key.
 * @param hash the key's value_hash()
 * @param bytes the value's length, on which every byte depends too
 * @param[out] value where to
 */
void value_fill(uint64_t hash, size_t bytes, uint8_t *value);

/** @brief Whether bytes are the value that value_fill() writes for this key and length. */
bool value_is_right(uint64_t hash, const uint8_t *value, size_t bytes);

#endif
