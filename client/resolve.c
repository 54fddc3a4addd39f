/* SPDX-License-Identifier: MIT */
/*
 * A thread per name that is resolved, see resolve.h.  The resolution has two holders, the thread and who waits; the last one frees it.
 */
#include "client/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/futex.h"

struct resolution {
    _Atomic uint32_t holders;
    _Atomic uint32_t done;
    int code; /* of getaddrinfo() */
    int system_error;
    struct addrinfo *list;
    char service[8];
    char host[];
};

static void look_up(struct resolution *r, int flags)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    r->code = getaddrinfo(r->host, r->service, &hints, &r->list);
    r->system_error = r->code == EAI_SYSTEM ? errno : 0;
    if (r->code != 0)
        r->list = NULL;
}

static void finish(struct resolution *r)
{
    atomic_store_explicit(&r->done, 1, memory_order_release);
    futex_wake(&r->done);
}

static void *run(void *argument)
{
    struct resolution *r = argument;
    look_up(r, AI_ADDRCONFIG);
    finish(r);
    resolution_release(r);
    return NULL;
}

/* The thread gets no signals: they belong to the program's threads. */
static int start_thread(struct resolution *r)
{
    sigset_t all;
    sigset_t before;
    pthread_t thread;
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed != 0)
        return failed;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_store_explicit(&r->holders, 2, memory_order_relaxed);
    failed = pthread_create(&thread, &attributes, run, r);
    if (failed != 0)
        atomic_store_explicit(&r->holders, 1, memory_order_relaxed);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    return failed;
}

int resolution_start(const char *host, uint16_t port, struct resolution **resolution)
{
    size_t len = strlen(host);
    struct resolution *r = calloc(1, sizeof *r + len + 1);
    if (r == NULL)
        return ENOMEM;
    atomic_store_explicit(&r->holders, 1, memory_order_relaxed);
    memcpy(r->host, host, len + 1);
    (void)snprintf(r->service, sizeof r->service, "%u", (unsigned)port);
    look_up(r, AI_NUMERICHOST);
    if (r->code != EAI_NONAME) {
        finish(r);
    } else {
        int failed = start_thread(r);
        if (failed != 0) {
            resolution_release(r);
            return failed;
        }
    }
    *resolution = r;
    return 0;
}

bool resolution_wait(struct resolution *resolution, struct net_deadline *deadline)
{
    while (atomic_load_explicit(&resolution->done, memory_order_acquire) == 0)
        if (!futex_sleep(&resolution->done, 0, net_deadline_end(deadline)))
            return atomic_load_explicit(&resolution->done, memory_order_acquire) != 0;
    return true;
}

int resolution_result(const struct resolution *resolution, const struct addrinfo **list, int *system_error)
{
    *list = resolution->list;
    *system_error = resolution->system_error;
    return resolution->code;
}

void resolution_release(struct resolution *resolution)
{
    if (resolution == NULL || atomic_fetch_sub_explicit(&resolution->holders, 1, memory_order_acq_rel) != 1)
        return;
    if (resolution->list != NULL)
        freeaddrinfo(resolution->list);
    free(resolution);
}
