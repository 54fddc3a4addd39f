/* SPDX-License-Identifier: MIT */
/*
 * dispatch without a socket: every op, flag and error, TAG and QUIET, the states of a session, and that the way in which
 * a stream is cut never changes an answer. The expected answers are encoded with wire.h, which has tests of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "crabcache/version.h"
#include "crabcache/wire.h"
#include "server/auth.h"
#include "tests/support/dispatch_peer.h"

#define MAX_VALUE (1U << 20)

/* A test's server, the stream that it sends and the answers that it expects. */
struct scene {
    struct dispatch_peer *peer;
    struct dispatch_bytes stream;
    struct dispatch_bytes expected;
};

static struct scene *scene_of(void **state)
{
    return *state;
}

static int set_up(void **state)
{
    struct scene *s = calloc(1, sizeof *s);
    s->peer = dispatch_peer_create(&(struct dispatch_peer_config){.max_value = MAX_VALUE});
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *s = *state;
    dispatch_peer_destroy(s->peer);
    free(s->stream.data);
    free(s->expected.data);
    free(s);
    return 0;
}

/* ---------------------------------------------------------------------------- what is sent and expected */

#define KEY(text) .key = {(const uint8_t *)(text), sizeof(text) - 1}
#define VALUE(text) .value = {(const uint8_t *)(text), sizeof(text) - 1}

/* SEND(s, put, KEY("k"), VALUE("v"), .flags = ...) */
#define SEND(s, type, ...)                                                                                     \
    do {                                                                                                       \
        struct crab_req_##type message = {__VA_ARGS__};                                                        \
        uint8_t frame[70000];                                                                                  \
        size_t size = crab_req_##type##_encode(&message, frame, sizeof frame);                                 \
        assert_int_not_equal(size, 0);                                                                         \
        dispatch_bytes_add(&(s)->stream, frame, size);                                                         \
    } while (0)

/* EXPECT(s, value, VALUE("v"), .tagged = true, .tag = 1) */
#define EXPECT(s, type, ...) EXPECT_MESSAGE(s, rep_##type, __VA_ARGS__)
#define EXPECT_MESSAGE(s, type, ...)                                                                           \
    do {                                                                                                       \
        struct crab_##type message = {__VA_ARGS__};                                                            \
        uint8_t frame[70000];                                                                                  \
        size_t size = crab_##type##_encode(&message, frame, sizeof frame);                                     \
        assert_int_not_equal(size, 0);                                                                         \
        dispatch_bytes_add(&(s)->expected, frame, size);                                                       \
    } while (0)

static void send_raw(struct scene *s, uint8_t op, uint8_t flags, uint16_t klen, uint32_t blen, const void *body,
                     size_t len)
{
    uint8_t header[CRAB_REQUEST_HEADER] = {op, flags};
    crab_store_u16(header + 2, klen);
    crab_store_u32(header + 4, blen);
    dispatch_bytes_add(&s->stream, header, sizeof header);
    dispatch_bytes_add(&s->stream, body, len);
}

static void expect_error(struct scene *s, uint16_t code)
{
    EXPECT(s, error, .code = code, .text = crab_slice_str(crab_error_text(code)));
}

static void expect_late(struct scene *s, uint32_t tag, uint16_t code)
{
    EXPECT_MESSAGE(s, push_late_error, .late_tag = tag, .code = code, .text = crab_slice_str(crab_error_text(code)));
}

/* Send all of the stream and compare all answers. */
static void play(struct scene *s)
{
    size_t before = s->peer->answers.len;
    dispatch_peer_feed(s->peer, s->stream.data, s->stream.len);
    assert_int_equal(s->peer->answers.len - before, s->expected.len);
    if (s->expected.len != 0)
        assert_memory_equal(s->peer->answers.data + before, s->expected.data, s->expected.len);
    s->stream.len = 0;
    s->expected.len = 0;
}

static void say_hello(struct scene *s)
{
    SEND(s, hello, .version_min = 1, .version_max = 9, .features = 0xffffffff);
    EXPECT(s, welcome, .version = 1, .features = CRAB_FEATURE_PUSH, .max_key = CRAB_MAX_KEY, .max_value = MAX_VALUE,
           .max_in_flight = CRAB_MAX_IN_FLIGHT, .server_name = crab_slice_str("crabcache-server " CRAB_VERSION_STRING));
}

/* The reply to one request that was just played, decoded. */
static union crab_reply ask(struct scene *s)
{
    union crab_reply reply;
    struct crab_frame frame;
    s->peer->answers.len = 0;
    dispatch_peer_feed(s->peer, s->stream.data, s->stream.len);
    s->stream.len = 0;
    assert_int_equal(crab_reply_decode(s->peer->answers.data, s->peer->answers.len, UINT32_MAX, &reply, &frame),
                     CRAB_WHOLE);
    assert_int_equal(frame.size, s->peer->answers.len);
    return reply;
}

