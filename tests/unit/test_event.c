/* SPDX-License-Identifier: MIT */
/*
 * A connection in an event loop, against a scripted peer in the same thread: nothing waits, each completion is called once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "crabcache/adapters/poll.h"
#include "crabcache/crabcache.h"
#include "tests/support/counting.h"
#include "tests/support/exchanges.h"
#include "tests/support/peer.h"

#define KEY "key", 3
#define WELCOME "1a 15000000 01 01000000 ffff0000 00001000 00040000 70656572"

/* What completions have said. */
struct heard {
    unsigned calls;
    unsigned unknown;
    enum crab_status last;
    uint8_t last_request;
    char value[64];
    size_t value_len;
    struct crab_conn **close; /**< Close this connection in the next completion. */
    unsigned again;           /**< Queue so many more requests from completions. */
    unsigned ready;
    unsigned broken;
    enum crab_status state;
};

static void done(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    struct heard *heard = context;
    heard->calls++;
    heard->unknown += result->outcome_unknown;
    heard->last = result->status;
    heard->last_request = result->request;
    heard->value_len = result->value.len < sizeof heard->value ? result->value.len : sizeof heard->value;
    if (heard->value_len != 0)
        memcpy(heard->value, result->value.data, heard->value_len);
    if (heard->again != 0 && result->status == CRAB_OK) {
        heard->again--;
        assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, heard), CRAB_OK);
    }
    if (heard->close != NULL && *heard->close != NULL) {
        crab_conn_close(*heard->close);
        *heard->close = NULL;
    }
}

static void changed(struct crab_conn *conn, enum crab_status state, void *context)
{
    struct heard *heard = context;
    (void)conn;
    heard->state = state;
    heard->ready += state == CRAB_OK;
    heard->broken += state != CRAB_OK;
}

static struct crab_conn *start(struct peer *peer, struct crab_conn_options options, struct heard *heard)
{
    struct crab_conn *conn = NULL;
    struct crab_failure failure;
    options.port = peer->port;
    if (options.timeout_ms == 0)
        options.timeout_ms = 20000;
    enum crab_status status = crab_conn_start(&options, &conn, &failure);
    if (status != CRAB_OK)
        fail_msg("cannot start: %s", failure.text);
    crab_conn_on_state(conn, changed, heard);
    peer->fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(peer->fd >= 0);
    return conn;
}

static void turn(struct crab_conn *conn)
{
    (void)crab_poll_turn(&conn, 1, 5000);
}

static void a_request_follows_hello_and_auth(void **state)
{
    struct peer peer;
    struct heard heard = {0};
    (void)state;
    peer_listen(&peer);
    struct crab_conn_options options = {.client_name = "test", .user = "me", .secret = "pw", .secret_len = 2};
    struct crab_conn *conn = start(&peer, options, &heard);
    assert_false(crab_conn_ready(conn));
    assert_int_equal(crab_conn_wants(conn), CRAB_EVENT_WRITE);
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_E_INVALID); /* it has one */
    turn(conn);
    peer_expect(&peer, "07 00 0000 0a000000 01 01 01000000 74657374 08 00 0200 04000000 6d65 7077"
                       "03 00 0300 03000000 6b6579");
    peer_send_hex(&peer, WELCOME);
    turn(conn);
    assert_false(crab_conn_ready(conn));
    peer_send_hex(&peer, "10");
    turn(conn);
    assert_true(crab_conn_ready(conn));
    assert_int_equal(heard.ready, 1);
    peer_send_hex(&peer, "14 02000000 6869");
    turn(conn);
    assert_int_equal(heard.calls, 1);
    assert_memory_equal(heard.value, "hi", 2);
    assert_int_equal(crab_conn_wants(conn), CRAB_EVENT_READ);
    assert_int_equal(crab_conn_next_timeout(conn), -1);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void a_refused_auth_breaks_the_connection(void **state)
{
    struct peer peer;
    struct heard heard = {0};
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = start(&peer, (struct crab_conn_options){.user = "me"}, &heard);
    assert_int_equal(crab_conn_queue_put(conn, KEY, "v", 1, NULL), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    peer_send_hex(&peer, WELCOME "13 04000000 0f02 6e6f 10");
    turn(conn);
    turn(conn);
    assert_int_equal(heard.last, CRAB_E_SERVER);
    assert_int_equal(heard.calls, 1);
    assert_int_equal(heard.broken, 1);
    assert_int_equal(heard.ready, 0);
    assert_string_equal(crab_conn_error_text(conn), "no");
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_E_BROKEN);
    assert_int_equal(crab_conn_next_timeout(conn), -1);
    crab_conn_close(conn);
    assert_int_equal(heard.calls, 1);
    peer_close(&peer);
}

