/* SPDX-License-Identifier: MIT */
/*
 * Deadlines on a clock that does not step, and connecting.
 *
 * Invariants: every wait goes through net_wait(), which ends by its deadline whatever signals or bytes arrive.  A
 * socket that leaves this file is non-blocking and close-on-exec.
 */
#include "client/net.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/eyeballs.h"
#include "client/resolve.h"

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
    while ((failed = eyeballs_begin((const struct sockaddr *)&address, sizeof address, fd)) == EAGAIN) {
        if (left_ms(deadline) == 0)
            return connect_failed(failure, ETIMEDOUT, path);
        (void)poll(NULL, 0, UNIX_RETRY_MS);
    }
    return failed == 0 ? CRAB_OK : connect_failed(failure, failed, path);
}

static enum crab_status resolve_failed(struct crab_failure *failure, int code, int system_error, const char *host)
{
    if (code == EAI_MEMORY)
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory to resolve %s", host);
    if (system_error != 0)
        return net_fail(failure, CRAB_E_RESOLVE, system_error, "cannot resolve %s", host);
    return net_fail(failure, CRAB_E_RESOLVE, 0, "cannot resolve %s: %s", host, gai_strerror(code));
}

/* The resolution that an earlier call has not waited for to its end, or a new one. */
static int begin_to_resolve(struct net_target *target, struct resolution **resolution)
{
    (void)pthread_mutex_lock(&target->lock);
    *resolution = target->pending;
    target->pending = NULL;
    (void)pthread_mutex_unlock(&target->lock);
    return *resolution != NULL ? 0 : resolution_start(target->host, target->port, resolution);
}

/* Leave a resolution that takes too long to the next call. */
static void leave_pending(struct net_target *target, struct resolution *resolution)
{
    (void)pthread_mutex_lock(&target->lock);
    struct resolution *surplus = target->pending;
    target->pending = resolution;
    (void)pthread_mutex_unlock(&target->lock);
    resolution_release(surplus);
}

enum crab_status net_connect_target(struct net_target *target, struct net_deadline *deadline, int *fd,
                                    struct crab_failure *failure)
{
    if (target->host[0] == '/')
        return connect_unix(target->host, deadline, fd, failure);
    (void)net_deadline_end(deadline); /* it begins now */
    struct resolution *resolution = NULL;
    int failed = begin_to_resolve(target, &resolution);
    if (failed != 0)
        return net_fail(failure, failed == ENOMEM ? CRAB_E_NO_MEMORY : CRAB_E_SYSTEM, failed, "cannot resolve %s",
                        target->host);
    if (!resolution_wait(resolution, deadline)) {
        leave_pending(target, resolution);
        return net_fail(failure, CRAB_E_TIMEOUT, 0, "no address of %s within the deadline", target->host);
    }
    const struct addrinfo *list;
    int system_error;
    int code = resolution_result(resolution, &list, &system_error);
    enum crab_status status = CRAB_OK;
    if (code != 0) {
        status = resolve_failed(failure, code, system_error, target->host);
    } else if ((failed = eyeballs_connect(list, deadline, fd)) != 0) {
        char place[NET_PLACE_BYTES];
        (void)snprintf(place, sizeof place, "%s port %u", target->host, (unsigned)target->port);
        status = connect_failed(failure, failed, place);
    }
    resolution_release(resolution);
    return status;
}

void net_target_init(struct net_target *target, const char *host, uint16_t port, const char *name)
{
    *target = (struct net_target){
        .host = host, .name = name, .port = port, .lock = PTHREAD_MUTEX_INITIALIZER};
}

void net_target_fini(struct net_target *target)
{
    resolution_release(target->pending);
    target->pending = NULL;
}

enum crab_status net_connect(const char *host, uint16_t port, struct net_deadline *deadline, int *fd,
                             struct crab_failure *failure)
{
    struct net_target target;
    net_target_init(&target, host, port, host);
    enum crab_status status = net_connect_target(&target, deadline, fd, failure);
    net_target_fini(&target);
    return status;
}
