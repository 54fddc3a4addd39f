/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief A connection without a socket: feeds bytes to dispatch as server/conn.c does, and collects what it answers.
 *
 * For unit tests and fuzzers. Failures of the set-up end the program: a test can do nothing about them.
 */
#ifndef CRABCACHE_TESTS_DISPATCH_PEER_H
#define CRABCACHE_TESTS_DISPATCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/buf.h"
#include "server/dispatch.h"
#include "server/stats.h"
#include "server/store/store.h"

struct auth;

/** How to make a peer; zero means the default. */
struct dispatch_peer_config {
    size_t memory_bytes;          /**< Of the store; default 16 MiB. */
    size_t budget_bytes;          /**< For buffers; default 16 MiB. */
    uint32_t max_value;           /**< Default 1 MiB. */
    enum store_eviction eviction; /**< Default STORE_EVICT. */
    struct auth *auth;            /**< Default: nobody needs to authenticate. */
};

/** Bytes that grow. */
struct dispatch_bytes {
    uint8_t *data;
    size_t len;
    size_t cap;
};

/** A server with one connection. */
struct dispatch_peer {
    struct store *store;
    struct stats stats;
    struct buf_budget budget;
    struct buf_pool pool;
    struct dispatch *dispatch;
    struct session session;
    uint64_t now_ms;               /**< The store's clock: the test moves it. */
    uint64_t skip;                 /**< Bytes still to be thrown away. */
    bool closed;                   /**< dispatch asked to close. */
    struct dispatch_bytes in;      /**< Fed and not consumed. */
    struct dispatch_bytes answers; /**< What would have been sent. */
    struct buf_out out;
    struct buf_ref refs[BUF_OUT_REFS];
    uint8_t out_bytes[DISPATCH_OUT_BYTES];
};

/** @brief Make a peer. @ownership ended with dispatch_peer_destroy(). */
struct dispatch_peer *dispatch_peer_create(const struct dispatch_peer_config *config);

/** @brief End a peer. */
void dispatch_peer_destroy(struct dispatch_peer *peer);

/** @brief Start a new connection to the same store; with `flush` on an empty one. */
void dispatch_peer_reset(struct dispatch_peer *peer, bool flush);

/** @brief Receive bytes, execute what they complete, and collect the answers. */
void dispatch_peer_feed(struct dispatch_peer *peer, const uint8_t *bytes, size_t len);

/** @brief As dispatch_peer_feed(), `piece` bytes at a time. */
void dispatch_peer_feed_pieces(struct dispatch_peer *peer, const uint8_t *bytes, size_t len, size_t piece);

/** @brief Append to bytes. */
void dispatch_bytes_add(struct dispatch_bytes *bytes, const void *data, size_t len);

#endif
