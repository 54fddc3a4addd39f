/* SPDX-License-Identifier: MIT */
/*
 * Helpers of the store's tests; see the header. store_inspect() states the invariants of store_impl.h a
 * second time, by walking everything instead of keeping account of it.
 */
#include "tests/support/store_support.h"

#include <stdlib.h>
#include <string.h>

uint64_t store_clock_now(void *context)
{
    return ((struct store_clock *)context)->now_ms;
}

uint64_t store_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

void store_fill(uint8_t *to, size_t len, uint64_t seed)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = store_random(&seed);
        memcpy(to + at, &word, len - at < 8 ? len - at : 8);
    }
}

bool store_filled(const uint8_t *from, size_t len, uint64_t seed)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = store_random(&seed);
        if (memcmp(from + at, &word, len - at < 8 ? len - at : 8) != 0)
            return false;
    }
    return true;
}

unsigned store_test_scale(void)
{
    const char *text = getenv("CRAB_TEST_SCALE");
    long scale = text == NULL ? 1 : strtol(text, NULL, 10);
    return scale < 1 ? 1 : scale > 10000 ? 10000 : (unsigned)scale;
}

/* What a walk through the index found, by segment: items << 32 | bytes. */
struct survey {
    uint64_t *segments;
    uint64_t large;
    uint64_t slots;
};

static const char *survey_slot(struct store *store, uint64_t slot, struct survey *found)
{
    uint64_t location = store_slot_location(slot), *seen;
    struct store_item item;
    uint64_t bytes = store_item_read(store_at(store, location), &item);
    found->slots++;
    if (store_is_large(store, location)) {
        found->large++;
    } else {
        uint32_t segment = store_segment_of(store, location);
        uint8_t state = store_load(&store->segments[segment].state);
        if (state != SEGMENT_OPEN && state != SEGMENT_SEALED && state != SEGMENT_DRAINING)
            return "a slot names an item of a segment that is not in use";
        if (location + bytes > store_segment_location(store, segment) + store->segments[segment].used)
            return "a slot names what was not written";
        if (item.expiry < store->segments[segment].min_expiry && !store->sweeping)
            return "min_expiry is no lower bound";
        found->segments[segment] += (uint64_t)1 << 32 | bytes;
    }
    struct store_key key = store_key(store, item.key, item.key_len);
    if (store_seq_of(store, location) >= store->flushed && store_index_get(store, &key, &seen) != slot)
        return "the index does not lead to a live item";
    return NULL;
}

static const char *survey_index(struct store *store, struct survey *found)
{
    for (uint64_t i = 0; i < store->bucket_count; i++) {
        unsigned chain = 0;
        for (struct store_bucket *b = &store->buckets[i]; b != NULL; b = store_overflow_of(store, b->control)) {
            for (unsigned n = 0; n < STORE_SLOTS; n++) {
                const char *wrong = b->slot[n] == 0 ? NULL : survey_slot(store, b->slot[n], found);
                if (wrong != NULL)
                    return wrong;
            }
            if (chain++ > STORE_CHAIN_MAX)
                return "a chain is too long";
        }
        if ((store->buckets[i].control & STORE_LOCK) != 0)
            return "a bucket stayed locked";
    }
    return NULL;
}

static const char *survey_pages(const struct store *store)
{
    uint64_t taken = 0, idle = 0;
    for (uint64_t word = 0; word < store->large_pages / 64; word++) {
        if ((store->page_map[word] & store->page_idle[word]) != 0)
            return "a page is taken and idle";
        if (store->page_idle[word] != 0 && word * 64 >= store->idle_end)
            return "idle pages stand behind their end";
        taken += (uint64_t)__builtin_popcountll(store->page_map[word]);
        idle += (uint64_t)__builtin_popcountll(store->page_idle[word]);
    }
    if (taken * STORE_PAGE != store->large_bytes || idle * STORE_PAGE != store->idle_bytes)
        return "the pages are not those that were counted";
    return NULL;
}

static const char *compare(struct store *store, const struct survey *found)
{
    uint64_t committed = store->fixed + store->large_bytes + store->idle_bytes +
                         (store->bucket_charged + store->overflow_charged) * sizeof(struct store_bucket);
    for (uint32_t i = 0; i < store->fresh; i++) {
        uint8_t state = store->segments[i].state;
        if (state == SEGMENT_UNUSED)
            continue;
        committed += store_segment_bytes(store);
        uint64_t live = state == SEGMENT_FREE ? 0 : store_segment_live(&store->segments[i]);
        if (live != found->segments[i])
            return "a segment's live bytes are wrong";
    }
    uint64_t large = 0;
    for (unsigned pool = 0; pool < POOL_COUNT; pool++)
        large += store->large[pool].count;
    if (large != found->large)
        return "the large items are not those of the index";
    if (store->committed != committed)
        return "the budget is wrong";
    if (store->committed > store->config.memory_bytes)
        return "the limit is exceeded";
    struct store_stats stats;
    store_stats(store, &stats);
    if (stats.items != found->slots && store->flushed == 0)
        return "the number of items is wrong";
    if (stats.bytes_live + stats.bytes_dead + stats.bytes_free + stats.bytes_index + stats.bytes_fixed !=
        stats.bytes_limit)
        return "the bytes do not add up";
    return NULL;
}

bool store_holds(struct store *store, const struct store_key *key)
{
    uint64_t *slot;
    return store_index_get(store, key, &slot) != 0;
}

const char *store_inspect(struct store *store)
{
    struct survey found = {.large = 0};
    found.segments = calloc(store->segment_count, sizeof(uint64_t));
    if (found.segments == NULL)
        return "the test has no memory";
    const char *wrong = survey_index(store, &found);
    if (wrong == NULL)
        wrong = survey_pages(store);
    if (wrong == NULL)
        wrong = compare(store, &found);
    free(found.segments);
    return wrong;
}
