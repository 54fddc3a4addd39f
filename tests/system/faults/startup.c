/* SPDX-License-Identifier: MIT */
/*
 * Loaded into the server by LD_PRELOAD: one call of what it needs to start fails, or all calls from one on.
 *
 * FAULT_CALL names the function, FAULT_NTH says which of its calls fails first (1 is the first), FAULT_FOREVER=1 lets all later
 * ones fail, too. When a call is made to fail, a line `fault: NAME` goes to standard error: a run without it had fewer calls.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* glibc's own names, which can be had before dlsym(), as that allocates, too. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);

static atomic_ulong calls;

static bool fails(const char *name)
{
    const char *wanted = getenv("FAULT_CALL"), *nth = getenv("FAULT_NTH");
    if (wanted == NULL || nth == NULL || strcmp(wanted, name) != 0)
        return false;
    unsigned long call = atomic_fetch_add(&calls, 1) + 1, first = strtoul(nth, NULL, 10);
    if (call != first && (call < first || getenv("FAULT_FOREVER") == NULL))
        return false;
    char line[64] = "fault: ";
    strncat(line, name, sizeof line - strlen(line) - 2);
    strcat(line, "\n");
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        abort();
    return true;
}

void *malloc(size_t size)
{
    if (!fails("malloc"))
        return __libc_malloc(size);
    errno = ENOMEM;
    return NULL;
}

void *calloc(size_t count, size_t size)
{
    if (!fails("calloc"))
        return __libc_calloc(count, size);
    errno = ENOMEM;
    return NULL;
}

/* A function that answers `bad` and sets errno to `error` when it fails. */
#define FAILING(type, name, parameters, arguments, bad, error)                                                         \
    type name parameters                                                                                               \
    {                                                                                                                  \
        type(*real) parameters = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                          \
        if (!fails(#name))                                                                                             \
            return real arguments;                                                                                     \
        errno = error;                                                                                                 \
        return bad;                                                                                                    \
    }

FAILING(void *, mmap, (void *at, size_t len, int protection, int flags, int fd, off_t offset),
        (at, len, protection, flags, fd, offset), MAP_FAILED, ENOMEM)
FAILING(ssize_t, getrandom, (void *to, size_t len, unsigned flags), (to, len, flags), -1, ENOSYS)
FAILING(int, epoll_create1, (int flags), (flags), -1, EMFILE)
FAILING(int, epoll_ctl, (int epoll, int op, int fd, struct epoll_event *event), (epoll, op, fd, event), -1, ENOSPC)
FAILING(int, eventfd, (unsigned start, int flags), (start, flags), -1, ENFILE)
FAILING(int, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags), -1, EMFILE)
FAILING(int, socket, (int family, int type, int protocol), (family, type, protocol), -1, EMFILE)
FAILING(int, bind, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len), -1, EACCES)
FAILING(int, listen, (int fd, int backlog), (fd, backlog), -1, EADDRINUSE)
FAILING(int, pthread_mutex_init, (pthread_mutex_t * mutex, const pthread_mutexattr_t *attributes), (mutex, attributes), EAGAIN, 0)
FAILING(int, pthread_cond_init, (pthread_cond_t * cond, const pthread_condattr_t *attributes), (cond, attributes), EAGAIN, 0)
FAILING(int, pthread_attr_init, (pthread_attr_t * attributes), (attributes), ENOMEM, 0)
FAILING(int, pthread_attr_setstacksize, (pthread_attr_t * attributes, size_t size), (attributes, size), EINVAL, 0)
FAILING(int, pthread_create, (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument),
        (thread, attributes, run, argument), EAGAIN, 0)
