/* SPDX-License-Identifier: MIT */
/*
 * The C codec at its edges. tests/unit/test_vectors.c runs the conformance vectors; here stands what vectors
 * can't show: bounded encoders, agreement of size and encode, round trips of random messages, and that no byte
 * is read outside the buffer (each input lies at the end of an allocation of its own, so that the sanitizers see).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crabcache/wire.h"

#define CHECKED_MAX_VALUE 1000U

static uint64_t random_state = 0x9E3779B97F4A7C15U;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* A random number whose size is random too, so that edges come up. */
static uint64_t random_number(void)
{
    uint64_t bits = next_random();
    return bits >> (next_random() % 64);
}

static uint64_t random_ttl(void)
{
    uint64_t ttl = random_number();
    if (next_random() % 8 == 0)
        return CRAB_TTL_NEVER;
    return ttl == 0 || ttl > CRAB_TTL_MAX_MS ? 1 + ttl % CRAB_TTL_MAX_MS : ttl;
}

static const uint8_t noise[4096] = "\x00\xff noise, and nothing else";

static struct crab_slice random_slice(size_t least, size_t most)
{
    return crab_slice_of(noise + next_random() % 1024, least + next_random() % (most - least + 1));
}

/* Decode from a heap block of exactly `len` bytes. */
static enum crab_decode decode_tight(const uint8_t *bytes, size_t len, union crab_request *request,
                                     struct crab_frame *frame, uint8_t **block)
{
    *block = (uint8_t *)malloc(len == 0 ? 1 : len);
    assert_non_null(*block);
    memcpy(*block, bytes, len);
    return crab_request_decode(len == 0 ? *block + 1 : *block, len, CHECKED_MAX_VALUE, request, frame);
}

static void random_request(union crab_request *m)
{
    static const uint8_t ext[] = {1, 0, 2, 0, 'a', 'b', 9, 9 & 0x7F, 0, 0};
    static const uint8_t ops[] = {
#define OP(lower, UPPER) CRAB_OP_##UPPER,
        CRAB_FOR_EACH_REQUEST(OP)
#undef OP
    };
    memset(m, 0, sizeof *m);
    m->head.op = ops[next_random() % sizeof ops];
    m->head.flags = (uint8_t)(next_random() & 0x1F);
    if (next_random() % 2 == 0) {
        m->head.flags |= CRAB_FLAG_TAG;
        m->head.tag = (uint32_t)next_random();
        if (crab_op_is_write(m->head.op) && next_random() % 2 == 0)
            m->head.flags |= CRAB_FLAG_QUIET;
    }
    if (next_random() % 4 == 0) {
        m->head.flags |= CRAB_FLAG_EXT;
        m->head.ext = crab_slice_of(ext, next_random() % 2 == 0 ? sizeof ext : 0);
    }
    m->head.key = random_slice(1, 300);
    switch (m->head.op) {
    case CRAB_OP_PUT:
        m->put.ttl_ms = random_ttl();
        m->put.app_flags = (uint32_t)next_random();
        m->put.version = random_number() | 1;
        m->head.value = random_slice(0, CHECKED_MAX_VALUE);
        break;
    case CRAB_OP_GET:
        m->get.ttl_ms = random_ttl();
        break;
    case CRAB_OP_EXPIRE:
        m->expire.ttl_ms = random_ttl();
        break;
    case CRAB_OP_HELLO:
        m->head.key.len = 0;
        m->hello.version_min = 1;
        m->hello.version_max = (uint8_t)(1 + next_random() % 255);
        m->hello.features = (uint32_t)next_random();
        m->head.value = random_slice(0, 255);
        break;
    case CRAB_OP_AUTH:
        m->head.key.len = 1 + m->head.key.len % CRAB_MAX_USER;
        m->head.value = random_slice(0, CRAB_MAX_SECRET);
        break;
    case CRAB_OP_INCR:
    case CRAB_OP_DECR:
        if ((m->head.flags & CRAB_INCR_INITIAL) == 0)
            m->head.flags &= (uint8_t)~CRAB_INCR_TTL;
        m->incr.delta = random_number();
        m->incr.ttl_ms = random_ttl();
        m->incr.initial = (int64_t)next_random();
        break;
    case CRAB_OP_STATS:
        m->head.key.len %= CRAB_MAX_SECTION + 1;
        break;
    case CRAB_OP_PING:
    case CRAB_OP_FLUSH:
        m->head.key.len = 0;
        break;
    default:
        break;
    }
}

