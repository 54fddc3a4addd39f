/* SPDX-License-Identifier: MIT */
/*
 * The command line. Each flag has one function that reads its value into the configuration and says what is allowed
 * if it can't; a table binds name, function and that sentence, so that every complaint has the same form.
 */
#include "server/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crabcache/wire.h"

#define MIB ((size_t)1 << 20)
#define MIN_MEMORY (8 * MIB)
#define MAX_MEMORY ((size_t)16 << 40)
#define MAX_THREADS 64U
#define DEFAULT_STALL_S 60U
#define DEFAULT_FIRST_S 60U
#define MAX_TIMEOUT_S 86400U
#define MAX_CONNECTIONS 1000000U

/* Each worker needs this much of --memory, or its buffers would leave too little for those of clients. */
#define MEMORY_PER_THREAD (2 * MIB)

static const char help_text[] =
    "Usage: crabcache-server [FLAG]...\n"
    "An in-memory cache server that speaks the CrabCache protocol.\n"
    "\n"
    "  --bind ADDRESS     IPv4 or IPv6 address to listen on; may be given up to 16 times\n"
    "                     (default: 127.0.0.1)\n"
    "  --port PORT        TCP port, 0 to 65535; 0 takes a free one (default: 2722)\n"
    "  --memory SIZE      hard limit for items, index and buffers, 8M to 16T; suffixes K, M, G\n"
    "                     and T are powers of 1024 (default: 1G)\n"
    "  --threads N        worker threads, 1 to 64, at most one per 2M of memory (default: one\n"
    "                     per CPU)\n"
    "  --eviction MODE    evict: a write that does not fit drops older items; none: it is\n"
    "                     refused (default: evict)\n"
    "  --max-value SIZE   longest value, 1 to 1G; less if the memory does not allow it\n"
    "                     (default: 64M)\n"
    "  --auth-file FILE   users who may connect, one name:hash per line, with hashes of\n"
    "                     crypt(3); without it everyone may\n"
    "  --stall-timeout SECONDS\n"
    "                     how long a client may stop in the middle of a request, or not read\n"
    "                     what waits for it, 1 to 86400; then it is closed (default: 60)\n"
    "  --first-request-timeout SECONDS\n"
    "                     how long a client may take for its first request, and for AUTH if\n"
    "                     there are users, 0 to 86400; 0: any time (default: 60)\n"
    "  --idle-timeout SECONDS\n"
    "                     how long a client may ask nothing, 0 to 86400; 0: any time\n"
    "                     (default: 0)\n"
    "  --max-connections N\n"
    "                     more are closed at once, 0 to 1000000; 0: as many as descriptors and\n"
    "                     memory allow (default: 0)\n"
    "  --pin yes|no       bind each worker to a CPU of its own (default: no)\n"
    "  --log-level LEVEL  error, warning, info or debug (default: info)\n"
    "  --help             print this and exit\n"
    "  --version          print the version and exit\n"
    "\n"
    "When it is ready it prints one line with the addresses that it listens on. SIGTERM and\n"
    "SIGINT answer what was received and stop; a second one stops at once.\n"
    "Exit status: 0 stopped as asked, 1 it could not start, 2 the command line is wrong.\n";

const char *config_help(void)
{
    return help_text;
}

size_t config_buffer_bytes(size_t memory_bytes)
{
    size_t bytes = memory_bytes / 8;
    if (bytes < MIB)
        return MIB;
    return bytes < 160 * MIB ? bytes : 160 * MIB;
}

/* ---------------------------------------------------------------------------------------------- values */

/* Digits only: no sign, no space, no other base. */
static bool read_number(const char *text, uint64_t max, uint64_t *number, const char **end)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *stop;
    errno = 0;
    unsigned long long value = strtoull(text, &stop, 10);
    if (errno != 0 || value > max)
        return false;
    *number = value;
    *end = stop;
    return true;
}

