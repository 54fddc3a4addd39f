/* SPDX-License-Identifier: MIT */
/*
 * Whether workers that stand still are seen, and only they.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/health.h"
#include "server/log.h"

#define STEP_MS 500

struct scene {
    struct stats stats;
    struct health health;
    struct log log;
    int read_fd;
    uint64_t now_ms;
};

static void start(struct scene *s)
{
    int fds[2];
    memset(s, 0, sizeof *s);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(stats_init(&s->stats, 3), 0);
    s->log = (struct log){.fd = fds[1], .level = LOG_LEVEL_INFO};
    s->read_fd = fds[0];
    s->now_ms = 1000000;
}

/* End a scene; its log must have these words, in this order, or be empty if they are NULL. */
static void finish(struct scene *s, const char *first, const char *second)
{
    char text[2000] = {0};
    close(s->log.fd);
    assert_true(read(s->read_fd, text, sizeof text - 1) >= 0);
    close(s->read_fd);
    stats_fini(&s->stats);
    if (first == NULL) {
        assert_string_equal(text, "");
        return;
    }
    const char *at = strstr(text, first);
    assert_non_null(at);
    assert_ptr_equal(strstr(at + 1, first), NULL);
    if (second != NULL)
        assert_non_null(strstr(at, second));
}

/* Go on for a while, with turns of all workers but one. Returns whether all was well at the end. */
static bool go_on(struct scene *s, uint64_t ms, unsigned stuck)
{
    bool good = false;
    for (uint64_t end = s->now_ms + ms; s->now_ms < end;) {
        s->now_ms += STEP_MS;
        for (unsigned i = 0; i < 3; i++) {
            if (i != stuck)
                stats_add(&s->stats.workers[i].wakeups, 1);
        }
        good = health_look(&s->health, &s->stats, &s->log, s->now_ms);
        assert_int_equal(good, s->health.good);
    }
    return good;
}

static void test_all_is_well(void **state)
{
    (void)state;
    struct scene s;
    start(&s);
    assert_true(go_on(&s, 100 * HEALTH_LATE_MS, UINT32_MAX));
    finish(&s, NULL, NULL);
}

static void test_one_is_stuck(void **state)
{
    (void)state;
    struct scene s;
    start(&s);
    assert_true(go_on(&s, 2000, UINT32_MAX));
    assert_true(go_on(&s, HEALTH_LATE_MS - STEP_MS, 1));
    assert_false(go_on(&s, STEP_MS, 1));
    assert_false(go_on(&s, 10 * HEALTH_LATE_MS, 1));
    assert_true(go_on(&s, STEP_MS, UINT32_MAX));
    assert_true(go_on(&s, 2 * HEALTH_LATE_MS, UINT32_MAX));
    finish(&s, "worker 1 has not had a turn", "worker 1 goes on");
}

static void test_stuck_from_the_start(void **state)
{
    (void)state;
    struct scene s;
    start(&s);
    assert_true(go_on(&s, HEALTH_LATE_MS, 2));
    assert_false(go_on(&s, STEP_MS, 2));
    finish(&s, "worker 2 has not had a turn", NULL);
}

/* When the whole process stood still, nobody is to blame. */
static void test_a_pause_of_everything(void **state)
{
    (void)state;
    struct scene s;
    start(&s);
    assert_true(go_on(&s, 2000, UINT32_MAX));
    s.now_ms += 100 * HEALTH_LATE_MS;
    assert_true(health_look(&s.health, &s.stats, &s.log, s.now_ms));
    assert_true(go_on(&s, 2 * HEALTH_LATE_MS, UINT32_MAX));
    finish(&s, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_well),
        cmocka_unit_test(test_one_is_stuck),
        cmocka_unit_test(test_stuck_from_the_start),
        cmocka_unit_test(test_a_pause_of_everything),
    };
    return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
