/* SPDX-License-Identifier: MIT */
/*
 * The index: from a key to its item. Linear hashing over buckets of one cache line; the picture stands in
 * store_impl.h.
 *
 * Readers take no lock. What they find is right by itself: the key's bytes are compared, and the slot named the
 * item when it was read. That they find nothing is believed only if no slot of the bucket can have moved meanwhile:
 * a slot is written to its new place, then the move is made known (bucket_count grows, or the home bucket's sequence
 * does), then the old slot is emptied. Who saw it empty sees the rest, too.
 *
 * Invariants: a key is in one slot at most, in the chain of the home bucket that its hash and bucket_count give;
 * all slots change under that bucket's lock, but for the frequency and `seen`, which readers raise; overflow
 * buckets stay overflow buckets for ever, so that a reader who lost its way reads slots all the same.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <sched.h>
#include <unistd.h>

#include "server/store/store_impl.h"

#define ITEMS_PER_BUCKET_X16 90U            /* The index grows from 5.6 items per bucket on. */
#define CHARGE_BYTES         ((uint64_t)65536) /* The index is charged in steps of this. */
#define CHARGE_BUCKETS       (CHARGE_BYTES / sizeof(struct store_bucket))
#define NOTE_EVERY           16             /* Changes of a worker's before it tells. */
#define SPLITS_AT_ONCE       8U
#define CHAIN_SLOTS          (STORE_SLOTS * (1 + STORE_CHAIN_MAX))

uint64_t store_hash(const struct store *store, const uint8_t *key, size_t len)
{
    return XXH3_64bits_withSecret(key, len, store->secret, sizeof(store->secret));
}

struct store_key store_key(const struct store *store, const uint8_t *data, size_t len)
{
    assert(len >= 1 && len <= STORE_MAX_KEY);
    return (struct store_key){.data = data, .len = (uint32_t)len, .hash = store_hash(store, data, len)};
}

static uint64_t home_index(uint64_t hash, uint64_t count)
{
    uint64_t mask = ~(uint64_t)0 >> __builtin_clzll(count);
    uint64_t at = hash & mask;
    return at < count ? at : at & mask >> 1;
}

static struct store_bucket *home_of(const struct store *store, uint64_t hash)
{
    return &store->buckets[home_index(hash, store_load(&store->bucket_count))];
}

/* ---- reading ---- */

void store_prefetch_index(const struct store *store, uint64_t hash)
{
    __builtin_prefetch(home_of(store, hash));
}

/*
 * Which slots of a bucket have a hash's tag, as bits. Not one branch for each slot: which it is nobody can predict.
 * Empty slots may be among them. Who saw a slot empty must see why: so these loads acquire.
 */
static inline unsigned slots_tagged(const struct store_bucket *bucket, uint64_t hash)
{
    unsigned tagged = 0;
#pragma GCC unroll 7 /* STORE_SLOTS */
    for (unsigned i = 0; i < STORE_SLOTS; i++)
        tagged |= (unsigned)(((store_load(&bucket->slot[i]) ^ hash) & STORE_TAG_MASK) == 0) << i;
    return tagged;
}

void store_locate(const struct store *store, uint64_t hash, struct store_hint *hint)
{
    const struct store_bucket *bucket = home_of(store, hash);
    const struct store_bucket *overflow = store_overflow_of(store, store_peek(&bucket->control));
    bool again = hint->overflow;
    *hint = (struct store_hint){.item = NULL};
    if (again)
        bucket = overflow;
    unsigned tagged = bucket == NULL ? 0 : slots_tagged(bucket, hash);
    if (tagged != 0) {
        uint64_t slot = store_peek(&bucket->slot[__builtin_ctz(tagged)]);
        hint->item = slot == 0 ? NULL : store_at(store, store_slot_location(slot));
    } else if (!again && overflow != NULL) {
        __builtin_prefetch(overflow);
        hint->overflow = true;
    }
}

