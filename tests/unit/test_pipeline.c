/* SPDX-License-Identifier: MIT */
/*
 * Pipelining against a scripted peer: order, bounds, quiet writes; and against a server thread that stops reading
 * while its replies are not taken, with pipelines much larger than all socket buffers.
 */
#include <pthread.h>
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
#include "tests/support/peer.h"

#define KEY "key", 3
#define K "6b6579"

static void replies_come_in_order_with_all_they_carry(void **state)
{
    struct peer peer;
    struct crab_result r;
    struct crab_put_options want = {.want_version = true};
    struct crab_incr_options create = {.create = true, .initial = 1};
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_EMPTY);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_queue_put(conn, KEY, "v", 1, &want), CRAB_OK);
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_queue_get_touch(conn, KEY, 9), CRAB_OK);
    assert_int_equal(crab_conn_queue_get_meta(conn, KEY, 0), CRAB_OK);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_queue_expire(conn, KEY, 9), CRAB_OK);
    assert_int_equal(crab_conn_queue_incr(conn, KEY, 2, NULL), CRAB_OK);
    assert_int_equal(crab_conn_queue_decr(conn, KEY, 2, &create), CRAB_OK);
    assert_int_equal(crab_conn_queue_stats(conn, NULL), CRAB_OK);
    assert_int_equal(crab_conn_queue_auth(conn, "u", "s", 1), CRAB_OK);
    assert_int_equal(crab_conn_queue_flush_all(conn), CRAB_OK);
    peer_expect_nothing(&peer); /* small requests wait for a flush */
    assert_int_equal(crab_conn_in_flight(conn), 12);
    assert_int_equal(crab_conn_flush(conn), CRAB_OK);
    peer_expect(&peer, "01 00 0000 00000000 02 10 0300 04000000" K "76 03 00 0300 03000000" K
                       "03 01 0300 0b000000 0900000000000000" K "03 02 0300 03000000" K "04 00 0300 03000000" K
                       "05 00 0300 0b000000 0900000000000000" K "0b 00 0300 0b000000 0200000000000000" K
                       "0c 02 0300 13000000 0200000000000000 0100000000000000" K
                       "06 00 0000 00000000 08 00 0100 02000000 7573 09 00 0000 00000000");
    peer_expect_nothing(&peer);
    peer_send_hex(&peer, "11 19 08000000 0300000000000000 14 02000000 6162 12"
                         "16 15000000 0500000000000000 ffffffffffffffff 07000000 63"
                         "10 13 02000000 0102 18 08000000 ffffffffffffffff 12");
    static const struct {
        uint8_t request;
        enum crab_status status;
    } wanted[] = {{CRAB_OP_PING, CRAB_OK},       {CRAB_OP_PUT, CRAB_OK}, {CRAB_OP_GET, CRAB_OK},
                  {CRAB_OP_GET, CRAB_MISS},      {CRAB_OP_GET, CRAB_OK}, {CRAB_OP_DEL, CRAB_OK},
                  {CRAB_OP_EXPIRE, CRAB_E_SERVER}, {CRAB_OP_INCR, CRAB_OK}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct crab_slice value;
        assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_E_PENDING); /* its reply would be another's */
        assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
        assert_int_equal(r.request, wanted[i].request);
        assert_int_equal(r.status, wanted[i].status);
        assert_int_equal(r.version, i == 1 ? 3 : i == 4 ? 5 : 0);
        assert_int_equal(r.number, i == 7 ? -1 : 0);
        assert_int_equal(r.value.len, i == 2 ? 2 : i == 4 ? 1 : 0);
    }
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_E_PROTOCOL); /* NULL to a DECR with INITIAL */
    assert_int_equal(crab_conn_outcome_unknown(conn), 2);              /* DECR and FLUSH */
    crab_conn_close(conn);
    peer_close(&peer);
}

