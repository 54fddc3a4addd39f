/* SPDX-License-Identifier: MIT */
/*
 * Connecting by TCP, to the first address that answers, or by a Unix socket.
 */
#include "client/bench/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* 0, or what went wrong. */
static int finish_connect(int fd, uint64_t timeout_ns)
{
    struct pollfd waited = {.fd = fd, .events = POLLOUT};
    int ready;
    do
        ready = poll(&waited, 1, (int)(timeout_ns / 1000000));
    while (ready < 0 && errno == EINTR);
    if (ready <= 0)
        return ready < 0 ? errno : ETIMEDOUT;
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

/* A connected socket, or -1 with errno set. */
static int connect_to(const struct sockaddr *address, socklen_t address_len, uint64_t timeout_ns)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int error = 0;
    if (connect(fd, address, address_len) != 0)
        error = errno == EINPROGRESS ? finish_connect(fd, timeout_ns) : errno;
    if (error != 0) {
        (void)close(fd);
        errno = error;
        return -1;
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a Unix socket has no such option, nor need */
    return fd;
}

static int dial_socket(const struct plan *plan, char *error, size_t error_size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, plan->socket_path, strlen(plan->socket_path));
    int fd = connect_to((const struct sockaddr *)&address, sizeof address, plan->timeout_ns);
    if (fd < 0)
        (void)snprintf(error, error_size, "cannot connect to %s: %s", plan->socket_path, strerror(errno));
    return fd;
}

int dial(const struct plan *plan, char *error, size_t error_size)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char port[8];
    if (plan->socket_path != NULL)
        return dial_socket(plan, error, error_size);
    (void)snprintf(port, sizeof port, "%u", plan->port);
    int failed = getaddrinfo(plan->host, port, &hints, &found);
    if (failed != 0) {
        (void)snprintf(error, error_size, "%s: %s", plan->host, gai_strerror(failed));
        return -1;
    }
    int fd = -1;
    for (const struct addrinfo *i = found; i != NULL && fd < 0; i = i->ai_next)
        fd = connect_to(i->ai_addr, i->ai_addrlen, plan->timeout_ns);
    if (fd < 0)
        (void)snprintf(error, error_size, "cannot connect to %s port %s: %s", plan->host, port, strerror(errno));
    freeaddrinfo(found);
    return fd;
}
