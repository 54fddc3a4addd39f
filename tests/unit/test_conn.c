/* SPDX-License-Identifier: MIT */
/*
 * Blocking calls of a connection against a scripted peer: the bytes of each call, what each reply becomes, what the
 * server's errors and farewells leave behind, and what happens without memory.
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

#include "crabcache/crabcache.h"
#include "tests/support/counting.h"
#include "tests/support/exchanges.h"
#include "tests/support/peer.h"

#define KEY "key", 3

static void check_outcome(const struct exchange *exchange, const struct outcome *outcome)
{
    if (strncmp(exchange->reply, "19", 2) == 0)
        assert_int_equal(outcome->version, 5);
    if (strchr(exchange->reply, '8') == exchange->reply + 1)
        assert_int_equal(outcome->number, exchange->status == CRAB_OK ? -2 : 0);
    if (outcome->bytes.len != 0)
        assert_memory_equal(outcome->bytes.data, "value", 5);
    if (outcome->item.version != 0) {
        assert_int_equal(outcome->item.version, 5);
        assert_true(outcome->item.ttl_ms == CRAB_TTL_NEVER);
        assert_int_equal(outcome->item.app_flags, 7);
        assert_int_equal(outcome->item.value.len, 5);
        assert_memory_equal(outcome->item.value.data, "value", 5);
    }
}

static void every_call_sends_its_bytes_and_reads_its_reply(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    for (size_t i = 0; i < exchange_count; i++) {
        struct outcome outcome = {0};
        peer_send_hex(&peer, exchanges[i].reply);
        enum crab_status status = exchanges[i].call(conn, &outcome);
        if (status != exchanges[i].status)
            fail_msg("%s: %s, %s", exchanges[i].name, crab_status_name(status), crab_conn_error_text(conn));
        peer_expect(&peer, exchanges[i].request);
        check_outcome(&exchanges[i], &outcome);
    }
    assert_int_equal(crab_conn_error(conn), CRAB_ERR_BUSY);
    assert_int_equal(crab_conn_state(conn), CRAB_OK);
    peer_expect_nothing(&peer);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void bad_arguments_send_nothing(void **state)
{
    static uint8_t big[CRAB_MAX_KEY + 1];
    struct peer peer;
    struct crab_slice value;
    struct crab_put_options wrong = {.condition = (enum crab_put_condition)9};
    struct crab_put_options no_version = {.condition = CRAB_IF_VERSION};
    struct crab_put_options long_ttl = {.ttl_ms = CRAB_TTL_MAX_MS + 1};
    char name[CRAB_MAX_CLIENT_NAME + 2];
    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_get(conn, "", 0, &value), CRAB_E_INVALID);
    assert_int_equal(crab_conn_get(conn, big, sizeof big, &value), CRAB_E_INVALID);
    assert_int_equal(crab_conn_get_touch(conn, KEY, 0, &value), CRAB_E_INVALID);
    assert_int_equal(crab_conn_expire(conn, KEY, 0), CRAB_E_INVALID);
    assert_int_equal(crab_conn_expire(conn, KEY, CRAB_TTL_MAX_MS + 1), CRAB_E_INVALID);
    assert_int_equal(crab_conn_put(conn, KEY, "v", 1, &wrong, NULL), CRAB_E_INVALID);
    assert_int_equal(crab_conn_put(conn, KEY, "v", 1, &no_version, NULL), CRAB_E_INVALID);
    assert_int_equal(crab_conn_put(conn, KEY, "v", 1, &long_ttl, NULL), CRAB_E_INVALID);
    assert_int_equal(crab_conn_auth(conn, "", "s", 1), CRAB_E_INVALID);
    assert_int_equal(crab_conn_auth(conn, "u", big, CRAB_MAX_SECRET + 1), CRAB_E_INVALID);
    assert_int_equal(crab_conn_hello(conn, name), CRAB_E_INVALID);
    assert_int_equal(crab_conn_stats(conn, name, &value), CRAB_E_INVALID);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_E_INVALID); /* no HELLO, so no pushes */
    assert_true(crab_conn_error_text(conn)[0] != '\0');
    peer_expect_nothing(&peer);
    assert_int_equal(crab_conn_in_flight(conn), 0);
    peer_send_hex(&peer, "11");
    assert_int_equal(crab_conn_ping(conn), CRAB_OK);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void errors_of_the_server_are_told(void **state)
{
    struct peer peer;
    struct crab_slice value;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    peer_send_hex(&peer, "13 06000000 0e02 611b5b62"); /* AUTH_REQUIRED, with an escape sequence in the text */
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_SERVER);
    assert_int_equal(crab_conn_error(conn), CRAB_ERR_AUTH_REQUIRED);
    assert_string_equal(crab_conn_error_text(conn), "a?[b");
    peer_send_hex(&peer, "13 02000000 0102"); /* no text: the codec's own */
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_SERVER);
    assert_string_equal(crab_conn_error_text(conn), crab_error_text(CRAB_ERR_UNKNOWN_OP));
    peer_send_hex(&peer, "13 02000000 7f09"); /* a number of a newer protocol */
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_SERVER);
    assert_int_equal(crab_conn_error(conn), 0x097f);
    assert_int_equal(crab_conn_state(conn), CRAB_OK);
    /* A fatal one ends the connection, and what came after it was not executed. */
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    peer_send_hex(&peer, "13 02000000 0202");
    struct crab_result result;
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    assert_int_equal(result.status, CRAB_E_SERVER);
    assert_int_equal(result.error, CRAB_ERR_BAD_FRAME);
    assert_int_equal(crab_conn_state(conn), CRAB_E_SERVER);
    assert_int_equal(crab_conn_outcome_unknown(conn), 0);
    check_broken(conn);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void goaway_and_an_orderly_end_leave_nothing_unknown(void **state)
{
    struct peer peer;
    uint16_t code = 0;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){0});
    assert_false(crab_conn_goaway(conn, &code));
    peer_send_hex(&peer, "c1 04000000 0301 6279 c7 02000000 0000"); /* GOAWAY, and a push of a newer protocol */
    (void)shutdown(peer.fd, SHUT_WR);
    assert_int_equal(crab_conn_del(conn, KEY), CRAB_E_CLOSED);
    assert_true(crab_conn_goaway(conn, &code));
    assert_int_equal(code, CRAB_ERR_SHUTTING_DOWN);
    assert_non_null(strstr(crab_conn_error_text(conn), "shutting down"));
    assert_int_equal(crab_conn_outcome_unknown(conn), 0);
    check_broken(conn);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void a_reply_to_nothing_breaks(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    peer_send_hex(&peer, "11 10"); /* PONG, and an OK that nobody asked for */
    assert_int_equal(crab_conn_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_del(conn, KEY), CRAB_E_PROTOCOL);
    check_broken(conn);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void welcome_is_taken_over(void **state)
{
    struct peer peer;
    struct crab_server_info info;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_server_info(conn, &info), CRAB_EMPTY);
    crab_conn_close(conn);
    conn = peer_connect_hello(&peer, (struct crab_conn_options){.max_in_flight = 5000});
    assert_int_equal(crab_conn_server_info(conn, &info), CRAB_OK);
    assert_int_equal(info.version, 1);
    assert_int_equal(info.features, CRAB_FEATURE_PUSH);
    assert_int_equal(info.max_value, 1 << 20);
    assert_int_equal(info.name.len, 4);
    assert_memory_equal(info.name.data, "peer", 4);
    assert_int_equal(crab_conn_max_in_flight(conn), 1024); /* the server's wish is below ours */
    crab_conn_close(conn);
    conn = peer_connect_hello(&peer, (struct crab_conn_options){.max_in_flight = 7});
    assert_int_equal(crab_conn_max_in_flight(conn), 7);
    crab_conn_close(conn);
    /* A version that was not offered. */
    conn = peer_connect(&peer, (struct crab_conn_options){0});
    peer_send_hex(&peer, "1a 11000000 02 01000000 ffff0000 00001000 00040000");
    assert_int_equal(crab_conn_hello(conn, NULL), CRAB_E_PROTOCOL);
    check_broken(conn);
    crab_conn_close(conn);
    /* A feature that was not asked for; no place for any request [P-12.1.2]. */
    static const char *const impossible[] = {"1a 11000000 01 03000000 ffff0000 00001000 00040000",
                                             "1a 11000000 01 01000000 ffff0000 00001000 00000000"};
    for (size_t i = 0; i < 2; i++) {
        conn = peer_connect(&peer, (struct crab_conn_options){0});
        peer_send_hex(&peer, impossible[i]);
        assert_int_equal(crab_conn_hello(conn, NULL), CRAB_E_PROTOCOL);
        check_broken(conn);
        crab_conn_close(conn);
    }
    peer_close(&peer);
}

