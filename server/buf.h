/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Memory for bytes on their way: the budget, pooled buffers, and the queue of output.
 *
 * Where it stands: between sockets (conn) and meaning (dispatch); it knows neither of them, nor the store.
 *
 * Invariants:
 * - What all pools hold, in use or cached, never exceeds the budget that they share.
 * - A buffer of up to BUF_LARGE bytes is of one of a few sizes and is cached when given back; a larger one
 *   has the size asked for, in whole pages, can grow, and goes back to the kernel at once.
 * - What a queue refers to (struct buf_ref) is released exactly once: when it was sent, or with the queue.
 */
#ifndef CRABCACHE_SERVER_BUF_H
#define CRABCACHE_SERVER_BUF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/** Largest buffer that pools keep; larger ones are mapped and unmapped. */
#define BUF_LARGE ((size_t)64 << 10)

/** By how much, at the least, buf_grow() makes a large buffer larger. */
#define BUF_STEP ((size_t)256 << 10)

/** How many values a queue of output can refer to. */
#define BUF_OUT_REFS 32U

/** Most entries of the vector that buf_out_vector() fills. */
#define BUF_OUT_VECTOR (2U * BUF_OUT_REFS + 1U)

/** What memory is wanted for. The more of the budget is used, the less is left for what can be refused gently. */
enum buf_use {
    BUF_FOR_FRAMES,     /**< Large buffers: up to 7/8 of the budget; a frame can be answered BUSY. */
    BUF_FOR_PIECES,     /**< Small ones: up to 15/16; without one a connection may have to be given up. */
    BUF_FOR_CONNECTIONS /**< All of it, so that new clients get in while others fill the buffers. */
};

/** How much memory client buffers may take; shared by all workers. */
struct buf_budget {
    atomic_size_t used;     /**< Charged now, in bytes. */
    atomic_size_t refusals; /**< How often it was not enough. */
    size_t limit;           /**< In bytes. */
};

/** A buffer: owned by whoever took it, until it is given back. */
struct buf {
    uint8_t *data; /**< NULL: no buffer. */
    size_t cap;    /**< In bytes. */
};

/** One size of pooled buffers. */
struct buf_class {
    void *free;  /**< Cached buffers, each pointing to the next. */
    size_t size; /**< Of each, in bytes. */
};

/** Number of sizes below BUF_LARGE, that one included. */
#define BUF_CLASSES 5U

/** One worker's buffers. */
struct buf_pool {
    struct buf_budget *budget; /**< Borrowed. */
    struct buf_class classes[BUF_CLASSES];
    size_t cached;    /**< Bytes in all free lists. */
    size_t cache_max; /**< Buffers beyond this are freed instead of cached. */
};

/** @brief Start a budget of `limit` bytes. */
void buf_budget_init(struct buf_budget *budget, size_t limit);

/**
 * @brief Take `bytes` from the budget.
 * @param use  what for.
 * @return false: it is not enough, nothing was taken.
 * @threads any
 */
bool buf_budget_charge(struct buf_budget *budget, size_t bytes, enum buf_use use);

/** @brief Give `bytes` back to the budget. @threads any */
void buf_budget_release(struct buf_budget *budget, size_t bytes);

/**
 * @brief Start a pool.
 * @param pool  in the caller's storage; ended with buf_pool_fini().
 * @param budget  what the pool's buffers are charged to; borrowed.
 * @param cache_max  how many bytes of free buffers it keeps for reuse.
 * @threads The pool belongs to one thread at a time.
 */
void buf_pool_init(struct buf_pool *pool, struct buf_budget *budget, size_t cache_max);

/** @brief End a pool: frees what is cached. All buffers must have been given back. */
void buf_pool_fini(struct buf_pool *pool);

/**
 * @brief Take a buffer of at least `size` bytes, 1 on.
 * @param[out] buf  the buffer; untouched on failure.
 * @return false: the budget or the memory is not enough now.
 * @ownership The caller gives it back with buf_give(), to the same pool.
 */
