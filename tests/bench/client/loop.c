/* SPDX-License-Identifier: MIT */
/*
 * Some connections in one event loop, by the epoll adapter: each completion looks at its reply, and the last of a pipeline
 * queues the next one.
 */
#include <sys/epoll.h>
#include <unistd.h>

#include "crabcache/adapters/epoll.h"
#include "crabcache/crabcache.h"
#include "tests/bench/client/rig.h"

struct loop {
    struct rig *rig;
    int put;
    int stop;
    uint64_t ops;
};

struct lane {
    struct crab_epoll watch;
    struct loop *loop;
    unsigned left;
};

static void done(struct crab_conn *conn, const struct crab_result *result, void *context);

static void fill(struct lane *lane, struct crab_conn *conn)
{
    struct rig *rig = lane->loop->rig;
    lane->left = RIG_DEPTH;
    for (unsigned i = 0; i < RIG_DEPTH; i++) {
        const char *key = rig_key(rig);
        enum crab_status status = lane->loop->put
                                      ? crab_conn_queue_put(conn, key, RIG_KEY_BYTES, rig->value, rig->value_bytes, NULL)
                                      : crab_conn_queue_get(conn, key, RIG_KEY_BYTES);
        if (status != CRAB_OK || crab_conn_then(conn, done, lane) != CRAB_OK)
            rig_die("event loop: %s", crab_conn_error_text(conn));
    }
}

static void done(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    struct lane *lane = context;
    if (result->status != CRAB_OK || result->value.len != (lane->loop->put ? 0 : lane->loop->rig->value_bytes))
        rig_die("event loop: not the answer that was expected: %s", crab_status_name(result->status));
    lane->loop->ops++;
    if (--lane->left == 0 && !lane->loop->stop)
        fill(lane, conn);
}

static void turn(int epoll_fd)
{
    struct epoll_event events[RIG_CONNECTIONS];
    int ready = epoll_wait(epoll_fd, events, RIG_CONNECTIONS, 1000);
    for (int i = 0; i < ready; i++)
        crab_epoll_ready(events[i].data.ptr, events[i].events);
}

struct rig_cost loop_run(struct rig *rig, int put)
{
    struct loop loop = {.rig = rig, .put = put};
    struct lane lanes[RIG_CONNECTIONS];
    struct rig_cost cost = {0};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < RIG_CONNECTIONS; i++) {
        struct crab_conn *conn = (struct crab_conn *)crab_side_open(rig);
        lanes[i] = (struct lane){.loop = &loop};
        if (epoll_fd < 0 || crab_conn_use_events(conn) != CRAB_OK)
            rig_die("no event loop");
        crab_epoll_attach(&lanes[i].watch, conn, epoll_fd);
        fill(&lanes[i], conn);
    }
    double began = rig_now(), cpu = rig_cpu();
    while (rig_now() - began < rig->seconds)
        for (unsigned i = 0; i < 16; i++)
            turn(epoll_fd);
    cost.ops = loop.ops;
    cost.seconds = rig_now() - began;
    cost.cpu_seconds = rig_cpu() - cpu;
    loop.stop = 1;
    for (unsigned i = 0; i < RIG_CONNECTIONS; i++) {
        while (lanes[i].left != 0)
            turn(epoll_fd);
        crab_conn_close(lanes[i].watch.conn);
    }
    (void)close(epoll_fd);
    return cost;
}
