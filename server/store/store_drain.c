/* SPDX-License-Identifier: MIT */
/*
 * Draining: what becomes of the items of a segment, a slice at a time. Called by the maintainer (store_room.c).
 *
 * A slice first reads its items and prefetches their buckets, then decides about one after the other, each under its
 * bucket's lock: an item is live if its bucket has a slot that names it. What moves is copied first, then the slot is
 * exchanged; so readers find it all the time. Readers may raise a slot's frequency or mark it as seen meanwhile: then
 * the exchange fails, and is done again.
 *
 * Invariants: an item whose version was seen keeps it, by a field; a drained segment is retired when no slot names
 * any of its items.
 */
#include <sched.h>

#include "server/store/store_append.h"
#include "server/store/store_drain.h"

#define SWEEP_INTERVAL_MS 1000U
#define LARGE_AT_ONCE     64U
#define DEAD_AT_ONCE      16U /* Dead items are passed over so much faster. */

struct entry {
    uint8_t *at;
    uint64_t location;
    uint64_t hash;
};

enum fate { FATE_KEEP, FATE_DROP, FATE_MOVE };

/* Where what has earned it goes from the old end of a pool. */
static enum store_pool next_pool(enum store_pool pool)
{
    return pool == POOL_SMALL ? POOL_MAIN : POOL_KEPT;
}

/* Does an item at the old end of its pool stay? Then these are the hits that it has left. */
static bool deserves(const struct store *store, enum store_pool pool, uint64_t slot, uint64_t bytes, uint64_t *freq)
{
    uint64_t had = (slot & STORE_FREQ_MASK) / STORE_FREQ_ONE;
    if (had < store_hits_needed(store, bytes))
        return false;
    *freq = pool == POOL_SMALL ? 0 : had - 1;
    return true;
}

/* A class of a writer whose open segment has room; STORE_CLASSES if none has. */
static unsigned any_class(const struct store *store, const struct store_writer *writer, uint64_t bytes)
{
    unsigned class = 0;
    while (class < STORE_CLASSES && !store_segment_has_room(store, writer, class, bytes))
        class++;
    return class;
}

/* A mover and a class of it that have room for an item; NULL: there is no segment to write to. */
static struct store_writer *mover_for(struct store_worker *worker, enum store_pool pool, uint64_t bytes, unsigned *class)
{
    struct store *store = worker->store;
    struct store_writer *mover = &store->mover[pool];
    if (store_segment_room(store, mover, *class, bytes, 0))
        return mover;
    /* No segment is left for this class: better among others than not at all, or the job could never end. */
    for (unsigned i = 0; i < POOL_COUNT; i++) {
        mover = &store->mover[(pool + i) % POOL_COUNT];
        *class = any_class(store, mover, bytes);
        if (*class < STORE_CLASSES)
            return mover;
    }
    *class = any_class(store, &worker->writer, bytes);
    return *class < STORE_CLASSES ? &worker->writer : NULL;
}

