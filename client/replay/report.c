/* SPDX-License-Identifier: MIT */
/*
 * Progress and result of a replay.  The names of the JSON object are the names of the lines for people, with
 * underscores; scripts may rely on them.
 */
#include "client/replay/report.h"

#include <stdio.h>

/* One line of the result, in both forms. */
struct line {
    const char *name;      /* of the JSON member */
    const char *label;     /* for people */
    const char *unit;      /* for people */
    double number;         /* printed with `decimals` */
    unsigned decimals;
};

void report_progress(uint64_t requests, uint64_t hits, uint64_t elapsed_ns)
{
    double seconds = (double)elapsed_ns / 1e9;
    double ratio = requests != 0 ? (double)hits / (double)requests : 0.0;
    (void)fprintf(stderr, "\r%llu requests, hit ratio %.4f, %.0f requests/s   ", (unsigned long long)requests, ratio,
                  seconds > 0.0 ? (double)requests / seconds : 0.0);
    (void)fflush(stderr);
}

void report_progress_end(void)
{
    (void)fputc('\n', stderr);
}

static void print_json_string(const char *text)
{
    (void)putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\' || (unsigned char)*text < 0x20)
            (void)printf("\\u%04x", (unsigned)(unsigned char)*text);
        else
            (void)putchar(*text);
    }
    (void)putchar('"');
}

static void print_lines(const struct line *lines, size_t count, bool json)
{
    for (size_t i = 0; i < count; i++) {
        if (json)
            (void)printf(",\"%s\":%.*f", lines[i].name, (int)lines[i].decimals, lines[i].number);
        else
            (void)printf("%-22s %15.*f%s%s\n", lines[i].label, (int)lines[i].decimals, lines[i].number,
                         lines[i].unit[0] != '\0' ? " " : "", lines[i].unit);
    }
}

int report_print(const struct report *report, const struct options *options)
{
    const struct tally *t = &report->tally;
    const struct histogram *h = &report->latency;
    double seconds = (double)report->elapsed_ns / 1e9;
    double rate = seconds > 0.0 ? 1.0 / seconds : 0.0;
    uint64_t operations = t->hits + t->misses + t->failed_gets + t->puts + t->refused_memory + t->refused_size +
                          t->refused_busy + t->failed_puts;
    uint64_t gets = t->hits + t->misses;
    const struct line lines[] = {
        {"depth", "depth", "", report->depth, 0},
        {"threads", "threads", "", report->threads, 0},
        {"requests", "requests", "", (double)t->requests, 0},
        {"keys", "different keys", "", (double)t->keys, 0},
        {"hits", "hits", "", (double)t->hits, 0},
        {"misses", "misses", "", (double)t->misses, 0},
        {"hit_ratio", "hit ratio", "", gets != 0 ? (double)t->hits / (double)gets : 0.0, 6},
        {"earlier_hits", "hits of earlier runs", "", (double)t->earlier_hits, 0},
        {"puts", "puts stored", "", (double)t->puts, 0},
        {"refused_out_of_memory", "puts out of memory", "", (double)t->refused_memory, 0},
        {"refused_value_too_large", "puts too large", "", (double)t->refused_size, 0},
        {"refused_busy", "puts refused as busy", "", (double)t->refused_busy, 0},
        {"failed_gets", "failed gets", "", (double)t->failed_gets, 0},
        {"failed_puts", "failed puts", "", (double)t->failed_puts, 0},
        {"wrong_values", "wrong values", "", (double)t->wrong_values, 0},
        {"verified_bytes", "bytes verified", "", (double)t->verified_bytes, 0},
        {"put_bytes", "bytes put", "", (double)t->put_bytes, 0},
        {"seconds", "time", "s", seconds, 3},
        {"operations_per_second", "operations", "/s", (double)operations * rate, 0},
        {"latency_p50_us", "latency p50", "us", (double)histogram_percentile(h, 0.5) / 1e3, 1},
        {"latency_p90_us", "latency p90", "us", (double)histogram_percentile(h, 0.9) / 1e3, 1},
        {"latency_p99_us", "latency p99", "us", (double)histogram_percentile(h, 0.99) / 1e3, 1},
        {"latency_p999_us", "latency p99.9", "us", (double)histogram_percentile(h, 0.999) / 1e3, 1},
        {"latency_max_us", "latency max", "us", (double)h->most / 1e3, 1},
    };
    const char *name = options->trace != NULL ? options->trace : "zipf";
    if (options->json) {
        (void)fputs("{\"stream\":", stdout);
        print_json_string(name);
    } else {
        (void)printf("%-22s %15s\n", "stream", name);
    }
    print_lines(lines, sizeof lines / sizeof lines[0], options->json);
    if (options->json)
        (void)fputs("}\n", stdout);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : -1;
}
