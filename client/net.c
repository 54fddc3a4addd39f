/* SPDX-License-Identifier: MIT */
/*
 * Deadlines on a clock that does not step, and connecting.
 *
 * Invariants: every wait goes through net_wait(), which ends by its deadline whatever signals or bytes arrive.  A
 * socket that leaves this file is non-blocking and close-on-exec.  The one call that can be late is getaddrinfo() for
 * a host name: the C library cannot interrupt it; numeric addresses do not come near a name server.
 */
#include "client/net.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000U

/* How soon a unix socket whose queue is full is asked again. */
#define UNIX_RETRY_MS 5

/* Room for a host and port in a message; a longer name is cut. */
#define NET_PLACE_BYTES 300

uint64_t net_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* it cannot fail with this clock and a valid pointer */
    return (uint64_t)now.tv_sec * 1000U * NS_PER_MS + (uint64_t)now.tv_nsec;
}

void net_deadline_start(struct net_deadline *deadline)
{
    if (deadline->end_ns == 0)
        deadline->end_ns = net_now_ns() + (uint64_t)deadline->timeout_ms * NS_PER_MS;
}

/* Milliseconds until the deadline for poll(): -1 without end, rounded up so that poll() never spins at the end. */
static int left_ms(struct net_deadline *deadline)
{
    if (deadline->timeout_ms == CRAB_NO_TIMEOUT)
        return -1;
    net_deadline_start(deadline);
    uint64_t now = net_now_ns();
    if (now >= deadline->end_ns)
        return 0;
    uint64_t ms = (deadline->end_ns - now + NS_PER_MS - 1) / NS_PER_MS;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

uint64_t net_deadline_end(struct net_deadline *deadline)
{
    if (deadline->timeout_ms == CRAB_NO_TIMEOUT)
        return 0;
    net_deadline_start(deadline);
    return deadline->end_ns;
}

enum crab_status net_wait(int fd, short events, struct net_deadline *deadline, short *revents)
{
    return net_wait_slice(fd, events, deadline, -1, revents);
}

enum crab_status net_wait_slice(int fd, short events, struct net_deadline *deadline, int slice_ms, short *revents)
{
    struct pollfd entry = {.fd = fd, .events = events};
    for (;;) {
        int wait_ms = left_ms(deadline);
        if (wait_ms == 0) /* whatever there is to read: who never stops sending must not outlast the deadline */
            return CRAB_E_TIMEOUT;
        bool sliced = slice_ms >= 0 && (wait_ms < 0 || wait_ms > slice_ms);
        if (sliced)
            wait_ms = slice_ms;
        int ready = poll(&entry, 1, wait_ms);
        if (ready > 0) {
            *revents = entry.revents;
            return CRAB_OK;
        }
        if (ready < 0 && errno != EINTR)
            return CRAB_E_SYSTEM;
        if (ready == 0 && sliced)
            return CRAB_EMPTY;
    }
}

enum crab_status net_fail(struct crab_failure *failure, enum crab_status status, int system_error,
                          const char *format, ...)
{
    va_list arguments;
    failure->status = status;
    failure->system_error = system_error;
    failure->error = 0;
    va_start(arguments, format);
    int written = vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
    if (system_error != 0 && written >= 0 && (size_t)written < sizeof failure->text) {
        char reason[128];
        (void)snprintf(failure->text + written, sizeof failure->text - (size_t)written, ": %s",
                       strerror_r(system_error, reason, sizeof reason));
    }
    return status;
}

static enum crab_status resolve(const char *host, uint16_t port, struct addrinfo **list,
                                struct crab_failure *failure)
{
    char service[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    (void)snprintf(service, sizeof service, "%u", (unsigned)port);

    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    int code = getaddrinfo(host, service, &hints, list);
    if (code == EAI_NONAME) {
        hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
        code = getaddrinfo(host, service, &hints, list);
    }
    if (code == 0)
        return CRAB_OK;
    if (code == EAI_MEMORY)
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory to resolve %s", host);
    int system_error = code == EAI_SYSTEM ? errno : 0;
    if (system_error != 0)
        return net_fail(failure, CRAB_E_RESOLVE, system_error, "cannot resolve %s", host);
    return net_fail(failure, CRAB_E_RESOLVE, 0, "cannot resolve %s: %s", host, gai_strerror(code));
}

static int count_addresses(const struct addrinfo *list)
{
    int count = 0;
    for (; list != NULL; list = list->ai_next)
        count++;
    return count;
}

/* Finish a connect() that is under way: 0, or the errno of its failure. */
static int finish_connect(int fd, struct net_deadline *deadline)
{
    short revents;
    enum crab_status status = net_wait(fd, POLLOUT, deadline, &revents);
    if (status == CRAB_E_TIMEOUT)
        return ETIMEDOUT;
    if (status != CRAB_OK)
        return errno;
    int failed = 0;
    socklen_t size = sizeof failed;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) == 0 ? failed : errno;
}

/* Connect to one address: 0 and *fd, or an errno. */
static int connect_one(const struct sockaddr *address, socklen_t len, struct net_deadline *deadline, int *fd)
{
    int one = 1;
    int made = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0)
        return errno;
    int failed = connect(made, address, len) == 0 ? 0 : errno;
    if (failed == EINPROGRESS || failed == EINTR)
        failed = finish_connect(made, deadline);
    if (failed == 0 && address->sa_family != AF_UNIX &&
        setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        failed = errno;
    if (failed != 0) {
        (void)close(made);
        return failed;
    }
    *fd = made;
    return 0;
}

/* The share of the time left that one of `addresses` may use. */
static struct net_deadline share_of(struct net_deadline *deadline, int addresses)
{
    int left = left_ms(deadline);
    struct net_deadline share = {.timeout_ms = CRAB_NO_TIMEOUT};
    if (left >= 0)
        share.timeout_ms = (uint32_t)(left + addresses - 1) / (uint32_t)addresses;
    return share;
}

/* Tell why nobody was reached; `place` for people. */
static enum crab_status connect_failed(struct crab_failure *failure, int failed, const char *place)
{
    switch (failed) {
    case ETIMEDOUT:
        return net_fail(failure, CRAB_E_TIMEOUT, failed, "cannot connect to %s", place);
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return net_fail(failure, CRAB_E_SYSTEM, failed, "cannot connect to %s", place);
    default:
        return net_fail(failure, CRAB_E_REFUSED, failed, "cannot connect to %s", place);
    }
}

/* A unix socket answers at once; EAGAIN says that its queue is full, and there is no event to wait for. */
static enum crab_status connect_unix(const char *path, struct net_deadline *deadline, int *fd,
                                     struct crab_failure *failure)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return connect_failed(failure, ENAMETOOLONG, path);
    memcpy(address.sun_path, path, strlen(path));
    int failed;
    while ((failed = connect_one((const struct sockaddr *)&address, sizeof address, deadline, fd)) == EAGAIN) {
        if (left_ms(deadline) == 0)
            return connect_failed(failure, ETIMEDOUT, path);
        (void)poll(NULL, 0, UNIX_RETRY_MS);
    }
    return failed == 0 ? CRAB_OK : connect_failed(failure, failed, path);
}

