/* SPDX-License-Identifier: MIT */
/*
 * The command line and the file of --config: defaults, every good value at its limits, every bad one named with flag
 * (or file and line), value and what is allowed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "crabcache/wire.h"
#include "server/config.h"
#include "server/config_file.h"

#define MAX_ARGUMENTS 60

struct outcome {
    enum config_result result;
    struct config config;
    char message[CONFIG_MESSAGE_BYTES];
};

/* Parse flags, given up to a NULL. */
static struct outcome parse(const char *first, ...)
{
    char *argv[MAX_ARGUMENTS + 2] = {(char *)(uintptr_t) "crabcache-server"};
    int argc = 1;
    va_list args;
    va_start(args, first);
    for (const char *arg = first; arg != NULL; arg = va_arg(args, const char *)) {
        assert_true(argc < MAX_ARGUMENTS);
        argv[argc++] = (char *)(uintptr_t)arg;
    }
    va_end(args);
    struct outcome outcome = {.message = ""};
    outcome.result = config_parse(argc, argv, &outcome.config, outcome.message);
    return outcome;
}

static void test_defaults(void **state)
{
    (void)state;
    struct outcome o = parse(NULL);
    assert_int_equal(o.result, CONFIG_RUN);
    assert_int_equal(o.config.bind_count, 0); /* CONFIG_DEFAULT_BIND */
    assert_int_equal(o.config.unix_count, 0);
    assert_int_equal(o.config.unix_mode, 0600);
    assert_false(o.config.insecure);
    assert_int_equal(o.config.port, CRAB_DEFAULT_PORT);
    assert_int_equal(o.config.memory_bytes, (size_t)1 << 30);
    assert_true(o.config.threads >= 1 && o.config.threads <= 64);
    assert_int_equal(o.config.eviction, STORE_EVICT);
    assert_int_equal(o.config.max_value, CRAB_DEFAULT_MAX_VALUE);
    assert_null(o.config.auth_file);
    assert_int_equal(o.config.stall_ms, 60000);
    assert_int_equal(o.config.first_ms, 60000);
    assert_int_equal(o.config.idle_ms, 0);
    assert_int_equal(o.config.max_connections, 0);
    assert_false(o.config.pin);
    assert_int_equal(o.config.log_level, LOG_LEVEL_INFO);
    assert_int_equal(o.config.log_format, LOG_FORMAT_TEXT);
    assert_null(o.config.log_file);
    assert_int_equal(o.config.auth_failures, 30);
    assert_int_equal(o.config.metrics_port, -1);
    assert_string_equal(o.config.metrics_bind, "127.0.0.1");
}