/* ------------------------------------------------------------------------------------------------ tests */

static void test_put_get_del(void **state)
{
    struct scene *s = scene_of(state);
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
    play(s);
}

static void test_conditions_and_versions(void **state)
{
    struct scene *s = scene_of(state);
    SEND(s, put, KEY("k"), VALUE("1"), .flags = CRAB_PUT_IF_PRESENT);
    assert_int_equal(ask(s).head.op, CRAB_REP_NULL);
    SEND(s, put, KEY("k"), VALUE("1"), .flags = CRAB_PUT_IF_VERSION, .version = 5);
    assert_int_equal(ask(s).head.op, CRAB_REP_NULL);
    SEND(s, put, KEY("k"), VALUE("1"), .flags = CRAB_PUT_IF_ABSENT | CRAB_PUT_WANT_VERSION);
    union crab_reply stored = ask(s);
    assert_int_equal(stored.head.op, CRAB_REP_STORED);
    uint64_t version = stored.stored.version;
    assert_int_not_equal(version, 0);
    SEND(s, put, KEY("k"), VALUE("2"), .flags = CRAB_PUT_IF_ABSENT);
    union crab_reply exists = ask(s);
    assert_int_equal(exists.head.op, CRAB_REP_EXISTS);
    assert_int_equal(exists.exists.version, version);
    SEND(s, put, KEY("k"), VALUE("2"), .flags = CRAB_PUT_IF_VERSION, .version = version + 1);
    assert_int_equal(ask(s).exists.version, version);
    SEND(s, put, KEY("k"), VALUE("2"), .flags = CRAB_PUT_IF_VERSION | CRAB_PUT_WANT_VERSION, .version = version);
    stored = ask(s);
    assert_int_equal(stored.head.op, CRAB_REP_STORED);
    assert_int_not_equal(stored.stored.version, version);
    SEND(s, put, KEY("k"), VALUE("3"), .flags = CRAB_PUT_IF_PRESENT);
    assert_int_equal(ask(s).head.op, CRAB_REP_OK);
}

static void test_meta_ttl_and_touch(void **state)
{
    struct scene *s = scene_of(state);
    SEND(s, put, KEY("k"), VALUE("v"), .flags = CRAB_PUT_TTL | CRAB_PUT_APP_FLAGS, .ttl_ms = 1000, .app_flags = 0xabcd);
    assert_int_equal(ask(s).head.op, CRAB_REP_OK);
    s->peer->now_ms += 400;
    SEND(s, get, KEY("k"), .flags = CRAB_GET_META);
    union crab_reply meta = ask(s);
    assert_int_equal(meta.head.op, CRAB_REP_META);
    assert_int_equal(meta.meta.ttl_ms, 600);
    assert_int_equal(meta.meta.app_flags, 0xabcd);
    SEND(s, get, KEY("k"), .flags = CRAB_GET_META | CRAB_GET_TTL, .ttl_ms = 5000);
    union crab_reply touched = ask(s);
    assert_int_equal(touched.meta.ttl_ms, 5000);
    assert_int_equal(touched.meta.version, meta.meta.version);
    s->peer->now_ms += 4999;
    SEND(s, expire, KEY("k"), .ttl_ms = CRAB_TTL_NEVER);
    assert_int_equal(ask(s).head.op, CRAB_REP_OK);
    s->peer->now_ms += 1000000;
    SEND(s, get, KEY("k"), .flags = CRAB_GET_META);
    assert_true(ask(s).meta.ttl_ms == CRAB_TTL_NEVER);
    SEND(s, expire, KEY("k"), .ttl_ms = 1);
    assert_int_equal(ask(s).head.op, CRAB_REP_OK);
    s->peer->now_ms += 1;
    SEND(s, get, KEY("k"));
    assert_int_equal(ask(s).head.op, CRAB_REP_NULL);
    SEND(s, expire, KEY("k"), .ttl_ms = 1);
    assert_int_equal(ask(s).head.op, CRAB_REP_NULL);
    SEND(s, get, KEY("k"), .flags = CRAB_GET_TTL, .ttl_ms = 1);
    assert_int_equal(ask(s).head.op, CRAB_REP_NULL);
}