static void the_bound_on_requests_in_flight_holds(void **state)
{
    struct peer peer;
    struct crab_result r;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.max_in_flight = 100});
    /* Over and over, so that the ring grows in the middle and wraps around. */
    size_t queued = 0;
    size_t taken = 0;
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 37 && crab_conn_queue_del(conn, KEY) == CRAB_OK; i++)
            queued++;
        assert_int_equal(crab_conn_in_flight(conn), queued - taken);
        assert_true(queued - taken <= 100);
        for (unsigned i = 0; i < 11; i++) {
            peer_send_hex(&peer, (taken + i) % 3 == 0 ? "12" : "10");
        }
        for (unsigned i = 0; i < 11; i++) {
            assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
            assert_int_equal(r.status, taken % 3 == 0 ? CRAB_MISS : CRAB_OK);
            taken++;
        }
    }
    while (crab_conn_queue_del(conn, KEY) == CRAB_OK)
        ;
    assert_int_equal(crab_conn_in_flight(conn), 100);
    assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_E_FULL);
    assert_int_equal(crab_conn_state(conn), CRAB_OK);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* ---- a server that does not read while it cannot write */

struct server {
    struct peer *peer;
    size_t requests;
    size_t reply_bytes; /* of each VALUE */
    size_t got;
};

/* Answer each request whose header says `blen` with a VALUE, or with OK if it is a PUT. */
static void *serve(void *argument)
{
    struct server *server = argument;
    uint8_t *reply = calloc(1, server->reply_bytes + 5);
    reply[0] = CRAB_REP_VALUE;
    uint32_t len = (uint32_t)server->reply_bytes;
    memcpy(reply + 1, &len, 4);
    for (size_t i = 0; i < server->requests; i++) {
        uint8_t header[8];
        uint32_t blen;
        if (recv(server->peer->fd, header, sizeof header, MSG_WAITALL) != (ssize_t)sizeof header)
            break;
        memcpy(&blen, header + 4, 4);
        peer_skip(server->peer, blen);
        memcpy(reply + 5, &i, server->reply_bytes < sizeof i ? server->reply_bytes : sizeof i);
        if (header[0] == CRAB_OP_PUT)
            peer_send(server->peer, "\x10", 1);
        else
            peer_send(server->peer, reply, server->reply_bytes + 5);
        server->got++;
    }
    free(reply);
    return NULL;
}

/* Take one reply and check that it is the one of request `index`. */
static void take(struct crab_conn *conn, size_t index, size_t bytes)
{
    struct crab_result r;
    enum crab_status status = crab_conn_next_reply(conn, &r);
    if (status != CRAB_OK)
        fail_msg("reply %zu: %s", index, crab_conn_error_text(conn));
    if (r.request != CRAB_OP_GET)
        return;
    assert_int_equal(r.value.len, bytes);
    assert_memory_equal(r.value.data, &index, bytes < sizeof index ? bytes : sizeof index);
}