/* With each allocation failing, once and from then on: a status, no leak, no half-done state. */
static void every_allocation_may_fail(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    for (int after = 0; after <= 1; after++) {
        for (size_t fail_at = 1; fail_at < 12; fail_at++) {
            struct counting counting;
            struct outcome outcome = {0};
            struct crab_conn *conn = NULL;
            struct crab_failure failure;
            counting_init(&counting);
            counting.fail_at = fail_at;
            counting.fail_after = after;
            struct crab_conn_options options = {.port = peer.port, .no_hello = true, .allocator = &counting.allocator};
            enum crab_status status = crab_conn_open(&options, &conn, &failure);
            if (status == CRAB_OK) {
                peer.fd = accept4(peer.listener, NULL, NULL, SOCK_CLOEXEC);
                for (size_t i = 0; i < exchange_count && status != CRAB_E_BROKEN; i++) {
                    peer_send_hex(&peer, exchanges[i].reply);
                    status = exchanges[i].call(conn, &outcome);
                    if (status == CRAB_E_NO_MEMORY && crab_conn_state(conn) == CRAB_OK) {
                        if (after)
                            break;
                        status = exchanges[i].call(conn, &outcome); /* nothing was sent: it works now */
                    }
                    assert_true(status == exchanges[i].status || status == CRAB_E_NO_MEMORY || status == CRAB_E_BROKEN);
                }
                crab_conn_close(conn);
                peer_reset(&peer);
            } else {
                assert_int_equal(status, CRAB_E_NO_MEMORY);
                assert_null(conn);
            }
            assert_int_equal(counting.blocks, 0);
        }
    }
    peer_close(&peer);
}

