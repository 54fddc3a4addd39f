/* SPDX-License-Identifier: MIT */
/*
 * Who is late and who gives way: connections are put in order with made-up times, and the roster names them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/roster.h"

#define COUNT 100U
#define STALL 5000U
#define FIRST 7000U
#define IDLE 60000U

static const struct roster_times times = {.stall_ms = STALL, .first_ms = FIRST, .idle_ms = IDLE};

struct fixture {
    struct roster roster;
    struct conn conns[COUNT];
    uint8_t bytes[1];
    int pair[2];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    roster_init(&f->roster, &times);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, f->pair), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    close(f->pair[0]);
    close(f->pair[1]);
    free(f);
    return 0;
}

static struct conn *add(struct fixture *f, unsigned i, uint64_t now)
{
    struct conn *c = &f->conns[i];
    c->state = CONN_OPEN;
    c->fd = f->pair[0];
    c->opened_ms = now;
    roster_add(&f->roster, c, now);
    return c;
}

/* A turn at `now` after which it holds so much of half a frame. */
static void half_frame(struct fixture *f, struct conn *c, size_t held, uint64_t now)
{
    c->held = 10;
    c->in = (struct buf){held != 0 ? f->bytes : NULL, held};
    c->moved_ms = now;
    roster_place(&f->roster, c, true, now);
}

static struct conn *late(struct fixture *f, uint64_t now, enum roster_reason wanted)
{
    enum roster_reason reason = (enum roster_reason)99;
    struct conn *c = roster_late(&f->roster, now, &reason);
    if (c != NULL)
        assert_int_equal(reason, wanted);
    return c;
}

static void nobody_is_late_at_first(void **state)
{
    struct fixture *f = *state;
    assert_true(roster_is_empty(&f->roster));
    assert_null(late(f, 1000000, ROSTER_IDLE));
    add(f, 0, 1000);
    assert_false(roster_is_empty(&f->roster));
    assert_null(late(f, 1000 + FIRST - 1, ROSTER_IDLE));
    roster_remove(&f->conns[0]);
    assert_true(roster_is_empty(&f->roster));
}

static void the_first_request_has_a_deadline_that_bytes_do_not_move(void **state)
{
    struct fixture *f = *state;
    struct conn *slow = add(f, 0, 1000), *good = add(f, 1, 1000);
    roster_place(&f->roster, good, true, 1500);
    for (uint64_t now = 1000; now < 1000 + FIRST; now += 100) { /* a byte now and then */
        slow->held = 1;
        slow->moved_ms = now;
        roster_place(&f->roster, slow, false, now);
    }
    assert_null(late(f, 1000 + FIRST - 1, ROSTER_NO_REQUEST));
    assert_ptr_equal(late(f, 1000 + FIRST, ROSTER_NO_REQUEST), slow);
    roster_remove(slow);
    assert_null(late(f, 1000 + FIRST, ROSTER_NO_REQUEST));
}

static void idle_ones_are_late_in_their_order(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 3; i++)
        roster_place(&f->roster, add(f, i, 1000), true, 1000);
    f->conns[0].moved_ms = 1900; /* within the grain: its place stays, its deadline does not */
    roster_place(&f->roster, &f->conns[0], true, 1900);
    f->conns[1].moved_ms = 30000;
    roster_place(&f->roster, &f->conns[1], true, 30000);
    assert_null(late(f, 1000 + IDLE - 1, ROSTER_IDLE));
    assert_ptr_equal(late(f, 1900 + IDLE, ROSTER_IDLE), &f->conns[0]);
    roster_remove(&f->conns[0]);
    assert_ptr_equal(late(f, 1900 + IDLE, ROSTER_IDLE), &f->conns[2]);
    roster_remove(&f->conns[2]);
    assert_null(late(f, 29999 + IDLE, ROSTER_IDLE));
    assert_ptr_equal(late(f, 30000 + IDLE, ROSTER_IDLE), &f->conns[1]);
}

static void halves_of_frames_are_late_unless_they_move(void **state)
{
    struct fixture *f = *state;
    half_frame(f, add(f, 0, 1000), 4096, 1000);
    half_frame(f, add(f, 1, 1000), 0, 1000);
    half_frame(f, &f->conns[0], 4096, 3000);
    assert_null(late(f, 1000 + STALL - 1, ROSTER_HALF_FRAME));
    assert_ptr_equal(late(f, 1000 + STALL, ROSTER_HALF_FRAME), &f->conns[1]);
    roster_remove(&f->conns[1]);
    assert_null(late(f, 3000 + STALL - 1, ROSTER_HALF_FRAME));
    assert_ptr_equal(late(f, 3000 + STALL, ROSTER_HALF_FRAME), &f->conns[0]);
}

static void who_does_not_read_is_late_and_who_sips_is_not(void **state)
{
    struct fixture *f = *state;
    struct conn *c = add(f, 0, 1000);
    assert_int_equal(write(f->pair[0], "0123456789", 10), 10);
    c->out = (struct buf){f->bytes, 1024};
    c->moved_ms = 1000;
    roster_place(&f->roster, c, true, 1000);
    assert_true(c->unread > 0);
    c->unread++; /* as if it had read a byte since */
    assert_null(late(f, 1000 + STALL, ROSTER_NOT_READING));
    assert_null(late(f, 1000 + 2 * STALL - 1, ROSTER_NOT_READING));
    assert_ptr_equal(late(f, 1000 + 2 * STALL, ROSTER_NOT_READING), c);
}

