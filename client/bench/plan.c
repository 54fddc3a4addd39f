/* SPDX-License-Identifier: MIT */
/*
 * crabcache-bench's command line: every bad value is named with its flag and with what is allowed.
 */
#include "client/bench/plan.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/bench/cpu.h"
#include "client/bench/request.h"
#include "crabcache/version.h"

#define WEIGHT_MAX 1000000U
#define RATE_MAX UINT64_C(1000000000)
#define SECOND_NS UINT64_C(1000000000)
#define TIME_MAX_S 86400U

static const char help[] =
    "Usage: crabcache-bench [OPTION]...\n"
    "Measure a cache server: the same load for CrabCache, Redis and memcached.\n"
    "\n"
    "Server\n"
    "      --server KIND       native (CrabCache, the default), resp (Redis, Valkey), memcached (meta\n"
    "                          commands, since 1.6) or memcached-classic (get and set)\n"
    "  -h, --host HOST         name or address (default 127.0.0.1)\n"
    "  -p, --port PORT         TCP port (default 2722, 6379 or 11211, by the kind of server)\n"
    "  -s, --socket PATH       Unix socket, in place of host and port\n"
    "      --timeout TIME      a server that is silent for so long has failed (default 10s)\n"
    "      --pid PID           also tell the CPU time that this process, the server, spends on a request\n"
    "Load\n"
    "  -c, --connections N     connections of all threads together (default 50)\n"
    "  -P, --pipeline N        requests on their way on each connection (default 1)\n"
    "  -t, --threads N         threads that make the load (default 1)\n"
    "      --keys N            how many different keys (default 1000000)\n"
    "      --key-bytes N       length of the keys, 12 to 250 (default 16)\n"
    "  -d, --value-bytes SIZE  length of the values: 64, a range 16-1K, or ranges with weights,\n"
    "                          64:70,1K-4K:25,64K:5 (default 64)\n"
    "      --dist DIST         which keys: uniform or zipf:S (default uniform)\n"
    "      --ratio GET:PUT     weights of gets and puts (default 90:10)\n"
    "      --preload           first put every key once\n"
    "      --seed X            the same seed gives the same requests (default 1)\n"
    "Measurement\n"
    "  -n, --requests N        measure so many requests\n"
    "      --duration TIME     measure for so long, such as 500ms, 30s or 2m (default 10s)\n"
    "      --warm-up TIME      load that is not measured, before (default 1s)\n"
    "      --rate N            open loop: N requests per second are due at fixed times, whether or not\n"
    "                          the server keeps up; latency counts from when a request was due\n"
    "Output\n"
    "      --json              print the result as one JSON object\n"
    "      --progress          show progress also if the standard error is no terminal\n"
    "      --help              print this help and exit\n"
    "  -V, --version           print the version and exit\n"
    "\n"
    "Exit status: 0 all replies were right; 1 errors or wrong replies; 2 bad usage; 3 no connection, or it\n"
    "broke. Gets that miss are counted, and are no failure.\n";

enum long_only {
    OPT_SERVER = 256,
    OPT_TIMEOUT,
    OPT_PID,
    OPT_KEYS,
    OPT_KEY_BYTES,
    OPT_DIST,
    OPT_RATIO,
    OPT_PRELOAD,
    OPT_SEED,
    OPT_DURATION,
    OPT_WARM_UP,
    OPT_RATE,
    OPT_JSON,
    OPT_PROGRESS,
    OPT_HELP
};

static const struct option long_options[] = {
    {"server", required_argument, NULL, OPT_SERVER},
    {"host", required_argument, NULL, 'h'},
    {"port", required_argument, NULL, 'p'},
    {"socket", required_argument, NULL, 's'},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"pid", required_argument, NULL, OPT_PID},
    {"connections", required_argument, NULL, 'c'},
    {"pipeline", required_argument, NULL, 'P'},
    {"threads", required_argument, NULL, 't'},
    {"keys", required_argument, NULL, OPT_KEYS},
    {"key-bytes", required_argument, NULL, OPT_KEY_BYTES},
    {"value-bytes", required_argument, NULL, 'd'},
    {"dist", required_argument, NULL, OPT_DIST},
    {"ratio", required_argument, NULL, OPT_RATIO},
    {"preload", no_argument, NULL, OPT_PRELOAD},
    {"seed", required_argument, NULL, OPT_SEED},
    {"requests", required_argument, NULL, 'n'},
    {"duration", required_argument, NULL, OPT_DURATION},
    {"warm-up", required_argument, NULL, OPT_WARM_UP},
    {"rate", required_argument, NULL, OPT_RATE},
    {"json", no_argument, NULL, OPT_JSON},
    {"progress", no_argument, NULL, OPT_PROGRESS},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static int bad(const char *flag, const char *value, const char *allowed)
{
    (void)fprintf(stderr, "crabcache-bench: %s '%s': %s\n", flag, value, allowed);
    return -1;
}

