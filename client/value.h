/* SPDX-License-Identifier: MIT */
/*
 * What the library does with owned bytes besides filling them: giving them an allocator, and asking whether their block
 * may change places with a buffer.
 */
#ifndef CRABCACHE_CLIENT_VALUE_H
#define CRABCACHE_CLIENT_VALUE_H

#include <stdbool.h>

#include "crabcache/value.h"

/** @brief The allocator of those who name none: realloc() and free(). */
void *value_resize_by_libc(void *context, void *memory, size_t bytes);

/** @brief Say where memory shall come from, if the value has none yet. */
void value_bind(struct crab_value *value, const struct crab_allocator *allocator);

/** @brief Whether the value's block, if it has one, comes from this allocator. */
bool value_same_memory(const struct crab_value *value, const struct crab_allocator *allocator);

#endif
