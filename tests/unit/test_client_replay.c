/* SPDX-License-Identifier: MIT */
/*
 * The parts of crabcache-replay: values that prove themselves, the histogram, the table of keys, traces, Zipf streams.
 */
#include <lzma.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/load/histogram.h"
#include "client/replay/keys.h"
#include "client/replay/source.h"
#include "client/replay/value.h"

static void a_value_is_right_only_for_its_key_and_length(void **state)
{
    uint8_t value[100];
    uint64_t one = value_hash((const uint8_t *)"one", 3);
    uint64_t two = value_hash((const uint8_t *)"two", 3);
    (void)state;
    assert_true(value_is_right(one, value, 0));
    for (size_t len = 1; len <= sizeof value; len++) {
        value_fill(one, len, value);
        assert_true(value_is_right(one, value, len));
        for (size_t i = 0; i < len; i++) { /* each byte, each bit */
            value[i] ^= (uint8_t)(1U << (i % 8));
            assert_false(value_is_right(one, value, len));
            value[i] ^= (uint8_t)(1U << (i % 8));
        }
        if (len >= 8) {
            assert_false(value_is_right(two, value, len));
            assert_false(value_is_right(one, value, len - 1));
        }
    }
}

static void percentiles_are_right_to_two_percent(void **state)
{
    static struct histogram histogram, other;
    (void)state;
    assert_int_equal(histogram_percentile(&histogram, 0.5), 0);
    for (uint64_t i = 1; i <= 100000; i++)
        histogram_add(i % 2 == 0 ? &histogram : &other, i * 1000);
    histogram_merge(&histogram, &other);
    assert_int_equal(histogram.count, 100000);
    static const double shares[] = {0.0001, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0};
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        double exact = shares[i] * 1e8;
        double got = (double)histogram_percentile(&histogram, shares[i]);
        assert_true(got >= exact && got <= exact * 1.017);
    }
    assert_int_equal(histogram_percentile(&histogram, 1.0), 100000000);
    histogram_add(&histogram, 0);
    histogram_add(&histogram, UINT64_MAX);
    assert_true(histogram_percentile(&histogram, 1.0) == UINT64_MAX);
}

static void keys_keep_what_is_known_of_them(void **state)
{
    struct keys keys = {0};
    (void)state;
    for (uint64_t i = 1; i <= 20000; i++) {
        struct key_entry *entry = keys_find(&keys, i << 20); /* the low bits collide */
        assert_non_null(entry);
        assert_true(entry->length == KEYS_NEVER_PUT);
        entry->length = i;
    }
    assert_int_equal(keys.count, 20000);
    for (uint64_t i = 1; i <= 20000; i++)
        assert_int_equal(keys_find(&keys, i << 20)->length, i);
    assert_int_equal(keys.count, 20000);
    keys_fini(&keys);
}

/* ---- traces */

static char path[] = "/tmp/crabcache-trace-XXXXXX";

static void write_trace(const void *bytes, size_t len)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* Read the trace to its end: how many requests, the sum of the sizes; -1 with the error's text. */
static int read_trace(uint64_t *sum, char *error, size_t size)
{
    struct source *source = source_open_trace(path, error, size);
    struct request request;
    int count = 0;
    int found;
    *sum = 0;
    if (source == NULL)
        return -1;
    while ((found = source_next(source, &request)) == 1) {
        count++;
        *sum += request.value_bytes;
    }
    (void)snprintf(error, size, "%s", source_error(source));
    source_close(source);
    return found == 0 ? count : -1;
}