static void test_numbers(void **state)
{
    struct scene *s = scene_of(state);
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
    expect_error(s, CRAB_ERR_OVERFLOW);
    SEND(s, incr, KEY("m"), .delta = UINT64_MAX);
    EXPECT(s, number, .value = INT64_MAX);
    SEND(s, incr, KEY("m"), .delta = 1);
    expect_error(s, CRAB_ERR_OVERFLOW);
    SEND(s, put, KEY("t"), VALUE("007"));
    EXPECT(s, ok, .tag = 0);
    SEND(s, incr, KEY("t"), .delta = 1);
    expect_error(s, CRAB_ERR_NOT_A_NUMBER);
    SEND(s, incr, KEY("x"), .flags = CRAB_INCR_INITIAL | CRAB_INCR_TTL, .initial = 1, .ttl_ms = 10);
    EXPECT(s, number, .value = 1);
    play(s);
    s->peer->now_ms += 10;
    SEND(s, get, KEY("x"));
    EXPECT(s, null, .tag = 0);
    play(s);
}

static void test_stats_sections(void **state)
{
    struct scene *s = scene_of(state);
    static const char *const names[] = {"server", "connections", "store", "workers", "ops"};
    for (size_t i = 0; i < 5; i++) {
        SEND(s, stats, .key = crab_slice_str(names[i]));
        union crab_reply reply = ask(s);
        assert_int_equal(reply.head.op, CRAB_REP_STATS);
        assert_memory_equal(reply.stats.text.data, names[i], strlen(names[i]));
    }
    SEND(s, stats, .flags = 0);
    assert_int_equal(ask(s).head.op, CRAB_REP_STATS);
    SEND(s, stats, KEY("serve"));
    expect_error(s, CRAB_ERR_UNKNOWN_SECTION);
    SEND(s, stats, KEY("servers"));
    expect_error(s, CRAB_ERR_UNKNOWN_SECTION);
    s->peer->answers.len = 0;
    play(s);
}

static void test_tags(void **state)
{
    struct scene *s = scene_of(state);
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
    send_raw(s, 0x0e, tag, 0, 6, "\5\0\0\0xx", 6);
    EXPECT(s, error, .tagged = true, .tag = 5, .code = CRAB_ERR_UNKNOWN_OP,
           .text = crab_slice_str(crab_error_text(CRAB_ERR_UNKNOWN_OP)));
    play(s);
}

static void test_quiet(void **state)
{
    struct scene *s = scene_of(state);
    const uint8_t quiet = CRAB_FLAG_QUIET | CRAB_FLAG_TAG;
    say_hello(s);
    SEND(s, put, KEY("k"), VALUE("v"), .flags = quiet | CRAB_PUT_WANT_VERSION, .tag = 1);
    SEND(s, put, KEY("k"), VALUE("v"), .flags = quiet | CRAB_PUT_IF_ABSENT, .tag = 2);
    SEND(s, del, KEY("none"), .flags = quiet, .tag = 3);
    SEND(s, incr, KEY("n"), .flags = quiet | CRAB_INCR_INITIAL, .tag = 4, .initial = 1);
    SEND(s, expire, KEY("k"), .flags = quiet, .tag = 5, .ttl_ms = 1000);
    SEND(s, incr, KEY("k"), .flags = quiet, .tag = 6, .delta = 1);
    expect_late(s, 6, CRAB_ERR_NOT_A_NUMBER);
    send_raw(s, CRAB_OP_EXPIRE, quiet, 1, 13, "\7\0\0\0\0\0\0\0\0\0\0\0k", 13);
    expect_late(s, 7, CRAB_ERR_BAD_FIELD);
    send_raw(s, CRAB_OP_DEL, quiet, 0, 4, "\10\0\0\0", 4);
    expect_late(s, 8, CRAB_ERR_BAD_KEY);
    send_raw(s, 0xb0, quiet, 0, 4, "\11\0\0\0", 4);
    expect_late(s, 9, CRAB_ERR_UNKNOWN_OP);
    SEND(s, flush, .flags = quiet, .tag = 10);
    SEND(s, ping, .flags = 0);
    EXPECT(s, pong, .tag = 0);
    play(s);
}

static void test_errors_of_frames(void **state)
{
    struct scene *s = scene_of(state);
    send_raw(s, CRAB_OP_GET, 0, 0, 0, "", 0);
    expect_error(s, CRAB_ERR_BAD_KEY);
    send_raw(s, CRAB_OP_PING, 0, 1, 1, "k", 1);
    expect_error(s, CRAB_ERR_BAD_KEY);
    send_raw(s, CRAB_OP_INCR, CRAB_INCR_TTL, 1, 17, "\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0k", 17);
    expect_error(s, CRAB_ERR_BAD_FLAGS);
    send_raw(s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 6, "\4\0\1\200\0\0", 6);
    expect_error(s, CRAB_ERR_UNKNOWN_EXTENSION);
    send_raw(s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 5, "\3\0\1\0\0", 5);
    expect_error(s, CRAB_ERR_BAD_EXTENSION);
    send_raw(s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 6, "\4\0\1\0\0\0", 6);
    EXPECT(s, pong, .tag = 0);
    send_raw(s, CRAB_OP_PING, 0x1f, 0, 0, "", 0);
    EXPECT(s, pong, .tag = 0);
    send_raw(s, 0x0a, 0, 0, 0, "", 0);
    expect_error(s, CRAB_ERR_UNKNOWN_OP);
    SEND(s, auth, KEY("me"), VALUE("secret"));
    expect_error(s, CRAB_ERR_AUTH_FAILED);
    play(s);
    assert_false(s->peer->closed);
}

