/* SPDX-License-Identifier: MIT */
/*
 * The operations on keys. Readers take no lock (store_index.c); writers make room, write the new item where nobody
 * sees it, lock the key's bucket, look again, and publish by one store into the slot.
 *
 * Invariants: room is made before the bucket is locked, as it may move or evict any item, the key's own included;
 * a write that fails changes nothing; published bytes never change, but for an expiry that the item has room for.
 * An operation that locked its bucket under another value of store.flushed than it started with starts again: so
 * what a flush emptied is never the ground of anything that outlives it.
 */
#include "server/store/store_append.h"
#include "server/store/store_impl.h"

#define GROWN 8U /* Times as large as before: on trial again. */

/* ---- what is known of an item ---- */

/* What the clock cannot reach is never. */
static uint64_t expiry_after(const struct store *store, uint64_t now, uint64_t ttl_ms)
{
    return ttl_ms >= UINT64_MAX - store->made_at - now ? STORE_NEVER : now + ttl_ms;
}

static bool flushed_away(const struct store *store, uint64_t flushed, uint64_t location)
{
    return flushed != 0 && store_seq_of(store, location) < flushed;
}

static uint64_t pin_of(const struct store *store, uint64_t location)
{
    if (store_is_large(store, location))
        return (uint64_t)1 << 63 | store_page_of(store, location);
    return store_segment_of(store, location);
}

static void fill_view(struct store_worker *worker, uint64_t location, const struct store_item *item,
                      uint64_t now, uint64_t version, struct store_view *view)
{
    worker->has_views = true;
    *view = (struct store_view){
        .value = item->value,
        .value_len = item->value_len,
        .version = version,
        .ttl_ms = item->expiry == STORE_NEVER ? STORE_NEVER : item->expiry - now,
        .app_flags = item->app_flags,
        .pin = pin_of(worker->store, location),
    };
}

/* ---- writing: the parts ---- */

struct draft {
    const struct store_key *key;
    struct store_item item;
    struct store_shape shape; /* Of the item as it will be written. */
    struct store_place place;
    struct store_need need;
    uint64_t flushed; /* As it was when the operation began. */
    bool seen;        /* The caller learns the version. */
};

/* Decides where an item of at most `bytes` will lie. */
static void plan(const struct store *store, struct draft *draft, uint64_t bytes, uint64_t expiry, uint64_t now)
{
    draft->need = (struct store_need){.bytes = bytes + 7, .class = store_class_of(store, expiry, now)};
    draft->need.large = draft->need.bytes > store->item_max;
    if (draft->need.large) {
        draft->item.has_expiry = draft->item.must_be_wide = true;
        draft->need.bytes += 4 + 8;
    }
}

/* Makes room, of which there is enough for nearly all. */
static inline bool have_room(struct store_worker *worker, struct draft *draft)
{
    const struct store_need *need = &draft->need;
    if (need->large || !store_segment_has_room(worker->store, &worker->writer, need->class, need->bytes))
        return store_make_room(worker, need, &draft->place);
    store_refresh(worker);
    return true;
}

/* Notes the flush that the operation stands on, then makes room: a flush in between makes it start again. */
static inline bool begin(struct store_worker *worker, struct draft *draft)
{
    store_pay(worker, draft->need.bytes);
    draft->flushed = store_load(&worker->store->flushed);
    return have_room(worker, draft);
}

/* Gives up a place that was not used. */
static void abandon(struct store *store, const struct draft *draft)
{
    if (draft->need.large)
        store_large_drop(store, draft->place.page);
}

/* Writes the item to its place. */
static inline void write_out(struct store_worker *worker, struct draft *draft)
{
    if (draft->need.large)
        draft->place.bytes = draft->shape.bytes;
    else
        store_segment_place(worker->store, &worker->writer, draft->need.class, &draft->shape, &draft->place);
    store_item_write(draft->place.at, &draft->item, draft->shape.flags);
}

