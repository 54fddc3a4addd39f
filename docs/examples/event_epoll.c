/* SPDX-License-Identifier: MIT */
/*
 * A loop of one's own around epoll: counts a key up ten times, each request sent by the completion of the one before.
 *
 *     cc event_epoll.c $(pkg-config --cflags --libs crabcache) && ./a.out 127.0.0.1 2722
 */
#include <crabcache/adapters/epoll.h>
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct work {
    unsigned left;
    int failed;
};

static void counted(struct crab_conn *conn, const struct crab_result *result, void *context);

//! [chain]
static void count(struct crab_conn *conn, struct work *work)
{
    struct crab_incr_options options = {.create = true, .initial = 1};
    if (crab_conn_queue_incr(conn, "visits", 6, 1, &options) == CRAB_OK)
        crab_conn_then(conn, counted, work);
    else
        work->failed = 1;
}

static void counted(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    struct work *work = context;
    if (result->status != CRAB_OK) {
        fprintf(stderr, "%s\n", crab_conn_error_text(conn));
        work->failed = 1;
    } else if (--work->left != 0) {
        count(conn, work);
    } else {
        printf("visits: %lld\n", (long long)result->number);
    }
}
//! [chain]

int main(int argc, char **argv)
{
    struct crab_conn *conn;
    struct crab_failure failure;
    struct crab_epoll watch;
    struct work work = {.left = 10};
    if (argc != 3)
        return 2;
    struct crab_conn_options options = {.host = argv[1], .port = (uint16_t)atoi(argv[2]), .timeout_ms = 2000};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || crab_conn_start(&options, &conn, &failure) != CRAB_OK)
        return 1;
    //! [loop]
    crab_epoll_attach(&watch, conn, epoll_fd);
    count(conn, &work);
    while (work.left != 0 && !work.failed) {
        struct epoll_event events[8];
        int ready = epoll_wait(epoll_fd, events, 8, crab_epoll_timeout(&watch));
        for (int i = 0; i < ready; i++)
            crab_epoll_ready(events[i].data.ptr, events[i].events);
        crab_epoll_tick(&watch);
    }
    //! [loop]
    crab_conn_close(conn);
    close(epoll_fd);
    return work.failed;
}
