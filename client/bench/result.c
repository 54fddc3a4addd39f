/* SPDX-License-Identifier: MIT */
/*
 * Progress and result.  docs/crabcache-bench.1 describes the JSON object; scripts may rely on it.
 */
#include "client/bench/result.h"

#include <stdio.h>
#include <string.h>

#include "crabcache/version.h"

struct percentile {
    const char *json;
    const char *label;
    double share;
};

static const struct percentile percentiles[] = {
    {"p50", "p50", 0.5},       {"p90", "p90", 0.9},          {"p99", "p99", 0.99},
    {"p99_9", "p99.9", 0.999}, {"p99_99", "p99.99", 0.9999},
};

#define PERCENTILES (sizeof percentiles / sizeof percentiles[0])

void result_progress(const char *phase, uint64_t replies, double per_second)
{
    (void)fprintf(stderr, "\r%s: %llu replies, %.0f/s        ", phase, (unsigned long long)replies, per_second);
    (void)fflush(stderr);
}

void result_progress_end(void)
{
    (void)fputc('\n', stderr);
}

static double per(double amount, double number)
{
    return number > 0.0 ? amount / number : 0.0;
}

static double mean_us(const struct histogram *histogram)
{
    return per((double)histogram->sum, (double)histogram->count) / 1e3;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

static void json_string(const char *name, const char *text)
{
    (void)printf("\"%s\":\"", name);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\' || (unsigned char)*text < 0x20)
            (void)printf("\\u%04x", (unsigned)(unsigned char)*text);
        else
            (void)putchar(*text);
    }
    (void)fputs("\",", stdout);
}

static void json_count(const char *name, uint64_t number)
{
    (void)printf("\"%s\":%llu,", name, (unsigned long long)number);
}

static void json_latency(const char *name, const struct histogram *h, const char *after)
{
    (void)printf("\"%s\":{\"count\":%llu,\"mean\":%.3f,", name, (unsigned long long)h->count, mean_us(h));
    for (size_t i = 0; i < PERCENTILES; i++)
        (void)printf("\"%s\":%.3f,", percentiles[i].json, (double)histogram_percentile(h, percentiles[i].share) / 1e3);
    (void)printf("\"max\":%.3f}%s", (double)h->most / 1e3, after);
}

static void json_cpu(const char *name, const struct cpu_time *time, double requests, const char *after)
{
    (void)printf("\"%s\":{\"user\":%.1f,\"system\":%.1f,\"total\":%.1f}%s", name, per((double)time->user_ns, requests),
                 per((double)time->system_ns, requests), per((double)(time->user_ns + time->system_ns), requests),
                 after);
}

static void json_plan(const struct plan *plan)
{
    json_string("server", plan->protocol->name);
    json_string("address", plan->socket_path != NULL ? plan->socket_path : plan->host);
    json_count("port", plan->socket_path != NULL ? 0 : plan->port);
    json_count("connections", plan->connections);
    json_count("pipeline", plan->depth);
    json_count("threads", plan->threads);
    json_count("keys", plan->keys);
    json_count("key_bytes", plan->key_bytes);
    json_string("value_bytes", plan->sizes_text);
    (void)printf("\"zipf\":");
    if (plan->zipf)
        (void)printf("%g,", plan->exponent);
    else
        (void)fputs("null,", stdout);
    (void)printf("\"ratio\":[%u,%u],", plan->get_weight, plan->put_weight);
    (void)printf("\"preload\":%s,\"rate\":", plan->preload ? "true" : "false");
    if (plan->rate != 0)
        (void)printf("%llu,", (unsigned long long)plan->rate);
    else
        (void)fputs("null,", stdout);
    json_count("seed", plan->seed);
}

