/* SPDX-License-Identifier: MIT */
/*
 * The table of the statistics. What a number means is said here once; docs/STATS.md repeats it for people, and a test
 * holds the two together.
 */
#include "server/stats_rows.h"

#include <string.h>
#include <unistd.h>

#include "crabcache/wire.h"
#include "server/buf.h"

/* ------------------------------------------------------------------------------------------- reading */

static uint64_t sum(const struct stats *stats, size_t offset)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < stats->worker_count; i++) {
        const char *block = (const char *)&stats->workers[i];
        total += stats_read((const struct stats_counter *)(const void *)(block + offset));
    }
    return total;
}

void stats_look(const struct stats *stats, struct stats_view *view)
{
    *view = (struct stats_view){.stats = stats};
    view->closed = sum(stats, offsetof(struct stats_worker, connections_closed)); /* first: never more than opened */
    view->opened = sum(stats, offsetof(struct stats_worker, connections_opened));
}

void stats_look_at_store(struct stats_view *view)
{
    store_stats(view->stats->store, &view->store);
}

static uint64_t of_workers(const struct stats_view *view, size_t at)
{
    return sum(view->stats, at);
}

static uint64_t of_store(const struct stats_view *view, size_t at)
{
    uint64_t value;
    memcpy(&value, (const char *)&view->store + at, sizeof value);
    return value;
}

/* A number that a function makes: READ(name, expression with v). */
#define READ(name, expression)                                                                                 \
    static uint64_t name(const struct stats_view *v, size_t at)                                                \
    {                                                                                                          \
        (void)v;                                                                                               \
        (void)at;                                                                                              \
        return expression;                                                                                     \
    }

READ(protocol_version, CRAB_PROTOCOL_VERSION)
READ(pid, (uint64_t)getpid())
READ(uptime_ms, stats_now_ms() - v->stats->start_ms)
READ(threads, v->stats->worker_count)
READ(memory_bytes, v->stats->memory_bytes)
READ(max_key_bytes, CRAB_MAX_KEY)
READ(max_value_bytes, v->stats->max_value)
READ(current, v->opened - v->closed)
READ(opened, v->opened)
READ(closed, v->closed)
READ(refused, atomic_load_explicit(&v->stats->refused_connections, memory_order_relaxed))
READ(accept_pauses, atomic_load_explicit(&v->stats->accept_pauses, memory_order_relaxed))
READ(buffer_bytes, atomic_load_explicit(&v->stats->budget->used, memory_order_relaxed))
READ(buffer_limit_bytes, v->stats->budget->limit)
READ(stream_bytes,
     v->stats->streams != NULL ? atomic_load_explicit(&v->stats->streams->used, memory_order_relaxed) : 0)
READ(buffer_refusals, atomic_load_explicit(&v->stats->budget->refusals, memory_order_relaxed))

/* ------------------------------------------------------------------------------------------ the table */

#define SERVER(name, help) {"server", #name, STATS_GAUGE, help, name, 0}
#define CONNS(name, kind, help) {"connections", #name, kind, help, name, 0}
#define CONNS_SUM(name, help) {"connections", #name, STATS_COUNTER, help, of_workers, offsetof(struct stats_worker, name)}
#define STORE(name, member, kind, help) {"store", #name, kind, help, of_store, offsetof(struct store_stats, member)}
#define OPS_SUM(name, help) {"ops", #name, STATS_COUNTER, help, of_workers, offsetof(struct stats_worker, name)}

