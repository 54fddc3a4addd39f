/* SPDX-License-Identifier: MIT */
/**
 * @file ticket.h
 * @brief Requests on a shared client without waiting for each: tickets, and callbacks.
 *
 * @code{.c}
 * struct crab_ticket *tickets[N];
 * for (size_t i = 0; i < N; i++)
 *     status = crab_client_submit_get(client, keys[i], key_lens[i], NULL, &tickets[i]);
 * for (size_t i = 0; i < N; i++) {
 *     if (crab_ticket_wait(tickets[i], &result) == CRAB_OK)
 *         use(result.value.data, result.value.len);
 *     crab_ticket_release(tickets[i]);
 * }
 * @endcode
 *
 * A submitted request is queued, and sent with others: when somebody waits for or polls a ticket of the same connection, or makes a
 * blocking call on it, or 64 KiB are queued, or by crab_client_run().  There is no thread behind it, so that where nobody calls
 * the library nothing happens.  What one thread submits to one server is executed in order, as long as the connection lives.
 *
 * With a callback there is no ticket: the callback gets the result, on whatever thread received it, without a lock of the
 * library; it may submit, and make blocking calls.
 *
 * Submitting waits only for a connection, if there is none yet.  A submitted request is never repeated.
 */
#ifndef CRABCACHE_TICKET_H
#define CRABCACHE_TICKET_H

#include <stddef.h>
#include <stdint.h>

#include "crabcache/client.h"
#include "crabcache/status.h"
#include "crabcache/version.h"

CRAB_BEGIN_DECLS

/** @brief A request that was submitted.  Opaque: made by the submitting calls, ended by crab_ticket_release(). */
struct crab_ticket;

/** @brief The choices of a submitted request.  NULL or all zeros: the client's time-out, a ticket. */
struct crab_submit_options {
    uint32_t timeout_ms; /**< Until the request is given up; 0: the client's; #CRAB_NO_TIMEOUT: never. */
    /** If not NULL: called once with the result, whose value is borrowed for the call; then there is no ticket. */
    void (*done)(void *context, const struct crab_result *result);
    void *context;       /**< Passed to `done`. */
};

/**
 * @brief Submit any request that the codec can encode, but quiet ones, HELLO and AUTH.
 * @param client a client
 * @param request the request; nothing of it is kept
 * @param options time-out, callback; NULL: the defaults
 * @param[out] ticket the ticket; must be NULL exactly if there is a callback
 * @return #CRAB_OK: it is on its way, or done already; #CRAB_E_FULL: as many as may be are, wait for some; or another failure, see
 *         @ref client_answers, and then there is neither ticket nor callback
 * @ownership The caller ends the ticket by crab_ticket_release(), before the client is closed.
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_submit(struct crab_client *client,
                                                           const union crab_request *request,
                                                           const struct crab_submit_options *options,
                                                           struct crab_ticket **ticket);

/**
 * @brief Submit a get.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param options time-out, callback; NULL: the defaults
 * @param[out] ticket the ticket; must be NULL exactly if there is a callback
 * @return as crab_client_submit(); the result then is OK with `value`, or MISS
 * @ownership As crab_client_submit().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_submit_get(struct crab_client *client, const void *key,
                                                               size_t key_len,
                                                               const struct crab_submit_options *options,
                                                               struct crab_ticket **ticket);

/**
 * @brief Submit a put.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param value the value; copied
 * @param value_len its length in bytes
 * @param put time to live, condition and so on; NULL: the defaults
 * @param options time-out, callback; NULL: the defaults
 * @param[out] ticket the ticket; must be NULL exactly if there is a callback
 * @return as crab_client_submit(); the result then is OK, MISS or EXISTS
 * @ownership As crab_client_submit().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_submit_put(struct crab_client *client, const void *key,
                                                               size_t key_len, const void *value, size_t value_len,
                                                               const struct crab_put_options *put,
                                                               const struct crab_submit_options *options,
                                                               struct crab_ticket **ticket);

/**
 * @brief Submit a delete.
 * @param client a client
 * @param key the key
 * @param key_len its length, 1 to 65,535 bytes
 * @param options time-out, callback; NULL: the defaults
 * @param[out] ticket the ticket; must be NULL exactly if there is a callback
 * @return as crab_client_submit(); the result then is OK or MISS
 * @ownership As crab_client_submit().
 * @threads Any thread.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_submit_del(struct crab_client *client, const void *key,
                                                               size_t key_len,
                                                               const struct crab_submit_options *options,
                                                               struct crab_ticket **ticket);

/**
 * @brief Wait until a ticket's request is done, at most until its deadline.
 * @param ticket a ticket
 * @param[out] result if not NULL: the result
 * @return `result->status`: #CRAB_OK, #CRAB_MISS, #CRAB_EXISTS; or a failure, see @ref client_answers
 * @ownership `result->value` is borrowed until the ticket is released.
 * @threads One thread at a time for each ticket; it need not be the one that submitted.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_ticket_wait(struct crab_ticket *ticket, struct crab_result *result);

/**
 * @brief Send and receive what can be without waiting, and see whether a ticket's request is done.
 * @param ticket a ticket
 * @param[out] result if not NULL: the result, if it is done
 * @return #CRAB_EMPTY: not yet; otherwise as crab_ticket_wait()
 * @ownership `result->value` is borrowed until the ticket is released.
 * @threads One thread at a time for each ticket.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_ticket_poll(struct crab_ticket *ticket, struct crab_result *result);

/**
 * @brief Give a ticket's request up: its reply will be dropped.
 * @param ticket a ticket; afterwards it is done, with #CRAB_E_CANCELLED or, if it was a write, #CRAB_E_OUTCOME_UNKNOWN; nothing
 *        happens if it is done already
 * @threads One thread at a time for each ticket.
 */
CRAB_API void crab_ticket_cancel(struct crab_ticket *ticket);

/**
 * @brief Why a ticket's request failed.
 * @param ticket a ticket that is done
 * @param[out] failure the reason
 * @return #CRAB_OK; #CRAB_EMPTY: it has not failed, or is not done
 * @threads One thread at a time for each ticket.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_ticket_failure(const struct crab_ticket *ticket,
                                                            struct crab_failure *failure);

/**
 * @brief End a ticket; a request that is not done is given up.
 * @param ticket a ticket, or NULL, which does nothing
 * @ownership Takes the ticket, and what was borrowed from it.
 * @threads One thread at a time for each ticket.
 */
CRAB_API void crab_ticket_release(struct crab_ticket *ticket);

/**
 * @brief Send and receive for everybody until no request with a callback is on its way any more, or the time is up.
 *
 * What is queued is sent at least once, and what has come is received.  Requests with callbacks whose deadline passes meanwhile are
 * given up, and called back.
 * @param client a client
 * @param timeout_ms how long at the most; 0: do only what can be done without waiting; #CRAB_NO_TIMEOUT: as long as it takes
 * @return #CRAB_OK: all callbacks were called; #CRAB_E_TIMEOUT: some requests are still on their way; #CRAB_E_SYSTEM; #CRAB_E_FORKED
 * @threads Any thread; not within a callback.
 */
CRAB_API CRAB_MUST_USE enum crab_status crab_client_run(struct crab_client *client, uint32_t timeout_ms);

CRAB_END_DECLS

#endif
