/* SPDX-License-Identifier: MIT */
/*
 * Where the servers are, as text:
 *
 *     crab://[user@]host[:port][,host[:port]...][/][?name=value[&name=value...]]
 *     crab+unix://[user@]/path[?name=value...]
 *
 * A host is a name, an IPv4 address, or an IPv6 address in brackets, with its zone as %25zone.  User, host, path and values may be
 * percent-encoded.  Names of parameters: timeout, connect_timeout (ms), connections, retries, max_in_flight, weights (one for
 * each server, separated by commas), distribution (ketama, rendezvous), eject, tags (0, 1), secret_file, client_name.
 * A secret cannot stand in a URI, because URIs end up in logs.
 *
 * Nothing is allocated; strings point into the struct itself.
 */
#ifndef CRABCACHE_CLIENT_URI_H
#define CRABCACHE_CLIENT_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/client.h"

/** @brief Longest name of a host in bytes. */
#define URI_MAX_HOST 255U

struct uri_server {
    const char *host; /**< Name or address without brackets; a path begins with a slash. */
    uint16_t port;    /**< 0 for a path. */
    uint32_t weight;  /**< 1 unless said otherwise. */
};

/** @brief What a URI says.  Numbers that it does not name have `has_` false. */
struct uri {
    struct uri_server servers[CRAB_MAX_SERVERS];
    size_t count;
    const char *user;        /**< NULL: none. */
    const char *secret_file; /**< NULL: none. */
    const char *client_name; /**< NULL: none. */
    uint32_t timeout_ms;
    uint32_t connect_timeout_ms;
    uint32_t connections;
    uint32_t retries;
    uint32_t max_in_flight;
    enum crab_distribution distribution;
    bool eject;
    bool tags;
    uint32_t given; /**< Which parameters were there, as bits of `enum uri_parameter`. */
    size_t used;    /**< Of `text`. */
    char text[CRAB_MAX_URI + 2]; /**< The decoded strings, each ended by a zero. */
};

enum uri_parameter {
    URI_TIMEOUT,
    URI_CONNECT_TIMEOUT,
    URI_CONNECTIONS,
    URI_RETRIES,
    URI_MAX_IN_FLIGHT,
    URI_WEIGHTS,
    URI_DISTRIBUTION,
    URI_EJECT,
    URI_TAGS,
    URI_SECRET_FILE,
    URI_CLIENT_NAME,
    URI_PARAMETERS /**< How many there are. */
};

/** @brief Whether a parameter was there. */
static inline bool uri_gives(const struct uri *uri, enum uri_parameter parameter)
{
    return (uri->given >> parameter & 1U) != 0;
}

/**
 * @brief Read a URI.
 * @param text the URI, ended by a zero
 * @param[out] uri what it says; undefined on failure
 * @param[out] why on failure: a sentence about what is wrong, with the place
 * @param why_size bytes of `why`
 * @return whether it is one
 */
bool uri_parse(const char *text, struct uri *uri, char *why, size_t why_size);

#endif