static void ends_have_a_deadline_of_their_own(void **state)
{
    struct fixture *f = *state;
    struct conn *c = add(f, 0, 1000);
    c->state = CONN_DRAINING;
    roster_place(&f->roster, c, false, 2000);
    roster_place(&f->roster, c, false, 2500); /* does not move it */
    assert_int_equal(roster_wait_ms(&f->roster, 2000, 500), 500);
    assert_int_equal(roster_wait_ms(&f->roster, 2000 + CONN_CLOSE_MS - 3, 500), 3);
    assert_int_equal(roster_wait_ms(&f->roster, 9000, 500), 0);
    assert_ptr_equal(roster_ending(&f->roster), c);
    assert_null(late(f, 2000 + CONN_CLOSE_MS - 1, ROSTER_ENDING));
    assert_ptr_equal(late(f, 2000 + CONN_CLOSE_MS, ROSTER_ENDING), c);
    c->state = CONN_GONE;
    roster_place(&f->roster, c, false, 2600);
    assert_null(roster_ending(&f->roster));
    assert_ptr_equal(roster_gone(&f->roster), c);
}

static void the_one_that_holds_the_most_gives_way(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < COUNT; i++)
        half_frame(f, add(f, i, 1000), i < 50 ? 0 : 4096 + i, 1000);
    assert_null(roster_offender(&f->roster, NULL, 1000 + ROSTER_PATIENCE_MS - 1));
    assert_ptr_equal(roster_offender(&f->roster, NULL, 3000), &f->conns[COUNT - 1]);
    assert_ptr_equal(roster_offender(&f->roster, &f->conns[COUNT - 1], 3000), &f->conns[COUNT - 2]);
    f->conns[7].out = (struct buf){f->bytes, 100000};
    f->conns[7].moved_ms = 1000;
    roster_place(&f->roster, &f->conns[7], true, 1000);
    assert_ptr_equal(roster_offender(&f->roster, NULL, 3000), &f->conns[7]);
    f->conns[7].moved_ms = 2500; /* it reads */
    assert_ptr_equal(roster_offender(&f->roster, NULL, 3000), &f->conns[COUNT - 1]);
}

static void count_visit(void *context, struct conn *c)
{
    struct fixture *f = context;
    c->skip++;
    if (c == &f->conns[0]) /* takes another one with it, that was not visited yet */
        roster_remove(&f->conns[5]);
    if (c == &f->conns[1])
        half_frame(f, c, 100, 4000);
}

static void each_is_visited_once(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 10; i++)
        add(f, i, 1000);
    roster_visit(&f->roster, count_visit, f);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(f->conns[i].skip, i == 5 ? 0 : 1);
    assert_int_equal(f->conns[1].list, CONN_OWES_INPUT);
}

static void times_of_zero_are_no_deadlines(void **state)
{
    struct fixture *f = *state;
    roster_init(&f->roster, &(struct roster_times){.stall_ms = STALL});
    add(f, 0, 1000);
    assert_null(late(f, UINT32_MAX, ROSTER_IDLE));
}

/* A turn at `now`; so much of a frame of a million bytes has come, of which the first ten at `began`. */
static void large_frame(struct fixture *f, struct conn *c, size_t held, uint64_t began, uint64_t now, bool streamed)
{
    half_frame(f, c, 1, now);
    c->held = held;
    c->frame = 1000000;
    c->frame_from = 10;
    c->frame_ms = began;
    c->stream.value = streamed ? f->bytes : NULL;
}

static void who_goes_on_too_slowly_gives_way(void **state)
{
    struct fixture *f = *state;
    size_t enough = 10 + (size_t)ROSTER_LEAST_RATE * ROSTER_RATE_MS / 1000;
    uint64_t now = 1000 + ROSTER_RATE_MS;
    assert_null(roster_slowest(&f->roster, true, now));
    for (unsigned i = 0; i < 4; i++)
        large_frame(f, add(f, i, 1000), enough, 1000, now, i < 3);
    assert_null(roster_slowest(&f->roster, true, now));
    assert_ptr_equal(roster_slowest(&f->roster, true, now + 1), &f->conns[0]);
    f->conns[1].held -= 100;
    assert_ptr_equal(roster_slowest(&f->roster, true, now), &f->conns[1]);
    f->conns[2].held = 10;
    assert_ptr_equal(roster_slowest(&f->roster, true, now), &f->conns[2]);
    assert_null(roster_slowest(&f->roster, false, now));
    f->conns[3].held = 10;
    assert_ptr_equal(roster_slowest(&f->roster, false, now), &f->conns[3]);
    f->conns[2].frame_ms = f->conns[1].frame_ms = 1001;
    assert_null(roster_slowest(&f->roster, true, now));
    f->conns[3].frame = 0; /* It has only a little, in one buffer. */
    assert_null(roster_slowest(&f->roster, false, now));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(nobody_is_late_at_first),
        TEST(the_first_request_has_a_deadline_that_bytes_do_not_move),
        TEST(idle_ones_are_late_in_their_order),
        TEST(halves_of_frames_are_late_unless_they_move),
        TEST(who_does_not_read_is_late_and_who_sips_is_not),
        TEST(ends_have_a_deadline_of_their_own),
        TEST(the_one_that_holds_the_most_gives_way),
        TEST(who_goes_on_too_slowly_gives_way),
        TEST(each_is_visited_once),
        TEST(times_of_zero_are_no_deadlines),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