static void test_values_too_large_are_skipped(void **state)
{
    struct scene *s = scene_of(state);
    send_raw(s, CRAB_OP_PUT, 0, 1, MAX_VALUE + 2, "k", 1);
    expect_error(s, CRAB_ERR_VALUE_TOO_LARGE);
    play(s); /* answered before the value has come */
    assert_int_equal(s->peer->skip, MAX_VALUE + 1);
    uint8_t *filler = calloc(1, MAX_VALUE + 1);
    dispatch_peer_feed_pieces(s->peer, filler, MAX_VALUE + 1, 4097);
    free(filler);
    assert_int_equal(s->peer->skip, 0);
    SEND(s, get, KEY("k"));
    EXPECT(s, null, .tag = 0);
    play(s);
}

static void test_fatal_errors(void **state)
{
    struct scene *s = scene_of(state);
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
        expect_error(s, cases[i].code);
        SEND(s, del, KEY("k"));
        play(s);
        assert_true(s->peer->closed);
        dispatch_peer_reset(s->peer, false);
        SEND(s, get, KEY("k"));
        EXPECT(s, value, VALUE("v"));
        play(s);
    }
}

static void test_hello_states(void **state)
{
    struct scene *s = scene_of(state);
    SEND(s, hello, .version_min = 2, .version_max = 9);
    expect_error(s, CRAB_ERR_UNSUPPORTED_VERSION);
    SEND(s, hello, .version_min = 3, .version_max = 1);
    expect_error(s, CRAB_ERR_UNSUPPORTED_VERSION);
    send_raw(s, CRAB_OP_HELLO, 0, 0, 6, "\0\1\0\0\0\0", 6);
    expect_error(s, CRAB_ERR_BAD_FIELD);
    say_hello(s);
    SEND(s, hello, .version_min = 1, .version_max = 1);
    expect_error(s, CRAB_ERR_BAD_STATE);
    play(s);
    dispatch_peer_reset(s->peer, false);
    send_raw(s, 0x0e, 0, 0, 0, "", 0);
    expect_error(s, CRAB_ERR_UNKNOWN_OP);
    SEND(s, hello, .version_min = 1, .version_max = 1);
    expect_error(s, CRAB_ERR_BAD_STATE);
    play(s);
}

/* A stream with a bit of everything; some of its requests change the session. */
static void build_mixed_stream(struct scene *s)
{
    const uint8_t quiet = CRAB_FLAG_QUIET | CRAB_FLAG_TAG;
    SEND(s, hello, .version_min = 1, .version_max = 1, .features = 1, VALUE("splitter"));
    SEND(s, put, KEY("key"), VALUE("a value of some length"), .flags = CRAB_FLAG_TAG | CRAB_PUT_TTL, .tag = 1,
         .ttl_ms = 5000);
    SEND(s, get, KEY("key"), .flags = CRAB_FLAG_EXT, .ext = crab_slice_of("\1\0\2\0ab", 6));
    SEND(s, incr, KEY("key"), .flags = quiet, .tag = 2, .delta = 1);
    send_raw(s, 0x0f, CRAB_FLAG_TAG, 3, 20, "\3\0\0\0................", 20);
    send_raw(s, CRAB_OP_AUTH, 0, 1, 1026, NULL, 0); /* the secret is too long: skipped */
    uint8_t secret[1026] = {0};
    dispatch_bytes_add(&s->stream, secret, sizeof secret);
    SEND(s, incr, KEY("n"), .flags = CRAB_INCR_INITIAL | CRAB_INCR_TTL, .initial = 5, .ttl_ms = 7);
    SEND(s, decr, KEY("n"), .flags = CRAB_FLAG_TAG, .tag = 9, .delta = 2);
    send_raw(s, CRAB_OP_EXPIRE, 0, 1, 9, "\0\0\0\0\0\0\0\0k", 9);
    SEND(s, del, KEY("key"), .flags = quiet, .tag = 4);
    SEND(s, get, KEY("key"));
    SEND(s, ping, .flags = 0);
    send_raw(s, CRAB_OP_GET, 0, 1, 2, "xy", 2);
}