/* encode(m) fills exactly size(m), decodes as the same message, and needs more at every shorter length. */
static void random_requests_round_trip(void **state)
{
    (void)state;
    static uint8_t buf[8192], again[8192];
    for (int round = 0; round < 20000; round++) {
        union crab_request m, back;
        struct crab_frame frame;
        uint8_t *block;
        random_request(&m);
        size_t size = crab_request_size(&m);
        assert_true(size >= CRAB_REQUEST_HEADER && size <= sizeof buf);
        assert_int_equal(crab_request_encode(&m, buf, size), size);

        assert_int_equal(decode_tight(buf, size, &back, &frame, &block), CRAB_WHOLE);
        assert_int_equal(frame.size, size);
        assert_int_equal(back.head.op, m.head.op);
        assert_int_equal(back.head.key.len, m.head.key.len);
        assert_int_equal(back.head.value.len, m.head.value.len);
        assert_memory_equal(back.head.key.data, m.head.key.data, m.head.key.len);
        if (m.head.value.len != 0)
            assert_memory_equal(back.head.value.data, m.head.value.data, m.head.value.len);
        assert_int_equal(crab_request_encode(&back, again, sizeof again), size);
        assert_memory_equal(again, buf, size);
        free(block);

        size_t cut = next_random() % size;
        assert_int_equal(decode_tight(buf, cut, &back, &frame, &block), CRAB_NEED_MORE);
        assert_true(frame.size > cut && frame.size <= size);
        free(block);
    }
}

/* Whatever room is given, an encoder stays inside it, and writes nothing if it is too little. */
static void encoders_stay_in_bounds(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        union crab_request m;
        random_request(&m);
        size_t size = crab_request_size(&m);
        size_t step = 1 + size / 64;
        for (size_t cap = 0; cap < size; cap += step) {
            uint8_t *room = (uint8_t *)malloc(cap + 1);
            assert_non_null(room);
            memset(room, 0xEE, cap + 1);
            assert_int_equal(crab_request_encode(&m, room, cap), 0);
            for (size_t i = 0; i <= cap; i++)
                assert_int_equal(room[i], 0xEE);
            free(room);
        }
        size_t head = size - m.head.value.len;
        uint8_t *room = (uint8_t *)malloc(head);
        assert_non_null(room);
        assert_int_equal(crab_request_encode_head(&m, room, head), head);
        free(room);
    }
}

static const uint64_t extremes[] = {0,          1,          2,          3,         4,          5,
                                    254,        255,        256,        65534,     65535,      65536,
                                    0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF};
#define EXTREMES (sizeof extremes / sizeof extremes[0])

/* Every length field of a request, alone and in pairs, at every extreme: an answer, and no byte read outside. */
static void hostile_request_lengths(void **state)
{
    (void)state;
    for (unsigned op = 0; op < 256; op++) {
        for (size_t i = 0; i < EXTREMES * EXTREMES; i++) {
            uint64_t klen = extremes[i % EXTREMES], blen = extremes[i / EXTREMES];
            for (unsigned flags = 0; flags < 256; flags += 0x20) {
                uint8_t frame_bytes[64] = {0};
                frame_bytes[0] = (uint8_t)op;
                frame_bytes[1] = (uint8_t)(flags | (next_random() & 0x1F));
                crab_store_u16(frame_bytes + 2, (uint16_t)klen);
                crab_store_u32(frame_bytes + 4, (uint32_t)blen);
                crab_store_u16(frame_bytes + 8 + next_random() % 32, (uint16_t)klen); /* often ext_len */

                union crab_request m;
                struct crab_frame frame;
                uint8_t *block;
                size_t len = next_random() % (sizeof frame_bytes + 1);
                enum crab_decode result = decode_tight(frame_bytes, len, &m, &frame, &block);
                if (result == CRAB_WHOLE) {
                    assert_true(frame.size <= len);
                    assert_true(m.head.key.len + m.head.value.len + m.head.ext.len <= frame.size);
                } else if (result == CRAB_NEED_MORE) {
                    assert_true(frame.size > len);
                    assert_true(frame.size <= 8 + (uint64_t)UINT32_MAX);
                } else {
                    assert_non_null(crab_error_name(frame.error));
                    assert_true(crab_error_closes(frame.error) == (frame.size == 0));
                }
                free(block);
            }
        }
    }
}

/* The same for replies: a hostile server sends any length, also inside TAGGED. */
static void hostile_reply_lengths(void **state)
{
    (void)state;
    for (unsigned op = 0; op < 256; op++) {
        for (size_t i = 0; i < EXTREMES * EXTREMES; i++) {
            uint8_t bytes[40] = {0};
            bytes[0] = (uint8_t)op;
            crab_store_u32(bytes + 1, (uint32_t)extremes[i % EXTREMES]);
            bytes[9] = (uint8_t)next_random();
            crab_store_u32(bytes + 10, (uint32_t)extremes[i / EXTREMES]);
            size_t len = next_random() % (sizeof bytes + 1);
            uint8_t *block = (uint8_t *)malloc(len == 0 ? 1 : len);
            assert_non_null(block);
            memcpy(block, bytes, len);
            union crab_reply m;
            struct crab_frame frame;
            uint32_t max_len = (uint32_t)extremes[next_random() % EXTREMES];
            enum crab_decode result = crab_reply_decode(len == 0 ? block + 1 : block, len, max_len, &m, &frame);
            if (result == CRAB_WHOLE)
                assert_true(frame.size <= len);
            else if (result == CRAB_NEED_MORE)
                assert_true(frame.size > len);
            else
                assert_int_equal(frame.size, 0);
            free(block);
        }
    }
}