const struct stats_row stats_rows[] = {
    SERVER(protocol_version, "Version of the wire protocol."),
    SERVER(pid, "Process number."),
    SERVER(uptime_ms, "Time since the start, on a clock that nobody sets."),
    SERVER(threads, "Workers."),
    SERVER(memory_bytes, "Limit for everything: --memory."),
    SERVER(max_key_bytes, "Longest key."),
    SERVER(max_value_bytes, "Longest value: the limit in force."),

    CONNS(current, STATS_GAUGE, "Open connections."),
    CONNS(opened, STATS_COUNTER, "Connections that a worker took over."),
    CONNS(closed, STATS_COUNTER, "Connections that ended, for whatever reason."),
    {"connections", "aborted", STATS_COUNTER, "Of those: closed because their buffers were needed for others.", of_workers,
     offsetof(struct stats_worker, connections_aborted)},
    {"connections", "timed_out", STATS_COUNTER, "Of those: closed because the client took longer than a timeout allows.",
     of_workers, offsetof(struct stats_worker, connections_timed_out)},
    CONNS(refused, STATS_COUNTER, "Clients closed at once: more than --max-connections, or no memory for them."),
    CONNS(accept_pauses, STATS_COUNTER, "Times that accepting paused for want of descriptors or memory."),
    CONNS_SUM(bytes_received, "Bytes received from clients."),
    CONNS_SUM(bytes_sent, "Bytes sent to clients."),
    CONNS_SUM(bytes_skipped, "Of the received bytes: parts of frames that were refused by their head."),
    CONNS_SUM(output_stalls, "Times that a client took less than there was to send."),
    CONNS_SUM(values_by_reference, "Large values that were sent from where they lie."),
    CONNS_SUM(values_streamed, "Large values that were received right into their places in the store."),
    CONNS(stream_bytes, STATS_GAUGE, "Memory of the store that values take which are being received so."),
    CONNS(buffer_bytes, STATS_GAUGE, "Memory for connections and their buffers, in use."),
    CONNS(buffer_limit_bytes, STATS_GAUGE, "Limit of it."),
    CONNS(buffer_refusals, STATS_COUNTER, "Times that it was not enough."),

    STORE(items, items, STATS_GAUGE, "Items, with those that have expired but were not collected yet."),
    STORE(live_bytes, bytes_live, STATS_GAUGE, "Memory that items take, their headers included."),
    STORE(dead_bytes, bytes_dead, STATS_GAUGE, "Memory that waits to be reclaimed, and unused ends of segments."),
    STORE(retired_bytes, bytes_retired, STATS_GAUGE, "Of the dead bytes: those that wait for a worker's next turn."),
    STORE(free_bytes, bytes_free, STATS_GAUGE, "Memory that is ready to be written."),
    STORE(index_bytes, bytes_index, STATS_GAUGE, "Memory that the index takes."),
    STORE(fixed_bytes, bytes_fixed, STATS_GAUGE, "Memory of tables whose size never changes."),
    STORE(limit_bytes, bytes_limit, STATS_GAUGE, "Limit of the store: live, dead, free, index and fixed bytes."),
    STORE(index_slots, index_slots, STATS_GAUGE, "Slots of the index, used or not."),
    STORE(hits, hits, STATS_COUNTER, "GETs that found their key."),
    STORE(misses, misses, STATS_COUNTER, "GETs that did not."),
    STORE(puts, puts, STATS_COUNTER, "Items written, by any request."),
    STORE(deletes, deletes, STATS_COUNTER, "Items deleted by request."),
    STORE(expirations, expirations, STATS_COUNTER, "Items that were found expired and dropped."),
    STORE(refusals, refusals, STATS_COUNTER, "Writes answered OUT_OF_MEMORY."),
    STORE(evictions, evictions, STATS_COUNTER, "Items dropped to make room before they expired."),
    STORE(evictions_small, evictions_small, STATS_COUNTER, "Of those: never read since they came."),
    STORE(evictions_main, evictions_main, STATS_COUNTER, "Of those: not read any more."),
    STORE(evictions_large, evictions_large, STATS_COUNTER, "Of those: items with pages of their own."),
    STORE(evictions_bucket, evictions_bucket, STATS_COUNTER, "Of those: out of a full bucket of the index."),
    STORE(ghost_hits, ghost_hits, STATS_COUNTER, "Keys that came back soon after their eviction."),
    STORE(moved_bytes, moved_bytes, STATS_COUNTER, "Bytes of items copied by compaction and second chances."),
    STORE(pinned, pinned, STATS_GAUGE, "Values that are being sent from where they lie."),
    STORE(grace_waits, grace_waits, STATS_COUNTER, "Times that a write waited for another worker's turn to end."),
    STORE(grace_lag, grace_lag, STATS_GAUGE, "Steps that the slowest worker is behind the others."),
    STORE(grace_lag_ms, grace_lag_ms, STATS_GAUGE, "For how long a worker has held up memory."),
    STORE(grace_worker, grace_worker, STATS_GAUGE, "Which worker does; 0 also if none."),

    OPS_SUM(errors, "Requests answered ERROR."),
    OPS_SUM(late_errors, "Quiet requests that failed: LATE_ERROR."),
    OPS_SUM(fatal_errors, "Errors that closed their connection."),
    OPS_SUM(auth_failures, "AUTHs answered AUTH_FAILED."),
    OPS_SUM(auth_throttled, "AUTHs answered BUSY, because too many had failed."),
};

const size_t stats_row_count = sizeof stats_rows / sizeof stats_rows[0];

/* --------------------------------------------------------------------------------------- of each worker */

static uint64_t worker_connections(const struct stats_worker *worker)
{
    uint64_t closed = stats_read(&worker->connections_closed);
    return stats_read(&worker->connections_opened) - closed;
}

static uint64_t worker_requests(const struct stats_worker *worker)
{
    uint64_t total = 0;
    for (unsigned op = 0; op < STATS_OPS; op++)
        total += stats_read(&worker->ops[op]);
    return total;
}

static uint64_t worker_wakeups(const struct stats_worker *worker)
{
    return stats_read(&worker->wakeups);
}

const struct stats_worker_row stats_worker_rows[] = {
    {"connections", STATS_GAUGE, "Open connections of a worker.", worker_connections},
    {"requests", STATS_COUNTER, "Requests that it has answered.", worker_requests},
    {"wakeups", STATS_COUNTER, "Turns that it has had.", worker_wakeups},
};

const size_t stats_worker_row_count = sizeof stats_worker_rows / sizeof stats_worker_rows[0];

/* ------------------------------------------------------------------------------------------- of each op */

const struct stats_op stats_ops[] = {
#define OP(name, NAME) {#name, CRAB_OP_##NAME},
    CRAB_FOR_EACH_REQUEST(OP)
#undef OP
    {"unknown", 0},
};

const size_t stats_op_count = sizeof stats_ops / sizeof stats_ops[0];

uint64_t stats_op_requests(const struct stats *stats, const struct stats_op *op)
{
    return sum(stats, offsetof(struct stats_worker, ops) + op->op * sizeof(struct stats_counter));
}

void stats_op_latency(const struct stats *stats, size_t index, struct latency_sum *sum_of_all)
{
    memset(sum_of_all, 0, sizeof *sum_of_all);
    for (unsigned i = 0; i < stats->worker_count; i++)
        latency_add(sum_of_all, &stats->workers[i].latency[index]);
}