static void test_everything(void **state)
{
    (void)state;
    struct outcome o = parse("--bind", "::1", "--bind=127.0.0.2", "--port", "0", "--memory", "64m", "--threads", "32",
                             "--eviction", "none", "--max-value", "10K", "--auth-file", "users", "--log-level", "debug",
                             "--stall-timeout", "5", "--first-request-timeout", "6", "--idle-timeout", "7",
                             "--max-connections", "8", "--pin", "yes", "--unix", "/run/a", "--unix=b",
                             "--unix-mode", "0666", "--insecure",
                             "--log-format", "json", "--log-file", "log", "--auth-failures", "9",
                             "--metrics-port", "0", "--metrics-bind", "::1", NULL);
    assert_int_equal(o.result, CONFIG_RUN);
    assert_int_equal(o.config.bind_count, 2);
    assert_string_equal(o.config.binds[1], "127.0.0.2");
    assert_int_equal(o.config.port, 0);
    assert_int_equal(o.config.memory_bytes, (size_t)64 << 20);
    assert_int_equal(o.config.threads, 32);
    assert_int_equal(o.config.eviction, STORE_REFUSE);
    assert_int_equal(o.config.max_value, 10 << 10);
    assert_string_equal(o.config.auth_file, "users");
    assert_int_equal(o.config.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(o.config.stall_ms, 5000);
    assert_int_equal(o.config.first_ms, 6000);
    assert_int_equal(o.config.idle_ms, 7000);
    assert_int_equal(o.config.max_connections, 8);
    assert_true(o.config.pin);
    assert_int_equal(o.config.unix_count, 2);
    assert_string_equal(o.config.unix_paths[0], "/run/a");
    assert_string_equal(o.config.unix_paths[1], "b");
    assert_int_equal(o.config.unix_mode, 0666);
    assert_true(o.config.insecure);
    assert_int_equal(o.config.log_format, LOG_FORMAT_JSON);
    assert_string_equal(o.config.log_file, "log");
    assert_int_equal(o.config.auth_failures, 9);
    assert_int_equal(o.config.metrics_port, 0);
    assert_string_equal(o.config.metrics_bind, "::1");
}

static void test_limits_of_values(void **state)
{
    (void)state;
    assert_int_equal(parse("--port", "65535", NULL).config.port, 65535);
    assert_int_equal(parse("--memory", "8M", NULL).config.memory_bytes, (size_t)8 << 20);
    assert_int_equal(parse("--memory", "8388608", NULL).config.memory_bytes, (size_t)8 << 20);
    assert_int_equal(parse("--memory", "8192K", NULL).config.memory_bytes, (size_t)8 << 20);
    assert_int_equal(parse("--memory", "16T", NULL).config.memory_bytes, (size_t)16 << 40);
    assert_int_equal(parse("--max-value", "1G", NULL).config.max_value, CRAB_CEILING_MAX_VALUE);
    assert_int_equal(parse("--max-value", "1", NULL).config.max_value, 1);
    assert_int_equal(parse("--stall-timeout", "1", NULL).config.stall_ms, 1000);
    assert_int_equal(parse("--stall-timeout", "86400", NULL).config.stall_ms, 86400000);
    assert_int_equal(parse("--first-request-timeout", "0", NULL).config.first_ms, 0);
    assert_int_equal(parse("--idle-timeout", "86400", NULL).config.idle_ms, 86400000);
    assert_int_equal(parse("--max-connections", "1000000", NULL).config.max_connections, 1000000);
    assert_false(parse("--pin", "no", NULL).config.pin);
    assert_int_equal(parse("--threads", "64", "--memory", "128M", NULL).result, CONFIG_RUN);
    assert_int_equal(parse("--memory", "8M", NULL).result, CONFIG_RUN); /* the default of threads adapts */
    assert_true(parse("--memory", "8M", NULL).config.threads <= 4);
}

static void test_bad_values(void **state)
{
    (void)state;
    const struct {
        const char *flag, *value, *allowed;
    } cases[] = {
        {"--port", "65536", "0 to 65535"},
        {"--port", "-1", "0 to 65535"},
        {"--port", "+1", "0 to 65535"},
        {"--port", " 1", "0 to 65535"},
        {"--port", "1 ", "0 to 65535"},
        {"--port", "0x10", "0 to 65535"},
        {"--port", "", "0 to 65535"},
        {"--port", "18446744073709551616", "0 to 65535"},
        {"--memory", "8388607", "8M to 16T"},
        {"--memory", "0", "8M to 16T"},
        {"--memory", "1MB", "8M to 16T"},
        {"--memory", "1P", "8M to 16T"},
        {"--memory", "M", "8M to 16T"},
        {"--memory", "1.5G", "8M to 16T"},
        {"--memory", "-8M", "8M to 16T"},
        {"--memory", "17T", "8M to 16T"},
        {"--memory", "99999999999999999999G", "8M to 16T"},
        {"--memory", "18014398509481984K", "8M to 16T"},
        {"--threads", "0", "1 to 64"},
        {"--threads", "65", "1 to 64"},
        {"--threads", "two", "1 to 64"},
        {"--eviction", "lru", "evict or none"},
        {"--eviction", "", "evict or none"},
        {"--eviction", "NONE", "evict or none"},
        {"--max-value", "0", "1 to 1G"},
        {"--max-value", "1073741825", "1 to 1G"},
        {"--max-value", "2G", "1 to 1G"},
        {"--bind", "localhost", "127.0.0.1"},
        {"--bind", "1.2.3", "127.0.0.1"},
        {"--bind", "256.1.1.1", "127.0.0.1"},
        {"--bind", "[::1]", "127.0.0.1"},
        {"--bind", "", "127.0.0.1"},
        {"--auth-file", "", "path"},
        {"--log-file", "", "path"},
        {"--metrics-port", "65536", "0 to 65535"},
        {"--metrics-port", "", "0 to 65535"},
        {"--metrics-bind", "localhost", "127.0.0.1"},
        {"--log-format", "xml", "text or json"},
        {"--auth-failures", "-1", "0 to 60000"},
        {"--auth-failures", "60001", "0 to 60000"},
        {"--unix", "", "1 to 107 bytes"},
        {"--unix", "/run/a\nb", "1 to 107 bytes"},
        {"--unix-mode", "", "000 to 777"},
        {"--unix-mode", "66", "000 to 777"},
        {"--unix-mode", "1777", "000 to 777"},
        {"--unix-mode", "0o66", "000 to 777"},
        {"--unix-mode", "888", "000 to 777"},
        {"--unix-mode", "00660", "000 to 777"},
        {"--stall-timeout", "0", "1 to 86400"},
        {"--stall-timeout", "86401", "1 to 86400"},
        {"--stall-timeout", "5s", "1 to 86400"},
        {"--first-request-timeout", "86401", "0 to 86400"},
        {"--idle-timeout", "-1", "0 to 86400"},
        {"--max-connections", "1000001", "0 to 1000000"},
        {"--max-connections", "many", "0 to 1000000"},
        {"--pin", "1", "yes or no"},
        {"--pin", "", "yes or no"},
        {"--log-level", "trace", "error, warning, info or debug"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome o = parse(cases[i].flag, cases[i].value, NULL);
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\"", cases[i].value);
        assert_int_equal(o.result, CONFIG_WRONG);
        assert_non_null(strstr(o.message, cases[i].flag));
        assert_non_null(strstr(o.message, quoted));
        assert_non_null(strstr(o.message, cases[i].allowed));
    }
}

static void test_bad_flags(void **state)
{
    (void)state;
    const char *const flags[] = {"--nothing", "--nothing=1", "-x", "--port", "word", "--help=1", "--"};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        struct outcome o = strcmp(flags[i], "--") == 0 ? parse("--", "word", NULL) : parse(flags[i], NULL);
        assert_int_equal(o.result, CONFIG_WRONG);
        assert_non_null(strstr(o.message, "--help"));
    }
    assert_non_null(strstr(parse("--port", "1", "--nothing", NULL).message, "--nothing"));
    assert_non_null(strstr(parse("-xyz", NULL).message, "-x"));
    assert_non_null(strstr(parse("--memory", NULL).message, "--memory"));
    struct outcome o = parse("--threads", "5", "--memory", "8M", NULL);
    assert_int_equal(o.result, CONFIG_WRONG);
    assert_non_null(strstr(o.message, "--threads"));
    assert_non_null(strstr(o.message, "8M"));
}

