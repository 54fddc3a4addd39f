/* SPDX-License-Identifier: MIT */
/**
 * @file adapters/libuv.h
 * @brief Connections in a libuv loop.
 *
 * After crab_libuv_attach() there is nothing left to do but queue requests and run the loop.  The loop ends by itself only when
 * the connection has been closed.
 */
#ifndef CRABCACHE_ADAPTERS_LIBUV_H
#define CRABCACHE_ADAPTERS_LIBUV_H

#include <stdlib.h>
#include <uv.h>

#include "crabcache/event.h"

/** @cond INTERNAL */
struct crab_libuv_ {
    uv_poll_t poll;
    uv_timer_t timer;
    struct crab_conn *conn;
    int open; /* handles that are not closed yet */
};

static inline void crab_libuv_polled_(uv_poll_t *poll, int status, int bits)
{
    struct crab_libuv_ *watch = (struct crab_libuv_ *)poll->data;
    unsigned events = ((bits & UV_WRITABLE) != 0 ? CRAB_EVENT_WRITE : 0U) |
                      ((bits & UV_READABLE) != 0 || status < 0 ? CRAB_EVENT_READ : 0U);
    (void)crab_conn_process(watch->conn, events);
}

static inline void crab_libuv_timed_(uv_timer_t *timer)
{
    (void)crab_conn_process(((struct crab_libuv_ *)timer->data)->conn, 0);
}

static inline void crab_libuv_freed_(uv_handle_t *handle)
{
    struct crab_libuv_ *watch = (struct crab_libuv_ *)handle->data;
    if (--watch->open == 0)
        free(watch);
}

/* The socket is about to be closed: let go of it now, as its number may soon be another file's. */
static inline void crab_libuv_let_go_(struct crab_libuv_ *watch)
{
    if (!uv_is_closing((uv_handle_t *)&watch->poll))
        uv_close((uv_handle_t *)&watch->poll, crab_libuv_freed_);
}

static inline void crab_libuv_update_(void *context, unsigned events, int64_t timeout_ms)
{
    struct crab_libuv_ *watch = (struct crab_libuv_ *)context;
    int bits = ((events & CRAB_EVENT_READ) != 0 ? UV_READABLE : 0) | ((events & CRAB_EVENT_WRITE) != 0 ? UV_WRITABLE : 0);
    if (crab_conn_state(watch->conn) != CRAB_OK)
        crab_libuv_let_go_(watch);
    else if (bits == 0)
        (void)uv_poll_stop(&watch->poll);
    else
        (void)uv_poll_start(&watch->poll, bits, crab_libuv_polled_);
    if (timeout_ms < 0) {
        (void)uv_timer_stop(&watch->timer);
        return;
    }
    uv_update_time(watch->timer.loop); /* the time counts from now, not from the loop's last turn */
    (void)uv_timer_start(&watch->timer, crab_libuv_timed_, (uint64_t)timeout_ms, 0);
}

static inline void crab_libuv_closed_(void *context)
{
    struct crab_libuv_ *watch = (struct crab_libuv_ *)context;
    crab_libuv_let_go_(watch);
    uv_close((uv_handle_t *)&watch->timer, crab_libuv_freed_);
}
/** @endcond */

/**
 * @brief Let a libuv loop run a connection.
 * @param conn a connection of crab_conn_start()
 * @param loop the loop; the connection belongs to its thread
 * @return 0, or libuv's error; then the connection is not attached
 */
static inline int crab_libuv_attach(struct crab_conn *conn, uv_loop_t *loop)
{
    struct crab_libuv_ *watch = (struct crab_libuv_ *)calloc(1, sizeof *watch);
    if (watch == NULL)
        return UV_ENOMEM;
    int failed = uv_poll_init_socket(loop, &watch->poll, crab_conn_fd(conn));
    if (failed != 0) {
        free(watch);
        return failed;
    }
    (void)uv_timer_init(loop, &watch->timer); /* it cannot fail */
    watch->conn = conn;
    watch->open = 2;
    watch->poll.data = watch;
    watch->timer.data = watch;
    struct crab_loop functions = {crab_libuv_update_, crab_libuv_closed_, watch};
    crab_conn_attach(conn, &functions);
    return 0;
}

#endif