static size_t put_size(size_t key_len, size_t value_len, uint8_t flags)
{
    struct crab_req_put m = {.flags = flags, .ttl_ms = 1, .version = 1};
    m.key = crab_slice_of(noise, key_len); /* size looks at lengths only */
    m.value = crab_slice_of(noise, value_len);
    return crab_req_put_size(&m);
}

/* Each limit of the specification: the last value that is allowed, and the first that is not. */
static void sizes_at_the_limits(void **state)
{
    (void)state;
    assert_int_equal(put_size(0, 0, 0), 0);
    assert_int_equal(put_size(1, 0, 0), 9);
    assert_int_equal(put_size(CRAB_MAX_KEY, 0, 0), 8 + CRAB_MAX_KEY);
    assert_int_equal(put_size(CRAB_MAX_KEY + 1, 0, 0), 0);
    assert_int_equal(put_size(1, UINT32_MAX - 1, 0), (size_t)8 + UINT32_MAX);
    assert_int_equal(put_size(1, UINT32_MAX, 0), 0);
    assert_int_equal(put_size(1, SIZE_MAX, 0), 0);
    assert_int_equal(put_size(1, 0, CRAB_PUT_IF_ABSENT), 9);
    assert_int_equal(put_size(1, 0, CRAB_PUT_IF_PRESENT), 9);
    assert_int_equal(put_size(1, 0, CRAB_PUT_IF_VERSION), 17);
    assert_int_equal(put_size(1, SIZE_MAX - 7, CRAB_PUT_TTL), 0);

    struct crab_req_auth auth = {.key = crab_slice_of(noise, CRAB_MAX_USER)};
    auth.value = crab_slice_of(noise, CRAB_MAX_SECRET);
    assert_int_not_equal(crab_req_auth_size(&auth), 0);
    auth.key.len++;
    assert_int_equal(crab_req_auth_size(&auth), 0);
    auth.key.len--;
    auth.value.len++;
    assert_int_equal(crab_req_auth_size(&auth), 0);

    struct crab_req_expire expire = {.key = crab_slice_of("k", 1), .ttl_ms = 0};
    assert_int_equal(crab_req_expire_size(&expire), 0);
    expire.ttl_ms = CRAB_TTL_MAX_MS;
    assert_int_equal(crab_req_expire_size(&expire), 17);
    expire.ttl_ms = CRAB_TTL_MAX_MS + 1;
    assert_int_equal(crab_req_expire_size(&expire), 0);
    expire.ttl_ms = CRAB_TTL_NEVER;
    assert_int_equal(crab_req_expire_size(&expire), 17);

    struct crab_req_get quiet = {.flags = CRAB_FLAG_QUIET | CRAB_FLAG_TAG, .key = crab_slice_of("k", 1)};
    assert_int_equal(crab_req_get_size(&quiet), 0);
    struct crab_req_incr incr = {.flags = CRAB_INCR_TTL, .ttl_ms = 1, .key = crab_slice_of("k", 1)};
    assert_int_equal(crab_req_incr_size(&incr), 0);

    struct crab_rep_error error = {.code = CRAB_ERR_BUSY, .text = crab_slice_of(noise, CRAB_MAX_ERROR_TEXT)};
    assert_int_equal(crab_rep_error_size(&error), 5 + 2 + CRAB_MAX_ERROR_TEXT);
    error.text.len++;
    assert_int_equal(crab_rep_error_size(&error), 0);

    struct crab_rep_value value = {.value = crab_slice_of(noise, UINT32_MAX - 5)};
    assert_int_equal(crab_rep_value_size(&value), UINT32_MAX);
    value.value.len = SIZE_MAX;
    assert_int_equal(crab_rep_value_size(&value), 0);
}

/* The bytes of the specification's own example, written by hand. */
static void known_bytes(void **state)
{
    (void)state;
    static const uint8_t put[] = {0x02, 0x41, 3, 0, 17, 0, 0, 0,   0x0D, 0xF0, 0xAD, 0xBA, 0xE8,
                                  0x03, 0,    0, 0, 0,  0, 0, 'k', 'e',  'y',  'h',  'i'};
    struct crab_req_put m = {.flags = CRAB_FLAG_TAG | CRAB_PUT_TTL, .tag = 0xBAADF00D, .ttl_ms = 1000};
    m.key = crab_slice_str("key");
    m.value = crab_slice_str("hi");
    uint8_t buf[64];
    assert_int_equal(crab_req_put_encode(&m, buf, sizeof buf), sizeof put);
    assert_memory_equal(buf, put, sizeof put);

    static const uint8_t number[] = {0x1F, 17, 0, 0, 0, 5, 0, 0, 0, 0x18, 8, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    struct crab_rep_number reply = {.tagged = true, .tag = 5, .value = -1};
    assert_int_equal(crab_rep_number_encode(&reply, buf, sizeof buf), sizeof number);
    assert_memory_equal(buf, number, sizeof number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_bytes),
        cmocka_unit_test(sizes_at_the_limits),
        cmocka_unit_test(random_requests_round_trip),
        cmocka_unit_test(encoders_stay_in_bounds),
        cmocka_unit_test(hostile_request_lengths),
        cmocka_unit_test(hostile_reply_lengths),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
