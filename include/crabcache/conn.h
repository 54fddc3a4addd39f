/* SPDX-License-Identifier: MIT */
/**
 * @file conn.h
 * @brief One connection to one server: opening it, blocking calls, and what went wrong.
 *
 * @section conn_model The model
 * A `struct crab_conn` is one TCP connection.  It belongs to one thread at a time; different connections share
 * nothing.  Its blocking calls send one request and wait for its reply.  Pipelining, which is many times faster, is
 * in pipeline.h.
 *
 * @section conn_deadlines Deadlines
 * Each call ends within the connection's `timeout_ms`, counted on a clock that does not step: it is done, it failed,
 * or its outcome is unknown.  crab_conn_open() has one deadline for resolving, connecting, HELLO and AUTH together.
 * A host *name* is resolved by a thread of its own, as getaddrinfo() cannot be interrupted; the thread may outlive the call.  A
 * numeric address needs neither thread nor name server.
 *
 * @section conn_broken Broken connections
 * After a time-out, a closed or reset connection, a failed system call or a breach of the protocol nobody can say
 * which reply would belong to which request.  So the connection is broken: its socket is closed at once and each later
 * call answers #CRAB_E_BROKEN.  Whole replies that had arrived before can still be taken by crab_conn_next_reply().
 * Close it and open another one.  crab_conn_outcome_unknown() says whether a write was sent and not answered.
 *
 * @section conn_failures What any call may answer
 * Besides the answers that stand at each call:
 * - #CRAB_E_INVALID: an argument breaks a rule of the protocol, such as an empty key; nothing was sent;
 * - #CRAB_E_NO_MEMORY: a buffer could not grow;
 * - #CRAB_E_PENDING: (blocking calls) queued requests have not been answered;
 * - #CRAB_E_SERVER: the server answered with an error, see crab_conn_error() and crab_conn_error_text();
 * - #CRAB_E_UNKNOWN_REPLY: the server answered with a reply that this library does not know;
 * - #CRAB_E_TIMEOUT, #CRAB_E_CLOSED, #CRAB_E_PROTOCOL, #CRAB_E_SYSTEM: the connection broke during this call;
 * - #CRAB_E_BROKEN: it broke earlier.
 *
 * Outputs stay untouched unless the call answers #CRAB_OK, or what its text says.
 *
 * @section conn_borrowed Borrowed bytes
 * A `struct crab_slice` that a call gives out points into the connection's buffer.  It is valid until the next
 * call that sends, receives or closes on the same connection; the functions that only ask about its state keep it
 * valid.  Keys and values passed *in* are never kept, and may be such borrowed slices of the same connection.
 */
#ifndef CRABCACHE_CONN_H
#define CRABCACHE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/status.h"
#include "crabcache/version.h"
#include "crabcache/wire.h"

CRAB_BEGIN_DECLS

/** @brief A connection.  Opaque: made by crab_conn_open(), ended by crab_conn_close(). */
struct crab_conn;

/** @brief As `timeout_ms`: wait without end. */
#define CRAB_NO_TIMEOUT UINT32_MAX

/** @brief The longest text of a failure, its terminating zero included. */
#define CRAB_FAILURE_TEXT 640

/** @brief Where a connection's memory comes from. */
struct crab_allocator {
    /**
     * @brief As realloc(), but `bytes` 0 frees `memory` and gives NULL.
     *
     * It is called by the thread that uses the connection, and never while requests only reuse buffers that have
     * grown to their size.
     */
    void *(*resize)(void *context, void *memory, size_t bytes);
    void *context; /**< Passed to `resize`. */
};

/** @brief How important a line for the log is. */
enum crab_log_level {
    CRAB_LOG_INFO = 0,   /**< A connection was made. */
    CRAB_LOG_WARNING = 1 /**< A connection broke, or could not be made. */
};

