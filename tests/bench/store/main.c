/* SPDX-License-Identifier: MIT */
/*
 * What the store costs, measured through dispatch without a network: speed, two threads against one, bytes per item,
 * live data after overwriting, and stalls. `make bench-store` runs all of it.
 *
 *     bench_store [--json FILE] [--quick] [PART ...]      default: all parts
 *
 *     speed: 1 M items; many: 20 M; small-pages: both without huge pages; threads; overhead; overwrite; stall
 *
 * Parts of a part have names, too: stall-grow, -untouched, -touched, -evict, -both, -expire,
 * -nothing.
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
             {"stall-grow", measure_stalls_growing},
             {"stall-untouched", measure_stalls_growing_untouched},
             {"stall-touched", measure_stalls_growing_touched},
             {"stall-evict", measure_stalls_evicting},
             {"stall-both", measure_stalls_both_evicting},
             {"stall-expire", measure_stalls_expiring},
             {"stall-nothing", measure_stalls_of_nothing}};

#define PARTS (sizeof parts / sizeof parts[0])

static int usage(const char *what)
{
    fprintf(stderr, "bench_store: %s\n"
                    "usage: bench_store [--json FILE] [--quick] "
                    "[speed|many|small-pages|threads|overhead|overwrite|stall ...]\n", what);
    return 2;
}

/* The parts of this name, as bits: one, or those whose names begin with it and a dash. */
static unsigned parts_of(const char *name)
{
    size_t len = strlen(name);
    unsigned found = 0;
    for (unsigned i = 0; i < PARTS; i++) {
        char after = strncmp(parts[i].name, name, len) == 0 ? parts[i].name[len] : 'x';
        found |= (unsigned)(after == '\0' || after == '-') << i;
    }
    return found;
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
        else if (parts_of(argv[i]) != 0)
            wanted |= parts_of(argv[i]);
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
