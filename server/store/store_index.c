/* SPDX-License-Identifier: MIT */
/*
 * The index: from a key to its item. A fixed array of buckets, each the head of a chain through the items.
 *
 * Invariants: every live item is in the chain of its key's bucket, exactly once, and nothing else is; a
 * link's upper 16 bits are those of the hash of the item that it names. Links are written as relaxed atomics,
 * as the prefetches read the heads of the chains without the lock.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>
#include <sys/mman.h>

#include "server/store/store_impl.h"

static void set_link(uint64_t *link, uint64_t to)
{
    __atomic_store_n(link, to, __ATOMIC_RELAXED);
}

static uint64_t *bucket_of(const struct store *store, uint64_t hash)
{
    return &store->buckets[hash & store->bucket_mask];
}

static uint64_t hash_of(const struct store *store, const uint8_t *key, size_t len)
{
    return XXH3_64bits_withSecret(key, len, store->secret, sizeof(store->secret));
}

struct store_key store_key(const struct store *store, const uint8_t *data, size_t len)
{
    assert(len >= 1 && len <= STORE_MAX_KEY);
    return (struct store_key){
        .data = data, .len = (uint32_t)len, .hash = hash_of(store, data, len)};
}

void store_prefetch_index(const struct store *store, uint64_t hash)
{
    __builtin_prefetch(bucket_of(store, hash));
}

void store_prefetch_item(const struct store *store, uint64_t hash)
{
    uint64_t link = __atomic_load_n(bucket_of(store, hash), __ATOMIC_RELAXED);
    if (link != 0)
        __builtin_prefetch(store->arena + store_link_offset(link));
}

uint64_t *store_index_find(struct store *store, const struct store_key *key)
{
    uint64_t *link = bucket_of(store, key->hash);
    while (*link != 0) {
        struct store_item *item = store_item_at(store, store_link_offset(*link));
        if (((*link ^ key->hash) & STORE_TAG_MASK) == 0 && item->key_len == key->len &&
            memcmp(store_item_key(item), key->data, key->len) == 0)
            return link;
        link = &item->next;
    }
    return NULL;
}

uint64_t *store_index_link_to(struct store *store, uint64_t offset)
{
    struct store_item *item = store_item_at(store, offset);
    uint64_t *link = bucket_of(store, hash_of(store, store_item_key(item), item->key_len));
    while (store_link_offset(*link) != offset) {
        assert(*link != 0);
        link = &store_item_at(store, store_link_offset(*link))->next;
    }
    return link;
}

void store_index_insert(struct store *store, uint64_t hash, uint64_t offset)
{
    uint64_t *head = bucket_of(store, hash);
    store_item_at(store, offset)->next = *head;
    set_link(head, (hash & STORE_TAG_MASK) | ((offset >> 3) + 1));
}

void store_index_move(uint64_t *link, uint64_t offset)
{
    set_link(link, (*link & STORE_TAG_MASK) | ((offset >> 3) + 1));
}

void store_index_remove(struct store *store, uint64_t *link)
{
    set_link(link, store_item_at(store, store_link_offset(*link))->next);
}

void store_index_clear(struct store *store)
{
    size_t count = (size_t)store->bucket_mask + 1;
    /* Fresh pages are zero; giving the old ones back is quicker than writing them. */
    if (madvise(store->buckets, count * sizeof(store->buckets[0]), MADV_DONTNEED) == 0)
        return;
    for (size_t i = 0; i < count; i++)
        set_link(&store->buckets[i], 0);
}