/* Nobody listens, or the host has a name: an answer in either way. */
static void failures_to_connect(void **state)
{
    struct peer peer;
    struct crab_conn *conn = NULL;
    struct crab_failure failure;
    struct heard heard = {0};
    (void)state;
    peer_listen(&peer);
    struct crab_conn_options options = {.port = peer.port, .host = "localhost"};
    assert_int_equal(crab_conn_start(&options, &conn, &failure), CRAB_E_RESOLVE);
    options.host = "/nonexistent/socket";
    assert_int_equal(crab_conn_start(&options, &conn, &failure), CRAB_E_REFUSED);
    options.host = "127.0.0.1";
    (void)close(peer.listener);
    peer.listener = -1;
    assert_int_equal(crab_conn_start(&options, &conn, &failure), CRAB_OK);
    crab_conn_on_state(conn, changed, &heard);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    for (unsigned i = 0; i < 100 && heard.broken == 0; i++)
        turn(conn);
    assert_int_equal(heard.state, CRAB_E_REFUSED);
    assert_int_equal(heard.last, CRAB_E_REFUSED);
    assert_int_equal(heard.unknown, 0);
    assert_true(crab_conn_system_error(conn) != 0);
    crab_conn_close(conn);
}

static struct crab_conn *plain(struct peer *peer, struct heard *heard, uint32_t timeout_ms)
{
    peer_listen(peer);
    struct crab_conn *conn =
        start(peer, (struct crab_conn_options){.no_hello = true, .timeout_ms = timeout_ms}, heard);
    turn(conn);
    assert_true(crab_conn_ready(conn));
    assert_int_equal(heard->ready, 1);
    return conn;
}

