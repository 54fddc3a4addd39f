/* SPDX-License-Identifier: MIT */
/*
 * A connection in an event loop.  crab_conn_process() is the only place where something happens:
 *
 *     finish connecting -> send -> receive -> completions, in the order of the requests -> send what they queued
 *       -> look at the clock -> if it is broken: tell the completions that are left, then on_state -> tell the loop
 *
 * Invariants
 * - Callbacks run with `busy` set, from here only, and never from a queue call.  While it is set, closing waits.
 * - Each completion is called once: by deliver() when its reply is here, by fail_all() when it will not come; afterwards
 *   its request has left the ring, or its waiter has `already_told`.
 * - `loop.update` is called before the socket is closed, so that no loop watches a number that is another file's.
 */
#include "client/internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#define NS_PER_MS 1000000U

/* Receives more than one only where a request would time out: replies that are here are not late. */
#define ROUNDS_WHEN_LATE 64U

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000U * NS_PER_MS + (uint64_t)now.tv_nsec;
}

/* In a callback, where requests are queued by the dozen: a clock that costs a tenth, and is no more than a tick behind. */
static uint64_t cheap_now_ns(const struct crab_conn *conn)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000U * NS_PER_MS + (uint64_t)now.tv_nsec;
    return ns > conn->turn_ns ? ns : conn->turn_ns;
}

uint64_t event_deadline(const struct crab_conn *conn)
{
    if (conn->timeout_ms == CRAB_NO_TIMEOUT)
        return UINT64_MAX;
    return (conn->busy ? cheap_now_ns(conn) : now_ns()) + (uint64_t)conn->timeout_ms * NS_PER_MS;
}

/* ---- what is wanted of the loop */

/* Whether the reply at the front of the input is whole: then whoever takes replies is late, not the server. */
static bool front_is_here(const struct crab_conn *conn)
{
    union crab_reply reply;
    struct crab_frame frame;
    if (conn->pour.active)
        return false;
    return crab_reply_decode(buffer_front(&conn->in), buffer_used(&conn->in), conn->max_reply, &reply, &frame) !=
           CRAB_NEED_MORE;
}

/* Whether replies wait for crab_conn_next_reply(), and enough of them. */
static bool is_full(const struct crab_conn *conn)
{
    return buffer_used(&conn->in) >= conn->max_buffered && conn->ring_count != 0 &&
           (conn->pour.active || front_is_here(conn));
}

unsigned crab_conn_wants(const struct crab_conn *conn)
{
    if (conn->state != CRAB_OK || !conn->events)
        return 0;
    if (conn->phase == CONN_CONNECTING)
        return CRAB_EVENT_WRITE;
    return (is_full(conn) ? 0 : CRAB_EVENT_READ) | (buffer_used(&conn->out) != 0 ? CRAB_EVENT_WRITE : 0);
}

/* When the earliest of the deadlines is; UINT64_MAX: none. */
static uint64_t earliest(const struct crab_conn *conn)
{
    uint64_t end = UINT64_MAX;
    if (conn->ring_count != 0)
        end = conn_front(conn)->end_ns;
    if (conn->phase != CONN_READY && conn->connect_end_ns < end)
        end = conn->connect_end_ns;
    if (buffer_used(&conn->out) != 0 && conn->send_end_ns < end)
        end = conn->send_end_ns;
    return end;
}

int64_t crab_conn_next_timeout(const struct crab_conn *conn)
{
    if (!conn->events)
        return -1;
    if (conn->state != CRAB_OK)
        return conn->told ? -1 : 0;
    uint64_t end = earliest(conn);
    if (end == UINT64_MAX)
        return -1;
    uint64_t now = now_ns();
    return now >= end ? 0 : (int64_t)((end - now + NS_PER_MS - 1) / NS_PER_MS);
}

static void tell_loop(struct crab_conn *conn, unsigned events)
{
    conn->told_events = events;
    if (conn->loop.update != NULL)
        conn->loop.update(conn->loop.context, events, crab_conn_next_timeout(conn));
}

void event_update(struct crab_conn *conn)
{
    unsigned events = crab_conn_wants(conn);
    if (!conn->busy && (events != conn->told_events || conn->state != CRAB_OK))
        tell_loop(conn, events);
}

void event_stop(struct crab_conn *conn)
{
    tell_loop(conn, 0);
}

/* ---- telling how requests end */

static void already_told(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    (void)conn;
    (void)result;
    (void)context;
}