/* `requests` gets or puts through sockets that hold a fraction of them, all queued before any reply is taken. */
static void run_big(size_t requests, size_t put_every, size_t put_bytes, size_t reply_bytes, uint32_t max_buffered)
{
    struct peer peer;
    static const uint8_t key[1000] = {1}; /* so that requests, too, are more than the system buffers */
    pthread_t thread;
    int small = 65536; /* with less than a segment of the loopback, TCP itself crawls: one per delayed ACK */
    peer_listen(&peer);
    assert_int_equal(setsockopt(peer.listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    assert_int_equal(setsockopt(peer.listener, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.max_buffered = max_buffered});
    struct server server = {.peer = &peer, .requests = requests, .reply_bytes = reply_bytes};
    uint8_t *value = calloc(1, put_bytes + 1);
    assert_int_equal(pthread_create(&thread, NULL, serve, &server), 0);
    size_t taken = 0;
    size_t full = 0;
    for (size_t i = 0; i < requests;) {
        bool put = put_every != 0 && i % put_every == 0;
        enum crab_status status =
            put ? crab_conn_queue_put(conn, KEY, value, put_bytes, NULL) : crab_conn_queue_get(conn, key, sizeof key);
        if (status == CRAB_E_FULL) {
            full++;
            take(conn, taken++, reply_bytes);
            continue;
        }
        if (status != CRAB_OK)
            fail_msg("request %zu: %s", i, crab_conn_error_text(conn));
        i++;
    }
    enum crab_status status;
    while ((status = crab_conn_flush(conn)) == CRAB_E_FULL) {
        full++;
        take(conn, taken++, reply_bytes);
    }
    assert_int_equal(status, CRAB_OK);
    while (taken < requests)
        take(conn, taken++, reply_bytes);
    assert_int_equal(crab_conn_in_flight(conn), 0);
    (void)pthread_join(thread, NULL);
    assert_int_equal(server.got, requests);
    if (reply_bytes > 1000)
        assert_true(full > 0); /* the bound was reached, or this tests nothing */
    free(value);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void full_socket_buffers_never_deadlock(void **state)
{
    (void)state;
    run_big(60000, 0, 0, 4096, 65536);            /* many small requests, replies of 240 MB */
    run_big(300, 2, 1 << 20, 1 << 20, 1 << 20);   /* large values both ways */
    run_big(300, 2, 1 << 20, 1 << 20, 4096);      /* and with next to no room for replies */
    run_big(20000, 3, 40000, 10, 4096);           /* values just large enough not to be copied */
    run_big(20000, 3, 20000, 5000, 65536);        /* and just small enough to be copied */
}

/* ---- quiet writes */

/* They count as in flight until the reply to a later request, and leave it the last place [P-6.11.2]. */
static void quiet_writes_take_places(void **state)
{
    struct peer peer;
    struct crab_result result;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){.max_in_flight = 4});
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_E_FULL);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_OK);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_E_FULL);
    peer_send_hex(&peer, "11"); /* ends the first quiet write and the first ping: two places */
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_E_FULL);
    peer_send_hex(&peer, "11"); /* the second ping and the quiet write before it, not the one behind it */
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_E_FULL);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void late_errors_wait_until_they_are_taken(void **state)
{
    struct peer peer;
    struct crab_late_error late;
    uint32_t tags[6];
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_quiet_put(conn, KEY, "v", 1, NULL, &tags[0]), CRAB_OK);
    assert_int_equal(crab_conn_quiet_del(conn, KEY, &tags[1]), CRAB_OK);
    assert_int_equal(crab_conn_quiet_expire(conn, KEY, 9, &tags[2]), CRAB_OK);
    assert_int_equal(crab_conn_quiet_incr(conn, KEY, 1, NULL, &tags[3]), CRAB_OK);
    assert_int_equal(crab_conn_quiet_decr(conn, KEY, 1, NULL, &tags[4]), CRAB_OK);
    assert_int_equal(crab_conn_quiet_flush_all(conn, &tags[5]), CRAB_OK);
    assert_int_equal(crab_conn_in_flight(conn), 0);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(tags[i], i + 1);
    peer_send_hex(&peer, "c0 08000000 01000000 0101 6e6f c0 06000000 04000000 0902 11");
    assert_int_equal(crab_conn_ping(conn), CRAB_OK);
    peer_expect(&peer, "02 c0 0300 08000000 01000000" K "76 04 c0 0300 07000000 02000000" K
                       "05 c0 0300 0f000000 03000000 0900000000000000" K
                       "0b c0 0300 0f000000 04000000 0100000000000000" K
                       "0c c0 0300 0f000000 05000000 0100000000000000" K "09 c0 0000 04000000 06000000"
                       "01 00 0000 00000000");
    assert_int_equal(crab_conn_late_error(conn, &late), CRAB_OK);
    assert_int_equal(late.tag, 1);
    assert_int_equal(late.code, CRAB_ERR_OUT_OF_MEMORY);
    assert_string_equal(late.text, "no");
    assert_int_equal(crab_conn_late_error(conn, &late), CRAB_OK);
    assert_int_equal(late.tag, 4);
    assert_int_equal(crab_conn_late_error(conn, &late), CRAB_EMPTY);
    union crab_request quiet_get = {.get = {.op = CRAB_OP_GET, .flags = CRAB_FLAG_QUIET, .key = crab_slice_of(KEY)}};
    assert_int_equal(crab_conn_queue(conn, &quiet_get, NULL), CRAB_E_INVALID);
    /* After the PONG nothing is unknown; a quiet write after it is. */
    (void)shutdown(peer.fd, SHUT_WR);
    assert_int_equal(crab_conn_ping(conn), CRAB_E_CLOSED);
    assert_int_equal(crab_conn_outcome_unknown(conn), 0);
    crab_conn_close(conn);

    conn = peer_connect_hello(&peer, (struct crab_conn_options){0});
    assert_int_equal(crab_conn_quiet_del(conn, KEY, NULL), CRAB_OK);
    (void)shutdown(peer.fd, SHUT_WR);
    assert_int_equal(crab_conn_ping(conn), CRAB_E_CLOSED);
    assert_int_equal(crab_conn_outcome_unknown(conn), 1);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void late_errors_are_bounded(void **state)
{
    struct peer peer;
    struct crab_late_error late;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){0});
    uint32_t taken = 0;
    for (uint32_t i = 0; i < 6000; i++) {
        uint8_t push[11] = {0xc0, 6};
        memcpy(push + 5, &i, 4);
        push[9] = 1;
        push[10] = 1;
        peer_send(&peer, push, sizeof push);
        if (i % 500 == 499) { /* in pieces, so that the ring wraps and grows */
            peer_send_hex(&peer, "11");
            assert_int_equal(crab_conn_ping(conn), CRAB_OK);
            assert_int_equal(crab_conn_late_error(conn, &late), CRAB_OK);
            assert_int_equal(late.tag, taken++);
        }
    }
    assert_true(crab_conn_late_errors_lost(conn) > 0);
    uint32_t count = 0;
    uint32_t last = 0;
    while (crab_conn_late_error(conn, &late) == CRAB_OK) {
        assert_true(count == 0 || late.tag > last);
        last = late.tag;
        count++;
    }
    assert_int_equal(count + taken + crab_conn_late_errors_lost(conn), 6000);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* ---- borrowed bytes, and what is left after a break */

