/* SPDX-License-Identifier: MIT */
/*
 * Pipelines through libcrabcache: RIG_DEPTH requests queued, RIG_DEPTH replies taken and looked at.
 */
#include "crabcache/crabcache.h"
#include "tests/bench/client/rig.h"

#include <string.h>

/* The opaque type of the library under the name that rig.h knows. */
static struct crab_conn *conn_of(struct crab_side *side)
{
    return (struct crab_conn *)side;
}

struct crab_side *crab_side_open(struct rig *rig)
{
    struct crab_conn_options options = {.port = rig->crab_port, .timeout_ms = 20000};
    struct crab_failure failure;
    struct crab_conn *conn = NULL;
    if (crab_conn_open(&options, &conn, &failure) != CRAB_OK)
        rig_die("crabcache-server: %s", failure.text);
    return (struct crab_side *)conn;
}

void crab_side_close(struct crab_side *side)
{
    crab_conn_close(conn_of(side));
}

static void take(struct crab_conn *conn, size_t value_bytes, unsigned count)
{
    struct crab_result result;
    for (unsigned i = 0; i < count; i++) {
        if (crab_conn_next_reply(conn, &result) != CRAB_OK)
            rig_die("crabcache: %s", crab_conn_error_text(conn));
        if (result.status != CRAB_OK || result.value.len != value_bytes)
            rig_die("crabcache: not the answer that was expected: %s", crab_status_name(result.status));
    }
}

static void queue(struct rig *rig, struct crab_conn *conn, const char *key, int put)
{
    enum crab_status status =
        put ? crab_conn_queue_put(conn, key, RIG_KEY_BYTES, rig->value, rig->value_bytes, NULL)
            : crab_conn_queue_get(conn, key, RIG_KEY_BYTES);
    if (status != CRAB_OK)
        rig_die("crabcache: %s", crab_conn_error_text(conn));
}

void crab_side_fill(struct rig *rig, struct crab_side *side)
{
    for (unsigned i = 0; i < RIG_KEYS; i += RIG_DEPTH) {
        unsigned count = RIG_KEYS - i < RIG_DEPTH ? RIG_KEYS - i : RIG_DEPTH;
        for (unsigned j = 0; j < count; j++)
            queue(rig, conn_of(side), rig->keys[i + j], 1);
        take(conn_of(side), 0, count);
    }
}

struct rig_cost crab_side_run(struct rig *rig, struct crab_side *side, int put)
{
    struct rig_cost cost = {0};
    double began = rig_now(), cpu = rig_cpu();
    do {
        for (unsigned batch = 0; batch < 64; batch++) {
            for (unsigned i = 0; i < RIG_DEPTH; i++)
                queue(rig, conn_of(side), rig_key(rig), put);
            take(conn_of(side), put ? 0 : rig->value_bytes, RIG_DEPTH);
        }
        cost.ops += (uint64_t)64 * RIG_DEPTH;
        cost.seconds = rig_now() - began;
    } while (cost.seconds < rig->seconds);
    cost.cpu_seconds = rig_cpu() - cpu;
    return cost;
}