enum crab_status net_connect(const char *host, uint16_t port, struct net_deadline *deadline, int *fd,
                             struct crab_failure *failure)
{
    if (host[0] == '/')
        return connect_unix(host, deadline, fd, failure);
    struct addrinfo *list = NULL;
    if (deadline->timeout_ms != CRAB_NO_TIMEOUT)
        net_deadline_start(deadline);
    enum crab_status status = resolve(host, port, &list, failure);
    if (status != CRAB_OK)
        return status;

    int left = count_addresses(list);
    int failed = 0;
    for (const struct addrinfo *address = list; address != NULL; address = address->ai_next, left--) {
        struct net_deadline share = share_of(deadline, left);
        failed = connect_one(address->ai_addr, address->ai_addrlen, &share, fd);
        if (failed == 0)
            break;
    }
    freeaddrinfo(list);
    if (failed == 0)
        return CRAB_OK;
    char place[NET_PLACE_BYTES];
    (void)snprintf(place, sizeof place, "%s port %u", host, (unsigned)port);
    return connect_failed(failure, failed, place);
}

enum crab_status net_connect_target(struct net_target *target, struct net_deadline *deadline, int *fd,
                                    struct crab_failure *failure)
{
    return net_connect(target->host, target->port, deadline, fd, failure);
}
