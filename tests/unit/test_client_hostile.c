/* SPDX-License-Identifier: MIT */
/*
 * The client against servers that die, stall, lie about lengths or talk nonsense, at each byte of each reply: an end by
 * the deadline, never a wrong answer, nothing leaked.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cmocka.h>

#include "crabcache/crabcache.h"
#include "tests/support/counting.h"
#include "tests/support/exchanges.h"
#include "tests/support/peer.h"

#define KEY "key", 3

/* The stream ends after each byte of each reply: in order, by a reset, or it just stops. */
static void cut_everywhere(enum crab_status wanted, void (*cut)(struct peer *peer), uint32_t timeout_ms, size_t step)
{
    struct peer peer;
    peer_listen(&peer);
    for (size_t i = 0; i < exchange_count; i++) {
        struct hex reply = hex(exchanges[i].reply);
        for (size_t len = 0; len < reply.len; len += step) {
            struct outcome outcome = {0};
            struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.timeout_ms = timeout_ms});
            peer_send(&peer, reply.bytes, len);
            if (cut != NULL)
                (void)shutdown(peer.fd, SHUT_WR);
            enum crab_status status = exchanges[i].call(conn, &outcome);
            if (status != wanted)
                fail_msg("%s, %zu bytes: %s", exchanges[i].name, len, crab_status_name(status));
            assert_int_equal(crab_conn_outcome_unknown(conn), exchanges[i].write ? 1 : 0);
            check_broken(conn);
            assert_int_equal(crab_conn_outcome_unknown(conn), exchanges[i].write ? 1 : 0);
            crab_conn_close(conn);
            if (cut != NULL)
                cut(&peer);
            else
                peer_reset(&peer);
        }
    }
    peer_close(&peer);
}

static void an_end_at_every_byte_is_closed(void **state)
{
    (void)state;
    cut_everywhere(CRAB_E_CLOSED, peer_end, 20000, 1);
}

static void silence_at_every_byte_is_a_timeout(void **state)
{
    (void)state;
    cut_everywhere(CRAB_E_TIMEOUT, NULL, 10, 1);
}

static void a_reset_is_closed_with_the_outcome_unknown(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_flush(conn), CRAB_OK);
    peer_reset(&peer);
    struct crab_result result;
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_E_CLOSED);
    assert_true(crab_conn_system_error(conn) != 0);
    assert_int_equal(crab_conn_outcome_unknown(conn), 1);
    check_broken(conn);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* Each known reply to each call: either it fits, or the connection breaks. Never a wrong answer. */
static void a_reply_that_a_request_cannot_have_breaks(void **state)
{
    static const char *const replies[] = {"10", "11", "12", "14 01000000 61", "15 01000000 61",
                                          "16 15000000 0500000000000000 ffffffffffffffff 07000000 61",
                                          "17 08000000 0500000000000000", "18 08000000 0500000000000000",
                                          "19 08000000 0500000000000000",
                                          "1a 11000000 01 01000000 ffff0000 00001000 00040000",
                                          "1f 05000000 01000000 10"};
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    for (size_t i = 0; i < exchange_count; i++) {
        for (size_t j = 0; j < sizeof replies / sizeof replies[0]; j++) {
            struct outcome outcome = {0};
            struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
            peer_send_hex(&peer, replies[j]);
            enum crab_status status = exchanges[i].call(conn, &outcome);
            if (status != CRAB_OK && status != CRAB_MISS && status != CRAB_EXISTS) {
                assert_int_equal(status, CRAB_E_PROTOCOL);
                check_broken(conn);
            } else {
                assert_true(hex(replies[j]).bytes[0] == hex(exchanges[i].reply).bytes[0] || status != CRAB_OK ||
                            exchanges[i].status != CRAB_OK);
            }
            crab_conn_close(conn);
            peer_reset(&peer);
        }
    }
    peer_close(&peer);
}

/* Every op with every hostile length: an end by the deadline, and no memory for bytes that never came. */
static void hostile_lengths_cost_nothing(void **state)
{
    static const uint32_t lengths[] = {0, 1, 2, 7, 8, 19, 20, 1023, 1024, 1025, 65535,
                                       0x7fffffff, 0x80000000, 0xffffffff};
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    for (unsigned op = 0x13; op <= 0xff; op += op < 0x20 || op >= 0xbe ? 1 : 13) {
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            uint8_t header[9] = {(uint8_t)op};
            struct counting counting;
            struct outcome outcome = {0};
            counting_init(&counting);
            struct crab_conn_options options = {.max_reply = 1024, .allocator = &counting.allocator};
            struct crab_conn *conn = peer_connect(&peer, options);
            memcpy(header + 1, &lengths[i], 4); /* the tests' machines are little-endian */
            peer_send(&peer, header, sizeof header);
            (void)shutdown(peer.fd, SHUT_WR);
            enum crab_status status = crab_conn_get(conn, KEY, &outcome.bytes);
            assert_true(crab_status_failed(status) || (status == CRAB_OK && op == CRAB_REP_VALUE));
            if (lengths[i] > 1024)
                assert_int_equal(status, CRAB_E_PROTOCOL);
            assert_true(counting.largest <= 64 * 1024);
            crab_conn_close(conn);
            assert_int_equal(counting.blocks, 0);
            peer_reset(&peer);
        }
    }
    peer_close(&peer);
}

