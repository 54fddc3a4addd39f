/* SPDX-License-Identifier: MIT */
/*
 * What a blocking call adds to the round trip.  Two connections to the same server: one through the library, one bare
 * socket on which the same bytes go and come by send() and recv().  They take turns, a few hundred calls each, so that
 * both see the same machine; the medians are compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "crabcache/crabcache.h"
#include "tests/bench/client/rig.h"

#define CALLS 200U

static void bare_call(int fd, const uint8_t *request, size_t request_len, size_t reply_len)
{
    uint8_t reply[RIG_MAX_VALUE + CRAB_REPLY_HEADER];
    if (send(fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len)
        rig_die("bare send failed");
    for (size_t got = 0; got < reply_len;) {
        ssize_t some = recv(fd, reply + got, sizeof reply - got, 0);
        if (some <= 0)
            rig_die("bare recv failed");
        got += (size_t)some;
    }
}

void latency_compare(struct rig *rig, unsigned rounds)
{
    struct crab_side *side = crab_side_open(rig);
    struct crab_conn *conn = (struct crab_conn *)side;
    int fd = rig_connect(rig->crab_port);
    double *ours = calloc(rounds * CALLS, sizeof *ours), *bare = calloc(rounds * CALLS, sizeof *bare);
    if (ours == NULL || bare == NULL)
        rig_die("no memory");
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < CALLS; i++) {
            struct crab_slice value;
            const char *key = rig_key(rig);
            double began = rig_now();
            if (crab_conn_get(conn, key, RIG_KEY_BYTES, &value) != CRAB_OK || value.len != rig->value_bytes)
                rig_die("crabcache: %s", crab_conn_error_text(conn));
            ours[round * CALLS + i] = rig_now() - began;
        }
        for (unsigned i = 0; i < CALLS; i++) {
            uint8_t request[64];
            struct crab_req_get get = {.op = CRAB_OP_GET, .key = crab_slice_of(rig_key(rig), RIG_KEY_BYTES)};
            size_t len = crab_req_get_encode(&get, request, sizeof request);
            double began = rig_now();
            bare_call(fd, request, len, CRAB_REPLY_HEADER + rig->value_bytes);
            bare[round * CALLS + i] = rig_now() - began;
        }
    }
    size_t count = (size_t)rounds * CALLS;
    double library = rig_median(ours, count), socket_only = rig_median(bare, count);
    printf("blocking GET, median of %zu: %.2f us by the library, %.2f us by send and recv: %+.1f %%\n", count,
           library * 1e6, socket_only * 1e6, (library / socket_only - 1) * 100);
    printf("blocking GET, p99: %.2f us by the library, %.2f us by send and recv\n", ours[count * 99 / 100] * 1e6,
           bare[count * 99 / 100] * 1e6);
    free(ours);
    free(bare);
    (void)close(fd);
    crab_side_close(side);
}
