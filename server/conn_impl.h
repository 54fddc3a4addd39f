/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What conn.c does by way of conn_io.c: system calls on a connection's socket, and buffers for which others may give way.
 */
#ifndef CRABCACHE_SERVER_CONN_IMPL_H
#define CRABCACHE_SERVER_CONN_IMPL_H

#include "server/conn.h"

/** How sending or receiving went. */
enum conn_moved {
    CONN_DONE,  /**< All was sent; something was received. */
    CONN_AGAIN, /**< The kernel's buffer is full; there is nothing to receive. */
    CONN_MORE,  /**< Something was received, but nothing to execute yet: part of a large frame, or skipped. */
    CONN_END    /**< The connection is over. */
};

/** @brief Send from a queue. @return CONN_DONE if it is empty then, CONN_AGAIN, or CONN_END. */
enum conn_moved conn_send(struct conn_io *io, struct conn *c, struct buf_out *out);

/**
 * @brief Receive once.
 * @param to  where to. @param room  how much, 1 on. @param[out] len  with CONN_DONE, how much came.
 * @return CONN_DONE, CONN_AGAIN, or CONN_END: the peer's stream has ended or is broken.
 */
enum conn_moved conn_receive(struct conn_io *io, struct conn *c, uint8_t *to, size_t room, size_t *len);

/** @brief buf_take(); others give way if need be. @return false: there is no room all the same. */
bool conn_take(struct conn_io *io, size_t size, struct buf *buf);

/** @brief buf_grow(), likewise. */
bool conn_grow(struct conn_io *io, size_t size, struct buf *buf);

/** @brief buf_out_park() of the worker's output, likewise. */
bool conn_park(struct conn_io *io, struct buf *buf);

#endif
