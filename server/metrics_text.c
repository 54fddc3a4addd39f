/* SPDX-License-Identifier: MIT */
/*
 * From the table of the statistics to the text of Prometheus: for each metric what it means (HELP), what kind it is
 * (TYPE), and its samples.
 */
#include "server/metrics_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "crabcache/version.h"
#include "server/stats_rows.h"

/* Prometheus gets the histogram by powers of 4, from 256 ns to a second: enough for a picture, and few lines. */
#define EDGE_FIRST 8U
#define EDGE_STEP 2U

struct text {
    char *data;
    size_t len;
};

static void line(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void line(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = METRICS_TEXT_BYTES - text->len;
    int len = vsnprintf(text->data + text->len, room, format, args);
    va_end(args);
    if (len > 0 && (size_t)len < room) /* a line that does not fit is left out whole */
        text->len += (size_t)len;
}

static const char *ending_of(enum stats_kind kind)
{
    return kind == STATS_COUNTER ? "_total" : "";
}

static void head(struct text *text, const char *prefix, const char *name, enum stats_kind kind, const char *help)
{
    const char *ending = ending_of(kind);
    line(text, "# HELP crabcache_%s_%s%s %s\n", prefix, name, ending, help);
    line(text, "# TYPE crabcache_%s_%s%s %s\n", prefix, name, ending, kind == STATS_COUNTER ? "counter" : "gauge");
}

static void whole_server(const struct stats_view *view, struct text *text)
{
    line(text, "# HELP crabcache_server_info What the server is.\n# TYPE crabcache_server_info gauge\n");
    line(text, "crabcache_server_info{version=\"%s\",eviction=\"%s\"} 1\n", CRAB_VERSION_STRING, view->stats->eviction);
    for (size_t i = 0; i < stats_row_count; i++) {
        const struct stats_row *row = &stats_rows[i];
        head(text, row->section, row->name, row->kind, row->help);
        line(text, "crabcache_%s_%s%s %" PRIu64 "\n", row->section, row->name, ending_of(row->kind),
             row->read(view, row->at));
    }
}

static void each_worker(const struct stats_view *view, struct text *text)
{
    for (size_t i = 0; i < stats_worker_row_count; i++) {
        const struct stats_worker_row *row = &stats_worker_rows[i];
        head(text, "worker", row->name, row->kind, row->help);
        for (unsigned k = 0; k < view->stats->worker_count; k++)
            line(text, "crabcache_worker_%s%s{worker=\"%u\"} %" PRIu64 "\n", row->name, ending_of(row->kind), k,
                 row->read(&view->stats->workers[k]));
    }
}

static void each_op(const struct stats_view *view, struct text *text)
{
    head(text, "ops", "requests", STATS_COUNTER, "Requests by op.");
    for (size_t i = 0; i < stats_op_count; i++)
        line(text, "crabcache_ops_requests_total{op=\"%s\"} %" PRIu64 "\n", stats_ops[i].name,
             stats_op_requests(view->stats, &stats_ops[i]));
}

static void times_of(const struct stats_view *view, size_t index, struct text *text)
{
    const char *name = stats_ops[index].name;
    struct latency_sum times;
    stats_op_latency(view->stats, index, &times);
    uint64_t below = 0;
    unsigned bucket = 0;
    for (unsigned power = EDGE_FIRST; power <= LATENCY_LAST; power += EDGE_STEP) {
        for (; latency_end(bucket) <= (uint64_t)1 << power; bucket++)
            below += times.buckets[bucket];
        line(text, "crabcache_ops_timed_seconds_bucket{op=\"%s\",le=\"%.10g\"} %" PRIu64 "\n", name,
             (double)((uint64_t)1 << power) / 1e9, below);
    }
    line(text, "crabcache_ops_timed_seconds_bucket{op=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, times.count);
    line(text, "crabcache_ops_timed_seconds_sum{op=\"%s\"} %.9f\n", name, (double)times.sum_ns / 1e9);
    line(text, "crabcache_ops_timed_seconds_count{op=\"%s\"} %" PRIu64 "\n", name, times.count);
}

size_t metrics_render(const struct stats *stats, char *text)
{
    struct text out = {text, 0};
    struct stats_view view;
    stats_look(stats, &view);
    stats_look_at_store(&view);
    whole_server(&view, &out);
    each_worker(&view, &out);
    each_op(&view, &out);
    line(&out, "# HELP crabcache_ops_timed_seconds How long requests took to execute, without the network, of a sample.\n"
               "# TYPE crabcache_ops_timed_seconds histogram\n");
    for (size_t i = 0; i < STATS_TIMED_OPS; i++)
        times_of(&view, i, &out);
    return out.len;
}
