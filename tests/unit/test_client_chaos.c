/* SPDX-License-Identifier: MIT */
/*
 * Pipelines of all messages against a server that dies, falls silent, lies or loses step, at each byte and at random.
 *
 * CRAB_CHAOS_RUNS is how many random runs there are (3,000), CRAB_CHAOS_SEED where they begin; `make chaos-client` does a million.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/counting.h"
#include "tests/support/story.h"

#define RUNS 3000U

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

/* One of each message; the fault at each byte of the replies, and behind the last. */
static void at_each_byte(enum story_fault fault, size_t step)
{
    size_t files = open_files();
    for (unsigned way = 0; way < 4; way++) {
        struct story_plan plan = {.fault = fault, .events = (way & 1) != 0, .tags = (way & 2) != 0};
        size_t len = 1;
        for (plan.at = 0; plan.at <= len; plan.at += step) {
            plan.seed = plan.at;
            size_t now = story_run(&plan);
            len = plan.at == 0 ? now + 100 : len; /* a lost reply makes it shorter */
        }
    }
    assert_int_equal(open_files(), files);
}

static void no_fault_at_all(void **state)
{
    (void)state;
    at_each_byte(STORY_NONE, 100);
}

static void an_end_at_each_byte(void **state)
{
    (void)state;
    at_each_byte(STORY_END, 1);
}

static void a_reset_at_each_byte(void **state)
{
    (void)state;
    at_each_byte(STORY_RESET, 1);
}

static void silence_at_each_byte(void **state)
{
    (void)state;
    at_each_byte(STORY_SILENCE, 1);
}

static void cancelled_at_each_byte(void **state)
{
    (void)state;
    at_each_byte(STORY_CANCEL, 1);
}

static void each_byte_corrupted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        at_each_byte(STORY_CORRUPT, 1);
}

static void each_reply_lost_or_doubled(void **state)
{
    (void)state;
    at_each_byte(STORY_LOST, 1);
    at_each_byte(STORY_TWICE, 1);
}

static void random_runs(void **state)
{
    uint64_t runs = setting("CRAB_CHAOS_RUNS", RUNS);
    uint64_t seed = setting("CRAB_CHAOS_SEED", 1);
    size_t files = open_files();
    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        uint64_t x = (seed + i) * 0x9e3779b97f4a7c15U;
        x ^= x >> 29;
        x *= 0xbf58476d1ce4e5b9U;
        x ^= x >> 32;
        struct story_plan plan = {.seed = x,
                                  .steps = 1 + (unsigned)(x >> 8) % STORY_STEPS,
                                  .fault = (enum story_fault)((x >> 16) % STORY_FAULTS),
                                  .events = (x & 1) != 0,
                                  .tags = (x & 2) != 0};
        if (plan.fault == STORY_SILENCE && x % 32 != 0) /* these take their time */
            plan.fault = STORY_END;
        plan.at = (size_t)(x >> 24) % ((x & 4) != 0 ? 400 : 8000);
        (void)story_run(&plan);
        if ((i + 1) % 100000 == 0)
            print_message("%llu runs\n", (unsigned long long)(i + 1));
    }
    assert_int_equal(open_files(), files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_fault_at_all),        cmocka_unit_test(an_end_at_each_byte),
        cmocka_unit_test(a_reset_at_each_byte),   cmocka_unit_test(silence_at_each_byte),
        cmocka_unit_test(cancelled_at_each_byte), cmocka_unit_test(each_byte_corrupted),
        cmocka_unit_test(each_reply_lost_or_doubled), cmocka_unit_test(random_runs),
    };
    return cmocka_run_group_tests_name("client_chaos", tests, NULL, NULL);
}
