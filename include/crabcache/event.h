/* SPDX-License-Identifier: MIT */
/**
 * @file event.h
 * @brief A connection in an event loop: nothing waits, replies come to completions.
 *
 * @section event_model The model
 * A connection made by crab_conn_start() never waits: not to connect, not to send, not for a reply.  It belongs to the
 * thread of its loop.  Requests are queued by the calls of pipeline.h, from the start on: they follow HELLO and AUTH.
 * crab_conn_then() gives the request queued last a completion.  The loop watches crab_conn_fd() for crab_conn_wants(),
 * wakes up after crab_conn_next_timeout() at the latest, and calls crab_conn_process(), which sends, receives, and calls
 * completions in the order of the requests.  The headers in crabcache/adapters/ do this for libuv, libevent, epoll and
 * poll; each is a few lines around #crab_loop.
 *
 * @code{.c}
 * crab_conn_start(&options, &conn, &failure);
 * crab_libuv_attach(conn, uv_default_loop());
 * if (crab_conn_queue_get(conn, "key", 3) == CRAB_OK)
 *     crab_conn_then(conn, got_it, context);
 * uv_run(uv_default_loop(), UV_RUN_DEFAULT);
 * @endcode
 *
 * @section event_ends How requests end
 * Every completion is called exactly once: with the reply, or, when the connection breaks or is closed, with the reason as
 * the result's status; `outcome_unknown` then says whether a write may have been executed.  A request must be answered
 * within `timeout_ms` of being queued; connecting, HELLO and AUTH together have the same time.  A request without
 * completion is answered by crab_conn_next_reply(), which gives #CRAB_WAIT instead of waiting; the replies behind it
 * wait for that, too.
 *
 * @section event_bounds Bounds
 * Besides the bound of requests in flight (64 until the server has named its own) at most 256 KiB are queued, or one
 * request that is larger; the next one is refused with #CRAB_E_FULL.  Every value is copied.  Larger ones can go in
 * pieces, see stream.h.  Blocking calls are refused with #CRAB_E_INVALID.
 *
 * @section event_callbacks What a callback may do
 * Anything but wait: queue requests, take replies, close this connection or others.  A connection that its own callback
 * closes is freed when crab_conn_process() returns; it must not be used any more.
 */
#ifndef CRABCACHE_EVENT_H
#define CRABCACHE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "crabcache/conn.h"
#include "crabcache/pipeline.h"
#include "crabcache/status.h"
#include "crabcache/version.h"

CRAB_BEGIN_DECLS

/** @brief In crab_conn_wants() and crab_conn_process(): the socket is wanted to be, or is, readable. */
#define CRAB_EVENT_READ 1U
/** @brief In crab_conn_wants() and crab_conn_process(): the socket is wanted to be, or is, writable. */
#define CRAB_EVENT_WRITE 2U

/**
 * @brief Called with the end of one request.
 * @param conn its connection
 * @param result the reply, or why there is none; its slices are borrowed until the completion returns
 * @param context what was given to crab_conn_then()
 */
typedef void (*crab_done)(struct crab_conn *conn, const struct crab_result *result, void *context);

/** @brief What a connection needs of an event loop; an adapter fills it.  The functions may only ask about its state. */
struct crab_loop {
    /**
     * @brief What is wanted has changed.
     *
     * `events`: when to call crab_conn_process(), #CRAB_EVENT_READ, #CRAB_EVENT_WRITE or both; 0: stop watching
     * the socket, it is about to be closed.  `timeout_ms`: call it after this time anyhow; 0: as soon as possible; -1: not.
     */
    void (*update)(void *context, unsigned events, int64_t timeout_ms);
    /** @brief The connection is closed: stop the timer, free `context`.  The last call of all. */
    void (*closed)(void *context);
    /** @brief Passed to both. */
    void *context;
};

