/* SPDX-License-Identifier: MIT */
/**
 * @file status.h
 * @brief What a call of the client library answers.
 *
 * A miss, a time-out and an error are three different answers.  The first five are answers of a healthy
 * connection; everything from #CRAB_E_INVALID on is a failure.  Errors that the server names keep their own
 * numbers, `enum crab_error` of wire.h; a call reports them as #CRAB_E_SERVER.
 */
#ifndef CRABCACHE_STATUS_H
#define CRABCACHE_STATUS_H

#include <stdbool.h>

#include "crabcache/version.h"

CRAB_BEGIN_DECLS

/** @brief The result of a call.  The numbers are part of the binary interface and never change. */
enum crab_status {
    CRAB_OK = 0,     /**< Done. */
    CRAB_MISS = 1,   /**< The key is absent (the reply NULL); for a conditional put: so nothing was stored. */
    CRAB_EXISTS = 2, /**< A conditional put found an item that its condition excludes; nothing was stored. */
    CRAB_EMPTY = 3,  /**< There is nothing to take: no unanswered request, or no late error. */
    CRAB_WAIT = 4,   /**< (Event loops) Not yet: the call would have to wait. */

    CRAB_E_INVALID = 16,       /**< An argument breaks a rule; nothing was sent, the connection is as before. */
    CRAB_E_NO_MEMORY = 17,     /**< An allocation failed; nothing was sent, unless the connection is broken now. */
    CRAB_E_FULL = 18,          /**< The pipeline's bound is reached: take replies first. Nothing was lost. */
    CRAB_E_PENDING = 19,       /**< A blocking call needs an empty pipeline: take the queued replies first. */
    CRAB_E_SERVER = 20,        /**< The server answered with an error: see crab_conn_error(). */
    CRAB_E_UNKNOWN_REPLY = 21, /**< The server answered with a reply of a newer protocol; it was stepped over. */

    CRAB_E_RESOLVE = 32,  /**< The host's name has no address. */
    CRAB_E_REFUSED = 33,  /**< No connection could be made. */
    CRAB_E_TIMEOUT = 34,  /**< The deadline passed. The connection is broken now. */
    CRAB_E_CLOSED = 35,   /**< The server closed or reset the connection. It is broken now. */
    CRAB_E_PROTOCOL = 36, /**< The server broke the protocol. The connection is broken now. */
    CRAB_E_SYSTEM = 37,   /**< A system call failed: see crab_conn_system_error(). The connection is broken now. */
    CRAB_E_BROKEN = 38,   /**< The connection was broken by an earlier failure and is closed. */

    CRAB_E_OUTCOME_UNKNOWN = 39, /**< (crab_client) A write was sent and not answered: it may have been executed. */
    CRAB_E_CANCELLED = 40,       /**< (crab_client) The ticket was cancelled before its reply came. */
    CRAB_E_FORKED = 41,          /**< (crab_client) The handle was made by the parent of this process. */
    CRAB_E_DOWN = 42,            /**< (crab_client) The server could not be reached a moment ago; nothing was sent. */
    CRAB_E_LOADER = 43           /**< (crab_client) The loader of a fetch failed. */
};

/**
 * @brief A short English sentence for a status, without a full stop.
 * @param status any value
 * @return static text; "unknown status" for a number that is none
 * @ownership The text is static.
 * @threads Any thread.
 */
CRAB_API const char *crab_status_text(enum crab_status status);

/**
 * @brief The name of a status as it is spelled in C, for logs: "CRAB_E_TIMEOUT".
 * @param status any value
 * @return static text; "CRAB_E_?" for a number that is none
 * @ownership The text is static.
 * @threads Any thread.
 */
CRAB_API const char *crab_status_name(enum crab_status status);

/**
 * @brief Whether a status is a failure, and not one of the answers #CRAB_OK, #CRAB_MISS, #CRAB_EXISTS, #CRAB_EMPTY,
 *        #CRAB_WAIT.
 * @param status any value
 * @return true for #CRAB_E_INVALID and everything after it
 * @threads Any thread.
 */
static inline bool crab_status_failed(enum crab_status status)
{
    return (int)status >= (int)CRAB_E_INVALID;
}

CRAB_END_DECLS

#endif