static void test_too_many_binds(void **state)
{
    (void)state;
    const char *b = "--bind=::1";
    assert_int_equal(parse(b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, NULL).config.bind_count, 16);
    assert_int_equal(parse(b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, NULL).result, CONFIG_WRONG);
}

static void test_unix_paths(void **state)
{
    (void)state;
    char path[109];
    memset(path, 'p', sizeof path - 1);
    path[108] = '\0';
    assert_int_equal(parse("--unix", path, NULL).result, CONFIG_WRONG);
    path[107] = '\0';
    assert_int_equal(parse("--unix", path, NULL).result, CONFIG_RUN);
    const char *u = "--unix=/s";
    assert_int_equal(parse(u, u, u, u, u, u, u, u, u, u, u, u, u, u, u, u, NULL).config.unix_count, 16);
    assert_int_equal(parse(u, u, u, u, u, u, u, u, u, u, u, u, u, u, u, u, u, NULL).result, CONFIG_WRONG);
    assert_int_equal(parse("--unix-mode", "000", NULL).config.unix_mode, 0);
    assert_int_equal(parse("--unix-mode", "0777", NULL).config.unix_mode, 0777);
}

/* Who listens for others must say who may come, or that everyone may. */
static void test_open_addresses(void **state)
{
    (void)state;
    const char *const closed[] = {"127.0.0.1", "127.255.1.2", "::1"};
    const char *const open[] = {"0.0.0.0", "::", "192.0.2.1", "128.0.0.1", "::2", "::ffff:127.0.0.1"};
    for (size_t i = 0; i < sizeof closed / sizeof closed[0]; i++)
        assert_int_equal(parse("--bind", closed[i], NULL).result, CONFIG_RUN);
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        struct outcome o = parse("--bind", "::1", "--bind", open[i], NULL);
        assert_int_equal(o.result, CONFIG_WRONG);
        assert_non_null(strstr(o.message, open[i]));
        assert_non_null(strstr(o.message, "--auth-file"));
        assert_non_null(strstr(o.message, "--insecure"));
        assert_int_equal(parse("--bind", open[i], "--insecure", NULL).result, CONFIG_RUN);
        assert_int_equal(parse("--bind", open[i], "--auth-file", "users", NULL).result, CONFIG_RUN);
    }
}

