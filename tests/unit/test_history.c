/* SPDX-License-Identifier: MIT */
/*
 * The check of histories (tests/support/history.h) on histories made by hand: it must accept those that some order
 * explains, and reject those that none does. What it says of the store is in test_store_history.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/history.h"

#define MOST 16U

/* thread, called, returned; then what was called and answered. The clock stands at 100 unless it is said. */
#define OP(t, from, to, what, answer, ...)                                                                             \
    {.thread = (t), .called = (from), .returned = (to), .kind = HISTORY_##what, .result = STORE_##answer,              \
     .clock_before = 100, .clock_after = 100, .ttl = STORE_NEVER, .left = STORE_NEVER, __VA_ARGS__}
#define GET(t, from, to, value)       OP(t, from, to, GET, OK, .seen = (value))
#define MISS(t, from, to)             OP(t, from, to, GET, ABSENT, .seen = 0)
#define PUT(t, from, to, value)       OP(t, from, to, PUT, OK, .written = (value))
#define DEL(t, from, to, answer)      OP(t, from, to, DELETE, answer, .written = 0)
#define AT(before, after)             .clock_before = (before), .clock_after = (after)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
#ifdef __clang__
#pragma clang diagnostic ignored "-Winitializer-overrides"
#endif

struct example {
    const char *name;
    bool evicts;
    struct history_op ops[MOST];
};

static const struct example good[] = {
    {.name = "nothing at all"},
    {.name = "one after the other",
     .ops = {MISS(0, 1, 2), PUT(0, 3, 4, 10), GET(1, 5, 6, 10), PUT(1, 7, 8, 20), GET(0, 9, 10, 20), DEL(0, 11, 12, OK),
             DEL(0, 13, 14, ABSENT), MISS(1, 15, 16)}},
    {.name = "a read beside a write sees the old or the new value",
     .ops = {PUT(0, 1, 2, 10), PUT(0, 3, 20, 20), GET(1, 4, 5, 10), GET(2, 6, 7, 20), GET(1, 8, 9, 20)}},
    {.name = "a write that takes place before another that was called earlier",
     .ops = {PUT(0, 1, 10, 10), PUT(1, 2, 9, 20), GET(2, 11, 12, 10)}},
    {.name = "the same, the other way round", .ops = {PUT(0, 1, 10, 10), PUT(1, 2, 9, 20), GET(2, 11, 12, 20)}},
    {.name = "one of two adds that overlap",
     .ops = {OP(0, 1, 10, ADD, EXISTS, .written = 11), OP(1, 2, 9, ADD, OK, .written = 21), GET(2, 11, 12, 21)}},
    {.name = "numbers",
     .ops = {OP(0, 1, 2, INCR, ABSENT, .delta = 2), OP(0, 3, 4, INCR, OK, .written = 10, .delta = 2, .seen = 10),
             OP(0, 5, 10, INCR, OK, .delta = 2, .seen = 16), OP(1, 6, 9, INCR, OK, .delta = 4, .seen = 14),
             PUT(0, 11, 12, 21), OP(0, 13, 14, INCR, NOT_A_NUMBER, .delta = 2)}},
    {.name = "compare and swap",
     .ops = {OP(0, 1, 2, CAS, ABSENT, .written = 31, .expected = 11), PUT(0, 3, 4, 11),
             OP(0, 5, 6, CAS, OK, .written = 31, .expected = 11), OP(1, 7, 8, CAS, EXISTS, .written = 41, .expected = 11),
             OP(1, 9, 10, REPLACE, OK, .written = 51), GET(0, 11, 12, 51)}},
    {.name = "refused writes change nothing",
     .ops = {PUT(0, 1, 2, 11), OP(0, 3, 4, PUT, NO_MEMORY, .written = 21), GET(0, 5, 6, 11)}},
    {.name = "a miss when the time has come",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .ttl = 5), OP(0, 3, 4, GET, OK, .seen = 10, .left = 1, AT(104, 104)),
             OP(0, 5, 6, GET, ABSENT, AT(104, 105)), OP(0, 7, 8, DELETE, ABSENT, AT(105, 105))}},
    {.name = "a new time to live",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .ttl = 5), OP(0, 3, 4, TOUCH, OK, .seen = 10, .ttl = 50, AT(104, 104)),
             OP(0, 5, 6, GET, OK, .seen = 10, .left = 40, AT(114, 114)), OP(0, 7, 8, EXPIRE, OK, AT(114, 114)),
             OP(0, 9, 10, GET, OK, .seen = 10, AT(500, 500))}},
    {.name = "flushed", .ops = {PUT(0, 1, 2, 10), OP(1, 3, 8, FLUSH, OK), GET(0, 4, 5, 10), MISS(0, 6, 7)}},
    {.name = "evicted", .evicts = true, .ops = {PUT(0, 1, 2, 10), MISS(0, 3, 4), OP(0, 5, 6, ADD, OK, .written = 20)}},
    {.name = "versions", .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .version = 7), OP(1, 3, 4, GET, OK, .seen = 10, .version = 7)}},
};