static void a_warm_connection_allocates_nothing(void **state)
{
    struct peer peer;
    struct counting counting;
    size_t warm = 0;
    (void)state;
    counting_init(&counting);
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.allocator = &counting.allocator});
    for (unsigned round = 0; round < 200; round++) {
        if (round == 1)
            warm = counting.calls;
        for (size_t i = 0; i < exchange_count; i++) {
            struct outcome outcome = {0};
            peer_send_hex(&peer, exchanges[i].reply);
            assert_int_equal(exchanges[i].call(conn, &outcome), exchanges[i].status);
            peer_expect(&peer, exchanges[i].request);
        }
    }
    assert_int_equal(counting.calls, warm);
    crab_conn_close(conn);
    assert_int_equal(counting.blocks, 0);
    peer_close(&peer);
}

static void wrong_options_are_refused(void **state)
{
    char name[CRAB_MAX_CLIENT_NAME + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const struct crab_conn_options wrong[] = {
        {.client_name = name},          {.user = name},
        {.user = ""},                   {.secret = name, .secret_len = 2000},
        {.secret_len = 3},              {.max_in_flight = CRAB_MAX_IN_FLIGHT + 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct crab_conn *conn = NULL;
        struct crab_failure failure = {0};
        assert_int_equal(crab_conn_open(&wrong[i], &conn, &failure), CRAB_E_INVALID);
        assert_int_equal(failure.status, CRAB_E_INVALID);
        assert_true(failure.text[0] != '\0');
        assert_null(conn);
        assert_int_equal(crab_conn_open(&wrong[i], &conn, NULL), CRAB_E_INVALID);
    }
    crab_conn_close(NULL);
}

static void every_status_has_a_text(void **state)
{
    (void)state;
    for (int i = CRAB_OK; i <= CRAB_E_LOADER; i++) {
        bool known = strcmp(crab_status_name((enum crab_status)i), "CRAB_E_?") != 0;
        assert_int_equal(known, strcmp(crab_status_text((enum crab_status)i), "unknown status") != 0);
    }
    assert_string_equal(crab_status_name(CRAB_E_TIMEOUT), "CRAB_E_TIMEOUT");
    assert_string_equal(crab_status_name((enum crab_status)999), "CRAB_E_?");
    assert_string_equal(crab_version(), CRAB_VERSION_STRING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_sends_its_bytes_and_reads_its_reply),
        cmocka_unit_test(bad_arguments_send_nothing),
        cmocka_unit_test(errors_of_the_server_are_told),
        cmocka_unit_test(goaway_and_an_orderly_end_leave_nothing_unknown),
        cmocka_unit_test(a_reply_to_nothing_breaks),
        cmocka_unit_test(welcome_is_taken_over),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_warm_connection_allocates_nothing),
        cmocka_unit_test(wrong_options_are_refused),
        cmocka_unit_test(every_status_has_a_text),
    };
    return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
