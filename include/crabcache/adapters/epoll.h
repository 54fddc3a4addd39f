/* SPDX-License-Identifier: MIT */
/**
 * @file adapters/epoll.h
 * @brief Connections in a loop of one's own around epoll.
 *
 * @code{.c}
 * struct crab_epoll watch;
 * crab_epoll_attach(&watch, conn, epoll_fd);
 * for (;;) {
 *     int n = epoll_wait(epoll_fd, events, MAX_EVENTS, crab_epoll_timeout(&watch));
 *     for (int i = 0; i < n; i++)
 *         if (events[i].data.ptr == &watch)
 *             crab_epoll_ready(&watch, events[i].events);
 *     crab_epoll_tick(&watch);
 * }
 * @endcode
 *
 * Several connections: wait for the least of their time-outs (-1 counts as without end), and tick each of them.
 */
#ifndef CRABCACHE_ADAPTERS_EPOLL_H
#define CRABCACHE_ADAPTERS_EPOLL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "crabcache/event.h"

/** @brief A connection that an epoll descriptor watches.  Its `data.ptr` there is this struct. */
struct crab_epoll {
    struct crab_conn *conn; /**< The connection; NULL when it has been closed. */
    int epoll_fd;           /**< Who watches it. */
    int fd;                 /**< The socket that is watched; -1: none. */
    unsigned events;        /**< What it is watched for. */
};

/** @cond INTERNAL */
static inline uint32_t crab_epoll_bits_(unsigned events)
{
    return ((events & CRAB_EVENT_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
           ((events & CRAB_EVENT_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0);
}

static inline void crab_epoll_update_(void *context, unsigned events, int64_t timeout_ms)
{
    struct crab_epoll *watch = (struct crab_epoll *)context;
    (void)timeout_ms; /* crab_epoll_timeout() asks again */
    if (events == watch->events && (watch->fd >= 0 || events == 0))
        return;
    struct epoll_event event;
    event.events = crab_epoll_bits_(events);
    event.data.ptr = watch;
    if (events == 0 && watch->fd >= 0) {
        (void)epoll_ctl(watch->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
        watch->fd = -1;
    } else if (events != 0) {
        int how = watch->fd >= 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        watch->fd = crab_conn_fd(watch->conn);
        (void)epoll_ctl(watch->epoll_fd, how, watch->fd, &event);
    }
    watch->events = events;
}

static inline void crab_epoll_closed_(void *context)
{
    ((struct crab_epoll *)context)->conn = NULL;
}
/** @endcond */

/**
 * @brief Let an epoll descriptor watch a connection.
 * @param watch filled; must live as long as the connection
 * @param conn a connection of crab_conn_start()
 * @param epoll_fd the epoll descriptor
 */
static inline void crab_epoll_attach(struct crab_epoll *watch, struct crab_conn *conn, int epoll_fd)
{
    struct crab_loop loop = {crab_epoll_update_, crab_epoll_closed_, watch};
    watch->conn = conn;
    watch->epoll_fd = epoll_fd;
    watch->fd = -1;
    watch->events = 0;
    crab_conn_attach(conn, &loop);
}

/**
 * @brief How long epoll_wait() may wait.
 * @param watch a connection
 * @return milliseconds, -1: without end
 */
static inline int crab_epoll_timeout(const struct crab_epoll *watch)
{
    int64_t timeout_ms = watch->conn != NULL ? crab_conn_next_timeout(watch->conn) : -1;
    return timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms;
}

/**
 * @brief Pass on what epoll_wait() has reported.
 * @param watch a connection; it may have been closed meanwhile
 * @param bits the event's bits; errors and hang-ups count as readable
 */
static inline void crab_epoll_ready(struct crab_epoll *watch, uint32_t bits)
{
    unsigned events = ((bits & (uint32_t)EPOLLOUT) != 0 ? CRAB_EVENT_WRITE : 0U) |
                      ((bits & ~(uint32_t)EPOLLOUT) != 0 ? CRAB_EVENT_READ : 0U);
    if (watch->conn != NULL)
        (void)crab_conn_process(watch->conn, events);
}

/**
 * @brief After each epoll_wait(): time-outs, and the end of a connection that broke.
 * @param watch a connection; it may have been closed meanwhile
 */
static inline void crab_epoll_tick(struct crab_epoll *watch)
{
    if (watch->conn != NULL && crab_conn_next_timeout(watch->conn) == 0)
        (void)crab_conn_process(watch->conn, 0);
}

#endif