/**
 * @brief Begin to connect, without waiting.  HELLO and, with a user, AUTH follow by themselves.
 * @param options where and how; its pointers are not kept, but for `allocator` and the context of `log`. `host` must be
 *        a numeric address or the path of a unix socket: names are for the loop's own resolver, or crab_conn_open()
 * @param[out] conn the new connection
 * @param[out] failure if not NULL: filled when the call fails
 * @return #CRAB_OK: under way, crab_conn_on_state() tells how it ends; #CRAB_E_INVALID; #CRAB_E_NO_MEMORY;
 *         #CRAB_E_RESOLVE: the host is not numeric; #CRAB_E_REFUSED and #CRAB_E_SYSTEM: it failed at once
 * @ownership The caller owns `*conn` and ends it by crab_conn_close().
 * @threads Any thread; the connection then belongs to one thread at a time.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_start(const struct crab_conn_options *options,
                                                        struct crab_conn **conn, struct crab_failure *failure);

/**
 * @brief Use a connection that crab_conn_open() has made in an event loop from now on.
 * @param conn a connection without unanswered requests
 * @return #CRAB_OK; #CRAB_E_PENDING: it has unanswered requests; #CRAB_E_BROKEN
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_use_events(struct crab_conn *conn);

/**
 * @brief Tell a connection about its event loop.  `update` is called at once.
 * @param conn a connection of crab_conn_start()
 * @param loop its functions, copied; NULL: there is none any more, and `closed` of the former is not called
 * @threads The connection's thread.
 */
CRAB_API void crab_conn_attach(struct crab_conn *conn, const struct crab_loop *loop);

/**
 * @brief Be told when the connection is ready, and when it breaks.
 *
 * Called by crab_conn_process() with #CRAB_OK when connecting, HELLO and AUTH are done, and with the reason when
 * the connection has broken, after all completions; not by crab_conn_close().
 * @param conn a connection
 * @param changed the function; NULL: none
 * @param context passed to it
 * @threads The connection's thread.
 */
CRAB_API void crab_conn_on_state(struct crab_conn *conn,
                                 void (*changed)(struct crab_conn *conn, enum crab_status state, void *context),
                                 void *context);

/**
 * @brief Give the request that was queued last a completion.
 * @param conn a connection of crab_conn_start() whose last queue call answered #CRAB_OK, and was no quiet one
 * @param done the completion
 * @param context passed to it
 * @return #CRAB_OK; #CRAB_E_INVALID: there is no such request
 * @threads The connection's thread.
 */
CRAB_API enum crab_status crab_conn_then(struct crab_conn *conn, crab_done done, void *context);

/**
 * @brief Whether connecting, HELLO and AUTH are done.
 * @param conn a connection
 * @return true while the connection is ready; true also for one that crab_conn_open() made
 * @threads The connection's thread.
 */
CRAB_API bool crab_conn_ready(const struct crab_conn *conn);

/**
 * @brief What the loop should watch the socket for.
 * @param conn a connection of crab_conn_start()
 * @return #CRAB_EVENT_READ, #CRAB_EVENT_WRITE, both, or 0
 * @threads The connection's thread.
 */
CRAB_API unsigned crab_conn_wants(const struct crab_conn *conn);

/**
 * @brief When crab_conn_process() should be called although the socket is quiet.
 * @param conn a connection of crab_conn_start()
 * @return milliseconds from now, 0: as soon as possible, -1: not at all
 * @threads The connection's thread.
 */
CRAB_API int64_t crab_conn_next_timeout(const struct crab_conn *conn);

/**
 * @brief Send and receive what the socket allows, call the completions that are due, and look at the clock.
 *
 * Receives at most once, up to 256 KiB, so that one connection does not keep the others of a loop waiting; but many times
 * where it would otherwise report a time-out that is only its own loop's slowness.
 * @param conn a connection of crab_conn_start()
 * @param events what the loop has seen: #CRAB_EVENT_READ, #CRAB_EVENT_WRITE, both, or 0
 * @return #CRAB_OK; #CRAB_E_INVALID: not such a connection; otherwise it is broken, and this is what broke it, or, if a
 *         callback has closed it, gone: #CRAB_E_BROKEN
 * @threads The connection's thread.
 */
CRAB_API enum crab_status crab_conn_process(struct crab_conn *conn, unsigned events);

CRAB_END_DECLS

#endif
