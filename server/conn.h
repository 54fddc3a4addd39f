/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief A connection: a socket, what of its stream waits, and how it ends.
 *
 * Where it stands: a worker calls conn_ready() when its socket is; this receives, lets dispatch execute, and sends.
 *
 *     OPEN --- fatal error, or the server stops ---> FLUSHING --- all sent ---> DRAINING --- end of stream ---> gone
 *       `---- end of stream, broken ---------------------------------------------------------------------------'
 *
 * FLUSHING sends what is left and executes nothing more; DRAINING has shut its sending side and throws away what
 * still comes, so that no reset overtakes the last reply; both have until one deadline.
 *
 * Invariants:
 * - A connection holds a buffer only while a partial frame or unsent output waits; what waits is bounded by the
 *   budget: without room for a frame it is answered BUSY, without room for output the connection is given up.
 * - While output waits nothing is received or executed: a slow reader slows only itself.
 * - One call receives at most once and does a bounded amount of work.
 */
#ifndef CRABCACHE_SERVER_CONN_H
#define CRABCACHE_SERVER_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/buf.h"
#include "server/dispatch.h"

struct log;
struct stats_worker;

/** Bytes received at once into the buffer that all connections of a worker share. */
#define CONN_IN_BYTES BUF_LARGE

/** How long an ending connection may take for its last output and the peer's end of stream. */
#define CONN_CLOSE_MS 3000U

/** How far a connection is. */
enum conn_state {
    CONN_OPEN,     /**< It serves. */
    CONN_FLUSHING, /**< It sends what is left. */
    CONN_DRAINING  /**< It waits for the peer's end of stream. */
};

/** One connection. */
struct conn {
    struct conn *prev, *next; /**< In a list of its worker. */
    struct session session;
    struct buf in;        /**< Received and not executed, unless it fits `head`; or none. */
    struct buf out;       /**< Executed and not sent: see buf_out_parked(); or none. */
    size_t held;          /**< Bytes in `in`, or else in `head`. */
    size_t frame;         /**< If not 0: `in` takes just one frame, of this size. */
    uint64_t skip;        /**< Bytes of the stream to throw away. */
    uint64_t deadline_ms; /**< When it is given up, once it is not OPEN. */
    int fd;
    uint32_t events;                   /**< What epoll was told to watch for. */
    uint8_t state;                     /**< An enum conn_state. */
    bool runnable;                     /**< What is held may be executed without receiving more. */
    uint8_t head[DISPATCH_HEAD_BYTES]; /**< The start of a frame. */
};

/** What the connections of one worker share. */
struct conn_io {
    struct dispatch *dispatch;     /**< Borrowed. */
    struct buf_pool *pool;         /**< Borrowed. */
    struct stats_worker *counters; /**< Borrowed. */
    const struct log *log;         /**< Borrowed. */
    struct buf in;                 /**< Where is received; CONN_IN_BYTES. */
    struct buf out_bytes;          /**< Of `out`. */
    struct buf_out out;            /**< Where is answered; empty between calls. */
    struct buf_ref refs[BUF_OUT_REFS];
    uint64_t now_ms; /**< Monotonic; set by the worker once per turn. */
    bool stopping;   /**< A connection without more input says goodbye. */
    bool halted;     /**< So does one with more input. */
};

/**
 * @brief Take the buffers that all connections share.
 * @param io  with dispatch, pool, counters and log set.
 * @return false if the budget or memory is short.
 * @ownership ended with conn_io_fini().
 */
bool conn_io_init(struct conn_io *io);

/** @brief Give the shared buffers back. */
void conn_io_fini(struct conn_io *io);

/**
 * @brief Make a connection of a socket.
 * @param fd  connected, non-blocking; owned by the connection if this succeeds.
 * @param budget  what the connection itself is charged to.
 * @return NULL if memory or the budget is short.
 * @ownership ended with conn_close(), by the worker that it was given to.
 */
struct conn *conn_create(int fd, struct buf_budget *budget);

/** @brief End a connection: whatever waits is dropped, the socket closed. */
void conn_close(struct conn_io *io, struct conn *c);

/**
 * @brief Go on with a connection whose socket is ready (or was just opened, or shall say goodbye).
 * @return false if it is over: call conn_close().
 */
bool conn_ready(struct conn_io *io, struct conn *c);

/** @brief What to wait for: EPOLLIN or EPOLLOUT. */
uint32_t conn_wanted(const struct conn *c);

#endif