/* A write that was sent whole, and that the server may have executed. */
static bool is_unknown(const struct crab_conn *conn, const struct in_flight *request)
{
    return crab_op_is_write(request->op) && request->end <= conn->sent_bytes && !conn->fatal &&
           !(conn->ended && conn->goaway);
}

/* Why a request is not answered. */
static struct crab_result no_reply(const struct crab_conn *conn, const struct in_flight *request)
{
    return (struct crab_result){.status = conn->state,
                                .error = conn->state == CRAB_E_SERVER ? conn->error : 0,
                                .request = request->op,
                                .tag = request->tag,
                                .outcome_unknown = is_unknown(conn, request),
                                .value = slice_of_string(conn->text)};
}

/* The connection is broken: tell each completion that is left. They cannot queue anything, so the ring stands still. */
static void fail_all(struct crab_conn *conn)
{
    for (uint32_t i = 0; i < conn->ring_count; i++) {
        uint32_t place = (conn->ring_first + i) & (conn->ring_capacity - 1);
        const struct in_flight *request = &conn->ring[place];
        struct waiter waiter = conn->waiters[place];
        if (waiter.done == NULL)
            continue;
        struct crab_result result = no_reply(conn, request);
        conn->waiters[place].done = already_told;
        waiter.done(conn, &result, waiter.context);
    }
}

/* Give replies that are here to their completions, up to one that crab_conn_next_reply() is to take. */
static void deliver(struct crab_conn *conn)
{
    conn->wanted = 0;
    while (conn->ring_count != 0 && !conn->close_wanted) {
        struct waiter waiter = *conn_front(conn);
        struct in_flight request = conn->ring[conn->ring_first];
        struct crab_result result;
        uint32_t before = conn->ring_count;
        if (waiter.done == NULL)
            return;
        if (conn_next(conn, &result, NULL) != CRAB_OK) {
            if (conn->ring_count == before)
                return;
            result = no_reply(conn, &request); /* its reply came, and broke the connection: an impossible WELCOME */
        }
        waiter.done(conn, &result, waiter.context);
    }
    if (conn->ring_count == 0 && conn->state == CRAB_OK && buffer_used(&conn->in) != 0)
        (void)conn_take_pushes(conn);
}

/* ---- one turn */

static void tell_ready(struct crab_conn *conn)
{
    if (conn->phase == CONN_CONNECTING || conn->greetings != 0 || conn->state != CRAB_OK)
        return;
    conn->phase = CONN_READY;
    conn_log(conn, CRAB_LOG_INFO, "connected");
    if (conn->changed != NULL)
        conn->changed(conn, CRAB_OK, conn->changed_context);
}

/* The completion of HELLO and AUTH. */
static void greeted(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    (void)context;
    conn->greetings--;
    if (conn->state == CRAB_OK && result->status != CRAB_OK) {
        char text[CRAB_FAILURE_TEXT];
        reply_copy_text(slice_of_string(conn->text), text, sizeof text);
        (void)conn_break(conn, result->status, 0, "%s", text);
        buffer_drop(&conn->in, buffer_used(&conn->in)); /* what was answered without it is not what was asked for */
    }
    tell_ready(conn);
}

enum crab_status event_greet(struct crab_conn *conn, const union crab_request *request)
{
    struct net_deadline unused = {0};
    conn->greetings++;
    enum crab_status status = conn_queue(conn, request, NULL, &unused);
    return status != CRAB_OK ? status : crab_conn_then(conn, greeted, NULL);
}

/* Whether the socket is connected by now; it breaks if it cannot be. */
static bool is_connected(struct crab_conn *conn)
{
    struct pollfd entry = {.fd = conn->fd, .events = POLLOUT};
    int failed = 0;
    socklen_t size = sizeof failed;
    if (poll(&entry, 1, 0) <= 0)
        return false;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0)
        failed = errno;
    if (failed != 0) {
        (void)conn_break(conn, CRAB_E_REFUSED, failed, "cannot connect");
        return false;
    }
    conn->phase = CONN_GREETING;
    tell_ready(conn);
    return true;
}

static void send_queue(struct crab_conn *conn)
{
    struct crab_slice nothing = {0};
    uint64_t before = conn->sent_bytes;
    if (conn->state != CRAB_OK || conn->phase == CONN_CONNECTING || buffer_used(&conn->out) == 0)
        return;
    (void)conn_send(conn, &nothing, NULL);
    if (conn->sent_bytes != before && buffer_used(&conn->out) != 0)
        conn->send_end_ns = event_deadline(conn);
    if (conn->greetings != 0) /* among them may be a secret */
        conn_forget_sent(conn);
}

