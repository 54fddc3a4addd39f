/* SPDX-License-Identifier: MIT */
/**
 * @file many.h
 * @brief Many keys in one call: requests and replies overlap, so that it takes little more than the longest of them.
 *
 * Each call is a pipeline of at most 512 requests at a time.  Results come one by one, in the order of the keys, so
 * that nothing needs to be kept or copied.
 */
#ifndef CRABCACHE_MANY_H
#define CRABCACHE_MANY_H

#include <stddef.h>

#include "crabcache/conn.h"
#include "crabcache/pipeline.h"
#include "crabcache/status.h"
#include "crabcache/version.h"
#include "crabcache/wire.h"

CRAB_BEGIN_DECLS

/** @brief A key and its value. */
struct crab_pair {
    struct crab_slice key;   /**< The key, 1 to 65,535 bytes. */
    struct crab_slice value; /**< The value. */
};

/**
 * @brief Called for each key of a call for many, in their order.
 * @param context what was given to the call
 * @param index which key
 * @param result the reply; its slices are borrowed until the function returns, which must not use the connection
 */
typedef void (*crab_each)(void *context, size_t index, const struct crab_result *result);

/**
 * @brief Read many keys, waiting: as a pipeline, under one deadline.
 * @param conn a connection without unanswered requests
 * @param keys the keys
 * @param count how many, from 0 on
 * @param each called with the result of each
 * @param context passed to it
 * @return #CRAB_OK: each key has its result; or a failure, see @ref conn_failures; those that were told have theirs, and
 *         with #CRAB_E_INVALID nothing was sent
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_get_many(struct crab_conn *conn, const struct crab_slice *keys,
                                                           size_t count, crab_each each, void *context);

/**
 * @brief Store many values, waiting: as a pipeline, under one deadline.
 * @param conn a connection without unanswered requests
 * @param pairs keys and values
 * @param count how many, from 0 on
 * @param options for all of them; NULL: the defaults
 * @param each called with the result of each; NULL: nobody wants to know
 * @param context passed to it
 * @return as crab_conn_get_many()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_put_many(struct crab_conn *conn, const struct crab_pair *pairs,
                                                           size_t count, const struct crab_put_options *options,
                                                           crab_each each, void *context);

/**
 * @brief Delete many keys, waiting: as a pipeline, under one deadline.
 * @param conn a connection without unanswered requests
 * @param keys the keys
 * @param count how many, from 0 on
 * @param each called with the result of each; NULL: nobody wants to know
 * @param context passed to it
 * @return as crab_conn_get_many()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_del_many(struct crab_conn *conn, const struct crab_slice *keys,
                                                           size_t count, crab_each each, void *context);

CRAB_END_DECLS

#endif
