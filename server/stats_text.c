/* SPDX-License-Identifier: MIT */
/*
 * The text of STATS. Each section has the rows of the table that bear its name, and what it has for each op or worker.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "crabcache/version.h"
#include "server/stats_rows.h"

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

static void rows(const struct stats_view *view, const char *section, struct text *text)
{
    for (size_t i = 0; i < stats_row_count; i++) {
        const struct stats_row *row = &stats_rows[i];
        if (strcmp(row->section, section) == 0)
            line(text, "%s.%s:%" PRIu64 "\n", section, row->name, row->read(view, row->at));
    }
}

static void server_section(struct stats_view *view, struct text *text)
{
    line(text, "server.version:%s\n", CRAB_VERSION_STRING);
    line(text, "server.eviction:%s\n", view->stats->eviction);
    rows(view, "server", text);
}

static void connections_section(struct stats_view *view, struct text *text)
{
    rows(view, "connections", text);
}

static void store_section(struct stats_view *view, struct text *text)
{
    stats_look_at_store(view);
    rows(view, "store", text);
}

static void workers_section(struct stats_view *view, struct text *text)
{
    line(text, "workers.count:%u\n", view->stats->worker_count);
    for (unsigned i = 0; i < view->stats->worker_count; i++) {
        for (size_t k = 0; k < stats_worker_row_count; k++)
            line(text, "workers.%u_%s:%" PRIu64 "\n", i, stats_worker_rows[k].name,
                 stats_worker_rows[k].read(&view->stats->workers[i]));
    }
}

static void ops_section(struct stats_view *view, struct text *text)
{
    for (size_t i = 0; i < stats_op_count; i++)
        line(text, "ops.%s:%" PRIu64 "\n", stats_ops[i].name, stats_op_requests(view->stats, &stats_ops[i]));
    rows(view, "ops", text);
    for (size_t i = 0; i < STATS_TIMED_OPS; i++) {
        const char *name = stats_ops[i].name;
        struct latency_sum times;
        stats_op_latency(view->stats, i, &times);
        line(text, "ops.%s_timed:%" PRIu64 "\n", name, times.count);
        line(text, "ops.%s_p50_ns:%" PRIu64 "\n", name, latency_within(&times, 0.5));
        line(text, "ops.%s_p99_ns:%" PRIu64 "\n", name, latency_within(&times, 0.99));
        line(text, "ops.%s_p999_ns:%" PRIu64 "\n", name, latency_within(&times, 0.999));
    }
}

static const struct {
    const char *name;
    void (*render)(struct stats_view *view, struct text *text);
} sections[] = {
    {"server", server_section},   {"connections", connections_section}, {"store", store_section},
    {"workers", workers_section}, {"ops", ops_section},
};

size_t stats_render(const struct stats *stats, const char *section, size_t len, char *text)
{
    struct text out = {text, 0};
    struct stats_view view;
    stats_look(stats, &view);
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        const char *name = sections[i].name;
        if (len == 0 || (strlen(name) == len && memcmp(name, section, len) == 0))
            sections[i].render(&view, &out);
    }
    return out.len;
}
