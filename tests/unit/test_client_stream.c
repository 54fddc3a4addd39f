/* SPDX-License-Identifier: MIT */
/*
 * Values in pieces, and many keys in one call: through buffers far smaller than the value, cut at each byte, in and out of
 * event loops.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "crabcache/adapters/poll.h"
#include "crabcache/crabcache.h"
#include "tests/support/counting.h"
#include "tests/support/peer.h"

#define KEY "key", 3
#define LARGE ((size_t)64 << 20)

/* What a sink has heard: the bytes must be those of pattern() and come without gaps. */
struct heard {
    size_t bytes;
    unsigned pieces;
    bool wrong;
    uint8_t last;
    struct crab_result head;
};

static uint8_t pattern(size_t offset)
{
    return (uint8_t)(offset * 7 + offset / 256);
}

static void hear(void *context, const struct crab_result *head, size_t offset, struct crab_slice piece)
{
    struct heard *heard = context;
    heard->head = *head;
    heard->wrong |= offset != heard->bytes || piece.len == 0 || head->value.data != NULL;
    for (size_t i = 0; i < piece.len; i++)
        heard->wrong |= piece.data[i] != pattern(offset + i);
    heard->bytes += piece.len;
    heard->pieces++;
}

/* Answer a get with LARGE bytes, then check that the same come back in a put. */
static void *give_and_take(void *argument)
{
    const struct peer *peer = argument;
    uint8_t *block = malloc(1 << 20);
    uint8_t head[5] = {CRAB_REP_VALUE, 0, 0, 0, LARGE >> 24};
    bool same = true;
    peer_skip(peer, 11);
    peer_send(peer, head, sizeof head);
    for (size_t at = 0; at < LARGE; at += 1 << 20) {
        for (size_t i = 0; i < 1 << 20; i++)
            block[i] = pattern(at + i);
        peer_send(peer, block, 1 << 20);
    }
    peer_skip(peer, 11);
    for (size_t at = 0; at < LARGE; at += 1 << 20) {
        same &= recv(peer->fd, block, 1 << 20, MSG_WAITALL) == 1 << 20;
        for (size_t i = 0; i < 1 << 20; i++)
            same &= block[i] == pattern(at + i);
    }
    peer_send_hex(peer, "10");
    free(block);
    return same ? argument : NULL;
}

static void a_large_value_goes_through_a_small_buffer(void **state)
{
    struct peer peer;
    struct counting counting;
    struct heard heard = {0};
    struct crab_result result;
    pthread_t thread;
    void *same = NULL;
    size_t len = 0, taken;
    static uint8_t block[100000];
    (void)state;
    counting_init(&counting);
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.allocator = &counting.allocator});
    assert_int_equal(pthread_create(&thread, NULL, give_and_take, &peer), 0);
    assert_int_equal(crab_conn_get_into(conn, KEY, hear, &heard, &len), CRAB_OK);
    assert_int_equal(len, LARGE);
    assert_int_equal(heard.bytes, LARGE);
    assert_false(heard.wrong);

    assert_int_equal(crab_conn_put_begin(conn, KEY, LARGE, NULL), CRAB_OK);
    for (size_t at = 0; at < LARGE; at += taken) {
        size_t step = LARGE - at < sizeof block ? LARGE - at : at % 3 == 0 ? 999 : sizeof block;
        assert_int_equal(crab_conn_put_left(conn), LARGE - at);
        for (size_t i = 0; i < step; i++)
            block[i] = pattern(at + i);
        assert_int_equal(crab_conn_put_piece(conn, block, step, &taken), CRAB_OK);
        assert_int_equal(taken, step);
    }
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    assert_int_equal(result.status, CRAB_OK);
    (void)pthread_join(thread, &same);
    assert_non_null(same);
    assert_true(counting.largest <= 256 * 1024);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* The bytes 0 to 4 of pattern() in a VALUE, a META, both with a tag; nothing; a miss; an error. */
static const struct {
    const char *reply;
    bool tags;
    enum crab_status status;
    size_t len;
} replies[] = {
    {"14 05000000 00 07 0e 15 1c", false, CRAB_OK, 5},
    {"16 19000000 0500000000000000 ffffffffffffffff 07000000 00 07 0e 15 1c", false, CRAB_OK, 5},
    {"1f 0e000000 01000000 14 05000000 00 07 0e 15 1c", true, CRAB_OK, 5},
    {"1f 22000000 01000000 16 19000000 0500000000000000 ffffffffffffffff 07000000 00 07 0e 15 1c", true, CRAB_OK, 5},
    {"14 00000000", false, CRAB_OK, 0},
    {"12", false, CRAB_MISS, 0},
    {"13 04000000 0102 6e6f", false, CRAB_E_SERVER, 0},
    {"c1 02000000 0301 14 05000000 00 07 0e 15 1c", false, CRAB_OK, 5},
};

