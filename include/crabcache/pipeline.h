/* SPDX-License-Identifier: MIT */
/**
 * @file pipeline.h
 * @brief Pipelining on one connection: queue any requests, take their replies in the same order.
 *
 * @code{.c}
 * for (size_t i = 0; i < n; i++)
 *     status = crab_conn_queue_get(conn, keys[i].data, keys[i].len);
 * while ((status = crab_conn_next_reply(conn, &result)) == CRAB_OK)
 *     use(&result);
 * @endcode
 *
 * @section pipeline_sending When bytes go out
 * A queue call copies its request into the connection's output buffer.  The buffer is sent by crab_conn_flush(), by
 * crab_conn_next_reply() before it waits, and by queue calls whenever it is full.  A value of 32 KiB or more is not
 * copied: its queue call sends it from where it lies, and has done with it when it returns.
 *
 * @section pipeline_bounds Bounds
 * At most `max_in_flight` requests are unanswered; the next one is refused with #CRAB_E_FULL.  Quiet writes count until
 * the reply to a later request has come, and leave the last place to such a request: queue a ping.  While the library
 * sends, it also reads, so that two full socket buffers never block each other; up to `max_buffered` bytes of replies
 * are kept, and after that the call gives back #CRAB_E_FULL.  In both cases nothing is lost: take a reply, go on.
 * Queue calls answer #CRAB_E_FULL only when the request was not queued; crab_conn_flush() when something is still to
 * be sent.
 */
#ifndef CRABCACHE_PIPELINE_H
#define CRABCACHE_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/conn.h"
#include "crabcache/status.h"
#include "crabcache/version.h"
#include "crabcache/wire.h"

CRAB_BEGIN_DECLS

/** @brief The reply to one pipelined request.  What a reply does not carry is 0. */
struct crab_result {
    enum crab_status status; /**< #CRAB_OK, #CRAB_MISS, #CRAB_EXISTS, #CRAB_E_SERVER or #CRAB_E_UNKNOWN_REPLY. */
    uint16_t error;          /**< With #CRAB_E_SERVER: the error, as `enum crab_error`. */
    uint8_t request;         /**< The request's op, `CRAB_OP_...`. */
    uint8_t reply;           /**< The reply's op, `CRAB_REP_...`; 0 if there is none. */
    bool outcome_unknown;    /**< (Completions) A write that failed after it was sent: it may have been executed. */
    uint32_t tag;            /**< The request's tag, if it had one. */
    uint32_t app_flags;      /**< Of META. */
    uint64_t version;        /**< Of META, STORED and EXISTS. */
    uint64_t ttl_ms;         /**< Of META. */
    int64_t number;          /**< Of NUMBER. */
    struct crab_slice value; /**< The value, the text of STATS or of an error, the server's name; borrowed. */
};

/** @brief A quiet write that failed. */
struct crab_late_error {
    uint32_t tag;   /**< The tag that its call gave out. */
    uint16_t code;  /**< Why, as `enum crab_error`. */
    char text[122]; /**< The server's words, maybe cut, ended by a zero. */
};

