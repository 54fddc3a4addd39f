/* SPDX-License-Identifier: MIT */
/*
 * A connection's life: options, connect, HELLO and AUTH under one deadline, the questions about its state, close.
 */
#include "client/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_MS 5000U
#define DEFAULT_MAX_BUFFERED (1024U * 1024U)
/* Without WELCOME, which names the server's own limit: the longest reply that any server may rightly send [P-10.3.1]. */
#define MAX_REPLY_NO_HELLO (CRAB_CEILING_MAX_VALUE + 29U)
/* Until WELCOME has come nothing longer than it can: so a peer of another protocol is soon found out. */
#define MAX_REPLY_TO_HELLO 65536U

static void *resize_by_libc(void *context, void *memory, size_t bytes)
{
    (void)context;
    if (bytes == 0) {
        free(memory);
        return NULL;
    }
    return realloc(memory, bytes);
}

enum crab_status conn_check_options(const struct crab_conn_options *options, struct crab_failure *failure)
{
    if (options->client_name != NULL && strlen(options->client_name) > CRAB_MAX_CLIENT_NAME)
        return net_fail(failure, CRAB_E_INVALID, 0, "the client name has more than %u bytes",
                        (unsigned)CRAB_MAX_CLIENT_NAME);
    size_t user_len = options->user != NULL ? strlen(options->user) : 1;
    if (user_len == 0 || user_len > CRAB_MAX_USER)
        return net_fail(failure, CRAB_E_INVALID, 0, "the user name has %zu bytes, not 1 to %u", user_len,
                        (unsigned)CRAB_MAX_USER);
    if (options->secret_len > CRAB_MAX_SECRET)
        return net_fail(failure, CRAB_E_INVALID, 0, "the secret has more than %u bytes", (unsigned)CRAB_MAX_SECRET);
    if (options->secret == NULL && options->secret_len != 0)
        return net_fail(failure, CRAB_E_INVALID, 0, "the secret is NULL, but its length is not 0");
    if (options->max_in_flight > CRAB_MAX_IN_FLIGHT)
        return net_fail(failure, CRAB_E_INVALID, 0, "max_in_flight is more than %u", (unsigned)CRAB_MAX_IN_FLIGHT);
    return CRAB_OK;
}

struct crab_conn *conn_make(const struct crab_conn_options *options)
{
    struct crab_allocator allocator = {.resize = resize_by_libc};
    if (options->allocator != NULL)
        allocator = *options->allocator;
    struct crab_conn *conn = allocator.resize(allocator.context, NULL, sizeof *conn);
    if (conn == NULL)
        return NULL;
    memset(conn, 0, sizeof *conn);
    conn->fd = -1;
    conn->allocator = allocator;
    conn->check_tags = options->check_tags;
    conn->log = options->log;
    conn->log_context = options->log_context;
    conn->timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
    conn->max_reply = options->max_reply != 0 ? options->max_reply
                      : options->no_hello     ? MAX_REPLY_NO_HELLO
                                              : MAX_REPLY_TO_HELLO;
    conn->asked_max_reply = options->max_reply != 0;
    conn->max_buffered = options->max_buffered != 0 ? options->max_buffered : DEFAULT_MAX_BUFFERED;
    conn->max_in_flight = options->max_in_flight != 0 ? options->max_in_flight : CRAB_MAX_IN_FLIGHT;
    conn->asked_in_flight = options->max_in_flight;
    return conn;
}

static enum crab_status greet(struct crab_conn *conn, const union crab_request *request,
                              struct net_deadline *deadline)
{
    struct crab_result result;
    return conn->events ? event_greet(conn, request) : conn_call(conn, request, &result, deadline);
}

enum crab_status conn_shake_hands(struct crab_conn *conn, const struct crab_conn_options *options,
                                  struct net_deadline *deadline)
{
    enum crab_status status = CRAB_OK;
    union crab_request request;
    if (!options->no_hello) {
        request_hello(&request, options->client_name);
        status = greet(conn, &request, deadline);
    }
    if (status == CRAB_OK && options->user != NULL) {
        request_plain(&request, CRAB_OP_AUTH, slice_of_string(options->user),
                      slice_of(options->secret, options->secret_len));
        status = greet(conn, &request, deadline);
        conn_forget_sent(conn);
    }
    return status;
}

