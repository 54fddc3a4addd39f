/* SPDX-License-Identifier: MIT */
/*
 * The inside of a connection, shared by the files of the library and by nobody else.
 *
 *     queue.c  typed requests --\                              /-- call.c  one request, one reply
 *                                conn_queue()   conn_next()
 *                                     \            /
 *                  pipeline.c   out buffer, ring of unanswered requests, in buffer
 *                                     \            /
 *                          io.c    send while reading, receive, break
 *                          net.c   deadlines, connect          buffer.c  bytes
 *
 *     stream.c  values in pieces      many.c  many keys in one call
 *     event.c   the same connection in an event loop: nothing waits, completions      start.c   connect without waiting
 *
 * Invariants
 * - The ring holds one entry for each request that gets a reply, oldest first; replies come in this order.
 * - `state` leaves CRAB_OK once and for ever, in conn_break() only, which closes the socket.
 * - A reply is given to a request only if the request can have such a reply and the tags agree; anything else breaks
 *   the connection, because an answer must never reach the wrong caller.
 * - Nothing that a caller passed in is kept after the call.
 * - In an event loop (`events`) nothing waits, and callbacks run in crab_conn_process() and crab_conn_close() only
 *   (`busy`); a connection that they close lives on until the outermost of these calls returns.
 */
#ifndef CRABCACHE_CLIENT_INTERNAL_H
#define CRABCACHE_CLIENT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/buffer.h"
#include "client/net.h"
#include "crabcache/crabcache.h"

/** @brief Values from this size on are sent from where they lie, and not copied into the output buffer. */
#define CONN_COPY_LIMIT ((size_t)32 * 1024)

/** @brief Queued bytes from which on a queue call sends. */
#define CONN_SEND_AT ((size_t)64 * 1024)

/** @brief Queued bytes from which on a queue call waits until the socket has taken some. */
#define CONN_QUEUE_LIMIT ((size_t)256 * 1024)

/** @brief Late errors that are kept until somebody takes them. */
#define CONN_LATE_LIMIT 4096U

/** @brief A request that waits for its reply. */
struct in_flight {
    uint64_t end; /**< Where its last byte stands in all that was ever queued: was it sent? */
    uint32_t tag; /**< Its tag, if `flags` has CRAB_FLAG_TAG. */
    uint32_t quiet_before; /**< Quiet writes between the request before and this one: its reply ends them. */
    uint8_t op;
    uint8_t flags;
};

/** @brief What a request has besides, in an event loop or when its value goes to a sink; at the same place of a ring. */
struct waiter {
    uint64_t end_ns; /**< Its deadline on CLOCK_MONOTONIC, UINT64_MAX: none. */
    crab_done done;  /**< NULL: crab_conn_next_reply() takes the reply. */
    void *context;
    crab_sink sink;  /**< Where the value goes; NULL: it is kept until it is whole. */
    void *sink_context;
};

/** @brief The reply at the front, when its value goes to a sink piece by piece. */
struct pour {
    bool active;            /**< Its head has left the buffer, and bytes are missing. */
    size_t whole;           /**< The value's length. */
    size_t given;           /**< Of this the sink has. */
    union crab_reply reply; /**< The reply without the value's bytes. */
};

/** @brief How far an event loop's connection is. */
enum conn_phase {
    CONN_READY = 0, /**< Also: made by crab_conn_open(). */
    CONN_CONNECTING,
    CONN_GREETING /**< HELLO or AUTH are not answered. */
};

/** @brief Quiet writes: how many are in flight [P-6.11.2], and, since the last barrier, was any of them sent? */
struct quiet_span {
    uint32_t in_flight; /**< No reply to a later request has come yet; */
    uint32_t trailing;  /**< those behind the last request that gets one. */
    bool open;          /**< There are some. */
    uint64_t first_end; /**< `end` of the first. */
    uint64_t last_end;  /**< `end` of the last. */
};

