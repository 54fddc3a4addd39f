/* SPDX-License-Identifier: MIT */
/*
 * The command line: defaults, every good value at its limits, every bad one named with flag, value and what is allowed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "crabcache/wire.h"
#include "server/config.h"

#define MAX_ARGUMENTS 40

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
    assert_int_equal(o.config.bind_count, 1);
    assert_string_equal(o.config.binds[0], "127.0.0.1");
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
}

static void test_everything(void **state)
{
    (void)state;
    struct outcome o = parse("--bind", "::1", "--bind=127.0.0.2", "--port", "0", "--memory", "64m", "--threads", "32",
                             "--eviction", "none", "--max-value", "10K", "--auth-file", "users", "--log-level", "debug",
                             "--stall-timeout", "5", "--first-request-timeout", "6", "--idle-timeout", "7",
                             "--max-connections", "8", "--pin", "yes", NULL);
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
        cmocka_unit_test(test_buffer_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
