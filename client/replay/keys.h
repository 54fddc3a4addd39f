/* SPDX-License-Identifier: MIT */
/*
 * What a worker knows of each key that it has seen: the length of its last put, and which request owns it now.
 */
#ifndef CRABCACHE_REPLAY_KEYS_H
#define CRABCACHE_REPLAY_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEYS_NO_OWNER UINT32_MAX
#define KEYS_NEVER_PUT UINT64_MAX

/** @brief One key. */
struct key_entry {
    uint64_t hash;   /**< value_hash() of the key; 0: the place is free. */
    uint64_t length; /**< Of the last value that was put, or #KEYS_NEVER_PUT. */
    uint32_t owner;  /**< The slot whose request may put the key, or #KEYS_NO_OWNER. */
    bool stored;     /**< The last that was heard of the key: it was put or found, not missed. */
};

/** @brief All keys of a worker.  All zeros is the empty table. */
struct keys {
    struct key_entry *entries;
    size_t capacity; /**< A power of two, or 0. */
    size_t count;
};

/**
 * @brief Find a key, or add it.
 *
 * A key is known by 64 bits of hash.  Two keys that share them would be taken for one: for five million keys the
 * chance is less than one in a million, and it could only cause a false alarm.
 * @param keys a table
 * @param hash the key's value_hash()
 * @return its entry, valid until the next call; NULL for lack of memory
 */
struct key_entry *keys_find(struct keys *keys, uint64_t hash);
/** @brief Free the table. */
void keys_fini(struct keys *keys);

#endif
