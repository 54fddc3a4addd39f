/* SPDX-License-Identifier: MIT */
/*
 * crabcache-replay's command line: every bad value is named with its flag and with what is allowed.
 */
#include "client/replay/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "Usage: crabcache-replay [OPTION]... TRACE\n"
    "       crabcache-replay [OPTION]... --zipf S\n"
    "Replay a stream of requests against a CrabCache server, cache-aside: get the key, and after a\n"
    "miss put a value of the request's size. Every value that comes back is checked byte for byte.\n"
    "\n"
    "TRACE is a file of lines key,value_bytes, plain or xz-compressed; - is the standard input.\n"
    "\n"
    "Server\n"
    "      --host HOST         name or address, or /path of a unix socket (default 127.0.0.1)\n"
    "  -p, --port PORT         TCP port (default 2722)\n"
    "      --timeout TIME      of each call, such as 500ms or 10s (default 30s)\n"
    "      --user NAME         authenticate; the secret comes from --secret-file or, without it,\n"
    "                          from the environment variable CRABCACHE_SECRET\n"
    "      --secret-file FILE  first line of FILE is the secret\n"
    "Replay\n"
    "  -d, --depth D           requests on their way on each connection (default 32)\n"
    "  -t, --threads T         threads, each with a connection and a share of the keys (default 1)\n"
    "  -n, --limit N           stop after N requests of the stream\n"
    "      --prefix TEXT       put TEXT before each key, to keep runs apart\n"
    "      --check-tags        tag every request and check the tags of the replies\n"
    "Made-up stream, in place of TRACE\n"
    "      --zipf S            Zipf's exponent, 0 (all keys alike) to 10\n"
    "      --keys N            how many different keys (default 100000)\n"
    "      --requests N        how many requests (default 1000000)\n"
    "      --seed X            the same seed gives the same stream (default 1)\n"
    "      --value-bytes A-B   shortest and longest value (default 16-1024)\n"
    "Output\n"
    "      --json              print the result as one JSON object\n"
    "      --progress          show progress also if the standard error is no terminal\n"
    "  -h, --help              print this help and exit\n"
    "  -V, --version           print the version and exit\n"
    "\n"
    "Exit status: 0 every value was right and every request answered; 1 a wrong value or a failed\n"
    "request; 2 bad usage or trace; 3 no connection, or it broke; 4 refused by the server.\n"
    "Puts that the server refuses for lack of room are counted, and are no failure.\n";

enum long_only {
    OPT_HOST = 256,
    OPT_TIMEOUT,
    OPT_USER,
    OPT_SECRET_FILE,
    OPT_PREFIX,
    OPT_CHECK_TAGS,
    OPT_ZIPF,
    OPT_KEYS,
    OPT_REQUESTS,
    OPT_SEED,
    OPT_VALUE_BYTES,
    OPT_JSON,
    OPT_PROGRESS
};

static const struct option long_options[] = {
    {"host", required_argument, NULL, OPT_HOST},
    {"port", required_argument, NULL, 'p'},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"user", required_argument, NULL, OPT_USER},
    {"secret-file", required_argument, NULL, OPT_SECRET_FILE},
    {"depth", required_argument, NULL, 'd'},
    {"threads", required_argument, NULL, 't'},
    {"limit", required_argument, NULL, 'n'},
    {"prefix", required_argument, NULL, OPT_PREFIX},
    {"check-tags", no_argument, NULL, OPT_CHECK_TAGS},
    {"zipf", required_argument, NULL, OPT_ZIPF},
    {"keys", required_argument, NULL, OPT_KEYS},
    {"requests", required_argument, NULL, OPT_REQUESTS},
    {"seed", required_argument, NULL, OPT_SEED},
    {"value-bytes", required_argument, NULL, OPT_VALUE_BYTES},
    {"json", no_argument, NULL, OPT_JSON},
    {"progress", no_argument, NULL, OPT_PROGRESS},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

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

