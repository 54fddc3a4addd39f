/* SPDX-License-Identifier: MIT */
/*
 * In a libuv loop: the host's name is resolved by libuv, then a value is stored, read back, and the connection closed.
 *
 *     cc event_libuv.c $(pkg-config --cflags --libs crabcache libuv) && ./a.out localhost 2722
 */
#include <crabcache/adapters/libuv.h>
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <string.h>

static int failed = 1;

static void stored(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    (void)context;
    if (result->status != CRAB_OK)
        fprintf(stderr, "not stored: %s\n", crab_conn_error_text(conn));
}

//! [close]
static void got(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    (void)context;
    if (result->status == CRAB_OK) {
        printf("%.*s\n", (int)result->value.len, (const char *)result->value.data);
        failed = 0;
    } else {
        fprintf(stderr, "%s: %s\n", crab_status_text(result->status), crab_conn_error_text(conn));
    }
    crab_conn_close(conn); /* the loop has nothing left to do then, and ends */
}
//! [close]

static void resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    char host[64];
    const char *port = request->data;
    struct crab_conn *conn;
    struct crab_failure failure;
    if (status != 0) {
        fprintf(stderr, "%s\n", uv_strerror(status));
        return;
    }
    uv_ip_name(list->ai_addr, host, sizeof host);
    uv_freeaddrinfo(list);
    struct crab_conn_options options = {.host = host, .port = (uint16_t)atoi(port), .timeout_ms = 2000};
    if (crab_conn_start(&options, &conn, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return;
    }
    //! [attach]
    if (crab_libuv_attach(conn, request->loop) != 0) {
        crab_conn_close(conn);
        return;
    }
    if (crab_conn_queue_put(conn, "greeting", 8, "hello from libuv", 16, NULL) == CRAB_OK)
        crab_conn_then(conn, stored, NULL);
    if (crab_conn_queue_get(conn, "greeting", 8) == CRAB_OK)
        crab_conn_then(conn, got, NULL);
    //! [attach]
}

int main(int argc, char **argv)
{
    uv_getaddrinfo_t request;
    struct addrinfo hints;
    if (argc != 3)
        return 2;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    request.data = argv[2];
    if (uv_getaddrinfo(uv_default_loop(), &request, resolved, argv[1], argv[2], &hints) != 0)
        return 1;
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    uv_loop_close(uv_default_loop());
    return failed;
}
