/* SPDX-License-Identifier: MIT */
/*
 * The race of connections, see eyeballs.h.  One thread, one poll() over all sockets that have begun.
 */
#include "client/eyeballs.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_PER_MS 1000000U

struct race {
    const struct addrinfo *order[EYEBALLS_ADDRESSES];
    unsigned count;
    unsigned next; /* the first of `order` that was not tried */
    struct pollfd running[EYEBALLS_ADDRESSES];
    unsigned runners;
    uint64_t next_start_ns;
    int failed; /* the last failure */
};

int eyeballs_begin(const struct sockaddr *address, unsigned len, int *fd)
{
    int one = 1;
    int made = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0)
        return errno;
    int failed = 0;
    if (address->sa_family != AF_UNIX && setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        failed = errno;
    if (failed == 0 && connect(made, address, (socklen_t)len) != 0)
        failed = errno == EINTR ? EINPROGRESS : errno;
    if (failed != 0 && failed != EINPROGRESS) {
        (void)close(made);
        return failed;
    }
    *fd = made;
    return failed;
}

/* The next address of a family, or of any other one, from `from` on. */
static const struct addrinfo *next_of(const struct addrinfo *from, int family, bool same)
{
    while (from != NULL && (from->ai_family == family) != same)
        from = from->ai_next;
    return from;
}

/* First the preferred family, then the others, in turns. */
static void put_in_order(struct race *race, const struct addrinfo *list)
{
    int family = list != NULL ? list->ai_family : AF_UNSPEC;
    const struct addrinfo *preferred = next_of(list, family, true);
    const struct addrinfo *other = next_of(list, family, false);
    bool turn = true;
    while ((preferred != NULL || other != NULL) && race->count < EYEBALLS_ADDRESSES) {
        if ((turn && preferred != NULL) || other == NULL) {
            race->order[race->count++] = preferred;
            preferred = next_of(preferred->ai_next, family, true);
        } else {
            race->order[race->count++] = other;
            other = next_of(other->ai_next, family, false);
        }
        turn = !turn;
    }
}

/* Begin with addresses until one is on its way. @return a connected socket, or -1 */
static int start_next(struct race *race, uint64_t now)
{
    while (race->next < race->count) {
        const struct addrinfo *address = race->order[race->next++];
        int fd = -1;
        int failed = eyeballs_begin(address->ai_addr, address->ai_addrlen, &fd);
        if (failed == 0)
            return fd;
        if (failed == EINPROGRESS) {
            race->running[race->runners++] = (struct pollfd){.fd = fd, .events = POLLOUT};
            race->next_start_ns = now + (uint64_t)EYEBALLS_DELAY_MS * NS_PER_MS;
            return -1;
        }
        race->failed = failed;
    }
    return -1;
}

/* Look at those that poll() named. @return a connected socket, which runs no more, or -1 */
static int finish_some(struct race *race)
{
    for (unsigned i = 0; i < race->runners;) {
        struct pollfd *runner = &race->running[i];
        if (runner->revents == 0) {
            i++;
            continue;
        }
        int fd = runner->fd;
        int failed = 0;
        socklen_t size = sizeof failed;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0)
            failed = errno;
        *runner = race->running[--race->runners];
        if (failed == 0)
            return fd;
        (void)close(fd);
        race->failed = failed;
        race->next_start_ns = 0; /* the next one need not wait */
    }
    return -1;
}

/* Milliseconds until the next thing is to be done, -1: never. */
static int wait_ms(const struct race *race, uint64_t now, uint64_t end_ns)
{
    uint64_t until = end_ns;
    if (race->next < race->count && (until == 0 || race->next_start_ns < until))
        until = race->next_start_ns;
    if (until == 0)
        return -1;
    uint64_t ms = until > now ? (until - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static int run(struct race *race, uint64_t end_ns)
{
    for (;;) {
        uint64_t now = net_now_ns();
        if (end_ns != 0 && now >= end_ns) {
            race->failed = ETIMEDOUT;
            return -1;
        }
        int fd = race->runners == 0 || now >= race->next_start_ns ? start_next(race, now) : -1;
        if (fd >= 0 || race->runners == 0)
            return fd;
        int ready = poll(race->running, race->runners, wait_ms(race, now, end_ns));
        if (ready < 0 && errno != EINTR) {
            race->failed = errno;
            return -1;
        }
        fd = ready > 0 ? finish_some(race) : -1;
        if (fd >= 0)
            return fd;
    }
}

int eyeballs_connect(const struct addrinfo *list, struct net_deadline *deadline, int *fd)
{
    struct race race = {.failed = EADDRNOTAVAIL};
    put_in_order(&race, list);
    int connected = run(&race, net_deadline_end(deadline));
    for (unsigned i = 0; i < race.runners; i++)
        (void)close(race.running[i].fd);
    if (connected < 0)
        return race.failed;
    *fd = connected;
    return 0;
}
