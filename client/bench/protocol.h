/* SPDX-License-Identifier: MIT */
/*
 * What the benchmark must know of a server's protocol: how a get and a put look, and where a reply ends.  One table of
 * functions for each protocol (native.c, resp.c, memcached.c), without sockets or state, so that everything else of the
 * load is the same for every server.
 */
#ifndef CRABCACHE_BENCH_PROTOCOL_H
#define CRABCACHE_BENCH_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_KEY_MAX 250U   /* memcached's limit */
#define PROTOCOL_HEAD_MAX 1024U /* no head of a reply may be longer */

/** @brief The bytes of a request, but for those of its key and its value. */
struct frame {
    uint8_t bytes[PROTOCOL_KEY_MAX + 70]; /**< Up to the value, with a gap for the key. */
    uint32_t len;                         /**< Of `bytes`. */
    uint32_t key_at;                      /**< Where in `bytes` the key stands. */
    uint32_t value_len;                   /**< How long the value is that follows; 0 for a get. */
    uint8_t tail[2];                      /**< What follows the value. */
    uint32_t tail_len;                    /**< Of `tail`. */
};

enum reply_kind {
    REPLY_VALUE,  /**< A get found the key. */
    REPLY_MISS,   /**< A get did not. */
    REPLY_STORED, /**< A put succeeded. */
    REPLY_ERROR,  /**< The server refused; `text` says why. */
    REPLY_OTHER   /**< Anything else: none of our requests has such a reply. */
};

/** @brief A reply of which at least the head is there. */
struct reply {
    enum reply_kind kind;
    uint64_t size;      /**< From its first to its last byte. */
    uint64_t value_len; /**< REPLY_VALUE only. */
    const char *text;   /**< REPLY_ERROR only; borrowed from the bytes. */
    size_t text_len;    /**< Of `text`. */
};

enum parsed {
    PARSED_HEAD,  /**< All is known of the reply; its body may still be on the way. */
    PARSED_MORE,  /**< The head is not whole yet. */
    PARSED_BROKEN /**< Not this protocol. */
};

/** @brief One protocol. */
struct protocol {
    const char *name;        /**< As --server says it. */
    uint16_t port;           /**< Where such servers listen by default. */
    uint64_t value_max;      /**< No put may be longer. */
    /** @brief The frame of a get. */
    void (*get)(struct frame *frame, uint32_t key_len);
    /** @brief The frame of a put. */
    void (*put)(struct frame *frame, uint32_t key_len, uint32_t value_len);
    /**
     * @brief Read the head of a reply.
     * @param bytes where the reply begins
     * @param len how many bytes there are, at least 1
     * @param[out] reply set with PARSED_HEAD
     */
    enum parsed (*parse)(const uint8_t *bytes, size_t len, struct reply *reply);
};

extern const struct protocol protocol_native;
extern const struct protocol protocol_resp;
extern const struct protocol protocol_memcached;
extern const struct protocol protocol_memcached_classic;

#endif