static void exchange(struct crab_conn *conn, unsigned events)
{
    if (conn->state != CRAB_OK || (conn->phase == CONN_CONNECTING && !is_connected(conn)))
        return;
    send_queue(conn);
    if ((events & CRAB_EVENT_READ) != 0 && conn->state == CRAB_OK && !is_full(conn))
        (void)conn_receive(conn, conn->wanted);
}

static bool is_late(const struct crab_conn *conn)
{
    if (conn->state != CRAB_OK || earliest(conn) > now_ns())
        return false;
    return conn->ring_count == 0 || conn_front(conn)->done != NULL || !front_is_here(conn);
}

/* Somebody's time is up. Perhaps it was the loop that was late: what the socket holds still counts. */
static void look_at_clock(struct crab_conn *conn)
{
    for (unsigned round = 0; is_late(conn); round++) {
        bool more = conn->phase != CONN_CONNECTING && round < ROUNDS_WHEN_LATE &&
                    conn_receive(conn, conn->wanted) == CRAB_OK;
        if (!more && conn->state == CRAB_OK)
            (void)conn_break(conn, CRAB_E_TIMEOUT, 0, "no answer within %u ms", (unsigned)conn->timeout_ms);
        deliver(conn);
    }
}

enum crab_status crab_conn_process(struct crab_conn *conn, unsigned events)
{
    if (!conn->events)
        return conn_complain(conn, CRAB_E_INVALID, "the connection is in no event loop");
    if (conn->busy)
        return conn->state;
    conn->busy = true;
    conn->turn_ns = now_ns();
    exchange(conn, events);
    deliver(conn);
    send_queue(conn);
    look_at_clock(conn);
    if (conn->state != CRAB_OK && !conn->told && !conn->close_wanted) {
        deliver(conn); /* what came before the end */
        fail_all(conn);
        conn->told = true;
        if (conn->changed != NULL && !conn->close_wanted)
            conn->changed(conn, conn->state, conn->changed_context);
    }
    conn->busy = false;
    if (conn->close_wanted) {
        crab_conn_close(conn);
        return CRAB_E_BROKEN;
    }
    tell_loop(conn, crab_conn_wants(conn));
    return conn->state;
}

bool event_close(struct crab_conn *conn)
{
    conn->close_wanted = true;
    if (conn->busy)
        return false;
    conn->busy = true;
    if (conn->state == CRAB_OK)
        (void)conn_break(conn, CRAB_E_CLOSED, 0, "the connection was closed by its owner");
    fail_all(conn);
    if (conn->loop.closed != NULL)
        conn->loop.closed(conn->loop.context);
    return true;
}

/* ---- the rest of the public face */

enum crab_status crab_conn_use_events(struct crab_conn *conn)
{
    if (conn->state != CRAB_OK)
        return CRAB_E_BROKEN;
    if (conn->ring_count != 0)
        return conn_complain(conn, CRAB_E_PENDING, crab_status_text(CRAB_E_PENDING));
    if (!conn->events && conn->ring_capacity != 0) {
        struct waiter *waiters = conn->allocator.resize(conn->allocator.context, conn->waiters,
                                                        conn->ring_capacity * sizeof *waiters);
        if (waiters == NULL)
            return conn_complain(conn, CRAB_E_NO_MEMORY, crab_status_text(CRAB_E_NO_MEMORY));
        conn->waiters = waiters;
    }
    conn->events = true;
    conn->send_end_ns = event_deadline(conn);
    return CRAB_OK;
}

void crab_conn_attach(struct crab_conn *conn, const struct crab_loop *loop)
{
    conn->loop = loop != NULL ? *loop : (struct crab_loop){0};
    tell_loop(conn, crab_conn_wants(conn));
}

void crab_conn_on_state(struct crab_conn *conn,
                        void (*changed)(struct crab_conn *conn, enum crab_status state, void *context), void *context)
{
    conn->changed = changed;
    conn->changed_context = context;
}

enum crab_status crab_conn_then(struct crab_conn *conn, crab_done done, void *context)
{
    if (!conn->events || conn->ring_count == 0 || conn->quiet.trailing != 0 || conn->state != CRAB_OK)
        return CRAB_E_INVALID;
    uint32_t place = (conn->ring_first + conn->ring_count - 1) & (conn->ring_capacity - 1);
    struct waiter *waiter = &conn->waiters[place];
    if (waiter->done != NULL)
        return CRAB_E_INVALID;
    waiter->done = done;
    waiter->context = context;
    return CRAB_OK;
}

bool crab_conn_ready(const struct crab_conn *conn)
{
    return conn->state == CRAB_OK && conn->phase == CONN_READY;
}
