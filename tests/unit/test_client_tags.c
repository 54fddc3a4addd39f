/* SPDX-License-Identifier: MIT */
/*
 * Tags, and the errors that end a stream, against a scripted peer: what belongs to a request and what does not, fatal
 * errors that come without the tag, those of a newer protocol, and those after a quiet write.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "crabcache/crabcache.h"
#include "tests/support/peer.h"

#define KEY "key", 3
#define K "6b6579"
#define NEW_FATAL "13 0b000000 f002 6e657720666174616c" /* 0x02f0, "new fatal" */

static void tags_are_checked(void **state)
{
    struct peer peer;
    struct crab_result r;
    struct crab_slice value;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.check_tags = true});
    peer_send_hex(&peer, "1f 0a000000 01000000 14 01000000 61");
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_OK);
    peer_expect(&peer, "03 40 0300 07000000 01000000" K);
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    peer_send_hex(&peer, "1f 05000000 02000000 12 1f 05000000 04000000 12");
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    assert_int_equal(r.tag, 2);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_E_PROTOCOL); /* 4 is not 3 */
    assert_int_equal(crab_conn_state(conn), CRAB_E_PROTOCOL);
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_E_BROKEN);
    crab_conn_close(conn);

    conn = peer_connect(&peer, (struct crab_conn_options){.check_tags = true});
    peer_send_hex(&peer, "12"); /* without a tag */
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_PROTOCOL);
    crab_conn_close(conn);

    conn = peer_connect(&peer, (struct crab_conn_options){0});
    peer_send_hex(&peer, "1f 05000000 02000000 12"); /* with one that nobody asked for */
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_PROTOCOL);
    crab_conn_close(conn);

    conn = peer_connect(&peer, (struct crab_conn_options){.check_tags = true});
    peer_send_hex(&peer, "13 02000000 0202"); /* a fatal error comes without tag */
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_SERVER);
    assert_int_equal(crab_conn_error(conn), CRAB_ERR_BAD_FRAME);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void a_tagged_connection_does_the_same(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){.check_tags = true});
    peer_send_hex(&peer, "1f 05000000 02000000 11");
    assert_int_equal(crab_conn_ping(conn), CRAB_OK);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* ---- errors that end the stream */

/* Two requests in flight, of which the first gets `reply`; it must be the error `code`, and the end if `last`. */
static void expect_error(bool tagged, const char *reply, uint16_t code, const char *text, bool last)
{
    struct peer peer;
    struct crab_result r;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.check_tags = tagged});
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    peer_send_hex(&peer, reply);
    peer_send_hex(&peer, tagged ? "1f 05000000 02000000 10" : "10"); /* after the last frame it must reach nobody */
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    assert_int_equal(r.status, CRAB_E_SERVER);
    assert_int_equal(r.request, CRAB_OP_GET);
    assert_int_equal(r.error, code);
    assert_int_equal(crab_conn_error(conn), code);
    assert_string_equal(crab_conn_error_text(conn), text);
    assert_int_equal(crab_conn_state(conn), last ? CRAB_E_SERVER : CRAB_OK);
    assert_int_equal(crab_conn_fd(conn) == -1, last);
    assert_int_equal(crab_conn_next_reply(conn, &r), last ? CRAB_E_BROKEN : CRAB_OK);
    assert_int_equal(crab_conn_outcome_unknown(conn), 0);
    assert_int_equal(crab_conn_in_flight(conn), last ? 1 : 0);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void an_error_without_the_tag_is_the_last_frame(void **state)
{
    (void)state;
    expect_error(true, NEW_FATAL, 0x02f0, "new fatal", true); /* the client need not know that the code is fatal */
    expect_error(true, "13 02000000 7f09", 0x097f, "the server gave no reason", true);
    expect_error(true, "13 03000000 0103 78", CRAB_ERR_INTERNAL, "x", true);
    expect_error(true, "13 03000000 0202 78", CRAB_ERR_BAD_FRAME, "x", true);
}

static void other_errors_end_the_stream_only_if_their_code_says_so(void **state)
{
    (void)state;
    expect_error(true, "1f 14000000 01000000" NEW_FATAL, 0x02f0, "new fatal", false);
    expect_error(true, "1f 0c000000 01000000 13 03000000 0103 78", CRAB_ERR_INTERNAL, "x", false);
    expect_error(true, "1f 0c000000 01000000 13 03000000 0202 78", CRAB_ERR_BAD_FRAME, "x", true);
    expect_error(false, NEW_FATAL, 0x02f0, "new fatal", false); /* the end of the stream will tell */
    expect_error(false, "13 03000000 0202 78", CRAB_ERR_BAD_FRAME, "x", true);
}

/* A PING that is answered, and behind the PONG an ERROR while nothing waits for a reply. */
static enum crab_status unasked(bool quiet, const char *error, uint16_t *code)
{
    struct peer peer;
    struct crab_result r;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    if (quiet)
        assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_conn_flush(conn), CRAB_OK);
    struct hex pong = hex("11");
    struct hex rest = hex(error);
    for (size_t i = 0; i < rest.len; i++) /* in one piece, so that both are read together */
        pong.bytes[pong.len++] = rest.bytes[i];
    peer_send(&peer, pong.bytes, pong.len);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    enum crab_status status = crab_conn_next_reply(conn, &r);
    *code = crab_conn_error(conn);
    assert_int_equal(crab_conn_state(conn), status);
    crab_conn_close(conn);
    peer_close(&peer);
    return status;
}

static void an_error_that_nobody_waits_for(void **state)
{
    static const struct {
        bool quiet;
        const char *error;
        enum crab_status status;
        uint16_t code;
    } wanted[] = {
        {false, "13 02000000 0301", CRAB_E_SERVER, CRAB_ERR_SHUTTING_DOWN},
        {false, NEW_FATAL, CRAB_E_SERVER, 0x02f0},
        {true, NEW_FATAL, CRAB_E_SERVER, 0x02f0},
        {true, "13 02000000 0103", CRAB_E_SERVER, CRAB_ERR_INTERNAL}, /* fatal, for it is no LATE_ERROR */
        {false, "13 02000000 0103", CRAB_E_PROTOCOL, 0},
        {true, "1f 0b000000 01000000 13 02000000 0202", CRAB_E_PROTOCOL, 0},
        {true, "10", CRAB_E_PROTOCOL, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        uint16_t code = 1;
        assert_int_equal(unasked(wanted[i].quiet, wanted[i].error, &code), wanted[i].status);
        assert_int_equal(code, wanted[i].code);
    }
}

/* Only a PONG tells that the quiet writes before it are settled; an ERROR in its place may be the end of them. */
static void an_error_settles_no_quiet_write(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    peer_send_hex(&peer, "13 02000000 1002");
    assert_int_equal(crab_conn_ping(conn), CRAB_E_SERVER);
    assert_int_equal(crab_conn_error(conn), CRAB_ERR_QUIET_MISUSE);
    assert_int_equal(crab_conn_state(conn), CRAB_E_SERVER);
    assert_int_equal(crab_conn_outcome_unknown(conn), 1);
    crab_conn_close(conn);
    peer_close(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_are_checked),
        cmocka_unit_test(a_tagged_connection_does_the_same),
        cmocka_unit_test(an_error_without_the_tag_is_the_last_frame),
        cmocka_unit_test(other_errors_end_the_stream_only_if_their_code_says_so),
        cmocka_unit_test(an_error_that_nobody_waits_for),
        cmocka_unit_test(an_error_settles_no_quiet_write),
    };
    return cmocka_run_group_tests_name("client_tags", tests, NULL, NULL);
}
