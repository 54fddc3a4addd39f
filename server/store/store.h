/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The store: what the cache remembers, and nothing else.
 *
 * Where it stands: dispatch calls the store; the store knows neither the wire nor sockets. All workers
 * share one `struct store`; each worker reaches it through a `struct store_worker` of its own, which
 * holds whatever the store keeps per thread.
 *
 * Invariants:
 * - Each operation is atomic per key, and the operations on one key are totally ordered.
 * - A key that is found carries exactly the bytes, flags and expiry of one earlier successful write.
 * - Memory never exceeds `store_config.memory_bytes`: what does not fit evicts or is refused.
 * - A view returned by store_get() stays readable and unchanged until the worker that asked calls
 *   store_quiesce() (or until store_unpin(), for a view that was pinned).
 */
#ifndef CRABCACHE_STORE_H
#define CRABCACHE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;        /**< Shared by all workers. */
struct store_worker; /**< One thread's handle on a store. */

/** A time to live that never ends, and the expiry of an item that has none. */
#define STORE_NEVER UINT64_MAX

/** Longest key, in bytes; the shortest has one. */
#define STORE_MAX_KEY 65535U

/** Bytes that precede an item's key at least. */
#define STORE_LEAST_HEAD 4U

/** Smallest `memory_bytes` with which a store can be made. */
#define STORE_MIN_MEMORY ((size_t)2 << 20)

/** What to do with a write that does not fit. */
enum store_eviction {
    STORE_EVICT, /**< Make room by dropping other items. */
    STORE_REFUSE /**< Answer STORE_NO_MEMORY; nothing is ever dropped before it expires. */
};

/** The answers of the store. */
enum store_result {
    STORE_OK = 0,       /**< Done. */
    STORE_ABSENT,       /**< There is no live item of this key. */
    STORE_EXISTS,       /**< A condition did not hold: the item stands as it was. */
    STORE_NO_MEMORY,    /**< It does not fit now; nothing changed. */
    STORE_TOO_LARGE,    /**< It can never fit into this store; nothing changed. */
    STORE_NOT_A_NUMBER, /**< The value is no decimal int64; nothing changed. */
    STORE_OVERFLOW      /**< The sum leaves int64; nothing changed. */
};

/** When a put takes place. */
enum store_condition {
    STORE_ALWAYS,
    STORE_IF_ABSENT,
    STORE_IF_PRESENT,
    STORE_IF_VERSION
};

/** How a store is made. */
struct store_config {
    size_t memory_bytes;          /**< Hard limit for all that the store allocates; >= STORE_MIN_MEMORY. */
    enum store_eviction eviction; /**< Evict or refuse. */
    unsigned max_workers;         /**< How many workers may attach, 1 to 1024. */
    /** The clock, in milliseconds; must never step back. NULL: CLOCK_BOOTTIME. */
    uint64_t (*now_ms)(void *context);
    void *now_context; /**< Handed to now_ms. */
};

/** A key, with its hash computed once per request (store_key()). */
struct store_key {
    const uint8_t *data; /**< Borrowed. */
    uint32_t len;        /**< 1 to STORE_MAX_KEY. */
    uint64_t hash;       /**< Of this store: hashes are keyed by a secret drawn at start. */
};

/** An item as found: borrowed bytes and what is known of it. */
struct store_view {
    const uint8_t *value; /**< Borrowed, until store_quiesce() or store_unpin(). */
    size_t value_len;     /**< In bytes. */
    uint64_t version;     /**< Two states of one key never share one; 0 only from store_get_value(). */
    uint64_t ttl_ms;      /**< What is left to live, >= 1, or STORE_NEVER. */
    uint32_t app_flags;   /**< As stored. */
    uint64_t pin;         /**< For store_pin(); opaque. */
};

/** What to put. */
struct store_put_args {
    const uint8_t *value;           /**< Borrowed for the call; may be NULL if value_len is 0. */
    size_t value_len;               /**< In bytes. */
    uint64_t ttl_ms;                /**< >= 1, or STORE_NEVER. */
    uint32_t app_flags;             /**< The application's own. */
    enum store_condition condition; /**< When to store. */
    uint64_t version;               /**< For STORE_IF_VERSION. */
    bool version_unwanted;          /**< With STORE_OK the new version will not be used: saves memory. */
};