/** @brief How to open a connection.  All zeros means the defaults. */
struct crab_conn_options {
    const char *host;        /**< Name or numeric address, or `/path` of a unix socket; NULL: "127.0.0.1". */
    const char *client_name; /**< Sent in HELLO for the server's logs, at most 255 bytes; NULL: "libcrabcache". */
    const char *user;        /**< With a name, AUTH is sent; NULL: no AUTH. */
    const void *secret;      /**< The secret of `user`; may be NULL if `secret_len` is 0. */
    size_t secret_len;       /**< Its length, at most 1024. */
    const struct crab_allocator *allocator; /**< Must outlive the connection; NULL: realloc() and free(). */
    /** Told about the connection's life, by the thread that uses it, which must not call the library; NULL: nobody. */
    void (*log)(void *context, enum crab_log_level level, const char *line);
    void *log_context;       /**< Passed to `log`. */
    uint32_t timeout_ms;     /**< Of each call; 0: 5,000 ms; #CRAB_NO_TIMEOUT: none. */
    uint32_t max_in_flight;  /**< Unanswered requests at the most, 0: what the server allows (at most 65,536). */
    uint32_t max_reply;      /**< Longest reply accepted, in bytes; 0: enough for the server's longest value. */
    uint32_t max_buffered;   /**< Bytes of replies that are read ahead while sending; 0: 1 MiB. */
    uint16_t port;           /**< TCP port, 0: 2722. */
    bool no_hello;           /**< Don't send HELLO; then there are no pushes, and so no quiet writes. */
    bool check_tags;         /**< Tag every request and check that each reply bears its request's tag. */
};

/** @brief Why a connection could not be opened. */
struct crab_failure {
    enum crab_status status;      /**< What crab_conn_open() returned. */
    int system_error;             /**< An `errno`, or 0. */
    uint16_t error;               /**< The server's error if `status` is #CRAB_E_SERVER, otherwise 0. */
    char text[CRAB_FAILURE_TEXT]; /**< A sentence for people, ended by a zero. */
};

/** @brief What the server said of itself in WELCOME. */
struct crab_server_info {
    uint8_t version;        /**< The protocol version in use. */
    uint32_t features;      /**< The features that are on, `CRAB_FEATURE_...`. */
    uint32_t max_key;       /**< Longest key in bytes. */
    uint32_t max_value;     /**< Longest value in bytes. */
    uint32_t max_in_flight; /**< How many unanswered requests the server wants at the most. */
    struct crab_slice name; /**< Name and version of the server's program; lives as long as the connection. */
};

/** @brief The condition of a put. */
enum crab_put_condition {
    CRAB_ALWAYS = 0,     /**< Store in any case. */
    CRAB_IF_ABSENT = 1,  /**< Store only if the key is absent, otherwise #CRAB_EXISTS. */
    CRAB_IF_PRESENT = 2, /**< Store only if the key is present, otherwise #CRAB_MISS. */
    CRAB_IF_VERSION = 3  /**< Store only if the item has this version; otherwise #CRAB_EXISTS, or #CRAB_MISS. */
};

/** @brief The choices of a put.  All zeros: store in any case, for ever, with application flags 0. */
struct crab_put_options {
    uint64_t ttl_ms;                   /**< Time to live, 1 to #CRAB_TTL_MAX_MS; 0, #CRAB_TTL_NEVER: for ever. */
    uint64_t version;                  /**< With #CRAB_IF_VERSION: the version that the item must have. */
    enum crab_put_condition condition; /**< When to store. */
    uint32_t app_flags;                /**< The application's own 32 bits, stored with the item. */
    bool want_version;                 /**< (Pipelined puts) answer with the new version. */
};

/** @brief The choices of incr and decr.  All zeros: an absent key is a miss. */
struct crab_incr_options {
    uint64_t ttl_ms;  /**< With `create`: time to live in ms of an item that is created; 0: for ever. */
    int64_t initial;  /**< With `create`: the number that an absent item gets (the delta is not applied). */
    bool create;      /**< Create an absent item. */
};

/** @brief An item with what is known about it. */
struct crab_item {
    struct crab_slice value; /**< The value; borrowed. */
    uint64_t version;        /**< Changes whenever value or application flags do; never 0. */
    uint64_t ttl_ms;         /**< Milliseconds left, at least 1; or #CRAB_TTL_NEVER. */
    uint32_t app_flags;      /**< The application's own bits. */
};

/**
 * @brief Connect to a server: resolve, connect, HELLO and, with a user, AUTH, all under one deadline.
 * @param options where and how; its pointers are not kept, but for `allocator`
 * @param[out] conn the new connection
 * @param[out] failure if not NULL: filled when the call fails
 * @return #CRAB_OK; #CRAB_E_INVALID (an option breaks a rule); #CRAB_E_NO_MEMORY; #CRAB_E_RESOLVE; #CRAB_E_REFUSED;
 *         #CRAB_E_TIMEOUT; #CRAB_E_CLOSED; #CRAB_E_PROTOCOL (not a CrabCache server, say); #CRAB_E_SYSTEM;
 *         #CRAB_E_SERVER (HELLO or AUTH was refused)
 * @ownership The caller owns `*conn` and ends it by crab_conn_close().
 * @threads Any thread; the connection then belongs to one thread at a time.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_open(const struct crab_conn_options *options,
                                                       struct crab_conn **conn, struct crab_failure *failure);

/**
 * @brief Close a connection and free it.  Queued requests that were not sent are dropped.
 * @param conn a connection, or NULL, which does nothing
 * @ownership Takes the connection; everything borrowed from it ends.
 * @threads The connection's thread.
 */