static const struct example bad[] = {
    {.name = "a value that nobody wrote", .ops = {PUT(0, 1, 2, 10), GET(1, 3, 4, 20)}},
    {.name = "a value from nowhere", .ops = {GET(1, 3, 4, 20)}},
    {.name = "a stale read", .ops = {PUT(0, 1, 2, 10), PUT(0, 3, 4, 20), GET(1, 5, 6, 10)}},
    {.name = "the new value, then the old one",
     .ops = {PUT(0, 1, 2, 10), PUT(0, 3, 20, 20), GET(1, 4, 5, 20), GET(2, 6, 7, 10)}},
    {.name = "the old value comes back by an eviction", .evicts = true,
     .ops = {PUT(0, 1, 2, 10), PUT(0, 3, 4, 20), MISS(0, 5, 6), GET(0, 7, 8, 10)}},
    {.name = "evicted, and there again", .evicts = true, .ops = {PUT(0, 1, 2, 10), MISS(0, 3, 4), GET(0, 5, 6, 10)}},
    {.name = "lost", .ops = {PUT(0, 1, 2, 10), MISS(1, 3, 4)}},
    {.name = "deleted, and there again", .ops = {PUT(0, 1, 2, 10), DEL(1, 3, 4, OK), GET(0, 5, 6, 10)}},
    {.name = "deleted twice", .ops = {PUT(0, 1, 2, 10), DEL(1, 3, 8, OK), DEL(0, 4, 9, OK)}},
    {.name = "both of two adds", .ops = {OP(0, 1, 10, ADD, OK, .written = 11), OP(1, 2, 9, ADD, OK, .written = 21)}},
    {.name = "neither of two adds",
     .ops = {OP(0, 1, 10, ADD, EXISTS, .written = 11), OP(1, 2, 9, ADD, EXISTS, .written = 21)}},
    {.name = "a replacement of nothing", .ops = {OP(0, 1, 2, REPLACE, OK, .written = 11)}},
    {.name = "two swaps of one version",
     .ops = {PUT(0, 1, 2, 11), OP(0, 3, 10, CAS, OK, .written = 21, .expected = 11),
             OP(1, 4, 9, CAS, OK, .written = 31, .expected = 11)}},
    {.name = "a swap that should have been", .ops = {PUT(0, 1, 2, 11), OP(0, 3, 4, CAS, EXISTS, .written = 21, .expected = 11)}},
    {.name = "a lost addition",
     .ops = {PUT(0, 1, 2, 10), OP(0, 3, 10, INCR, OK, .delta = 2, .seen = 12), OP(1, 4, 9, INCR, OK, .delta = 2, .seen = 12)}},
    {.name = "an addition to no number", .ops = {PUT(0, 1, 2, 11), OP(0, 3, 4, INCR, OK, .delta = 2, .seen = 13)}},
    {.name = "a refused write that was not",
     .ops = {PUT(0, 1, 2, 11), OP(0, 3, 4, PUT, NO_MEMORY, .written = 21), GET(0, 5, 6, 21)}},
    {.name = "a refused read", .ops = {OP(0, 1, 2, GET, NO_MEMORY)}},
    {.name = "a miss before the time has come",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .ttl = 5), OP(0, 3, 4, GET, ABSENT, AT(104, 104))}},
    {.name = "a hit when the time has come",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .ttl = 5), OP(0, 3, 4, GET, OK, .seen = 10, .left = 1, AT(105, 106))}},
    {.name = "a wrong time to live",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .ttl = 5), OP(0, 3, 4, GET, OK, .seen = 10, .left = 5, AT(101, 101))}},
    {.name = "a time to live lost",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .ttl = 5), OP(0, 3, 4, GET, OK, .seen = 10, AT(101, 101))}},
    {.name = "renewed, but expired",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .ttl = 5), OP(0, 3, 4, EXPIRE, OK, .ttl = 50, AT(104, 104)),
             OP(0, 5, 6, GET, ABSENT, AT(106, 106))}},
    {.name = "a hit after a flush", .ops = {PUT(0, 1, 2, 10), OP(1, 3, 4, FLUSH, OK), GET(0, 5, 6, 10)}},
    {.name = "two versions", .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .version = 7), OP(1, 3, 4, GET, OK, .seen = 10, .version = 8)}},
    {.name = "one version of two values",
     .ops = {OP(0, 1, 2, PUT, OK, .written = 10, .version = 7), OP(0, 3, 4, PUT, OK, .written = 12, .version = 7)}},
    {.name = "a thread in two places", .ops = {PUT(0, 1, 3, 10), PUT(0, 2, 4, 12)}},
    {.name = "a return before its call", .ops = {PUT(0, 3, 2, 10)}},
};

