/* SPDX-License-Identifier: MIT */
/*
 * Late errors of quiet writes [P-7]: they arrive between replies at any time and wait here until somebody takes
 * them.  A server cannot make a client keep more than CONN_LATE_LIMIT of them; the rest are counted.
 */
#include "client/internal.h"

#define LATE_LEAST 16U

static bool grow(struct crab_conn *conn)
{
    struct late_ring *late = &conn->late;
    if (late->capacity == CONN_LATE_LIMIT)
        return false;
    uint32_t capacity = late->capacity == 0 ? LATE_LEAST : late->capacity * 2;
    struct crab_late_error *entries =
        conn->allocator.resize(conn->allocator.context, late->entries, capacity * sizeof *entries);
    if (entries == NULL)
        return false;
    /* What had wrapped around moves behind the old end, where the ring now goes on. */
    for (uint32_t i = 0; i < late->first; i++)
        entries[late->capacity + i] = entries[i];
    late->entries = entries;
    late->capacity = capacity;
    return true;
}

void late_add(struct crab_conn *conn, const struct crab_push_late_error *push)
{
    struct late_ring *late = &conn->late;
    if (late->count == late->capacity && !grow(conn)) {
        late->lost++;
        return;
    }
    struct crab_late_error *entry = &late->entries[(late->first + late->count) & (late->capacity - 1)];
    entry->tag = push->late_tag;
    entry->code = push->code;
    reply_copy_text(push->text, entry->text, sizeof entry->text);
    late->count++;
}

enum crab_status crab_conn_late_error(struct crab_conn *conn, struct crab_late_error *late)
{
    struct late_ring *ring = &conn->late;
    if (ring->count == 0)
        return CRAB_EMPTY;
    *late = ring->entries[ring->first];
    ring->first = (ring->first + 1) & (ring->capacity - 1);
    ring->count--;
    return CRAB_OK;
}

uint64_t crab_conn_late_errors_lost(const struct crab_conn *conn)
{
    return conn->late.lost;
}
