/* SPDX-License-Identifier: MIT */
/*
 * The operations on keys. Each takes the lock, reads the clock once, and does all of its work in between.
 *
 * Invariants: a write makes room and fills the new item before the old one is given up, so that a write that
 * fails changes nothing; bytes of a value are never changed in place, as a worker may have a view of them.
 * Making room may move or evict any item: what was found before is looked up again after it.
 */
#include <limits.h>
#include <string.h>

#include "server/store/store_impl.h"

static struct store *enter(struct store_worker *worker)
{
    struct store *store = worker->store;
    pthread_mutex_lock(&store->mutex);
    store->now = store->config.now_ms(store->config.now_context);
    return store;
}

static enum store_result leave(struct store *store, enum store_result result)
{
    store->refusals += result == STORE_NO_MEMORY;
    pthread_mutex_unlock(&store->mutex);
    return result;
}

static struct store_item *item_of(struct store *store, const uint64_t *link)
{
    return store_item_at(store, store_link_offset(*link));
}

static uint64_t expiry_after(const struct store *store, uint64_t ttl_ms)
{
    uint64_t expiry;
    return __builtin_add_overflow(store->now, ttl_ms, &expiry) ? STORE_NEVER : expiry;
}

/* The link to a key's item; an expired one is dropped and not found. */
static uint64_t *find(struct store *store, const struct store_key *key)
{
    uint64_t *link = store_index_find(store, key);
    if (link != NULL && store_item_expired(store, item_of(store, link))) {
        store_arena_drop(store, link);
        store->expirations++;
        return NULL;
    }
    return link;
}

/* ---- reading ---- */

/* Holds the segments of an item until the worker's next store_quiesce(). */
static void hold(struct store_worker *worker, uint32_t first, uint32_t last)
{
    struct store *store = worker->store;
    for (uint32_t i = first; i <= last; i++) {
        uint64_t bit = (uint64_t)1 << (i % 64);
        if ((worker->views[i / 64] & bit) == 0) {
            worker->views[i / 64] |= bit;
            store->segments[i].views++;
        }
    }
    bool empty = worker->first_word == worker->end_word;
    if (empty || first / 64 < worker->first_word)
        worker->first_word = first / 64;
    if (empty || last / 64 + 1 > worker->end_word)
        worker->end_word = last / 64 + 1;
}

static void look(struct store_worker *worker, const uint64_t *link, struct store_view *view)
{
    struct store *store = worker->store;
    uint64_t offset = store_link_offset(*link);
    struct store_item *item = store_item_at(store, offset);
    uint32_t first = store_segment_of(store, offset);
    uint32_t last = store_segment_of(store, offset + store_tile_size(item) - 1);
    hold(worker, first, last);
    *view = (struct store_view){
        .value = store_item_value(item),
        .value_len = store_item_value_len(item),
        .version = item->version,
        .ttl_ms = item->expiry == STORE_NEVER ? STORE_NEVER : item->expiry - store->now,
        .app_flags = item->app_flags,
        .pin = (uint64_t)(last - first) << 32 | first,
    };
}

static void set_expiry(struct store *store, const uint64_t *link, uint64_t ttl_ms)
{
    struct store_item *item = item_of(store, link);
    item->expiry = expiry_after(store, ttl_ms);
    store_arena_note_expiry(store, store_link_offset(*link), item->expiry);
}

static enum store_result get(struct store_worker *worker, const struct store_key *key,
                             const uint64_t *new_ttl_ms, struct store_view *view)
{
    struct store *store = enter(worker);
    uint64_t *link = find(store, key);
    if (link == NULL) {
        store->misses++;
        return leave(store, STORE_ABSENT);
    }
    if (new_ttl_ms != NULL)
        set_expiry(store, link, *new_ttl_ms);
    look(worker, link, view);
    store->hits++;
    return leave(store, STORE_OK);
}

enum store_result store_get(struct store_worker *worker, const struct store_key *key,
                            struct store_view *view)
{
    return get(worker, key, NULL, view);
}

enum store_result store_touch(struct store_worker *worker, const struct store_key *key,
                              uint64_t ttl_ms, struct store_view *view)
{
    return get(worker, key, &ttl_ms, view);
}

/* ---- writing ---- */

/* All that becomes an item, apart from its version. */
struct draft {
    const struct store_key *key;
    const uint8_t *value;
    size_t value_len;
    uint64_t expiry;
    uint32_t app_flags;
};

/* Exact for any lengths that fit the store; see store_max_value(). */
static uint64_t tile_bytes(size_t key_len, size_t value_len)
{
    return (sizeof(struct store_item) + key_len + value_len + 7) & ~(uint64_t)7;
}

size_t store_max_value(const struct store *store, size_t key_len)
{
    /* Half of the arena: it can be had wherever the hand of eviction stands. */
    uint64_t largest_tile = store_segment_base(store, store->segment_count / 2);
    return largest_tile - sizeof(struct store_item) - key_len;
}

/* STORE_REFUSE: may this many bytes become live, if `freed` are given up for them? */
static bool admit(struct store *store, uint64_t size, uint64_t freed)
{
    if (store->live - freed + size <= store->live_limit)
        return true;
    for (uint32_t i = 0; i < store->segment_count; i++) {
        if (store->segments[i].min_expiry <= store->now)
            store_arena_expire(store, i, UINT_MAX);
    }
    return store->live - freed + size <= store->live_limit;
}

/*
 * Makes room for an item of `size` bytes that replaces one of `old_size` bytes (0: none). On failure nothing
 * is lost. On success the old item may be gone, or elsewhere.
 */
