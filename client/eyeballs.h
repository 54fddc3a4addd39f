/* SPDX-License-Identifier: MIT */
/*
 * Connecting to whichever of several addresses answers first (RFC 8305, "happy eyeballs"): the families take turns, and while one
 * address is silent the next one is tried as well.
 */
#ifndef CRABCACHE_CLIENT_EYEBALLS_H
#define CRABCACHE_CLIENT_EYEBALLS_H

#include "client/net.h"

struct addrinfo;
struct sockaddr;

/** @brief Addresses that are tried at the most; further ones are left out. */
#define EYEBALLS_ADDRESSES 16U
/** @brief How long an address may be silent until the next one is tried, too. */
#define EYEBALLS_DELAY_MS 250U

/**
 * @brief Make a socket and begin to connect it.
 * @param address where to
 * @param len its length
 * @param[out] fd the socket: non-blocking, close-on-exec, without Nagle's delay
 * @return 0: connected; EINPROGRESS: not yet; both with a socket; another errno: neither
 */
int eyeballs_begin(const struct sockaddr *address, unsigned len, int *fd);

/**
 * @brief Connect to one of the addresses.
 * @param list the addresses, the preferred ones first
 * @param deadline when to give up
 * @param[out] fd the connected socket
 * @return 0, or an errno: ETIMEDOUT at the deadline, otherwise why the last address failed
 */
int eyeballs_connect(const struct addrinfo *list, struct net_deadline *deadline, int *fd);

#endif
