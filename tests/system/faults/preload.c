/* SPDX-License-Identifier: MIT */
/*
 * Loaded into the server by LD_PRELOAD: system calls of its sockets fail, are interrupted, and move a byte at a time.
 *
 * FAULT_PERCENT is how often (0 to 100), FAULT_BYTES the most that one call moves (0: as it likes), FAULT_ACCEPT=1 makes
 * accept4() run out of descriptors now and then. What fails is drawn at random from a fixed seed.
 *
 * A receive that is cut short is as if the rest came later. The kernel would tell an edge-triggered epoll of the rest: so
 * do_again() does.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

static atomic_uint_fast64_t calls;

static unsigned setting(const char *name)
{
    const char *text = getenv(name);
    return text == NULL ? 0 : (unsigned)strtoul(text, NULL, 10);
}

/* A number from 0 to 99; the next one with every call. */
static unsigned draw(void)
{
    uint64_t x = atomic_fetch_add(&calls, 1) * 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    return (unsigned)((x ^ (x >> 31)) % 100);
}

/* Returns -1 and sets errno to one of the errors, now and then. */
static int maybe_fail(int first, int second)
{
    unsigned drawn = draw();
    if (drawn >= setting("FAULT_PERCENT"))
        return 0;
    errno = drawn % 2 == 0 ? first : second;
    return -1;
}

/* What epoll was told of each descriptor. */
#define WATCHED_MAX 65536
static struct {
    _Atomic(int) epoll; /* the descriptor plus one; 0: of none */
    _Atomic(uint32_t) events;
    _Atomic(void *) data;
} watched[WATCHED_MAX];

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *) =
        (int (*)(int, int, int, struct epoll_event *))dlsym(RTLD_NEXT, "epoll_ctl");
    if (fd >= 0 && fd < WATCHED_MAX && event != NULL) {
        watched[fd].events = event->events;
        watched[fd].data = event->data.ptr;
        watched[fd].epoll = epoll + 1;
    }
    return real(epoll, operation, fd, event);
}

/* Let an edge come. */
static void do_again(int fd)
{
    if (fd >= WATCHED_MAX || watched[fd].epoll == 0)
        return;
    struct epoll_event event = {.events = watched[fd].events, .data.ptr = watched[fd].data};
    epoll_ctl(watched[fd].epoll - 1, EPOLL_CTL_MOD, fd, &event);
}

ssize_t recv(int fd, void *to, size_t len, int flags)
{
    ssize_t (*real)(int, void *, size_t, int) = (ssize_t(*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");
    size_t most = setting("FAULT_BYTES");
    if (maybe_fail(EINTR, EAGAIN) != 0)
        return -1;
    ssize_t got = real(fd, to, most != 0 && len > most ? most : len, flags);
    if (got > 0 && (size_t)got < len && (size_t)got == most)
        do_again(fd);
    return got;
}

ssize_t send(int fd, const void *from, size_t len, int flags)
{
    ssize_t (*real)(int, const void *, size_t, int) =
        (ssize_t(*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    size_t most = setting("FAULT_BYTES");
    if (maybe_fail(EINTR, draw() < 50 ? EAGAIN : ENOBUFS) != 0)
        return -1;
    return real(fd, from, most != 0 && len > most ? most : len, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t (*real)(int, const struct msghdr *, int) =
        (ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
    size_t most = setting("FAULT_BYTES");
    if (maybe_fail(EINTR, draw() < 50 ? EAGAIN : ENOBUFS) != 0)
        return -1;
    if (most == 0 || message->msg_iovlen == 0)
        return real(fd, message, flags);
    struct iovec first = message->msg_iov[0];
    struct msghdr shorter = *message;
    first.iov_len = first.iov_len > most ? most : first.iov_len;
    shorter.msg_iov = &first;
    shorter.msg_iovlen = 1;
    return real(fd, &shorter, flags);
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    int (*real)(int, struct sockaddr *, socklen_t *, int) =
        (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    if (setting("FAULT_ACCEPT") != 0 && maybe_fail(draw() < 50 ? EMFILE : ENOMEM, draw() < 50 ? ECONNABORTED : EINTR) != 0)
        return -1;
    return real(fd, address, len, flags);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout)
{
    int (*real)(int, struct epoll_event *, int, int) =
        (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    if (maybe_fail(EINTR, EINTR) != 0)
        return -1;
    return real(fd, events, most, timeout);
}