/* -------------------------------------------------------------------------------------------- the file */

/* Parse a file with this content, and one flag behind it unless that is NULL. */
static struct outcome parse_file(const void *content, size_t len, const char *flag)
{
    char path[] = "/tmp/crabcache-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, len), len);
    close(fd);
    struct outcome o = parse("--config", path, flag, NULL);
    unlink(path);
    return o;
}

static struct outcome parse_text(const char *content, const char *flag)
{
    return parse_file(content, strlen(content), flag);
}

static void test_file(void **state)
{
    (void)state;
    struct outcome o = parse_text("# comment\n; comment\n\nport = 1234\n  memory=64M  \r\nbind = ::1\nbind = 127.0.0.2 ; why\n"
                                  "insecure = yes\nunix: /run/x\nlog-level = debug", NULL);
    assert_int_equal(o.result, CONFIG_RUN);
    assert_int_equal(o.config.port, 1234);
    assert_int_equal(o.config.memory_bytes, (size_t)64 << 20);
    assert_int_equal(o.config.bind_count, 2);
    assert_string_equal(o.config.binds[0], "::1");
    assert_string_equal(o.config.binds[1], "127.0.0.2");
    assert_string_equal(o.config.unix_paths[0], "/run/x");
    assert_true(o.config.insecure);
    assert_int_equal(o.config.log_level, LOG_LEVEL_DEBUG);
    config_fini(&o.config);
    o = parse_text("", NULL);
    assert_int_equal(o.result, CONFIG_RUN);
    assert_int_equal(o.config.port, CRAB_DEFAULT_PORT);
    config_fini(&o.config);
}

static void test_line_wins_over_file(void **state)
{
    (void)state;
    struct outcome o = parse_text("port = 1\nbind = ::1\nbind = 127.0.0.2\ninsecure = no\n", "--port=2");
    assert_int_equal(o.config.port, 2);
    assert_int_equal(o.config.bind_count, 2);
    config_fini(&o.config);
    o = parse_text("port = 1\nbind = ::1\nbind = 127.0.0.2\n", "--bind=127.0.0.3");
    assert_int_equal(o.config.port, 1);
    assert_int_equal(o.config.bind_count, 1);
    assert_string_equal(o.config.binds[0], "127.0.0.3");
    config_fini(&o.config);
    o = parse_text("insecure = no\nbind = 0.0.0.0\n", "--insecure");
    assert_int_equal(o.result, CONFIG_RUN);
    config_fini(&o.config);
}