#pragma GCC diagnostic pop

/* Also backwards: the order in which operations are handed over must not matter. */
static void check(const struct example *example, bool expected)
{
    struct history_rules rules = {.evicts = example->evicts, .refuses = true};
    struct history_op ops[MOST], backwards[MOST];
    size_t count = 0, at = MOST;
    while (count < MOST && example->ops[count].returned != 0)
        count++;
    for (size_t i = 0; i < count; i++) {
        ops[i] = example->ops[i];
        backwards[count - 1 - i] = example->ops[i];
    }
    const char *wrong = history_check(ops, count, &rules, &at);
    assert_true((history_check(backwards, count, &rules, &at) == NULL) == (wrong == NULL));
    if (expected != (wrong == NULL)) {
        if (wrong != NULL)
            history_print(stderr, ops, count, at);
        fail_msg("%s: %s", example->name, wrong == NULL ? "accepted" : wrong);
    }
}

static void test_good_histories_are_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        check(&good[i], true);
}

static void test_bad_histories_are_rejected(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check(&bad[i], false);
}

/* As many threads as may be, all at once: many orders, one of which is right. */
static void test_many_overlapping_operations(void **state)
{
    (void)state;
    struct history_rules rules = {.evicts = false};
    struct history_op ops[8] = {{.thread = 0}};
    size_t at;
    for (unsigned last = 0; last < 2; last++) {
        for (unsigned i = 0; i < 8; i++)
            ops[i] = (struct history_op)OP(i, 1 + i, 100 - i, INCR, OK, .written = 10, .delta = 2U << i);
        uint64_t value = 10;
        ops[5].seen = value; /* Some order: 5 creates, then 3, 7, 0, 1, 6, 2, 4. */
        static const unsigned order[] = {3, 7, 0, 1, 6, 2, 4};
        for (unsigned i = 0; i < 7; i++)
            ops[order[i]].seen = value += ops[order[i]].delta;
        ops[4].seen += last;
        assert_true((history_check(ops, 8, &rules, &at) == NULL) == (last == 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_histories_are_accepted),
        cmocka_unit_test(test_bad_histories_are_rejected),
        cmocka_unit_test(test_many_overlapping_operations),
    };
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
