/* SPDX-License-Identifier: MIT */
/*
 * The loop of a worker. A turn: wait, serve the connections that are ready, take in new ones, give up those whose time
 * is over, keep the store's house, and tell the store that no view is held.
 *
 * A connection is in one of these lists: while it is OPEN, in the one of what its peer owes; then in ending, or gone.
 * Those of peers that owe something are in the order in which they last moved, and ending is in the order of deadlines
 * because all get the same time: so the first one is the one to give up, be it for its deadline or for its memory.
 *
 * Serving one connection can break others, which give way to it (give_up_one). They are freed at the end of the turn,
 * since events of theirs may still be at hand.
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

#include "crabcache/wire.h"
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
    struct conn open[CONN_DEBTS]; /* heads of lists: only prev and next are used */
    struct conn ending;
    struct conn gone;
    const struct conn *served; /* the one that is being served */
    pthread_t thread;
    pthread_mutex_t mailbox_lock;
    struct conn *mailbox; /* handed over, not taken in yet; by next; under the lock */
    int epoll_fd;
    int wake_fd;
    int done_fd;
    unsigned number;
    atomic_bool stop;
    uint64_t stop_ms;  /* when the stop began */
    uint64_t stall_ms; /* see struct worker_config */
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

/* Start a list with all of another one, which is empty then. */
static void list_move(struct conn *to, struct conn *from)
{
    list_init(to);
    if (list_empty(from))
        return;
    *to = (struct conn){.prev = from->prev, .next = from->next};
    to->prev->next = to;
    to->next->prev = to;
    list_init(from);
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

/* Put a connection where it belongs now. */
static void place(struct worker *w, struct conn *c, bool was_open)
{
    struct conn *list = &w->ending;
    if (c->state == CONN_OPEN) {
        uint8_t debt = (uint8_t)conn_debt(c);
        if (debt == c->debt && (debt == CONN_OWES_NOTHING || c->moved_ms != w->io.now_ms))
            return;
        c->debt = debt;
        c->moved_ms = w->io.now_ms;
        c->unread = debt == CONN_OWES_READING ? conn_unread(c) : 0;
        list = &w->open[debt];
    } else if (was_open) {
        c->deadline_ms = w->io.now_ms + CONN_CLOSE_MS;
    } else {
        return;
    }
    list_remove(c);
    list_append(list, c);
}

/* What became of a connection in its turn. Returns whether it still stands. */
static bool settle(struct worker *w, struct conn *c, bool was_open, bool stands)
{
    if (stands)
        place(w, c, was_open);
    if (!stands || !watch(w, c, EPOLL_CTL_MOD)) {
        drop(w, c);
        return false;
    }
    return true;
}

/* Go on with a connection. Returns whether it still stands. */
static bool serve(struct worker *w, struct conn *c)
{
    if (c->state == CONN_GONE)
        return false;
    bool was_open = c->state == CONN_OPEN;
    w->served = c;
    bool stands = conn_ready(&w->io, c);
    w->served = NULL;
    return settle(w, c, was_open, stands);
}

/* Break the connection whose client has not read for the longest; see struct conn_relief. */
static bool give_up_one(void *context)
{
    struct worker *w = context;
    struct conn *list = &w->open[CONN_OWES_READING];
    struct conn *c = list->next;
    if (c == w->served) /* it has just moved, but is not placed yet */
        c = c->next;
    if (c == list || w->io.now_ms - c->moved_ms < WORKER_PATIENCE_MS)
        return false;
    log_line(w->io.log, LOG_LEVEL_DEBUG, "connection %d closed: its client does not read, and buffers are used up",
             c->fd);
    stats_add(&w->io.counters->connections_aborted, 1);
    list_remove(c);
    conn_break(&w->io, c);
    list_append(&w->gone, c);
    return true;
}

/* The budget is shared: others may be short of what only the clients of this worker hold. */
static void give_way(struct worker *w)
{
    while (buf_budget_is_short(w->pool.budget) && give_up_one(w)) {
    }
}

static void take_in(struct worker *w)
{
    pthread_mutex_lock(&w->mailbox_lock);
    struct conn *c = w->mailbox;
    w->mailbox = NULL;
    pthread_mutex_unlock(&w->mailbox_lock);
    while (c != NULL) {
        struct conn *next = c->next;
        c->moved_ms = w->io.now_ms;
        list_append(&w->open[CONN_OWES_NOTHING], c);
        stats_add(&w->io.counters->connections_opened, 1);
        if (!watch(w, c, EPOLL_CTL_ADD)) {
            log_line(w->io.log, LOG_LEVEL_WARNING, "connection %d closed: epoll_ctl: %m", c->fd);
            drop(w, c);
        }
        c = next;
    }
}

static bool is_late(const struct worker *w, const struct conn *list)
{
    return !list_empty(list) && w->io.now_ms - list->next->moved_ms >= w->stall_ms;
}

/* Close those who stopped in the middle of a frame, or do not read. [P-3.6.3] */
static void give_up_stalled_ones(struct worker *w)
{
    while (is_late(w, &w->open[CONN_OWES_READING])) {
        struct conn *c = w->open[CONN_OWES_READING].next;
        size_t unread = conn_unread(c);
        if (unread < c->unread) { /* it reads, only too little for the kernel to say that there is room */
            c->unread = unread;
            c->moved_ms = w->io.now_ms;
            list_remove(c);
            list_append(&w->open[CONN_OWES_READING], c);
            continue;
        }
        log_line(w->io.log, LOG_LEVEL_DEBUG, "connection %d closed: its client did not read for too long", c->fd);
        stats_add(&w->io.counters->connections_timed_out, 1);
        drop(w, c);
    }
    while (is_late(w, &w->open[CONN_OWES_INPUT])) {
        struct conn *c = w->open[CONN_OWES_INPUT].next;
        log_line(w->io.log, LOG_LEVEL_DEBUG, "connection %d closed: the rest of a frame did not come", c->fd);
        stats_add(&w->io.counters->connections_timed_out, 1);
        w->served = c;
        bool stands = conn_say_goodbye(&w->io, c, CRAB_ERR_IDLE_TIMEOUT);
        w->served = NULL;
        settle(w, c, true, stands);
    }
}

static void give_up_late_ones(struct worker *w)
{
    give_up_stalled_ones(w);
    while (!list_empty(&w->ending) && w->ending.next->deadline_ms <= w->io.now_ms)
        drop(w, w->ending.next);
}

static void bury(struct worker *w)
{
    while (!list_empty(&w->gone))
        drop(w, w->gone.next);
}

/* Take the time; when that of grace is over, nothing more is executed. */
static uint64_t time_since_stop(struct worker *w)
{
    w->io.now_ms = monotonic_ms();
    uint64_t since = w->io.now_ms - w->stop_ms;
    w->io.halted = since >= WORKER_GRACE_MS;
    return since;
}

/* Execute what a connection has received by now, so that it can say goodbye. */
static void finish(struct worker *w, struct conn *c)
{
    for (int i = 0; i < STOP_ROUNDS; i++) {
        time_since_stop(w);
        if (!serve(w, c) || c->state != CONN_OPEN || c->out.data != NULL)
            return;
    }
}

/* One turn of the stop. Returns whether connections still stand. */
static bool go_on_stopping(struct worker *w)
{
    uint64_t since = time_since_stop(w);
    bool all = since >= WORKER_STOP_MS;
    for (unsigned debt = 0; debt < CONN_DEBTS; debt++) {
        struct conn todo; /* each once: a turn can move it to any list, and break others */
        list_move(&todo, &w->open[debt]);
        while (!list_empty(&todo)) {
            struct conn *c = todo.next;
            list_remove(c);
            list_append(&w->open[debt], c);
            if (all)
                drop(w, c);
            else
                finish(w, c);
        }
    }
    while (all && !list_empty(&w->ending))
        drop(w, w->ending.next);
    bury(w);
    bool stand = !list_empty(&w->ending);
    for (unsigned debt = 0; debt < CONN_DEBTS; debt++)
        stand = stand || !list_empty(&w->open[debt]);
    return stand;
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
        give_way(w);
        bury(w);
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
    w->stall_ms = config->stall_ms;
    for (unsigned debt = 0; debt < CONN_DEBTS; debt++)
        list_init(&w->open[debt]);
    list_init(&w->ending);
    list_init(&w->gone);
    pthread_mutex_init(&w->mailbox_lock, NULL);
    buf_pool_init(&w->pool, config->budget, config->cache_bytes);
    w->io.pool = &w->pool;
    w->io.counters = config->dispatch.counters;
    w->io.log = config->log;
    w->io.relief = (struct conn_relief){give_up_one, w};
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
