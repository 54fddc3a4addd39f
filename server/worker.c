/* SPDX-License-Identifier: MIT */
/*
 * The loop of a worker. A turn: wait, serve the connections that are ready, take in new ones, give up those whose time
 * is over, keep the store's house, and tell the store that no view is held.
 *
 * Connections are in one of two lists: serving, or ending (not CONN_OPEN), which is in the order of their deadlines
 * because all get the same time.
 */
#include "server/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "server/buf.h"
#include "server/conn.h"
#include "server/log.h"
#include "server/stats.h"

#define STACK_BYTES ((size_t)512 << 10)

/* How often housekeeping runs at the least, and while more of it waits. */
#define TICK_MS 500
#define TICK_BUSY_MS 1

/* How many pieces of input of one connection are executed at the stop before the others have their turn. */
#define STOP_ROUNDS 64

struct worker {
    struct buf_pool pool;
    struct conn_io io;
    struct conn serving; /* heads of lists: only prev and next are used */
    struct conn ending;
    pthread_t thread;
    pthread_mutex_t mailbox_lock;
    struct conn *mailbox; /* handed over, not taken in yet; by next; under the lock */
    int epoll_fd;
    int wake_fd;
    int done_fd;
    unsigned number;
    atomic_bool stop;
    uint64_t stop_ms; /* when the stop began */
};

static uint64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --------------------------------------------------------------------------------------------- the lists */

static void list_init(struct conn *head)
{
    head->prev = head;
    head->next = head;
}

static bool list_empty(const struct conn *head)
{
    return head->next == head;
}

static void list_append(struct conn *head, struct conn *c)
{
    c->prev = head->prev;
    c->next = head;
    head->prev->next = c;
    head->prev = c;
}

static void list_remove(struct conn *c)
{
    c->prev->next = c->next;
    c->next->prev = c->prev;
}

/* ---------------------------------------------------------------------------------------- connections */

static void drop(struct worker *w, struct conn *c)
{
    list_remove(c);
    conn_close(&w->io, c);
    stats_add(&w->io.counters->connections_closed, 1);
}

static bool watch(struct worker *w, struct conn *c, int operation)
{
    struct epoll_event event = {.events = conn_wanted(c), .data.ptr = c};
    if (operation == EPOLL_CTL_MOD && event.events == c->events)
        return true;
    c->events = event.events;
    return epoll_ctl(w->epoll_fd, operation, c->fd, &event) == 0;
}

/* Go on with a connection. Returns whether it still stands. */
static bool serve(struct worker *w, struct conn *c)
{
    bool was_open = c->state == CONN_OPEN;
    bool stands = conn_ready(&w->io, c);
    if (stands && was_open && c->state != CONN_OPEN) {
        c->deadline_ms = w->io.now_ms + CONN_CLOSE_MS;
        list_remove(c);
        list_append(&w->ending, c);
    }
    if (!stands || !watch(w, c, EPOLL_CTL_MOD)) {
        drop(w, c);
        return false;
    }
    return true;
}

static void take_in(struct worker *w)
{
    pthread_mutex_lock(&w->mailbox_lock);
    struct conn *c = w->mailbox;
    w->mailbox = NULL;
    pthread_mutex_unlock(&w->mailbox_lock);
    while (c != NULL) {
        struct conn *next = c->next;
        list_append(&w->serving, c);
        stats_add(&w->io.counters->connections_opened, 1);
        if (!watch(w, c, EPOLL_CTL_ADD)) {
            log_line(w->io.log, LOG_LEVEL_WARNING, "connection %d closed: epoll_ctl: %m", c->fd);
            drop(w, c);
        }
        c = next;
    }
}

static void give_up_late_ones(struct worker *w)
{
    while (!list_empty(&w->ending) && w->ending.next->deadline_ms <= w->io.now_ms)
        drop(w, w->ending.next);
}

/* Execute what a connection has received by now, so that it can say goodbye. */
static void finish(struct worker *w, struct conn *c)
{
    for (int i = 0; i < STOP_ROUNDS; i++) {
        if (!serve(w, c) || c->state != CONN_OPEN || c->out.data != NULL)
            return;
    }
}

/* One turn of the stop. Returns whether connections still stand. */
static bool go_on_stopping(struct worker *w)
{
    uint64_t since = w->io.now_ms - w->stop_ms;
    w->io.halted = since >= WORKER_GRACE_MS;
    struct conn *next;
    for (struct conn *c = w->serving.next; c != &w->serving; c = next) {
        next = c->next;
        finish(w, c);
    }
    if (since >= WORKER_STOP_MS) {
        while (!list_empty(&w->serving))
            drop(w, w->serving.next);
        while (!list_empty(&w->ending))
            drop(w, w->ending.next);
    }
    return !list_empty(&w->serving) || !list_empty(&w->ending);
}

/* -------------------------------------------------------------------------------------------- the loop */

