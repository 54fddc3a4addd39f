/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The whole server: sockets to listen on, the store, the workers; from start to stop.
 */
#ifndef CRABCACHE_SERVER_SERVER_H
#define CRABCACHE_SERVER_SERVER_H

#include "server/config.h"
#include "server/log.h"

/**
 * @brief Run the server until it is asked to stop.
 *
 * Blocks SIGTERM, SIGINT and SIGHUP for the process and takes them itself. When all is ready one line goes to standard
 * output, `crabcache-server VERSION ready on PLACE[, PLACE]...`, where a place is ADDRESS:PORT or unix:PATH.
 * @param config  borrowed. @param log  borrowed.
 * @return the exit status: 0 it stopped as asked, 1 it could not start (the log says why).
 */
int server_run(const struct config *config, const struct log *log);

/**
 * @brief Check what the configuration names, without starting anything: the file of users.
 * @param config  borrowed. @param log  borrowed.
 * @return the exit status: 0 all is right, 1 it is not (the log says why).
 */
int server_check(const struct config *config, const struct log *log);

#endif