/* The stream of replies to one of each kind, cut in two at each byte. */
static void replies_in_any_pieces(void **state)
{
    static const char replies[] = "11 14 02000000 6869 12 18 08000000 2a00000000000000 10"
                                  "16 16000000 0500000000000000 ffffffffffffffff 07000000 6869 13 04000000 0102 6e6f";
    struct hex bytes = hex(replies);
    (void)state;
    for (size_t cut = 1; cut < bytes.len; cut++) {
        struct peer peer;
        struct heard heard = {0};
        struct crab_conn *conn = plain(&peer, &heard, 0);
        assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        assert_int_equal(crab_conn_queue_incr(conn, KEY, 1, NULL), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        assert_int_equal(crab_conn_queue_flush_all(conn), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        assert_int_equal(crab_conn_queue_get_meta(conn, KEY, 0), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        assert_int_equal(crab_conn_queue_expire(conn, KEY, 5), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        peer_send(&peer, bytes.bytes, cut);
        turn(conn);
        assert_true(heard.calls < 7);
        peer_send(&peer, bytes.bytes + cut, bytes.len - cut);
        turn(conn);
        assert_int_equal(heard.calls, 7);
        assert_int_equal(heard.last, CRAB_E_SERVER);
        assert_int_equal(crab_conn_state(conn), CRAB_OK);
        crab_conn_close(conn);
        peer_close(&peer);
    }
}

static void silence_is_a_timeout_for_all(void **state)
{
    struct peer peer;
    struct heard heard = {0};
    (void)state;
    struct crab_conn *conn = plain(&peer, &heard, 30);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    }
    assert_true(crab_conn_next_timeout(conn) > 0 && crab_conn_next_timeout(conn) <= 30);
    for (unsigned i = 0; i < 10 && heard.broken == 0; i++)
        turn(conn);
    assert_int_equal(heard.calls, 3);
    assert_int_equal(heard.unknown, 3);
    assert_int_equal(heard.last, CRAB_E_TIMEOUT);
    assert_int_equal(crab_conn_outcome_unknown(conn), 3);
    assert_int_equal(crab_conn_fd(conn), -1);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* The loop comes too late, but the replies have long been in the socket. */
static void a_slow_loop_is_no_timeout(void **state)
{
    static uint8_t value[100000];
    struct peer peer;
    struct heard heard = {0};
    (void)state;
    struct crab_conn *conn = plain(&peer, &heard, 20);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    }
    assert_int_equal(crab_conn_flush(conn), CRAB_OK);
    for (unsigned i = 0; i < 20; i++) {
        peer_send_hex(&peer, "14 a0860100");
        peer_send(&peer, value, sizeof value);
    }
    (void)usleep(40000);
    assert_int_equal(crab_conn_next_timeout(conn), 0);
    turn(conn);
    assert_int_equal(heard.calls, 20);
    assert_int_equal(heard.last, CRAB_OK);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* A peer that stops reading: what is queued stays within its bound, and quiet writes, which wait for nothing, end too. */
static void the_queue_is_bounded(void **state)
{
    static uint8_t value[100000];
    struct peer peer;
    struct heard heard = {0};
    (void)state;
    struct crab_conn *conn = plain(&peer, &heard, 50);
    unsigned queued = 0;
    while (crab_conn_queue_put(conn, KEY, value, sizeof value, NULL) == CRAB_OK) {
        assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        queued++;
    }
    assert_int_equal(queued, 2); /* 256 KiB */
    assert_int_equal(crab_conn_queue_put(conn, KEY, value, sizeof value, NULL), CRAB_E_FULL);
    enum crab_status status;
    while ((status = crab_conn_flush(conn)) == CRAB_OK) { /* until the socket takes no more */
        assert_int_equal(crab_conn_queue_put(conn, KEY, value, sizeof value, NULL), CRAB_OK);
        queued++;
    }
    assert_int_equal(status, CRAB_WAIT);
    assert_int_equal(crab_conn_wants(conn), CRAB_EVENT_READ | CRAB_EVENT_WRITE);
    for (unsigned i = 0; i < 10 && heard.broken == 0; i++)
        turn(conn);
    assert_int_equal(heard.state, CRAB_E_TIMEOUT);
    assert_int_equal(heard.calls, 2);
    assert_true(crab_conn_outcome_unknown(conn) <= queued);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void before_welcome_64_requests_fit(void **state)
{
    struct peer peer;
    struct heard heard = {0};
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = start(&peer, (struct crab_conn_options){0}, &heard);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_E_FULL);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_E_INVALID); /* no PUSH yet */
    turn(conn);
    peer_send_hex(&peer, WELCOME);
    turn(conn);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_E_INVALID); /* a quiet one has no reply */
    crab_conn_close(conn);
    peer_close(&peer);
}

static void completions_queue_more(void **state)
{
    struct peer peer;
    struct heard heard = {.again = 200};
    (void)state;
    struct crab_conn *conn = plain(&peer, &heard, 0);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    for (unsigned i = 0; i < 201; i++) {
        peer_send_hex(&peer, "10");
        turn(conn);
    }
    assert_int_equal(heard.calls, 201);
    assert_int_equal(crab_conn_in_flight(conn), 0);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* Closed in the first of three completions, or from outside: the others are told, once. */
static void closing_tells_everybody_once(void **state)
{
    (void)state;
    for (unsigned inside = 0; inside < 2; inside++) {
        struct peer peer;
        struct heard heard = {0};
        struct crab_conn *conn = plain(&peer, &heard, 0);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
            assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
        }
        assert_int_equal(crab_conn_flush(conn), CRAB_OK);
        if (inside == 1) {
            struct crab_conn *closed = conn;
            heard.close = &closed;
            peer_send_hex(&peer, "10 10 10");
            (void)usleep(1000);
            assert_int_equal(crab_conn_process(conn, CRAB_EVENT_READ), CRAB_E_BROKEN);
            assert_null(closed);
        } else {
            crab_conn_close(conn);
        }
        assert_int_equal(heard.calls, 3);
        assert_int_equal(heard.last, CRAB_E_CLOSED);
        assert_int_equal(heard.unknown, inside == 1 ? 2 : 3);
        assert_int_equal(heard.broken, 0);
        peer_close(&peer);
    }
}

/* Requests without completion are taken by hand; those with one never are. */
static void replies_can_be_taken(void **state)
{
    struct peer peer;
    struct heard heard = {0};
    struct crab_result result;
    (void)state;
    struct crab_conn *conn = plain(&peer, &heard, 0);
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_EMPTY);
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_WAIT);
    turn(conn);
    peer_send_hex(&peer, "14 02000000 6869 10");
    turn(conn);
    assert_int_equal(heard.calls, 0);
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    assert_memory_equal(result.value.data, "hi", 2);
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_WAIT);
    assert_int_equal(crab_conn_process(conn, 0), CRAB_OK);
    assert_int_equal(heard.calls, 1);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* Who does not take replies is not flooded: the socket is not read any more, and no time runs out. */
