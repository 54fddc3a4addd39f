/* SPDX-License-Identifier: MIT */
/*
 * From received bytes to whole replies, however the bytes were cut.  The values themselves are stepped over, never
 * kept.
 */
#ifndef CRABCACHE_BENCH_INBOX_H
#define CRABCACHE_BENCH_INBOX_H

#include <stddef.h>
#include <stdint.h>

#include "client/bench/protocol.h"

/** @brief What is known of a reply that is not whole.  All zeros: none has begun. */
struct inbox {
    uint64_t skip;                    /**< So many bytes of `begun` are still to come. */
    struct reply begun;               /**< A reply whose head is known. */
    uint32_t kept;                    /**< Bytes in `head`. */
    uint8_t head[PROTOCOL_HEAD_MAX];  /**< The part of a head that has come; inbox_begin() gives it back. */
};

/** @brief Received bytes that are being read. */
struct bytes {
    const uint8_t *at;
    const uint8_t *end;
};

enum inbox_next {
    INBOX_REPLY, /**< A whole reply. */
    INBOX_EMPTY, /**< All bytes are read, more must come. */
    INBOX_BROKEN /**< What comes is not this protocol. */
};

/**
 * @brief After receiving: put what was kept in front of what was received.
 * @param inbox an inbox
 * @param received where the received bytes begin; #PROTOCOL_HEAD_MAX bytes before it are free
 * @return where all of it begins
 */
const uint8_t *inbox_begin(struct inbox *inbox, uint8_t *received);

/**
 * @brief Take the next whole reply.
 * @param inbox an inbox
 * @param protocol the protocol
 * @param[in,out] bytes what was received, with what inbox_begin() put before it; moves on
 * @param[out] reply the reply; its text is borrowed from `bytes`
 * @return whether there was one
 */
enum inbox_next inbox_take(struct inbox *inbox, const struct protocol *protocol, struct bytes *bytes,
                           struct reply *reply);

#endif