/*
 * The first value leaves little room behind it in a buffer of 8 MiB, so that the second one makes the buffer move; and
 * the second one is so long that it would reach what has not been sent yet.
 */
enum { BORROWED = (8 << 20) - 10000, SECOND = 7 << 20 };

/* Give out a large value and then another one, before reading what the client sends. */
static void *give_two_values(void *argument)
{
    const struct peer *peer = argument;
    uint8_t *frame = malloc(BORROWED + 5);
    uint8_t *sent = malloc(BORROWED);
    uint32_t len = BORROWED;
    frame[0] = CRAB_REP_VALUE;
    memcpy(frame + 1, &len, 4);
    for (size_t i = 0; i < BORROWED; i++)
        frame[5 + i] = (uint8_t)(i * 7 + i / 256);
    peer_skip(peer, 11);
    peer_send(peer, frame, BORROWED + 5);
    peer_skip(peer, 11);
    len = SECOND;
    memcpy(frame + 1, &len, 4);
    peer_send(peer, frame, SECOND + 5);
    peer_send_hex(peer, "10");
    peer_skip(peer, 11);
    ssize_t got = recv(peer->fd, sent, BORROWED, MSG_WAITALL);
    len = BORROWED;
    memcpy(frame + 1, &len, 4);
    bool same = got == BORROWED && memcmp(sent, frame + 5, BORROWED) == 0;
    free(sent);
    free(frame);
    return same ? argument : NULL;
}