/* A slot of a full chain whose item is the first to go. */
static uint64_t *coldest_slot(const struct store *store, const struct store_found *found)
{
    uint64_t *coldest = NULL, least = STORE_FREQ_MASK;
    for (struct store_bucket *b = found->home; b != NULL; b = store_overflow_of(store, store_peek(&b->control))) {
        for (unsigned i = 0; i < STORE_SLOTS; i++) {
            uint64_t freq = store_load(&b->slot[i]) & STORE_FREQ_MASK;
            if (coldest == NULL || freq < least) {
                coldest = &b->slot[i];
                least = freq;
            }
        }
    }
    return coldest;
}

/* The pool of an item that takes another one's place: the same, unless it has grown so much that it must earn it anew. */
static enum store_pool pool_after(const struct store *store, uint64_t old, uint64_t old_bytes, uint64_t bytes)
{
    if (old_bytes * GROWN <= bytes)
        return POOL_SMALL;
    const uint8_t *pool = store_is_large(store, old) ? &store_large_at(store, store_page_of(store, old))->pool
                                                     : &store->segments[store_segment_of(store, old)].pool;
    return (enum store_pool)store_peek(pool);
}

/* Counts what a full chain has lost. Answers its bytes. */
static uint64_t note_eviction(struct store_worker *worker, uint64_t location)
{
    struct store_item item;
    store_count(&worker->counters.evictions, 1);
    store_count(&worker->counters.evictions_bucket, 1);
    return store_item_read(store_at(worker->store, location), &item);
}

/*
 * Publishes a written item in the place of found->slot's, or in a new slot. The bucket is locked, and is unlocked.
 * Answers false if there is no slot.
 */
static bool publish(struct store_worker *worker, struct draft *draft, struct store_found *found, bool replaces_live)
{
    struct store *store = worker->store;
    bool evicts = false;
    uint64_t freq = 0;
    uint64_t *to = found->slot;
    if (to == NULL && store_index_make_hole(store, found))
        to = found->hole;
    if (to == NULL && store->config.eviction == STORE_EVICT) {
        to = coldest_slot(store, found);
        evicts = true;
    }
    if (to == NULL)
        return false;
    enum store_pool pool = POOL_SMALL;
    if (replaces_live) {
        freq = (found->value & STORE_FREQ_MASK) / STORE_FREQ_ONE;
        freq = freq < 3 ? freq + 1 : 3;
        pool = pool_after(store, store_slot_location(found->value), found->bytes, draft->place.bytes);
    } else if (store->config.eviction == STORE_EVICT) {
        freq = store_hits_first(store, draft->place.bytes);
        if (store_ghost_take(store, draft->key->hash)) {
            pool = POOL_MAIN;
            store_count(&worker->counters.ghost_hits, 1);
        }
    }
    if (draft->need.large) {
        store_large_keep(store, draft->place.page, pool);
    } else {
        store_segment_keep(store, &worker->writer, &draft->place, draft->item.expiry);
        /* It is written to the small pool, whose end it leaves for main if it has hits enough. */
        unsigned needed = pool == POOL_SMALL ? 0 : store_hits_needed(store, draft->place.bytes);
        freq = freq < needed ? needed : freq;
    }
    /* Readers may raise what stands there meanwhile, but they never change where it points. */
    uint64_t old = store_slot_location(store_peek(to)), old_bytes = found->bytes;
    store_publish(to, (draft->key->hash & STORE_TAG_MASK) | freq * STORE_FREQ_ONE | (draft->seen ? STORE_SEEN : 0) |
                          draft->place.location);
    if (evicts)
        old_bytes = note_eviction(worker, old);
    store_index_unlock(found->home);
    if (old != 0)
        store_release(store, old, old_bytes);
    else
        store_index_note(worker, 1);
    store_count(&worker->counters.puts, 1);
    return true;
}

static enum store_result refuse(struct store_worker *worker)
{
    store_count(&worker->counters.refusals, 1);
    return STORE_NO_MEMORY;
}

/* ---- finding for a write ---- */

/* Looks a key up, its bucket being locked from here on. Answers whether there is a live item, and reads it. */
static inline bool find_live(struct store_worker *worker, const struct store_key *key, uint64_t flushed,
                             struct store_found *found, struct store_item *item, uint64_t *now)
{
    struct store *store = worker->store;
    store_index_find(store, key, found);
    if (found->slot == NULL)
        return false;
    uint64_t location = store_slot_location(found->value);
    found->bytes = store_item_read(store_at(store, location), item);
    if (flushed_away(store, flushed, location))
        return false;
    if (item->expiry == STORE_NEVER)
        return true;
    *now = store_now(store);
    return item->expiry > *now;
}