/* However the stream is cut, in two at every byte or into equal pieces, the answers are the same. */
static void test_every_split(void **state)
{
    struct scene *s = scene_of(state);
    build_mixed_stream(s);
    dispatch_peer_feed(s->peer, s->stream.data, s->stream.len);
    assert_true(s->peer->closed);
    dispatch_bytes_add(&s->expected, s->peer->answers.data, s->peer->answers.len);
    assert_true(s->expected.len > 200);
    for (size_t cut = 1; cut < s->stream.len; cut++) {
        dispatch_peer_reset(s->peer, true);
        dispatch_peer_feed(s->peer, s->stream.data, cut);
        dispatch_peer_feed(s->peer, s->stream.data + cut, s->stream.len - cut);
        assert_int_equal(s->peer->answers.len, s->expected.len);
        assert_memory_equal(s->peer->answers.data, s->expected.data, s->expected.len);
        assert_true(s->peer->closed);
    }
    for (size_t piece = 1; piece < 80; piece++) {
        dispatch_peer_reset(s->peer, true);
        dispatch_peer_feed_pieces(s->peer, s->stream.data, s->stream.len, piece);
        assert_int_equal(s->peer->answers.len, s->expected.len);
        assert_memory_equal(s->peer->answers.data, s->expected.data, s->expected.len);
    }
}

/* Execute one connection's input; each of its requests must be answered by this VALUE. */
static void expect_values(struct scene *s, struct session *session, const uint8_t *in, size_t len, const char *value)
{
    struct dispatch_result result;
    struct buf_out *out = &s->peer->out;
    dispatch_run(s->peer->dispatch, session, in, len, out, &result);
    assert_int_equal(result.next, DISPATCH_INPUT);
    assert_int_equal(result.consumed, len);
    size_t at = 0;
    for (; at < out->len; at += CRAB_REPLY_HEADER + strlen(value)) {
        assert_int_equal(out->data[at], CRAB_REP_VALUE);
        assert_memory_equal(out->data + at + CRAB_REPLY_HEADER, value, strlen(value));
    }
    assert_int_equal(at, out->len);
    assert_int_not_equal(at, 0);
    buf_out_reset(out);
}

/* An input that was announced is decoded ahead of its turn. That must not be seen: neither when requests before it change what it
 * asks for, nor when another input comes, nor when something else stands in its place by then. */
static void test_announced_input(void **state)
{
    struct scene *s = scene_of(state);
    struct session sessions[2] = {{.started = true}, {.started = true}};
    SEND(s, put, KEY("one"), VALUE("1111"));
    SEND(s, put, KEY("two"), VALUE("2222"));
    EXPECT(s, ok, );
    EXPECT(s, ok, );
    play(s);
    for (unsigned requests = 1; requests <= 200; requests = requests * 3 / 2 + 1) {
        for (unsigned i = 0; i < requests; i++)
            SEND(s, get, KEY("one"));
        size_t len = s->stream.len;
        for (unsigned i = 0; i < requests; i++)
            SEND(s, get, KEY("two"));
        uint8_t *ones = s->stream.data, *twos = s->stream.data + len;
        assert_int_equal(s->stream.len, 2 * len);

        dispatch_announce(s->peer->dispatch, twos, len); /* it comes, and so does the next one, which nobody announced */
        expect_values(s, &sessions[0], ones, len, "1111");
        expect_values(s, &sessions[1], twos, len, "2222");
        expect_values(s, &sessions[0], ones, len, "1111");

        dispatch_announce(s->peer->dispatch, twos, len); /* another one comes first, and then something else is there */
        expect_values(s, &sessions[0], ones, len, "1111");
        expect_values(s, &sessions[0], ones, len, "1111");
        memcpy(twos, ones, len);
        expect_values(s, &sessions[1], twos, len, "1111");

        dispatch_announce(s->peer->dispatch, twos, len); /* it does not count any more */
        expect_values(s, &sessions[0], ones, len, "1111");
        dispatch_announce(s->peer->dispatch, NULL, 0);
        memcpy(twos, ones, len - 3);
        memcpy(twos + len - 3, "two", 3);
        struct dispatch_result result;
        dispatch_run(s->peer->dispatch, &sessions[1], twos, len, &s->peer->out, &result);
        assert_memory_equal(s->peer->out.data + s->peer->out.len - 4, "2222", 4);
        buf_out_reset(&s->peer->out);

        dispatch_announce(s->peer->dispatch, twos, len - 1); /* of part of a frame, too; and it may be shorter than announced */
        expect_values(s, &sessions[0], ones, len, "1111");
        dispatch_run(s->peer->dispatch, &sessions[1], twos, len - 1, &s->peer->out, &result);
        assert_int_equal(result.consumed, len - len / requests);
        buf_out_reset(&s->peer->out);
        s->stream.len = 0;
    }
}