enum crab_status crab_conn_open(const struct crab_conn_options *options, struct crab_conn **conn,
                                struct crab_failure *failure)
{
    struct crab_failure unwanted;
    if (failure == NULL)
        failure = &unwanted;
    enum crab_status status = conn_check_options(options, failure);
    if (status != CRAB_OK)
        return status;
    struct crab_conn *made = conn_make(options);
    if (made == NULL)
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory for a connection");

    const char *host = options->host != NULL ? options->host : "127.0.0.1";
    uint16_t port = options->port != 0 ? options->port : CRAB_DEFAULT_PORT;
    struct net_deadline deadline = conn_deadline(made);
    status = net_connect(host, port, &deadline, &made->fd, failure);
    if (status != CRAB_OK)
        goto failed;
    status = conn_shake_hands(made, options, &deadline);
    if (status != CRAB_OK) {
        (void)net_fail(failure, status, 0, "%s", made->text[0] != '\0' ? made->text : crab_status_text(status));
        failure->error = status == CRAB_E_SERVER ? made->error : 0;
        failure->system_error = made->system_error;
        goto failed;
    }
    conn_log(made, CRAB_LOG_INFO, "connected to %s", host);
    *conn = made;
    return CRAB_OK;

failed:
    conn_log(made, CRAB_LOG_WARNING, "no connection: %s", failure->text);
    crab_conn_close(made);
    return status;
}

void crab_conn_close(struct crab_conn *conn)
{
    if (conn == NULL || (conn->events && !event_close(conn)))
        return;
    conn_destroy(conn);
}

void conn_destroy(struct crab_conn *conn)
{
    struct crab_allocator allocator = conn->allocator;
    if (conn->fd >= 0)
        (void)close(conn->fd);
    buffer_fini(&conn->in, &allocator);
    buffer_fini(&conn->out, &allocator);
    if (conn->ring != NULL)
        (void)allocator.resize(allocator.context, conn->ring, 0);
    if (conn->waiters != NULL)
        (void)allocator.resize(allocator.context, conn->waiters, 0);
    if (conn->late.entries != NULL)
        (void)allocator.resize(allocator.context, conn->late.entries, 0);
    (void)allocator.resize(allocator.context, conn, 0);
}

enum crab_status crab_conn_server_info(const struct crab_conn *conn, struct crab_server_info *info)
{
    if (!conn->welcomed)
        return CRAB_EMPTY;
    *info = conn->info;
    return CRAB_OK;
}

uint16_t crab_conn_error(const struct crab_conn *conn)
{
    return conn->error;
}

const char *crab_conn_error_text(const struct crab_conn *conn)
{
    return conn->text;
}

int crab_conn_system_error(const struct crab_conn *conn)
{
    return conn->system_error;
}

enum crab_status crab_conn_state(const struct crab_conn *conn)
{
    return conn->state;
}

size_t crab_conn_outcome_unknown(const struct crab_conn *conn)
{
    if (conn->state == CRAB_OK)
        return 0;
    size_t unknown = conn->quiet.open && conn->quiet.first_end <= conn->sent_bytes ? 1 : 0;
    if (conn->fatal || (conn->ended && conn->goaway))
        return unknown;
    for (uint32_t i = 0; i < conn->ring_count; i++) {
        const struct in_flight *request = &conn->ring[(conn->ring_first + i) & (conn->ring_capacity - 1)];
        if (request->end > conn->sent_bytes)
            break;
        unknown += crab_op_is_write(request->op) ? 1 : 0;
    }
    return unknown;
}

bool crab_conn_goaway(const struct crab_conn *conn, uint16_t *code)
{
    if (conn->goaway && code != NULL)
        *code = conn->goaway_code;
    return conn->goaway;
}

int crab_conn_fd(const struct crab_conn *conn)
{
    return conn->fd;
}
