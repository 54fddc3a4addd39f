/* SPDX-License-Identifier: MIT */
/*
 * What dispatch answers, without a socket: every op, flag and error, TAG and QUIET, the states of a session. The expected
 * answers are encoded with wire.h, which has tests of its own. How streams are cut, and what ends a turn: test_dispatch_flow.c.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/auth.h"
#include "tests/support/dispatch_scene.h"

static void test_put_get_del(void **state)
{
    struct scene *s = *state;
    SEND(s, ping, .flags = 0);
    EXPECT(s, pong, .tag = 0);
    SEND(s, get, KEY("k"));
    EXPECT(s, null, .tag = 0);
    SEND(s, put, KEY("k"), VALUE("value"));
    EXPECT(s, ok, .tag = 0);
    SEND(s, get, KEY("k"));
    EXPECT(s, value, VALUE("value"));
    SEND(s, put, KEY("k"), VALUE(""));
    EXPECT(s, ok, .tag = 0);
    SEND(s, get, KEY("k"));
    EXPECT(s, value, VALUE(""));
    SEND(s, del, KEY("k"));
    EXPECT(s, ok, .tag = 0);
    SEND(s, del, KEY("k"));
    EXPECT(s, null, .tag = 0);
    SEND(s, put, KEY("k"), VALUE("x"));
    SEND(s, flush, .flags = 0);
    SEND(s, get, KEY("k"));
    EXPECT(s, ok, .tag = 0);
    EXPECT(s, ok, .tag = 0);
    EXPECT(s, null, .tag = 0);
    scene_play(s);
}

static void test_conditions_and_versions(void **state)
{
    struct scene *s = *state;
    SEND(s, put, KEY("k"), VALUE("1"), .flags = CRAB_PUT_IF_PRESENT);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_NULL);
    SEND(s, put, KEY("k"), VALUE("1"), .flags = CRAB_PUT_IF_VERSION, .version = 5);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_NULL);
    SEND(s, put, KEY("k"), VALUE("1"), .flags = CRAB_PUT_IF_ABSENT | CRAB_PUT_WANT_VERSION);
    union crab_reply stored = scene_ask(s);
    assert_int_equal(stored.head.op, CRAB_REP_STORED);
    uint64_t version = stored.stored.version;
    assert_int_not_equal(version, 0);
    SEND(s, put, KEY("k"), VALUE("2"), .flags = CRAB_PUT_IF_ABSENT);
    union crab_reply exists = scene_ask(s);
    assert_int_equal(exists.head.op, CRAB_REP_EXISTS);
    assert_int_equal(exists.exists.version, version);
    SEND(s, put, KEY("k"), VALUE("2"), .flags = CRAB_PUT_IF_VERSION, .version = version + 1);
    assert_int_equal(scene_ask(s).exists.version, version);
    SEND(s, put, KEY("k"), VALUE("2"), .flags = CRAB_PUT_IF_VERSION | CRAB_PUT_WANT_VERSION, .version = version);
    stored = scene_ask(s);
    assert_int_equal(stored.head.op, CRAB_REP_STORED);
    assert_int_not_equal(stored.stored.version, version);
    SEND(s, put, KEY("k"), VALUE("3"), .flags = CRAB_PUT_IF_PRESENT);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_OK);
}

static void test_meta_ttl_and_touch(void **state)
{
    struct scene *s = *state;
    SEND(s, put, KEY("k"), VALUE("v"), .flags = CRAB_PUT_TTL | CRAB_PUT_APP_FLAGS, .ttl_ms = 1000, .app_flags = 0xabcd);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_OK);
    s->peer->now_ms += 400;
    SEND(s, get, KEY("k"), .flags = CRAB_GET_META);
    union crab_reply meta = scene_ask(s);
    assert_int_equal(meta.head.op, CRAB_REP_META);
    assert_int_equal(meta.meta.ttl_ms, 600);
    assert_int_equal(meta.meta.app_flags, 0xabcd);
    SEND(s, get, KEY("k"), .flags = CRAB_GET_META | CRAB_GET_TTL, .ttl_ms = 5000);
    union crab_reply touched = scene_ask(s);
    assert_int_equal(touched.meta.ttl_ms, 5000);
    assert_int_equal(touched.meta.version, meta.meta.version);
    s->peer->now_ms += 4999;
    SEND(s, expire, KEY("k"), .ttl_ms = CRAB_TTL_NEVER);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_OK);
    s->peer->now_ms += 1000000;
    SEND(s, get, KEY("k"), .flags = CRAB_GET_META);
    assert_true(scene_ask(s).meta.ttl_ms == CRAB_TTL_NEVER);
    SEND(s, expire, KEY("k"), .ttl_ms = 1);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_OK);
    s->peer->now_ms += 1;
    SEND(s, get, KEY("k"));
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_NULL);
    SEND(s, expire, KEY("k"), .ttl_ms = 1);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_NULL);
    SEND(s, get, KEY("k"), .flags = CRAB_GET_TTL, .ttl_ms = 1);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_NULL);
}

static void test_numbers(void **state)
{
    struct scene *s = *state;
    SEND(s, incr, KEY("n"), .delta = 1);
    EXPECT(s, null, .tag = 0);
    SEND(s, incr, KEY("n"), .flags = CRAB_INCR_INITIAL, .initial = -7, .delta = 100);
    EXPECT(s, number, .value = -7);
    SEND(s, incr, KEY("n"), .delta = 10);
    EXPECT(s, number, .value = 3);
    SEND(s, decr, KEY("n"), .delta = 5);
    EXPECT(s, number, .value = -2);
    SEND(s, get, KEY("n"));
    EXPECT(s, value, VALUE("-2"));
    SEND(s, decr, KEY("m"), .flags = CRAB_DECR_INITIAL, .initial = INT64_MIN, .delta = 1);
    EXPECT(s, number, .value = INT64_MIN);
    SEND(s, decr, KEY("m"), .delta = 1);
    scene_expect_error(s, CRAB_ERR_OVERFLOW);
    SEND(s, incr, KEY("m"), .delta = UINT64_MAX);
    EXPECT(s, number, .value = INT64_MAX);
    SEND(s, incr, KEY("m"), .delta = 1);
    scene_expect_error(s, CRAB_ERR_OVERFLOW);
    SEND(s, put, KEY("t"), VALUE("007"));
    EXPECT(s, ok, .tag = 0);
    SEND(s, incr, KEY("t"), .delta = 1);
    scene_expect_error(s, CRAB_ERR_NOT_A_NUMBER);
    SEND(s, incr, KEY("x"), .flags = CRAB_INCR_INITIAL | CRAB_INCR_TTL, .initial = 1, .ttl_ms = 10);
    EXPECT(s, number, .value = 1);
    scene_play(s);
    s->peer->now_ms += 10;
    SEND(s, get, KEY("x"));
    EXPECT(s, null, .tag = 0);
    scene_play(s);
}

static void test_stats_sections(void **state)
{
    struct scene *s = *state;
    static const char *const names[] = {"server", "connections", "store", "workers", "ops"};
    for (size_t i = 0; i < 5; i++) {
        SEND(s, stats, .key = crab_slice_str(names[i]));
        union crab_reply reply = scene_ask(s);
        assert_int_equal(reply.head.op, CRAB_REP_STATS);
        assert_memory_equal(reply.stats.text.data, names[i], strlen(names[i]));
    }
    SEND(s, stats, .flags = 0);
    assert_int_equal(scene_ask(s).head.op, CRAB_REP_STATS);
    SEND(s, stats, KEY("serve"));
    scene_expect_error(s, CRAB_ERR_UNKNOWN_SECTION);
    SEND(s, stats, KEY("servers"));
    scene_expect_error(s, CRAB_ERR_UNKNOWN_SECTION);
    s->peer->answers.len = 0;
    scene_play(s);
}

static void test_tags(void **state)
{
    struct scene *s = *state;
    const uint8_t tag = CRAB_FLAG_TAG;
    SEND(s, put, KEY("k"), VALUE("v"), .flags = tag, .tag = 1);
    EXPECT(s, ok, .tagged = true, .tag = 1);
    SEND(s, get, KEY("k"), .flags = tag, .tag = 0xffffffff);
    EXPECT(s, value, .tagged = true, .tag = 0xffffffff, VALUE("v"));
    SEND(s, get, KEY("none"), .flags = tag, .tag = 0);
    EXPECT(s, null, .tagged = true, .tag = 0);
    SEND(s, incr, KEY("k"), .flags = tag, .tag = 4, .delta = 1);
    EXPECT(s, error, .tagged = true, .tag = 4, .code = CRAB_ERR_NOT_A_NUMBER,
           .text = crab_slice_str(crab_error_text(CRAB_ERR_NOT_A_NUMBER)));
    scene_send_raw(s, 0x0e, tag, 0, 6, "\5\0\0\0xx", 6);
    EXPECT(s, error, .tagged = true, .tag = 5, .code = CRAB_ERR_UNKNOWN_OP,
           .text = crab_slice_str(crab_error_text(CRAB_ERR_UNKNOWN_OP)));
    scene_play(s);
}

static void test_quiet(void **state)
{
    struct scene *s = *state;
    const uint8_t quiet = CRAB_FLAG_QUIET | CRAB_FLAG_TAG;
    scene_say_hello(s);
    SEND(s, put, KEY("k"), VALUE("v"), .flags = quiet | CRAB_PUT_WANT_VERSION, .tag = 1);
    SEND(s, put, KEY("k"), VALUE("v"), .flags = quiet | CRAB_PUT_IF_ABSENT, .tag = 2);
    SEND(s, del, KEY("none"), .flags = quiet, .tag = 3);
    SEND(s, incr, KEY("n"), .flags = quiet | CRAB_INCR_INITIAL, .tag = 4, .initial = 1);
    SEND(s, expire, KEY("k"), .flags = quiet, .tag = 5, .ttl_ms = 1000);
    SEND(s, incr, KEY("k"), .flags = quiet, .tag = 6, .delta = 1);
    scene_expect_late(s, 6, CRAB_ERR_NOT_A_NUMBER);
    scene_send_raw(s, CRAB_OP_EXPIRE, quiet, 1, 13, "\7\0\0\0\0\0\0\0\0\0\0\0k", 13);
    scene_expect_late(s, 7, CRAB_ERR_BAD_FIELD);
    scene_send_raw(s, CRAB_OP_DEL, quiet, 0, 4, "\10\0\0\0", 4);
    scene_expect_late(s, 8, CRAB_ERR_BAD_KEY);
    scene_send_raw(s, 0xb0, quiet, 0, 4, "\11\0\0\0", 4);
    scene_expect_late(s, 9, CRAB_ERR_UNKNOWN_OP);
    SEND(s, flush, .flags = quiet, .tag = 10);
    SEND(s, ping, .flags = 0);
    EXPECT(s, pong, .tag = 0);
    scene_play(s);
}

static void test_errors_of_frames(void **state)
{
    struct scene *s = *state;
    scene_send_raw(s, CRAB_OP_GET, 0, 0, 0, "", 0);
    scene_expect_error(s, CRAB_ERR_BAD_KEY);
    scene_send_raw(s, CRAB_OP_PING, 0, 1, 1, "k", 1);
    scene_expect_error(s, CRAB_ERR_BAD_KEY);
    scene_send_raw(s, CRAB_OP_INCR, CRAB_INCR_TTL, 1, 17, "\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0k", 17);
    scene_expect_error(s, CRAB_ERR_BAD_FLAGS);
    scene_send_raw(s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 6, "\4\0\1\200\0\0", 6);
    scene_expect_error(s, CRAB_ERR_UNKNOWN_EXTENSION);
    scene_send_raw(s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 5, "\3\0\1\0\0", 5);
    scene_expect_error(s, CRAB_ERR_BAD_EXTENSION);
    scene_send_raw(s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 6, "\4\0\1\0\0\0", 6);
    EXPECT(s, pong, .tag = 0);
    scene_send_raw(s, CRAB_OP_PING, 0x1f, 0, 0, "", 0);
    EXPECT(s, pong, .tag = 0);
    scene_send_raw(s, 0x0a, 0, 0, 0, "", 0);
    scene_expect_error(s, CRAB_ERR_UNKNOWN_OP);
    SEND(s, auth, KEY("me"), VALUE("secret"));
    scene_expect_error(s, CRAB_ERR_AUTH_FAILED);
    scene_play(s);
    assert_false(s->peer->closed);
}

static void test_values_too_large_are_skipped(void **state)
{
    struct scene *s = *state;
    scene_send_raw(s, CRAB_OP_PUT, 0, 1, SCENE_MAX_VALUE + 2, "k", 1);
    scene_expect_error(s, CRAB_ERR_VALUE_TOO_LARGE);
    scene_play(s); /* answered before the value has come */
    assert_int_equal(s->peer->skip, SCENE_MAX_VALUE + 1);
    uint8_t *filler = calloc(1, SCENE_MAX_VALUE + 1);
    dispatch_peer_feed_pieces(s->peer, filler, SCENE_MAX_VALUE + 1, 4097);
    free(filler);
    assert_int_equal(s->peer->skip, 0);
    SEND(s, get, KEY("k"));
    EXPECT(s, null, .tag = 0);
    scene_play(s);
}

