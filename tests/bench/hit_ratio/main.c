/* SPDX-License-Identifier: MIT */
/*
 * hit-ratio-replay: replay one stream of requests cache-aside against one server and print what was counted, as one JSON
 * object.  It is the part of `make bench-hits` that must be fast; run_hits.py starts the servers and compares.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/hit_ratio/aside.h"

static const char usage[] =
    "Usage: hit-ratio-replay [--server native|resp|memcached --port PORT] [OPTION]... TRACE\n"
    "       hit-ratio-replay [--server ... --port PORT] [OPTION]... --zipf S\n"
    "Replay a stream of requests cache-aside and count misses; without a server, count the stream.\n"
    "  --batch N          gets in one flight at the most, 1 to 1024 (default 64)\n"
    "  --scale N          values N times as long as the stream says, 1 to 1024 (default 1)\n"
    "  --copies N         each request for N different keys, 1 to 256 (default 1)\n"
    "  --limit N          stop after N requests of the stream\n"
    "  --zipf S --keys N --requests N --seed N --value-bytes A-B   made-up stream, as in crabcache-replay\n";

struct settings {
    struct aside_options aside;
    struct zipf_options zipf;
    bool is_zipf;
    const char *trace;
};

static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *value, char stop_at)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && errno == 0 && *end == stop_at && *value >= least && *value <= most;
}

static bool server_named(const char *name, const struct protocol **protocol)
{
    const struct protocol *all[] = {&protocol_native, &protocol_resp, &protocol_memcached};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(name, all[i]->name) == 0)
            *protocol = all[i];
    }
    return *protocol != NULL;
}

static bool value_range(const char *text, struct zipf_options *zipf)
{
    uint64_t least;
    uint64_t most;
    const char *dash = strchr(text, '-');
    if (dash == NULL || !number(text, 0, ASIDE_MAX_VALUE, &least, '-') ||
        !number(dash + 1, least, ASIDE_MAX_VALUE, &most, '\0'))
        return false;
    zipf->least = (uint32_t)least;
    zipf->most = (uint32_t)most;
    return true;
}

static bool read_option(struct settings *settings, int option)
{
    uint64_t value = 0;
    char *end;
    switch (option) {
    case 's':
        return server_named(optarg, &settings->aside.protocol);
    case 'p':
        if (!number(optarg, 1, UINT16_MAX, &value, '\0'))
            return false;
        settings->aside.port = (uint16_t)value;
        return true;
    case 'b':
        if (!number(optarg, 1, ASIDE_MAX_BATCH, &value, '\0'))
            return false;
        settings->aside.batch = (uint32_t)value;
        return true;
    case 'x':
        if (!number(optarg, 1, 1024, &value, '\0'))
            return false;
        settings->aside.scale = (uint32_t)value;
        return true;
    case 'c':
        if (!number(optarg, 1, 256, &value, '\0'))
            return false;
        settings->aside.copies = (uint32_t)value;
        return true;
    case 'l':
        return number(optarg, 1, UINT64_MAX, &settings->aside.limit, '\0');
    case 'z':
        settings->is_zipf = true;
        settings->zipf.exponent = strtod(optarg, &end);
        return *optarg != '\0' && *end == '\0' && settings->zipf.exponent >= 0.0 && settings->zipf.exponent <= 10.0;
    case 'k':
        return number(optarg, 1, UINT64_C(1) << 40, &settings->zipf.keys, '\0');
    case 'n':
        return number(optarg, 1, UINT64_MAX, &settings->zipf.requests, '\0');
    case 'e':
        return number(optarg, 0, UINT64_MAX, &settings->zipf.seed, '\0');
    case 'v':
        return value_range(optarg, &settings->zipf);
    default:
        return false;
    }
}

static bool read_settings(struct settings *settings, int argc, char **argv)
{
    static const struct option options[] = {
        {"server", required_argument, NULL, 's'},   {"port", required_argument, NULL, 'p'},
        {"batch", required_argument, NULL, 'b'},    {"scale", required_argument, NULL, 'x'},
        {"copies", required_argument, NULL, 'c'},   {"limit", required_argument, NULL, 'l'},
        {"zipf", required_argument, NULL, 'z'},
        {"keys", required_argument, NULL, 'k'},     {"requests", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 'e'},     {"value-bytes", required_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int option;
    *settings = (struct settings){
        .aside = {.batch = 64, .scale = 1, .copies = 1, .limit = UINT64_MAX},
        .zipf = {.keys = 100000, .requests = 1000000, .seed = 1, .least = 16, .most = 1024},
    };
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!read_option(settings, option)) {
            if (option != '?')
                (void)fprintf(stderr, "hit-ratio-replay: '%s' is not allowed there\n", optarg);
            return false;
        }
    }
    settings->trace = settings->is_zipf ? NULL : argv[optind];
    return optind + (settings->is_zipf ? 0 : 1) == argc &&
           (settings->aside.protocol == NULL) == (settings->aside.port == 0);
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct aside_result result;
    char error[512] = "no memory";
    if (!read_settings(&settings, argc, argv)) {
        (void)fputs(usage, stderr);
        return 2;
    }
    struct source *source = settings.is_zipf ? source_open_zipf(&settings.zipf)
                                             : source_open_trace(settings.trace, error, sizeof error);
    if (source == NULL) {
        (void)fprintf(stderr, "hit-ratio-replay: %s\n", error);
        return 2;
    }
    int status = aside_run(&settings.aside, source, &result);
    source_close(source);
    if (status != 0) {
        (void)fprintf(stderr, "hit-ratio-replay: %s\n", result.error);
        return 1;
    }
    (void)printf("{\"requests\": %llu, \"misses\": %llu, \"refused\": %llu, \"keys\": %llu, \"footprint\": %llu, "
                 "\"longest\": %u, \"seconds\": %.3f}\n",
                 (unsigned long long)result.requests, (unsigned long long)result.misses,
                 (unsigned long long)result.refused, (unsigned long long)result.keys,
                 (unsigned long long)result.footprint, result.longest, (double)result.elapsed_ns / 1e9);
    return fflush(stdout) == 0 ? 0 : 1;
}
