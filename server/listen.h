/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The sockets that the server listens on: TCP addresses, unix sockets, and what the service manager hands over.
 *
 * Where it stands: server.c opens them at the start, accepts from them, and closes them at the stop. Nothing here
 * knows what is spoken on a connection.
 *
 * Invariants:
 * - A unix socket has its permissions from the moment it exists, before anybody can connect.
 * - A socket file is removed only if nobody listens on it (what a killed server left behind) or if it is ours. Two
 *   servers that start at once on one path do not take it from each other: the folder is locked meanwhile.
 */
#ifndef CRABCACHE_SERVER_LISTEN_H
#define CRABCACHE_SERVER_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "server/config.h"

struct log;

/** Most sockets that the service manager may hand over. */
#define LISTEN_MAX_INHERITED 16U

/** Most sockets. */
#define LISTEN_MAX (CONFIG_MAX_BINDS + CONFIG_MAX_UNIX + LISTEN_MAX_INHERITED)

/** Room for the name of a socket. */
#define LISTEN_NAME_BYTES (sizeof(((struct sockaddr_un *)NULL)->sun_path) + 8)

/** A socket that listens. */
struct listener {
    int fd;                /**< Non-blocking. */
    bool local;            /**< A unix socket. */
    const char *path;      /**< Of the file to remove at the end; borrowed of the configuration, or NULL. */
    dev_t device;          /**< Of that file, */
    ino_t inode;           /**< to know it again. */
    char name[LISTEN_NAME_BYTES]; /**< `ADDRESS:PORT` or `unix:PATH`. */
};

/** All of them. */
struct listen_set {
    struct listener at[LISTEN_MAX];
    unsigned count;
};

/**
 * @brief Take over the sockets that the service manager has opened (sd_listen_fds(3)), if there are any, and open every
 *        one that the configuration names.
 * @param[out] set  all zero before; filled also on failure, with what was opened until then.
 * @param config  borrowed for as long as the set.
 * @param log  is told what does not work.
 * @return whether all of them listen.
 * @ownership The caller ends the set with listen_close(), whatever the result.
 * @threads None besides the caller's may create files meanwhile: the umask of the process changes.
 */
bool listen_open(struct listen_set *set, const struct config *config, const struct log *log);

/**
 * @brief Open one TCP socket that listens.
 * @param address  numeric. @param port  0: any free one.
 * @param[out] name  LISTEN_NAME_BYTES: `ADDRESS:PORT`, also on failure.
 * @return the socket, non-blocking, which the caller closes; -1 with errno.
 */
int listen_open_tcp(const char *address, uint16_t port, char *name);

/**
 * @brief Accept one connection.
 * @param listener  where.
 * @param[out] source  where it comes from, as throttle.h counts: an IPv4 address, a network of IPv6 (64 bits), or a user
 *                     of this machine.
 * @return its socket, non-blocking; -1 with errno.
 */
int listen_accept(const struct listener *listener, uint64_t *source);

/** @brief Close the sockets, and remove the files of those that are ours. The set is empty then. */
void listen_close(struct listen_set *set);

#endif
