/* SPDX-License-Identifier: MIT */
/*
 * Requests in, expected answers beside them: the sequence that every test of dispatch goes through, written once.
 */
#include "tests/support/dispatch_scene.h"

#include <stdlib.h>

#include "crabcache/version.h"

struct scene *scene_create(struct dispatch_peer_config config)
{
    struct scene *s = calloc(1, sizeof *s);
    assert_non_null(s);
    config.max_value = SCENE_MAX_VALUE;
    s->peer = dispatch_peer_create(&config);
    return s;
}

void scene_destroy(struct scene *s)
{
    dispatch_peer_destroy(s->peer);
    free(s->stream.data);
    free(s->expected.data);
    free(s);
}

int scene_set_up(void **state)
{
    *state = scene_create((struct dispatch_peer_config){0});
    return 0;
}

int scene_tear_down(void **state)
{
    scene_destroy(*state);
    return 0;
}

void scene_send_raw(struct scene *s, uint8_t op, uint8_t flags, uint16_t klen, uint32_t blen, const void *body, size_t len)
{
    uint8_t header[CRAB_REQUEST_HEADER] = {op, flags};
    crab_store_u16(header + 2, klen);
    crab_store_u32(header + 4, blen);
    dispatch_bytes_add(&s->stream, header, sizeof header);
    dispatch_bytes_add(&s->stream, body, len);
}

void scene_say_hello(struct scene *s)
{
    SEND(s, hello, .version_min = 1, .version_max = 9, .features = 0xffffffff);
    EXPECT(s, welcome, .version = 1, .features = CRAB_FEATURE_PUSH, .max_key = CRAB_MAX_KEY, .max_value = SCENE_MAX_VALUE,
           .max_in_flight = CRAB_MAX_IN_FLIGHT, .server_name = crab_slice_str("crabcache-server " CRAB_VERSION_STRING));
}

void scene_expect_error(struct scene *s, uint16_t code)
{
    EXPECT(s, error, .code = code, .text = crab_slice_str(crab_error_text(code)));
}

void scene_expect_late(struct scene *s, uint32_t tag, uint16_t code)
{
    EXPECT_PUSH(s, late_error, .late_tag = tag, .code = code, .text = crab_slice_str(crab_error_text(code)));
}

void scene_play(struct scene *s)
{
    size_t before = s->peer->answers.len;
    dispatch_peer_feed(s->peer, s->stream.data, s->stream.len);
    assert_int_equal(s->peer->answers.len - before, s->expected.len);
    if (s->expected.len != 0)
        assert_memory_equal(s->peer->answers.data + before, s->expected.data, s->expected.len);
    s->stream.len = 0;
    s->expected.len = 0;
}

union crab_reply scene_ask(struct scene *s)
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