/** @brief Late errors, a ring that grows up to CONN_LATE_LIMIT. */
struct late_ring {
    struct crab_late_error *entries;
    uint32_t capacity; /**< A power of two, or 0. */
    uint32_t first;
    uint32_t count;
    uint64_t lost;
};

struct crab_conn {
    int fd;                /**< -1 when broken. */
    enum crab_status state; /**< CRAB_OK, or what broke it. */
    bool ended;            /**< The server ended the stream in order. */
    bool fatal;            /**< The server ended it with a fatal error: it executed nothing after that. */
    bool check_tags;
    bool events;           /**< In an event loop. */
    bool busy;             /**< Callbacks are running. */
    bool close_wanted;     /**< One of them has closed the connection. */
    bool told;             /**< Completions and on_state have heard that it broke. */
    enum conn_phase phase;
    bool welcomed;         /**< There was a WELCOME: `info` is filled. */
    bool goaway;
    uint16_t goaway_code;
    uint16_t error;        /**< Of the last CRAB_E_SERVER. */
    int system_error;

    struct crab_allocator allocator;
    uint32_t timeout_ms;
    uint32_t max_reply;
    uint32_t max_buffered;
    uint32_t max_in_flight;
    uint32_t asked_in_flight; /**< What the options asked for, 0: whatever the server wants. */
    bool asked_max_reply;     /**< The options named `max_reply`. */

    struct buffer in;
    struct buffer out;
    uint64_t queued_bytes; /**< Ever. */
    uint64_t sent_bytes;   /**< Ever; queued_bytes - sent_bytes are in `out`, or in the hands of a queue call. */

    struct in_flight *ring;
    struct pour pour;
    size_t put_left;          /**< Bytes of a value that are to follow by crab_conn_put_piece(). */
    struct waiter *waiters;   /**< As many as `ring` has places; NULL: none is needed. */
    uint32_t ring_capacity; /**< A power of two, or 0. */
    uint32_t ring_first;
    uint32_t ring_count;
    uint32_t last_tag;
    struct quiet_span quiet;
    struct late_ring late;

    uint64_t turn_ns;         /**< When crab_conn_process() was called last. */
    uint64_t connect_end_ns;  /**< Until then it must be ready. */
    uint64_t send_end_ns;     /**< Until then the socket must take something, if `out` is not empty. */
    uint64_t wanted;          /**< Bytes that the frame at the front of `in` has, as far as is known. */
    uint32_t greetings;       /**< Of HELLO and AUTH those that are not answered. */
    unsigned told_events;     /**< What `loop.update` heard last. */
    struct crab_loop loop;
    void (*changed)(struct crab_conn *conn, enum crab_status state, void *context);
    void *changed_context;
    void (*log)(void *context, enum crab_log_level level, const char *line);
    void *log_context;

    struct crab_server_info info;
    uint8_t server_name[CRAB_MAX_CLIENT_NAME];
    char text[CRAB_FAILURE_TEXT]; /**< About the last failure. */
};

/* ---- io.c */

/** @brief Break the connection: close the socket, keep why. @return `status` */
__attribute__((format(printf, 4, 5))) enum crab_status conn_break(struct crab_conn *conn, enum crab_status status,
                                                                  int system_error, const char *format, ...);

/** @brief Note a failure that leaves the connection as it was. @return `status` */
enum crab_status conn_complain(struct crab_conn *conn, enum crab_status status, const char *text);

/**
 * @brief Send the output buffer and then `tail`, reading whenever the socket takes no more.
 * @param conn a connection in state CRAB_OK
 * @param[in,out] tail bytes after the output buffer, moved on as they are sent; borrowed for the call
 * @param deadline when to give up; NULL: never wait
 * @return CRAB_OK: everything is sent; CRAB_EMPTY: (without deadline) it would have to wait; CRAB_E_FULL: as many
 *         replies as may be are waiting; or what broke the connection
 */