uint64_t store_index_get(const struct store *store, const struct store_key *key, uint64_t **slot)
{
    for (;;) {
        struct store_bucket *home = home_of(store, key->hash);
        uint64_t control = store_load(&home->control);
        struct store_bucket *bucket = home;
        uint64_t link = control;
        for (unsigned chain = 0; chain <= STORE_CHAIN_MAX; chain++) {
            for (unsigned tagged = slots_tagged(bucket, key->hash); tagged != 0; tagged &= tagged - 1) {
                unsigned i = (unsigned)__builtin_ctz(tagged);
                uint64_t value = store_load(&bucket->slot[i]);
                if (((value ^ key->hash) & STORE_TAG_MASK) != 0 || value == 0)
                    continue;
                if (store_item_has_key(store_at(store, store_slot_location(value)), key->data, key->len)) {
                    *slot = &bucket->slot[i];
                    return value;
                }
            }
            bucket = store_overflow_of(store, link);
            if (bucket == NULL)
                break;
            link = store_load(&bucket->control);
        }
        if (home == home_of(store, key->hash) &&
            ((control ^ store_load(&home->control)) & STORE_SEQUENCE_MASK) == 0)
            return 0;
    }
}

/* ---- locks ---- */

/* Locks are held for less than a microsecond, unless who holds one was preempted: then it needs the processor. */
static void await_holder(unsigned spins)
{
    if (spins % 1024 == 0)
        usleep(50);
    else if (spins % 64 == 0)
        sched_yield();
    else
        store_pause();
}