/** What to add to a number. */
struct store_incr_args {
    uint64_t delta;   /**< How much. */
    bool negative;    /**< Subtract instead. */
    bool has_initial; /**< Create an absent item with `initial` (the delta is then not applied). */
    int64_t initial;  /**< The number that an absent item starts with. */
    uint64_t ttl_ms;  /**< Of an item that is created: >= 1, or STORE_NEVER. */
};

/** Counters and gauges; exact when no operation is under way. */
struct store_stats {
    uint64_t items;          /**< Stored now, expired ones that were not collected yet included. */
    uint64_t bytes_live;     /**< Taken by items, their headers included. */
    uint64_t bytes_dead;     /**< Waiting to be reclaimed, and the unused ends of segments. */
    uint64_t bytes_free;     /**< Ready to be written. Live, dead, free, index and fixed bytes add up to the limit. */
    uint64_t bytes_index;    /**< Taken by the index. */
    uint64_t bytes_fixed;    /**< Taken by tables whose size never changes. */
    uint64_t bytes_limit;    /**< store_config.memory_bytes. */
    uint64_t hits;           /**< store_get() and store_touch() that found an item. */
    uint64_t misses;         /**< Those that did not. */
    uint64_t puts;           /**< Items written, by any operation. */
    uint64_t deletes;        /**< Items deleted by request. */
    uint64_t evictions;      /**< Live items dropped to make room. */
    uint64_t expirations;    /**< Items found expired and dropped. */
    uint64_t refusals;       /**< Writes answered STORE_NO_MEMORY. */
    uint64_t pinned;         /**< Views pinned now. */
    uint64_t evictions_small;  /**< Of the evictions: never read since they came, */
    uint64_t evictions_main;   /**< not read any more, */
    uint64_t evictions_large;  /**< large items, */
    uint64_t evictions_bucket; /**< and those of a bucket that was full. */
    uint64_t ghost_hits;       /**< Keys that came back soon after their eviction. */
    uint64_t moved_bytes;      /**< Bytes of items copied by compaction and second chances. */
    uint64_t index_slots;      /**< Slots of the index, used or not. */
    uint64_t grace_waits;      /**< Times that a write waited for other workers to pass a quiescent state. */
    uint64_t grace_lag;        /**< Epochs (things retired) that the slowest worker is behind. */
    uint64_t grace_lag_ms;     /**< For how long it has been seen to be, as store_grace() does. */
    uint64_t grace_worker;     /**< Which it is, counted from 0; 0 if none is behind. */
    uint64_t bytes_retired;    /**< Of the dead bytes: waiting for it. */
};

/**
 * @brief Make a store. All its address space is reserved here; a later operation never calls malloc.
 * @param config  copied.
 * @param[out] store  the new store; untouched on failure.
 * @return 0, or an errno value: EINVAL (a field is out of range), ENOMEM; or what getrandom(2) failed with.
 * @ownership The caller ends it with store_destroy().
 */
int store_create(const struct store_config *config, struct store **store);

/** @brief End a store; all workers must have detached. NULL is accepted. */
void store_destroy(struct store *store);

/**
 * @brief Attach the calling thread.
 * @return 0, ENOMEM, or EBUSY (max_workers are attached).
 * @threads The handle belongs to one thread at a time.
 */
int store_worker_attach(struct store *store, struct store_worker **worker);

/** @brief Detach; its views end. Pinned views must have been unpinned. NULL is accepted. */
void store_worker_detach(struct store_worker *worker);

/** @brief The largest value that fits this store together with a key of `key_len` bytes. */
size_t store_max_value(const struct store *store, size_t key_len);

/** @brief Hash a key. @param len 1 to STORE_MAX_KEY. @ownership borrows `data`. */
struct store_key store_key(const struct store *store, const uint8_t *data, size_t len);

