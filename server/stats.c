/* SPDX-License-Identifier: MIT */
/*
 * The text of STATS. Each section is one function that prints its lines; a table names them. Nothing here is on
 * the path of a request but stats_add(), in the header.
 */
#include "server/stats.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "crabcache/version.h"
#include "crabcache/wire.h"
#include "server/buf.h"
#include "server/store/store.h"

/* Text that grows in a buffer of STATS_TEXT_BYTES. */
struct text {
    char *data;
    size_t len;
};

static void line(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void line(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = STATS_TEXT_BYTES - text->len;
    int len = vsnprintf(text->data + text->len, room, format, args);
    va_end(args);
    if (len > 0 && (size_t)len < room) /* a line that does not fit is left out whole */
        text->len += (size_t)len;
}

uint64_t stats_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int stats_init(struct stats *stats, unsigned workers)
{
    memset(stats, 0, sizeof *stats);
    size_t bytes = workers * sizeof *stats->workers;
    stats->workers = aligned_alloc(_Alignof(struct stats_worker), bytes);
    if (stats->workers == NULL)
        return ENOMEM;
    memset(stats->workers, 0, bytes);
    stats->worker_count = workers;
    stats->start_ms = stats_now_ms();
    return 0;
}

void stats_fini(struct stats *stats)
{
    free(stats->workers);
    stats->workers = NULL;
}

static uint64_t sum(const struct stats *stats, size_t offset)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < stats->worker_count; i++) {
        const char *block = (const char *)&stats->workers[i];
        total += stats_read((const struct stats_counter *)(const void *)(block + offset));
    }
    return total;
}

#define SUM(stats, name) sum(stats, offsetof(struct stats_worker, name))

static uint64_t all_ops(const struct stats_worker *worker)
{
    uint64_t total = 0;
    for (unsigned op = 0; op < STATS_OPS; op++)
        total += stats_read(&worker->ops[op]);
    return total;
}

/* -------------------------------------------------------------------------------------------- sections */

static void server_section(const struct stats *stats, struct text *text)
{
    line(text, "server.version:%s\n", CRAB_VERSION_STRING);
    line(text, "server.protocol_version:%u\n", (unsigned)CRAB_PROTOCOL_VERSION);
    line(text, "server.pid:%ld\n", (long)getpid());
    line(text, "server.uptime_ms:%" PRIu64 "\n", stats_now_ms() - stats->start_ms);
    line(text, "server.threads:%u\n", stats->worker_count);
    line(text, "server.memory_bytes:%zu\n", stats->memory_bytes);
    line(text, "server.eviction:%s\n", stats->eviction);
    line(text, "server.max_key_bytes:%u\n", (unsigned)CRAB_MAX_KEY);
    line(text, "server.max_value_bytes:%" PRIu32 "\n", stats->max_value);
}

static void connections_section(const struct stats *stats, struct text *text)
{
    uint64_t closed = SUM(stats, connections_closed); /* first: "current" never goes below 0 */
    uint64_t opened = SUM(stats, connections_opened);
    line(text, "connections.current:%" PRIu64 "\n", opened - closed);
    line(text, "connections.opened:%" PRIu64 "\n", opened);
    line(text, "connections.closed:%" PRIu64 "\n", closed);
    line(text, "connections.aborted:%" PRIu64 "\n", SUM(stats, connections_aborted));
    line(text, "connections.timed_out:%" PRIu64 "\n", SUM(stats, connections_timed_out));
    line(text, "connections.refused:%u\n", atomic_load_explicit(&stats->refused_connections, memory_order_relaxed));
    line(text, "connections.accept_pauses:%u\n", atomic_load_explicit(&stats->accept_pauses, memory_order_relaxed));
    line(text, "connections.bytes_received:%" PRIu64 "\n", SUM(stats, bytes_received));
    line(text, "connections.bytes_sent:%" PRIu64 "\n", SUM(stats, bytes_sent));
    line(text, "connections.bytes_skipped:%" PRIu64 "\n", SUM(stats, bytes_skipped));
    line(text, "connections.output_stalls:%" PRIu64 "\n", SUM(stats, output_stalls));
    line(text, "connections.values_by_reference:%" PRIu64 "\n", SUM(stats, values_by_reference));
    line(text, "connections.values_streamed:%" PRIu64 "\n", SUM(stats, values_streamed));
    if (stats->streams != NULL)
        line(text, "connections.stream_bytes:%zu\n",
             atomic_load_explicit(&stats->streams->used, memory_order_relaxed));
    line(text, "connections.buffer_bytes:%zu\n", atomic_load_explicit(&stats->budget->used, memory_order_relaxed));
    line(text, "connections.buffer_limit_bytes:%zu\n", stats->budget->limit);
    line(text, "connections.buffer_refusals:%zu\n",
         atomic_load_explicit(&stats->budget->refusals, memory_order_relaxed));
}