/* What an announced input asks for is what there is when its turn comes. */
static void test_announced_input_sees_what_came_before(void **state)
{
    struct scene *s = scene_of(state);
    struct session sessions[2] = {{.started = true}, {.started = true}};
    SEND(s, put, KEY("k"), VALUE("old"));
    EXPECT(s, ok, );
    play(s);
    SEND(s, put, KEY("k"), VALUE("new"));
    size_t len = s->stream.len;
    SEND(s, get, KEY("k"));
    struct dispatch_result result;
    dispatch_announce(s->peer->dispatch, s->stream.data + len, s->stream.len - len);
    dispatch_run(s->peer->dispatch, &sessions[0], s->stream.data, len, &s->peer->out, &result);
    assert_int_equal(s->peer->out.len, 1);
    buf_out_reset(&s->peer->out);
    expect_values(s, &sessions[1], s->stream.data + len, s->stream.len - len, "new");
}

/* Long pipelines, with answers that fill the output many times and values that are referred to. */
static void test_output_fills(void **state)
{
    struct scene *s = scene_of(state);
    static uint8_t value[60000];
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)(i * 7);
    const size_t sizes[] = {100, 16383, 16384, 16385, 60000};
    for (size_t i = 0; i < 5; i++) {
        uint8_t name = (uint8_t)('a' + i);
        SEND(s, put, .key = {&name, 1}, .value = {value, sizes[i]});
        EXPECT(s, ok, .tag = 0);
    }
    for (unsigned i = 0; i < 200; i++) {
        uint8_t name = (uint8_t)('a' + i % 5);
        SEND(s, get, .key = {&name, 1}, .flags = CRAB_FLAG_TAG, .tag = i);
        EXPECT(s, value, .value = {value, sizes[i % 5]}, .tagged = true, .tag = i);
    }
    play(s);
    struct store_stats stats;
    store_stats(s->peer->store, &stats);
    assert_int_equal(stats.pinned, 0);
    assert_true(stats_read(&s->peer->stats.workers->values_by_reference) > 0);
}

/* How many frames one call executes. */
static size_t frames_per_turn(struct scene *s, size_t frame_size, enum dispatch_next next)
{
    struct dispatch_result result;
    struct dispatch_peer *peer = s->peer;
    dispatch_run(peer->dispatch, &peer->session, s->stream.data, s->stream.len, &peer->out, &result);
    assert_int_equal(result.next, next);
    assert_int_equal(result.consumed % frame_size, 0);
    buf_out_drop(&peer->out, dispatch_releaser(peer->dispatch));
    s->stream.len = 0;
    return result.consumed / frame_size;
}

/* A call ends after a bounded amount of work, however much input waits. */
static void test_turns(void **state)
{
    struct scene *s = scene_of(state);
    for (unsigned i = 0; i < 5000; i++)
        SEND(s, ping, .flags = 0);
    assert_int_equal(frames_per_turn(s, 8, DISPATCH_TURN), DISPATCH_TURN_COST);
    for (unsigned i = 0; i < DISPATCH_TURN_COST; i++)
        SEND(s, ping, .flags = 0);
    assert_int_equal(frames_per_turn(s, 8, DISPATCH_INPUT), DISPATCH_TURN_COST);
    for (unsigned i = 0; i < 500; i++)
        SEND(s, flush, .flags = 0);
    assert_int_equal(frames_per_turn(s, 8, DISPATCH_TURN), 64);
    for (unsigned i = 0; i < 20; i++)
        SEND(s, auth, KEY("me"), VALUE("x")); /* without users it costs nothing */
    assert_int_equal(frames_per_turn(s, 11, DISPATCH_INPUT), 20);
}

static void test_busy_refusal(void **state)
{
    struct scene *s = scene_of(state);
    struct dispatch_result result;
    uint8_t head[DISPATCH_HEAD_BYTES] = {CRAB_OP_PUT, CRAB_FLAG_TAG, 1};
    crab_store_u32(head + 4, 100000);
    crab_store_u32(head + 8, 77);
    EXPECT(s, error, .tagged = true, .tag = 77, .code = CRAB_ERR_BUSY,
           .text = crab_slice_str(crab_error_text(CRAB_ERR_BUSY)));
    dispatch_refuse(s->peer->dispatch, &s->peer->session, head, sizeof head, &s->peer->out, &result);
    assert_int_equal(result.next, DISPATCH_INPUT);
    assert_int_equal(result.consumed, sizeof head);
    assert_int_equal(result.skip, 100008 - sizeof head);
    assert_int_equal(s->peer->out.len, s->expected.len);
    assert_memory_equal(s->peer->out.data, s->expected.data, s->expected.len);
    buf_out_drop(&s->peer->out, dispatch_releaser(s->peer->dispatch));
}

