/* SPDX-License-Identifier: MIT */
/**
 * @file fetch.h
 * @brief On a shared client: many keys in one call, and values that are loaded once when they are missing.
 */
#ifndef CRABCACHE_FETCH_H
#define CRABCACHE_FETCH_H

#include <stddef.h>
#include <stdint.h>

#include "crabcache/client.h"
#include "crabcache/many.h"
#include "crabcache/status.h"
#include "crabcache/version.h"

CRAB_BEGIN_DECLS

/**
 * @brief Read many keys, all on their way at the same time.
 * @param client a client
 * @param keys the keys
 * @param count how many
 * @param[out] values `count` values; those whose status is #CRAB_OK are filled
 * @param options time-out of all together, and so on; NULL: the client's.  Nothing is repeated
 * @param[out] statuses `count` statuses, all of them filled: #CRAB_OK, #CRAB_MISS, or a failure
 * @return #CRAB_OK if none failed; otherwise the first failure, see @ref client_answers
 * @ownership The caller owns the values and ends each by crab_value_fini().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_get_many(struct crab_client *client,
                                                             const struct crab_slice *keys, size_t count,
                                                             struct crab_value *values,
                                                             const struct crab_call_options *options,
                                                             enum crab_status *statuses);

/**
 * @brief Store many values, all on their way at the same time.
 * @param client a client
 * @param pairs keys and values; of two with the same key the later one stays
 * @param count how many
 * @param put time to live, condition and so on, of each; NULL: the defaults
 * @param options time-out of all together, and so on; NULL: the client's.  Nothing is repeated
 * @param[out] statuses if not NULL: `count` statuses, all of them filled
 * @return #CRAB_OK if none failed; otherwise the first failure, see @ref client_answers
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_put_many(struct crab_client *client,
                                                             const struct crab_pair *pairs, size_t count,
                                                             const struct crab_put_options *put,
                                                             const struct crab_call_options *options,
                                                             enum crab_status *statuses);

/**
 * @brief Delete many keys, all on their way at the same time.
 * @param client a client
 * @param keys the keys
 * @param count how many
 * @param options time-out of all together, and so on; NULL: the client's.  Nothing is repeated
 * @param[out] statuses if not NULL: `count` statuses, all of them filled: #CRAB_OK, #CRAB_MISS, or a failure
 * @return #CRAB_OK if none failed; otherwise the first failure, see @ref client_answers
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_del_many(struct crab_client *client,
                                                             const struct crab_slice *keys, size_t count,
                                                             const struct crab_call_options *options,
                                                             enum crab_status *statuses);

/**
 * @brief Read a value from the cache; if it is not there, load it and put it there.
 *
 * The loader gets the value from where it comes from: it fills it with crab_value_set() and answers #CRAB_OK, or #CRAB_MISS if there is
 * none, or anything else if it could not be had.  It must not fetch the same key from the same client.
 *
 * Of all threads of the process that fetch a key from this client at the same time, one loads; the others get what it has
 * loaded.  If the cache fails, the value is loaded as well: a cache that is down takes nobody with it.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms time to live of what is put, 1 to #CRAB_TTL_MAX_MS; 0, #CRAB_TTL_NEVER: for ever
 * @param loader gets the value
 * @param context passed to `loader`
 * @param options time-out and so on of the cache, and of waiting for another thread's loader; the own loader is not interrupted; NULL:
 *        the client's.  `failure` tells of the cache, even if the answer is #CRAB_OK: set its `status` to 0 before
 * @param[out] value filled after #CRAB_OK
 * @return #CRAB_OK; #CRAB_MISS: the loader found none; #CRAB_E_LOADER: it failed; #CRAB_E_TIMEOUT: another thread's loader took too
 *         long; #CRAB_E_INVALID; #CRAB_E_NO_MEMORY; #CRAB_E_FORKED
 * @ownership The caller owns the value and ends it by crab_value_fini().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_fetch(struct crab_client *client, const void *key, size_t key_len,
                                                   uint64_t ttl_ms,
                                                   enum crab_status (*loader)(void *context, const void *key,
                                                                              size_t key_len,
                                                                              struct crab_value *value),
                                                   void *context, const struct crab_call_options *options,
                                                   struct crab_value *value);

CRAB_END_DECLS

#endif
