/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Inside the store: its memory layout, shared by the store's own files and by its tests.
 *
 * One reserved range of addresses holds everything; a location is an offset in it, and never 0:
 *
 *     struct store, segments, workers, page maps, ghosts | buckets -> | overflow -> | arena | large
 *     charged at start                                   | charged as they grow     | by segment, by page
 *
 * `committed` is what was charged; it never exceeds memory_bytes. Free segments and idle pages of large items stay
 * committed until others need their bytes: then they go back to the kernel. So no division of the memory is fixed.
 *
 * A bucket is one cache line:
 *
 *     slot 0 | ... | slot 6 | control        slot:    tag 16 | frequency 2 | seen 1 | location 45; 0: empty
 *                                            control: overflow link 32 | sequence 31 | lock 1
 *
 * The table has `bucket_count` buckets and grows by one at a time (linear hashing). Only the lock and the sequence
 * of a home bucket count; those of overflow buckets are unused. A reader takes no lock: see store_index.c.
 *
 * A segment is a row of items, written by one writer from its start (store_segment.c):
 *
 *     UNUSED -> OPEN -> SEALED -> DRAINING -> RETIRED -> FREE -> OPEN ...
 *                    (in a pool's FIFO)    (a grace period)  \-> UNUSED (pages given back)
 *                         ^---------/ (goes round whole)
 *
 * Items too large for a segment have pages of their own (store_large.c, store_pages.c), behind a `struct store_large`.
 *
 * Who guards what:
 * - A slot changes under its home bucket's lock; but readers raise frequency and set `seen` by compare-and-swap.
 * - Lists, states, budget: store.mutex, held briefly; no other lock is taken under it.
 * - Jobs (draining a segment) and the movers belong to whom store.maintaining belongs; taken by trying only.
 * - Order: split_lock or maintaining, then one bucket's lock, then overflow_lock, then mutex.
 */
#ifndef CRABCACHE_STORE_IMPL_H
#define CRABCACHE_STORE_IMPL_H

#include <assert.h>
#include <pthread.h>

#include "server/store/store.h"
#include "server/store/store_item.h"

#define STORE_SECRET_BYTES 192U
#define STORE_HELD_MAX     UINT16_MAX /**< Pins of one segment or large item; more are refused. */
#define STORE_SLOTS        7U
#define STORE_CHAIN_MAX    8U /**< Overflow buckets of one home bucket at most. */
#define STORE_CLASSES      3U /**< Classes of time to live, each with its own open segment. */
#define STORE_SLICE        64U
#define STORE_PAGE         4096U
#define STORE_HUGE_PAGE    ((size_t)2 << 20)
#define STORE_NONE         UINT32_MAX /**< No segment, no page. */
#define STORE_NO_EXPIRY    UINT32_MAX /**< store_segment.last_expiry: not all items ever expire. */

/* ---- relaxed counters and the like ---- */

#define store_load(p)        __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define store_peek(p)        __atomic_load_n(p, __ATOMIC_RELAXED)
#define store_publish(p, v)  __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define store_poke(p, v)     __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define store_count(p, n)    __atomic_store_n(p, __atomic_load_n(p, __ATOMIC_RELAXED) + (n), __ATOMIC_RELAXED)

/** @brief Between two looks at a word that another thread is about to change. */
static inline void store_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/* ---- the parts ---- */

struct store_bucket {
    uint64_t slot[STORE_SLOTS];
    uint64_t control;
};
static_assert(sizeof(struct store_bucket) == 64, "a bucket is a cache line");

#define STORE_LOCATION_MASK (((uint64_t)1 << 45) - 1)
#define STORE_SEEN          ((uint64_t)1 << 45)
#define STORE_FREQ_ONE      ((uint64_t)1 << 46)
#define STORE_FREQ_MASK     ((uint64_t)3 << 46)
#define STORE_TAG_MASK      (~(uint64_t)0 << 48)
#define STORE_LOCK          ((uint64_t)1)
#define STORE_SEQUENCE_ONE  ((uint64_t)2)
#define STORE_SEQUENCE_MASK ((uint64_t)UINT32_MAX & ~STORE_LOCK)

enum store_state {
    SEGMENT_UNUSED = 0,
    SEGMENT_OPEN,
    SEGMENT_SEALED,
    SEGMENT_DRAINING,
    SEGMENT_RETIRED,
    SEGMENT_FREE
};

/** Where items stand in the order of eviction: on trial, read since then, read again (store_evict.c). */
enum store_pool { POOL_SMALL, POOL_MAIN, POOL_KEPT, POOL_COUNT };

struct store_segment {
    uint64_t seq;        /**< Atomic. Unique to this use of the segment; part of its items' versions. */
    uint64_t dead;       /**< Atomic: items << 32 | bytes that are no longer live. */
    uint64_t min_expiry; /**< Atomic: no live item expires earlier. */
    union {
        uint64_t order;      /**< In a pool: its place in the order of eviction. */
        uint64_t retired_at; /**< Retired: the epoch that all workers must have seen before reuse. */
    };
    uint32_t used;        /**< Atomic; written by its writer only: bytes, */
    uint32_t items;       /**< and items, dead ones included. */
    uint32_t next, prev;  /**< In the list of its state. */
    uint32_t padding;     /**< Atomic, its writer's: bytes of `used` that belong to no item. */
    uint32_t counted;     /**< Atomic: live bytes of it that pool_live includes. */
    uint32_t last_expiry; /**< Atomic, in seconds: every item has expired then; STORE_NO_EXPIRY: not all ever do. */
    uint16_t pins;        /**< Atomic. */
    uint8_t state;        /**< Atomic enum store_state. */
    uint8_t pool;         /**< Atomic enum store_pool. */
};
static_assert(sizeof(struct store_segment) == 64, "segments do not share cache lines");

/** Stands before a large item, at the start of its first page. */
struct store_large {
    uint64_t seq;
    uint64_t retired_at;
    uint64_t order;      /**< Its place in the order of eviction. */
    uint32_t pages;
    uint32_t next, prev; /**< Pages of neighbours in the list, or STORE_NONE. */
    uint16_t pins;       /**< Atomic. */
    uint8_t listed;
    uint8_t pool;
    uint8_t unused[24];
};
static_assert(sizeof(struct store_large) == 64, "the item behind it is 8-aligned");

struct store_list {
    uint32_t head, tail;
    uint32_t count;
};

#define STORE_FREED 8U /**< Runs of pages that are remembered when they become free. */

struct store_run {
    uint32_t page, pages;
};

/** Where something may be written next. */
struct store_open {
    uint32_t segment; /**< Or STORE_NONE. */
    uint32_t used;
};

/** Writes into segments of one pool. */
struct store_writer {
    struct store_open open[STORE_CLASSES];
    enum store_pool pool;
};

/** A place for an item; nothing is taken until store_segment_keep(). */
struct store_place {
    uint8_t *at;
    uint64_t location;
    uint64_t bytes;
    uint32_t segment; /**< STORE_NONE: pages of its own. */
    uint32_t padding;
    uint32_t page;
    unsigned class;
};

struct store_counters {
    uint64_t hits, misses, puts, deletes, evictions, evictions_small, evictions_main, evictions_large;
    uint64_t evictions_bucket, expirations, refusals, moved_bytes, ghost_hits;
};

struct store_worker {
    _Alignas(64) uint64_t epoch; /**< Atomic: what it saw last; 0: offline. Others read it. */
    struct store *store;         /**< NULL: nobody has attached. */
    uint64_t credit;             /**< STORE_REFUSE: bytes of new items that were admitted already. */
    uint64_t debt;               /**< Bytes written for which room is still to be made, */
    uint64_t unpaid;             /**< and bytes written since some was made. */
    int32_t index_delta;         /**< Slots filled that index_items does not know of yet. */
    bool has_views;
    uint64_t given_up;           /**< The oldest epoch of any worker that was waited for in vain, or 0. */
    uint64_t late_epoch;         /**< Under mutex: the old epoch that it was seen to stand at, or 0, */
    uint64_t late_since;         /**< and when it first was, in ms. */
    struct store_writer writer;
    struct store_counters counters; /**< Each written by its worker only, relaxed. */
};
static_assert(sizeof(struct store_worker) <= 256, "workers are charged at start");

enum store_job_kind {
    JOB_NONE,
    JOB_COMPACT, /**< All that lives moves within its pool. */
    JOB_EVICT,   /**< What was read moves to the next pool, the rest goes. */
    JOB_WEIGH,   /**< Nothing changes: is so much of it hit that it is better left as it is? */
    JOB_RELINK,  /**< It is: each item loses a hit, and the whole segment goes to the end of the kept pool. */
    JOB_EXPIRE   /**< Only what has expired goes; the segment stays what it is. */
};

struct store_job {
    enum store_job_kind kind;
    uint32_t segment;
    uint32_t at;  /**< Offset of the next item. */
    uint32_t hit;  /**< JOB_WEIGH: bytes of live items that were read. */
    uint32_t least; /**< JOB_WEIGH: as many are enough. */
    uint64_t seq; /**< Of the segment when the job began. */
};

struct store { /* NOLINT(clang-analyzer-optin.performance.Padding): parts that different threads write are apart */
    /* Fixed once made. */
    struct store_config config;
    uint8_t *base;
    size_t mapped;
    uint64_t limit;
    uint64_t made_at;            /**< By the clock, in milliseconds. */
    struct store_segment *segments;
    struct store_worker *workers;
    struct store_bucket *buckets;
    struct store_bucket *overflow;
    uint64_t *page_map;
    uint64_t *page_starts;
    uint64_t *page_idle;
    uint16_t *ghosts;
    uint64_t arena_at, large_at; /**< Locations. */
    uint64_t bucket_max, overflow_max, ghost_rows_max, large_pages;
    uint64_t fixed;              /**< Bytes charged at start for all but the index, */
    uint64_t first_index_bytes;  /**< and for it. */
    uint32_t segment_count, segment_shift;
    uint32_t reserve;            /**< Free segments that only moving may use. */
    uint32_t classes;
    uint32_t item_max;           /**< Larger items get pages of their own. */
    uint64_t largest;            /**< Key and value of the largest item that fits. */
    bool huge, huge_overflow;    /**< Huge pages were asked for. */
    uint8_t secret[STORE_SECRET_BYTES];

    /* Read by everybody, rarely written. */
    _Alignas(64) uint64_t bucket_count; /**< Atomic. */
    uint64_t flushed;                   /**< Atomic: what has a smaller seq is gone; 0 if nothing such is left. */
    uint64_t mean_bytes;                /**< Atomic hint: of a live item. */
    uint64_t ghost_rows;                /**< Atomic: in use. */

    _Alignas(64) uint64_t epoch; /**< Atomic. */
    uint64_t seq;                /**< Atomic: the last one given out. */

    _Alignas(64) int64_t index_items; /**< Atomic, roughly: filled slots. */
    uint32_t split_lock, overflow_lock, maintaining;
    uint64_t overflow_count; /**< Under overflow_lock. */
    uint32_t overflow_free;  /**< Likewise: list of free ones, by link. */
    uint64_t bucket_charged, overflow_charged;

    /* Under mutex; some are read outside of it as hints. */
    _Alignas(64) pthread_mutex_t mutex;
    uint64_t committed;
    uint32_t fresh;              /**< Segments from here on were never used. */
    uint32_t available;          /**< Atomic hint: segments to be had, the reserve included. */
    struct store_list free, unused, retired, pinned;
    struct store_list pool[POOL_COUNT];
    struct store_list large[POOL_COUNT], large_retired;
    uint64_t orders;             /**< Places in the order of eviction that were given out. */
    uint64_t large_bytes;        /**< Of pages that are taken, */
    uint64_t idle_bytes;         /**< and of idle ones. */
    uint64_t idle_end;           /**< No idle page stands at or behind it. */
    uint64_t idle_least;         /**< The fewest idle bytes since idle_since, in ms. */
    uint64_t idle_since;
    struct store_run freed[STORE_FREED]; /**< A ring. */
    uint32_t freed_next;
    uint64_t retired_large_bytes;
    uint64_t large_wanted;       /**< Atomic hint: there was no run of so many pages; 0: there was. */
    uint32_t sweep_large;
    uint32_t workers_attached;
    uint64_t ahead;              /**< Atomic: bytes of free segments that are kept touched while the memory fills, or 0. */
    uint64_t ahead_touched[2];   /**< Atomic; of the thread that touches: bytes of buckets, and of overflow buckets. */
    pthread_cond_t ahead_call;
    bool ahead_stop;

    /* Of the maintainer. */
    struct store_job job;        /**< Draining. */
    struct store_job sweep;      /**< Expiring. */
    struct store_writer mover[POOL_COUNT];
    uint32_t scan_from;
    uint32_t relinks;            /**< Segments relinked since one was drained. */
    uint32_t large_relinks;      /**< Large items likewise. */
    uint32_t sweep_segment;
    enum store_pool sweep_pool;
    uint64_t sweep_after;
    uint64_t idle_unneeded;      /**< Idle bytes that are to be given back. */
    bool sweeping;
    bool hurry; /**< Evict without sparing what was hit. */

    _Alignas(64) int64_t copy_tokens;  /**< Atomic: bytes that eviction and compaction may copy. */
    int64_t pool_live[POOL_COUNT];     /**< Atomic: live bytes, as of when each segment was last counted. */

    _Alignas(64) uint64_t pinned_views; /**< Atomic. */
    uint64_t pinned_bytes;              /**< Atomic. */
    uint64_t waited;                    /**< Atomic: times that a put waited for a grace period. */
};

/** @brief Bytes that wait for a grace period, or for pins. The mutex is held. */
static inline uint64_t store_retired_bytes(const struct store *store)
{
    return ((uint64_t)(store->retired.count + store->pinned.count) << store->segment_shift) +
           store->retired_large_bytes;
}

/** @brief Milliseconds since the store was made. */
static inline uint64_t store_now(const struct store *store)
{
    return store->config.now_ms(store->config.now_context) - store->made_at;
}

/** Segments that STORE_REFUSE never counts on: the reserve, and those that are being written. */
static inline uint64_t store_aside(const struct store *store)
{
    uint32_t most = store->segment_count / 16;
    return store->reserve + 3 + (store->config.max_workers < most ? store->config.max_workers : most);
}

static inline uint8_t *store_at(const struct store *store, uint64_t location)
{
    return store->base + location;
}

static inline uint64_t store_slot_location(uint64_t slot)
{
    return slot & STORE_LOCATION_MASK;
}

static inline bool store_is_large(const struct store *store, uint64_t location)
{
    return location >= store->large_at;
}

static inline uint32_t store_segment_of(const struct store *store, uint64_t location)
{
    return (uint32_t)((location - store->arena_at) >> store->segment_shift);
}

static inline uint64_t store_segment_location(const struct store *store, uint32_t segment)
{
    return store->arena_at + ((uint64_t)segment << store->segment_shift);
}

static inline uint32_t store_segment_bytes(const struct store *store)
{
    return (uint32_t)1 << store->segment_shift;
}

static inline uint32_t store_page_of(const struct store *store, uint64_t location)
{
    return (uint32_t)((location - store->large_at) / STORE_PAGE);
}

static inline struct store_large *store_large_at(const struct store *store, uint32_t page)
{
    return (struct store_large *)(void *)store_at(store, store->large_at + (uint64_t)page * STORE_PAGE);
}

/** @brief The sequence number of what a location lies in. */
static inline uint64_t store_seq_of(const struct store *store, uint64_t location)
{
    if (store_is_large(store, location))
        return store_large_at(store, store_page_of(store, location))->seq;
    return store_peek(&store->segments[store_segment_of(store, location)].seq);
}

/** @brief The version of an unmarked item: unique, as sequence numbers are, and never 0. */
static inline uint64_t store_version_of(const struct store *store, uint64_t location)
{
    uint64_t seq = store_seq_of(store, location);
    if (store_is_large(store, location))
        return seq << 20;
    return seq << 20 | ((location - store->arena_at) & (store_segment_bytes(store) - 1));
}

static inline void store_min(uint64_t *to, uint64_t value)
{
    uint64_t was = __atomic_load_n(to, __ATOMIC_SEQ_CST);
    while (value < was &&
           !__atomic_compare_exchange_n(to, &was, value, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}

/* ---- the index (store_index.c) ---- */

/** A key's place, its bucket being locked. */
struct store_found {
    struct store_bucket *home;
    uint64_t *slot;             /**< The key's, or NULL. */
    uint64_t value;             /**< Of that slot. */
    uint64_t *hole;             /**< An empty slot, or NULL. */
    struct store_bucket *last;  /**< The end of the chain. */
    unsigned chain;             /**< Overflow buckets. */
    uint64_t bytes;             /**< Of the key's item, once it was read. */
};

uint64_t store_hash(const struct store *store, const uint8_t *key, size_t len);

/** @brief Look a key up without a lock. @param[out] slot where it was found. @return the slot's value, or 0. */
uint64_t store_index_get(const struct store *store, const struct store_key *key, uint64_t **slot);

/** @brief Lock a hash's home bucket. */
struct store_bucket *store_index_lock(struct store *store, uint64_t hash);
void store_index_unlock(struct store_bucket *home);

/** @brief Lock a key's bucket and look it up. End with store_index_unlock(found->home). */
void store_index_find(struct store *store, const struct store_key *key, struct store_found *found);

/** @brief In a locked bucket, the slot that names a location, or NULL. */
uint64_t *store_index_slot_of(const struct store *store, struct store_bucket *home, uint64_t location);

/** @brief Make found->hole a free slot. @return false: no memory, or the chain is as long as it may be. */
bool store_index_make_hole(struct store *store, struct store_found *found);

/** @brief Note that slots were filled (+1) or emptied (-1); grows the index in small steps. No lock may be held. */
void store_index_note(struct store_worker *worker, int change);

/** @brief Overflow bucket of a control word, or NULL. */
static inline struct store_bucket *store_overflow_of(const struct store *store, uint64_t control)
{
    uint64_t link = control >> 32;
    return link == 0 ? NULL : &store->overflow[link - 1];
}

/* ---- budget and segments (store_segment.c) ---- */

/** @brief Bytes that could be charged, were all that is free but charged given back. The mutex is held. */
static inline uint64_t store_budget_room(const struct store *store)
{
    return store->limit - store->committed + store->idle_bytes + ((uint64_t)store->free.count << store->segment_shift);
}

/** @brief Give back to the kernel some of what is free but charged. @return false: there is nothing. */
bool store_budget_ease(struct store *store, uint64_t bytes);

/** @brief Charge bytes, for which what is free may be given up. @return false: there are not as many. */
bool store_budget_take(struct store *store, uint64_t bytes, uint32_t keep_segments);

/** @brief The class of a time to live. */
unsigned store_class_of(const struct store *store, uint64_t expiry, uint64_t now);

/** @brief Let the open segment of a class have room; takes a new one if needed, leaving `keep`. */
bool store_segment_room(struct store *store, struct store_writer *writer, unsigned class, uint64_t bytes,
                        uint32_t keep);

/** @brief Close a writer's segments: all, or those that a flush emptied. */
void store_segment_seal(struct store *store, struct store_writer *writer, uint64_t below_seq);

/** @brief An item is no longer named by any slot. */
void store_release(struct store *store, uint64_t location, uint64_t bytes);

/** @brief A drained segment waits for its grace period. */
void store_segment_retire(struct store *store, uint32_t segment);

/** @brief Make free what waited for long enough. @return what still waits, in segments, and large bytes. */
uint32_t store_reclaim(struct store *store);

/** @brief A segment's live items << 32 | live bytes. */
uint64_t store_segment_live(const struct store_segment *segment);

/** @brief Bring pool_live up to date with a segment. @param live  its live bytes now; 0: it leaves its pool. */
void store_segment_count(struct store *store, struct store_segment *segment, uint32_t live);

/** @brief Into a pool's FIFO, sealed. The mutex is held. */
void store_segment_enqueue(struct store *store, uint32_t segment, enum store_pool pool);

/** @brief Bytes were written that are worth copying others for. */
void store_earn(struct store *store, uint64_t bytes);

void store_list_init(struct store_list *list);
void store_list_push(struct store *store, struct store_list *list, uint32_t segment);
void store_list_remove(struct store *store, struct store_list *list, uint32_t segment);
void store_update_available(struct store *store);

/* ---- touching ahead (store_ahead.c) ---- */

/** @brief Are there segments to be touched, and enough to be worth it? The mutex is held. */
static inline bool store_ahead_due(const struct store *store)
{
    uint64_t size = store_segment_bytes(store), slice = store->ahead < STORE_HUGE_PAGE ? size : STORE_HUGE_PAGE;
    return store->fresh < store->segment_count && store->committed + size <= store->limit &&
           ((uint64_t)store->free.count << store->segment_shift) + slice <= store->ahead;
}

/**
 * @brief Let fresh segments be free ones, up to the end of a huge page.
 * @param[out] first  the first of them; they follow each other. @return how many.
 */
uint32_t store_ahead_begin(struct store *store, uint32_t *first);

/** @brief Touch them, whatever has become of them meanwhile. @return false: the kernel does not know how. */
bool store_ahead_end(struct store *store, uint32_t first, uint32_t count);

/** @brief More of the index is charged now. */
void store_ahead_tell(struct store *store);

/** @brief Is there anything to be touched? Of the thread that does it; the mutex is held. */
bool store_ahead_wanted(const struct store *store);

/* ---- pages of large items (store_pages.c) ---- */

bool store_pages_taken(const struct store *store, uint64_t page);

/** @brief A run of pages that nobody has taken, or STORE_NONE. The mutex is held. */
uint32_t store_pages_find(const struct store *store, uint64_t pages);

/** @brief How many pages of a run that nobody has taken are not charged. The mutex is held. */
uint64_t store_pages_unbacked(const struct store *store, uint32_t page, uint64_t pages);

/** @brief Take a run for an item, and charge what is not charged yet. The mutex is held. */
void store_pages_take(struct store *store, uint32_t page, uint64_t pages);

/** @brief The item is gone: its pages are idle. The mutex is held. */
void store_pages_free(struct store *store, uint32_t page, uint64_t pages);

/** @brief Give some idle pages back to the kernel. @param bytes  how many at the most. @return how many; 0: there are none. */
uint64_t store_pages_trim(struct store *store, uint64_t bytes);

/** @brief Give back what nobody has needed for a while, a slice at a time. Of the maintainer. @return whether there is more. */
bool store_pages_tick(struct store *store);

/* ---- large items (store_large.c) ---- */

/** @brief Pages that an item takes. */
uint64_t store_large_pages(uint64_t item_bytes);

/** @brief Take pages for an item; charged. @return false: no memory. */
bool store_large_place(struct store *store, uint64_t item_bytes, struct store_place *place);

/** @brief Into a pool's FIFO, the item being published. */
void store_large_keep(struct store *store, uint32_t page, enum store_pool pool);

/** @brief Nobody has seen it yet: as if its pages were taken only now. */
void store_large_renew(struct store *store, uint32_t page);

/** @brief Nobody ever saw it: free at once. */
void store_large_drop(struct store *store, uint32_t page);

/** @brief No slot names it any more. */
void store_large_retire(struct store *store, uint32_t page);

/** @brief Free some of what waited until `epoch`. */
void store_large_reclaim(struct store *store, uint64_t epoch);

/** @brief Where the most room is for a run of pages: an item that stands there, or STORE_NONE. */
uint32_t store_large_in_the_way(struct store *store, uint64_t pages);

/** @brief Move to the end of a pool's FIFO. */
void store_large_requeue(struct store *store, uint32_t page, enum store_pool pool);

/* ---- putting (store_ops.c) ---- */

/**
 * @brief store_put() of a value that is not too large.
 * @param place  of a large item, taken beforehand, in which the value stands already (then args->value is NULL), and
 *               which is given up unless the answer is STORE_OK; or NULL.
 */
enum store_result store_put_placed(struct store_worker *worker, const struct store_key *key,
                                   const struct store_put_args *args, const struct store_place *place,
                                   uint64_t *version);

/* ---- grace periods, pins (store_qsbr.c) ---- */

void store_enter_slow(struct store_worker *worker);

/** @brief The worker may look at things. */
static inline struct store *store_enter(struct store_worker *worker)
{
    if (store_peek(&worker->epoch) == 0)
        store_enter_slow(worker);
    return worker->store;
}

/** @brief Say that the worker has seen all that happened, if it holds no views. */
static inline void store_refresh(struct store_worker *worker)
{
    if (!worker->has_views)
        store_publish(&worker->epoch, store_load(&worker->store->epoch));
}

/** @brief The epoch that all workers have seen. */
uint64_t store_oldest_epoch(struct store *store);

/* ---- making room (store_room.c) ---- */

/** What room is made for. */
struct store_need {
    uint64_t bytes; /**< Of the item, padding included. */
    unsigned class;
    bool large;
    bool urgent; /**< It replaces an item by one that is hardly larger: most of the reserve may be used. */
};

/** @brief Make room, by waiting for others if need be. @return false: STORE_NO_MEMORY. */
bool store_make_room(struct store_worker *worker, const struct store_need *need, struct store_place *place);

/** Bytes written from one payment to the next. */
#define STORE_PAY_FROM 4096U

void store_pay_now(struct store_worker *worker);

/** @brief Do the work that bytes written stand for. */
static inline void store_pay(struct store_worker *worker, uint64_t bytes)
{
    worker->debt += bytes;
    worker->unpaid += bytes;
    if (worker->unpaid >= STORE_PAY_FROM)
        store_pay_now(worker);
}

/** @brief STORE_REFUSE: may more bytes become live? Drops expired items if that helps. */
bool store_admit(struct store_worker *worker, uint64_t bytes);

bool store_sweep(struct store_worker *worker);

/* ---- the order of eviction (store_evict.c) ---- */

/** @brief Live bytes of each pool, and of all; brings mean_bytes up to date. */
uint64_t store_weigh_pools(struct store *store, uint64_t live[POOL_COUNT]);

/** @brief Hits that an item of this size needs to stay. */
unsigned store_hits_needed(const struct store *store, uint64_t bytes);

/** @brief Hits that a new item of this size starts with. */
unsigned store_hits_first(const struct store *store, uint64_t bytes);

/* ---- ghosts (store_ghost.c) ---- */

/** @brief Remember what was just evicted. Of the maintainer. */
void store_ghost_add(struct store *store, uint64_t hash);

/** @brief Was it evicted a short while ago? It is forgotten then. */
bool store_ghost_take(struct store *store, uint64_t hash);

/** @brief Let as many be remembered as suits the number of items, a row at a time. Of the maintainer. */
void store_ghost_fit(struct store *store);

/* ---- numbers (store_number.c) ---- */

#define STORE_NUMBER_MAX_LEN 20U /**< "-9223372036854775808" */

/** @brief Read a decimal int64. @return false if it is none; the output is then untouched. */
bool store_number_parse(const uint8_t *text, size_t len, int64_t *number);

/** @brief Write a decimal int64. @return its length. */
size_t store_number_format(int64_t number, uint8_t text[STORE_NUMBER_MAX_LEN]);

#endif