static int bad(const char *flag, const char *value, const char *allowed)
{
    (void)fprintf(stderr, "crabcache-replay: %s '%s': %s\n", flag, value, allowed);
    return -1;
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

static int read_timeout(const char *value, uint32_t *timeout_ms)
{
    const char *end;
    uint64_t number;
    uint64_t unit_ms = 0;
    if (digits(value, &end, &number)) {
        if (strcmp(end, "ms") == 0)
            unit_ms = 1;
        else if (strcmp(end, "s") == 0)
            unit_ms = 1000;
        else if (strcmp(end, "m") == 0)
            unit_ms = 60000;
    }
    if (unit_ms == 0 || number == 0 || number > 3600000 / unit_ms)
        return bad("--timeout", value, "must be a time from 1ms to 60m, with the unit ms, s or m");
    *timeout_ms = (uint32_t)(number * unit_ms);
    return 0;
}

static int read_exponent(const char *value, double *exponent)
{
    char *end;
    *exponent = strtod(value, &end);
    if (end == value || *end != '\0' || !isfinite(*exponent) || *exponent < 0.0 || *exponent > 10.0)
        return bad("--zipf", value, "must be a number from 0 to 10");
    return 0;
}

static int read_range(const char *value, uint32_t *least, uint32_t *most)
{
    const char *end;
    uint64_t first;
    uint64_t last;
    bool good = digits(value, &end, &first);
    last = first;
    if (good && *end == '-')
        good = digits(end + 1, &end, &last);
    if (!good || *end != '\0' || first > last || last > CRAB_CEILING_MAX_VALUE)
        return bad("--value-bytes", value, "must be A-B with A <= B <= 1073741824, or one number");
    *least = (uint32_t)first;
    *most = (uint32_t)last;
    return 0;
}

static int read_secret(struct options *options, const char *path)
{
    const char *secret = getenv("CRABCACHE_SECRET");
    if (path != NULL) {
        FILE *file = fopen(path, "re");
        if (file == NULL || fgets(options->secret, sizeof options->secret, file) == NULL) {
            (void)fprintf(stderr, "crabcache-replay: --secret-file '%s': cannot read a secret: %s\n", path,
                          file == NULL ? strerror(errno) : "the file is empty");
            if (file != NULL)
                (void)fclose(file);
            return -1;
        }
        (void)fclose(file);
        options->secret[strcspn(options->secret, "\r\n")] = '\0';
        if (strlen(options->secret) > CRAB_MAX_SECRET)
            return bad("--secret-file", path, "a secret has at most 1024 bytes");
    } else if (secret == NULL || strlen(secret) > CRAB_MAX_SECRET) {
        return bad("--user", options->conn.user, "needs --secret-file or CRABCACHE_SECRET with at most 1024 bytes");
    } else {
        (void)snprintf(options->secret, sizeof options->secret, "%s", secret);
    }
    options->conn.secret = options->secret;
    options->conn.secret_len = strlen(options->secret);
    return 0;
}

/* One option. 0, or -1 after a complaint. */
static int read_option(struct options *options, int option, const char **secret_file)
{
    uint32_t port;
    switch (option) {
    case OPT_HOST:
        options->conn.host = optarg;
        return 0;
    case 'p':
        if (read_u32("--port", optarg, 1, UINT16_MAX, &port) != 0)
            return -1;
        options->conn.port = (uint16_t)port;
        return 0;
    case OPT_TIMEOUT:
        return read_timeout(optarg, &options->conn.timeout_ms);
    case OPT_USER:
        options->conn.user = optarg;
        return 0;
    case OPT_SECRET_FILE:
        *secret_file = optarg;
        return 0;
    case 'd':
        return read_u32("--depth", optarg, 1, CRAB_MAX_IN_FLIGHT, &options->depth);
    case 't':
        return read_u32("--threads", optarg, 1, REPLAY_MAX_THREADS, &options->threads);
    case 'n':
        return read_number("--limit", optarg, 1, UINT64_MAX, &options->limit);
    case OPT_PREFIX:
        options->prefix = optarg;
        return strlen(optarg) <= 256 ? 0 : bad("--prefix", optarg, "must have at most 256 bytes");
    case OPT_CHECK_TAGS:
        options->conn.check_tags = true;
        return 0;
    case OPT_ZIPF:
        options->trace = NULL;
        return read_exponent(optarg, &options->zipf.exponent);
    case OPT_KEYS:
        return read_number("--keys", optarg, 1, UINT64_C(1) << 40, &options->zipf.keys);
    case OPT_REQUESTS:
        return read_number("--requests", optarg, 1, UINT64_MAX, &options->zipf.requests);
    case OPT_SEED:
        return read_number("--seed", optarg, 0, UINT64_MAX, &options->zipf.seed);
    case OPT_VALUE_BYTES:
        return read_range(optarg, &options->zipf.least, &options->zipf.most);
    case OPT_JSON:
        options->json = true;
        return 0;
    case OPT_PROGRESS:
        options->progress = true;
        return 0;
    default: /* getopt has complained */
        return -1;
    }
}

int options_read(struct options *options, int argc, char **argv)
{
    const char *secret_file = NULL;
    bool zipf = false;
    *options = (struct options){
        .conn = {.host = "127.0.0.1",
                 .port = CRAB_DEFAULT_PORT,
                 .timeout_ms = 30000,
                 .client_name = "crabcache-replay"},
        .depth = 32,
        .threads = 1,
        .limit = UINT64_MAX,
        .prefix = "",
        .progress = isatty(STDERR_FILENO) != 0,
        .zipf = {.keys = 100000, .requests = 1000000, .seed = 1, .least = 16, .most = 1024},
    };
    int option;
    while ((option = getopt_long(argc, argv, "p:d:t:n:hV", long_options, NULL)) != -1) {
        if (option == 'h')
            return fputs(help, stdout) >= 0 ? REPLAY_OK : REPLAY_USAGE;
        if (option == 'V')
            return printf("crabcache-replay %s\n", crab_version()) >= 0 ? REPLAY_OK : REPLAY_USAGE;
        if (read_option(options, option, &secret_file) != 0)
            goto usage;
        zipf = zipf || option == OPT_ZIPF;
    }
    if (zipf ? optind != argc : optind != argc - 1) {
        (void)fprintf(stderr, "crabcache-replay: %s\n",
                      zipf ? "--zipf makes up the stream: give no TRACE" : "give one TRACE, or --zipf S");
        goto usage;
    }
    options->trace = zipf ? NULL : argv[optind];
    if (options->conn.user != NULL && read_secret(options, secret_file) != 0)
        return REPLAY_USAGE;
    return -1;

usage:
    (void)fputs("Try crabcache-replay --help\n", stderr);
    return REPLAY_USAGE;
}
