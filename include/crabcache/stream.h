/* SPDX-License-Identifier: MIT */
/**
 * @file stream.h
 * @brief Large values in pieces: read while they arrive, written while they come into being.
 *
 * A value that is read into a sink is never held whole by the library: its buffer stays at 256 KiB at the most, whatever the
 * value's length.  A value that is written in pieces goes from where they lie (in an event loop, through 64 KiB).
 *
 * @code{.c}
 * status = crab_conn_put_begin(conn, key, key_len, file_len, NULL);
 * while (status == CRAB_OK && (n = fread(block, 1, sizeof block, file)) != 0)
 *     status = crab_conn_put_piece(conn, block, n, &taken);
 * if (status == CRAB_OK)
 *     status = crab_conn_next_reply(conn, &result);
 * @endcode
 */
#ifndef CRABCACHE_STREAM_H
#define CRABCACHE_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "crabcache/conn.h"
#include "crabcache/pipeline.h"
#include "crabcache/status.h"
#include "crabcache/version.h"
#include "crabcache/wire.h"

CRAB_BEGIN_DECLS

/**
 * @brief Takes a value piece by piece, in order and without gaps; an empty value has no piece.
 *
 * It may not use the connection.  That all pieces came is known only when the request has its result: what was taken before a
 * failure is to be thrown away.
 * @param context what was given with the sink
 * @param head the reply without the value: its version, time to live and application flags; `value.len` is the whole length
 * @param offset how many bytes of the value came before
 * @param piece the next ones, at least one; borrowed until the sink returns
 */
typedef void (*crab_sink)(void *context, const struct crab_result *head, size_t offset, struct crab_slice piece);

/**
 * @brief Let the value of the get that was queued last go to a sink.
 *
 * The pieces come during crab_conn_next_reply(), or crab_conn_process() in an event loop; the result then has a `value`
 * without bytes, whose `len` is the whole length.  A miss or an error has no pieces.
 * @param conn a connection whose last queue call was a get and answered #CRAB_OK
 * @param sink the sink
 * @param context passed to it
 * @return #CRAB_OK; #CRAB_E_INVALID: the last request is no get, or has a sink; #CRAB_E_NO_MEMORY: it has none now
 * @threads The connection's thread.
 */
CRAB_API enum crab_status crab_conn_into(struct crab_conn *conn, crab_sink sink, void *context);

/**
 * @brief Read a value in pieces, waiting.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param sink takes the pieces
 * @param context passed to it
 * @param[out] value_len if not NULL: the length of the value
 * @return as crab_conn_get()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_get_into(struct crab_conn *conn, const void *key, size_t key_len,
                                                           crab_sink sink, void *context, size_t *value_len);

/**
 * @brief Queue a put whose value follows by crab_conn_put_piece().
 *
 * Until all of it has followed other requests are refused with #CRAB_E_PENDING; the replies of earlier ones can be taken.  A
 * value that cannot be completed leaves no way but to close the connection.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param value_len the length of the whole value in bytes
 * @param options as for crab_conn_queue_put(); NULL: the defaults
 * @return as crab_conn_queue(); the result then is as of crab_conn_queue_put()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_put_begin(struct crab_conn *conn, const void *key, size_t key_len,
                                                            size_t value_len, const struct crab_put_options *options);

/**
 * @brief Send the next bytes of the value that crab_conn_put_begin() has announced.
 * @param conn a connection
 * @param data the bytes; not kept
 * @param len how many, at most as many as are missing
 * @param[out] taken how many were taken, also when the call fails: go on behind them
 * @return #CRAB_OK: all of them; #CRAB_E_FULL: take replies first, or in an event loop wait until crab_conn_wants() has
 *         changed; #CRAB_E_INVALID: more than are missing; or another failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_put_piece(struct crab_conn *conn, const void *data, size_t len,
                                                            size_t *taken);

/**
 * @brief How many bytes of the value that crab_conn_put_begin() has announced are missing.
 * @param conn a connection
 * @return the number; 0: no value is on its way
 * @threads The connection's thread.
 */
CRAB_API size_t crab_conn_put_left(const struct crab_conn *conn);

/**
 * @brief Store a value that lies in several parts, waiting.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param parts the parts of the value in order
 * @param count how many
 * @param options as for crab_conn_put(); NULL: the defaults
 * @param[out] version as of crab_conn_put(); may be NULL
 * @return as crab_conn_put()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_put_parts(struct crab_conn *conn, const void *key, size_t key_len,
                                                            const struct crab_slice *parts, size_t count,
                                                            const struct crab_put_options *options,
                                                            uint64_t *version);

CRAB_END_DECLS

#endif
