/* SPDX-License-Identifier: MIT */
/*
 * Budgets of failed AUTHs: how many at once, how fast they come back, whom failures of others touch and whom not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/throttle.h"

#define SEED 12345
#define START_MS 1000000U

static struct throttle *make(unsigned per_minute)
{
    struct throttle *t = malloc(sizeof *t);
    assert_non_null(t);
    throttle_init(t, SEED, per_minute);
    return t;
}

static bool attempt(struct throttle *t, uint64_t source, const char *user, uint64_t now_ms, bool good)
{
    struct throttle_attempt charge;
    if (!throttle_enter(t, source, (const uint8_t *)user, strlen(user), now_ms, &charge))
        return false;
    if (good)
        throttle_succeeded(t, &charge, now_ms);
    return true;
}

/* How many of a thousand failing attempts are let through. */
static unsigned passing(struct throttle *t, uint64_t source, const char *user, uint64_t now_ms)
{
    unsigned count = 0;
    for (int i = 0; i < 1000; i++)
        count += attempt(t, source, user, now_ms, false);
    return count;
}

static void test_budget(void **state)
{
    (void)state;
    const unsigned budgets[] = {1, 7, 30, 999};
    for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
        struct throttle *t = make(budgets[i]);
        assert_int_equal(passing(t, 1, "a", START_MS), budgets[i]);
        uint64_t interval = (60000 + budgets[i] - 1) / budgets[i];
        assert_false(attempt(t, 1, "a", START_MS + interval - 1, false));
        assert_true(attempt(t, 1, "a", START_MS + interval, false));
        assert_false(attempt(t, 1, "a", START_MS + interval, false));
        /* It is full again after a minute (and what rounding adds), and holds no more than before. */
        assert_int_equal(passing(t, 1, "a", START_MS + 10 * 60000), budgets[i]);
        free(t);
    }
}

static void test_the_most_and_none(void **state)
{
    (void)state;
    struct throttle *t = make(60000);
    assert_int_equal(passing(t, 1, "a", START_MS), 1000);
    free(t);
    t = make(0);
    for (int i = 0; i < 200; i++)
        assert_int_equal(passing(t, 1, "a", START_MS), 1000);
    assert_true(attempt(t, 1, "a", START_MS, true));
    free(t);
}

static void test_success_costs_nothing(void **state)
{
    (void)state;
    struct throttle *t = make(5);
    for (int i = 0; i < 10000; i++)
        assert_true(attempt(t, 1, "a", START_MS, true));
    for (int i = 0; i < 4; i++)
        assert_true(attempt(t, 1, "b", START_MS, false));
    assert_true(attempt(t, 1, "b", START_MS, true)); /* the first success of a user is given back to the source */
    assert_true(attempt(t, 1, "c", START_MS, false));
    assert_false(attempt(t, 1, "d", START_MS, false));
    free(t);
}

/* The user's name makes no difference before a success: neither a lock-out by name nor a list of names to be learnt. */
static void test_names_share_the_budget(void **state)
{
    (void)state;
    struct throttle *t = make(10);
    char name[16];
    unsigned passed = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "user%d", i);
        passed += attempt(t, 1, name, START_MS, false);
    }
    assert_int_equal(passed, 10);
    assert_int_equal(passing(t, 2, "user1", START_MS), 10);
    free(t);
}

static void test_known_users_are_not_locked_out(void **state)
{
    (void)state;
    struct throttle *t = make(10);
    assert_true(attempt(t, 1, "alice", START_MS, true));
    assert_int_equal(passing(t, 1, "bob", START_MS), 10);
    assert_int_equal(passing(t, 1, "carol", START_MS), 0);
    assert_true(attempt(t, 1, "alice", START_MS, true));
    assert_int_equal(passing(t, 1, "alice", START_MS), 10); /* a budget of her own, and no more than that */
    assert_false(attempt(t, 1, "alice", START_MS, true));
    assert_true(attempt(t, 1, "alice", START_MS + 6000, true));
    assert_int_equal(passing(t, 2, "alice", START_MS), 10); /* known from one source is not known from another */
    free(t);
}

/* Memory is fixed: whoever owes much stays remembered, however many others come once. */
static void test_a_flood_of_sources(void **state)
{
    (void)state;
    struct throttle *t = make(30);
    assert_int_equal(passing(t, 1, "a", START_MS), 30);
    for (uint64_t source = 2; source < 200000; source++)
        assert_true(attempt(t, source, "a", START_MS, false));
    assert_false(attempt(t, 1, "a", START_MS, false));
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_the_most_and_none),
        cmocka_unit_test(test_success_costs_nothing),
        cmocka_unit_test(test_names_share_the_budget),
        cmocka_unit_test(test_known_users_are_not_locked_out),
        cmocka_unit_test(test_a_flood_of_sources),
    };
    return cmocka_run_group_tests_name("throttle", tests, NULL, NULL);
}
