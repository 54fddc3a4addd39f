/* SPDX-License-Identifier: MIT */
/*
 * A growable run of bytes with a read end and a write end: what a connection has received and not given out, and what
 * it has queued and not sent.
 *
 * Invariant: start <= end <= capacity.  It grows by doubling and never shrinks, so that a connection in its
 * steady state allocates nothing.
 */
#ifndef CRABCACHE_CLIENT_BUFFER_H
#define CRABCACHE_CLIENT_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/conn.h"

/** @brief Bytes from `start` to `end` are filled; room is from `end` to `capacity`. */
struct buffer {
    uint8_t *data;
    size_t capacity;
    size_t start;
    size_t end;
};

/** @brief How many bytes are filled. */
static inline size_t buffer_used(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

/** @brief The first filled byte; NULL while nothing was ever filled, as NULL must not be added to. */
static inline uint8_t *buffer_front(const struct buffer *buffer)
{
    return buffer->data != NULL ? buffer->data + buffer->start : NULL;
}

/** @brief How many bytes fit behind the filled ones without moving anything. */
static inline size_t buffer_room(const struct buffer *buffer)
{
    return buffer->capacity - buffer->end;
}

/** @brief Drop bytes at the front; they stay readable until the buffer is filled or made to move. */
static inline void buffer_drop(struct buffer *buffer, size_t bytes)
{
    buffer->start += bytes;
}

/** @brief Whether a slice points into the buffer's memory. */
bool buffer_holds(const struct buffer *buffer, struct crab_slice slice);

/**
 * @brief Make room behind the filled bytes, by moving them to the front or by growing.
 * @param buffer the buffer
 * @param allocator where memory comes from
 * @param room bytes wanted behind the filled ones
 * @return false if it cannot grow; nothing has changed then
 */
bool buffer_reserve(struct buffer *buffer, const struct crab_allocator *allocator, size_t room);

/**
 * @brief Free the buffer's memory.
 * @param buffer the buffer; empty afterwards
 * @param allocator where its memory came from
 */
void buffer_fini(struct buffer *buffer, const struct crab_allocator *allocator);

#endif
