/* SPDX-License-Identifier: MIT */
/*
 * The loop of a thread; see driver.h.
 *
 *     epoll --> link_receive: count replies --> issue what is next --> link_send
 *
 * What is next is decided in one of three ways:
 *     preload       each connection puts its share of the keys, FILL_DEPTH at a time;
 *     closed loop   when all replies to a batch are there, the next batch, as redis-benchmark does;
 *     open loop     turns are due at fixed times, to each connection in its turn; a connection issues what is due
 *                   while there is room in its pipeline, and what waits is counted as waiting from when it was due.
 */
#include "client/bench/driver.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client/bench/dial.h"

#define EVENTS 256
#define FILL_DEPTH 64U
#define FILL_BYTES ((uint32_t)256 * 1024) /* of a preloading connection on the way, or one value */
#define CHECK_NS UINT64_C(100000000)
#define WAIT_MS 100
#define SPIN_NS UINT64_C(100000) /* open loop: within so short a time before a turn, do not sleep */
#define DRAIN_NS UINT64_C(500000000)

static const struct plan *plan_of(const struct driver *driver)
{
    return driver->run->plan;
}

static enum phase phase_of(const struct driver *driver)
{
    return (enum phase)atomic_load_explicit(&driver->run->phase, memory_order_acquire);
}

/* ---- making and ending ---------------------------------------------------------------------------------------- */

int driver_init(struct driver *driver, struct run *run, uint32_t index)
{
    const struct plan *plan = run->plan;
    uint32_t threads = plan->threads;
    driver->run = run;
    driver->index = index;
    driver->first = (uint32_t)((uint64_t)plan->connections * index / threads);
    driver->count = (uint32_t)((uint64_t)plan->connections * (index + 1) / threads) - driver->first;
    driver->quota = plan->requests == 0 ? UINT64_MAX
                                        : plan->requests / threads + (index < plan->requests % threads ? 1 : 0);
    driver->epoll = -1;
    choice_init(&driver->choice, plan, index);
    driver->links = calloc(driver->count, sizeof *driver->links);
    if (driver->links == NULL ||
        link_kit_init(&driver->kit, plan->protocol, plan->key_bytes, &plan->sizes, run->payload, &driver->tally) != 0)
        return -1;
    driver->kit.only_measured = plan->requests != 0;
    for (uint32_t i = 0; i < driver->count; i++) {
        if (link_init(&driver->links[i], -1, plan->depth > FILL_DEPTH ? plan->depth : FILL_DEPTH) != 0)
            return -1;
        driver->links[i].fill_next = driver->first + i;
        driver->links[i].slot = i;
        driver->links[i].stride = driver->count;
    }
    return 0;
}

void driver_fini(struct driver *driver)
{
    for (uint32_t i = 0; driver->links != NULL && i < driver->count; i++)
        link_fini(&driver->links[i]);
    free(driver->links);
    driver->links = NULL;
    link_kit_fini(&driver->kit);
    if (driver->epoll >= 0)
        (void)close(driver->epoll);
    driver->epoll = -1;
}

static int fail(struct driver *driver, const char *what, int error)
{
    (void)snprintf(driver->kit.failure, sizeof driver->kit.failure, "%s: %s", what, strerror(error));
    return -1;
}

static int connect_all(struct driver *driver)
{
    driver->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (driver->epoll < 0)
        return fail(driver, "epoll", errno);
    for (uint32_t i = 0; i < driver->count; i++) {
        struct link *link = &driver->links[i];
        link->fd = dial(plan_of(driver), driver->kit.failure, sizeof driver->kit.failure);
        if (link->fd < 0)
            return -1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
        if (epoll_ctl(driver->epoll, EPOLL_CTL_ADD, link->fd, &event) != 0)
            return fail(driver, "epoll", errno);
    }
    return 0;
}

/* ---- what is next --------------------------------------------------------------------------------------------- */

static void issue_fill(struct driver *driver, struct link *link)
{
    const struct plan *plan = plan_of(driver);
    uint32_t depth = plan->sizes.most > FILL_BYTES / FILL_DEPTH ? FILL_BYTES / plan->sizes.most : FILL_DEPTH;
    if (link->fill_next >= plan->keys) {
        if (link->fill_next != UINT64_MAX)
            driver->filled++;
        link->fill_next = UINT64_MAX;
        return;
    }
    for (uint32_t i = 0; i == 0 || i < depth; i++) {
        if (link->fill_next >= plan->keys)
            break;
        link_issue(link, REQUEST_PUT, link->fill_next);
        link->fill_next += plan->connections;
    }
}