/* Answer every exchange byte by byte, each in a packet of its own. */
static void *answer_in_single_bytes(void *argument)
{
    const struct peer *peer = argument;
    for (size_t i = 0; i < exchange_count; i++) {
        struct hex reply = hex(exchanges[i].reply);
        peer_skip(peer, hex(exchanges[i].request).len);
        for (size_t j = 0; j < reply.len; j++) {
            peer_send(peer, &reply.bytes[j], 1);
            (void)usleep(200);
        }
    }
    return NULL;
}

static void replies_in_single_bytes_are_the_same_replies(void **state)
{
    struct peer peer;
    pthread_t thread;
    int one = 1;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    assert_int_equal(setsockopt(peer.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
    assert_int_equal(pthread_create(&thread, NULL, answer_in_single_bytes, &peer), 0);
    for (size_t i = 0; i < exchange_count; i++) {
        struct outcome outcome = {0};
        assert_int_equal(exchanges[i].call(conn, &outcome), exchanges[i].status);
        if (outcome.bytes.len != 0)
            assert_memory_equal(outcome.bytes.data, "value", 5);
    }
    (void)pthread_join(thread, NULL);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* A length that is allowed, but whose bytes never come, buys no memory either. */
static void a_length_is_believed_as_far_as_bytes_come(void **state)
{
    struct peer peer;
    struct counting counting;
    struct crab_slice value;
    static uint8_t some[100000];
    (void)state;
    peer_listen(&peer);
    for (size_t sent = 0; sent <= sizeof some; sent += 20000) {
        counting_init(&counting);
        struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.allocator = &counting.allocator});
        peer_send_hex(&peer, "14 0000c003"); /* 60 MiB */
        peer_send(&peer, some, sent);
        (void)shutdown(peer.fd, SHUT_WR);
        assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_CLOSED);
        assert_true(counting.largest <= 32768 + 4 * sent);
        crab_conn_close(conn);
        peer_reset(&peer);
    }
    peer_close(&peer);
}

/* Random bytes as the answer to everything: no crash, no wait, and a broken connection stays broken. */
static void garbage_is_survived(void **state)
{
    struct peer peer;
    uint64_t random = 88172645463325252U;
    (void)state;
    peer_listen(&peer);
    for (unsigned round = 0; round < 1500; round++) {
        uint8_t bytes[64];
        for (size_t i = 0; i < sizeof bytes; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes[i] = (uint8_t)(random >> 32);
            if (i == 0 && round % 2 == 0)
                bytes[i] = (uint8_t)(0x10 + bytes[i] % 16);
            if (i >= 2 && i <= 4 && round % 3 == 0)
                bytes[i] = 0;
        }
        struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.max_reply = 4096});
        peer_send(&peer, bytes, sizeof bytes);
        (void)shutdown(peer.fd, SHUT_WR);
        struct outcome outcome = {0};
        for (size_t i = 0; i < exchange_count && crab_conn_state(conn) == CRAB_OK; i++)
            (void)exchanges[(i + round) % exchange_count].call(conn, &outcome);
        if (crab_conn_state(conn) != CRAB_OK)
            check_broken(conn);
        crab_conn_close(conn);
        peer_reset(&peer);
    }
    peer_close(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_at_every_byte_is_closed),
        cmocka_unit_test(silence_at_every_byte_is_a_timeout),
        cmocka_unit_test(a_reset_is_closed_with_the_outcome_unknown),
        cmocka_unit_test(a_reply_that_a_request_cannot_have_breaks),
        cmocka_unit_test(hostile_lengths_cost_nothing),
        cmocka_unit_test(replies_in_single_bytes_are_the_same_replies),
        cmocka_unit_test(a_length_is_believed_as_far_as_bytes_come),
        cmocka_unit_test(garbage_is_survived),
    };
    return cmocka_run_group_tests_name("client_hostile", tests, NULL, NULL);
}
