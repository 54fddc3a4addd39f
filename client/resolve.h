/* SPDX-License-Identifier: MIT */
/*
 * Resolving names under a deadline.  getaddrinfo() cannot be interrupted, so it runs in a thread of its own, and who waits for it
 * may leave: the thread then ends by itself, as late as the system's resolver wants, and frees what nobody waits for.  So the shared
 * library is never unloaded (-z nodelete).  Memory comes from malloc(), as it may outlive any allocator.
 *
 * A numeric address is read at once, without a thread.
 */
#ifndef CRABCACHE_CLIENT_RESOLVE_H
#define CRABCACHE_CLIENT_RESOLVE_H

#include <stdint.h>

#include "client/net.h"

struct addrinfo;

/** @brief A resolution that is under way, or done. */
struct resolution;

/**
 * @brief Begin to resolve.
 * @param host name or numeric address
 * @param port TCP port
 * @param[out] resolution the resolution; a numeric address is done at once
 * @return 0, or an errno
 * @ownership The caller ends it by resolution_release().
 */
int resolution_start(const char *host, uint16_t port, struct resolution **resolution);

/** @brief Wait until it is done. @return false: not before the deadline; it goes on */
bool resolution_wait(struct resolution *resolution, struct net_deadline *deadline);

/**
 * @brief What came of a resolution that is done.
 * @param resolution the resolution
 * @param[out] list the addresses; lives as long as the resolution
 * @param[out] system_error with EAI_SYSTEM: an errno
 * @return 0, or one of the EAI_ errors
 */
int resolution_result(const struct resolution *resolution, const struct addrinfo **list, int *system_error);

/** @brief Give it up, done or not.  NULL is accepted. */
void resolution_release(struct resolution *resolution);

#endif