/* Where the store pins no more, a large value is copied; where the budget has no room for it, BUSY. */
static void test_large_values_without_pins(void **state)
{
    (void)state;
    struct scene s = {.peer = dispatch_peer_create(&(struct dispatch_peer_config){
                          .memory_bytes = STORE_MIN_MEMORY, .budget_bytes = 64 << 10, .max_value = MAX_VALUE})};
    static uint8_t value[40000];
    struct store_worker *other;
    struct store_view views[64];
    unsigned pinned = 0;
    assert_int_equal(store_worker_attach(s.peer->store, &other), 0);
    for (uint8_t i = 0; i < 40; i++) {
        SEND(&s, put, .key = {&i, 1}, .value = {value, sizeof value});
        dispatch_peer_feed(s.peer, s.stream.data, s.stream.len);
        s.stream.len = 0;
        struct store_key key = store_key(s.peer->store, &i, 1);
        if (store_get(other, &key, &views[pinned]) == STORE_OK && store_pin(other, &views[pinned]))
            pinned++;
        store_quiesce(other);
    }
    assert_true(pinned > 2);
    struct store_put_args args = {.value = value, .value_len = 20000, .ttl_ms = STORE_NEVER};
    struct store_key small = store_key(s.peer->store, (const uint8_t *)"20k", 3);
    struct store_key large = store_key(s.peer->store, (const uint8_t *)"65k", 3);
    assert_int_equal(store_put(other, &small, &args, NULL), STORE_OK);
    args.value_len = 40000;
    args.value = value;
    assert_int_equal(store_put(other, &large, &args, NULL), STORE_OK);
    uint64_t by_reference = stats_read(&s.peer->stats.workers->values_by_reference);

    buf_budget_charge(&s.peer->budget, 1, BUF_FOR_PIECES); /* no buffer of 64 KiB any more, but one of 16 KiB */
    SEND(&s, get, KEY("65k"));
    union crab_reply reply = ask(&s);
    bool could_pin = stats_read(&s.peer->stats.workers->values_by_reference) != by_reference;
    assert_true(could_pin || (reply.head.op == CRAB_REP_ERROR && reply.error.code == CRAB_ERR_BUSY));
    SEND(&s, get, KEY("65k"), .flags = CRAB_GET_TTL, .ttl_ms = 1000);
    reply = ask(&s);
    assert_true(could_pin || (reply.head.op == CRAB_REP_ERROR && reply.error.code == CRAB_ERR_INTERNAL));
    assert_false(could_pin); /* or else this test tests nothing */
    buf_budget_release(&s.peer->budget, 1);
    s.peer->budget.limit = 1 << 20;
    SEND(&s, get, KEY("20k"));
    reply = ask(&s);
    assert_int_equal(reply.head.op, CRAB_REP_VALUE);
    assert_int_equal(reply.value.value.len, 20000);
    assert_int_equal(stats_read(&s.peer->stats.workers->values_by_reference), by_reference);
    while (pinned > 0)
        store_unpin(other, views[--pinned].pin);
    store_worker_detach(other);
    dispatch_peer_destroy(s.peer);
    free(s.stream.data);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct scene s = {.peer = dispatch_peer_create(&(struct dispatch_peer_config){
                          .memory_bytes = STORE_MIN_MEMORY, .eviction = STORE_REFUSE, .max_value = MAX_VALUE})};
    static uint8_t value[30000];
    bool refused = false;
    for (unsigned i = 0; i < 200 && !refused; i++) {
        SEND(&s, put, .key = crab_slice_of(&i, sizeof i), .value = {value, sizeof value});
        union crab_reply reply = ask(&s);
        refused = reply.head.op == CRAB_REP_ERROR;
        if (refused)
            assert_int_equal(reply.error.code, CRAB_ERR_OUT_OF_MEMORY);
    }
    assert_true(refused);
    dispatch_peer_destroy(s.peer);
    free(s.stream.data);
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
    struct scene s = {.peer = dispatch_peer_create(&(struct dispatch_peer_config){.auth = auth, .max_value = MAX_VALUE})};
    say_hello(&s);
    SEND(&s, ping, .flags = 0);
    EXPECT(&s, pong, .tag = 0);
    SEND(&s, get, KEY("k"));
    SEND(&s, put, KEY("k"), VALUE("v"));
    SEND(&s, del, KEY("k"));
    SEND(&s, expire, KEY("k"), .ttl_ms = 1);
    SEND(&s, stats, .flags = 0);
    SEND(&s, flush, .flags = 0);
    SEND(&s, incr, KEY("k"), .delta = 1);
    SEND(&s, decr, KEY("k"), .delta = 1);
    for (int i = 0; i < 8; i++)
        expect_error(&s, CRAB_ERR_AUTH_REQUIRED);
    SEND(&s, del, KEY("k"), .flags = CRAB_FLAG_QUIET | CRAB_FLAG_TAG, .tag = 2);
    expect_late(&s, 2, CRAB_ERR_AUTH_REQUIRED);
    send_raw(&s, CRAB_OP_EXPIRE, 0, 1, 9, "\0\0\0\0\0\0\0\0k", 9); /* check 12 comes after */
    expect_error(&s, CRAB_ERR_AUTH_REQUIRED);
    send_raw(&s, CRAB_OP_GET, 0, 0, 0, "", 0); /* check 7 comes before */
    expect_error(&s, CRAB_ERR_BAD_KEY);
    send_raw(&s, 0x0e, 0, 0, 0, "", 0);
    expect_error(&s, CRAB_ERR_UNKNOWN_OP);
    SEND(&s, auth, KEY("ali"), VALUE("wrong"));
    expect_error(&s, CRAB_ERR_AUTH_FAILED);
    play(&s);
    /* Over 4,096 bytes: refused from the head, whatever the op. */
    uint8_t body[5000] = {0};
    crab_store_u16(body, 4994);
    crab_store_u16(body + 4, 4990);
    send_raw(&s, CRAB_OP_PING, CRAB_FLAG_EXT, 0, 4996, body, 100);
    expect_error(&s, CRAB_ERR_AUTH_REQUIRED);
    play(&s);
    assert_int_equal(s.peer->skip, 4896);
    dispatch_peer_feed(s.peer, body, 4896);
    s.peer->session.authenticated = true;
    SEND(&s, get, KEY("k"));
    EXPECT(&s, null, .tag = 0);
    play(&s);
    /* An AUTH ends the turn; the third failure the connection. */
    for (int i = 0; i < 3; i++)
        SEND(&s, auth, KEY("ali"), VALUE("wrong"));
    struct dispatch_result result;
    dispatch_run(s.peer->dispatch, &s.peer->session, s.stream.data, s.stream.len, &s.peer->out, &result);
    assert_int_equal(result.next, DISPATCH_TURN);
    assert_int_equal(result.consumed, s.stream.len / 3);
    buf_out_drop(&s.peer->out, dispatch_releaser(s.peer->dispatch));
    expect_error(&s, CRAB_ERR_AUTH_FAILED);
    EXPECT_MESSAGE(&s, push_goaway, .code = CRAB_ERR_AUTH_FAILED,
                   .text = crab_slice_str(crab_error_text(CRAB_ERR_AUTH_FAILED)));
    play(&s);
    assert_true(s.peer->closed);
    dispatch_peer_destroy(s.peer);
    auth_destroy(auth);
    free(s.stream.data);
    free(s.expected.data);
}

