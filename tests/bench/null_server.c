/* SPDX-License-Identifier: MIT */
/*
 * A server that does nothing: it walks the headers of the requests, and answers a get with a value of a fixed length and
 * anything else with OK.  What remains is what epoll, recv and send cost: the limit of any server with these calls.
 *
 *     null_server PORT VALUE_BYTES       prints "ready on 127.0.0.1:PORT"; port 0: any free one
 *
 * Replies wait in `out` while the peer does not take them, and then nothing more is read from it.  A value over
 * COPY_MAX goes out of the one block of zeros that all share.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "crabcache/wire.h"

#define IN_BYTES ((size_t)64 * 1024)
#define OUT_BYTES ((size_t)256 * 1024)
#define COPY_MAX 16384U
#define EVENTS 256

struct peer {
    int fd;
    bool blocked;
    uint64_t skip;      /* bytes of the current request's body still to come */
    size_t in_used;     /* a part of a header */
    size_t out_used;
    size_t value_left;  /* of a long value that follows `out` */
    uint8_t in[IN_BYTES];
    uint8_t out[OUT_BYTES];
};

struct server {
    int epoll;
    int listener;
    uint32_t value_bytes;
    uint8_t *value;     /* zeros */
    uint8_t head[CRAB_REPLY_HEADER];
};

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        perror("null_server");
        return -1;
    }
    (void)printf("ready on 127.0.0.1:%u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    return fd;
}

static void accept_all(struct server *server)
{
    int fd;
    while ((fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        struct peer *peer = malloc(sizeof *peer);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
        if (peer == NULL || epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            free(peer);
            (void)close(fd);
            continue;
        }
        peer->fd = fd;
        peer->blocked = false;
        peer->skip = peer->in_used = peer->out_used = peer->value_left = 0;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
}

/* Send what waits. false: the peer is gone. */
static bool flush(struct server *server, struct peer *peer)
{
    while (peer->out_used != 0 || peer->value_left != 0) {
        struct iovec parts[2] = {{peer->out, peer->out_used}, {server->value, peer->value_left}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t sent = sendmsg(peer->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR;
        size_t of_out = (size_t)sent < peer->out_used ? (size_t)sent : peer->out_used;
        if (of_out < peer->out_used)
            memmove(peer->out, peer->out + of_out, peer->out_used - of_out);
        peer->out_used -= of_out;
        peer->value_left -= (size_t)sent - of_out;
    }
    return true;
}

static void answer(struct server *server, struct peer *peer, uint8_t op)
{
    if (op != CRAB_OP_GET) {
        peer->out[peer->out_used++] = CRAB_REP_OK;
        return;
    }
    memcpy(peer->out + peer->out_used, server->head, sizeof server->head);
    peer->out_used += sizeof server->head;
    if (server->value_bytes > COPY_MAX) {
        peer->value_left = server->value_bytes;
    } else {
        memcpy(peer->out + peer->out_used, server->value, server->value_bytes);
        peer->out_used += server->value_bytes;
    }
}

/* Walk over the requests that have come, as long as there is room for replies. How many bytes were used. */
static size_t walk(struct server *server, struct peer *peer)
{
    size_t at = 0;
    while (peer->value_left == 0 && peer->out_used + CRAB_REPLY_HEADER + COPY_MAX <= OUT_BYTES) {
        size_t there = peer->in_used - at;
        if (peer->skip != 0) {
            size_t step = there < peer->skip ? there : (size_t)peer->skip;
            peer->skip -= step;
            at += step;
            if (peer->skip != 0)
                return at;
            there -= step;
        }
        if (there < CRAB_REQUEST_HEADER)
            return at;
        uint32_t body;
        memcpy(&body, peer->in + at + 4, sizeof body);
        peer->skip = le32toh(body);
        answer(server, peer, peer->in[at]);
        at += CRAB_REQUEST_HEADER;
    }
    return at;
}

/* false: the peer is gone. */
static bool serve(struct server *server, struct peer *peer)
{
    ssize_t got = 0;
    if (peer->in_used < IN_BYTES && peer->out_used == 0 && peer->value_left == 0) {
        got = recv(peer->fd, peer->in + peer->in_used, IN_BYTES - peer->in_used, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        peer->in_used += got > 0 ? (size_t)got : 0;
    }
    size_t used;
    do {
        if (!flush(server, peer))
            return false;
        if (peer->out_used != 0 || peer->value_left != 0)
            break;
        used = walk(server, peer);
        memmove(peer->in, peer->in + used, peer->in_used - used);
        peer->in_used -= used;
    } while (used != 0 && (peer->out_used != 0 || peer->value_left != 0));
    bool blocked = peer->out_used != 0 || peer->value_left != 0;
    if (blocked == peer->blocked)
        return true;
    peer->blocked = blocked;
    struct epoll_event event = {.events = blocked ? EPOLLOUT : EPOLLIN, .data.ptr = peer};
    return epoll_ctl(server->epoll, EPOLL_CTL_MOD, peer->fd, &event) == 0;
}

static int loop(struct server *server)
{
    struct epoll_event events[EVENTS];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listener, &event) != 0)
        return 1;
    for (;;) {
        int count = epoll_wait(server->epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            return 1;
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            if (peer == NULL) {
                accept_all(server);
            } else if (!serve(server, peer)) {
                (void)close(peer->fd);
                free(peer);
            }
        }
    }
}

int main(int argc, char **argv)
{
    char *end = NULL;
    unsigned long port = argc == 3 ? strtoul(argv[1], &end, 10) : 65536;
    unsigned long bytes = argc == 3 && *end == '\0' ? strtoul(argv[2], &end, 10) : 0;
    if (argc != 3 || *end != '\0' || port > UINT16_MAX || bytes > CRAB_CEILING_MAX_VALUE) {
        (void)fputs("usage: null_server PORT VALUE_BYTES\n", stderr);
        return 2;
    }
    struct server server = {.value_bytes = (uint32_t)bytes, .value = calloc(1, bytes + 1)};
    uint32_t body = htole32((uint32_t)bytes);
    server.head[0] = CRAB_REP_VALUE;
    memcpy(server.head + 1, &body, sizeof body);
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    server.listener = server.value != NULL && server.epoll >= 0 ? listen_on((uint16_t)port) : -1;
    int status = server.listener >= 0 ? loop(&server) : 1;
    free(server.value);
    return status;
}