static void print_json(const struct result *result, const struct plan *plan, const struct histogram *all)
{
    const struct tally *t = &result->tally;
    double seconds = (double)result->elapsed_ns / 1e9;
    double requests = (double)(t->gets + t->puts);
    (void)putchar('{');
    json_string("program", "crabcache-bench " CRAB_VERSION_STRING);
    json_plan(plan);
    (void)printf("\"seconds\":%.6f,", seconds);
    json_count("requests", t->gets + t->puts);
    (void)printf("\"requests_per_second\":%.1f,", per(requests, seconds));
    json_count("gets", t->gets);
    json_count("hits", t->hits);
    json_count("misses", t->misses);
    json_count("puts", t->puts);
    json_count("stored", t->stored);
    json_count("errors", t->errors);
    json_count("wrong", t->wrong);
    json_count("bytes_sent", t->bytes_sent);
    json_count("bytes_received", t->bytes_received);
    (void)fputs("\"latency_us\":{", stdout);
    json_latency("all", all, ",");
    json_latency("get", &t->get_ns, ",");
    json_latency("put", &t->put_ns, "},");
    (void)fputs("\"cpu_ns_per_request\":{", stdout);
    if (plan->pid != 0)
        json_cpu("server", &result->server, requests, ",");
    json_cpu("client", &result->client, requests, "}}\n");
}

/* ---- for people ----------------------------------------------------------------------------------------------- */

static void text_latency(const char *name, const struct histogram *h)
{
    if (h->count == 0)
        return;
    (void)printf("%-12s %10.1f", name, mean_us(h));
    for (size_t i = 0; i < PERCENTILES; i++)
        (void)printf(" %10.1f", (double)histogram_percentile(h, percentiles[i].share) / 1e3);
    (void)printf(" %10.1f\n", (double)h->most / 1e3);
}

static void text_cpu(const char *name, const struct cpu_time *time, double requests)
{
    double user = per((double)time->user_ns, requests);
    double system = per((double)time->system_ns, requests);
    (void)printf("CPU, %-7s %14.1f ns/request (user %.1f, system %.1f)\n", name, user + system, user, system);
}

static void print_text(const struct result *result, const struct plan *plan, const struct histogram *all)
{
    const struct tally *t = &result->tally;
    double seconds = (double)result->elapsed_ns / 1e9;
    double requests = (double)(t->gets + t->puts);
    (void)printf("requests     %14.0f in %.3f s, %.0f/s\n", requests, seconds, per(requests, seconds));
    if (t->gets != 0)
        (void)printf("gets         %14llu, hits %llu, misses %llu\n", (unsigned long long)t->gets,
                     (unsigned long long)t->hits, (unsigned long long)t->misses);
    if (t->puts != 0)
        (void)printf("puts         %14llu, stored %llu\n", (unsigned long long)t->puts,
                     (unsigned long long)t->stored);
    (void)printf("errors       %14llu, wrong replies %llu\n", (unsigned long long)t->errors,
                 (unsigned long long)t->wrong);
    (void)printf("traffic      %14.1f MB/s sent, %.1f MB/s received\n", per((double)t->bytes_sent, seconds) / 1e6,
                 per((double)t->bytes_received, seconds) / 1e6);
    if (plan->pid != 0)
        text_cpu("server", &result->server, requests);
    text_cpu("client", &result->client, requests);
    (void)printf("latency, us        mean");
    for (size_t i = 0; i < PERCENTILES; i++)
        (void)printf(" %10s", percentiles[i].label);
    (void)puts("        max");
    text_latency("  get", &t->get_ns);
    text_latency("  put", &t->put_ns);
    if (t->get_ns.count != 0 && t->put_ns.count != 0)
        text_latency("  all", all);
}

int result_print(const struct result *result, const struct plan *plan)
{
    static struct histogram all;
    memset(&all, 0, sizeof all);
    histogram_merge(&all, &result->tally.get_ns);
    histogram_merge(&all, &result->tally.put_ns);
    if (plan->json)
        print_json(result, plan, &all);
    else
        print_text(result, plan, &all);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : -1;
}
