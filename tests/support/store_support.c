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

/* What a walk through the tiles found. */
struct survey {
    uint64_t items;
    uint64_t live;
    uint32_t *segment_live;
    uint32_t *segment_first;
};

static const char *survey_item(struct store *store, uint64_t at, struct survey *found)
{
    struct store_item *item = store_item_at(store, at);
    uint64_t size = store_tile_size(item);
    found->items++;
    found->live += size;
    for (uint64_t byte = at; byte < at + size; byte += 8)
        found->segment_live[store_segment_of(store, byte)] += 8;
    if (item->version == 0)
        return "a version is 0";
    if (size < sizeof(*item) + item->key_len + item->padding || item->padding > 7)
        return "an item's lengths disagree with its tile";
    if (item->expiry < store->segments[store_segment_of(store, at)].min_expiry)
        return "min_expiry is no lower bound";
    struct store_key key = store_key(store, store_item_key(item), item->key_len);
    uint64_t *link = store_index_find(store, &key);
    if (link == NULL || store_link_offset(*link) != at)
        return "the index does not lead to a live item";
    return NULL;
}

static const char *survey_tiles(struct store *store, struct survey *found)
{
    bool gap_seen = store->gap == store->gap_end;
    uint64_t at = 0;
    while (at < store->arena_size) {
        struct store_item *item = store_item_at(store, at);
        uint64_t size = store_tile_size(item);
        if (size < 8 || size % 8 != 0 || size > store->arena_size - at)
            return "a tile's size is impossible";
        uint32_t within = (uint32_t)(at & (((uint64_t)1 << store->segment_shift) - 1));
        if (within < found->segment_first[store_segment_of(store, at)])
            found->segment_first[store_segment_of(store, at)] = within;
        if (at == store->gap && store->gap < store->gap_end) {
            if (store_tile_live(item) || at + size != store->gap_end)
                return "the gap is not one dead tile";
            gap_seen = true;
        }
        if (store_tile_live(item)) {
            const char *wrong = survey_item(store, at, found);
            if (wrong != NULL)
                return wrong;
        }
        at += size;
    }
    return gap_seen ? NULL : "the gap is not a tile";
}

static const char *compare(struct store *store, const struct survey *found)
{
    for (uint32_t i = 0; i < store->segment_count; i++) {
        if (store->segments[i].live != found->segment_live[i])
            return "a segment's live bytes are wrong";
        if (store->segments[i].first != found->segment_first[i])
            return "a segment's first tile is wrong";
    }
    if (store->items != found->items || store->live != found->live)
        return "the totals are wrong";
    uint64_t linked = 0;
    for (uint64_t i = 0; i <= store->bucket_mask; i++) {
        for (uint64_t link = store->buckets[i]; link != 0;
             link = store_item_at(store, store_link_offset(link))->next)
            linked++;
    }
    if (linked != found->items)
        return "the index leads to what is no live item";
    struct store_stats stats;
    store_stats(store, &stats);
    if (stats.bytes_live + stats.bytes_dead + stats.bytes_free != store->arena_size)
        return "live, dead and free bytes are not all";
    if (store->mapped > store->config.memory_bytes)
        return "the limit is exceeded";
    return NULL;
}

const char *store_inspect(struct store *store)
{
    struct survey found = {.items = 0};
    found.segment_live = calloc(store->segment_count, sizeof(uint32_t));
    found.segment_first = malloc(store->segment_count * sizeof(uint32_t));
    const char *wrong = "the test has no memory";
    if (found.segment_live != NULL && found.segment_first != NULL) {
        memset(found.segment_first, 0xff, store->segment_count * sizeof(uint32_t));
        wrong = survey_tiles(store, &found);
        if (wrong == NULL)
            wrong = compare(store, &found);
    }
    free(found.segment_live);
    free(found.segment_first);
    return wrong;
}
