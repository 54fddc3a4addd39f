/* SPDX-License-Identifier: MIT */
/**
 * @file adapters/libevent.h
 * @brief Connections in a libevent base.
 *
 * After crab_libevent_attach() there is nothing left to do but queue requests and dispatch the base.
 */
#ifndef CRABCACHE_ADAPTERS_LIBEVENT_H
#define CRABCACHE_ADAPTERS_LIBEVENT_H

#include <event2/event.h>
#include <stdlib.h>

#include "crabcache/event.h"

/** @cond INTERNAL */
struct crab_libevent_ {
    struct event_base *base;
    struct event *socket; /* NULL: not watched */
    struct event *timer;
    struct crab_conn *conn;
    unsigned events;
};

static inline void crab_libevent_happened_(evutil_socket_t fd, short bits, void *context)
{
    unsigned events = ((bits & EV_WRITE) != 0 ? CRAB_EVENT_WRITE : 0U) | ((bits & EV_READ) != 0 ? CRAB_EVENT_READ : 0U);
    (void)fd;
    (void)crab_conn_process(((struct crab_libevent_ *)context)->conn, events);
}

static inline void crab_libevent_watch_(struct crab_libevent_ *watch, unsigned events)
{
    short bits = (short)(EV_PERSIST | ((events & CRAB_EVENT_READ) != 0 ? EV_READ : 0) |
                         ((events & CRAB_EVENT_WRITE) != 0 ? EV_WRITE : 0));
    if (events == watch->events)
        return;
    (void)event_del(watch->socket);
    watch->events = events;
    if (events == 0)
        return;
    (void)event_assign(watch->socket, watch->base, crab_conn_fd(watch->conn), bits, crab_libevent_happened_, watch);
    (void)event_add(watch->socket, NULL);
}

static inline void crab_libevent_update_(void *context, unsigned events, int64_t timeout_ms)
{
    struct crab_libevent_ *watch = (struct crab_libevent_ *)context;
    struct timeval time;
    crab_libevent_watch_(watch, events);
    if (timeout_ms < 0) {
        (void)event_del(watch->timer);
        return;
    }
    time.tv_sec = (time_t)(timeout_ms / 1000);
    time.tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000);
    (void)event_add(watch->timer, &time);
}

static inline void crab_libevent_closed_(void *context)
{
    struct crab_libevent_ *watch = (struct crab_libevent_ *)context;
    event_free(watch->socket);
    event_free(watch->timer);
    free(watch);
}
/** @endcond */

/**
 * @brief Let a libevent base run a connection.
 * @param conn a connection of crab_conn_start()
 * @param base the base; the connection belongs to its thread
 * @return 0, or -1: no memory; then the connection is not attached
 */
static inline int crab_libevent_attach(struct crab_conn *conn, struct event_base *base)
{
    struct crab_libevent_ *watch = (struct crab_libevent_ *)calloc(1, sizeof *watch);
    if (watch == NULL)
        return -1;
    watch->base = base;
    watch->conn = conn;
    watch->socket = event_new(base, crab_conn_fd(conn), EV_READ, crab_libevent_happened_, watch);
    watch->timer = event_new(base, -1, 0, crab_libevent_happened_, watch);
    if (watch->socket == NULL || watch->timer == NULL) {
        if (watch->socket != NULL)
            event_free(watch->socket);
        if (watch->timer != NULL)
            event_free(watch->timer);
        free(watch);
        return -1;
    }
    struct crab_loop functions = {crab_libevent_update_, crab_libevent_closed_, watch};
    crab_conn_attach(conn, &functions);
    return 0;
}

#endif