CRAB_API void crab_conn_close(struct crab_conn *conn);

/**
 * @brief Agree on version and features by hand, on a connection opened with `no_hello`.
 * @param conn a connection on which nothing was sent yet; otherwise the server answers BAD_STATE
 * @param client_name for the server's logs, at most 255 bytes; NULL: "libcrabcache"
 * @return #CRAB_OK; or a failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_hello(struct crab_conn *conn, const char *client_name);

/**
 * @brief Authenticate, on a connection that was opened without a user or to become another one.
 * @param conn a connection
 * @param user the name, 1 to 255 bytes, ended by a zero
 * @param secret the secret; may be NULL if its length is 0
 * @param secret_len its length in bytes, at most 1024
 * @return #CRAB_OK; #CRAB_E_SERVER with AUTH_FAILED; or another failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_auth(struct crab_conn *conn, const char *user,
                                                       const void *secret, size_t secret_len);

/**
 * @brief Ask for a sign of life.  It is also the barrier of quiet writes: their late errors are all in afterwards.
 * @param conn a connection
 * @return #CRAB_OK; or a failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_ping(struct crab_conn *conn);

/**
 * @brief Store a value under a key, in place of a former one.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param value the value; may be NULL if its length is 0
 * @param value_len its length in bytes
 * @param options time to live, condition, application flags; NULL: the defaults
 * @param[out] version if not NULL: the version of the item: the new one after #CRAB_OK, the one that was found
 *             after #CRAB_EXISTS
 * @return #CRAB_OK; #CRAB_MISS or #CRAB_EXISTS if the condition did not hold; or a failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_put(struct crab_conn *conn, const void *key, size_t key_len,
                                                      const void *value, size_t value_len,
                                                      const struct crab_put_options *options,
                                                      uint64_t *version);

/**
 * @brief Read the value of a key.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param[out] value the value
 * @return #CRAB_OK; #CRAB_MISS; or a failure, see @ref conn_failures
 * @ownership `*value` is borrowed, see @ref conn_borrowed.
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_get(struct crab_conn *conn, const void *key, size_t key_len,
                                                      struct crab_slice *value);

/**
 * @brief Read the value of a key and give the item a new time to live.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms the new time to live, 1 to #CRAB_TTL_MAX_MS, or #CRAB_TTL_NEVER
 * @param[out] value the value
 * @return #CRAB_OK; #CRAB_MISS; or a failure, see @ref conn_failures
 * @ownership `*value` is borrowed, see @ref conn_borrowed.
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_get_touch(struct crab_conn *conn, const void *key,
                                                            size_t key_len, uint64_t ttl_ms,
                                                            struct crab_slice *value);

/**
 * @brief Read an item with version, time left and application flags, and maybe give it a new time to live.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 0: leave the item's time to live alone; otherwise the new one, 1 to #CRAB_TTL_MAX_MS, or
 *        #CRAB_TTL_NEVER
 * @param[out] item the item
 * @return #CRAB_OK; #CRAB_MISS; or a failure, see @ref conn_failures
 * @ownership `item->value` is borrowed, see @ref conn_borrowed.
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_get_meta(struct crab_conn *conn, const void *key,
                                                           size_t key_len, uint64_t ttl_ms,
                                                           struct crab_item *item);

/**
 * @brief Delete a key.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @return #CRAB_OK; #CRAB_MISS if it was absent; or a failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_del(struct crab_conn *conn, const void *key, size_t key_len);

/**
 * @brief Give an item a new time to live, counted from now.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 1 to #CRAB_TTL_MAX_MS, or #CRAB_TTL_NEVER
 * @return #CRAB_OK; #CRAB_MISS if the key is absent; or a failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_expire(struct crab_conn *conn, const void *key,
                                                         size_t key_len, uint64_t ttl_ms);

/**
 * @brief Add to the number stored under a key.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to add
 * @param options what to do with an absent key; NULL: #CRAB_MISS
 * @param[out] number if not NULL: the number that is stored now
 * @return #CRAB_OK; #CRAB_MISS; #CRAB_E_SERVER with NOT_A_NUMBER or OVERFLOW; or another failure, see
 *         @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_incr(struct crab_conn *conn, const void *key, size_t key_len,
                                                       uint64_t delta, const struct crab_incr_options *options,
                                                       int64_t *number);

/**
 * @brief Subtract from the number stored under a key.
 * @param conn a connection
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to subtract
 * @param options what to do with an absent key; NULL: #CRAB_MISS
 * @param[out] number if not NULL: the number that is stored now
 * @return as crab_conn_incr()
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_decr(struct crab_conn *conn, const void *key, size_t key_len,
                                                       uint64_t delta, const struct crab_incr_options *options,
                                                       int64_t *number);

/**
 * @brief Read the server's statistics: lines "section.name:value\n".
 * @param conn a connection
 * @param section one of the server's sections, at most 64 bytes, ended by a zero; NULL: all of them
 * @param[out] text the lines
 * @return #CRAB_OK; #CRAB_E_SERVER with UNKNOWN_SECTION; or another failure, see @ref conn_failures
 * @ownership `*text` is borrowed, see @ref conn_borrowed.
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_stats(struct crab_conn *conn, const char *section,
                                                        struct crab_slice *text);

/**
 * @brief Delete every item of the server (the request FLUSH).
 * @param conn a connection
 * @return #CRAB_OK; or a failure, see @ref conn_failures
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_flush_all(struct crab_conn *conn);

/**
 * @brief What the server said of itself in WELCOME.
 * @param conn a connection
 * @param[out] info the server's limits and features
 * @return #CRAB_OK; #CRAB_EMPTY if there was no HELLO
 * @ownership `info->name` lives as long as the connection.
 * @threads The connection's thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_conn_server_info(const struct crab_conn *conn,
                                                              struct crab_server_info *info);

/**
 * @brief The number of the server's last error, as `enum crab_error`.
 * @param conn a connection
 * @return the code that came with the last #CRAB_E_SERVER; 0 if there was none
 * @threads The connection's thread.
 */
