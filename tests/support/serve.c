/* SPDX-License-Identifier: MIT */
/*
 * The thread behind serve.h: poll, accept, receive, dispatch, send.
 */
#include "tests/support/serve.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

static void must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "serve: %s: %s\n", what, strerror(errno));
        abort();
    }
}

static void end_conn(struct serve_conn *conn, bool reset)
{
    struct linger now = {.l_onoff = 1};
    if (reset)
        (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(conn->fd);
    free(conn->in.data);
    *conn = (struct serve_conn){.fd = -1};
}

static bool send_bytes(struct serve *serve, struct serve_conn *conn, const uint8_t *bytes, size_t len)
{
    size_t cut = atomic_load(&serve->cut_after);
    size_t piece = atomic_load(&serve->piece);
    for (size_t at = 0; at < len;) {
        size_t step = piece != 0 && piece < len - at ? piece : len - at;
        if (cut != 0 && step > cut - conn->sent)
            step = cut - conn->sent;
        if (step != 0 && send(conn->fd, bytes + at, step, MSG_NOSIGNAL) != (ssize_t)step)
            return false;
        at += step;
        conn->sent += step;
        if (cut != 0 && conn->sent >= cut) {
            (void)usleep(1000); /* so that what was sent is received before the reset */
            return false;
        }
    }
    return true;
}

/* Receive, execute, answer. @return false: the connection is to be ended */
static bool serve_one(struct serve *serve, struct serve_conn *conn)
{
    static _Thread_local uint8_t bytes[65536];
    struct dispatch_peer *peer = serve->peer;
    ssize_t got = recv(conn->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    uint32_t delay_us = atomic_load(&serve->delay_us);
    if (delay_us != 0)
        (void)usleep(delay_us);
    peer->session = conn->session;
    peer->skip = conn->skip;
    peer->closed = false;
    struct dispatch_bytes none = peer->in;
    peer->in = conn->in;
    peer->answers.len = 0;
    dispatch_peer_feed(peer, bytes, (size_t)got);
    conn->in = peer->in;
    peer->in = none;
    conn->session = peer->session;
    conn->skip = peer->skip;
    bool closed = peer->closed;
    atomic_fetch_add(&serve->frames, 1);
    bool sent = send_bytes(serve, conn, peer->answers.data, peer->answers.len);
    if (!sent)
        end_conn(conn, true);
    return !sent || !closed;
}

static void take_new(struct serve *serve)
{
    int one = 1;
    int fd = accept4(serve->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (size_t i = 0; i < SERVE_CONNECTIONS; i++) {
        if (serve->conns[i].fd < 0) {
            serve->conns[i] = (struct serve_conn){.fd = fd};
            atomic_fetch_add(&serve->accepted, 1);
            return;
        }
    }
    (void)close(fd);
}

static void obey(struct serve *serve)
{
    static const uint8_t goaway[] = {0xc1, 2, 0, 0, 0, 3, 1};
    bool drop = atomic_exchange(&serve->drop, false);
    bool leave = atomic_exchange(&serve->leave, false);
    for (size_t i = 0; i < SERVE_CONNECTIONS && (drop || leave); i++) {
        struct serve_conn *conn = &serve->conns[i];
        if (conn->fd < 0)
            continue;
        if (leave) {
            uint8_t bytes[4096];
            (void)send(conn->fd, goaway, sizeof goaway, MSG_NOSIGNAL);
            (void)shutdown(conn->fd, SHUT_WR);
            (void)usleep(2000);
            while (recv(conn->fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
                ;
        }
        end_conn(conn, drop);
    }
}

static void *run(void *argument)
{
    struct serve *serve = argument;
    while (!atomic_load(&serve->quit)) {
        struct pollfd entries[SERVE_CONNECTIONS + 2];
        bool hang = atomic_load(&serve->hang);
        atomic_store(&serve->hanging, hang);
        entries[0] = (struct pollfd){.fd = serve->wake[0], .events = POLLIN};
        entries[1] = (struct pollfd){.fd = hang ? -1 : serve->listener, .events = POLLIN};
        for (size_t i = 0; i < SERVE_CONNECTIONS; i++)
            entries[i + 2] = (struct pollfd){.fd = hang ? -1 : serve->conns[i].fd, .events = POLLIN};
        (void)poll(entries, SERVE_CONNECTIONS + 2, -1);
        uint8_t bytes[64];
        if (entries[0].revents != 0)
            (void)!read(serve->wake[0], bytes, sizeof bytes);
        obey(serve);
        for (size_t i = 0; i < SERVE_CONNECTIONS; i++) {
            struct serve_conn *conn = &serve->conns[i];
            if (conn->fd >= 0 && conn->fd == entries[i + 2].fd && entries[i + 2].revents != 0 && !serve_one(serve, conn))
                end_conn(conn, false);
        }
        if (entries[1].fd >= 0 && entries[1].revents != 0)
            take_new(serve);
    }
    return NULL;
}

static void listen_again(struct serve *serve)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(serve->port)};
    struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(serve->port)};
    bool is_six = serve->family == AF_INET6;
    struct sockaddr *address = is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    socklen_t size = is_six ? sizeof six : sizeof four;
    int one = 1;
    serve->listener = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(serve->listener >= 0, "socket");
    must(setsockopt(serve->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0, "setsockopt");
    must(bind(serve->listener, address, size) == 0, "bind");
    must(listen(serve->listener, 128) == 0, "listen");
    must(getsockname(serve->listener, address, &size) == 0, "getsockname");
    serve->port = ntohs(is_six ? six.sin6_port : four.sin_port);
}

void serve_start(struct serve *serve)
{
    if (serve->peer == NULL)
        serve->peer = dispatch_peer_create(&(struct dispatch_peer_config){.max_value = 8U << 20, .memory_bytes = 64U << 20});
    listen_again(serve);
    for (size_t i = 0; i < SERVE_CONNECTIONS; i++)
        serve->conns[i] = (struct serve_conn){.fd = -1};
    atomic_store(&serve->quit, false);
    atomic_store(&serve->hang, false);
    atomic_store(&serve->hanging, false);
    must(pipe(serve->wake) == 0, "pipe");
    must(pthread_create(&serve->thread, NULL, run, serve) == 0, "pthread_create");
    serve->running = true;
}

void serve_poke(struct serve *serve)
{
    must(write(serve->wake[1], "x", 1) == 1, "write");
}

void serve_hang(struct serve *serve, bool hang)
{
    atomic_store(&serve->hang, hang);
    serve_poke(serve);
    while (atomic_load(&serve->hanging) != hang)
        (void)usleep(200);
}

void serve_stop(struct serve *serve)
{
    if (!serve->running)
        return;
    atomic_store(&serve->quit, true);
    serve_poke(serve);
    (void)pthread_join(serve->thread, NULL);
    for (size_t i = 0; i < SERVE_CONNECTIONS; i++)
        if (serve->conns[i].fd >= 0)
            end_conn(&serve->conns[i], true);
    (void)close(serve->listener);
    (void)close(serve->wake[0]);
    (void)close(serve->wake[1]);
    serve->running = false;
}

void serve_end(struct serve *serve)
{
    serve_stop(serve);
    if (serve->peer != NULL)
        dispatch_peer_destroy(serve->peer);
    *serve = (struct serve){0};
}
