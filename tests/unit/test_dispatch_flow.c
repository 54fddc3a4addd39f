/* SPDX-License-Identifier: MIT */
/*
 * How bytes flow through dispatch, without a socket: the way in which a stream is cut never changes an answer, nor does decoding
 * ahead; outputs that fill, turns that end, and what is refused when memory is short. What is answered: test_dispatch.c.
 */
#include <string.h>

#include "tests/support/dispatch_scene.h"

/* A stream with a bit of everything; some of its requests change the session. */
static void build_mixed_stream(struct scene *s)
{
    const uint8_t quiet = CRAB_FLAG_QUIET | CRAB_FLAG_TAG;
    SEND(s, hello, .version_min = 1, .version_max = 1, .features = 1, VALUE("splitter"));
    SEND(s, put, KEY("key"), VALUE("a value of some length"), .flags = CRAB_FLAG_TAG | CRAB_PUT_TTL, .tag = 1,
         .ttl_ms = 5000);
    SEND(s, get, KEY("key"), .flags = CRAB_FLAG_EXT, .ext = crab_slice_of("\1\0\2\0ab", 6));
    SEND(s, incr, KEY("key"), .flags = quiet, .tag = 2, .delta = 1);
    scene_send_raw(s, 0x0f, CRAB_FLAG_TAG, 3, 20, "\3\0\0\0................", 20);
    scene_send_raw(s, CRAB_OP_AUTH, 0, 1, 1026, NULL, 0); /* the secret is too long: skipped */
    uint8_t secret[1026] = {0};
    dispatch_bytes_add(&s->stream, secret, sizeof secret);
    SEND(s, incr, KEY("n"), .flags = CRAB_INCR_INITIAL | CRAB_INCR_TTL, .initial = 5, .ttl_ms = 7);
    SEND(s, decr, KEY("n"), .flags = CRAB_FLAG_TAG, .tag = 9, .delta = 2);
    scene_send_raw(s, CRAB_OP_EXPIRE, 0, 1, 9, "\0\0\0\0\0\0\0\0k", 9);
    SEND(s, del, KEY("key"), .flags = quiet, .tag = 4);
    SEND(s, get, KEY("key"));
    SEND(s, ping, .flags = 0);
    scene_send_raw(s, CRAB_OP_GET, 0, 1, 2, "xy", 2);
}