static void test_bad_files(void **state)
{
    (void)state;
    const struct {
        const char *content, *where, *what;
    } cases[] = {
        {"port = 1\nprot = 2\n", ":2: ", "\"prot\": there is no such setting"},
        {"port = 1\n\nport = 1\n", ":3: ", "port: it was given before"},
        {"# x\nport = 65536\n", ":2: ", "\"65536\" is not allowed: it takes a number from 0 to 65535"},
        {"port =\n", ":1: ", "\"\" is not allowed"},
        {"port\nprot = 1\n", ":1: ", "this is no `name = value`"},
        {"[server]\nport = 1\n", ":1: ", "sections"},
        {"  [server]\n", ":1: ", "sections"},
        {"\xef\xbb\xbf[server]\nport = 1\n", ":2: ", "sections"},
        {"config = /x\n", ":1: ", "no such setting"},
        {"help = yes\n", ":1: ", "no such setting"},
        {"check-config = yes\n", ":1: ", "no such setting"},
        {"insecure = 1\n", ":1: ", "yes or no"},
        {"--port = 1\n", ":1: ", "no such setting"},
        {"Port = 1\n", ":1: ", "no such setting"},
        {"port = 1\n  2\n", ":2: ", "this is no `name = value`"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome o = parse_text(cases[i].content, NULL);
        assert_int_equal(o.result, CONFIG_WRONG);
        assert_non_null(strstr(o.message, cases[i].where));
        assert_non_null(strstr(o.message, cases[i].what));
        config_fini(&o.config);
    }
    struct outcome o = parse_file("port = 1\0\n", 10, NULL);
    assert_int_equal(o.result, CONFIG_WRONG);
    assert_non_null(strstr(o.message, ":1: "));
    config_fini(&o.config);
}

static void test_limits_of_files(void **state)
{
    (void)state;
    char line[CONFIG_FILE_COLUMNS + 3] = "auth-file = ";
    memset(line + strlen(line), 'x', CONFIG_FILE_COLUMNS - strlen(line));
    line[CONFIG_FILE_COLUMNS] = '\n';
    struct outcome o = parse_text(line, NULL);
    assert_int_equal(o.result, CONFIG_RUN);
    assert_int_equal(strlen(o.config.auth_file), CONFIG_FILE_COLUMNS - strlen("auth-file = "));
    config_fini(&o.config);
    line[CONFIG_FILE_COLUMNS] = 'x';
    line[CONFIG_FILE_COLUMNS + 1] = '\n';
    o = parse_text(line, NULL);
    assert_int_equal(o.result, CONFIG_WRONG);
    assert_non_null(strstr(o.message, ":1: the line is longer than 197 bytes"));
    config_fini(&o.config);

    static char empty[CONFIG_FILE_LINES + 1];
    memset(empty, '\n', sizeof empty);
    o = parse_file(empty, CONFIG_FILE_LINES, NULL);
    assert_int_equal(o.result, CONFIG_RUN);
    config_fini(&o.config);
    o = parse_file(empty, CONFIG_FILE_LINES + 1, NULL);
    assert_int_equal(o.result, CONFIG_WRONG);
    assert_non_null(strstr(o.message, ":10001: the file has more than 10000 lines"));
    config_fini(&o.config);
}

static void test_files_that_cannot_be_read(void **state)
{
    (void)state;
    struct outcome o = parse("--config", "/nonexistent/file", NULL);
    assert_int_equal(o.result, CONFIG_WRONG);
    assert_non_null(strstr(o.message, "/nonexistent/file"));
    assert_non_null(strstr(o.message, "No such file"));
    assert_int_equal(parse("--config", "/", NULL).result, CONFIG_WRONG);
    o = parse("--config", "/dev/null", "--config", "/dev/null", NULL);
    assert_int_equal(o.result, CONFIG_WRONG);
    assert_non_null(strstr(o.message, "only once"));
    assert_int_equal(parse("--config", "/dev/null", "--check-config", NULL).result, CONFIG_CHECK);
    assert_int_equal(parse("--check-config", "--port", "x", NULL).result, CONFIG_WRONG);
    assert_int_equal(parse("--config", "/nonexistent/file", "--help", NULL).result, CONFIG_HELP);
}

/* A long value does not overflow the message. */
static void test_long_values(void **state)
{
    (void)state;
    static char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    struct outcome o = parse("--port", longest, NULL);
    assert_int_equal(o.result, CONFIG_WRONG);
    assert_non_null(strstr(o.message, "0 to 65535"));
    assert_int_equal(parse(longest, NULL).result, CONFIG_WRONG);
}

static void test_help_and_version(void **state)
{
    (void)state;
    assert_int_equal(parse("--help", "--nothing", NULL).result, CONFIG_HELP);
    assert_int_equal(parse("--version", NULL).result, CONFIG_VERSION);
    assert_non_null(strstr(config_help(), "--memory"));
}

static void test_buffer_share(void **state)
{
    (void)state;
    assert_int_equal(config_buffer_bytes((size_t)8 << 20), 1 << 20);
    assert_int_equal(config_buffer_bytes((size_t)80 << 20), 10 << 20);
    assert_int_equal(config_buffer_bytes((size_t)1 << 40), 160 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),         cmocka_unit_test(test_everything),
        cmocka_unit_test(test_limits_of_values), cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bad_flags),        cmocka_unit_test(test_too_many_binds),
        cmocka_unit_test(test_long_values),      cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_buffer_share),     cmocka_unit_test(test_unix_paths),
        cmocka_unit_test(test_open_addresses),   cmocka_unit_test(test_file),
        cmocka_unit_test(test_line_wins_over_file), cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_limits_of_files),  cmocka_unit_test(test_files_that_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