static int wait_ms(const struct worker *w, bool more_housekeeping)
{
    int wait = more_housekeeping ? TICK_BUSY_MS : TICK_MS;
    if (w->io.stopping)
        wait = 20;
    if (!list_empty(&w->ending)) {
        uint64_t deadline = w->ending.next->deadline_ms;
        uint64_t left = deadline > w->io.now_ms ? deadline - w->io.now_ms : 0;
        wait = left < (uint64_t)wait ? (int)left : wait;
    }
    return wait;
}

static void take_wake_up(struct worker *w)
{
    uint64_t count;
    while (read(w->wake_fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
    if (atomic_load_explicit(&w->stop, memory_order_acquire) && !w->io.stopping) {
        w->io.stopping = true;
        w->stop_ms = w->io.now_ms;
    }
}

static void loop(struct worker *w)
{
    struct epoll_event events[WORKER_EVENTS];
    uint64_t ticked_ms = 0;
    bool more_housekeeping = false;
    do {
        int count = epoll_wait(w->epoll_fd, events, WORKER_EVENTS, wait_ms(w, more_housekeeping));
        if (count < 0 && errno != EINTR) {
            log_line(w->io.log, LOG_LEVEL_ERROR, "worker %u: epoll_wait: %m", w->number);
            abort(); /* only a wrong argument can cause it */
        }
        w->io.now_ms = monotonic_ms();
        stats_add(&w->io.counters->wakeups, 1);
        bool woken = false;
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                woken = true;
            else
                serve(w, events[i].data.ptr);
        }
        if (woken)
            take_wake_up(w);
        take_in(w);
        give_up_late_ones(w);
        if (more_housekeeping || w->io.now_ms - ticked_ms >= TICK_MS) {
            more_housekeeping = dispatch_tick(w->io.dispatch);
            ticked_ms = w->io.now_ms;
        }
        dispatch_quiesce(w->io.dispatch);
    } while (!w->io.stopping || go_on_stopping(w));
}

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    loop(w);
    uint64_t one = 1;
    while (write(w->done_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    return NULL;
}

/* -------------------------------------------------------------------------------------------- lifetime */

static void free_worker(struct worker *w)
{
    while (w->mailbox != NULL) {
        struct conn *c = w->mailbox;
        w->mailbox = c->next;
        conn_close(&w->io, c);
    }
    conn_io_fini(&w->io);
    dispatch_destroy(w->io.dispatch);
    buf_pool_fini(&w->pool);
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    pthread_mutex_destroy(&w->mailbox_lock);
    free(w);
}

static int open_fds(struct worker *w)
{
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->epoll_fd < 0 || w->wake_fd < 0)
        return errno;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->wake_fd, &event) == 0 ? 0 : errno;
}

static int start_thread(struct worker *w)
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    error = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (error == 0)
        error = pthread_create(&w->thread, &attributes, worker_main, w);
    pthread_attr_destroy(&attributes);
    if (error == 0) {
        char name[16];
        snprintf(name, sizeof name, "worker-%u", w->number % 1000);
        pthread_setname_np(w->thread, name);
    }
    return error;
}

int worker_create(const struct worker_config *config, struct worker **worker)
{
    struct worker *w = calloc(1, sizeof *w);
    if (w == NULL)
        return ENOMEM;
    w->epoll_fd = -1;
    w->wake_fd = -1;
    w->done_fd = config->done_fd;
    w->number = config->number;
    list_init(&w->serving);
    list_init(&w->ending);
    pthread_mutex_init(&w->mailbox_lock, NULL);
    buf_pool_init(&w->pool, config->budget, config->cache_bytes);
    w->io.pool = &w->pool;
    w->io.counters = config->dispatch.counters;
    w->io.log = config->log;
    w->io.now_ms = monotonic_ms();

    struct dispatch_config dispatch = config->dispatch;
    dispatch.pool = &w->pool;
    int error = dispatch_create(&dispatch, &w->io.dispatch);
    if (error == 0 && !conn_io_init(&w->io))
        error = ENOMEM;
    if (error == 0)
        error = open_fds(w);
    if (error == 0)
        error = start_thread(w);
    if (error != 0) {
        free_worker(w);
        return error;
    }
    *worker = w;
    return 0;
}

static void wake(struct worker *w)
{
    uint64_t one = 1;
    while (write(w->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void worker_adopt(struct worker *worker, struct conn *c)
{
    pthread_mutex_lock(&worker->mailbox_lock);
    c->next = worker->mailbox;
    worker->mailbox = c;
    pthread_mutex_unlock(&worker->mailbox_lock);
    wake(worker);
}

void worker_stop(struct worker *worker)
{
    atomic_store_explicit(&worker->stop, true, memory_order_release);
    wake(worker);
}

void worker_abandon(struct worker *worker)
{
    pthread_detach(worker->thread);
}

void worker_destroy(struct worker *worker)
{
    if (worker == NULL)
        return;
    pthread_join(worker->thread, NULL);
    free_worker(worker);
}