static struct crab_conn *ask(struct peer *peer, size_t i, struct heard *heard)
{
    struct crab_conn *conn = peer_connect(peer, (struct crab_conn_options){.check_tags = replies[i].tags});
    bool meta = strstr(replies[i].reply, "16 19") != NULL;
    assert_int_equal(meta ? crab_conn_queue_get_meta(conn, KEY, 0) : crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_into(conn, hear, heard), CRAB_OK);
    assert_int_equal(crab_conn_into(conn, hear, heard), CRAB_E_INVALID); /* it has a sink */
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_into(conn, hear, heard), CRAB_E_INVALID); /* it is no get */
    return conn;
}

static void check_answered(const struct heard *heard, const struct crab_result *result, size_t i)
{
    assert_int_equal(result->status, replies[i].status);
    assert_int_equal(heard->bytes, replies[i].len);
    assert_false(heard->wrong);
    if (result->status != CRAB_OK)
        return;
    assert_int_equal(result->value.len, replies[i].len);
    assert_true(replies[i].len == 0 || result->value.data == NULL);
    if (result->reply == CRAB_REP_META) {
        assert_int_equal(result->version, 5);
        assert_int_equal(heard->head.version, 5);
        assert_int_equal(heard->head.app_flags, 7);
    }
}

/* Each reply in two pieces, split at each byte. */
static void split_at_each_byte(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        struct hex bytes = hex(replies[i].reply);
        for (size_t cut = 1; cut < bytes.len; cut++) {
            struct heard heard = {0};
            struct crab_result result;
            struct crab_conn *conn =
                peer_connect(&peer, (struct crab_conn_options){.check_tags = replies[i].tags});
            bool meta = strstr(replies[i].reply, "16 19") != NULL;
            assert_int_equal(crab_conn_use_events(conn), CRAB_OK);
            assert_int_equal(meta ? crab_conn_queue_get_meta(conn, KEY, 0) : crab_conn_queue_get(conn, KEY), CRAB_OK);
            assert_int_equal(crab_conn_into(conn, hear, &heard), CRAB_OK);
            peer_send(&peer, bytes.bytes, cut);
            (void)crab_poll_turn(&conn, 1, 1000);
            assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_WAIT);
            peer_send(&peer, bytes.bytes + cut, bytes.len - cut);
            (void)crab_poll_turn(&conn, 1, 1000);
            assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
            check_answered(&heard, &result, i);
            crab_conn_close(conn);
            peer_end(&peer);
        }
    }
    peer_close(&peer);
}

static void cut_at_each_byte_there_is_no_result(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        struct hex bytes = hex(replies[i].reply);
        for (size_t cut = 0; cut < bytes.len; cut++) {
            struct heard heard = {0};
            struct crab_result result;
            struct crab_conn *conn = ask(&peer, i, &heard);
            peer_send(&peer, bytes.bytes, cut);
            (void)shutdown(peer.fd, SHUT_WR);
            assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_E_CLOSED);
            assert_true(heard.bytes < 5 && !heard.wrong);
            assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_E_BROKEN);
            crab_conn_close(conn);
            peer_end(&peer);
        }
    }
    peer_close(&peer);
}

