/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Frames in, replies out: the part of the server that knows the protocol and no file descriptor.
 *
 * Where it stands: conn hands in the bytes that it received and takes away what is to be sent; below are the codec
 * (wire.h), the commands and the store. Unit tests, fuzzers and benchmarks call it directly.
 *
 * Invariants:
 * - Requests of one session are executed strictly in order, and their replies are appended in that order.
 * - What is answered does not depend on how the stream was cut into pieces.
 * - One call does a bounded amount of work, whatever the requests are: see DISPATCH_TURN_COST.
 * - No request is executed unless its reply has room; none allocates (a large value that the store won't pin is
 *   copied into a pooled buffer).
 */
#ifndef CRABCACHE_SERVER_DISPATCH_H
#define CRABCACHE_SERVER_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/buf.h"

struct auth;
struct stats;
struct stats_worker;
struct store;

/** Room that an empty output must have, so that any request can be answered. */
#define DISPATCH_OUT_BYTES BUF_LARGE

/** The longest input that is never enough to know a frame's size and tag, plus one. */
#define DISPATCH_HEAD_BYTES 40U

/** Bytes that a frame can have beside its value: header, tag, fields, extensions, key. */
#define DISPATCH_FRAME_EXTRA ((size_t)131200)

/**
 * How much one call of dispatch_run() executes before the others have their turn. Most requests cost 1; those that take
 * longer cost more (see cost_of()), and AUTH on a server with users, whose hash takes milliseconds, all of it.
 */
#define DISPATCH_TURN_COST 4096U

/** After this many failed AUTHs in a row a connection is closed: each costs milliseconds. [P-3.5.6] */
#define DISPATCH_AUTH_FAILURES 3U

/** One worker's dispatcher. */
struct dispatch;

/** What the protocol knows of one connection; all zero at its start. */
struct session {
    bool started;       /**< A request came: HELLO is not allowed any more. */
    bool authenticated; /**< The last AUTH succeeded. */
    uint8_t failures;   /**< AUTHs that failed since the last good one, on a server with users. */
    uint32_t features;  /**< Negotiated. */
    uint64_t source;    /**< Where the client comes from: see throttle.h. */
};

/** What a dispatcher works with; all borrowed. */
struct dispatch_config {
    struct store *store;
    struct auth *auth;       /**< NULL: nobody needs to authenticate. */
    const struct stats *stats;
    struct stats_worker *counters; /**< Of this worker. */
    struct buf_pool *pool;         /**< Of this worker. */
    struct buf_budget *streams;    /**< For values received into their places; NULL: there are none. Shared by all. */
    uint32_t max_value;            /**< In bytes. */
};

/** What dispatch_run() waits for. */
enum dispatch_next {
    DISPATCH_INPUT,  /**< More input: what was not consumed is part of a frame. */
    DISPATCH_OUTPUT, /**< Room: send the output, then call again with what was not consumed. */
    DISPATCH_TURN,   /**< Its next turn: send the output, serve others, then call again with what was not consumed. */
    DISPATCH_CLOSE   /**< Nothing: send the output, then close. All input was consumed. */
};

/** How far dispatch_run() came. */
struct dispatch_result {
    enum dispatch_next next;
    size_t consumed; /**< Bytes of the input that are done with. */
    uint64_t skip;   /**< Bytes of the stream after the input to throw away; then all input was consumed. */
    uint64_t need;   /**< With DISPATCH_INPUT and input left: how long, at the least, the frame is. */
};

/**
 * @brief Make a worker's dispatcher, and attach the calling thread to the store.
 * @return 0, or an errno value.
 * @ownership The caller ends it with dispatch_destroy().
 * @threads It belongs to one thread at a time.
 */
int dispatch_create(const struct dispatch_config *config, struct dispatch **dispatch);

/** @brief End a dispatcher; all output must have been sent or dropped. NULL is accepted. */
void dispatch_destroy(struct dispatch *dispatch);

