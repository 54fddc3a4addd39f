/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What the tests of dispatch share: a peer, the stream that it sends, and the answers that it expects.
 *
 * A failure fails the running cmocka test.
 */
#ifndef CRABCACHE_TESTS_DISPATCH_SCENE_H
#define CRABCACHE_TESTS_DISPATCH_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crabcache/wire.h"
#include "tests/support/dispatch_peer.h"

#define SCENE_MAX_VALUE (1U << 20)

/** A test's server, what is sent to it and what it has to answer. */
struct scene {
    struct dispatch_peer *peer;
    struct dispatch_bytes stream;
    struct dispatch_bytes expected;
};

/** A test that takes a `struct scene` as its state. */
#define SCENE_TEST(function) cmocka_unit_test_setup_teardown(function, scene_set_up, scene_tear_down)

#define KEY(text) .key = {(const uint8_t *)(text), sizeof(text) - 1}
#define VALUE(text) .value = {(const uint8_t *)(text), sizeof(text) - 1}

/** SEND(s, put, KEY("k"), VALUE("v"), .flags = ...) */
#define SEND(s, type, ...) SCENE_ADD(&(s)->stream, req_##type, __VA_ARGS__)

/** EXPECT(s, value, VALUE("v"), .tagged = true, .tag = 1) */
#define EXPECT(s, type, ...) SCENE_ADD(&(s)->expected, rep_##type, __VA_ARGS__)
#define EXPECT_PUSH(s, type, ...) SCENE_ADD(&(s)->expected, push_##type, __VA_ARGS__)

#define SCENE_ADD(bytes, type, ...)                                                                            \
    do {                                                                                                       \
        struct crab_##type message = {__VA_ARGS__};                                                            \
        uint8_t frame[70000];                                                                                  \
        size_t size = crab_##type##_encode(&message, frame, sizeof frame);                                     \
        assert_int_not_equal(size, 0);                                                                         \
        dispatch_bytes_add(bytes, frame, size);                                                                \
    } while (0)

/** @brief Make a scene; values have at most SCENE_MAX_VALUE bytes. @ownership ended with scene_destroy(). */
struct scene *scene_create(struct dispatch_peer_config config);

/** @brief End a scene. */
void scene_destroy(struct scene *s);

/** @brief Set up a test: a scene with everything at its default. */
int scene_set_up(void **state);

/** @brief End what scene_set_up() made. */
int scene_tear_down(void **state);

/** @brief Send a request that may break the rules: this header, then `len` bytes of the body. */
void scene_send_raw(struct scene *s, uint8_t op, uint8_t flags, uint16_t klen, uint32_t blen, const void *body, size_t len);

/** @brief Send a HELLO that asks for everything, and expect WELCOME. */
void scene_say_hello(struct scene *s);

/** @brief Expect ERROR with its usual text. */
void scene_expect_error(struct scene *s, uint16_t code);

/** @brief Expect LATE_ERROR with its usual text. */
void scene_expect_late(struct scene *s, uint32_t tag, uint16_t code);

/** @brief Feed all of the stream, and compare all answers. */
void scene_play(struct scene *s);

/** @brief Feed the stream, which is one request; its reply. @ownership the reply borrows until the next call */
union crab_reply scene_ask(struct scene *s);

#endif