/* The value lies in the input buffer, which moves when the client reads while it sends. */
static void a_borrowed_value_may_be_put_again(void **state)
{
    struct peer peer;
    struct crab_slice value;
    struct crab_result r;
    pthread_t thread;
    void *same = NULL;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.max_buffered = 64 << 20});
    assert_int_equal(pthread_create(&thread, NULL, give_two_values, &peer), 0);
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_OK);
    assert_int_equal(value.len, BORROWED);
    assert_int_equal(crab_conn_queue_get(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_queue_put(conn, KEY, value.data, value.len, NULL), CRAB_OK);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    assert_int_equal(r.value.len, SECOND);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    assert_int_equal(crab_conn_flush(conn), CRAB_OK);
    (void)pthread_join(thread, &same);
    assert_non_null(same);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* Take what copies of a borrowed value the client sends, and answer each. */
struct copies {
    const struct peer *peer;
    const uint8_t *value;
    size_t bytes;
    size_t wanted;
    size_t same;
};

static void *take_copies(void *argument)
{
    struct copies *copies = argument;
    uint8_t *got = malloc(copies->bytes);
    for (size_t i = 0; i < copies->wanted; i++) {
        peer_skip(copies->peer, 11);
        if (recv(copies->peer->fd, got, copies->bytes, MSG_WAITALL) != (ssize_t)copies->bytes)
            break;
        copies->same += memcmp(got, copies->value, copies->bytes) == 0;
        peer_send_hex(copies->peer, "10");
    }
    free(got);
    return NULL;
}

/*
 * A borrowed value is put so often that neither the socket nor the queue holds it, while the server does not read but
 * has something to say.  Waiting for room would read, and so write over the value: it is copied without waiting.
 */
static void a_borrowed_value_never_waits_for_room(void **state)
{
    enum { BYTES = 60000, PUTS = 300 };
    static uint8_t frame[BYTES + 5] = {CRAB_REP_VALUE, BYTES & 0xff, BYTES >> 8};
    struct peer peer;
    struct crab_slice value;
    struct crab_result r;
    pthread_t thread;
    (void)state;
    for (size_t i = 0; i < BYTES; i++)
        frame[5 + i] = (uint8_t)(i * 7 + i / 256);
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){.timeout_ms = 5000});
    peer_send(&peer, frame, sizeof frame);
    assert_int_equal(crab_conn_get(conn, KEY, &value), CRAB_OK);
    peer_skip(&peer, 11);
    peer_send_hex(&peer, "c0 06000000 01000000 0101 c0 06000000 01000000 0101");
    for (size_t i = 0; i < PUTS; i++)
        assert_int_equal(crab_conn_queue_put(conn, KEY, value.data, value.len, NULL), CRAB_OK);
    struct copies copies = {.peer = &peer, .value = frame + 5, .bytes = BYTES, .wanted = PUTS};
    assert_int_equal(pthread_create(&thread, NULL, take_copies, &copies), 0);
    for (size_t i = 0; i < PUTS; i++)
        assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    (void)pthread_join(thread, NULL);
    assert_int_equal(copies.same, PUTS);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void whole_replies_survive_the_end_of_the_stream(void **state)
{
    struct peer peer;
    struct crab_result r;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(crab_conn_queue_del(conn, KEY), CRAB_OK);
    assert_int_equal(crab_conn_flush(conn), CRAB_OK);
    peer_send_hex(&peer, "10 12 10 14 0a");
    (void)shutdown(peer.fd, SHUT_WR);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    assert_int_equal(r.status, CRAB_MISS);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_OK);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_E_CLOSED);
    assert_int_equal(crab_conn_next_reply(conn, &r), CRAB_E_BROKEN);
    assert_int_equal(crab_conn_outcome_unknown(conn), 2);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void a_server_that_never_reads_is_a_timeout(void **state)
{
    struct peer peer;
    static uint8_t value[1 << 20];
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.timeout_ms = 100});
    enum crab_status status = CRAB_OK;
    for (unsigned i = 0; i < 100 && status == CRAB_OK; i++)
        status = crab_conn_queue_put(conn, KEY, value, sizeof value, NULL);
    assert_int_equal(status, CRAB_E_TIMEOUT);
    size_t unknown = crab_conn_outcome_unknown(conn);
    assert_true(unknown < crab_conn_in_flight(conn)); /* the last one was not sent whole, so it was not executed */
    crab_conn_close(conn);
    peer_close(&peer);
}

/* The server refuses while a large value is still being sent, and closes: its words count, not the broken pipe. */
static void an_error_before_the_value_is_sent_is_told(void **state)
{
    struct peer peer;
    static uint8_t value[16 << 20];
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    peer_send_hex(&peer, "13 02000000 0202");
    (void)shutdown(peer.fd, SHUT_WR);
    assert_int_equal(crab_conn_put(conn, KEY, value, sizeof value, NULL, NULL), CRAB_E_SERVER);
    assert_int_equal(crab_conn_error(conn), CRAB_ERR_BAD_FRAME);
    assert_int_equal(crab_conn_outcome_unknown(conn), 0);
    crab_conn_close(conn);
    peer_close(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_come_in_order_with_all_they_carry),
        cmocka_unit_test(the_bound_on_requests_in_flight_holds),
        cmocka_unit_test(full_socket_buffers_never_deadlock),
        cmocka_unit_test(quiet_writes_take_places),
        cmocka_unit_test(late_errors_wait_until_they_are_taken),
        cmocka_unit_test(late_errors_are_bounded),
        cmocka_unit_test(a_borrowed_value_may_be_put_again),
        cmocka_unit_test(a_borrowed_value_never_waits_for_room),
        cmocka_unit_test(whole_replies_survive_the_end_of_the_stream),
        cmocka_unit_test(a_server_that_never_reads_is_a_timeout),
        cmocka_unit_test(an_error_before_the_value_is_sent_is_told),
    };
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