static bool read_size(const char *text, uint64_t max, uint64_t *bytes)
{
    static const char suffixes[] = "KMGT";
    uint64_t number;
    const char *end;
    if (!read_number(text, max, &number, &end))
        return false;
    if (*end != '\0') {
        const char *suffix = strchr(suffixes, toupper((unsigned char)*end));
        if (suffix == NULL || end[1] != '\0')
            return false;
        unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
        if (number > max >> shift)
            return false;
        number <<= shift;
    }
    *bytes = number;
    return true;
}

static bool read_whole(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
    const char *end;
    return read_number(text, max, number, &end) && *end == '\0' && *number >= min;
}

/* ----------------------------------------------------------------------------------------------- flags */

static bool set_bind(struct config *config, const char *value)
{
    struct in6_addr address; /* large enough for both */
    if (inet_pton(AF_INET, value, &address) != 1 && inet_pton(AF_INET6, value, &address) != 1)
        return false;
    if (config->bind_count == CONFIG_MAX_BINDS)
        return false;
    config->binds[config->bind_count++] = value;
    return true;
}

static bool set_port(struct config *config, const char *value)
{
    uint64_t number;
    if (!read_whole(value, 0, 65535, &number))
        return false;
    config->port = (uint16_t)number;
    return true;
}

static bool set_memory(struct config *config, const char *value)
{
    uint64_t bytes;
    if (!read_size(value, MAX_MEMORY, &bytes) || bytes < MIN_MEMORY)
        return false;
    config->memory_bytes = bytes;
    return true;
}

static bool set_threads(struct config *config, const char *value)
{
    uint64_t number;
    if (!read_whole(value, 1, MAX_THREADS, &number))
        return false;
    config->threads = (unsigned)number;
    return true;
}

static bool set_eviction(struct config *config, const char *value)
{
    if (strcmp(value, "evict") == 0)
        config->eviction = STORE_EVICT;
    else if (strcmp(value, "none") == 0)
        config->eviction = STORE_REFUSE;
    else
        return false;
    return true;
}

static bool set_max_value(struct config *config, const char *value)
{
    uint64_t bytes;
    if (!read_size(value, CRAB_CEILING_MAX_VALUE, &bytes) || bytes == 0)
        return false;
    config->max_value = (uint32_t)bytes;
    return true;
}

static bool set_auth_file(struct config *config, const char *value)
{
    config->auth_file = value;
    return value[0] != '\0';
}

static bool read_timeout(const char *value, uint64_t min_s, uint32_t *ms)
{
    uint64_t seconds;
    if (!read_whole(value, min_s, MAX_TIMEOUT_S, &seconds))
        return false;
    *ms = (uint32_t)seconds * 1000;
    return true;
}

static bool set_stall_timeout(struct config *config, const char *value)
{
    return read_timeout(value, 1, &config->stall_ms);
}

static bool set_first_request_timeout(struct config *config, const char *value)
{
    return read_timeout(value, 0, &config->first_ms);
}

static bool set_idle_timeout(struct config *config, const char *value)
{
    return read_timeout(value, 0, &config->idle_ms);
}

static bool set_max_connections(struct config *config, const char *value)
{
    uint64_t number;
    if (!read_whole(value, 0, MAX_CONNECTIONS, &number))
        return false;
    config->max_connections = (unsigned)number;
    return true;
}

static bool set_pin(struct config *config, const char *value)
{
    config->pin = strcmp(value, "yes") == 0;
    return config->pin || strcmp(value, "no") == 0;
}

static bool set_log_level(struct config *config, const char *value)
{
    return log_level_parse(value, &config->log_level);
}

static const struct flag {
    const char *name;
    bool (*set)(struct config *config, const char *value);
    const char *allowed;
} flags[] = {
    {"bind", set_bind, "an IPv4 or IPv6 address such as 127.0.0.1 or ::1, at most 16 times"},
    {"port", set_port, "a number from 0 to 65535"},
    {"memory", set_memory, "a size from 8M to 16T, such as 512M or 4G"},
    {"threads", set_threads, "a number from 1 to 64"},
    {"eviction", set_eviction, "evict or none"},
    {"max-value", set_max_value, "a size from 1 to 1G, such as 64M"},
    {"auth-file", set_auth_file, "the path of a file"},
    {"stall-timeout", set_stall_timeout, "a number of seconds from 1 to 86400"},
    {"first-request-timeout", set_first_request_timeout, "a number of seconds from 0 to 86400"},
    {"idle-timeout", set_idle_timeout, "a number of seconds from 0 to 86400"},
    {"max-connections", set_max_connections, "a number from 0 to 1000000"},
    {"pin", set_pin, "yes or no"},
    {"log-level", set_log_level, "error, warning, info or debug"},
};