/* Replies that the get cannot have, and frames that lie about their lengths: nothing reaches the sink. */
static void what_does_not_fit_never_reaches_the_sink(void **state)
{
    static const char *const wrong[] = {
        "16 19000000 0500000000000000 ffffffffffffffff 07000000 00 07 0e 15 1c",     /* META, not asked for */
        "1f 0e000000 01000000 14 05000000 00 07 0e 15 1c",                           /* a tag, not asked for */
        "14 ffffffff 00",                                                            /* over the limit */
        "16 04000000 00 07 0e 15",                                                   /* META without its fields */
        "10",
    };
    static const char *const tagged[] = {
        "1f 0e000000 02000000 14 05000000 00 07 0e 15 1c", /* another request's */
        "1f 0d000000 01000000 14 05000000 00 07 0e 15 1c", /* inner and outer length disagree */
        "1f 0e000000 01000000 14 06000000 00 07 0e 15 1c",
        "14 05000000 00 07 0e 15 1c", /* no tag */
    };
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0] + sizeof tagged / sizeof tagged[0]; i++) {
        struct heard heard = {0};
        struct crab_result result;
        bool tags = i >= sizeof wrong / sizeof wrong[0];
        struct crab_conn *conn =
            peer_connect(&peer, (struct crab_conn_options){.check_tags = tags, .max_reply = 1000});
        assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
        assert_int_equal(crab_conn_into(conn, hear, &heard), CRAB_OK);
        peer_send_hex(&peer, tags ? tagged[i - sizeof wrong / sizeof wrong[0]] : wrong[i]);
        (void)shutdown(peer.fd, SHUT_WR);
        assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_E_PROTOCOL);
        assert_int_equal(heard.pieces, 0);
        crab_conn_close(conn);
        peer_end(&peer);
    }
    peer_close(&peer);
}

static void a_put_in_pieces_is_a_put(void **state)
{
    struct peer peer;
    struct crab_result result;
    size_t taken = 9;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    struct crab_put_options options = {.app_flags = 7};
    assert_int_equal(crab_conn_put_piece(conn, "x", 1, &taken), CRAB_E_INVALID);
    assert_int_equal(taken, 0);
    assert_int_equal(crab_conn_put_begin(conn, "", 0, 5, NULL), CRAB_E_INVALID);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_put_begin(conn, KEY, 5, &options), CRAB_OK);
    assert_int_equal(crab_conn_put_piece(conn, "va", 2, &taken), CRAB_OK);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_E_PENDING);
    assert_int_equal(crab_conn_put_begin(conn, KEY, 5, NULL), CRAB_E_PENDING);
    assert_int_equal(crab_conn_put_piece(conn, "luex", 4, &taken), CRAB_E_INVALID);
    peer_send_hex(&peer, "11 10");
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    assert_int_equal(result.reply, CRAB_REP_PONG);
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_E_PENDING);
    assert_int_equal(crab_conn_put_piece(conn, "lue", 3, &taken), CRAB_OK);
    assert_int_equal(crab_conn_flush(conn), CRAB_OK); /* the peer has answered before it was asked */
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    peer_expect(&peer, "01 00 0000 00000000 02 02 0300 0c000000 07000000 6b6579 76616c7565");

    struct crab_slice parts[] = {crab_slice_of("va", 2), crab_slice_of(NULL, 0), crab_slice_of("lue", 3)};
    uint64_t version = 0;
    peer_send_hex(&peer, "19 08000000 0500000000000000");
    assert_int_equal(crab_conn_put_parts(conn, KEY, parts, 3, NULL, &version), CRAB_OK);
    assert_int_equal(version, 5);
    peer_expect(&peer, "02 10 0300 08000000 6b6579 76616c7565");
    peer_send_hex(&peer, "10");
    assert_int_equal(crab_conn_put_parts(conn, KEY, NULL, 0, NULL, NULL), CRAB_OK);
    peer_expect(&peer, "02 00 0300 03000000 6b6579");
    struct crab_slice huge[] = {crab_slice_of("x", UINT32_MAX), crab_slice_of("x", 1)};
    assert_int_equal(crab_conn_put_parts(conn, KEY, huge, 2, NULL, NULL), CRAB_E_INVALID);
    peer_expect_nothing(&peer);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* In an event loop 64 KiB are taken, and more when they have gone. */
static void a_put_in_pieces_in_an_event_loop(void **state)
{
    static uint8_t value[200000];
    struct peer peer;
    struct crab_result result;
    size_t taken = 0, at = 0;
    unsigned full = 0;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_use_events(conn), CRAB_OK);
    assert_int_equal(crab_conn_put_begin(conn, KEY, sizeof value, NULL), CRAB_OK);
    while (at < sizeof value) {
        enum crab_status status = crab_conn_put_piece(conn, value + at, sizeof value - at, &taken);
        assert_true(status == CRAB_OK || status == CRAB_E_FULL);
        assert_true(taken <= 64 * 1024);
        full += status == CRAB_E_FULL;
        at += taken;
        (void)crab_poll_turn(&conn, 1, 1000);
    }
    assert_true(full >= 3);
    (void)crab_poll_turn(&conn, 1, 100);
    peer_skip(&peer, 11 + sizeof value);
    peer_send_hex(&peer, "10");
    (void)crab_poll_turn(&conn, 1, 1000);
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* ---- many keys */

