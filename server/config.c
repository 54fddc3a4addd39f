/* SPDX-License-Identifier: MIT */
/*
 * The flags. Each has one function that reads its value into the configuration, and a sentence that says what is
 * allowed; a table binds them to its name, so that every complaint has the same form wherever the flag stands.
 */
#include "server/config.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "crabcache/wire.h"
#include "server/config_flag.h"

#define MIB ((size_t)1 << 20)
#define MIN_MEMORY (8 * MIB)
#define MAX_MEMORY ((size_t)16 << 40)
#define MAX_THREADS CONFIG_MAX_THREADS
#define DEFAULT_STALL_S 60U
#define DEFAULT_FIRST_S 60U
#define MAX_TIMEOUT_S 86400U
#define MAX_CONNECTIONS 1000000U
#define DEFAULT_AUTH_FAILURES 30U
#define MAX_AUTH_FAILURES 60000U

static const char help_text[] =
    "Usage: crabcache-server [FLAG]...\n"
    "An in-memory cache server that speaks the CrabCache protocol.\n"
    "\n"
    "  --bind ADDRESS     IPv4 or IPv6 address to listen on; may be given up to 16 times; other\n"
    "                     than loopback only with --auth-file or --insecure (default: 127.0.0.1,\n"
    "                     unless there is --unix)\n"
    "  --port PORT        TCP port, 0 to 65535; 0 takes a free one (default: 2722)\n"
    "  --unix PATH        unix socket to listen on; may be given up to 16 times\n"
    "  --unix-mode MODE   permissions of the unix sockets, octal (default: 0600)\n"
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
    "  --auth-failures N  failed AUTHs that one client address has per minute, 0 to 60000;\n"
    "                     0: any number (default: 30)\n"
    "  --insecure         allow addresses that others can reach without --auth-file\n"
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
    "  --metrics-port PORT\n"
    "                     serve /metrics (Prometheus) and /healthz by HTTP, 0 to 65535; 0 takes\n"
    "                     a free port (default: none)\n"
    "  --metrics-bind ADDRESS\n"
    "                     IPv4 or IPv6 address for it (default: 127.0.0.1)\n"
    "  --log-level LEVEL  error, warning, info or debug (default: info)\n"
    "  --log-format FORMAT\n"
    "                     text or json, one object per line (default: text)\n"
    "  --log-file FILE    append the log to FILE (default: standard error)\n"
    "  --config FILE      read flags from FILE first, one `name = value` per line, without the\n"
    "                     dashes; what the command line says wins\n"
    "  --check-config     check flags, file and users, say what is wrong, and exit\n"
    "  --help             print this and exit\n"
    "  --version          print the version and exit\n"
    "\n"
    "When it is ready it prints one line with the addresses that it listens on. SIGTERM and\n"
    "SIGINT answer what was received and stop; a second one stops at once. SIGHUP opens the log\n"
    "file anew and reads the users again.\n"
    "Exit status: 0 stopped as asked, 1 it could not start, 2 the command line or the file of\n"
    "--config is wrong.\n";

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