/** @brief First step of a prefetch: the key's place in the index. */
void store_prefetch_index(const struct store *store, uint64_t hash);

/** Where the index seems to have a key's item; zeroed before the first use. */
struct store_hint {
    const uint8_t *item; /**< Or NULL: it is not known. */
    bool overflow;       /**< It may stand in a part of the index that is fetched only now. */
};

/**
 * @brief Second step, some tens of nanoseconds later: read the index. Third step, if hint->overflow says so: once more,
 *        with the hint as it is.
 */
void store_locate(const struct store *store, uint64_t hash, struct store_hint *hint);

/**
 * @brief Last step: the item. Right after each other for all items that will be looked at, as misses of the TLB are
 *        then waited for together.
 * @param bytes  of its key and value that will be looked at, at least 1; a few lines at the most are worth it.
 */
static inline void store_prefetch_item(const struct store_hint *hint, size_t bytes)
{
    if (hint->item == NULL)
        return;
    const uint8_t *last = hint->item + STORE_LEAST_HEAD + bytes - 1;
    for (const uint8_t *at = hint->item; at < last; at += 64)
        __builtin_prefetch(at);
    __builtin_prefetch(last);
    __asm__ volatile("" : : "r"(last)); /* Or GCC takes this for a function without effect, and omits it. */
}

/**
 * @brief Look a key up.
 * @param[out] view  the item; untouched unless found. Valid until store_quiesce(worker).
 * @return STORE_OK or STORE_ABSENT.
 */
enum store_result store_get(struct store_worker *worker, const struct store_key *key,
                            struct store_view *view);

/**
 * @brief As store_get(), if the version is not wanted: view.version is 0. An item whose version nobody has seen
 *        need not carry it when it moves.
 */
enum store_result store_get_value(struct store_worker *worker, const struct store_key *key,
                                  struct store_view *view);

/**
 * @brief As store_get(), giving the item a new time to live in the same step. The version stays.
 * @param ttl_ms  >= 1 or STORE_NEVER.
 * @return STORE_OK, STORE_ABSENT, or STORE_NO_MEMORY: the item has no room for that expiry, and there is none for a copy.
 */
enum store_result store_touch(struct store_worker *worker, const struct store_key *key,
                              uint64_t ttl_ms, struct store_view *view);

/**
 * @brief Store a value.
 * @param[out] version  with STORE_OK the new version, with STORE_EXISTS that of the item in the way;
 *             else untouched. May be NULL.
 * @return STORE_OK; STORE_EXISTS (IF_ABSENT and present, IF_VERSION and another version); STORE_ABSENT
 *         (IF_PRESENT or IF_VERSION and absent); STORE_NO_MEMORY (the former item, if any, still
 *         stands); STORE_TOO_LARGE (likewise; it goes before the condition).
 *         With STORE_EVICT, STORE_NO_MEMORY comes only from views and pins that are in the way: those of
 *         this worker end with store_quiesce(), so that it can be worth asking again after it.
 */
enum store_result store_put(struct store_worker *worker, const struct store_key *key,
                            const struct store_put_args *args, uint64_t *version);

/** A large value on its way into the store: room for it that nobody sees yet. */
struct store_stream {
    uint8_t *value;    /**< Where its bytes are to be written. */
    size_t value_len;  /**< How many. */
    uint64_t location; /**< The store's own, as is the rest. */
    uint32_t page;
};

/**
 * @brief Take room for a value that comes piece by piece, so that it need not be copied when it is whole.
 * @param args  value is not looked at; the other fields are those of the put.
 * @param[out] stream  untouched on failure.
 * @return false: the value is too small for room of its own, or there is no room now. The caller collects the
 *         value and calls store_put().
 * @ownership The caller ends it with store_stream_put() or store_stream_drop(), of any worker.
 */
bool store_stream_begin(struct store_worker *worker, const struct store_key *key, const struct store_put_args *args,
                        struct store_stream *stream);

