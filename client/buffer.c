/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a connection; see buffer.h.  Moving happens only in buffer_reserve(), which is why slices that were
 * given out stay valid until the next call that receives or queues.
 */
#include "client/buffer.h"

#include <string.h>

#define SMALLEST ((size_t)16 * 1024)

bool buffer_holds(const struct buffer *buffer, struct crab_slice slice)
{
    uintptr_t first = (uintptr_t)buffer->data;
    uintptr_t byte = (uintptr_t)slice.data;
    return slice.len != 0 && buffer->data != NULL && byte >= first && byte - first < buffer->capacity;
}

static void move_to_front(struct buffer *buffer)
{
    size_t used = buffer_used(buffer);
    if (used != 0 && buffer->start != 0)
        memmove(buffer->data, buffer->data + buffer->start, used);
    buffer->start = 0;
    buffer->end = used;
}

bool buffer_reserve(struct buffer *buffer, const struct crab_allocator *allocator, size_t room)
{
    if (buffer->start == buffer->end)
        buffer->start = buffer->end = 0;
    if (buffer_room(buffer) >= room)
        return true;
    size_t used = buffer_used(buffer);
    if (room > SIZE_MAX / 2 - used)
        return false;
    size_t wanted = used + room;
    if (wanted > buffer->capacity) {
        size_t capacity = buffer->capacity < SMALLEST ? SMALLEST : buffer->capacity;
        while (capacity < wanted)
            capacity *= 2;
        move_to_front(buffer);
        uint8_t *grown = allocator->resize(allocator->context, buffer->data, capacity);
        if (grown == NULL)
            return false;
        buffer->data = grown;
        buffer->capacity = capacity;
        return true;
    }
    move_to_front(buffer);
    return true;
}

void buffer_fini(struct buffer *buffer, const struct crab_allocator *allocator)
{
    if (buffer->data != NULL)
        (void)allocator->resize(allocator->context, buffer->data, 0);
    *buffer = (struct buffer){0};
}
