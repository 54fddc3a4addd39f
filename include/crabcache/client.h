/* SPDX-License-Identifier: MIT */
/**
 * @file client.h
 * @brief A handle that all threads of a program share: one or several servers, connections that come and go by themselves.
 *
 * @code{.c}
 * struct crab_client *client;
 * enum crab_status status = crab_client_open("crab://cache1,cache2:2723?timeout=500", NULL, &client, &failure);
 * // from any thread:
 * status = crab_client_put(client, "key", 3, "value", 5, NULL, NULL, NULL);
 * status = crab_client_get(client, "key", 3, &value, NULL);
 * @endcode
 *
 * @section client_model The model
 * Requests of all threads travel over a few connections; whoever waits for a reply sends and receives for the others, too, so
 * there is no thread of the library's own.  A connection is made when it is first needed, and again after it broke.  Submitting
 * without waiting is in ticket.h.
 *
 * @section client_deadlines Deadlines
 * Each call has one deadline over resolving, connecting, waiting for others and its own reply, on a clock that does not step.  A
 * call whose time is up leaves; the connection goes on, and the reply is dropped when it comes.  A connection on which nothing came
 * for `timeout_ms` while requests were waiting is closed.
 *
 * @section client_answers Answers
 * Besides those at each call:
 * - #CRAB_E_INVALID: an argument breaks a rule of the protocol; nothing was sent;
 * - #CRAB_E_NO_MEMORY: nothing was sent, or the reply's value could not be kept;
 * - #CRAB_E_SERVER: the server answered with an error, its number and text are in `options->failure`;
 * - #CRAB_E_UNKNOWN_REPLY: the server answered with a reply that this library does not know;
 * - #CRAB_E_OUTCOME_UNKNOWN: a write was sent and not answered; `options->failure` says why;
 * - #CRAB_E_TIMEOUT, #CRAB_E_CLOSED, #CRAB_E_PROTOCOL, #CRAB_E_SYSTEM: a read failed, or a write that was certainly not executed;
 * - #CRAB_E_RESOLVE, #CRAB_E_REFUSED: no connection could be made; #CRAB_E_DOWN: nor was it tried, as it failed a moment ago;
 * - #CRAB_E_FORKED: the handle belongs to the parent process.
 *
 * Outputs stay untouched unless the call answers #CRAB_OK, or what its text says.
 *
 * @section client_fork Forks
 * A child may call nothing on its parent's handles but crab_client_close() and crab_ticket_release(); everything else answers
 * #CRAB_E_FORKED and touches neither locks nor sockets.  In the child crab_client_close() closes its copies of the sockets and
 * frees nothing, as other threads of the parent may have been changing it when the child was made: the memory stays the
 * child's until it ends or executes another program.
 */
#ifndef CRABCACHE_CLIENT_H
#define CRABCACHE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/conn.h"
#include "crabcache/pipeline.h"
#include "crabcache/status.h"
#include "crabcache/value.h"
#include "crabcache/version.h"
#include "crabcache/wire.h"

CRAB_BEGIN_DECLS

/** @brief The shared handle.  Opaque: made by crab_client_open(), ended by crab_client_close(). */
struct crab_client;

/** @brief Most servers of a client. */
#define CRAB_MAX_SERVERS 64
/** @brief Most connections of a client to each server. */
#define CRAB_MAX_CONNECTIONS 16
/** @brief Largest weight of a server. */
#define CRAB_MAX_WEIGHT 1000
/** @brief Longest URI in bytes. */
#define CRAB_MAX_URI 8192

/** @brief How keys are spread over several servers. */
enum crab_distribution {
    CRAB_KETAMA = 0,    /**< The continuum of libketama; other clients that use it place keys alike. */
    CRAB_RENDEZVOUS = 1 /**< Highest random weight: spreads more evenly, costs time for each server. */
};

/** @brief Who one is, and the proof of it.  The library wipes it after use. */
struct crab_credentials {
    char user[CRAB_MAX_USER + 1];    /**< The name, ended by a zero; "" means no AUTH. */
    size_t secret_len;               /**< Length of the secret in bytes. */
    uint8_t secret[CRAB_MAX_SECRET]; /**< The secret. */
};

