/* SPDX-License-Identifier: MIT */
/*
 * Histograms of times: which bucket a time is in, and what is said of them all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/latency.h"

/* Every time lies below the end of its bucket and not below that of the one before; the ends grow. */
static void test_buckets(void **state)
{
    (void)state;
    assert_int_equal(latency_bucket(0), 0);
    assert_int_equal(latency_bucket(63), 0);
    assert_int_equal(latency_bucket(64), 1);
    assert_int_equal(latency_bucket(((uint64_t)1 << LATENCY_LAST) - 1), LATENCY_BUCKETS - 2);
    assert_int_equal(latency_bucket((uint64_t)1 << LATENCY_LAST), LATENCY_BUCKETS - 1);
    assert_int_equal(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
    assert_int_equal(latency_end(LATENCY_BUCKETS - 2), (uint64_t)1 << LATENCY_LAST);
    for (unsigned i = 0; i + 1 < LATENCY_BUCKETS; i++) {
        assert_true(latency_end(i) < latency_end(i + 1));
        assert_int_equal(latency_bucket(latency_end(i) - 1), i);
        assert_int_equal(latency_bucket(latency_end(i)), i + 1);
    }
    for (unsigned i = 1; i + 1 < LATENCY_BUCKETS; i++) /* a quarter at the most */
        assert_true((latency_end(i) - latency_end(i - 1)) * 4 <= latency_end(i - 1));
}

static void test_shares(void **state)
{
    (void)state;
    static struct latency a, b;
    struct latency_sum sum = {.count = 0};
    assert_int_equal(latency_within(&sum, 0.5), 0);
    for (unsigned i = 0; i < 98; i++)
        latency_record(i % 2 == 0 ? &a : &b, 100);
    latency_record(&a, 5000);
    latency_record(&b, UINT64_MAX / 4);
    latency_add(&sum, &a);
    latency_add(&sum, &b);
    assert_int_equal(sum.count, 100);
    assert_int_equal(sum.sum_ns, 98 * 100 + 5000 + UINT64_MAX / 4);
    assert_int_equal(latency_within(&sum, 0), 112);
    assert_int_equal(latency_within(&sum, 0.5), 112);
    assert_int_equal(latency_within(&sum, 0.98), 112);
    assert_int_equal(latency_within(&sum, 0.99), 5120);
    assert_int_equal(latency_within(&sum, 0.999), (uint64_t)1 << LATENCY_LAST);
    assert_int_equal(latency_within(&sum, 1), (uint64_t)1 << LATENCY_LAST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_shares),
    };
    return cmocka_run_group_tests_name("latency", tests, NULL, NULL);
}