static void issue_batch(struct driver *driver, struct link *link)
{
    uint64_t left = driver->kit.counting ? driver->quota : UINT64_MAX;
    uint64_t depth = plan_of(driver)->depth;
    uint64_t count = left < depth ? left : depth;
    for (uint64_t i = 0; i < count; i++) {
        enum request_op op = choice_op(&driver->choice);
        link_issue(link, op, choice_key(&driver->choice));
    }
    link->measured = driver->kit.counting;
    if (driver->kit.counting && driver->quota != UINT64_MAX)
        driver->quota -= count;
    link->start_ns = link_now_ns();
}

static void issue_due(struct driver *driver, struct link *link)
{
    while (link->due != 0 && link_in_flight(link) < plan_of(driver)->depth) {
        enum request_op op = choice_op(&driver->choice);
        link_issue(link, op, choice_key(&driver->choice));
        link->due--;
    }
}

/* Issue what is next on a connection, send it, and wait for what it now needs. */
static int proceed(struct driver *driver, struct link *link, enum phase phase)
{
    uint64_t before = link->issued;
    bool was_blocked = link->blocked;
    if (plan_of(driver)->rate != 0 && phase != PHASE_PRELOAD) {
        if (phase != PHASE_END)
            issue_due(driver, link);
    } else if (link->replied == link->issued && link->sent == link->issued && phase != PHASE_END) {
        if (phase == PHASE_PRELOAD)
            issue_fill(driver, link);
        else
            issue_batch(driver, link);
    }
    if (link->issued != before) {
        if (before == link->replied)
            link->heard_ns = phase == PHASE_PRELOAD || driver->kit.interval_ns > 0.0 ? link_now_ns() : link->start_ns;
        driver->in_flight += link->issued - before;
    }
    if (link->sent == link->issued)
        return 0;
    if (link_send(link, &driver->kit) != 0)
        return -1;
    if (link->blocked == was_blocked)
        return 0;
    struct epoll_event event = {.events = EPOLLIN | (link->blocked ? EPOLLOUT : 0), .data.ptr = link};
    return epoll_ctl(driver->epoll, EPOLL_CTL_MOD, link->fd, &event) == 0 ? 0 : fail(driver, "epoll", errno);
}

/* ---- the loop ------------------------------------------------------------------------------------------------- */

/* A server that says nothing while requests wait for it has failed. */
static int check_silence(struct driver *driver, uint64_t now_ns)
{
    uint64_t timeout_ns = plan_of(driver)->timeout_ns;
    if (now_ns - driver->checked_ns < CHECK_NS)
        return 0;
    driver->checked_ns = now_ns;
    for (uint32_t i = 0; i < driver->count; i++) {
        const struct link *link = &driver->links[i];
        if (link_in_flight(link) != 0 && now_ns > link->heard_ns && now_ns - link->heard_ns > timeout_ns) {
            (void)snprintf(driver->kit.failure, sizeof driver->kit.failure,
                           "no reply for %.1f s with %llu requests on their way", (double)timeout_ns / 1e9,
                           (unsigned long long)link_in_flight(link));
            return -1;
        }
    }
    return 0;
}

static int receive(struct driver *driver, struct link *link)
{
    int64_t replies = link_receive(link, &driver->kit);
    if (replies < 0)
        return -1;
    driver->in_flight -= (uint64_t)replies;
    uint64_t all = atomic_load_explicit(&driver->replies, memory_order_relaxed) + (uint64_t)replies;
    atomic_store_explicit(&driver->replies, all, memory_order_relaxed);
    return 0;
}

/* One turn of the loop: wait up to `wait_ns`, then serve what is ready. */
static int turn(struct driver *driver, enum phase phase, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000), .tv_nsec = (long)(wait_ns % 1000000000)};
    int count = epoll_pwait2(driver->epoll, events, EVENTS, &wait, NULL);
    if (count < 0 && errno != EINTR)
        return fail(driver, "epoll", errno);
    for (int i = 0; i < count; i++) {
        struct link *link = events[i].data.ptr;
        if ((events[i].events & (uint32_t)~EPOLLOUT) != 0 && receive(driver, link) != 0)
            return -1;
        if (proceed(driver, link, phase) != 0)
            return -1;
    }
    return check_silence(driver, link_now_ns());
}

static int preload(struct driver *driver)
{
    for (uint32_t i = 0; i < driver->count; i++) {
        if (proceed(driver, &driver->links[i], PHASE_PRELOAD) != 0)
            return -1;
    }
    while (driver->filled < driver->count && phase_of(driver) == PHASE_PRELOAD) {
        if (turn(driver, PHASE_PRELOAD, WAIT_MS * UINT64_C(1000000)) != 0)
            return -1;
    }
    return 0;
}