/** @brief How a client works.  All zeros means the defaults; what the URI says counts more. */
struct crab_client_options {
    const struct crab_allocator *allocator; /**< Called by many threads at once; NULL: realloc() and free(). */
    /** Told about connections, by any thread, without a lock of the library; NULL: nobody. */
    void (*log)(void *context, enum crab_log_level level, const char *line);
    void *log_context; /**< Passed to `log`. */
    /**
     * Asked for credentials before each connection is used, if not NULL.  `server` is "host:port" or a path; `user` holds the URI's, if
     * any.  It answers #CRAB_OK, or a failure, with which connecting fails.
     */
    enum crab_status (*credentials)(void *context, const char *server, struct crab_credentials *credentials);
    void *credentials_context;    /**< Passed to `credentials`. */
    const char *user;             /**< The user, unless the URI names one; NULL: no AUTH. */
    const char *secret_file;      /**< File whose first line is the secret, read for each connection; NULL: none. */
    const char *client_name;      /**< Sent in HELLO, at most 255 bytes; NULL: "libcrabcache". */
    uint32_t timeout_ms;          /**< Of each call; 0: 5,000 ms; #CRAB_NO_TIMEOUT: none. */
    uint32_t connect_timeout_ms;  /**< Of each attempt to connect; 0: 2,000 ms; at most the call's own time. */
    uint32_t connections;         /**< To each server; 0: 1; at most #CRAB_MAX_CONNECTIONS. */
    uint32_t max_in_flight;       /**< Unanswered requests of a connection, 0: 1,024; at most 65,536. */
    uint32_t max_reply;           /**< Longest reply accepted, in bytes; 0: enough for the server's longest value. */
    uint32_t retries;             /**< How often a failed request may be repeated; 0: never. See crab_call_options. */
    enum crab_distribution distribution; /**< How keys are spread. */
    bool eject;                   /**< While a server is down its keys go to others. */
    bool check_tags;              /**< Tag every request, and check that each reply bears its request's tag. */
};

/** @brief The choices of one call.  NULL or all zeros: the client's. */
struct crab_call_options {
    struct crab_failure *failure; /**< If not NULL: filled when the call fails, `status` being the reason. */
    uint32_t timeout_ms;          /**< Of this call; 0: the client's; #CRAB_NO_TIMEOUT: none. */
    /**
     * How often a failed request may be repeated before the deadline, after a pause that grows; 0: as often as the client's options say.
     * Repeated are requests that the protocol calls idempotent, and those that were certainly not executed.
     */
    uint32_t retries;
};

/** @brief Whether a server can be reached. */
enum crab_server_state {
    CRAB_SERVER_UP = 0,      /**< Nothing speaks against it. */
    CRAB_SERVER_DOWN = 1,    /**< Connecting failed; nobody tries until `retry_in_ms` have passed. */
    CRAB_SERVER_PROBING = 2  /**< Somebody is trying, or may. */
};

/** @brief What happened between a client and one server. */
struct crab_server_stats {
    const char *name;               /**< "host:port" or a path; lives as long as the client. */
    enum crab_server_state state;   /**< Whether it can be reached. */
    uint32_t retry_in_ms;           /**< While it is down: when it is tried again. */
    uint32_t weight;                /**< Its weight. */
    uint32_t connected;             /**< Connections that are up. */
    uint64_t in_flight;             /**< Requests on their way. */
    uint64_t requests;              /**< Requests ever queued. */
    uint64_t errors;                /**< Answers that were errors. */
    uint64_t timeouts;              /**< Requests given up at their deadline. */
    uint64_t unknown;               /**< Writes whose outcome stayed unknown. */
    uint64_t connects;              /**< Connections made. */
    uint64_t breaks;                /**< Connections that broke. */
    uint64_t connect_failures;      /**< Attempts that failed. */
    uint64_t sends;                 /**< System calls that sent; `requests / sends` were grouped in each. */
    uint64_t receives;              /**< System calls that received. */
    uint64_t sent_bytes;            /**< Bytes sent. */
    uint64_t received_bytes;        /**< Bytes received. */
};

