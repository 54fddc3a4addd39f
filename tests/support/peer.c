/* SPDX-License-Identifier: MIT */
/*
 * A scripted server without a thread; see peer.h.  It may be called from a thread of its own, too: then the script
 * blocks like a server does.
 */
#include "tests/support/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

static uint8_t digit(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

struct hex hex(const char *digits)
{
    struct hex result = {0};
    for (; *digits != '\0'; digits++) {
        if (*digits == ' ')
            continue;
        assert_true(result.len < sizeof result.bytes);
        result.bytes[result.len++] = (uint8_t)(digit(digits[0]) << 4 | digit(digits[1]));
        digits++;
    }
    return result;
}

void peer_listen(struct peer *peer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    peer->fd = -1;
    peer->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(peer->listener >= 0);
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(peer->listener, 16), 0);
    assert_int_equal(getsockname(peer->listener, (struct sockaddr *)&address, &size), 0);
    peer->port = ntohs(address.sin_port);
}

struct crab_conn *peer_connect(struct peer *peer, struct crab_conn_options options)
{
    struct crab_conn *conn = NULL;
    struct crab_failure failure;
    options.port = peer->port;
    options.no_hello = true;
    if (options.timeout_ms == 0)
        options.timeout_ms = 20000;
    enum crab_status status = crab_conn_open(&options, &conn, &failure);
    if (status != CRAB_OK)
        fail_msg("cannot connect: %s", failure.text);
    peer->fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(peer->fd >= 0);
    return conn;
}

struct crab_conn *peer_connect_hello(struct peer *peer, struct crab_conn_options options)
{
    struct crab_conn *conn = peer_connect(peer, options);
    /* WELCOME: version 1, PUSH, max_key 65535, max_value 1 MiB, 1024 in flight, "peer" */
    if (options.check_tags)
        peer_send_hex(peer, "1f 1e000000 01000000");
    peer_send_hex(peer, "1a 15000000 01 01000000 ffff0000 00001000 00040000 70656572");
    assert_int_equal(crab_conn_hello(conn, "test"), CRAB_OK);
    if (options.check_tags)
        peer_expect(peer, "07 40 0000 0e000000 01000000 01 01 01000000 74657374");
    else
        peer_expect(peer, "07 00 0000 0a000000 01 01 01000000 74657374");
    return conn;
}

void peer_send(const struct peer *peer, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len != 0) {
        ssize_t sent = send(peer->fd, at, len, MSG_NOSIGNAL);
        if (sent < 0)
            return; /* the client has gone: what it makes of that is the test's business */
        at += sent;
        len -= (size_t)sent;
    }
}

void peer_send_hex(const struct peer *peer, const char *digits)
{
    struct hex bytes = hex(digits);
    peer_send(peer, bytes.bytes, bytes.len);
}

static size_t receive(const struct peer *peer, uint8_t *bytes, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t some = recv(peer->fd, bytes + got, len - got, 0);
        if (some <= 0)
            break;
        got += (size_t)some;
    }
    return got;
}

void peer_expect(const struct peer *peer, const char *digits)
{
    struct hex wanted = hex(digits);
    uint8_t bytes[sizeof wanted.bytes];
    assert_int_equal(receive(peer, bytes, wanted.len), wanted.len);
    assert_memory_equal(bytes, wanted.bytes, wanted.len);
}

void peer_expect_nothing(const struct peer *peer)
{
    uint8_t byte;
    assert_true(recv(peer->fd, &byte, 1, MSG_DONTWAIT) <= 0);
}

void peer_skip(const struct peer *peer, size_t len)
{
    uint8_t bytes[65536];
    while (len != 0) {
        size_t step = len < sizeof bytes ? len : sizeof bytes;
        size_t got = receive(peer, bytes, step);
        if (got == 0)
            return;
        len -= got;
    }
}

void peer_end(struct peer *peer)
{
    /* Unread bytes would turn the close into a reset. */
    uint8_t bytes[4096];
    while (recv(peer->fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
    (void)close(peer->fd);
    peer->fd = -1;
}

void peer_reset(struct peer *peer)
{
    struct linger now = {.l_onoff = 1};
    (void)setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(peer->fd);
    peer->fd = -1;
}

void peer_close(struct peer *peer)
{
    if (peer->fd >= 0)
        (void)close(peer->fd);
    if (peer->listener >= 0)
        (void)close(peer->listener);
    peer->fd = peer->listener = -1;
}