static bool digits(const char *text, const char **end, uint64_t *number)
{
    char *stop;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *number = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0;
}

static int read_number(const char *flag, const char *value, uint64_t least, uint64_t most, uint64_t *number)
{
    const char *end;
    char allowed[80];
    if (digits(value, &end, number) && *end == '\0' && *number >= least && *number <= most)
        return 0;
    (void)snprintf(allowed, sizeof allowed, "must be a number from %llu to %llu", (unsigned long long)least,
                   (unsigned long long)most);
    return bad(flag, value, allowed);
}

static int read_u32(const char *flag, const char *value, uint32_t least, uint32_t most, uint32_t *number)
{
    uint64_t wide;
    if (read_number(flag, value, least, most, &wide) != 0)
        return -1;
    *number = (uint32_t)wide;
    return 0;
}

static int read_time(const char *flag, const char *value, bool zero, uint64_t *time_ns)
{
    const char *end;
    uint64_t number;
    uint64_t unit_ns = 0;
    if (digits(value, &end, &number)) {
        if (strcmp(end, "ms") == 0)
            unit_ns = SECOND_NS / 1000;
        else if (strcmp(end, "s") == 0 || (number == 0 && *end == '\0'))
            unit_ns = SECOND_NS;
        else if (strcmp(end, "m") == 0)
            unit_ns = 60 * SECOND_NS;
    }
    if (unit_ns == 0 || (number == 0 && !zero) || number > TIME_MAX_S * SECOND_NS / unit_ns)
        return bad(flag, value, zero ? "must be 0, or a time up to 24 hours with the unit ms, s or m"
                                     : "must be a time from 1ms to 24 hours, with the unit ms, s or m");
    *time_ns = number * unit_ns;
    return 0;
}

static int read_server(struct plan *plan, const char *value)
{
    static const struct protocol *const known[] = {&protocol_native, &protocol_resp, &protocol_memcached,
                                                   &protocol_memcached_classic};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(value, known[i]->name) == 0) {
            plan->protocol = known[i];
            return 0;
        }
    }
    return bad("--server", value, "must be native, resp, memcached or memcached-classic");
}

static int read_dist(struct plan *plan, const char *value)
{
    char *end;
    plan->zipf = strncmp(value, "zipf:", 5) == 0;
    if (!plan->zipf)
        return strcmp(value, "uniform") == 0 ? 0 : bad("--dist", value, "must be uniform or zipf:S");
    plan->exponent = strtod(value + 5, &end);
    if (end == value + 5 || *end != '\0' || !isfinite(plan->exponent) || plan->exponent < 0.0 || plan->exponent > 10.0)
        return bad("--dist", value, "the S of zipf:S must be a number from 0 to 10");
    return 0;
}

static int read_ratio(struct plan *plan, const char *value)
{
    const char *end;
    uint64_t get;
    uint64_t put;
    if (!digits(value, &end, &get) || *end != ':' || !digits(end + 1, &end, &put) || *end != '\0' ||
        get > WEIGHT_MAX || put > WEIGHT_MAX || get + put == 0)
        return bad("--ratio", value, "must be GET:PUT, two weights from 0 to 1000000, not both 0");
    plan->get_weight = (uint32_t)get;
    plan->put_weight = (uint32_t)put;
    return 0;
}

static int read_pid(struct plan *plan, const char *value)
{
    uint32_t pid;
    struct cpu_time time;
    if (read_u32("--pid", value, 1, INT32_MAX, &pid) != 0)
        return -1;
    plan->pid = (pid_t)pid;
    return cpu_of(plan->pid, &time) == 0 ? 0 : bad("--pid", value, "there is no such process");
}