enum crab_status conn_send(struct crab_conn *conn, struct crab_slice *tail, struct net_deadline *deadline);

/**
 * @brief Wait for bytes and receive some, while sending what is queued.
 * @param conn a connection in state CRAB_OK
 * @param wanted bytes that the input buffer should be able to hold
 * @param deadline when to give up
 * @return CRAB_OK: something was received or sent; or what broke the connection
 */
enum crab_status conn_exchange(struct crab_conn *conn, uint64_t wanted, struct net_deadline *deadline);

/**
 * @brief Receive what is there, without waiting.
 * @param conn a connection in state CRAB_OK
 * @param wanted bytes that the input buffer should be able to hold
 * @return CRAB_OK: some bytes; CRAB_EMPTY: none now; or what broke the connection
 */
enum crab_status conn_receive(struct crab_conn *conn, uint64_t wanted);

/** @brief Write a line to the log, if there is one. */
__attribute__((format(printf, 3, 4))) void conn_log(struct crab_conn *conn, enum crab_log_level level,
                                                    const char *format, ...);

/* ---- conn.c */

/** @brief Check the options. @return CRAB_OK or CRAB_E_INVALID, `failure` filled */
enum crab_status conn_check_options(const struct crab_conn_options *options, struct crab_failure *failure);

/** @brief A connection without a socket. @return NULL: no memory */
struct crab_conn *conn_make(const struct crab_conn_options *options);

/**
 * @brief HELLO and AUTH, as far as the options want them.
 * @param conn a connection whose socket is open; in an event loop they are queued, otherwise their replies are awaited
 * @param options the owner's
 * @param deadline over both; unused in an event loop
 * @return CRAB_OK, or how the first of them failed
 */
enum crab_status conn_shake_hands(struct crab_conn *conn, const struct crab_conn_options *options,
                                  struct net_deadline *deadline);

/** @brief Close the socket and free everything, without telling anybody. */
void conn_destroy(struct crab_conn *conn);

/* ---- event.c */

/** @brief Tell the loop what is wanted now, if that has changed. */
void event_update(struct crab_conn *conn);

/** @brief Tell the loop that the socket is about to be closed. */
void event_stop(struct crab_conn *conn);

/** @brief End all requests and the loop's interest, because the owner closes the connection. @return false: later */
bool event_close(struct crab_conn *conn);

/** @brief Queue HELLO or AUTH: the connection is ready when all of them are answered. @return as crab_conn_queue() */
enum crab_status event_greet(struct crab_conn *conn, const union crab_request *request);

/** @brief The time on CLOCK_MONOTONIC by which something that begins now must end. */
uint64_t event_deadline(const struct crab_conn *conn);

/* ---- pipeline.c */

/** @brief crab_conn_queue() under a deadline that is the caller's. */
enum crab_status conn_queue(struct crab_conn *conn, const union crab_request *request, uint32_t *tag,
                            struct net_deadline *deadline);

/** @brief Queue a request whose value follows by itself: its head alone. */
enum crab_status conn_queue_head(struct crab_conn *conn, const union crab_request *request,
                                 struct net_deadline *deadline);

/** @brief Whether a reply belongs to the oldest request. @return CRAB_OK; or it broke the connection */
enum crab_status conn_check_answer(struct crab_conn *conn, const union crab_reply *reply);

/** @brief Whether a blocking call may begin. @return CRAB_OK, or why not */
enum crab_status conn_may_call(struct crab_conn *conn);

/** @brief crab_conn_next_reply() under a deadline that is the caller's; in an event loop CRAB_WAIT instead of waiting. */
enum crab_status conn_next(struct crab_conn *conn, struct crab_result *result, struct net_deadline *deadline);

/**
 * @brief Take the pushes at the front of the input buffer; with nothing unanswered, refuse anything else there.
 * @return CRAB_OK, or what broke the connection
 */
enum crab_status conn_take_pushes(struct crab_conn *conn);