static void traces_are_read_with_and_without_header(void **state)
{
    static const struct {
        const char *text;
        int count;
        uint64_t sum;
        const char *error;
    } traces[] = {
        {"", 0, 0, ""},
        {"key,value_bytes\n", 0, 0, ""},
        {"key,value_bytes\na,1\nb,2\n", 2, 3, ""},
        {"a,1\nb,2", 2, 3, ""},
        {"key,value_bytes\r\na,1\r\nb,4294967295\r\n", 2, UINT64_C(4294967296), ""},
        {"a,b,3\n", 1, 3, ""},
        {"a,1\n\n", -1, 1, ":2: '' is not of the form"},
        {"a,1\nkey,value_bytes\n", -1, 1, ":2: value_bytes is 'value_bytes'"},
        {"a\n", -1, 0, ":1: 'a' is not of the form"},
        {",1\n", -1, 0, ":1: the key is empty"},
        {"a,\n", -1, 0, ":1: value_bytes is ''"},
        {"a,-1\n", -1, 0, ":1: value_bytes is '-1'"},
        {"a,4294967296\n", -1, 0, ":1: value_bytes is '4294967296'"},
        {"a,1 \n", -1, 0, ":1: value_bytes is '1 '"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof traces / sizeof traces[0]; i++) {
        char error[600] = "";
        uint64_t sum;
        write_trace(traces[i].text, strlen(traces[i].text));
        assert_int_equal(read_trace(&sum, error, sizeof error), traces[i].count);
        assert_int_equal(sum, traces[i].sum);
        assert_non_null(strstr(error, traces[i].error));
        if (traces[i].count < 0)
            assert_memory_equal(error, path, strlen(path)); /* file:line: first */
    }
}

static void long_keys_are_measured(void **state)
{
    char error[600];
    uint64_t sum;
    char *text = malloc(400000);
    (void)state;
    memset(text, 'k', 400000);
    memcpy(text + 65535, ",7\n", 3);
    write_trace(text, 65538);
    assert_int_equal(read_trace(&sum, error, sizeof error), 1);
    assert_int_equal(sum, 7);
    memset(text, 'k', 400000);
    memcpy(text + 65536, ",7\n", 3);
    write_trace(text, 65539);
    assert_int_equal(read_trace(&sum, error, sizeof error), -1);
    assert_non_null(strstr(error, "the key has 65536 bytes"));
    memset(text, 'k', 400000);
    write_trace(text, 400000);
    assert_int_equal(read_trace(&sum, error, sizeof error), -1);
    assert_non_null(strstr(error, ":1: the line is longer"));
    free(text);
}

static void xz_traces_are_decoded_or_refused(void **state)
{
    enum { LINES = 200000 };
    char error[600];
    uint64_t sum;
    size_t text_len = 0;
    size_t xz_len = 0;
    char *text = malloc((size_t)LINES * 20);
    uint8_t *xz = malloc((size_t)LINES * 20);
    (void)state;
    for (unsigned i = 0; i < LINES; i++)
        text_len += (size_t)sprintf(text + text_len, "%u,%u\n", i * 2654435761U % 1000, i % 10);
    assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, NULL, (uint8_t *)text, text_len, xz, &xz_len,
                                             (size_t)LINES * 20),
                     LZMA_OK);
    write_trace(xz, xz_len);
    assert_int_equal(read_trace(&sum, error, sizeof error), LINES);
    assert_int_equal(sum, (uint64_t)LINES / 10 * 45);
    write_trace(xz, xz_len - 20);
    assert_int_equal(read_trace(&sum, error, sizeof error), -1);
    assert_non_null(strstr(error, "cut off"));
    xz[xz_len / 2] ^= 1;
    write_trace(xz, xz_len);
    assert_int_equal(read_trace(&sum, error, sizeof error), -1);
    assert_non_null(strstr(error, "damaged"));
    free(text);
    free(xz);
    (void)unlink(path);
    assert_null(source_open_trace(path, error, sizeof error));
    assert_non_null(strstr(error, "No such file"));
}

/* ---- Zipf */

static void zipf_streams_follow_the_law_and_the_seed(void **state)
{
    enum { KEYS = 50, DRAWS = 200000 };
    static const double exponents[] = {0.0, 0.5, 1.0, 1.3, 2.5};
    (void)state;
    for (size_t e = 0; e < sizeof exponents / sizeof exponents[0]; e++) {
        struct zipf_options options = {
            .exponent = exponents[e], .keys = KEYS, .requests = DRAWS, .seed = 5, .least = 10, .most = 20};
        struct source *source = source_open_zipf(&options);
        struct source *again = source_open_zipf(&options);
        struct request request, same;
        unsigned counts[KEYS + 1] = {0};
        uint32_t sizes[KEYS + 1] = {0};
        double norm = 0.0;
        while (source_next(source, &request) == 1) {
            assert_int_equal(source_next(again, &same), 1);
            assert_int_equal(same.key_len, request.key_len);
            assert_memory_equal(same.key, request.key, same.key_len);
            unsigned long rank = strtoul((const char *)request.key + 5, NULL, 10);
            assert_true(rank >= 1 && rank <= KEYS);
            assert_true(request.value_bytes >= 10 && request.value_bytes <= 20);
            assert_true(sizes[rank] == 0 || sizes[rank] == request.value_bytes);
            sizes[rank] = request.value_bytes;
            counts[rank]++;
        }
        assert_int_equal(source_next(again, &same), 0);
        for (unsigned k = 1; k <= KEYS; k++)
            norm += pow(k, -exponents[e]);
        for (unsigned k = 1; k <= KEYS; k++) { /* within six standard deviations */
            double expected = DRAWS * pow(k, -exponents[e]) / norm;
            assert_true(fabs(counts[k] - expected) < 6.0 * sqrt(expected) + 1.0);
        }
        source_close(source);
        source_close(again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_right_only_for_its_key_and_length),
        cmocka_unit_test(percentiles_are_right_to_two_percent),
        cmocka_unit_test(keys_keep_what_is_known_of_them),
        cmocka_unit_test(traces_are_read_with_and_without_header),
        cmocka_unit_test(long_keys_are_measured),
        cmocka_unit_test(xz_traces_are_decoded_or_refused),
        cmocka_unit_test(zipf_streams_follow_the_law_and_the_seed),
    };
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    (void)close(fd);
    int failed = cmocka_run_group_tests_name("client_replay", tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
