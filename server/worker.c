/* SPDX-License-Identifier: MIT */
/*
 * The loop of a worker. A turn: wait, serve the connections that are ready, take in new ones, give up those whose time
 * is over, keep the store's house, and tell the store that no view is held.
 *
 * The roster knows who is late and who has to give way. Serving one connection can end others, which give way to it
 * (give_up_one). Those that are gone are freed at the end of the turn, since events of theirs may still be at hand.
 */
#include "server/worker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
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

static_assert(WORKER_BUFFER_BYTES >= CONN_IN_BYTES + CONN_AHEAD_BYTES + DISPATCH_OUT_BYTES, "shared buffers");

#define STACK_BYTES ((size_t)512 << 10)

/* How often housekeeping runs at the least, and while more of it waits. */
#define TICK_MS 500
#define TICK_BUSY_MS 1
#define STOPPING_MS 20

/* How many pieces of input of one connection are executed at the stop before the others have their turn. */
#define STOP_ROUNDS 64

struct worker {
    struct buf_pool pool;
    struct conn_io io;
    struct buf_budget *streams; /* or NULL */
    struct roster roster;
    const struct conn *served; /* the one that is being served */
    pthread_t thread;
    pthread_mutex_t mailbox_lock;
    struct conn *mailbox; /* handed over, not taken in yet; chained; under the lock */
    atomic_uint load;     /* connections, those in the mailbox included */
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

/* ---------------------------------------------------------------------------------------- connections */

static void drop(struct worker *w, struct conn *c)
{
    roster_remove(c);
    conn_close(&w->io, c);
    stats_add(&w->io.counters->connections_closed, 1);
    atomic_fetch_sub_explicit(&w->load, 1, memory_order_relaxed);
}

/* Tell epoll what to wait for; `anew`, even if it knows: it then looks whether that is there already. */
static bool watch(struct worker *w, struct conn *c, int operation, bool anew)
{
    struct epoll_event event = {.events = conn_wanted(c), .data.ptr = c};
    if (event.events == c->events && !(anew && (event.events & EPOLLET) != 0))
        return true;
    c->events = event.events;
    return epoll_ctl(w->epoll_fd, operation, c->fd, &event) == 0;
}

/* What became of a connection in its turn; `ends`: its stream has an end. Returns whether it still stands. */
static bool settle(struct worker *w, struct conn *c, bool stands, bool ends)
{
    if (stands)
        roster_place(&w->roster, c, dispatch_is_settled(w->io.dispatch, &c->session), w->io.now_ms);
    if (!stands || !watch(w, c, EPOLL_CTL_MOD, c->rest || ends)) {
        drop(w, c);
        return false;
    }
    return true;
}

/* Go on with a connection. Returns whether it still stands. */
static bool serve(struct worker *w, struct conn *c, bool ends)
{
    if (c->state == CONN_GONE)
        return false;
    w->served = c;
    bool stands = conn_ready(&w->io, c);
    w->served = NULL;
    return settle(w, c, stands, ends);
}

/* Execute and send for those who have received ahead; while one does, the items of the next one are fetched. */
static void serve_ahead(struct worker *w, struct conn *const *ahead, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct conn *c = ahead[i];
        if (c->state == CONN_GONE)
            continue;
        w->served = c;
        bool stands = conn_run_ahead(&w->io, c, i + 1 < count ? ahead[i + 1] : NULL);
        w->served = NULL;
        settle(w, c, stands, false);
    }
    conn_end_ahead(&w->io);
}

/*
 * Serve all that are ready. Most have little input: first as many of them as there is room for receive, then each executes
 * and sends. Returns whether the mailbox was among them.
 */