static inline bool try_lock(struct store_bucket *bucket)
{
    uint64_t control = store_peek(&bucket->control);
    return (control & STORE_LOCK) == 0 &&
           __atomic_compare_exchange_n(&bucket->control, &control, control | STORE_LOCK, false,
                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void lock_bucket(struct store_bucket *bucket)
{
    for (unsigned spins = 1; __builtin_expect(!try_lock(bucket), 0); spins++) {
        await_holder(spins);
    }
}

struct store_bucket *store_index_lock(struct store *store, uint64_t hash)
{
    for (;;) {
        struct store_bucket *home = home_of(store, hash);
        lock_bucket(home);
        if (home == home_of(store, hash))
            return home;
        store_index_unlock(home);
    }
}

void store_index_unlock(struct store_bucket *home)
{
    store_publish(&home->control, store_peek(&home->control) & ~STORE_LOCK);
}

/* The lock being held: readers who are under way look again. */
static void bump_sequence(struct store_bucket *home)
{
    uint64_t control = store_peek(&home->control);
    uint64_t next = (control + STORE_SEQUENCE_ONE) & STORE_SEQUENCE_MASK;
    store_publish(&home->control, (control & ~STORE_SEQUENCE_MASK) | next);
}

static void set_link(struct store_bucket *bucket, uint64_t link)
{
    uint64_t control = store_peek(&bucket->control);
    store_publish(&bucket->control, (control & UINT32_MAX) | link << 32);
}

/* ---- finding, the lock being held ---- */

void store_index_find(struct store *store, const struct store_key *key, struct store_found *found)
{
    struct store_bucket *bucket = store_index_lock(store, key->hash);
    *found = (struct store_found){.home = bucket};
    for (;;) {
        found->last = bucket;
        for (unsigned tagged = slots_tagged(bucket, key->hash); tagged != 0; tagged &= tagged - 1) {
            uint64_t *slot = &bucket->slot[__builtin_ctz(tagged)];
            uint64_t value = store_load(slot);
            if (value != 0 && store_item_has_key(store_at(store, store_slot_location(value)), key->data, key->len)) {
                found->slot = slot;
                found->value = value;
                return;
            }
        }
        for (unsigned i = 0; i < STORE_SLOTS && found->hole == NULL; i++)
            found->hole = store_peek(&bucket->slot[i]) == 0 ? &bucket->slot[i] : NULL;
        bucket = store_overflow_of(store, store_peek(&bucket->control));
        if (bucket == NULL)
            return;
        found->chain++;
    }
}

uint64_t *store_index_slot_of(const struct store *store, struct store_bucket *home, uint64_t location)
{
    for (struct store_bucket *bucket = home; bucket != NULL;
         bucket = store_overflow_of(store, store_peek(&bucket->control))) {
        for (unsigned i = 0; i < STORE_SLOTS; i++) {
            if (store_slot_location(store_load(&bucket->slot[i])) == location)
                return &bucket->slot[i];
        }
    }
    return NULL;
}

/* ---- overflow buckets ---- */

static void lock_word(uint32_t *word)
{
    for (unsigned spins = 1; __atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE) != 0; spins++) {
        await_holder(spins);
    }
}

/* An empty overflow bucket's link, or 0. */
static uint32_t take_overflow(struct store *store)
{
    uint32_t link = 0;
    lock_word(&store->overflow_lock);
    if (store->overflow_free != 0) {
        link = store->overflow_free;
        store->overflow_free = (uint32_t)(store_peek(&store->overflow[link - 1].control) >> 32);
        store_publish(&store->overflow[link - 1].control, 0);
    } else if (store->overflow_count < store->overflow_max) {
        if (store->overflow_count < store->overflow_charged ||
            store_budget_take(store, CHARGE_BYTES, store->reserve)) {
            if (store->overflow_count == store->overflow_charged) {
                store_poke(&store->overflow_charged, store->overflow_charged + CHARGE_BUCKETS);
                store_ahead_tell(store);
            }
            link = (uint32_t)++store->overflow_count;
        }
    }
    store_publish(&store->overflow_lock, 0);
    return link;
}

static void give_overflow(struct store *store, uint32_t link)
{
    lock_word(&store->overflow_lock);
    store_publish(&store->overflow[link - 1].control, (uint64_t)store->overflow_free << 32);
    store->overflow_free = link;
    store_publish(&store->overflow_lock, 0);
}

bool store_index_make_hole(struct store *store, struct store_found *found)
{
    if (found->hole != NULL)
        return true;
    uint32_t link = found->chain < STORE_CHAIN_MAX ? take_overflow(store) : 0;
    if (link == 0)
        return false;
    struct store_bucket *bucket = &store->overflow[link - 1];
    set_link(found->last, link);
    found->last = bucket;
    found->hole = &bucket->slot[0];
    found->chain++;
    return true;
}

/* ---- growth ---- */

/* What readers added to a slot before it was emptied goes to its copy. Both buckets are locked. */
static void empty_moved(uint64_t *from, uint64_t *to, uint64_t copied)
{
    uint64_t last = __atomic_exchange_n(from, 0, __ATOMIC_ACQ_REL);
    if (((last ^ copied) & STORE_SEEN) != 0)
        __atomic_fetch_or(to, STORE_SEEN, __ATOMIC_ACQ_REL);
}

/* Fills the holes of a locked chain from its end, and gives up the overflow buckets that become empty. */
static void repack(struct store *store, struct store_bucket *home)
{
    struct store_bucket *chain[1 + STORE_CHAIN_MAX] = {home};
    uint32_t link[1 + STORE_CHAIN_MAX];
    unsigned count = 0;
    for (struct store_bucket *b = home; b != NULL && count <= STORE_CHAIN_MAX;) {
        uint32_t next = (uint32_t)(store_peek(&b->control) >> 32);
        chain[count] = b;
        link[count++] = next;
        b = next == 0 ? NULL : &store->overflow[next - 1];
    }
    unsigned low = 0, high = count * STORE_SLOTS;
    while (low < high) {
        uint64_t *to = &chain[low / STORE_SLOTS]->slot[low % STORE_SLOTS];
        uint64_t *from = &chain[(high - 1) / STORE_SLOTS]->slot[(high - 1) % STORE_SLOTS];
        uint64_t value = store_peek(from);
        if (value == 0) {
            high--;
        } else if (store_peek(to) != 0) {
            low++;
        } else {
            store_publish(to, value);
            bump_sequence(home);
            empty_moved(from, to, value);
        }
    }
    unsigned keep = high == 0 ? 1 : (high - 1) / STORE_SLOTS + 1;
    if (keep >= count)
        return;
    bump_sequence(home);
    set_link(chain[keep - 1], 0);
    for (unsigned i = keep; i < count; i++)
        give_overflow(store, link[i - 1]);
}

/* Those of a locked chain's slots that belong to the new bucket. */
static unsigned choose_movers(const struct store *store, struct store_bucket *home, uint64_t bit,
                              uint64_t *from[CHAIN_SLOTS])
{
    uint64_t *slots[CHAIN_SLOTS];
    unsigned count = 0, movers = 0;
    for (struct store_bucket *b = home; b != NULL; b = store_overflow_of(store, store_peek(&b->control))) {
        for (unsigned i = 0; i < STORE_SLOTS && count < CHAIN_SLOTS; i++) {
            uint64_t value = store_peek(&b->slot[i]);
            if (value != 0) {
                __builtin_prefetch(store_at(store, store_slot_location(value)));
                slots[count++] = &b->slot[i];
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *item = store_at(store, store_slot_location(store_load(slots[i])));
        uint32_t key_len, value_len;
        store_item_lengths(item, &key_len, &value_len);
        if ((store_hash(store, item + store_item_head_bytes(store_item_flags_at(item)), key_len) & bit) != 0)
            from[movers++] = slots[i];
    }
    return movers;
}

/* Copies slots to a new, locked chain. */
static bool copy_movers(struct store *store, struct store_bucket *fresh, unsigned movers,
                        uint64_t *const from[CHAIN_SLOTS], uint64_t *to[CHAIN_SLOTS], uint64_t copied[CHAIN_SLOTS])
{
    struct store_found found = {.home = fresh, .last = fresh};
    for (unsigned i = 0; i < movers; i++) {
        found.hole = i < STORE_SLOTS ? &fresh->slot[i]
                     : i % STORE_SLOTS != 0 ? &found.last->slot[i % STORE_SLOTS] : NULL;
        if (!store_index_make_hole(store, &found))
            return false;
        to[i] = found.hole;
        copied[i] = store_load(from[i]);
        store_publish(to[i], copied[i]);
    }
    return true;
}

/* Empties a chain that nobody has seen. */
static void undo_chain(struct store *store, struct store_bucket *fresh)
{
    for (struct store_bucket *b = fresh; b != NULL; b = store_overflow_of(store, store_peek(&b->control))) {
        for (unsigned i = 0; i < STORE_SLOTS; i++)
            store_publish(&b->slot[i], 0);
    }
    repack(store, fresh);
}

/* Splits one bucket. Under split_lock. */
static bool split(struct store *store)
{
    uint64_t count = store->bucket_count;
    if (count == store->bucket_max)
        return false;
    if (count == store->bucket_charged) {
        if (!store_budget_take(store, CHARGE_BYTES, store->reserve / 2))
            return false;
        store_poke(&store->bucket_charged, count + CHARGE_BUCKETS);
        store_ahead_tell(store);
    }
    uint64_t bit = (uint64_t)1 << (63 - __builtin_clzll(count));
    struct store_bucket *home = &store->buckets[count - bit], *fresh = &store->buckets[count];
    uint64_t *from[CHAIN_SLOTS] = {NULL}, *to[CHAIN_SLOTS], copied[CHAIN_SLOTS];
    lock_bucket(home);
    lock_bucket(fresh);
    unsigned movers = choose_movers(store, home, bit, from);
    bool done = copy_movers(store, fresh, movers, from, to, copied);
    if (done) {
        __atomic_store_n(&store->bucket_count, count + 1, __ATOMIC_RELEASE);
        for (unsigned i = 0; i < movers; i++)
            empty_moved(from[i], to[i], copied[i]);
        if (movers != 0 && (store_peek(&home->control) >> 32) != 0)
            repack(store, home);
    } else {
        undo_chain(store, fresh);
    }
    store_index_unlock(fresh);
    store_index_unlock(home);
    return done;
}

void store_index_note(struct store_worker *worker, int change)
{
    struct store *store = worker->store;
    worker->index_delta += change;
    if (worker->index_delta > -NOTE_EVERY && worker->index_delta < NOTE_EVERY)
        return;
    int64_t items = __atomic_add_fetch(&store->index_items, worker->index_delta, __ATOMIC_RELAXED);
    worker->index_delta = 0;
    if (items <= 0 || (uint64_t)items * 16 <= store_peek(&store->bucket_count) * ITEMS_PER_BUCKET_X16 ||
        __atomic_exchange_n(&store->split_lock, 1, __ATOMIC_ACQUIRE) != 0)
        return;
    for (unsigned i = 0; i < SPLITS_AT_ONCE; i++) {
        if ((uint64_t)items * 16 <= store->bucket_count * ITEMS_PER_BUCKET_X16 || !split(store))
            break;
    }
    store_publish(&store->split_lock, 0);
}