static void replies_that_nobody_takes_stop_the_reading(void **state)
{
    static uint8_t value[8000];
    struct peer peer;
    struct heard heard = {0};
    struct crab_result result;
    (void)state;
    peer_listen(&peer);
    struct crab_conn_options options = {.no_hello = true, .max_buffered = 20000, .timeout_ms = 50};
    struct crab_conn *conn = start(&peer, options, &heard);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    turn(conn);
    for (unsigned i = 0; i < 10; i++) {
        peer_send_hex(&peer, "14 401f0000");
        peer_send(&peer, value, sizeof value);
    }
    for (unsigned i = 0; i < 20 && crab_conn_wants(conn) != 0; i++)
        (void)crab_conn_process(conn, CRAB_EVENT_READ);
    assert_int_equal(crab_conn_wants(conn), 0);
    (void)usleep(60000);
    assert_int_equal(crab_conn_process(conn, 0), CRAB_OK);
    unsigned taken = 0;
    for (unsigned i = 0; i < 100 && taken < 10; i++) {
        enum crab_status status = crab_conn_next_reply(conn, &result);
        if (status == CRAB_OK)
            taken++;
        else
            assert_int_equal(status, CRAB_WAIT);
        if (status == CRAB_WAIT)
            assert_int_equal(crab_conn_process(conn, CRAB_EVENT_READ), CRAB_OK);
    }
    assert_int_equal(taken, 10);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void nothing_waits(void **state)
{
    struct peer peer;
    struct heard heard = {0};
    struct outcome outcome = {0};
    (void)state;
    struct crab_conn *conn = plain(&peer, &heard, 0);
    for (size_t i = 0; i < exchange_count; i++)
        assert_int_equal(exchanges[i].call(conn, &outcome), CRAB_E_INVALID);
    crab_conn_close(conn);
    peer_end(&peer);
    /* and a connection that was opened waiting can change over, once its replies are taken */
    conn = peer_connect(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_process(conn, 0), CRAB_E_INVALID);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_use_events(conn), CRAB_E_PENDING);
    struct crab_result result;
    peer_send_hex(&peer, "10");
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    assert_int_equal(crab_conn_use_events(conn), CRAB_OK);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_then(conn, done, &heard), CRAB_OK);
    peer_send_hex(&peer, "12");
    turn(conn);
    turn(conn);
    assert_int_equal(heard.calls, 1);
    assert_int_equal(heard.last, CRAB_MISS);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* With each allocation failing, once and from then on: a status, no leak, and each completion that was set is called. */
static void allocations_fail(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    for (int after = 0; after < 2; after++) {
        for (size_t fail_at = 1; fail_at < 12; fail_at++) {
            struct counting counting;
            struct heard heard = {0};
            struct crab_conn *conn = NULL;
            unsigned set = 0;
            counting_init(&counting);
            counting.fail_at = fail_at;
            counting.fail_after = after;
            struct crab_conn_options options = {.port = peer.port, .allocator = &counting.allocator};
            enum crab_status status = crab_conn_start(&options, &conn, NULL);
            if (status != CRAB_OK) {
                assert_int_equal(status, CRAB_E_NO_MEMORY);
                assert_int_equal(counting.blocks, 0);
                struct pollfd waiting = {.fd = peer.listener, .events = POLLIN};
                if (poll(&waiting, 1, 0) == 1) /* it had connected already */
                    (void)close(accept4(peer.listener, NULL, NULL, SOCK_CLOEXEC));
                continue;
            }
            peer.fd = accept4(peer.listener, NULL, NULL, SOCK_CLOEXEC);
            for (unsigned i = 0; i < 64; i++)
                if (crab_conn_queue_get(conn, KEY) == CRAB_OK && crab_conn_then(conn, done, &heard) == CRAB_OK)
                    set++;
            peer_send_hex(&peer, WELCOME);
            for (unsigned i = 0; i < set; i++)
                peer_send_hex(&peer, "12");
            for (unsigned i = 0; i < 8 && crab_conn_state(conn) == CRAB_OK && heard.calls < set; i++)
                turn(conn);
            crab_conn_close(conn);
            assert_int_equal(heard.calls, set);
            assert_int_equal(counting.blocks, 0);
            peer_end(&peer);
        }
    }
    peer_close(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_follows_hello_and_auth),
        cmocka_unit_test(a_refused_auth_breaks_the_connection),
        cmocka_unit_test(failures_to_connect),
        cmocka_unit_test(replies_in_any_pieces),
        cmocka_unit_test(silence_is_a_timeout_for_all),
        cmocka_unit_test(a_slow_loop_is_no_timeout),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(before_welcome_64_requests_fit),
        cmocka_unit_test(completions_queue_more),
        cmocka_unit_test(closing_tells_everybody_once),
        cmocka_unit_test(replies_can_be_taken),
        cmocka_unit_test(replies_that_nobody_takes_stop_the_reading),
        cmocka_unit_test(nothing_waits),
        cmocka_unit_test(allocations_fail),
    };
    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
