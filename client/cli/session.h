/* SPDX-License-Identifier: MIT */
/*
 * What a run of crabcache-cli has: how to connect, the connection, how to show things; and how it complains.
 */
#ifndef CRABCACHE_CLI_SESSION_H
#define CRABCACHE_CLI_SESSION_H

#include <stdbool.h>

#include "crabcache/crabcache.h"

/** @brief Exit statuses, as the help names them. */
enum cli_exit {
    CLI_OK = 0,
    CLI_NO = 1,         /**< A miss, or a condition that did not hold. */
    CLI_USAGE = 2,      /**< A mistake of the user, or a local file. */
    CLI_CONNECTION = 3, /**< No connection, or it broke. */
    CLI_SERVER = 4      /**< The server answered with an error. */
};

/** @brief A run of the program. */
struct session {
    struct crab_conn_options options;
    struct crab_conn *conn; /**< NULL before the first command and after a break. */
    bool interactive;       /**< Values are shown quoted. */
    char secret[CRAB_MAX_SECRET + 4]; /**< With room for a line end, and to see that it is too long. */
};

/** @brief Complain on the standard error, as printf() with the program's name before and a line end after. */
__attribute__((format(printf, 1, 2))) void session_complain(const char *format, ...);

/** @brief Connect, unless there is a connection that works. @return CLI_OK, or an exit status after a complaint */
int session_connect(struct session *session);

/**
 * @brief Complain about a call that failed and choose the exit status.
 * @param session a session
 * @param status the call's status, a failure
 * @return the exit status
 */
int session_failed(struct session *session, enum crab_status status);

/** @brief Close the connection. */
void session_close(struct session *session);

#endif
