/* SPDX-License-Identifier: MIT */
/*
 * Budgets as points in time: an entry says when all of its debt is paid, and each failure moves that on by what it
 * costs. An entry whose time has come owes nothing, which is as good as none. Two tables of a few ways each; in a full
 * set the entry that goes is the one whose debt is paid first or, among known users, who was seen least recently (their
 * entries are never older than when they were last seen).
 */
#include "server/throttle.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

void throttle_init(struct throttle *throttle, uint64_t seed, unsigned per_minute)
{
    memset(throttle, 0, sizeof *throttle);
    throttle->seed = seed;
    if (per_minute != 0) {
        throttle->interval_ms = (60000 + per_minute - 1) / per_minute;
        throttle->burst_ms = throttle->interval_ms * per_minute;
    }
}

static uint64_t key_of(const struct throttle *throttle, uint64_t source, const uint8_t *user, size_t user_len)
{
    uint64_t seed = XXH3_64bits_withSeed(&source, sizeof source, throttle->seed);
    uint64_t key = user_len == 0 ? seed : XXH3_64bits_withSeed(user, user_len, seed);
    return key != 0 ? key : 1;
}

static struct throttle_entry *set_of(struct throttle_entry *table, uint64_t key)
{
    return &table[key % (THROTTLE_ENTRIES / THROTTLE_WAYS) * THROTTLE_WAYS];
}

static struct throttle_entry *find(struct throttle_entry *table, uint64_t key)
{
    struct throttle_entry *set = set_of(table, key);
    for (unsigned i = 0; i < THROTTLE_WAYS; i++) {
        if (set[i].key == key)
            return &set[i];
    }
    return NULL;
}

/* The entry of a key; if it has none, that of the set which matters least becomes it. */
static struct throttle_entry *find_or_make(struct throttle_entry *table, uint64_t key)
{
    struct throttle_entry *entry = find(table, key);
    if (entry != NULL)
        return entry;
    struct throttle_entry *set = set_of(table, key);
    entry = &set[0];
    for (unsigned i = 1; i < THROTTLE_WAYS; i++) {
        if (set[i].paid_ms < entry->paid_ms)
            entry = &set[i];
    }
    *entry = (struct throttle_entry){.key = key};
    return entry;
}

bool throttle_enter(struct throttle *throttle, uint64_t source, const uint8_t *user, size_t user_len, uint64_t now_ms,
                    struct throttle_attempt *attempt)
{
    attempt->source_key = key_of(throttle, source, NULL, 0);
    attempt->user_key = key_of(throttle, source, user, user_len);
    struct throttle_entry *entry = find(throttle->known, attempt->user_key);
    attempt->known = entry != NULL;
    if (throttle->interval_ms == 0)
        return true;
    if (entry == NULL)
        entry = find_or_make(throttle->sources, attempt->source_key);
    uint64_t paid_ms = entry->paid_ms > now_ms ? entry->paid_ms : now_ms;
    if (paid_ms + throttle->interval_ms > now_ms + throttle->burst_ms)
        return false;
    entry->paid_ms = paid_ms + throttle->interval_ms;
    return true;
}

void throttle_succeeded(struct throttle *throttle, const struct throttle_attempt *attempt, uint64_t now_ms)
{
    if (throttle->interval_ms == 0)
        return;
    struct throttle_entry *charged = attempt->known ? find(throttle->known, attempt->user_key)
                                                    : find(throttle->sources, attempt->source_key);
    if (charged != NULL && charged->paid_ms > now_ms)
        charged->paid_ms -= throttle->interval_ms;
    struct throttle_entry *entry = find_or_make(throttle->known, attempt->user_key);
    if (entry->paid_ms < now_ms)
        entry->paid_ms = now_ms;
}