/**
 * @brief Make a client.  Nothing is connected yet.
 * @param uri `crab://[user@]host[:port][,host...][?name=value&...]` or `crab+unix://[user@]/path[?...]`, see uri.h; NULL:
 *        "crab://127.0.0.1:2722"
 * @param options NULL: the defaults; the strings and the structure are copied
 * @param[out] client the client
 * @param[out] failure if not NULL: filled when the call fails
 * @return #CRAB_OK; #CRAB_E_INVALID: the URI or an option breaks a rule; #CRAB_E_NO_MEMORY; #CRAB_E_SYSTEM
 * @ownership The caller owns `*client` and ends it by crab_client_close().
 * @threads Any thread; so for every call on the client.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_open(const char *uri, const struct crab_client_options *options,
                                                         struct crab_client **client, struct crab_failure *failure);

/**
 * @brief Close all connections and free the client; in a child of the process that made it, see @ref client_fork.
 * @param client a client, or NULL, which does nothing; no other thread may be in a call on it, or hold tickets of it
 * @ownership Takes the client.
 * @threads One thread, after all others are done.
 */
CRAB_API void crab_client_close(struct crab_client *client);

/**
 * @brief Store a value under a key.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param value the value; may be NULL if its length is 0
 * @param value_len its length in bytes
 * @param put time to live, condition, application flags; NULL: the defaults
 * @param options time-out and the like; NULL: the client's
 * @param[out] version if not NULL: the new version after #CRAB_OK, the one that was found after #CRAB_EXISTS
 * @return #CRAB_OK; #CRAB_MISS or #CRAB_EXISTS if the condition did not hold; or a failure, see @ref client_answers
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_put(struct crab_client *client, const void *key, size_t key_len,
                                                        const void *value, size_t value_len,
                                                        const struct crab_put_options *put,
                                                        const struct crab_call_options *options, uint64_t *version);

/**
 * @brief Read the value of a key.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param[out] value filled after #CRAB_OK
 * @param options time-out and the like; NULL: the client's
 * @return #CRAB_OK; #CRAB_MISS; or a failure, see @ref client_answers
 * @ownership The caller owns the value and ends it by crab_value_fini().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_get(struct crab_client *client, const void *key, size_t key_len,
                                                        struct crab_value *value,
                                                        const struct crab_call_options *options);

/**
 * @brief Read an item with version, time left and application flags, and maybe give it a new time to live.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 0: leave its time to live alone; otherwise the new one, 1 to #CRAB_TTL_MAX_MS, or #CRAB_TTL_NEVER
 * @param[out] value filled after #CRAB_OK
 * @param options time-out and the like; NULL: the client's
 * @param[out] item if not NULL: what is known about the item, its `value` being that of `*value`
 * @return #CRAB_OK; #CRAB_MISS; or a failure, see @ref client_answers
 * @ownership The caller owns the value and ends it by crab_value_fini().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_get_meta(struct crab_client *client, const void *key,
                                                             size_t key_len, uint64_t ttl_ms,
                                                             struct crab_value *value,
                                                             const struct crab_call_options *options,
                                                             struct crab_item *item);

/**
 * @brief Delete a key.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param options time-out and the like; NULL: the client's
 * @return #CRAB_OK; #CRAB_MISS if it was absent; or a failure, see @ref client_answers
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_del(struct crab_client *client, const void *key, size_t key_len,
                                                        const struct crab_call_options *options);

/**
 * @brief Give an item a new time to live, counted from now.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param ttl_ms 1 to #CRAB_TTL_MAX_MS, or #CRAB_TTL_NEVER
 * @param options time-out and the like; NULL: the client's
 * @return #CRAB_OK; #CRAB_MISS if the key is absent; or a failure, see @ref client_answers
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_expire(struct crab_client *client, const void *key,
                                                           size_t key_len, uint64_t ttl_ms,
                                                           const struct crab_call_options *options);

/**
 * @brief Add to the number stored under a key.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to add
 * @param incr what to do with an absent key; NULL: #CRAB_MISS
 * @param options time-out and the like; NULL: the client's
 * @param[out] number if not NULL: the number that is stored now
 * @return #CRAB_OK; #CRAB_MISS; #CRAB_E_SERVER with NOT_A_NUMBER or OVERFLOW; or another failure, see @ref client_answers
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_incr(struct crab_client *client, const void *key, size_t key_len,
                                                         uint64_t delta, const struct crab_incr_options *incr,
                                                         const struct crab_call_options *options, int64_t *number);

/**
 * @brief Subtract from the number stored under a key.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param delta how much to subtract
 * @param incr what to do with an absent key; NULL: #CRAB_MISS
 * @param options time-out and the like; NULL: the client's
 * @param[out] number if not NULL: the number that is stored now
 * @return as crab_client_incr()
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_decr(struct crab_client *client, const void *key, size_t key_len,
                                                         uint64_t delta, const struct crab_incr_options *incr,
                                                         const struct crab_call_options *options, int64_t *number);

/**
 * @brief Any request that the codec can encode, but quiet ones, HELLO and AUTH.
 * @param client a client
 * @param request the request; its tag is chosen by the library.  Its key decides which server gets it; without a key the first one
 * @param value if not NULL: filled after #CRAB_OK, if the reply has bytes
 * @param options time-out and the like; NULL: the client's
 * @param[out] result if not NULL: the reply, its `value` being that of `*value`
 * @return `result->status`: #CRAB_OK, #CRAB_MISS, #CRAB_EXISTS; or a failure, see @ref client_answers
 * @ownership The caller owns the value and ends it by crab_value_fini().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_call(struct crab_client *client,
                                                         const union crab_request *request, struct crab_value *value,
                                                         const struct crab_call_options *options,
                                                         struct crab_result *result);

/**
 * @brief Ask every server for a sign of life.
 * @param client a client
 * @param options time-out and the like, of all servers together; NULL: the client's
 * @return #CRAB_OK if all answered; otherwise the first failure, see @ref client_answers
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_ping(struct crab_client *client,
                                                         const struct crab_call_options *options);

/**
 * @brief Delete every item of every server.
 * @param client a client
 * @param options time-out and the like, of all servers together; NULL: the client's
 * @return #CRAB_OK if all did; otherwise the first failure, see @ref client_answers; the other servers are asked nevertheless
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_flush_all(struct crab_client *client,
                                                              const struct crab_call_options *options);

/**
 * @brief Read a server's own statistics: lines "section.name:value\n".
 * @param client a client
 * @param server its number, from 0 to crab_client_servers() - 1
 * @param section one of the server's sections, at most 64 bytes, ended by a zero; NULL: all of them
 * @param[out] text filled after #CRAB_OK
 * @param options time-out and the like; NULL: the client's
 * @return #CRAB_OK; #CRAB_E_INVALID: there is no such server; or another failure, see @ref client_answers
 * @ownership The caller owns the text and ends it by crab_value_fini().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_stats(struct crab_client *client, size_t server,
                                                          const char *section, struct crab_value *text,
                                                          const struct crab_call_options *options);

/**
 * @brief How many servers the client has.
 * @param client a client
 * @return the number, at least 1
 * @threads Any thread.
 */
CRAB_API size_t crab_client_servers(const struct crab_client *client);

/**
 * @brief Which server a key belongs to, whether it is up or not.
 * @param client a client
 * @param key the key
 * @param key_len its length
 * @return its number, from 0 on, in the order of the URI
 * @threads Any thread.
 */
CRAB_API size_t crab_client_server_of(const struct crab_client *client, const void *key, size_t key_len);

/**
 * @brief What happened between the client and a server.
 * @param client a client
 * @param server its number
 * @param[out] stats the numbers
 * @return #CRAB_OK; #CRAB_E_INVALID: there is no such server; #CRAB_E_FORKED
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_server_stats(struct crab_client *client, size_t server,
                                                                 struct crab_server_stats *stats);

CRAB_END_DECLS

#endif