/* Takes the item out that was found, and unlocks the bucket. */
static void take_out(struct store_worker *worker, const struct store_found *found)
{
    struct store *store = worker->store;
    uint64_t location = store_slot_location(found->value), bytes = found->bytes;
    store_publish(found->slot, (uint64_t)0);
    store_index_unlock(found->home);
    store_release(store, location, bytes);
    store_index_note(worker, -1);
}

/* Unlocks a bucket in which there is no live item; what is left of a dead one goes. */
static void clean_up(struct store_worker *worker, const struct store_found *found, uint64_t flushed)
{
    if (found->slot == NULL) {
        store_index_unlock(found->home);
        return;
    }
    bool expired = !flushed_away(worker->store, flushed, store_slot_location(found->value));
    take_out(worker, found);
    store_count(&worker->counters.expirations, expired);
}

/* The version of a live item, which from now on is known to somebody. The bucket is locked. */
static uint64_t show_version(const struct store *store, const struct store_found *found,
                             const struct store_item *item)
{
    if (item->version != 0)
        return item->version;
    __atomic_fetch_or(found->slot, STORE_SEEN, __ATOMIC_ACQ_REL);
    return store_version_of(store, store_slot_location(found->value));
}

/* ---- reading ---- */

/* Raises the frequency and marks the version as seen. Answers false if the slot has changed altogether. */
static bool mark(uint64_t *slot, uint64_t value, bool seen)
{
    for (;;) {
        uint64_t next = value | (seen ? STORE_SEEN : 0);
        if ((value & STORE_FREQ_MASK) != STORE_FREQ_MASK)
            next += STORE_FREQ_ONE;
        if (next == value)
            return true;
        uint64_t was = value;
        if (__atomic_compare_exchange_n(slot, &was, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return true;
        if (!seen)
            return true; /* A hint lost. */
        if (store_slot_location(was) != store_slot_location(value))
            return false;
        value = was;
    }
}

/* A reader has come upon an expired item: it goes. Answers false if somebody was quicker and there is a live one now. */
static bool expire_found(struct store_worker *worker, const struct store_key *key)
{
    struct store_found found;
    struct store_item item;
    uint64_t now = 0, flushed = store_load(&worker->store->flushed);
    if (find_live(worker, key, flushed, &found, &item, &now)) {
        store_index_unlock(found.home);
        return false;
    }
    clean_up(worker, &found, flushed);
    return true;
}

static enum store_result get(struct store_worker *worker, const struct store_key *key, bool versioned,
                             struct store_view *view)
{
    struct store *store = store_enter(worker);
    for (;;) {
        /* Before the slot: a flush that ends in between sets it back to 0, and the slot would seem to outlive it. */
        uint64_t flushed = store_load(&store->flushed);
        uint64_t *slot, now = 0;
        uint64_t value = store_index_get(store, key, &slot);
        if (value == 0)
            break;
        uint64_t location = store_slot_location(value);
        if (flushed_away(store, flushed, location)) {
            if (store_load(&store->flushed) == flushed)
                break;
            continue; /* That flush is over, and this may have been published since. */
        }
        struct store_item item;
        store_item_read(store_at(store, location), &item);
        if (item.expiry != STORE_NEVER && item.expiry <= (now = store_now(store))) {
            if (expire_found(worker, key))
                break;
            continue;
        }
        if (!mark(slot, value, versioned && item.version == 0))
            continue;
        uint64_t version = !versioned          ? 0
                           : item.version != 0 ? item.version
                                               : store_version_of(store, location);
        fill_view(worker, location, &item, now, version, view);
        store_count(&worker->counters.hits, 1);
        return STORE_OK;
    }
    store_count(&worker->counters.misses, 1);
    return STORE_ABSENT;
}

enum store_result store_get(struct store_worker *worker, const struct store_key *key,
                            struct store_view *view)
{
    return get(worker, key, true, view);
}

enum store_result store_get_value(struct store_worker *worker, const struct store_key *key,
                                  struct store_view *view)
{
    return get(worker, key, false, view);
}

/* ---- a new time to live ---- */

/* Changes the expiry of a live item in place, if it has room for one or needs none. The bucket is locked. */
static bool set_expiry(struct store *store, const struct store_found *found, struct store_item *item,
                       uint64_t expiry)
{
    uint64_t location = store_slot_location(found->value);
    if (!store_item_set_expiry(store_at(store, location), expiry))
        return false;
    if (!item->has_expiry)
        return true;
    item->expiry = expiry;
    if (store_is_large(store, location))
        return true;
    /* Who sweeps resets min_expiry, then reads the field: either it sees the new one, or we see the reset. */
    struct store_segment *segment = &store->segments[store_segment_of(store, location)];
    if (expiry != STORE_NEVER)
        store_min(&segment->min_expiry, expiry);
    store_segment_expires(segment, expiry);
    return true;
}

/* Tries to change an expiry; `draft` has a place for a copy unless its need.bytes is 0. */
static enum store_result try_expire(struct store_worker *worker, struct draft *draft, uint64_t ttl_ms,
                                    struct store_view *view)
{
    struct store *store = worker->store;
    struct store_found found;
    struct store_item item;
    uint64_t now = store_now(store), unused = 0;
    if (!find_live(worker, draft->key, draft->flushed, &found, &item, &unused)) {
        clean_up(worker, &found, draft->flushed);
        return STORE_ABSENT;
    }
    uint64_t flushed = store_load(&store->flushed);
    if (flushed != draft->flushed) {
        store_index_unlock(found.home);
        draft->flushed = flushed;
        return STORE_NO_MEMORY;
    }
    uint64_t expiry = expiry_after(store, now, ttl_ms), location = store_slot_location(found.value);
    bool done = set_expiry(store, &found, &item, expiry);
    uint64_t need = store_item_bytes(&item) + 4 + 8 + 8 + 7; /* Wide, with an expiry and a version. */
    if (!done && draft->need.bytes < need) {
        store_index_unlock(found.home);
        draft->need = (struct store_need){.bytes = need, .class = store_class_of(store, expiry, now), .urgent = true};
        return STORE_NO_MEMORY; /* Come again with more. */
    }
    if (done) {
        (void)mark(found.slot, found.value, false);
        if (view != NULL)
            fill_view(worker, location, &item, now, show_version(store, &found, &item), view);
        store_index_unlock(found.home);
        return STORE_OK;
    }
    draft->item = item;
    draft->item.has_expiry = true;
    draft->item.expiry = expiry;
    draft->seen = true;
    draft->item.version = show_version(store, &found, &item);
    draft->shape = store_item_shape(&draft->item);
    write_out(worker, draft);
    struct store_place place = draft->place;
    assert(place.at != NULL);
    store_item_read(place.at, &item);
    if (view != NULL)
        fill_view(worker, place.location, &item, now, item.version, view);
    (void)publish(worker, draft, &found, true);
    store_count(&worker->counters.puts, (uint64_t)-1); /* Nothing was put. */
    return STORE_OK;
}

static enum store_result expire(struct store_worker *worker, const struct store_key *key, uint64_t ttl_ms,
                                struct store_view *view)
{
    struct store *store = store_enter(worker);
    struct draft draft = {.key = key, .flushed = store_load(&store->flushed)};
    for (;;) {
        enum store_result result = try_expire(worker, &draft, ttl_ms, view);
        if (result != STORE_NO_MEMORY)
            return result;
        if (!begin(worker, &draft))
            return refuse(worker);
    }
}

enum store_result store_touch(struct store_worker *worker, const struct store_key *key,
                              uint64_t ttl_ms, struct store_view *view)
{
    enum store_result result = expire(worker, key, ttl_ms, view);
    store_count(&worker->counters.hits, result == STORE_OK);
    store_count(&worker->counters.misses, result == STORE_ABSENT);
    return result;
}

enum store_result store_expire(struct store_worker *worker, const struct store_key *key,
                               uint64_t ttl_ms)
{
    return expire(worker, key, ttl_ms, NULL);
}

/* ---- put, delete ---- */

size_t store_max_value(const struct store *store, size_t key_len)
{
    return store->largest - key_len;
}

/* STORE_REFUSE: may this be written, given what it replaces? */
static bool admit(struct store_worker *worker, const struct draft *draft)
{
    struct store *store = worker->store;
    if (store->config.eviction == STORE_EVICT)
        return true;
    uint64_t *slot, old_bytes = 0;
    uint64_t value = store_index_get(store, draft->key, &slot);
    if (value != 0 && !flushed_away(store, store_load(&store->flushed), store_slot_location(value))) {
        struct store_item item;
        old_bytes = store_item_read(store_at(store, store_slot_location(value)), &item) + ITEM_MOST_EXTRA;
    }
    return draft->need.bytes <= old_bytes || store_admit(worker, draft->need.bytes);
}

/* STORE_OK if the condition holds. */
static enum store_result check(const struct store *store, const struct store_put_args *args,
                               const struct store_found *found, const struct store_item *old, bool live,
                               uint64_t *version)
{
    enum store_result result = STORE_OK;
    if (args->condition == STORE_IF_ABSENT && live)
        result = STORE_EXISTS;
    else if ((args->condition == STORE_IF_PRESENT || args->condition == STORE_IF_VERSION) && !live)
        result = STORE_ABSENT;
    else if (args->condition == STORE_IF_VERSION && show_version(store, found, old) != args->version)
        result = STORE_EXISTS;
    if (result == STORE_EXISTS && version != NULL)
        *version = show_version(store, found, old);
    return result;
}

/* There is no room: but perhaps the condition does not hold anyhow. */
static enum store_result put_without_room(struct store_worker *worker, const struct store_key *key,
                                          const struct store_put_args *args, uint64_t *version)
{
    struct store *store = worker->store;
    struct store_found found;
    struct store_item old;
    uint64_t now = 0;
    bool live = find_live(worker, key, store_load(&store->flushed), &found, &old, &now);
    enum store_result result = check(store, args, &found, &old, live, version);
    store_index_unlock(found.home);
    return result != STORE_OK ? result : refuse(worker);
}

/* A place with the item in it: taken and written now, or taken beforehand and its value written since. */
static inline bool prepare(struct store_worker *worker, struct draft *draft, bool placed)
{
    if (!placed) {
        if (!admit(worker, draft) || !begin(worker, draft))
            return false;
    } else {
        draft->flushed = store_load(&worker->store->flushed);
        store_large_renew(worker->store, draft->place.page);
    }
    write_out(worker, draft);
    return true;
}

enum store_result store_put_placed(struct store_worker *worker, const struct store_key *key,
                                   const struct store_put_args *args, const struct store_place *place,
                                   uint64_t *version)
{
    struct store *store = store_enter(worker);
    struct draft draft = {.key = key, .seen = version != NULL && !args->version_unwanted};
    draft.item = (struct store_item){.key = key->data,
                                     .key_len = key->len,
                                     .value = args->value,
                                     .value_len = (uint32_t)args->value_len,
                                     .expiry = STORE_NEVER,
                                     .app_flags = args->app_flags};
    uint64_t now = 0;
    if (args->ttl_ms != STORE_NEVER) {
        now = store_now(store);
        draft.item.expiry = expiry_after(store, now, args->ttl_ms);
        draft.item.has_expiry = draft.item.expiry != STORE_NEVER;
    }
    draft.shape = store_item_shape(&draft.item);
    plan(store, &draft, draft.shape.bytes, draft.item.expiry, now);
    if (draft.need.large)
        draft.shape = store_item_shape(&draft.item);
    if (place != NULL)
        draft.place = *place;
    for (;;) {
        struct store_found found;
        struct store_item old;
        if (!prepare(worker, &draft, place != NULL))
            return put_without_room(worker, key, args, version);
        bool live = find_live(worker, key, draft.flushed, &found, &old, &now);
        enum store_result result = check(store, args, &found, &old, live, version);
        bool again = store_load(&store->flushed) != draft.flushed;
        uint64_t new_version = store_version_of(store, draft.place.location);
        if (!live && result == STORE_OK && !again && found.slot != NULL &&
            !flushed_away(store, draft.flushed, store_slot_location(found.value)))
            store_count(&worker->counters.expirations, 1);
        if (result == STORE_OK && !again && publish(worker, &draft, &found, live)) {
            if (version != NULL)
                *version = new_version;
            return STORE_OK;
        }
        store_index_unlock(found.home);
        if (place == NULL || !again)
            abandon(store, &draft);
        if (!again)
            return result == STORE_OK ? refuse(worker) : result;
    }
}

enum store_result store_put(struct store_worker *worker, const struct store_key *key,
                            const struct store_put_args *args, uint64_t *version)
{
    if (args->value_len > store_max_value(worker->store, key->len))
        return STORE_TOO_LARGE;
    return store_put_placed(worker, key, args, NULL, version);
}

enum store_result store_delete(struct store_worker *worker, const struct store_key *key)
{
    struct store *store = store_enter(worker);
    struct store_found found;
    struct store_item item;
    uint64_t now = 0, flushed = store_load(&store->flushed);
    if (!find_live(worker, key, flushed, &found, &item, &now)) {
        clean_up(worker, &found, flushed);
        return STORE_ABSENT;
    }
    take_out(worker, &found);
    store_count(&worker->counters.deletes, 1);
    return STORE_OK;
}

/* ---- numbers ---- */

/* What comes of the number that was found; the bucket is locked. */
static enum store_result add(const struct store_incr_args *args, const struct store_item *old, bool live,
                             int64_t *sum)
{
    if (!live) {
        *sum = args->initial;
        return args->has_initial ? STORE_OK : STORE_ABSENT;
    }
    if (!store_number_parse(old->value, old->value_len, sum))
        return STORE_NOT_A_NUMBER;
    /* These builtins work as if in unbounded integers, whatever the types: the delta is exact. */
    bool overflow = args->negative ? __builtin_sub_overflow(*sum, args->delta, sum)
                                   : __builtin_add_overflow(*sum, args->delta, sum);
    return overflow ? STORE_OVERFLOW : STORE_OK;
}

enum store_result store_incr(struct store_worker *worker, const struct store_key *key,
                             const struct store_incr_args *args, int64_t *number)
{
    struct store *store = store_enter(worker);
    for (;;) {
        struct draft draft = {.key = key};
        struct store_found found;
        struct store_item old = {.expiry = STORE_NEVER};
        uint64_t now = 0;
        plan(store, &draft, ITEM_MOST_EXTRA + key->len + STORE_NUMBER_MAX_LEN, STORE_NEVER, 0);
        bool room = admit(worker, &draft) && begin(worker, &draft);
        uint64_t flushed = room ? draft.flushed : store_load(&store->flushed);
        bool live = find_live(worker, key, flushed, &found, &old, &now);
        int64_t sum;
        enum store_result result = add(args, &old, live, &sum);
        uint8_t text[STORE_NUMBER_MAX_LEN];
        bool again = store_load(&store->flushed) != flushed;
        if (result == STORE_OK && room && !again) {
            uint64_t expiry = live ? old.expiry : STORE_NEVER;
            if (!live && args->ttl_ms != STORE_NEVER)
                expiry = expiry_after(store, store_now(store), args->ttl_ms);
            draft.item = (struct store_item){.key = key->data,
                                             .key_len = key->len,
                                             .value = text,
                                             .value_len = (uint32_t)store_number_format(sum, text),
                                             .expiry = expiry,
                                             .has_expiry = draft.need.large || expiry != STORE_NEVER,
                                             .must_be_wide = draft.need.large,
                                             .app_flags = live ? old.app_flags : 0};
            draft.shape = store_item_shape(&draft.item);
            write_out(worker, &draft);
            if (publish(worker, &draft, &found, live)) {
                *number = sum;
                return STORE_OK;
            }
        }
        store_index_unlock(found.home);
        if (room)
            abandon(store, &draft);
        if (!again)
            return result == STORE_OK ? refuse(worker) : result;
    }
}
