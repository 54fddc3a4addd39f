/* SPDX-License-Identifier: MIT */
/*
 * Owned bytes: see crabcache/value.h, and value.h for what channels do with them.
 *
 * Invariant: data, if not NULL, points into block; block is NULL exactly if capacity is 0.
 */
#include "client/value.h"

#include <stdlib.h>
#include <string.h>

/* Blocks come in steps, so that a value whose length varies a little is not moved each time. */
#define VALUE_LEAST ((size_t)64)

void *value_resize_by_libc(void *context, void *memory, size_t bytes)
{
    (void)context;
    if (bytes == 0) {
        free(memory);
        return NULL;
    }
    return realloc(memory, bytes);
}

static void *resize(const struct crab_value *value, void *memory, size_t bytes)
{
    const struct crab_allocator *allocator = &value->allocator;
    return allocator->resize != NULL ? allocator->resize(allocator->context, memory, bytes)
                                     : value_resize_by_libc(NULL, memory, bytes);
}

void value_bind(struct crab_value *value, const struct crab_allocator *allocator)
{
    if (value->block == NULL)
        value->allocator = *allocator;
}

enum crab_status crab_value_set(struct crab_value *value, const void *data, size_t len)
{
    if (len > value->capacity) {
        size_t capacity = value->capacity > VALUE_LEAST ? value->capacity : VALUE_LEAST;
        while (capacity < len)
            capacity = capacity > SIZE_MAX / 2 ? len : capacity * 2;
        uint8_t *grown = resize(value, NULL, capacity);
        if (grown == NULL)
            return CRAB_E_NO_MEMORY;
        memcpy(grown, data, len);
        if (value->block != NULL)
            (void)resize(value, value->block, 0);
        value->block = grown;
        value->capacity = capacity;
    } else if (len != 0) {
        memmove(value->block, data, len);
    }
    value->data = value->block;
    value->len = len;
    return CRAB_OK;
}

void crab_value_fini(struct crab_value *value)
{
    if (value == NULL)
        return;
    if (value->block != NULL)
        (void)resize(value, value->block, 0);
    value->data = value->block = NULL;
    value->len = value->capacity = 0;
}

bool value_same_memory(const struct crab_value *value, const struct crab_allocator *allocator)
{
    return value->block == NULL ||
           (value->allocator.resize == allocator->resize && value->allocator.context == allocator->context);
}
