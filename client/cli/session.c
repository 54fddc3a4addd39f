/* SPDX-License-Identifier: MIT */
/*
 * The connection of a run and its failures: which exit status, which words.
 */
#include "client/cli/session.h"

#include <stdarg.h>
#include <stdio.h>

void session_complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("crabcache-cli: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
}

static int exit_of(enum crab_status status)
{
    switch (status) {
    case CRAB_OK:
        return CLI_OK;
    case CRAB_MISS:
    case CRAB_EXISTS:
    case CRAB_EMPTY:
        return CLI_NO;
    case CRAB_E_INVALID:
        return CLI_USAGE;
    case CRAB_E_SERVER:
    case CRAB_E_UNKNOWN_REPLY:
        return CLI_SERVER;
    default:
        return CLI_CONNECTION;
    }
}

int session_connect(struct session *session)
{
    if (session->conn != NULL && crab_conn_state(session->conn) == CRAB_OK)
        return CLI_OK;
    session_close(session);
    struct crab_failure failure;
    enum crab_status status = crab_conn_open(&session->options, &session->conn, &failure);
    if (status == CRAB_OK)
        return CLI_OK;
    const char *name = status == CRAB_E_SERVER ? crab_error_name(failure.error) : NULL;
    if (name != NULL)
        session_complain("%s: %s", name, failure.text);
    else
        session_complain("%s", failure.text);
    return exit_of(status);
}

int session_failed(struct session *session, enum crab_status status)
{
    const char *text = crab_conn_error_text(session->conn);
    const char *name = crab_error_name(crab_conn_error(session->conn));
    if (text[0] == '\0')
        text = crab_status_text(status);
    if (status == CRAB_E_SERVER && name != NULL)
        session_complain("%s: %s", name, text);
    else if (status == CRAB_E_SERVER)
        session_complain("error 0x%04x: %s", (unsigned)crab_conn_error(session->conn), text);
    else
        session_complain("%s", text);
    if (crab_conn_outcome_unknown(session->conn) != 0)
        session_complain("the write was sent; whether the server executed it is unknown");
    return exit_of(status);
}

void session_close(struct session *session)
{
    crab_conn_close(session->conn);
    session->conn = NULL;
}
