/* SPDX-License-Identifier: MIT */
/*
 * What the store costs, measured through dispatch without a network: speed, two threads against one, bytes per item,
 * live data after overwriting, and stalls. `make bench-store` runs all of it.
 *
 *     bench_store [--json FILE] [--quick] [PART ...]      default: all parts
 *
 *     speed: 1 M items; many: 20 M; small-pages: both without huge pages; threads; overhead; overwrite; stall
 *
 * It is a measurement, not a test: it exits 0 whether the targets are reached or not.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/store/bench.h"

unsigned hurry = 1;

static const struct {
    const char *name;
    void (*run)(void);
} parts[] = {{"speed", measure_speed},
             {"many", measure_speed_many},
             {"small-pages", measure_speed_small_pages},
             {"threads", measure_threads},
             {"overhead", measure_overhead},
             {"overwrite", measure_overwrite},
             {"stall", measure_stalls}};

#define PARTS (sizeof parts / sizeof parts[0])

static int usage(const char *what)
{
    fprintf(stderr, "bench_store: %s\n"
                    "usage: bench_store [--json FILE] [--quick] "
                    "[speed|many|small-pages|threads|overhead|overwrite|stall ...]\n", what);
    return 2;
}

/* The part's number, or PARTS. */
static unsigned part_of(const char *name)
{
    unsigned i = 0;
    while (i < PARTS && strcmp(parts[i].name, name) != 0)
        i++;
    return i;
}

int main(int argc, char **argv)
{
    const char *json = NULL;
    unsigned wanted = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            hurry = 10;
        else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc)
            json = argv[++i];
        else if (part_of(argv[i]) < PARTS)
            wanted |= 1U << part_of(argv[i]);
        else
            return usage(argv[i]);
    }
    for (unsigned i = 0; i < PARTS; i++) {
        if (wanted == 0 || (wanted & 1U << i) != 0)
            parts[i].run();
    }
    int failure = report_print(json);
    if (failure != 0)
        fprintf(stderr, "bench_store: %s: %s\n", json, strerror(failure));
    return failure != 0;
}