/**
 * @brief As store_put(), the value standing in the stream's room. Ends the stream, whatever the answer.
 * @param key  the same as at the beginning; its bytes may be elsewhere. @param args  likewise, value is not looked at.
 */
enum store_result store_stream_put(struct store_worker *worker, const struct store_key *key,
                                   const struct store_put_args *args, const struct store_stream *stream,
                                   uint64_t *version);

/** @brief Give the room up. */
void store_stream_drop(struct store_worker *worker, const struct store_stream *stream);

/** @brief Delete. @return STORE_OK or STORE_ABSENT. */
enum store_result store_delete(struct store_worker *worker, const struct store_key *key);

/** @brief Give an item a new time to live. @return STORE_OK, STORE_ABSENT, or STORE_NO_MEMORY. */
enum store_result store_expire(struct store_worker *worker, const struct store_key *key,
                               uint64_t ttl_ms);

/**
 * @brief Add to a number kept as decimal ASCII (an optional '-', no leading zeros, no spaces).
 *        Expiry and application flags of an existing item stay.
 * @param[out] number  the new value; untouched unless STORE_OK.
 * @return STORE_OK, STORE_ABSENT, STORE_NOT_A_NUMBER, STORE_OVERFLOW, STORE_NO_MEMORY.
 */
enum store_result store_incr(struct store_worker *worker, const struct store_key *key,
                             const struct store_incr_args *args, int64_t *number);

/**
 * @brief Touch memory ahead of those who write while the store grows, until store_ahead_stop(). The kernel takes a fraction
 *        of a millisecond to find a huge page, or several on a virtual machine: so no request waits for that. Up to a 64th of
 *        the memory, 64 MiB at most, is resident before it is needed; it counts for the limit like everything else.
 * @threads A thread of its own, one at most. The store works without, too.
 */
void store_ahead_run(struct store *store);

/** @brief Let store_ahead_run() return; it may not even have begun. For good. */
void store_ahead_stop(struct store *store);

/** @brief Drop every item. One atomic step as seen by all workers. */
void store_flush(struct store_worker *worker);

/**
 * @brief Keep a view's bytes beyond store_quiesce(), to be sent by reference.
 * @return false if too much is pinned already: the caller copies instead.
 */
bool store_pin(struct store_worker *worker, const struct store_view *view);

/** @brief Let go of a pinned view. @param pin `store_view.pin` of a view that store_pin() accepted. */
void store_unpin(struct store_worker *worker, uint64_t pin);

/**
 * @brief The worker holds no views any more; called at least once per loop turn and before it sleeps.
 *        Until its next operation the worker holds up nothing.
 */
void store_quiesce(struct store_worker *worker);

/**
 * @brief The worker holds no views any more, but will go on at once: cheaper than store_quiesce(), between requests.
 *        What is retired may wait for the worker's next write or store_quiesce().
 */
void store_release_views(struct store_worker *worker);

/** @brief store_quiesce(), by the name of what it is before a sleep. */
void store_worker_offline(struct store_worker *worker);

/** @brief After the sleep; optional, as any operation does the same. */
void store_worker_online(struct store_worker *worker);

/**
 * @brief A slice of housekeeping (collecting expired items), bounded to about 100 us.
 *        Only memory is at stake: an item is never found after its expiry, collected or not.
 * @return true if more waits to be done. Rounds through the store begin a second apart at least.
 */
bool store_tick(struct store_worker *worker);

/** A worker that holds up the reuse of memory. */
struct store_grace {
    uint64_t lag_ms; /**< Since it was first seen to, by this call or by store_stats(). */
    uint64_t bytes;  /**< That wait, for it and for others. */
    unsigned worker; /**< Its number, by the order of attaching, counted from 0. */
};

/**
 * @brief See which worker has held up memory for longest. Times are as exact as the calls are frequent.
 * @param[out] grace  untouched if there is none.
 * @return false: none does.
 * @threads any thread, at any time.
 */
bool store_grace(struct store *store, struct store_grace *grace);

/** @brief Sum up the statistics. @threads any thread, at any time. */
void store_stats(struct store *store, struct store_stats *stats);

#endif