CRAB_API uint16_t crab_conn_error(const struct crab_conn *conn);

/**
 * @brief A sentence for people about the last failure on the connection.
 * @param conn a connection
 * @return text ended by a zero, "" if nothing failed; the server's own words for #CRAB_E_SERVER, in which bytes
 *         that are not printable ASCII are replaced by '?'
 * @ownership Borrowed until the next call on the connection that fails, or crab_conn_close().
 * @threads The connection's thread.
 */
CRAB_API const char *crab_conn_error_text(const struct crab_conn *conn);

/**
 * @brief The `errno` of the system call that broke the connection.
 * @param conn a connection
 * @return an `errno`, or 0
 * @threads The connection's thread.
 */
CRAB_API int crab_conn_system_error(const struct crab_conn *conn);

/**
 * @brief Whether the connection is broken, and by what.
 * @param conn a connection
 * @return #CRAB_OK while it can be used; otherwise the status that broke it, such as #CRAB_E_TIMEOUT
 * @threads The connection's thread.
 */
CRAB_API enum crab_status crab_conn_state(const struct crab_conn *conn);

/**
 * @brief How many writes were sent, are unanswered, and will stay so: the server may or may not have executed them.
 *
 * Counted are PUT, DEL, EXPIRE, INCR, DECR and FLUSH whose last byte went to the system, and quiet writes since the
 * last barrier as one.  A server that said GOAWAY and then ended the stream in order executed none of the unanswered
 * ones, and neither did one that ended it with a fatal error; then only quiet writes count.
 * @param conn a connection
 * @return 0 while the connection is not broken; otherwise the number of such requests
 * @threads The connection's thread.
 */
CRAB_API size_t crab_conn_outcome_unknown(const struct crab_conn *conn);

/**
 * @brief Whether the server announced that it is about to close the connection.
 * @param conn a connection
 * @param[out] code if not NULL: why, as `enum crab_error`
 * @return true if GOAWAY arrived; open another connection soon
 * @threads The connection's thread.
 */
CRAB_API bool crab_conn_goaway(const struct crab_conn *conn, uint16_t *code);

/**
 * @brief The socket, for getsockname() and the like; not for reading or writing.
 * @param conn a connection
 * @return the file descriptor, -1 if the connection is broken
 * @threads The connection's thread.
 */
CRAB_API int crab_conn_fd(const struct crab_conn *conn);

CRAB_END_DECLS

#endif
