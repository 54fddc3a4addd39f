/* SPDX-License-Identifier: MIT */
/*
 * In a libevent base: stores a value, reads it back, closes the connection in the last completion.
 *
 *     cc event_libevent.c $(pkg-config --cflags --libs crabcache libevent) && ./a.out 127.0.0.1 2722
 */
#include <crabcache/adapters/libevent.h>
#include <crabcache/crabcache.h>
#include <stdio.h>

static int failed = 1;

static void stored(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    (void)context;
    if (result->status != CRAB_OK)
        fprintf(stderr, "not stored: %s\n", crab_conn_error_text(conn));
}

static void got(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    struct event_base *base = context;
    if (result->status == CRAB_OK) {
        printf("%.*s\n", (int)result->value.len, (const char *)result->value.data);
        failed = 0;
    } else {
        fprintf(stderr, "%s: %s\n", crab_status_text(result->status), crab_conn_error_text(conn));
    }
    crab_conn_close(conn);
    event_base_loopbreak(base);
}

int main(int argc, char **argv)
{
    struct crab_conn *conn;
    struct crab_failure failure;
    struct event_base *base = event_base_new();
    if (argc != 3 || base == NULL)
        return 2;
    struct crab_conn_options options = {.host = argv[1], .port = (uint16_t)atoi(argv[2]), .timeout_ms = 2000};
    if (crab_conn_start(&options, &conn, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    //! [attach]
    if (crab_libevent_attach(conn, base) == 0) {
        if (crab_conn_queue_put(conn, "greeting", 8, "hello from libevent", 19, NULL) == CRAB_OK)
            crab_conn_then(conn, stored, NULL);
        if (crab_conn_queue_get(conn, "greeting", 8) == CRAB_OK)
            crab_conn_then(conn, got, base);
        event_base_dispatch(base);
    }
    //! [attach]
    event_base_free(base);
    return failed;
}