/* The lines of the store's section, in their order. */
static const struct {
    const char *name;
    size_t at;
} store_rows[] = {
#define ROW(name, member) {name, offsetof(struct store_stats, member)}
    ROW("items", items),
    ROW("live_bytes", bytes_live),
    ROW("dead_bytes", bytes_dead),
    ROW("retired_bytes", bytes_retired),
    ROW("free_bytes", bytes_free),
    ROW("index_bytes", bytes_index),
    ROW("fixed_bytes", bytes_fixed),
    ROW("limit_bytes", bytes_limit),
    ROW("index_slots", index_slots),
    ROW("hits", hits),
    ROW("misses", misses),
    ROW("puts", puts),
    ROW("deletes", deletes),
    ROW("expirations", expirations),
    ROW("refusals", refusals),
    ROW("evictions", evictions),
    ROW("evictions_small", evictions_small),
    ROW("evictions_main", evictions_main),
    ROW("evictions_large", evictions_large),
    ROW("evictions_bucket", evictions_bucket),
    ROW("ghost_hits", ghost_hits),
    ROW("moved_bytes", moved_bytes),
    ROW("pinned", pinned),
    ROW("grace_waits", grace_waits),
    ROW("grace_lag", grace_lag),
    ROW("grace_lag_ms", grace_lag_ms),
    ROW("grace_worker", grace_worker),
#undef ROW
};

static void store_section(const struct stats *stats, struct text *text)
{
    struct store_stats s;
    store_stats(stats->store, &s);
    for (size_t i = 0; i < sizeof store_rows / sizeof store_rows[0]; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&s + store_rows[i].at, sizeof value);
        line(text, "store.%s:%" PRIu64 "\n", store_rows[i].name, value);
    }
}

static void workers_section(const struct stats *stats, struct text *text)
{
    line(text, "workers.count:%u\n", stats->worker_count);
    for (unsigned i = 0; i < stats->worker_count; i++) {
        const struct stats_worker *worker = &stats->workers[i];
        uint64_t closed = stats_read(&worker->connections_closed);
        line(text, "workers.%u_connections:%" PRIu64 "\n", i, stats_read(&worker->connections_opened) - closed);
        line(text, "workers.%u_requests:%" PRIu64 "\n", i, all_ops(worker));
        line(text, "workers.%u_wakeups:%" PRIu64 "\n", i, stats_read(&worker->wakeups));
    }
}

static void op_line(const struct stats *stats, struct text *text, const char *name, unsigned op)
{
    uint64_t count = sum(stats, offsetof(struct stats_worker, ops) + op * sizeof(struct stats_counter));
    line(text, "ops.%s:%" PRIu64 "\n", name, count);
}

static void ops_section(const struct stats *stats, struct text *text)
{
#define OP_LINE(name, NAME)                                                                                    \
    static_assert(CRAB_OP_##NAME < STATS_OPS, "every op has a counter");                                       \
    op_line(stats, text, #name, CRAB_OP_##NAME);
    CRAB_FOR_EACH_REQUEST(OP_LINE)
#undef OP_LINE
    op_line(stats, text, "unknown", 0);
    line(text, "ops.errors:%" PRIu64 "\n", SUM(stats, errors));
    line(text, "ops.late_errors:%" PRIu64 "\n", SUM(stats, late_errors));
    line(text, "ops.fatal_errors:%" PRIu64 "\n", SUM(stats, fatal_errors));
    line(text, "ops.auth_failures:%" PRIu64 "\n", SUM(stats, auth_failures));
    line(text, "ops.auth_throttled:%" PRIu64 "\n", SUM(stats, auth_throttled));
}

static const struct {
    const char *name;
    void (*render)(const struct stats *stats, struct text *text);
} sections[] = {
    {"server", server_section},   {"connections", connections_section}, {"store", store_section},
    {"workers", workers_section}, {"ops", ops_section},
};

size_t stats_render(const struct stats *stats, const char *section, size_t len, char *text)
{
    struct text out = {text, 0};
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        const char *name = sections[i].name;
        if (len == 0 || (strlen(name) == len && memcmp(name, section, len) == 0))
            sections[i].render(stats, &out);
    }
    return out.len;
}