/**
 * @brief Queue any request that the codec can encode.
 * @param conn a connection
 * @param request the request; its tag is chosen here if its flag TAG is set or the connection checks tags
 * @param[out] tag if not NULL: the tag that was chosen, 0 if none
 * @return #CRAB_OK: queued; #CRAB_E_FULL: not queued, take replies first; #CRAB_E_INVALID: it breaks a rule, or it is
 *         QUIET and pushes are not switched on; or another failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue(struct crab_conn *conn, const union crab_request *request,
                                                        uint32_t *tag);

/**
 * @brief Queue a PING.
 * @param conn a connection
 * @return as crab_conn_queue()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_ping(struct crab_conn *conn);

/**
 * @brief Queue a put.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param value the value; may be NULL if its length is 0
 * @param value_len its length in bytes
 * @param options time to live, condition, application flags, whether to tell the version; NULL: the defaults
 * @return as crab_conn_queue(); the result then is OK, MISS or EXISTS
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_put(struct crab_conn *conn, const void *key,
                                                            size_t key_len, const void *value,
                                                            size_t value_len,
                                                            const struct crab_put_options *options);

/**
 * @brief Queue a get.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @return as crab_conn_queue(); the result then is OK with `value`, or MISS
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_get(struct crab_conn *conn, const void *key,
                                                            size_t key_len);

/**
 * @brief Queue a get that gives the item a new time to live.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 1 to #CRAB_TTL_MAX_MS, or #CRAB_TTL_NEVER
 * @return as crab_conn_queue_get()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_get_touch(struct crab_conn *conn, const void *key,
                                                                  size_t key_len, uint64_t ttl_ms);

/**
 * @brief Queue a get with version, time left and application flags.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 0: don't touch; otherwise the new time to live
 * @return as crab_conn_queue_get(); the result also has `version`, `ttl_ms` and `app_flags`
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_get_meta(struct crab_conn *conn, const void *key,
                                                                 size_t key_len, uint64_t ttl_ms);

/**
 * @brief Queue a delete.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @return as crab_conn_queue(); the result then is OK or MISS
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_del(struct crab_conn *conn, const void *key,
                                                            size_t key_len);

/**
 * @brief Queue a new time to live for an item.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 1 to #CRAB_TTL_MAX_MS, or #CRAB_TTL_NEVER
 * @return as crab_conn_queue(); the result then is OK or MISS
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_expire(struct crab_conn *conn, const void *key,
                                                               size_t key_len, uint64_t ttl_ms);

/**
 * @brief Queue an addition to the number stored under a key.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to add
 * @param options what to do with an absent key; NULL: MISS
 * @return as crab_conn_queue(); the result then is OK with `number`, or MISS
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_incr(struct crab_conn *conn, const void *key,
                                                             size_t key_len, uint64_t delta,
                                                             const struct crab_incr_options *options);

/**
 * @brief Queue a subtraction from the number stored under a key.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to subtract
 * @param options what to do with an absent key; NULL: MISS
 * @return as crab_conn_queue_incr()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_decr(struct crab_conn *conn, const void *key,
                                                             size_t key_len, uint64_t delta,
                                                             const struct crab_incr_options *options);

/**
 * @brief Queue a question for the server's statistics.
 * @param conn a connection
 * @param section one of the server's sections, ended by a zero; NULL: all of them
 * @return as crab_conn_queue(); the result then is OK with the text in `value`
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_stats(struct crab_conn *conn, const char *section);

/**
 * @brief Queue the deletion of every item.
 * @param conn a connection
 * @return as crab_conn_queue(); the result then is OK
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_flush_all(struct crab_conn *conn);

/**
 * @brief Queue an authentication.
 * @param conn a connection
 * @param user the name, 1 to 255 bytes, ended by a zero
 * @param secret the secret; may be NULL if its length is 0
 * @param secret_len its length in bytes, at most 1024
 * @return as crab_conn_queue(); the result then is OK
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_queue_auth(struct crab_conn *conn, const char *user,
                                                             const void *secret, size_t secret_len);

/**
 * @brief Queue a put without a reply.  If it fails, a late error with its tag arrives before the next PONG.
 * @param conn a connection on which pushes are on, as they are unless `no_hello` was set
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param value the value; may be NULL if its length is 0
 * @param value_len its length in bytes
 * @param options time to live, condition, application flags; NULL: the defaults
 * @param[out] tag if not NULL: names this write in its late error
 * @return as crab_conn_queue(); a condition that does not hold is no error, and silent
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_quiet_put(struct crab_conn *conn, const void *key,
                                                            size_t key_len, const void *value,
                                                            size_t value_len,
                                                            const struct crab_put_options *options,
                                                            uint32_t *tag);

/**
 * @brief Queue a delete without a reply.
 * @param conn a connection on which pushes are on
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param[out] tag if not NULL: names this write in its late error
 * @return as crab_conn_queue()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_quiet_del(struct crab_conn *conn, const void *key,
                                                            size_t key_len, uint32_t *tag);

/**
 * @brief Queue a new time to live without a reply.
 * @param conn a connection on which pushes are on
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 1 to #CRAB_TTL_MAX_MS, or #CRAB_TTL_NEVER
 * @param[out] tag if not NULL: names this write in its late error
 * @return as crab_conn_queue()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_quiet_expire(struct crab_conn *conn, const void *key,
                                                               size_t key_len, uint64_t ttl_ms, uint32_t *tag);

/**
 * @brief Queue an addition without a reply.
 * @param conn a connection on which pushes are on
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to add
 * @param options what to do with an absent key; NULL: nothing
 * @param[out] tag if not NULL: names this write in its late error
 * @return as crab_conn_queue()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_quiet_incr(struct crab_conn *conn, const void *key,
                                                             size_t key_len, uint64_t delta,
                                                             const struct crab_incr_options *options,
                                                             uint32_t *tag);

/**
 * @brief Queue a subtraction without a reply.
 * @param conn a connection on which pushes are on
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to subtract
 * @param options what to do with an absent key; NULL: nothing
 * @param[out] tag if not NULL: names this write in its late error
 * @return as crab_conn_queue()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_quiet_decr(struct crab_conn *conn, const void *key,
                                                             size_t key_len, uint64_t delta,
                                                             const struct crab_incr_options *options,
                                                             uint32_t *tag);

/**
 * @brief Queue the deletion of every item without a reply.
 * @param conn a connection on which pushes are on
 * @param[out] tag if not NULL: names this write in its late error
 * @return as crab_conn_queue()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_quiet_flush_all(struct crab_conn *conn, uint32_t *tag);

/**
 * @brief Send everything that is queued.
 * @param conn a connection
 * @return #CRAB_OK: all of it went to the system; #CRAB_E_FULL: as many replies are waiting as may be kept, take
 *         some and call again; #CRAB_WAIT: (event loops) the socket takes no more now; or a failure, see
 *         @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_flush(struct crab_conn *conn);

/**
 * @brief Take the reply to the oldest unanswered request; if it is not there yet, send what is queued and wait.
 * @param conn a connection
 * @param[out] result the reply; an error of the server is in it, and no failure of this call
 * @return #CRAB_OK: `*result` is filled; #CRAB_EMPTY: every request is answered; #CRAB_WAIT: (event loops)
 *         it is not here yet, or goes to its completion; or a failure, after which the reply did not come and no other
 *         will, see @ref conn_failures
 * @ownership `result->value` is borrowed, see @ref conn_borrowed.
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_next_reply(struct crab_conn *conn, struct crab_result *result);

/**
 * @brief How many requests are queued or sent and not yet answered; quiet ones don't count.
 * @param conn a connection
 * @return the number
 * @threads The connection's thread.
 */
CRAB_API size_t crab_conn_in_flight(const struct crab_conn *conn);

/**
 * @brief The bound of crab_conn_in_flight().
 * @param conn a connection
 * @return the number, at least 1
 * @threads The connection's thread.
 */
CRAB_API size_t crab_conn_max_in_flight(const struct crab_conn *conn);

/**
 * @brief Take the oldest late error of a quiet write.  After crab_conn_ping() those of all earlier writes are here.
 * @param conn a connection; it may be broken
 * @param[out] late the error
 * @return #CRAB_OK; #CRAB_EMPTY if there is none
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_late_error(struct crab_conn *conn, struct crab_late_error *late);

/**
 * @brief How many late errors were dropped because 4,096 of them had not been taken, or for lack of memory.
 * @param conn a connection
 * @return the number since the connection was opened
 * @threads The connection's thread.
 */
CRAB_API uint64_t crab_conn_late_errors_lost(const struct crab_conn *conn);

CRAB_END_DECLS

#endif
