/* SPDX-License-Identifier: MIT */
/*
 * Two connections in one thread, around plain poll(): each stores a value and reads it back.
 *
 *     cc event_poll.c $(pkg-config --cflags --libs crabcache) && ./a.out 127.0.0.1 2722
 */
#include <crabcache/adapters/poll.h>
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void stored(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    (void)conn;
    if (result->status != CRAB_OK)
        printf("%s was not stored: %s\n", (const char *)context, crab_status_text(result->status));
}

//! [completion]
static void got(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    (void)conn;
    if (result->status == CRAB_OK)
        printf("%s: %.*s\n", (const char *)context, (int)result->value.len, (const char *)result->value.data);
    else
        printf("%s: %s\n", (const char *)context, crab_status_text(result->status));
}
//! [completion]

int main(int argc, char **argv)
{
    static char name[2][8] = {"left", "right"};
    struct crab_conn *conns[2];
    struct crab_failure failure;
    if (argc != 3)
        return 2;
    struct crab_conn_options options = {.host = argv[1], .port = (uint16_t)atoi(argv[2]), .timeout_ms = 2000};
    for (size_t i = 0; i < 2; i++) {
        //! [start]
        if (crab_conn_start(&options, &conns[i], &failure) != CRAB_OK) {
            fprintf(stderr, "%s\n", failure.text);
            return 1;
        }
        /* Both are queued before there is a connection; they follow its HELLO. */
        size_t len = strlen(name[i]);
        if (crab_conn_queue_put(conns[i], name[i], len, "hello", 5, NULL) == CRAB_OK)
            crab_conn_then(conns[i], stored, name[i]);
        if (crab_conn_queue_get(conns[i], name[i], len) == CRAB_OK)
            crab_conn_then(conns[i], got, name[i]);
        //! [start]
    }
    //! [turn]
    while (crab_conn_in_flight(conns[0]) + crab_conn_in_flight(conns[1]) != 0)
        if (crab_poll_turn(conns, 2, -1) < 0 ||
            (crab_conn_state(conns[0]) != CRAB_OK && crab_conn_state(conns[1]) != CRAB_OK))
            break;
    //! [turn]
    crab_conn_close(conns[0]);
    crab_conn_close(conns[1]);
    return 0;
}
