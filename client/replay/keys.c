/* SPDX-License-Identifier: MIT */
/*
 * Open addressing with linear probing, at most three quarters full; keys are never removed.
 */
#include "client/replay/keys.h"

#include <stdlib.h>

#define KEYS_LEAST 1024U

static struct key_entry *place_of(struct key_entry *entries, size_t capacity, uint64_t hash)
{
    size_t place = (size_t)hash & (capacity - 1);
    while (entries[place].hash != 0 && entries[place].hash != hash)
        place = (place + 1) & (capacity - 1);
    return &entries[place];
}

static int grow(struct keys *keys)
{
    size_t capacity = keys->capacity == 0 ? KEYS_LEAST : keys->capacity * 2;
    struct key_entry *entries = calloc(capacity, sizeof *entries);
    if (entries == NULL)
        return -1;
    for (size_t i = 0; i < keys->capacity; i++) {
        if (keys->entries[i].hash != 0)
            *place_of(entries, capacity, keys->entries[i].hash) = keys->entries[i];
    }
    free(keys->entries);
    keys->entries = entries;
    keys->capacity = capacity;
    return 0;
}

struct key_entry *keys_find(struct keys *keys, uint64_t hash)
{
    if (keys->count >= keys->capacity / 4 * 3 && grow(keys) != 0)
        return NULL;
    struct key_entry *entry = place_of(keys->entries, keys->capacity, hash);
    if (entry->hash == 0) {
        *entry = (struct key_entry){.hash = hash, .length = KEYS_NEVER_PUT, .owner = KEYS_NO_OWNER};
        keys->count++;
    }
    return entry;
}

void keys_fini(struct keys *keys)
{
    free(keys->entries);
    *keys = (struct keys){0};
}