bool config_is_loopback(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, address, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, address, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
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

static bool is_address(const char *text)
{
    struct in6_addr address; /* large enough for both */
    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

static bool set_bind(struct config *config, const char *value)
{
    if (!is_address(value))
        return false;
    if (config->bind_count == CONFIG_MAX_BINDS)
        return false;
    config->binds[config->bind_count++] = value;
    return true;
}

static bool read_yes_no(const char *text, bool *yes)
{
    *yes = strcmp(text, "yes") == 0;
    return *yes || strcmp(text, "no") == 0;
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (iscntrl((unsigned char)*text))
            return false;
    }
    return true;
}

static bool set_unix(struct config *config, const char *value)
{
    if (value[0] == '\0' || strlen(value) >= sizeof((struct sockaddr_un *)NULL)->sun_path || !is_printable(value))
        return false;
    if (config->unix_count == CONFIG_MAX_UNIX)
        return false;
    config->unix_paths[config->unix_count++] = value;
    return true;
}

static bool set_unix_mode(struct config *config, const char *value)
{
    size_t len = strlen(value);
    if (len < 3 || len > 4 || strspn(value, "01234567") != len || (len == 4 && value[0] != '0'))
        return false;
    config->unix_mode = (unsigned)strtoul(value, NULL, 8);
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

static bool set_auth_failures(struct config *config, const char *value)
{
    uint64_t number;
    if (!read_whole(value, 0, MAX_AUTH_FAILURES, &number))
        return false;
    config->auth_failures = (unsigned)number;
    return true;
}

static bool read_timeout(const char *value, uint64_t min_s, uint32_t *ms)
{
    uint64_t seconds;
    if (!read_whole(value, min_s, MAX_TIMEOUT_S, &seconds))
        return false;
    *ms = (uint32_t)seconds * 1000;
    return true;
}

static bool set_insecure(struct config *config, const char *value)
{
    return read_yes_no(value, &config->insecure);
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
    return read_yes_no(value, &config->pin);
}

static bool set_metrics_port(struct config *config, const char *value)
{
    uint64_t number;
    if (!read_whole(value, 0, 65535, &number))
        return false;
    config->metrics_port = (int)number;
    return true;
}

static bool set_metrics_bind(struct config *config, const char *value)
{
    config->metrics_bind = value;
    return is_address(value);
}

static bool set_log_level(struct config *config, const char *value)
{
    return log_level_parse(value, &config->log_level);
}

static bool set_log_format(struct config *config, const char *value)
{
    config->log_format = strcmp(value, "json") == 0 ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT;
    return config->log_format == LOG_FORMAT_JSON || strcmp(value, "text") == 0;
}

static bool set_log_file(struct config *config, const char *value)
{
    config->log_file = value;
    return value[0] != '\0';
}

const struct config_flag config_flags[] = {
    {"bind", set_bind, "an IPv4 or IPv6 address such as 127.0.0.1 or ::1, at most 16 times"},
    {"port", set_port, "a number from 0 to 65535"},
    {"unix", set_unix, "a path of 1 to 107 bytes, at most 16 times"},
    {"unix-mode", set_unix_mode, "an octal mode from 000 to 777, such as 660"},
    {"memory", set_memory, "a size from 8M to 16T, such as 512M or 4G"},
    {"threads", set_threads, "a number from 1 to 64"},
    {"eviction", set_eviction, "evict or none"},
    {"max-value", set_max_value, "a size from 1 to 1G, such as 64M"},
    {"auth-file", set_auth_file, "the path of a file"},
    {"auth-failures", set_auth_failures, "a number from 0 to 60000"},
    {"insecure", set_insecure, "yes or no"},
    {"stall-timeout", set_stall_timeout, "a number of seconds from 1 to 86400"},
    {"first-request-timeout", set_first_request_timeout, "a number of seconds from 0 to 86400"},
    {"idle-timeout", set_idle_timeout, "a number of seconds from 0 to 86400"},
    {"max-connections", set_max_connections, "a number from 0 to 1000000"},
    {"pin", set_pin, "yes or no"},
    {"metrics-port", set_metrics_port, "a number from 0 to 65535"},
    {"metrics-bind", set_metrics_bind, "an IPv4 or IPv6 address such as 127.0.0.1 or ::1"},
    {"log-level", set_log_level, "error, warning, info or debug"},
    {"log-format", set_log_format, "text or json"},
    {"log-file", set_log_file, "the path of a file"},
};

const size_t config_flag_count = sizeof config_flags / sizeof config_flags[0];
static_assert(sizeof config_flags / sizeof config_flags[0] <= CONFIG_FLAGS_MAX, "room for every flag");

void config_defaults(struct config *config)
{
    *config = (struct config){
        .port = CRAB_DEFAULT_PORT,
        .unix_mode = 0600,
        .memory_bytes = (size_t)1 << 30,
        .eviction = STORE_EVICT,
        .max_value = CRAB_DEFAULT_MAX_VALUE,
        .stall_ms = DEFAULT_STALL_S * 1000,
        .first_ms = DEFAULT_FIRST_S * 1000,
        .auth_failures = DEFAULT_AUTH_FAILURES,
        .metrics_port = -1,
        .metrics_bind = CONFIG_DEFAULT_BIND,
        .log_level = LOG_LEVEL_INFO,
    };
}

unsigned *config_times(struct config *config, const struct config_flag *flag)
{
    if (flag->set == set_bind)
        return &config->bind_count;
    return flag->set == set_unix ? &config->unix_count : NULL;
}

bool config_is_bare(const struct config_flag *flag)
{
    return flag->set == set_insecure;
}
