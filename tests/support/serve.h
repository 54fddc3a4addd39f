/* SPDX-License-Identifier: MIT */
/*
 * A server in a thread of the test: the real dispatch and store behind plain sockets, with faults to switch on.
 *
 * It sends with blocking calls and receives nothing meanwhile, as strict as a server can be.  All its connections share one
 * store, which outlives serve_stop(): serve_start() again is a restart that forgets nothing.
 *
 * A `struct serve` is static: where a test fails its frame is left, and the thread goes on.
 */
#ifndef CRABCACHE_TESTS_SERVE_H
#define CRABCACHE_TESTS_SERVE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/dispatch_peer.h"

#define SERVE_CONNECTIONS 64

struct serve_conn {
    int fd;
    bool hello_seen;
    size_t sent; /* bytes of replies */
    uint64_t skip;
    struct session session;
    struct dispatch_bytes in;
};

struct serve {
    struct dispatch_peer *peer;
    int listener;
    int family;    /* AF_INET unless set to AF_INET6 before the start */
    uint16_t port; /* the same after a restart */
    bool running;
    pthread_t thread;
    int wake[2];
    struct serve_conn conns[SERVE_CONNECTIONS];

    _Atomic bool quit;
    _Atomic bool hang;        /* receives nothing and accepts nobody: serve_hang() */
    _Atomic bool hanging;     /* the thread has seen it */
    _Atomic bool drop;        /* closes all connections once, with a reset */
    _Atomic bool leave;       /* says GOAWAY to all once, and ends the streams in order */
    _Atomic size_t cut_after; /* closes a connection with a reset after so many bytes of replies; 0: never */
    _Atomic size_t piece;     /* sends so many bytes at a time; 0: all */
    _Atomic uint32_t delay_us; /* waits before it executes what it received */
    _Atomic uint32_t accepted;
    _Atomic uint64_t frames;  /* receives that were executed */
};

/** @brief Start, or start again. */
void serve_start(struct serve *serve);
/** @brief Stop: connections are reset, the port is free. */
void serve_stop(struct serve *serve);
/** @brief Stop if it runs, and forget everything. */
void serve_end(struct serve *serve);
/** @brief Receive nothing and accept nobody from now on, or do again. */
void serve_hang(struct serve *serve, bool hang);
/** @brief Make the thread look at its switches now. */
void serve_poke(struct serve *serve);

#endif