#define FLAGS (sizeof flags / sizeof flags[0])
/* What getopt_long() returns; above every character, so that a short flag, of which there is none, is told apart. */
#define OPTION_HELP 256
#define OPTION_VERSION 257
#define OPTION_FLAG 258 /* plus the index in flags */

static void set_options(struct option options[FLAGS + 3])
{
    memset(options, 0, (FLAGS + 3) * sizeof options[0]);
    for (size_t i = 0; i < FLAGS; i++)
        options[i] = (struct option){flags[i].name, required_argument, NULL, OPTION_FLAG + (int)i};
    options[FLAGS] = (struct option){"help", no_argument, NULL, OPTION_HELP};
    options[FLAGS + 1] = (struct option){"version", no_argument, NULL, OPTION_VERSION};
}

static enum config_result wrong(char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static enum config_result wrong(char *message, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, CONFIG_MESSAGE_BYTES, format, args);
    va_end(args);
    return CONFIG_WRONG;
}

/* A name that getopt_long() did not take, or one without its value. */
static enum config_result bad_option(int kind, char **argv, char *message)
{
    if (optopt > 0 && optopt < OPTION_HELP)
        return wrong(message, "-%c: there is no such flag; see --help", optopt);
    const char *given = argv[optind - 1];
    if (kind == ':')
        return wrong(message, "%.200s: a value is missing; see --help", given);
    return wrong(message, "%.200s: there is no such flag, or it takes no value; see --help", given);
}

static unsigned default_threads(size_t memory_bytes)
{
    cpu_set_t cpus;
    unsigned threads = 1;
    if (sched_getaffinity(0, sizeof cpus, &cpus) == 0)
        threads = (unsigned)CPU_COUNT(&cpus);
    size_t fitting = memory_bytes / MEMORY_PER_THREAD;
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    return threads < fitting ? threads : (unsigned)fitting;
}

static enum config_result complete(struct config *config, char *message)
{
    if (config->bind_count == 0)
        config->binds[config->bind_count++] = "127.0.0.1";
    if (config->threads == 0)
        config->threads = default_threads(config->memory_bytes);
    if (config->threads > config->memory_bytes / MEMORY_PER_THREAD)
        return wrong(message, "--threads: %u do not fit --memory of %zuM: allowed is at most one per 2M",
                     config->threads, config->memory_bytes / MIB);
    return CONFIG_RUN;
}

enum config_result config_parse(int argc, char **argv, struct config *config, char *message)
{
    struct option options[FLAGS + 3];
    set_options(options);
    *config = (struct config){
        .port = CRAB_DEFAULT_PORT,
        .memory_bytes = (size_t)1 << 30,
        .eviction = STORE_EVICT,
        .max_value = CRAB_DEFAULT_MAX_VALUE,
        .stall_ms = DEFAULT_STALL_S * 1000,
        .first_ms = DEFAULT_FIRST_S * 1000,
        .log_level = LOG_LEVEL_INFO,
    };
    optind = 0; /* start anew, whoever used getopt before */
    opterr = 0;
    int option;
    while ((option = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        if (option == OPTION_HELP)
            return CONFIG_HELP;
        if (option == OPTION_VERSION)
            return CONFIG_VERSION;
        if (option < OPTION_FLAG)
            return bad_option(option, argv, message);
        const struct flag *flag = &flags[option - OPTION_FLAG];
        if (!flag->set(config, optarg))
            return wrong(message, "--%s: \"%.200s\" is not allowed: it takes %s", flag->name, optarg, flag->allowed);
    }
    if (optind < argc)
        return wrong(message, "%.200s: only flags are allowed; see --help", argv[optind]);
    return complete(config, message);
}