struct tally {
    size_t next;
    size_t hits;
    bool wrong;
};

static void count(void *context, size_t index, const struct crab_result *result)
{
    struct tally *tally = context;
    uint32_t number = 0;
    tally->wrong |= index != tally->next++;
    if (result->status == CRAB_OK && result->value.len == sizeof number) {
        memcpy(&number, result->value.data, sizeof number);
        tally->wrong |= number != index;
        tally->hits++;
    } else {
        tally->wrong |= result->status != CRAB_MISS || index % 3 != 0;
    }
}

#define MANY 5000U

/* A third of the gets miss, the others get their number; it answers in gulps of 100. */
static void *answer_many(void *argument)
{
    const struct peer *peer = argument;
    for (uint32_t i = 0; i < MANY; i += 100) {
        peer_skip(peer, (size_t)100 * 12);
        for (uint32_t j = i; j < i + 100; j++) {
            uint8_t value[9] = {CRAB_REP_VALUE, 4};
            memcpy(value + 5, &j, sizeof j);
            if (j % 3 == 0)
                peer_send_hex(peer, "12");
            else
                peer_send(peer, value, sizeof value);
        }
    }
    return NULL;
}

static void many_keys_in_one_call(void **state)
{
    static struct crab_slice keys[MANY];
    static struct crab_pair pairs[3];
    static uint32_t numbers[MANY];
    struct peer peer;
    struct tally tally = {0};
    pthread_t thread;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    for (uint32_t i = 0; i < MANY; i++) {
        numbers[i] = i;
        keys[i] = crab_slice_of(&numbers[i], 4);
    }
    assert_int_equal(pthread_create(&thread, NULL, answer_many, &peer), 0);
    assert_int_equal(crab_conn_get_many(conn, keys, MANY, count, &tally), CRAB_OK);
    (void)pthread_join(thread, NULL);
    assert_int_equal(tally.next, MANY);
    assert_false(tally.wrong);
    assert_int_equal(crab_conn_get_many(conn, keys, 0, count, &tally), CRAB_OK);

    for (size_t i = 0; i < 3; i++)
        pairs[i] = (struct crab_pair){.key = crab_slice_of("k", 1), .value = crab_slice_of("v", 1)};
    peer_send_hex(&peer, "10 10 10");
    assert_int_equal(crab_conn_put_many(conn, pairs, 3, NULL, NULL, NULL), CRAB_OK);
    peer_send_hex(&peer, "10 12");
    assert_int_equal(crab_conn_del_many(conn, keys, 2, NULL, NULL), CRAB_OK);
    peer_skip(&peer, (size_t)3 * 10 + (size_t)2 * 12);
    keys[1].len = 0; /* one that breaks a rule: nothing is sent */
    assert_int_equal(crab_conn_del_many(conn, keys, 2, NULL, NULL), CRAB_E_INVALID);
    peer_expect_nothing(&peer);
    keys[1].len = 4;
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_del_many(conn, keys, 2, NULL, NULL), CRAB_E_PENDING);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* The stream ends after some replies: those that came are told, then why there are no more. */
static void many_keys_and_a_cut(void **state)
{
    struct crab_slice keys[5];
    struct peer peer;
    struct tally tally = {0};
    (void)state;
    for (size_t i = 0; i < 5; i++)
        keys[i] = crab_slice_of("k", 1);
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    peer_send_hex(&peer, "12 14 04000000 01000000 14 04000000 02");
    (void)shutdown(peer.fd, SHUT_WR);
    assert_int_equal(crab_conn_get_many(conn, keys, 5, count, &tally), CRAB_E_CLOSED);
    assert_int_equal(tally.next, 2);
    assert_false(tally.wrong);
    crab_conn_close(conn);
    peer_close(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_value_goes_through_a_small_buffer),
        cmocka_unit_test(split_at_each_byte),
        cmocka_unit_test(cut_at_each_byte_there_is_no_result),
        cmocka_unit_test(what_does_not_fit_never_reaches_the_sink),
        cmocka_unit_test(a_put_in_pieces_is_a_put),
        cmocka_unit_test(a_put_in_pieces_in_an_event_loop),
        cmocka_unit_test(many_keys_in_one_call),
        cmocka_unit_test(many_keys_and_a_cut),
    };
    return cmocka_run_group_tests_name("client_stream", tests, NULL, NULL);
}