static int closed_loop(struct driver *driver)
{
    enum phase phase = phase_of(driver);
    driver->kit.counting = phase == PHASE_MEASURE;
    for (uint32_t i = 0; i < driver->count && phase != PHASE_END; i++) {
        if (proceed(driver, &driver->links[i], phase) != 0)
            return -1;
    }
    while (phase != PHASE_END && (driver->quota != 0 || driver->in_flight != 0)) {
        if (turn(driver, phase, WAIT_MS * UINT64_C(1000000)) != 0)
            return -1;
        phase = phase_of(driver);
        driver->kit.counting = phase == PHASE_MEASURE;
    }
    return 0;
}

static struct link *link_of(const struct driver *driver, uint64_t slot)
{
    assert(driver->count != 0); /* there are as many connections as threads, or more */
    return &driver->links[slot % driver->count];
}

static uint64_t slot_due_ns(const struct driver *driver, uint64_t slot)
{
    return link_due_ns(link_of(driver, slot), &driver->kit, slot / driver->count);
}

/* Open loop: give their turns to the connections, as far as they are due. */
static int give_turns(struct driver *driver, enum phase phase, uint64_t now_ns)
{
    uint32_t touched = 0;
    uint64_t first = driver->slot;
    while (driver->quota != 0) {
        uint64_t due_ns = slot_due_ns(driver, driver->slot);
        if (due_ns > now_ns)
            break;
        link_of(driver, driver->slot)->due++;
        driver->slot++;
        touched++;
        if (driver->quota != UINT64_MAX && driver->kit.counting && due_ns >= driver->kit.measure_ns)
            driver->quota--;
    }
    for (uint32_t i = 0; i < touched && i < driver->count; i++) {
        if (proceed(driver, link_of(driver, first + i), phase) != 0)
            return -1;
    }
    return 0;
}

static uint64_t backlog(const struct driver *driver)
{
    uint64_t due = 0;
    for (uint32_t i = 0; i < driver->count; i++)
        due += driver->links[i].due;
    return due;
}

static int open_loop(struct driver *driver)
{
    struct link_kit *kit = &driver->kit;
    uint32_t threads = plan_of(driver)->threads;
    kit->interval_ns = 1e9 * threads / (double)plan_of(driver)->rate;
    kit->origin_ns = driver->run->origin_ns + (uint64_t)(kit->interval_ns * driver->index / threads);
    for (uint32_t i = 0; i < driver->count; i++)
        driver->links[i].base = driver->links[i].issued;
    for (;;) {
        enum phase phase = phase_of(driver);
        uint64_t now_ns = link_now_ns();
        if (phase == PHASE_END)
            return 0;
        if (phase == PHASE_MEASURE && !kit->counting)
            kit->measure_ns = now_ns;
        kit->counting = phase == PHASE_MEASURE;
        if (give_turns(driver, phase, now_ns) != 0)
            return -1;
        if (driver->quota == 0 && driver->in_flight == 0 && backlog(driver) == 0)
            return 0;
        uint64_t due_ns = slot_due_ns(driver, driver->slot);
        uint64_t wait_ns = WAIT_MS * UINT64_C(1000000);
        if (driver->quota != 0 && due_ns < now_ns + wait_ns)
            wait_ns = due_ns > now_ns + SPIN_NS ? due_ns - now_ns - SPIN_NS : 0;
        if (turn(driver, phase, wait_ns) != 0)
            return -1;
    }
}

/* After the end: take the replies that are on their way, so that the server is not cut off, but not for ever. */
static void drain(struct driver *driver)
{
    uint64_t end_ns = link_now_ns() + DRAIN_NS;
    driver->kit.counting = false;
    while (driver->in_flight != 0 && link_now_ns() < end_ns) {
        if (turn(driver, PHASE_END, DRAIN_NS / 10) != 0)
            return;
    }
}

/* Tell the main thread; as `ready`, wait until it begins the load. */
static void announce(struct driver *driver, bool ready)
{
    struct run *run = driver->run;
    (void)pthread_mutex_lock(&run->lock);
    if (ready)
        run->ready++;
    else
        run->done++;
    if (driver->failed)
        run->failed++;
    (void)pthread_cond_broadcast(&run->changed);
    while (ready && phase_of(driver) == PHASE_PRELOAD)
        (void)pthread_cond_wait(&run->changed, &run->lock);
    (void)pthread_mutex_unlock(&run->lock);
}

void *driver_run(void *argument)
{
    struct driver *driver = argument;
    int failed = connect_all(driver);
    if (failed == 0 && plan_of(driver)->preload)
        failed = preload(driver);
    if (failed == 0) {
        announce(driver, true);
        failed = plan_of(driver)->rate != 0 ? open_loop(driver) : closed_loop(driver);
    }
    driver->failed = failed != 0;
    announce(driver, false);
    if (failed == 0)
        drain(driver);
    return NULL;
}
