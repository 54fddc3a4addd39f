/* SPDX-License-Identifier: MIT */
/*
 * The inside of a client: servers with their channels, and what all calls need before they come to a channel.
 *
 *     client.c         open, close, forks, picking, repeating
 *     client_call.c    blocking calls
 *     client_ticket.c  requests that nobody waits for at once
 *     client_many.c    many keys in one call           client_fetch.c  get, or load once
 *
 * Everything here but the circuits, the channels and the pools is made by crab_client_open() and never changes.
 */
#ifndef CRABCACHE_CLIENT_HANDLE_H
#define CRABCACHE_CLIENT_HANDLE_H

#include <sys/types.h>

#include "client/channel.h"
#include "client/ring.h"
#include "client/uri.h"
#include "crabcache/fetch.h"
#include "crabcache/ticket.h"

/** @brief One server. */
struct server {
    struct net_target target;
    struct circuit circuit;
    struct channel *channels; /**< `connections` of them. */
    uint32_t ready;           /**< How many of them are prepared. */
    uint32_t weight;
    char *name;               /**< "host:port" or a path. */
};

/** @brief Lists of the keys that are being loaded. */
#define FLIGHT_LISTS 64U

struct flight;

/** @brief Loads that are under way. */
struct flights {
    pthread_mutex_t lock;
    struct flight *lists[FLIGHT_LISTS]; /**< By the hash of the key. */
};

/** @brief Tickets that nobody holds. */
struct ticket_pool {
    pthread_mutex_t lock;
    struct crab_ticket *free;
};

struct crab_client {
    struct crab_allocator allocator;
    struct channel_config config;
    struct uri *uri;          /**< Its strings are used as long as the client lives. */
    char *strings;            /**< Copies of the options' strings. */
    struct ring ring;
    struct server *servers;
    size_t server_count;
    uint32_t connections;     /**< To each server. */
    uint32_t retries;
    bool eject;
    struct ticket_pool tickets;
    struct flights flights;
    _Atomic uint64_t callbacks; /**< Requests on their way that have one. */
    volatile uint8_t *mine;   /**< A page that the kernel clears in a child; its first byte is 1 in the process that made it. */
    pid_t pid;                /**< For kernels that cannot do that; 0 if they can. */
};

/** @brief Free the tickets of the pool. */
void tickets_fini(struct crab_client *client);

/** @brief crab_client_submit() with a deadline that has begun, arguments unchecked. */
enum crab_status client_submit(struct crab_client *client, const union crab_request *request,
                               const struct net_deadline *deadline, const struct crab_submit_options *options,
                               struct crab_ticket **ticket);

/** @brief Exchange the value of a ticket that is done for another one. */
void ticket_swap_value(struct crab_ticket *ticket, struct crab_value *value);

/** @brief Whether the handle belongs to another process. */
bool client_is_forked(const struct crab_client *client);

/** @brief Fill `options->failure` as far as there is one. @return status */
enum crab_status client_fail(const struct crab_call_options *options, enum crab_status status, const char *text);

/** @brief The deadline of a call that begins now. */
struct net_deadline client_deadline(const struct crab_client *client, uint32_t timeout_ms);

/** @brief The channel of the calling thread to a server. */
struct channel *client_channel(const struct crab_client *client, size_t server);

/** @brief The server that shall get a key now. */
size_t client_pick(struct crab_client *client, struct crab_slice key);

/** @brief As `server` of client_perform(): the one that the key belongs to. */
#define CLIENT_BY_KEY SIZE_MAX

/**
 * @brief One request, repeated as often as options and deadline allow.
 * @param client a client; the caller has checked for a fork
 * @param request the request
 * @param server who gets it, or #CLIENT_BY_KEY
 * @param value where the reply's bytes go, or NULL
 * @param options the caller's, or NULL
 * @param deadline of the call
 * @param[out] result always filled
 * @return `result->status`
 */
enum crab_status client_perform(struct crab_client *client, const union crab_request *request, size_t server,
                                struct crab_value *value, const struct crab_call_options *options,
                                struct net_deadline *deadline, struct crab_result *result);

#endif