bool buf_take(struct buf_pool *pool, size_t size, struct buf *buf);

/**
 * @brief Make a buffer larger, keeping its bytes: by a quarter, by BUF_STEP at the least, not beyond `size`; a pooled
 *        one is replaced by one of the next size. What a frame costs is so in proportion to what has arrived of it.
 * @param size  at the most this is wanted; more than buf->cap.
 * @param buf  has at least one byte more room afterwards; untouched on failure.
 * @return false: the budget or the memory is not enough now.
 */
bool buf_grow(struct buf_pool *pool, size_t size, struct buf *buf);

/** @brief Whether so much is in use, 3/4, that clients who hold much for long should give way. @threads any */
bool buf_budget_is_short(const struct buf_budget *budget);

/** @brief Give a buffer back and empty `buf`. One without data is accepted. */
void buf_give(struct buf_pool *pool, struct buf *buf);

/** @brief What buf_take() charges for `size` bytes. */
size_t buf_cost(size_t size);

/** Bytes that are sent from where they are. */
struct buf_ref {
    size_t at;           /**< After how many bytes of buf_out.data they come. */
    const uint8_t *data; /**< First byte still to send. */
    size_t len;          /**< Bytes still to send. */
    uint64_t pin;        /**< What keeps them in place, unless `copy` does. */
    struct buf copy;     /**< Their own buffer, or none. */
};

/** Lets go of what a reference refers to. */
struct buf_releaser {
    void (*release)(void *context, struct buf_ref *ref); /**< Called once per reference. */
    void *context;                                       /**< Handed to it. */
};

/** Output that waits to be sent: bytes of its own, and references to be sent between them. */
struct buf_out {
    uint8_t *data;         /**< The bytes. */
    size_t cap;            /**< Room for them. */
    size_t start;          /**< The first that was not sent. */
    size_t len;            /**< Where they end. */
    struct buf_ref *refs;  /**< BUF_OUT_REFS of them at the most, by `at`. */
    unsigned ref_first;    /**< The first that was not sent. */
    unsigned ref_count;    /**< Where they end. */
    size_t ref_bytes;      /**< Bytes of all references since the queue was last empty. */
};

/** @brief Start an empty queue. @param refs  room for BUF_OUT_REFS; both are borrowed. */
void buf_out_init(struct buf_out *out, uint8_t *data, size_t cap, struct buf_ref *refs);

/** @brief Whether all was sent. */
static inline bool buf_out_empty(const struct buf_out *out)
{
    return out->start == out->len && out->ref_first == out->ref_count;
}

/** @brief Make an empty queue start at its beginning again. */
void buf_out_reset(struct buf_out *out);

/**
 * @brief Append a reference; there must be room for it.
 * @param ref  all but `at`, which is set here; the queue now owns what it holds.
 */
void buf_out_refer(struct buf_out *out, const struct buf_ref *ref);

/** @brief What to send next. @param[out] vector  room for BUF_OUT_VECTOR. @return entries used. */
unsigned buf_out_vector(const struct buf_out *out, struct iovec *vector);

/** @brief Note that the first `bytes` of what buf_out_vector() gave were sent. */
void buf_out_sent(struct buf_out *out, size_t bytes, const struct buf_releaser *releaser);

/** @brief Drop all that was not sent. */
void buf_out_drop(struct buf_out *out, const struct buf_releaser *releaser);

/**
 * @brief Move what was not sent into a buffer of its own, of just the size that it needs.
 * @param out  the queue; empty afterwards, unless it failed.
 * @param pool  where the buffer comes from.
 * @param[out] buf  the buffer; a struct buf_out stands at its start, see buf_out_parked().
 * @return false: the budget is not enough; nothing changed.
 */
bool buf_out_park(struct buf_out *out, struct buf_pool *pool, struct buf *buf);

/** @brief The queue inside a buffer that buf_out_park() filled. */
static inline struct buf_out *buf_out_parked(const struct buf *buf)
{
    return (struct buf_out *)(void *)buf->data;
}

#endif