static bool reserve(struct store *store, const struct store_key *key, uint64_t size, uint64_t old_size)
{
    if (store->config.eviction == STORE_REFUSE && !admit(store, size, old_size))
        return false;
    if (store_arena_make_room(store, size))
        return true;
    /* Too large to stand beside the old item. In its place it fits for sure if nothing is in the way. */
    if (old_size == 0 || store_arena_any_pinned(store) ||
        store->arena_size - store->live + old_size < size)
        return false;
    store_arena_drop(store, store_index_find(store, key));
    bool made = store_arena_make_room(store, size);
    assert(made);
    return made;
}

/* Writes a new item in the place of the one that `old` links to, which may be NULL. */
static bool write_item(struct store *store, const struct draft *draft, const uint64_t *old)
{
    size_t bytes = sizeof(struct store_item) + draft->key->len + draft->value_len;
    uint64_t size = tile_bytes(draft->key->len, draft->value_len);
    if (!reserve(store, draft->key, size, old == NULL ? 0 : store_tile_size(item_of(store, old))))
        return false;

    uint64_t *now_old = store_index_find(store, draft->key);
    if (now_old != NULL)
        store_arena_drop(store, now_old);
    uint64_t offset = store_arena_take(store, size);
    struct store_item *item = store_item_at(store, offset);
    store->version++;
    item->expiry = draft->expiry;
    item->version = store->version;
    item->app_flags = draft->app_flags;
    item->key_len = (uint16_t)draft->key->len;
    item->padding = (uint16_t)(size - bytes);
    memcpy(store_item_key(item), draft->key->data, draft->key->len);
    if (draft->value_len != 0)
        memcpy(store_item_value(item), draft->value, draft->value_len);
    store_index_insert(store, draft->key->hash, offset);
    store_arena_note_expiry(store, offset, draft->expiry);
    store->puts++;
    return true;
}

/* STORE_OK if the condition holds. */
static enum store_result check(const struct store_put_args *args, const struct store_item *old)
{
    switch (args->condition) {
    case STORE_ALWAYS:
        return STORE_OK;
    case STORE_IF_ABSENT:
        return old == NULL ? STORE_OK : STORE_EXISTS;
    case STORE_IF_PRESENT:
        return old == NULL ? STORE_ABSENT : STORE_OK;
    case STORE_IF_VERSION:
        if (old == NULL)
            return STORE_ABSENT;
        return old->version == args->version ? STORE_OK : STORE_EXISTS;
    }
    assert(false);
    return STORE_EXISTS;
}

enum store_result store_put(struct store_worker *worker, const struct store_key *key,
                            const struct store_put_args *args, uint64_t *version)
{
    if (args->value_len > store_max_value(worker->store, key->len))
        return STORE_TOO_LARGE;
    struct store *store = enter(worker);
    uint64_t *link = find(store, key);
    enum store_result result = check(args, link == NULL ? NULL : item_of(store, link));
    if (result == STORE_EXISTS && version != NULL)
        *version = item_of(store, link)->version;
    if (result != STORE_OK)
        return leave(store, result);

    struct draft draft = {.key = key,
                          .value = args->value,
                          .value_len = args->value_len,
                          .expiry = expiry_after(store, args->ttl_ms),
                          .app_flags = args->app_flags};
    if (!write_item(store, &draft, link))
        return leave(store, STORE_NO_MEMORY);
    if (version != NULL)
        *version = store->version;
    return leave(store, STORE_OK);
}

enum store_result store_delete(struct store_worker *worker, const struct store_key *key)
{
    struct store *store = enter(worker);
    uint64_t *link = find(store, key);
    if (link == NULL)
        return leave(store, STORE_ABSENT);
    store_arena_drop(store, link);
    store->deletes++;
    return leave(store, STORE_OK);
}

enum store_result store_expire(struct store_worker *worker, const struct store_key *key,
                               uint64_t ttl_ms)
{
    struct store *store = enter(worker);
    uint64_t *link = find(store, key);
    if (link == NULL)
        return leave(store, STORE_ABSENT);
    set_expiry(store, link, ttl_ms);
    return leave(store, STORE_OK);
}

enum store_result store_incr(struct store_worker *worker, const struct store_key *key,
                             const struct store_incr_args *args, int64_t *number)
{
    struct store *store = enter(worker);
    struct draft draft = {.key = key};
    int64_t sum;
    uint64_t *link = find(store, key);
    if (link == NULL) {
        if (!args->has_initial)
            return leave(store, STORE_ABSENT);
        sum = args->initial;
        draft.expiry = expiry_after(store, args->ttl_ms);
    } else {
        struct store_item *item = item_of(store, link);
        if (!store_number_parse(store_item_value(item), store_item_value_len(item), &sum))
            return leave(store, STORE_NOT_A_NUMBER);
        /* These builtins work as if in unbounded integers, whatever the types: the delta is exact. */
        if (args->negative ? __builtin_sub_overflow(sum, args->delta, &sum)
                           : __builtin_add_overflow(sum, args->delta, &sum))
            return leave(store, STORE_OVERFLOW);
        draft.expiry = item->expiry;
        draft.app_flags = item->app_flags;
    }

    uint8_t text[STORE_NUMBER_MAX_LEN];
    draft.value = text;
    draft.value_len = store_number_format(sum, text);
    if (!write_item(store, &draft, link))
        return leave(store, STORE_NO_MEMORY);
    *number = sum;
    return leave(store, STORE_OK);
}
