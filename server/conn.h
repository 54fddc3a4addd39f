/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief A connection: a socket, what of its stream waits, and how it ends.
 *
 * Where it stands: a worker calls conn_ready() when its socket is; this receives, lets dispatch execute, and sends.
 *
 *     OPEN --- fatal error, or the server stops ---> FLUSHING --- all sent ---> DRAINING --- end of stream ---> GONE
 *       `---- end of stream, broken, stalled for too long -----------------------------------------------------'
 *
 * FLUSHING sends what is left and executes nothing more; DRAINING has shut its sending side and throws away what
 * still comes, so that no reset overtakes the last reply; both have until one deadline.
 *
 * Invariants:
 * - A connection holds a buffer only while a partial frame or unsent output waits, and for a frame in proportion to
 *   what has arrived of it, not to what its header promises.
 * - What waits is bounded by the budget. Where it is not enough, first those give way whose peers have not moved for long,
 *   the one that holds the most before the others (struct conn_relief); then a frame is answered BUSY, and a connection
 *   whose output has no room is given up.
 * - While output waits nothing is received or executed: a slow reader slows only itself.
 * - One call does a bounded amount of work: it receives once, or large frames, 256 KiB of them at the most.
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

/** Bytes of the buffer for what is received ahead; see conn_receive_ahead(). */
#define CONN_AHEAD_BYTES ((size_t)32 << 10)

/** Most that is received ahead for one connection. */
#define CONN_AHEAD_ROOM ((size_t)8 << 10)

/**
 * Of a large frame a 32nd must have come before room is taken in the store for its value: a promise alone makes no item
 * go.
 */
#define CONN_STREAM_SHARE 32U

/** How long an ending connection may take for its last output and the peer's end of stream. */
#define CONN_CLOSE_MS 3000U

/** How far a connection is. */
enum conn_state {
    CONN_OPEN,     /**< It serves. */
    CONN_FLUSHING, /**< It sends what is left. */
    CONN_DRAINING, /**< It waits for the peer's end of stream. */
    CONN_GONE      /**< It holds nothing any more: see conn_break(). */
};

/** What the peer of an open connection owes. */
enum conn_debt {
    CONN_OWES_NOTHING, /**< A request, when it likes. */
    CONN_OWES_REST,    /**< The rest of a frame that holds no buffer: only its head came, or it is skipped. */
    CONN_OWES_INPUT,   /**< The rest of a frame that does. */
    CONN_OWES_READING, /**< Room for output that waits, or for that of requests that do. */
    CONN_DEBTS         /**< How many kinds there are. */
};

/** A place in a list. */
struct conn_link {
    struct conn_link *prev, *next;
};

/** One connection. */
struct conn {
    struct conn_link link;  /**< In a list of its worker: see roster.h. */
    struct conn_link fresh; /**< Likewise, until its first request. */
    struct session session;
    struct buf in;        /**< Received and not executed, unless it fits `head`; or none. */
    struct buf out;       /**< Executed and not sent: see buf_out_parked(); or none. */
    size_t held;          /**< Bytes in `in`, and of a stream, or else in `head`. */
    size_t frame;         /**< If not 0: `in` takes just one frame, of this size. */
    size_t frame_from;    /**< So much of it came at once, */
    uint64_t frame_ms;    /**< and then. */
    struct dispatch_stream stream; /**< If its value is not NULL: `in` takes only the frame's head, this the value. */
    uint64_t skip;        /**< Bytes of the stream to throw away. */
    uint64_t opened_ms;   /**< When its worker took it in. */
    uint64_t moved_ms;    /**< When it last received, executed or sent something. */
    uint64_t placed_ms;   /**< When it was last put in order in its list. */
    size_t unread;        /**< conn_unread() at that time, if its peer owes reading. */
    int fd;
    uint32_t bite;                     /**< If not 0: of what comes next no more is received at once; see conn.c. */
    uint32_t events;                   /**< What epoll was told to watch for. */
    uint16_t ahead_at, ahead_len;      /**< What was received ahead, in conn_io.ahead. */
    uint8_t state;                     /**< An enum conn_state. */
    uint8_t list;                      /**< Which of the roster's lists `link` is in. */
    bool small;                        /**< What it received last was little. */
    bool rest;                         /**< The last receive may have left something: it did not end for want of it. */
    bool runnable;                     /**< What is held may be executed without receiving more. */
    uint8_t head[DISPATCH_HEAD_BYTES]; /**< The start of a frame. */
};

/** Whom to ask for memory when the budget is used up. */
struct conn_relief {
    bool (*give_up_one)(void *context); /**< Break another connection that holds some; false: there is none. */
    void *context;                      /**< Handed to it. */
};

/** What the connections of one worker share. */
struct conn_io {
    struct dispatch *dispatch;     /**< Borrowed. */
    struct buf_pool *pool;         /**< Borrowed. */
    struct stats_worker *counters; /**< Borrowed. */
    const struct log *log;         /**< Borrowed. */
    struct conn_relief relief;
    struct buf in;                 /**< Where is received; CONN_IN_BYTES. */
    struct buf ahead;              /**< Where is received ahead; CONN_AHEAD_BYTES. */
    size_t ahead_len;              /**< Bytes of it in use. */
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

/** @brief Drop whatever waits and close the socket; `c` stays, GONE, until conn_close(). */
void conn_break(struct conn_io *io, struct conn *c);

/** @brief End a connection: conn_break(), unless that was done, and free it. */
void conn_close(struct conn_io *io, struct conn *c);

/**
 * @brief Go on with a connection whose socket is ready (or was just opened, or shall say goodbye).
 * @return false if it is over: call conn_close().
 */
bool conn_ready(struct conn_io *io, struct conn *c);

/**
 * @brief Receive for a connection whose socket is ready, but execute nothing yet: that is for conn_run_ahead(), after other
 *        connections have received. Meanwhile memory can be waited for, and the kernel's code for receiving stays
 *        in the caches.
 * @return false: nothing was done, because the connection is in an unusual state or expects much; then call conn_ready().
 */
bool conn_receive_ahead(struct conn_io *io, struct conn *c);

/** @brief Whether conn_io.ahead has no room for one more: then those that wait must be run. */
bool conn_ahead_is_full(const struct conn_io *io);

/**
 * @brief Go on with a connection that conn_receive_ahead() received for.
 * @param next  the one whose turn comes then, or NULL.
 * @return as conn_ready().
 */
bool conn_run_ahead(struct conn_io *io, struct conn *c, const struct conn *next);

/** @brief All that waited have had their turn: conn_io.ahead is free again. */
void conn_end_ahead(struct conn_io *io);

/**
 * @brief Say GOAWAY, if the client takes pushes, and end the stream; what waits to be executed is dropped.
 * @param c  OPEN, without output that waits.
 * @param code  an enum crab_error: why.
 * @return false if it is over: call conn_close().
 */
bool conn_say_goodbye(struct conn_io *io, struct conn *c, uint16_t code);

/**
 * @brief Take the memory of a connection for others, while one of them may be in its turn. GOAWAY goes out where
 *        no reply is lost by it: then it is DRAINING, else GONE.
 * @param c  OPEN, and not the one in its turn.
 * @param code  an enum crab_error: why.
 */
void conn_give_way(struct conn_io *io, struct conn *c, uint16_t code);

/** @brief Bytes of the budget that an OPEN connection holds. */
size_t conn_held_bytes(const struct conn *c);

/** @brief What the peer of an OPEN connection owes now. */
enum conn_debt conn_debt(const struct conn *c);

/** @brief How much of what was sent the peer's machine has not taken yet. */
size_t conn_unread(const struct conn *c);

/**
 * @brief What to wait for: EPOLLIN or EPOLLOUT. Where only a next request is waited for, with EPOLLET: epoll then tells what
 *        comes once, and whoever leaves some of it (conn.rest, or the end of the stream, EPOLLRDHUP) has to ask anew.
 */
uint32_t conn_wanted(const struct conn *c);

#endif