/* However the stream is cut, in two at every byte or into equal pieces, the answers are the same. */
static void test_every_split(void **state)
{
    struct scene *s = *state;
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
    struct scene *s = *state;
    struct session sessions[2] = {{.started = true}, {.started = true}};
    SEND(s, put, KEY("one"), VALUE("1111"));
    SEND(s, put, KEY("two"), VALUE("2222"));
    EXPECT(s, ok, );
    EXPECT(s, ok, );
    scene_play(s);
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

/* An announced input without a whole frame takes its turn, too; after it, nothing is left of the batch before it. */
static void test_announced_part_of_a_frame(void **state)
{
    struct scene *s = *state;
    struct session sessions[2] = {{.started = true}, {.started = true}};
    SEND(s, put, KEY("one"), VALUE("1111"));
    SEND(s, put, KEY("two"), VALUE("2222"));
    EXPECT(s, ok, );
    EXPECT(s, ok, );
    scene_play(s);
    SEND(s, get, KEY("one"));
    size_t len = s->stream.len;
    SEND(s, get, KEY("two"));
    uint8_t *one = s->stream.data, *two = one + len;
    struct dispatch_result result;
    dispatch_announce(s->peer->dispatch, two, len - 1);
    expect_values(s, &sessions[0], one, len, "1111");
    dispatch_run(s->peer->dispatch, &sessions[1], two, len - 1, &s->peer->out, &result);
    assert_int_equal(result.next, DISPATCH_INPUT);
    assert_int_equal(result.consumed, 0);
    assert_int_equal(result.need, len);
    memcpy(one, two, len);
    expect_values(s, &sessions[0], one, len, "2222");
}

/* What an announced input asks for is what there is when its turn comes. */
static void test_announced_input_sees_what_came_before(void **state)
{
    struct scene *s = *state;
    struct session sessions[2] = {{.started = true}, {.started = true}};
    SEND(s, put, KEY("k"), VALUE("old"));
    EXPECT(s, ok, );
    scene_play(s);
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
    struct scene *s = *state;
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
    scene_play(s);
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
    struct scene *s = *state;
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
    struct scene *s = *state;
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
    struct scene *s = scene_create((struct dispatch_peer_config){.memory_bytes = STORE_MIN_MEMORY, .budget_bytes = 64 << 10});
    static uint8_t value[40000];
    struct store_worker *other;
    struct store_view views[64];
    unsigned pinned = 0;
    assert_int_equal(store_worker_attach(s->peer->store, &other), 0);
    for (uint8_t i = 0; i < 40; i++) {
        SEND(s, put, .key = {&i, 1}, .value = {value, sizeof value});
        dispatch_peer_feed(s->peer, s->stream.data, s->stream.len);
        s->stream.len = 0;
        struct store_key key = store_key(s->peer->store, &i, 1);
        if (store_get(other, &key, &views[pinned]) == STORE_OK && store_pin(other, &views[pinned]))
            pinned++;
        store_quiesce(other);
    }
    assert_true(pinned > 2);
    struct store_put_args args = {.value = value, .value_len = 20000, .ttl_ms = STORE_NEVER};
    struct store_key small = store_key(s->peer->store, (const uint8_t *)"20k", 3);
    struct store_key large = store_key(s->peer->store, (const uint8_t *)"65k", 3);
    assert_int_equal(store_put(other, &small, &args, NULL), STORE_OK);
    args.value_len = 40000;
    args.value = value;
    assert_int_equal(store_put(other, &large, &args, NULL), STORE_OK);
    uint64_t by_reference = stats_read(&s->peer->stats.workers->values_by_reference);

    buf_budget_charge(&s->peer->budget, 1, BUF_FOR_PIECES); /* no buffer of 64 KiB any more, but one of 16 KiB */
    SEND(s, get, KEY("65k"));
    union crab_reply reply = scene_ask(s);
    bool could_pin = stats_read(&s->peer->stats.workers->values_by_reference) != by_reference;
    assert_true(could_pin || (reply.head.op == CRAB_REP_ERROR && reply.error.code == CRAB_ERR_BUSY));
    SEND(s, get, KEY("65k"), .flags = CRAB_GET_TTL, .ttl_ms = 1000);
    reply = scene_ask(s);
    assert_true(could_pin || (reply.head.op == CRAB_REP_ERROR && reply.error.code == CRAB_ERR_INTERNAL));
    assert_false(could_pin); /* or else this test tests nothing */
    buf_budget_release(&s->peer->budget, 1);
    s->peer->budget.limit = 1 << 20;
    SEND(s, get, KEY("20k"));
    reply = scene_ask(s);
    assert_int_equal(reply.head.op, CRAB_REP_VALUE);
    assert_int_equal(reply.value.value.len, 20000);
    assert_int_equal(stats_read(&s->peer->stats.workers->values_by_reference), by_reference);
    while (pinned > 0)
        store_unpin(other, views[--pinned].pin);
    store_worker_detach(other);
    scene_destroy(s);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct scene *s = scene_create((struct dispatch_peer_config){.memory_bytes = STORE_MIN_MEMORY, .eviction = STORE_REFUSE});
    static uint8_t value[30000];
    bool refused = false;
    for (unsigned i = 0; i < 200 && !refused; i++) {
        SEND(s, put, .key = crab_slice_of(&i, sizeof i), .value = {value, sizeof value});
        union crab_reply reply = scene_ask(s);
        refused = reply.head.op == CRAB_REP_ERROR;
        if (refused)
            assert_int_equal(reply.error.code, CRAB_ERR_OUT_OF_MEMORY);
    }
    assert_true(refused);
    scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(test_every_split),
        SCENE_TEST(test_announced_input),
        SCENE_TEST(test_announced_part_of_a_frame),
        SCENE_TEST(test_announced_input_sees_what_came_before),
        SCENE_TEST(test_output_fills),
        SCENE_TEST(test_turns),
        SCENE_TEST(test_busy_refusal),
        cmocka_unit_test(test_large_values_without_pins),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