static void test_fatal_errors(void **state)
{
    struct scene *s = *state;
    const struct {
        uint16_t code;
        size_t len;
        const char *bytes;
    } cases[] = {
        {CRAB_ERR_NOT_CRABCACHE, 1, "G"},
        {CRAB_ERR_NOT_CRABCACHE, 1, "\x10"},
        {CRAB_ERR_NOT_CRABCACHE, 1, "\xc0"},
        {CRAB_ERR_BAD_FRAME, 8, "\x03\0\2\0\1\0\0\0"},
        {CRAB_ERR_BAD_FRAME, 8, "\x03\0\1\0\2\0\0\0"},
        {CRAB_ERR_BAD_FRAME, 8, "\x0e\x40\0\0\3\0\0\0"},
        {CRAB_ERR_QUIET_MISUSE, 8, "\x04\x80\1\0\1\0\0\0"},
        {CRAB_ERR_QUIET_MISUSE, 8, "\x03\xc0\1\0\5\0\0\0"},
        {CRAB_ERR_QUIET_MISUSE, 8, "\x04\xc0\1\0\5\0\0\0"}, /* no PUSH */
        {CRAB_ERR_QUIET_MISUSE, 8, "\x02\xc0\1\0\xff\xff\xff\x7f"},
        {CRAB_ERR_QUIET_MISUSE, 12, "\x0e\xc0\0\0\4\0\0\0\1\0\0\0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dispatch_peer_reset(s->peer, true);
        SEND(s, put, KEY("k"), VALUE("v"));
        EXPECT(s, ok, .tag = 0);
        dispatch_bytes_add(&s->stream, cases[i].bytes, cases[i].len);
        scene_expect_error(s, cases[i].code);
        SEND(s, del, KEY("k"));
        scene_play(s);
        assert_true(s->peer->closed);
        dispatch_peer_reset(s->peer, false);
        SEND(s, get, KEY("k"));
        EXPECT(s, value, VALUE("v"));
        scene_play(s);
    }
}

static void test_hello_states(void **state)
{
    struct scene *s = *state;
    SEND(s, hello, .version_min = 2, .version_max = 9);
    scene_expect_error(s, CRAB_ERR_UNSUPPORTED_VERSION);
    SEND(s, hello, .version_min = 3, .version_max = 1);
    scene_expect_error(s, CRAB_ERR_UNSUPPORTED_VERSION);
    scene_send_raw(s, CRAB_OP_HELLO, 0, 0, 6, "\0\1\0\0\0\0", 6);
    scene_expect_error(s, CRAB_ERR_BAD_FIELD);
    scene_say_hello(s);
    SEND(s, hello, .version_min = 1, .version_max = 1);
    scene_expect_error(s, CRAB_ERR_BAD_STATE);
    scene_play(s);
    dispatch_peer_reset(s->peer, false);
    scene_send_raw(s, 0x0e, 0, 0, 0, "", 0);
    scene_expect_error(s, CRAB_ERR_UNKNOWN_OP);
    SEND(s, hello, .version_min = 1, .version_max = 1);
    scene_expect_error(s, CRAB_ERR_BAD_STATE);
    scene_play(s);
}

/* A user whom no secret opens. */
static const char user_line[] = "ali:$6$saltsalt$";

static struct auth *make_users(void)
{
    char path[] = "/tmp/crabcache-users-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, user_line, sizeof user_line - 1), sizeof user_line - 1);
    assert_int_equal(write(fd, "x\n", 2), 2);
    close(fd);
    struct auth *auth = NULL;
    char why[100];
    assert_true(auth_load(path, &auth, why, sizeof why));
    unlink(path);
    return auth;
}

/* Every op before AUTH; test_auth.c has the secrets, here the session says that it is done. */
static void test_auth_states(void **state)
{
    (void)state;
    struct auth *auth = make_users();
    struct scene *s = scene_create((struct dispatch_peer_config){.auth = auth});
    scene_say_hello(s);
    SEND(s, ping, .flags = 0);
    EXPECT(s, pong, .tag = 0);
    SEND(s, get, KEY("k"));
    SEND(s, put, KEY("k"), VALUE("v"));
    SEND(s, del, KEY("k"));
    SEND(s, expire, KEY("k"), .ttl_ms = 1);
    SEND(s, stats, .flags = 0);
    SEND(s, flush, .flags = 0);
    SEND(s, incr, KEY("k"), .delta = 1);
    SEND(s, decr, KEY("k"), .delta = 1);
    for (int i = 0; i < 8; i++)
        scene_expect_error(s, CRAB_ERR_AUTH_REQUIRED);
    SEND(s, del, KEY("k"), .flags = CRAB_FLAG_QUIET | CRAB_FLAG_TAG, .tag = 2);
    scene_expect_late(s, 2, CRAB_ERR_AUTH_REQUIRED);
    scene_send_raw(s, CRAB_OP_EXPIRE, 0, 1, 9, "\0\0\0\0\0\0\0\0k", 9); /* check 12 comes after */
    scene_expect_error(s, CRAB_ERR_AUTH_REQUIRED);
    scene_send_raw(s, CRAB_OP_GET, 0, 0, 0, "", 0); /* check 7 comes before */
    scene_expect_error(s, CRAB_ERR_BAD_KEY);
    scene_send_raw(s, 0x0e, 0, 0, 0, "", 0);
    scene_expect_error(s, CRAB_ERR_UNKNOWN_OP);
    SEND(s, auth, KEY("ali"), VALUE("wrong"));
    scene_expect_error(s, CRAB_ERR_AUTH_FAILED);
    scene_play(s);
    /* Over 4,096 bytes: refused from the head, whatever the op. */
    uint8_t body[5000] = {0};
    crab_store_u16(body, 4994);
    crab_store_u16(body + 4, 4990);
    scene_send_raw(s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 4996, body, 100);
    scene_expect_error(s, CRAB_ERR_AUTH_REQUIRED);
    scene_play(s);
    assert_int_equal(s->peer->skip, 4896);
    dispatch_peer_feed(s->peer, body, 4896);
    s->peer->session.authenticated = true;
    SEND(s, get, KEY("k"));
    EXPECT(s, null, .tag = 0);
    scene_play(s);
    /* An AUTH ends the turn; the third failure the connection. */
    for (int i = 0; i < 3; i++)
        SEND(s, auth, KEY("ali"), VALUE("wrong"));
    struct dispatch_result result;
    dispatch_run(s->peer->dispatch, &s->peer->session, s->stream.data, s->stream.len, &s->peer->out, &result);
    assert_int_equal(result.next, DISPATCH_TURN);
    assert_int_equal(result.consumed, s->stream.len / 3);
    buf_out_drop(&s->peer->out, dispatch_releaser(s->peer->dispatch));
    scene_expect_error(s, CRAB_ERR_AUTH_FAILED);
    EXPECT_PUSH(s, goaway, .code = CRAB_ERR_AUTH_FAILED, .text = crab_slice_str(crab_error_text(CRAB_ERR_AUTH_FAILED)));
    scene_play(s);
    assert_true(s->peer->closed);
    scene_destroy(s);
    auth_destroy(auth);
}

static void test_goaway(void **state)
{
    struct scene *s = *state;
    dispatch_goaway(s->peer->dispatch, &s->peer->session, CRAB_ERR_SHUTTING_DOWN, &s->peer->out);
    assert_int_equal(s->peer->out.len, 0);
    s->peer->session.features = CRAB_FEATURE_PUSH;
    dispatch_goaway(s->peer->dispatch, &s->peer->session, CRAB_ERR_SHUTTING_DOWN, &s->peer->out);
    assert_int_equal(s->peer->out.data[0], CRAB_PUSH_GOAWAY);
    buf_out_drop(&s->peer->out, dispatch_releaser(s->peer->dispatch));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(test_put_get_del),
        SCENE_TEST(test_conditions_and_versions),
        SCENE_TEST(test_meta_ttl_and_touch),
        SCENE_TEST(test_numbers),
        SCENE_TEST(test_stats_sections),
        SCENE_TEST(test_tags),
        SCENE_TEST(test_quiet),
        SCENE_TEST(test_errors_of_frames),
        SCENE_TEST(test_values_too_large_are_skipped),
        SCENE_TEST(test_fatal_errors),
        SCENE_TEST(test_hello_states),
        cmocka_unit_test(test_auth_states),
        SCENE_TEST(test_goaway),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
