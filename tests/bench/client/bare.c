/* SPDX-License-Identifier: MIT */
/*
 * The pipelines of crab_side.c without a library: requests encoded in advance, one send(), recv() until all replies are here.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "crabcache/wire.h"
#include "tests/bench/client/rig.h"

#define MOST ((size_t)RIG_DEPTH * (RIG_MAX_VALUE + 64))

static size_t encode(struct rig *rig, int put, uint8_t *to)
{
    size_t len = 0;
    for (unsigned i = 0; i < RIG_DEPTH; i++) {
        struct crab_slice key = crab_slice_of(rig_key(rig), RIG_KEY_BYTES);
        struct crab_req_get get = {.op = CRAB_OP_GET, .key = key};
        struct crab_req_put store = {.op = CRAB_OP_PUT, .key = key, .value = crab_slice_of(rig->value, rig->value_bytes)};
        len += put ? crab_req_put_encode(&store, to + len, MOST - len) : crab_req_get_encode(&get, to + len, MOST - len);
    }
    return len;
}

struct rig_cost bare_run(struct rig *rig, int put)
{
    static uint8_t requests[MOST], replies[MOST];
    struct rig_cost cost = {0};
    int fd = rig_connect(rig->crab_port);
    size_t reply_len = RIG_DEPTH * (put ? 1 : CRAB_REPLY_HEADER + rig->value_bytes);
    double began = rig_now(), cpu = rig_cpu();
    do {
        size_t len = encode(rig, put, requests); /* once for 64 batches: what is measured is the socket */
        for (unsigned batch = 0; batch < 64; batch++) {
            if (send(fd, requests, len, MSG_NOSIGNAL) != (ssize_t)len)
                rig_die("bare send failed");
            for (size_t got = 0; got < reply_len;) {
                ssize_t some = recv(fd, replies + got, sizeof replies - got, 0);
                if (some <= 0)
                    rig_die("bare recv failed");
                got += (size_t)some;
            }
        }
        cost.ops += (uint64_t)64 * RIG_DEPTH;
        cost.seconds = rig_now() - began;
    } while (cost.seconds < rig->seconds);
    cost.cpu_seconds = rig_cpu() - cpu;
    (void)close(fd);
    return cost;
}
