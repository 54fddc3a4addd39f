/* SPDX-License-Identifier: MIT */
/*
 * The server's end of a connection in the hands of a test: the replies are put into the socket before the client asks,
 * so that most tests of the client need no second thread and are exact to the byte.
 */
#ifndef CRABCACHE_TESTS_PEER_H
#define CRABCACHE_TESTS_PEER_H

#include <stddef.h>
#include <stdint.h>

#include "crabcache/crabcache.h"

/** @brief A listening socket, and the connection that it accepted last. */
struct peer {
    int listener;
    int fd;
    uint16_t port;
};

/** @brief Bytes from hexadecimal digits with blanks. */
struct hex {
    size_t len;
    uint8_t bytes[512];
};

/** @brief Read hexadecimal digits. */
struct hex hex(const char *digits);

/** @brief Listen on a free port of the loopback. */
void peer_listen(struct peer *peer);
/** @brief Open a connection to the peer without HELLO, and accept it. Port and host of `options` are set here. */
struct crab_conn *peer_connect(struct peer *peer, struct crab_conn_options options);
/** @brief As peer_connect(), and then HELLO with the feature PUSH. */
struct crab_conn *peer_connect_hello(struct peer *peer, struct crab_conn_options options);
/** @brief Put bytes into the socket. */
void peer_send(const struct peer *peer, const void *bytes, size_t len);
/** @brief Put hexadecimal digits into the socket, as bytes. */
void peer_send_hex(const struct peer *peer, const char *digits);
/** @brief Read as many bytes as the digits say; they must be the same. */
void peer_expect(const struct peer *peer, const char *digits);
/** @brief Nothing more may have come. */
void peer_expect_nothing(const struct peer *peer);
/** @brief Read `len` bytes and throw them away. */
void peer_skip(const struct peer *peer, size_t len);
/** @brief End the stream in order. */
void peer_end(struct peer *peer);
/** @brief End it with a reset. */
void peer_reset(struct peer *peer);
/** @brief Close everything. */
void peer_close(struct peer *peer);

#endif
