/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What each request does: from a decoded message and the store to a reply.
 *
 * Called by dispatch, once per request, in order. To add a command: an entry in spec/crabcache.toml, then a
 * handler here; CRAB_FOR_EACH_REQUEST declares and calls one per request, so that a missing one does not compile.
 */
#ifndef CRABCACHE_SERVER_COMMAND_H
#define CRABCACHE_SERVER_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/wire.h"
#include "server/buf.h"
#include "server/stats.h"
#include "server/store/store.h"

struct auth;
struct crypt_data;
struct session;

/** A value longer than this is sent from where it lies instead of being copied into the output. */
#define COMMAND_COPY_MAX ((size_t)16 << 10)

/** The most that the reply to any request but STATS takes of the output, an error after it included. */
#define COMMAND_REPLY_ROOM (COMMAND_COPY_MAX + 2048)

/** The most that the reply to STATS takes. */
#define COMMAND_STATS_ROOM (STATS_TEXT_BYTES + 2048)

/** What the commands of one worker work with. */
struct command_env {
    struct store *store;           /**< Shared; borrowed. */
    struct store_worker *worker;   /**< Of this worker; borrowed. */
    struct auth *auth;             /**< The users; NULL: no AUTH is needed. Borrowed. */
    struct crypt_data *scratch;    /**< For auth_check(); NULL without users. */
    const struct stats *stats;     /**< For STATS; borrowed. */
    struct stats_worker *counters; /**< Of this worker; borrowed. */
    struct buf_pool *pool;         /**< Of this worker; borrowed. */
    char *text;                    /**< STATS_TEXT_BYTES, to render STATS in. */
    uint32_t max_value;            /**< The limit in force. */
    const struct store_stream *stream; /**< Where the next PUT's value stands already: it is ended and set to NULL then. */
};

/** One request under way. */
struct command {
    struct command_env *env;
    struct session *session;
    struct buf_out *out;  /**< With room for COMMAND_REPLY_ROOM (STATS: COMMAND_STATS_ROOM) and one reference. */
    struct store_key key; /**< The request's key, hashed, if it has one. */
    uint32_t tag;         /**< With CRAB_FLAG_TAG. */
    uint8_t flags;        /**< The common flags. */
    bool failed;          /**< Set when the answer was an error. */
};

/** @brief Execute one request that was decoded whole, and reply. */
void command_execute(struct command *c, const union crab_request *request);

/**
 * @brief Answer with an error: ERROR, or LATE_ERROR if the request is QUIET; an error that closes the connection is
 *        always ERROR, untagged.
 * @param code  an enum crab_error.
 */
void command_fail(struct command *c, uint16_t code);

#endif