/**
 * @brief Execute what was received.
 * @param session  of the connection.
 * @param in  bytes from the start of a frame on; borrowed for the call.
 * @param len  how many, 0 on.
 * @param out  where replies are appended; DISPATCH_OUT_BYTES large.
 * @param[out] result  how far it came.
 */
void dispatch_run(struct dispatch *dispatch, struct session *session, const uint8_t *in, size_t len,
                  struct buf_out *out, struct dispatch_result *result);

/**
 * @brief Begin to fetch what the first request of an input will look at, if the input is executed only after others.
 * @param in  bytes from the start of a frame on. @param len  how many.
 */
void dispatch_fetch(const struct dispatch *dispatch, const uint8_t *in, size_t len);

/**
 * @brief Say what the input of the dispatch_run() after the next one will be, so that the next one lets memory be fetched for
 *        it. If another input comes, nothing is lost but time.
 * @param in  bytes from the start of a frame on, which must stay as they are until then, or until NULL is announced.
 *            NULL: not known, and what was announced before does not count any more.
 * @param len  how many.
 */
void dispatch_announce(struct dispatch *dispatch, const uint8_t *in, size_t len);

/**
 * @brief Answer a frame that cannot be kept until it is whole with BUSY, and skip it.
 * @param in  what dispatch_run() left, of which the head is known: at least DISPATCH_HEAD_BYTES.
 * @param[out] result  always DISPATCH_INPUT, all input consumed.
 */
void dispatch_refuse(struct dispatch *dispatch, struct session *session, const uint8_t *in, size_t len,
                     struct buf_out *out, struct dispatch_result *result);

/** @brief Append GOAWAY if the client takes pushes. @param code  an enum crab_error: why. */
void dispatch_goaway(struct dispatch *dispatch, const struct session *session, uint16_t code, struct buf_out *out);

/** A PUT whose value is received right into its place in the store; all zero: none. */
struct dispatch_stream {
    uint8_t *value;    /**< Where the value goes. */
    size_t value_len;  /**< How long it will be; charged to dispatch_config.streams until the end. */
    size_t head_len;   /**< Bytes of the frame before it. */
    uint64_t location; /**< The store's own, as is the next. */
    uint32_t page;
};

/**
 * @brief Take the value of a large PUT that is on its way into its place in the store. What came of it is copied there.
 * @param head  what came of the frame: all but the end of its value. On success the frame's head is made one of a PUT
 *              without a value, for dispatch_stream_end(); what is behind the head is not needed any more.
 * @param len  how many bytes.
 * @param size  of the frame.
 * @param[out] stream  untouched on failure.
 * @return false: it is no such PUT, or the store or the budget has no room for it now; then collect the frame.
 * @ownership The caller ends it with dispatch_stream_end() or dispatch_stream_drop().
 */
bool dispatch_stream_begin(struct dispatch *dispatch, uint8_t *head, size_t len, uint64_t size,
                           struct dispatch_stream *stream);

/**
 * @brief Execute the PUT, its value being complete, and end the stream.
 * @param head  as dispatch_stream_begin() has left it.
 */
void dispatch_stream_end(struct dispatch *dispatch, struct session *session, const uint8_t *head,
                         struct dispatch_stream *stream, struct buf_out *out);

/** @brief Give the stream up. One that is all zero is accepted. */
void dispatch_stream_drop(struct dispatch *dispatch, struct dispatch_stream *stream);

/** @brief Whether an output has room for what dispatch_run() or dispatch_stream_end() answers to one frame, and an error. */
bool dispatch_has_room(const struct buf_out *out);

/** @brief Whether a connection has made its first request, and authenticated where that is demanded. */
bool dispatch_is_settled(const struct dispatch *dispatch, const struct session *session);

/** @brief What lets go of the values that an output of this dispatcher refers to. */
const struct buf_releaser *dispatch_releaser(const struct dispatch *dispatch);

/** @brief Between events: no view is held any more. Called at least once per turn of the loop. */
void dispatch_quiesce(struct dispatch *dispatch);

/** @brief A slice of the store's housekeeping. @return whether more waits to be done. */
bool dispatch_tick(struct dispatch *dispatch);

#endif