static void test_goaway(void **state)
{
    struct scene *s = scene_of(state);
    dispatch_goaway(s->peer->dispatch, &s->peer->session, CRAB_ERR_SHUTTING_DOWN, &s->peer->out);
    assert_int_equal(s->peer->out.len, 0);
    s->peer->session.features = CRAB_FEATURE_PUSH;
    dispatch_goaway(s->peer->dispatch, &s->peer->session, CRAB_ERR_SHUTTING_DOWN, &s->peer->out);
    assert_int_equal(s->peer->out.data[0], CRAB_PUSH_GOAWAY);
    buf_out_drop(&s->peer->out, dispatch_releaser(s->peer->dispatch));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_put_get_del),
        TEST(test_conditions_and_versions),
        TEST(test_meta_ttl_and_touch),
        TEST(test_numbers),
        TEST(test_stats_sections),
        TEST(test_tags),
        TEST(test_quiet),
        TEST(test_errors_of_frames),
        TEST(test_values_too_large_are_skipped),
        TEST(test_fatal_errors),
        TEST(test_hello_states),
        TEST(test_every_split),
        TEST(test_announced_input),
        TEST(test_announced_input_sees_what_came_before),
        TEST(test_output_fills),
        TEST(test_turns),
        TEST(test_busy_refusal),
        cmocka_unit_test(test_large_values_without_pins),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_auth_states),
        TEST(test_goaway),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
