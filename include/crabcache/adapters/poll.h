/* SPDX-License-Identifier: MIT */
/**
 * @file adapters/poll.h
 * @brief Some connections and poll(): the simplest loop.
 *
 * @code{.c}
 * while (crab_conn_in_flight(a) + crab_conn_in_flight(b) != 0)
 *     crab_poll_turn((struct crab_conn *[]){a, b}, 2, -1);
 * @endcode
 */
#ifndef CRABCACHE_ADAPTERS_POLL_H
#define CRABCACHE_ADAPTERS_POLL_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/event.h"

/** @brief Most connections of crab_poll_turn(). */
#define CRAB_POLL_MAX 64

/**
 * @brief What poll() should watch a connection for.
 * @param conn a connection of crab_conn_start()
 * @return an entry for poll(); its `fd` is negative if there is nothing to watch
 */
static inline struct pollfd crab_poll_entry(const struct crab_conn *conn)
{
    struct pollfd entry;
    unsigned wants = crab_conn_wants(conn);
    entry.fd = wants != 0 ? crab_conn_fd(conn) : -1;
    entry.events = (short)(((wants & CRAB_EVENT_READ) != 0 ? POLLIN : 0) | ((wants & CRAB_EVENT_WRITE) != 0 ? POLLOUT : 0));
    entry.revents = 0;
    return entry;
}

/**
 * @brief What poll() has said, for crab_conn_process(); errors and hang-ups count as readable.
 * @param entry an entry after poll()
 * @return #CRAB_EVENT_READ, #CRAB_EVENT_WRITE, both, or 0
 */
static inline unsigned crab_poll_events(const struct pollfd *entry)
{
    return ((entry->revents & POLLOUT) != 0 ? CRAB_EVENT_WRITE : 0U) |
           ((entry->revents & ~POLLOUT) != 0 ? CRAB_EVENT_READ : 0U);
}

/**
 * @brief Wait until something happens on one of some connections, or a time-out, and process them all.
 * @param conns connections of crab_conn_start(); a callback may close the one that it is called for, no other
 * @param count how many, at most #CRAB_POLL_MAX
 * @param timeout_ms wait no longer than this; -1: as long as the connections allow
 * @return what poll() returned: 0: nothing happened; -1: it failed, see errno, and nothing was processed
 */
static inline int crab_poll_turn(struct crab_conn *const *conns, size_t count, int timeout_ms)
{
    struct pollfd entries[CRAB_POLL_MAX];
    count = count < CRAB_POLL_MAX ? count : CRAB_POLL_MAX;
    for (size_t i = 0; i < count; i++) {
        int64_t next = crab_conn_next_timeout(conns[i]);
        if (next >= 0 && (timeout_ms < 0 || next < timeout_ms))
            timeout_ms = next < INT32_MAX ? (int)next : INT32_MAX;
        entries[i] = crab_poll_entry(conns[i]);
    }
    int ready = poll(entries, (nfds_t)count, timeout_ms);
    if (ready < 0)
        return ready;
    for (size_t i = 0; i < count; i++) {
        unsigned events = crab_poll_events(&entries[i]);
        if (events != 0 || crab_conn_next_timeout(conns[i]) == 0)
            (void)crab_conn_process(conns[i], events);
    }
    return ready;
}

#endif