/* Copies an item to a pool's end and exchanges its slot. Answers false if there is no segment to write to. */
static bool move_item(struct store_worker *worker, uint64_t *slot, uint64_t value, enum store_job_kind kind,
                      const struct entry *entry)
{
    struct store *store = worker->store;
    enum store_pool from = (enum store_pool)store->segments[store_segment_of(store, entry->location)].pool;
    struct store_item item;
    struct store_place place;
    uint64_t next;
    store_item_read(entry->at, &item);
    item.has_expiry = item.expiry != STORE_NEVER; /* It may have had one. */
    unsigned class = item.has_expiry ? store_class_of(store, item.expiry, store_now(store)) : 0;
    uint64_t bytes = store_item_bytes(&item);
    struct store_shape shape;
    struct store_writer *mover =
        mover_for(worker, kind == JOB_COMPACT ? from : next_pool(from), bytes + 8 + 7, &class);
    if (mover == NULL)
        return false;
    do {
        uint64_t freq = (value & STORE_FREQ_MASK) / STORE_FREQ_ONE;
        if (kind == JOB_EVICT)
            (void)deserves(store, from, value, bytes, &freq);
        if ((value & STORE_SEEN) != 0 && item.version == 0)
            item.version = store_version_of(store, entry->location);
        shape = store_item_shape(&item);
        store_segment_place(store, mover, class, &shape, &place);
        store_item_write(place.at, &item, shape.flags);
        next = (value & (STORE_TAG_MASK | STORE_SEEN)) | freq * STORE_FREQ_ONE | place.location;
    } while (!__atomic_compare_exchange_n(slot, &value, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    store_segment_keep(store, mover, &place, item.expiry);
    store_count(&worker->counters.moved_bytes, place.bytes);
    __atomic_fetch_sub(&store->copy_tokens, (int64_t)place.bytes, __ATOMIC_RELAXED);
    return true;
}

static bool is_gone(const struct store *store, uint64_t location)
{
    uint64_t flushed = store_load(&store->flushed);
    return flushed != 0 && store_seq_of(store, location) < flushed;
}

static void count_eviction(struct store_worker *worker, enum store_pool pool, uint64_t hash)
{
    store_count(&worker->counters.evictions, 1);
    if (pool == POOL_SMALL) {
        store_count(&worker->counters.evictions_small, 1);
        store_ghost_add(worker->store, hash);
    } else {
        store_count(&worker->counters.evictions_main, 1);
    }
}

/* The fate of a live item. */
static enum fate judge(const struct store *store, enum store_job_kind kind, enum store_pool pool, uint64_t slot,
                       uint64_t bytes)
{
    uint64_t freq;
    if (kind == JOB_COMPACT)
        return FATE_MOVE;
    if (kind != JOB_EVICT)
        return FATE_KEEP;
    return !store->hurry && store_peek(&store->copy_tokens) > 0 && deserves(store, pool, slot, bytes, &freq) ? FATE_MOVE : FATE_DROP;
}

/* What jobs do with an item that stays where it is. Its bucket is locked. */
static void note_kept(struct store *store, struct store_job *job, uint64_t *slot, const struct store_item *item,
                      uint64_t bytes)
{
    uint64_t value = store_load(slot);
    bool hit = (value & STORE_FREQ_MASK) != 0;
    if (job->kind == JOB_WEIGH && hit)
        job->hit += (uint32_t)bytes;
    if (job->kind == JOB_RELINK && hit)
        (void)__atomic_compare_exchange_n(slot, &value, value - STORE_FREQ_ONE, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    /* A sweep that was cut short by the job has reset min_expiry. */
    if (job->kind != JOB_WEIGH && item->has_expiry)
        store_min(&store->segments[job->segment].min_expiry, item->expiry);
}

/* Decides about one item. Answers false if it would have to move and can't. */
static bool settle(struct store_worker *worker, struct store_job *job, const struct entry *entry)
{
    struct store *store = worker->store;
    enum store_pool pool = (enum store_pool)store_peek(&store->segments[job->segment].pool);
    struct store_bucket *home = store_index_lock(store, entry->hash);
    uint64_t *slot = store_index_slot_of(store, home, entry->location);
    if (slot == NULL) {
        store_index_unlock(home);
        return true;
    }
    struct store_item item;
    uint64_t value = store_load(slot), bytes = store_item_read(entry->at, &item);
    bool gone = is_gone(store, entry->location);
    bool expired = !gone && item.has_expiry && item.expiry <= store_now(store);
    enum fate fate = gone || expired ? FATE_DROP : judge(store, job->kind, pool, value, bytes);
    if (fate == FATE_MOVE && !move_item(worker, slot, value, job->kind, entry)) {
        if (store->config.eviction == STORE_REFUSE) {
            store_index_unlock(home);
            return false;
        }
        fate = FATE_DROP;
    }
    if (fate == FATE_DROP)
        store_publish(slot, (uint64_t)0);
    else if (fate == FATE_KEEP)
        note_kept(store, job, slot, &item, bytes);
    store_index_unlock(home);
    if (fate != FATE_KEEP)
        store_release(store, entry->location, bytes);
    if (fate == FATE_DROP) {
        store_index_note(worker, -1);
        if (expired)
            store_count(&worker->counters.expirations, 1);
        else if (!gone)
            count_eviction(worker, pool, entry->hash);
    }
    return true;
}

/* Reads the next items of a segment. Answers how many; `*at` moves on. */
static unsigned gather(const struct store *store, uint32_t segment, uint32_t *at, uint32_t used, unsigned items,
                       struct entry entries[STORE_SLICE])
{
    uint64_t start = store_segment_location(store, segment);
    unsigned count = 0;
    for (unsigned looked = 0; *at < used && count < items && looked < items * DEAD_AT_ONCE; looked++) {
        uint8_t *byte = store_at(store, start + *at);
        if ((store_item_flags_at(byte) & ITEM_PADDING) != 0) {
            ++*at;
            continue;
        }
        uint8_t flags = store_item_flags_at(byte);
        uint32_t key_len, value_len, head = store_item_head_bytes(flags);
        store_item_lengths(byte, &key_len, &value_len);
        if ((flags & ITEM_DEAD) != 0) {
            *at += head + key_len + value_len;
            continue;
        }
        entries[count] = (struct entry){.at = byte, .location = start + *at};
        entries[count].hash = store_hash(store, byte + head, key_len);
        store_prefetch_index(store, entries[count++].hash);
        *at += head + key_len + value_len;
    }
    return count;
}

/* The segment goes back to a pool, as it is. */
static void put_back(struct store *store, struct store_job *job, enum store_pool pool)
{
    struct store_segment *at = &store->segments[job->segment];
    uint32_t counted = store_peek(&at->counted);
    store_segment_count(store, at, 0);
    pthread_mutex_lock(&store->mutex);
    store_segment_enqueue(store, job->segment, pool);
    pthread_mutex_unlock(&store->mutex);
    store_segment_count(store, at, counted);
    job->kind = JOB_NONE;
}

/* All items were looked at. */
static void end_job(struct store *store, struct store_job *job)
{
    struct store_segment *at = &store->segments[job->segment];
    if (job->kind == JOB_EXPIRE) {
        job->kind = JOB_NONE;
    } else if (job->kind == JOB_WEIGH && job->hit >= job->least) {
        *job = (struct store_job){.kind = JOB_RELINK, .segment = job->segment, .seq = job->seq};
    } else if (job->kind == JOB_WEIGH) {
        *job = (struct store_job){.kind = JOB_EVICT, .segment = job->segment, .seq = job->seq};
    } else if (job->kind == JOB_RELINK) {
        store->relinks++;
        put_back(store, job, POOL_KEPT);
    } else if (store_segment_live(at) >> 32 == 0) {
        store->relinks = store->large_relinks = 0;
        store_segment_count(store, at, 0);
        store_segment_retire(store, job->segment);
        job->kind = JOB_NONE;
    } else {
        put_back(store, job, (enum store_pool)at->pool);
    }
}

/* Can a weighed segment no longer reach what it needs? */
static bool is_too_light(const struct store_job *job, uint32_t used)
{
    return job->kind == JOB_WEIGH && job->hit + (used - job->at) < job->least;
}

uint64_t store_drain_slice(struct store_worker *worker, struct store_job *job, unsigned items)
{
    struct store *store = worker->store;
    struct store_segment *segment = &store->segments[job->segment];
    struct entry entries[STORE_SLICE];
    if (store->hurry && (job->kind == JOB_WEIGH || job->kind == JOB_RELINK))
        *job = (struct store_job){.kind = JOB_EVICT, .segment = job->segment, .seq = job->seq};
    /* Of a sweep: after the reset of min_expiry in the one order of both. See store_segment_keep(). */
    uint32_t used = __atomic_load_n(&segment->used, __ATOMIC_SEQ_CST), from = job->at;
    if (job->kind != JOB_EXPIRE && store_segment_live(segment) >> 32 == 0)
        job->at = used; /* Nothing is left to be done. */
    unsigned count = gather(store, job->segment, &job->at, used, items, entries);
    for (unsigned i = 0; i < count; i++) {
        if (!settle(worker, job, &entries[i])) {
            /* Another segment may be all dead meanwhile: this one must not stand in its way. */
            uint64_t done = (uint64_t)(entries[i].location - store_segment_location(store, job->segment)) - from;
            store_poke(&segment->min_expiry, (uint64_t)0); /* To be found out. */
            put_back(store, job, (enum store_pool)segment->pool);
            return i == 0 ? 0 : done; /* Passing over what is dead brings nothing. */
        }
    }
    uint64_t done = job->at - from + 1;
    if (job->at >= used || is_too_light(job, used))
        end_job(store, job);
    return done;
}

/* ---- large items ---- */

uint64_t store_drain_large(struct store_worker *worker, uint32_t page, enum store_large_fate fate)
{
    struct store *store = worker->store;
    uint64_t location = store->large_at + (uint64_t)page * STORE_PAGE + sizeof(struct store_large);
    struct store_item item;
    uint64_t bytes = store_item_read(store_at(store, location), &item);
    uint64_t hash = store_hash(store, item.key, item.key_len);
    struct store_bucket *home = store_index_lock(store, hash);
    uint64_t *slot = store_index_slot_of(store, home, location);
    if (slot == NULL) {
        store_index_unlock(home);
        sched_yield(); /* Somebody is about to retire it. */
        return STORE_PAGE;
    }
    uint64_t value = store_load(slot);
    bool gone = is_gone(store, location);
    bool expired = !gone && item.expiry <= store_now(store) && item.expiry != STORE_NEVER;
    enum store_pool pool = (enum store_pool)store_large_at(store, page)->pool;
    uint64_t freq = 0;
    bool spared = fate == LARGE_IF_HIT && !store->hurry && store->large_relinks < STORE_LARGE_RELINKS &&
                  deserves(store, pool, value, bytes, &freq);
    bool again = !gone && !expired && (fate == LARGE_STAYS || spared);
    if (!again)
        store_publish(slot, (uint64_t)0);
    else if (fate == LARGE_IF_HIT)
        (void)__atomic_compare_exchange_n(slot, &value, (value & ~STORE_FREQ_MASK) | freq * STORE_FREQ_ONE, false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    store_index_unlock(home);
    if (again && fate == LARGE_IF_HIT) {
        store_large_requeue(store, page, next_pool(pool));
        store->large_relinks++;
    }
    if (!again) {
        store_release(store, location, bytes);
        store_index_note(worker, -1);
        store_count(&worker->counters.expirations, expired);
        store_count(&worker->counters.evictions, !expired && !gone);
        store_count(&worker->counters.evictions_large, !expired && !gone);
        if (!expired && !gone && pool == POOL_SMALL)
            store_ghost_add(store, hash);
        store->relinks = store->large_relinks = 0;
    }
    return STORE_PAGE;
}

/* ---- rounds through all ---- */

/* Large items that the sweep has not seen. Answers true if there are more. */
static bool sweep_large(struct store_worker *worker)
{
    struct store *store = worker->store;
    for (unsigned i = 0; i < LARGE_AT_ONCE; i++) {
        pthread_mutex_lock(&store->mutex);
        while (store->sweep_large == STORE_NONE && store->sweep_pool + 1 < POOL_COUNT)
            store->sweep_large = store->large[++store->sweep_pool].head;
        uint32_t page = store->sweep_large;
        if (page != STORE_NONE)
            store->sweep_large = store_large_at(store, page)->next;
        pthread_mutex_unlock(&store->mutex);
        if (page == STORE_NONE)
            return false;
        (void)store_drain_large(worker, page, LARGE_STAYS);
    }
    return true;
}

/* Goes on with a segment's sweep. Answers true when it is done. */
static bool sweep_segment(struct store_worker *worker, unsigned *items)
{
    struct store *store = worker->store;
    struct store_job *job = &store->sweep;
    struct store_segment *at = &store->segments[job->segment];
    uint8_t state = store_load(&at->state);
    if ((state != SEGMENT_OPEN && state != SEGMENT_SEALED) || store_peek(&at->seq) != job->seq)
        job->kind = JOB_NONE; /* It was drained meanwhile. */
    while (job->kind != JOB_NONE && *items >= STORE_SLICE) {
        (void)store_drain_slice(worker, job, STORE_SLICE);
        *items -= STORE_SLICE;
    }
    return job->kind == JOB_NONE;
}

bool store_drain_expired(struct store_worker *worker, uint32_t segments, unsigned items)
{
    struct store *store = worker->store;
    uint64_t now = store_now(store);
    if (segments != UINT32_MAX && !store->sweeping && now < store->sweep_after)
        return false;
    if (!store->sweeping) {
        store->sweeping = true;
        store->sweep_segment = 0;
        pthread_mutex_lock(&store->mutex);
        store->sweep_pool = POOL_SMALL; /* What goes round meanwhile goes to a later one. */
        store->sweep_large = store->large[POOL_SMALL].head;
        pthread_mutex_unlock(&store->mutex);
    }
    for (; segments > 0 && store->sweep_segment < store_peek(&store->fresh); segments--, store->sweep_segment++) {
        struct store_segment *at = &store->segments[store->sweep_segment];
        uint8_t state = store_load(&at->state);
        if (store->sweep.kind == JOB_NONE) {
            if ((state != SEGMENT_OPEN && state != SEGMENT_SEALED) || store_peek(&at->min_expiry) > now)
                continue;
            store->sweep = (struct store_job){
                .kind = JOB_EXPIRE, .segment = store->sweep_segment, .seq = store_peek(&at->seq)};
            __atomic_store_n(&at->min_expiry, STORE_NEVER, __ATOMIC_SEQ_CST);
            store->sweep_after = now + SWEEP_INTERVAL_MS < now ? STORE_NEVER : now + SWEEP_INTERVAL_MS;
        }
        if (!sweep_segment(worker, &items))
            return true;
    }
    if (store->sweep_segment < store_peek(&store->fresh) || sweep_large(worker))
        return true;
    store->sweeping = false;
    return false;
}

/* Answers whether there was any. */
static bool drop_flushed_large(struct store_worker *worker, uint64_t flushed)
{
    struct store *store = worker->store;
    bool left = false;
    for (unsigned i = 0; i < LARGE_AT_ONCE; i++) {
        uint32_t page = STORE_NONE;
        pthread_mutex_lock(&store->mutex);
        for (unsigned pool = 0; pool < POOL_COUNT && page == STORE_NONE; pool++) {
            page = store->large[pool].head; /* Not in order of age: some had another turn. */
            while (page != STORE_NONE && store_large_at(store, page)->seq >= flushed)
                page = store_large_at(store, page)->next;
        }
        pthread_mutex_unlock(&store->mutex);
        if (page == STORE_NONE)
            return left;
        (void)store_drain_large(worker, page, LARGE_STAYS);
        left = true;
    }
    return left;
}

bool store_drain_flushed(struct store_worker *worker)
{
    struct store *store = worker->store;
    uint64_t flushed = store_load(&store->flushed);
    bool left = false;
    if (store->job.kind != JOB_NONE && store_drain_slice(worker, &store->job, STORE_SLICE) != 0)
        return true;
    for (unsigned pool = 0; pool < POOL_COUNT; pool++)
        store_segment_seal(store, &store->mover[pool], flushed);
    for (uint32_t i = 0; i < store_peek(&store->fresh); i++) {
        struct store_segment *at = &store->segments[i];
        uint8_t state = store_load(&at->state);
        if (store_peek(&at->seq) >= flushed || (state != SEGMENT_OPEN && state != SEGMENT_SEALED))
            continue;
        left = true;
        if (state == SEGMENT_OPEN)
            continue;
        pthread_mutex_lock(&store->mutex);
        store_list_remove(store, &store->pool[at->pool], i);
        store_publish(&at->state, (uint8_t)SEGMENT_DRAINING);
        pthread_mutex_unlock(&store->mutex);
        store->job = (struct store_job){.kind = JOB_COMPACT, .segment = i, .seq = store_peek(&at->seq)};
        return true;
    }
    left = drop_flushed_large(worker, flushed) || left;
    if (!left)
        (void)__atomic_compare_exchange_n(&store->flushed, &flushed, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    return left;
}
