/* SPDX-License-Identifier: MIT */
/*
 * URIs: what they say, every limit at its edge, every mistake; cut off and changed at every byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/uri.h"

static struct uri parsed;
static char why[200];

static bool parse(const char *text)
{
    why[0] = '\0';
    /* A heap block of exactly this length, so that AddressSanitizer sees a read past its end. */
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, text, size);
    bool good = uri_parse(copy, &parsed, why, sizeof why);
    free(copy);
    assert_int_equal(good, why[0] == '\0');
    return good;
}

static void good_ones_are_understood(void **state)
{
    (void)state;
    assert_true(parse("crab://localhost"));
    assert_int_equal(parsed.count, 1);
    assert_string_equal(parsed.servers[0].host, "localhost");
    assert_int_equal(parsed.servers[0].port, CRAB_DEFAULT_PORT);
    assert_null(parsed.user);
    assert_true(parse("CRAB://me%40home@a:1,[::1]:65535,[fe80::1%25eth0],b.example/?timeout=7&connect_timeout=8&connections=16"
                      "&retries=0&max_in_flight=65536&weights=1,2,3,1000&distribution=rendezvous&eject=1&tags=0"
                      "&secret_file=/run/a%26b&client_name=x%20y"));
    assert_string_equal(parsed.user, "me@home");
    assert_int_equal(parsed.count, 4);
    assert_string_equal(parsed.servers[0].host, "a");
    assert_int_equal(parsed.servers[0].port, 1);
    assert_string_equal(parsed.servers[1].host, "::1");
    assert_int_equal(parsed.servers[1].port, 65535);
    assert_string_equal(parsed.servers[2].host, "fe80::1%eth0");
    assert_string_equal(parsed.servers[3].host, "b.example");
    assert_int_equal(parsed.servers[3].weight, 1000);
    assert_int_equal(parsed.timeout_ms, 7);
    assert_int_equal(parsed.connect_timeout_ms, 8);
    assert_int_equal(parsed.connections, 16);
    assert_int_equal(parsed.max_in_flight, 65536);
    assert_int_equal(parsed.distribution, CRAB_RENDEZVOUS);
    assert_true(parsed.eject);
    assert_false(parsed.tags);
    assert_true(uri_gives(&parsed, URI_RETRIES) && uri_gives(&parsed, URI_TAGS));
    assert_string_equal(parsed.secret_file, "/run/a&b");
    assert_string_equal(parsed.client_name, "x y");
    assert_true(parse("crab+unix:///run/crab%3fcache.sock?timeout=4294967295"));
    assert_string_equal(parsed.servers[0].host, "/run/crab?cache.sock");
    assert_int_equal(parsed.servers[0].port, 0);
    assert_true(parse("crab+unix://me@/s"));
    assert_string_equal(parsed.user, "me");
    assert_true(parse("crab://127.0.0.1/"));
}

static void bad_ones_are_refused(void **state)
{
    static const char *const bad[] = {
        "", "crab", "crab:", "crab:/a", "redis://a", "crab://", "crab:///", "crab://?timeout=1", "crab://a,", "crab://,a",
        "crab://a,,b", "crab://a:", "crab://a:0", "crab://a:65536", "crab://a:-1", "crab://a:1x", "crab://a:99999999999",
        "crab://a b", "crab://a\tb", "crab://a%", "crab://a%2", "crab://a%zz", "crab://a%00b", "crab://a%0ab", "crab://a%2fb",
        "crab://[::1", "crab://[]", "crab://[1.2.3.4]", "crab://[::1]x", "crab://[::1%25]", "crab://[::1]:", "crab://::1",
        "crab://me:secret@a", "crab://@a", "crab://a/b", "crab://a#b", "crab://a?", "crab://a?x", "crab://a?x=1",
        "crab://a?timeout", "crab://a?timeout=", "crab://a?timeout=0", "crab://a?timeout=4294967296", "crab://a?timeout=1s",
        "crab://a?timeout=1&", "crab://a?timeout=1&timeout=2", "crab://a?timeout=1#x", "crab://a?connections=0",
        "crab://a?connections=17", "crab://a?retries=1001", "crab://a?max_in_flight=65537", "crab://a?weights=0",
        "crab://a?weights=1001", "crab://a,b?weights=1", "crab://a?weights=1,2", "crab://a?weights=1,", "crab://a?eject=2",
        "crab://a?eject=yes", "crab://a?distribution=modulo", "crab://a?secret_file=", "crab://a?client_name=%",
        "crab+unix://", "crab+unix://a", "crab+unix://?timeout=1", "crab+unix:///a%", "crab+unix:///a#b",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i]))
            fail_msg("taken for good: %s", bad[i]);
        assert_non_null(strstr(why, "at byte"));
    }
    assert_false(parse("crab://me:secret@a"));
    assert_null(strstr(why, "secret@")); /* it goes to logs */
}