static bool serve_all(struct worker *w, const struct epoll_event *events, int count)
{
    struct conn *ahead[WORKER_EVENTS];
    unsigned waiting = 0;
    bool woken = false;
    for (int i = 0; i < count; i++) {
        struct conn *c = events[i].data.ptr;
        bool ends = (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        if (c == NULL)
            woken = true;
        else if (!ends && conn_receive_ahead(&w->io, c))
            ahead[waiting++] = c;
        else
            serve(w, c, ends);
        if (conn_ahead_is_full(&w->io)) {
            serve_ahead(w, ahead, waiting);
            waiting = 0;
        }
    }
    serve_ahead(w, ahead, waiting);
    return woken;
}

static bool say_goodbye(struct worker *w, struct conn *c, uint16_t code)
{
    w->served = c;
    bool stands = c->out.data == NULL && conn_say_goodbye(&w->io, c, code);
    w->served = NULL;
    return settle(w, c, stands, false);
}

/* Take a connection's memory. Answers false if there is none. */
static bool give_up(struct worker *w, struct conn *c)
{
    if (c == NULL)
        return false;
    log_line(w->io.log, LOG_LEVEL_DEBUG, "connection %d closed: it holds %zu bytes, and buffers are used up", c->fd,
             conn_held_bytes(c) + c->stream.value_len);
    stats_add(&w->io.counters->connections_aborted, 1);
    conn_give_way(&w->io, c, CRAB_ERR_BUSY);
    roster_place(&w->roster, c, true, w->io.now_ms);
    if (c->state != CONN_GONE)
        watch(w, c, EPOLL_CTL_MOD, false); /* if it fails, the deadline of its end still comes */
    return true;
}

/* Take the memory of the worst offender; see struct conn_relief. */
static bool give_up_one(void *context)
{
    struct worker *w = context;
    return give_up(w, roster_offender(&w->roster, w->served, w->io.now_ms));
}

static bool give_up_slowest(struct worker *w, bool streamed)
{
    return give_up(w, roster_slowest(&w->roster, streamed, w->io.now_ms));
}

/* The budgets are shared: others may be short of what only the clients of this worker hold. */
static void give_way(struct worker *w)
{
    while (buf_budget_is_short(w->pool.budget) && (give_up_one(w) || give_up_slowest(w, false))) {
    }
    while (w->streams != NULL && buf_budget_is_short(w->streams) && give_up_slowest(w, true)) {
    }
}

/* The next one in the mailbox: there, nothing else uses the place in a list. */
static struct conn *chained(const struct conn *c)
{
    return (struct conn *)(void *)c->link.next;
}

static void chain(struct conn *c, struct conn *next)
{
    c->link.next = (struct conn_link *)(void *)next;
}

static void take_in(struct worker *w)
{
    pthread_mutex_lock(&w->mailbox_lock);
    struct conn *c = w->mailbox;
    w->mailbox = NULL;
    pthread_mutex_unlock(&w->mailbox_lock);
    while (c != NULL) {
        struct conn *next = chained(c);
        c->opened_ms = w->io.now_ms;
        roster_add(&w->roster, c, w->io.now_ms);
        stats_add(&w->io.counters->connections_opened, 1);
        if (!watch(w, c, EPOLL_CTL_ADD, false)) {
            log_line(w->io.log, LOG_LEVEL_WARNING, "connection %d closed: epoll_ctl: %m", c->fd);
            drop(w, c);
        }
        c = next;
    }
}

/* Close those who are late, or tell them to go. [P-3.6.3] */
static void give_up_late_ones(struct worker *w)
{
    static const char *const why[] = {
        [ROSTER_NOT_READING] = "its client did not read for too long",
        [ROSTER_HALF_FRAME] = "the rest of a frame did not come",
        [ROSTER_NO_REQUEST] = "its client did not ask anything, or not authenticate, in time",
        [ROSTER_IDLE] = "it was idle for too long",
        [ROSTER_ENDING] = "its client did not end it in time",
    };
    enum roster_reason reason;
    struct conn *c;
    while ((c = roster_late(&w->roster, w->io.now_ms, &reason)) != NULL) {
        log_line(w->io.log, LOG_LEVEL_DEBUG, "connection %d closed: %s", c->fd, why[reason]);
        if (reason != ROSTER_ENDING)
            stats_add(&w->io.counters->connections_timed_out, 1);
        if (reason == ROSTER_NOT_READING || reason == ROSTER_ENDING)
            drop(w, c);
        else
            say_goodbye(w, c, CRAB_ERR_IDLE_TIMEOUT);
    }
}

static void bury(struct worker *w)
{
    struct conn *c;
    while ((c = roster_gone(&w->roster)) != NULL)
        drop(w, c);
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
static void finish(void *context, struct conn *c)
{
    struct worker *w = context;
    for (int i = 0; i < STOP_ROUNDS; i++) {
        time_since_stop(w);
        if (!serve(w, c, false) || c->state != CONN_OPEN || c->out.data != NULL)
            return;
    }
}

static void cut_off(void *context, struct conn *c)
{
    drop(context, c);
}

/* One turn of the stop. Returns whether connections still stand. */
static bool go_on_stopping(struct worker *w)
{
    bool all = time_since_stop(w) >= WORKER_STOP_MS;
    roster_visit(&w->roster, all ? cut_off : finish, w);
    struct conn *c;
    while (all && (c = roster_ending(&w->roster)) != NULL)
        drop(w, c);
    bury(w);
    return !roster_is_empty(&w->roster);
}

/* -------------------------------------------------------------------------------------------- the loop */

static int wait_ms(const struct worker *w, bool more_housekeeping)
{
    uint32_t wait = more_housekeeping ? TICK_BUSY_MS : TICK_MS;
    if (w->io.stopping)
        wait = STOPPING_MS;
    return (int)roster_wait_ms(&w->roster, w->io.now_ms, wait);
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
        if (serve_all(w, events, count)) {
            take_wake_up(w);
            take_in(w);
        }
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
        w->mailbox = chained(c);
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

static int start_thread(struct worker *w, int cpu)
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    error = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (error == 0 && cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((size_t)cpu, &cpus);
        error = pthread_attr_setaffinity_np(&attributes, sizeof cpus, &cpus);
    }
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
    w->streams = config->dispatch.streams;
    roster_init(&w->roster, &config->times);
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
        error = start_thread(w, config->cpu);
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

unsigned worker_load(const struct worker *worker)
{
    return atomic_load_explicit(&worker->load, memory_order_relaxed);
}

void worker_adopt(struct worker *worker, struct conn *c)
{
    atomic_fetch_add_explicit(&worker->load, 1, memory_order_relaxed);
    pthread_mutex_lock(&worker->mailbox_lock);
    chain(c, worker->mailbox);
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