/** @brief The request at the front of the ring, which must not be empty, as its waiter; NULL: it has none. */
static inline struct waiter *conn_front(const struct crab_conn *conn)
{
    return conn->waiters != NULL ? &conn->waiters[conn->ring_first] : NULL;
}

/** @brief The deadline of a call that begins now. */
static inline struct net_deadline conn_deadline(const struct crab_conn *conn)
{
    return (struct net_deadline){.timeout_ms = conn->timeout_ms};
}

/** @brief conn_queue() and conn_next() for one request; what the server said before it closed counts. */
enum crab_status conn_call(struct crab_conn *conn, const union crab_request *request, struct crab_result *result,
                           struct net_deadline *deadline);

/** @brief Wipe what was sent from the output buffer, because it held a secret. */
void conn_forget_sent(struct crab_conn *conn);

/* ---- reply.c */

/** @brief Whether a request can have this reply; an op outside the known ones can answer anything. */
bool reply_fits(const struct in_flight *request, uint8_t reply);

/** @brief Why a reply cannot belong to a request; NULL: it can. */
const char *reply_mismatch(const struct in_flight *request, const union crab_reply *reply);

/** @brief The longest reply that a server with this limit of values may send. */
uint32_t reply_limit(uint32_t max_value);

/** @brief Flatten a reply into a result; `request` and `tag` are the caller's to fill. */
void reply_to_result(const union crab_reply *reply, struct crab_result *result);

/** @brief Copy a server's text for people: what is not printable ASCII becomes '?', the end is a zero. */
void reply_copy_text(struct crab_slice text, char *copy, size_t size);

/** @brief Take over what WELCOME says. @return CRAB_OK, or CRAB_E_PROTOCOL: the connection is broken */
enum crab_status conn_welcome(struct crab_conn *conn, const struct crab_rep_welcome *welcome);

/* ---- stream.c */

/** @brief Begin to give the value at the front to its sink. @return CRAB_EMPTY: not yet, or there is none */
enum crab_status stream_begin(struct crab_conn *conn);

/** @brief Give what is here to the sink. @return whether that was all; otherwise `*wanted` more bytes are */
bool stream_pour(struct crab_conn *conn, uint64_t *wanted);

/** @brief Give a value that came whole to the sink of its request. */
void stream_whole(const struct waiter *waiter, struct crab_result *result);

/* ---- late.c */

/** @brief Keep a late error until it is taken. */
void late_add(struct crab_conn *conn, const struct crab_push_late_error *push);

/* ---- queue.c: requests from arguments, for blocking, queued and quiet calls alike */

/** @brief Build a PUT. @return false if an argument is outside what the struct can say */
bool request_put(union crab_request *request, struct crab_slice key, struct crab_slice value,
                 const struct crab_put_options *options);
/** @brief Build a GET; `ttl_ms` 0 means no touch. */
void request_get(union crab_request *request, struct crab_slice key, uint64_t ttl_ms, bool meta);
/** @brief Build an EXPIRE. */
void request_expire(union crab_request *request, struct crab_slice key, uint64_t ttl_ms);
/** @brief Build an INCR or DECR, as `op` says. */
void request_count(union crab_request *request, uint8_t op, struct crab_slice key, uint64_t delta,
                   const struct crab_incr_options *options);
/** @brief Build a HELLO; a NULL name means the library's. */
void request_hello(union crab_request *request, const char *client_name);
/** @brief Build a request that is no more than op, key and value. */
void request_plain(union crab_request *request, uint8_t op, struct crab_slice key, struct crab_slice value);

/** @brief A slice of arguments; a NULL pointer is an empty one only if the length says so. */
static inline struct crab_slice slice_of(const void *data, size_t len)
{
    return (struct crab_slice){.data = data, .len = len};
}

/** @brief A string's bytes; NULL is empty. */
struct crab_slice slice_of_string(const char *string);

#endif