static int read_socket(struct plan *plan, const char *value)
{
    plan->socket_path = value;
    if (*value == '\0' || strlen(value) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return bad("--socket", value, "must be a path of 1 to 107 bytes");
    return 0;
}

/* Options that say where the server is and how to print. 0; -1 after a complaint; 1: none of these. */
static int read_common(struct plan *plan, int option)
{
    uint32_t port;
    switch (option) {
    case OPT_SERVER:
        return read_server(plan, optarg);
    case 'h':
        plan->host = optarg;
        return 0;
    case 'p':
        if (read_u32("--port", optarg, 1, UINT16_MAX, &port) != 0)
            return -1;
        plan->port = (uint16_t)port;
        return 0;
    case 's':
        return read_socket(plan, optarg);
    case OPT_TIMEOUT:
        return read_time("--timeout", optarg, false, &plan->timeout_ns);
    case OPT_PID:
        return read_pid(plan, optarg);
    case OPT_JSON:
        plan->json = true;
        return 0;
    case OPT_PROGRESS:
        plan->progress = true;
        return 0;
    default:
        return 1;
    }
}

/* Options that shape the load. 0, or -1 after a complaint. */
static int read_load(struct plan *plan, int option)
{
    switch (option) {
    case 'c':
        return read_u32("--connections", optarg, 1, PLAN_CONNECTIONS_MAX, &plan->connections);
    case 'P':
        return read_u32("--pipeline", optarg, 1, PLAN_DEPTH_MAX, &plan->depth);
    case 't':
        return read_u32("--threads", optarg, 1, PLAN_THREADS_MAX, &plan->threads);
    case OPT_KEYS:
        return read_number("--keys", optarg, 1, REQUEST_KEYS_MAX - 1, &plan->keys);
    case OPT_KEY_BYTES:
        return read_u32("--key-bytes", optarg, REQUEST_DIGITS, PROTOCOL_KEY_MAX, &plan->key_bytes);
    case 'd':
        plan->sizes_text = optarg;
        return 0;
    case OPT_DIST:
        return read_dist(plan, optarg);
    case OPT_RATIO:
        return read_ratio(plan, optarg);
    case OPT_PRELOAD:
        plan->preload = true;
        return 0;
    case OPT_SEED:
        return read_number("--seed", optarg, 0, UINT64_MAX, &plan->seed);
    case 'n':
        return read_number("--requests", optarg, 1, UINT64_MAX, &plan->requests);
    case OPT_DURATION:
        return read_time("--duration", optarg, false, &plan->duration_ns);
    case OPT_WARM_UP:
        return read_time("--warm-up", optarg, true, &plan->warmup_ns);
    case OPT_RATE:
        return read_number("--rate", optarg, 1, RATE_MAX, &plan->rate);
    default: /* getopt has complained */
        return -1;
    }
}

/* What only all options together can tell. */
static int check(struct plan *plan)
{
    if (plan->port == 0)
        plan->port = plan->protocol->port;
    if (sizes_read(&plan->sizes, plan->sizes_text, plan->protocol->value_max) != 0) {
        char allowed[160];
        (void)snprintf(allowed, sizeof allowed,
                       "must be a length, a range A-B, or up to %u of them with weights, A-B:W,...; at most %llu bytes",
                       SIZES_PARTS_MAX, (unsigned long long)plan->protocol->value_max);
        return bad("--value-bytes", plan->sizes_text, allowed);
    }
    if (plan->threads > plan->connections) {
        (void)fprintf(stderr, "crabcache-bench: --threads %u: each needs a connection, and there are %u\n",
                      plan->threads, plan->connections);
        return -1;
    }
    if (plan->requests != 0 && plan->duration_ns != 0) {
        (void)fputs("crabcache-bench: give --requests or --duration, not both\n", stderr);
        return -1;
    }
    if (plan->duration_ns == 0)
        plan->duration_ns = 10 * SECOND_NS;
    return 0;
}

int plan_read(struct plan *plan, int argc, char **argv)
{
    *plan = (struct plan){
        .protocol = &protocol_native,
        .host = "127.0.0.1",
        .connections = 50,
        .depth = 1,
        .threads = 1,
        .sizes_text = "64",
        .keys = 1000000,
        .key_bytes = 16,
        .get_weight = 90,
        .put_weight = 10,
        .warmup_ns = SECOND_NS,
        .timeout_ns = 10 * SECOND_NS,
        .seed = 1,
        .progress = isatty(STDERR_FILENO) != 0,
    };
    int option;
    while ((option = getopt_long(argc, argv, "h:p:s:c:P:t:d:n:V", long_options, NULL)) != -1) {
        if (option == OPT_HELP)
            return fputs(help, stdout) >= 0 ? BENCH_OK : BENCH_USAGE;
        if (option == 'V')
            return printf("crabcache-bench %s\n", CRAB_VERSION_STRING) >= 0 ? BENCH_OK : BENCH_USAGE;
        int found = read_common(plan, option);
        if (found > 0)
            found = read_load(plan, option);
        if (found != 0)
            goto usage;
    }
    if (optind != argc) {
        (void)fprintf(stderr, "crabcache-bench: '%s': there are only options\n", argv[optind]);
        goto usage;
    }
    if (check(plan) == 0)
        return -1;

usage:
    (void)fputs("Try crabcache-bench --help\n", stderr);
    return BENCH_USAGE;
}
