/* SPDX-License-Identifier: MIT */
/*
 * How to ask each of the three kinds of servers for a value, give it one, and read what it answers.
 *
 * A protocol knows no socket: it turns a request into bytes and bytes into an answer, so that the replay around it is the
 * same for all servers, batch by batch and byte limit by byte limit.
 */
#ifndef CRABCACHE_BENCH_HIT_RATIO_PROTOCOL_H
#define CRABCACHE_BENCH_HIT_RATIO_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#include "crabcache/wire.h"

/** @brief Every key has this length, in all servers. */
#define PROTOCOL_KEY_BYTES 16U
/** @brief No request is longer, apart from the bytes of a value. */
#define PROTOCOL_HEAD_BYTES 96U
/** @brief The longest value of any request; memcached takes no longer item. */
#define PROTOCOL_MAX_VALUE ((uint32_t)1 << 30)

/** @brief What a server answered. */
enum answer_kind {
    ANSWER_VALUE,     /**< To a get: the value. */
    ANSWER_MISS,      /**< To a get: there is none. */
    ANSWER_STORED,    /**< To a put: done. */
    ANSWER_REFUSED,   /**< To a put: too large, or no room. */
    ANSWER_NEED_MORE, /**< The answer is not whole yet. */
    ANSWER_BROKEN     /**< Nothing that this server may answer. */
};

/** @brief One answer. */
struct answer {
    enum answer_kind kind;
    size_t size;             /**< Whole: its bytes.  #ANSWER_NEED_MORE: the least that is needed in all. */
    struct crab_slice value; /**< Of an #ANSWER_VALUE; borrowed from the bytes. */
};

/** @brief One kind of server. */
struct protocol {
    const char *name;
    /** @brief Write a get of `key`. @return its length, at most #PROTOCOL_HEAD_BYTES */
    size_t (*get)(uint8_t *buf, const uint8_t *key);
    /** @brief Write a put of `key` up to the value's bytes. @return the length, at most #PROTOCOL_HEAD_BYTES */
    size_t (*put_head)(uint8_t *buf, const uint8_t *key, uint32_t value_len);
    /** @brief What follows the value's bytes. */
    const char *put_tail;
    /** @brief Read the answer to a get. */
    struct answer (*get_answer)(const uint8_t *buf, size_t len);
    /** @brief Read the answer to a put. */
    struct answer (*put_answer)(const uint8_t *buf, size_t len);
};

extern const struct protocol protocol_native, protocol_redis, protocol_memcached;

/** @brief An answer that has no value. */
static inline struct answer answer_of(enum answer_kind kind, size_t size)
{
    return (struct answer){.kind = kind, .size = size};
}

#endif
