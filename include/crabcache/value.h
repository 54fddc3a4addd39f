/* SPDX-License-Identifier: MIT */
/**
 * @file value.h
 * @brief Bytes that the caller owns and the library fills: what `struct crab_client` gives values back in.
 *
 * @code{.c}
 * struct crab_value value = {0};
 * for (size_t i = 0; i < n; i++)
 *     if (crab_client_get(client, keys[i], key_lens[i], &value, NULL) == CRAB_OK)
 *         use(value.data, value.len);
 * crab_value_fini(&value);
 * @endcode
 *
 * A value that is used again and again keeps its memory, so that nothing is allocated once it has grown to its size.
 */
#ifndef CRABCACHE_VALUE_H
#define CRABCACHE_VALUE_H

#include <stddef.h>
#include <stdint.h>

#include "crabcache/conn.h"
#include "crabcache/status.h"
#include "crabcache/version.h"
#include "crabcache/wire.h"

CRAB_BEGIN_DECLS

/** @brief Owned bytes.  All zeros is an empty one; read `data` and `len`, leave the rest to the library. */
struct crab_value {
    const uint8_t *data;             /**< The bytes; valid until the value is filled again or ended. */
    size_t len;                      /**< How many. */
    uint8_t *block;                  /**< The library's: the memory that `data` points into. */
    size_t capacity;                 /**< The library's: its size. */
    struct crab_allocator allocator; /**< The library's: where it came from; without `resize`: realloc() and free(). */
};

/**
 * @brief Fill a value with a copy of bytes.
 * @param value a value; its former bytes are gone afterwards
 * @param data the bytes; may be NULL if `len` is 0; may lie in the value itself
 * @param len how many
 * @return #CRAB_OK; #CRAB_E_NO_MEMORY: the value is as before
 * @ownership The caller keeps owning the value.
 * @threads One thread at a time.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_value_set(struct crab_value *value, const void *data, size_t len);

/**
 * @brief Free a value's memory.
 * @param value a value, or NULL, which does nothing; empty and usable again afterwards
 * @threads One thread at a time.  The client that filled it may be closed already.
 */
CRAB_API void crab_value_fini(struct crab_value *value);

CRAB_END_DECLS

#endif