/* `count` times the same text between a head and a tail. */
static bool repeated(const char *head, const char *text, size_t count, const char *tail)
{
    size_t size = strlen(head) + strlen(text) * count + strlen(tail) + 1;
    char *uri = malloc(size);
    assert_non_null(uri);
    char *at = uri + sprintf(uri, "%s", head);
    for (size_t i = 0; i < count; i++)
        at += sprintf(at, "%s", text);
    (void)sprintf(at, "%s", tail);
    bool good = parse(uri);
    free(uri);
    return good;
}

static void limits_hold_at_their_edges(void **state)
{
    (void)state;
    assert_true(repeated("crab://a", ",a", CRAB_MAX_SERVERS - 1, ""));
    assert_false(repeated("crab://a", ",a", CRAB_MAX_SERVERS, ""));
    assert_true(repeated("crab://", "h", URI_MAX_HOST, ""));
    assert_false(repeated("crab://", "h", URI_MAX_HOST + 1, ""));
    assert_true(repeated("crab://", "u", CRAB_MAX_USER, "@a"));
    assert_false(repeated("crab://", "u", CRAB_MAX_USER + 1, "@a"));
    assert_true(repeated("crab://a?client_name=", "n", CRAB_MAX_CLIENT_NAME, ""));
    assert_false(repeated("crab://a?client_name=", "n", CRAB_MAX_CLIENT_NAME + 1, ""));
    assert_true(repeated("crab+unix:///", "p", CRAB_MAX_URI - 13, ""));
    assert_false(repeated("crab+unix:///", "p", CRAB_MAX_URI - 12, ""));
    assert_true(repeated("crab+unix:///", "%61", (CRAB_MAX_URI - 13) / 3, ""));
}

/* Whatever it is, it is read to its end and no further. */
static void anything_may_come(void **state)
{
    static const char model[] = "crab://me%40@a:1,[fe80::1%25e]:2,b?timeout=7&weights=1,2,3&secret_file=%2fx&eject=1";
    static const char bytes[] = "%@:,/?#[]&=a0\x01\x80 ";
    char text[sizeof model];
    (void)state;
    for (size_t cut = 0; cut < sizeof model; cut++) {
        memcpy(text, model, cut);
        text[cut] = '\0';
        (void)parse(text);
    }
    for (size_t at = 0; at < sizeof model - 1; at++) {
        for (size_t i = 0; i < sizeof bytes - 1; i++) {
            memcpy(text, model, sizeof model);
            text[at] = bytes[i];
            (void)parse(text);
        }
    }
    unsigned seed = 1;
    for (unsigned round = 0; round < 200000; round++) {
        size_t len = (size_t)snprintf(text, sizeof text, "crab://");
        size_t end = len + (size_t)rand_r(&seed) % 30;
        while (len < end)
            text[len++] = bytes[(size_t)rand_r(&seed) % (sizeof bytes - 1)];
        text[len] = '\0';
        (void)parse(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_ones_are_understood),
        cmocka_unit_test(bad_ones_are_refused),
        cmocka_unit_test(limits_hold_at_their_edges),
        cmocka_unit_test(anything_may_come),
    };
    return cmocka_run_group_tests_name("uri", tests, NULL, NULL);
}
