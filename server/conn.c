/* SPDX-License-Identifier: MIT */
/*
 * The life of a connection. conn_ready() is the whole path:
 *
 *     flush what waits  ->  receive()  ->  run(): dispatch, hold what is left  ->  flush()
 *
 * Most requests never touch the connection's own buffers: they are received into the worker's, executed from there,
 * and answered from the worker's output. Only what is cut off at the end of a receive, or does not go out at once,
 * is copied to a buffer of the connection's own, and back when its turn comes. A frame that is larger than the
 * worker's buffer is received right into one of its own, which grows with what arrives.
 *
 * conn_receive_ahead() and conn_run_ahead() are the same path in two halves, for connections with little input.
 */
#include "server/conn.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "crabcache/wire.h"
#include "server/log.h"
#include "server/stats.h"

/* Most bytes of a large frame received in one call: it must not keep the others waiting. */
#define FRAME_READ_MAX ((size_t)256 << 10)

/* How often one call fills and sends the output before the others have their turn. */
#define ROUNDS 4U

/* Room for GOAWAY. */
#define FAREWELL_MAX (CRAB_REPLY_HEADER + 2U + CRAB_MAX_ERROR_TEXT)

/* How many connections may have to give way for one buffer: enough for the largest step of a usual frame. */
#define RELIEF_MAX 16

static_assert(sizeof(struct conn) <= 512, "an idle connection costs less than 1 KiB");
static_assert(CONN_AHEAD_BYTES <= UINT16_MAX, "struct conn has 16 bits for places in it");

/* How sending or receiving went. */
enum io {
    IO_DONE,  /* all was sent; something was received */
    IO_AGAIN, /* the kernel's buffer is full; there is nothing to receive */
    IO_MORE,  /* something was received, but nothing to execute yet: part of a large frame, or skipped */
    IO_END    /* the connection is over */
};

/* -------------------------------------------------------------------------------------------- lifetime */

bool conn_io_init(struct conn_io *io)
{
    io->in = (struct buf){NULL, 0};
    io->ahead = (struct buf){NULL, 0};
    io->out_bytes = (struct buf){NULL, 0};
    if (!buf_take(io->pool, CONN_IN_BYTES, &io->in) || !buf_take(io->pool, CONN_AHEAD_BYTES, &io->ahead) ||
        !buf_take(io->pool, DISPATCH_OUT_BYTES, &io->out_bytes)) {
        conn_io_fini(io);
        return false;
    }
    buf_out_init(&io->out, io->out_bytes.data, io->out_bytes.cap, io->refs);
    return true;
}

void conn_io_fini(struct conn_io *io)
{
    buf_give(io->pool, &io->in);
    buf_give(io->pool, &io->ahead);
    buf_give(io->pool, &io->out_bytes);
}

struct conn *conn_create(int fd, struct buf_budget *budget)
{
    if (!buf_budget_charge(budget, sizeof(struct conn), BUF_FOR_CONNECTIONS))
        return NULL;
    struct conn *c = calloc(1, sizeof *c);
    if (c == NULL) {
        buf_budget_release(budget, sizeof *c);
        return NULL;
    }
    c->fd = fd;
    c->state = CONN_OPEN;
    c->small = true;
    return c;
}

static void drop_input(struct conn_io *io, struct conn *c)
{
    buf_give(io->pool, &c->in);
    c->held = 0;
    c->frame = 0;
    c->runnable = false;
}

void conn_break(struct conn_io *io, struct conn *c)
{
    if (c->out.data != NULL)
        buf_out_drop(buf_out_parked(&c->out), dispatch_releaser(io->dispatch));
    buf_give(io->pool, &c->out);
    drop_input(io, c);
    close(c->fd);
    c->state = CONN_GONE;
}

void conn_close(struct conn_io *io, struct conn *c)
{
    if (c->state != CONN_GONE)
        conn_break(io, c);
    buf_budget_release(io->pool->budget, sizeof *c);
    free(c);
}

enum conn_debt conn_debt(const struct conn *c)
{
    if (c->out.data != NULL || c->runnable)
        return CONN_OWES_READING;
    if (c->in.data != NULL)
        return CONN_OWES_INPUT;
    return c->held != 0 || c->skip != 0 ? CONN_OWES_REST : CONN_OWES_NOTHING;
}

size_t conn_held_bytes(const struct conn *c)
{
    return c->in.cap + c->out.cap;
}

size_t conn_unread(const struct conn *c)
{
    int bytes = 0;
    return ioctl(c->fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (size_t)bytes : 0;
}

uint32_t conn_wanted(const struct conn *c)
{
    if (c->state == CONN_DRAINING)
        return EPOLLIN;
    return c->out.data != NULL || c->runnable ? EPOLLOUT : EPOLLIN;
}

/* ---------------------------------------------------------------------------------------------- memory */

/* Whether it is worth trying again: somebody gave way. */
static bool relieved(struct conn_io *io, int *tries)
{
    return (*tries)++ < RELIEF_MAX && io->relief.give_up_one(io->relief.context);
}

static bool take(struct conn_io *io, size_t size, struct buf *buf)
{
    int tries = 0;
    while (!buf_take(io->pool, size, buf)) {
        if (!relieved(io, &tries))
            return false;
    }
    return true;
}

static bool grow(struct conn_io *io, size_t size, struct buf *buf)
{
    int tries = 0;
    while (!buf_grow(io->pool, size, buf)) {
        if (!relieved(io, &tries))
            return false;
    }
    return true;
}

static bool park(struct conn_io *io, struct buf *buf)
{
    int tries = 0;
    while (!buf_out_park(&io->out, io->pool, buf)) {
        if (!relieved(io, &tries))
            return false;
    }
    return true;
}

/* --------------------------------------------------------------------------------------------- sending */

static ssize_t send_once(int fd, const struct buf_out *out)
{
    if (out->ref_first == out->ref_count) /* mostly; the kernel then has no vector to copy */
        return send(fd, out->data + out->start, out->len - out->start, MSG_NOSIGNAL | MSG_DONTWAIT);
    struct iovec vector[BUF_OUT_VECTOR];
    struct msghdr message = {.msg_iov = vector};
    message.msg_iovlen = buf_out_vector(out, vector);
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static enum io send_out(struct conn_io *io, struct conn *c, struct buf_out *out)
{
    ssize_t sent;
    do {
        sent = send_once(c->fd, out);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? IO_AGAIN : IO_END;
    c->moved_ms = io->now_ms;
    stats_add(&io->counters->bytes_sent, (uint64_t)sent);
    buf_out_sent(out, (size_t)sent, dispatch_releaser(io->dispatch));
    return buf_out_empty(out) ? IO_DONE : IO_AGAIN;
}

/* Give a connection up whose output does not fit the budget: its replies can neither be sent nor kept. */
static enum io give_up(struct conn_io *io, const struct conn *c)
{
    stats_add(&io->counters->connections_aborted, 1);
    log_line(io->log, LOG_LEVEL_DEBUG, "connection %d closed: its client reads too slowly, and buffers are used up",
             c->fd);
    return IO_END;
}

/* Send the worker's output, and keep what does not go out. Leaves the worker's output empty unless it is over. */
static enum io flush(struct conn_io *io, struct conn *c)
{
    if (buf_out_empty(&io->out))
        return IO_DONE;
    enum io sent = send_out(io, c, &io->out);
    if (sent != IO_AGAIN)
        return sent;
    stats_add(&io->counters->output_stalls, 1);
    return park(io, &c->out) ? IO_AGAIN : give_up(io, c);
}

static enum io flush_parked(struct conn_io *io, struct conn *c)
{
    enum io sent = send_out(io, c, buf_out_parked(&c->out));
    if (sent == IO_DONE)
        buf_give(io->pool, &c->out);
    return sent;
}

/* ------------------------------------------------------------------------------------------- receiving */

static enum io receive_into(struct conn_io *io, struct conn *c, uint8_t *to, size_t room, size_t *len)
{
    ssize_t got;
    do {
        got = recv(c->fd, to, room, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_END;
    if (got == 0)
        return IO_END;
    c->moved_ms = io->now_ms;
    stats_add(&io->counters->bytes_received, (uint64_t)got);
    *len = (size_t)got;
    return IO_DONE;
}

/* Put what the connection holds before what was received. */
static void take_held(struct conn_io *io, struct conn *c)
{
    memcpy(io->in.data, c->in.data != NULL ? c->in.data : c->head, c->held);
    drop_input(io, c);
}

/* Answer a frame that there is no room for, and skip the rest of it. */
static void refuse(struct conn_io *io, struct conn *c, const uint8_t *bytes, size_t len)
{
    struct dispatch_result result;
    dispatch_refuse(io->dispatch, &c->session, bytes, len, &io->out, &result);
    c->skip = result.skip;
    if (result.next == DISPATCH_CLOSE)
        c->state = CONN_FLUSHING;
}

static enum io receive_frame(struct conn_io *io, struct conn *c)
{
    if (c->held == c->in.cap && !grow(io, c->frame, &c->in)) {
        refuse(io, c, c->in.data, c->held);
        drop_input(io, c);
        return IO_MORE;
    }
    size_t room = (c->frame < c->in.cap ? c->frame : c->in.cap) - c->held;
    size_t len = 0;
    enum io got = receive_into(io, c, c->in.data + c->held, room < FRAME_READ_MAX ? room : FRAME_READ_MAX, &len);
    if (got != IO_DONE)
        return got;
    c->held += len;
    return c->held == c->frame ? IO_DONE : IO_MORE;
}

/* Get input to execute. With IO_DONE it is at *in. */
static enum io receive(struct conn_io *io, struct conn *c, const uint8_t **in, size_t *len)
{
    if (c->frame != 0) {
        enum io got = receive_frame(io, c);
        *in = c->in.data;
        *len = c->held;
        return got;
    }
    size_t held = c->held;
    size_t fresh = 0;
    if (!c->runnable) {
        enum io got = receive_into(io, c, io->in.data + held, io->in.cap - held, &fresh);
        if (got != IO_DONE)
            return got;
        c->small = fresh < CONN_AHEAD_ROOM;
    }
    take_held(io, c);
    size_t skipped = c->skip < fresh ? (size_t)c->skip : fresh;
    c->skip -= skipped;
    stats_add(&io->counters->bytes_skipped, skipped);
    *in = io->in.data + skipped;
    *len = held + fresh - skipped;
    return *len != 0 ? IO_DONE : IO_MORE;
}

/* --------------------------------------------------------------------------------------------- holding */

/* Keep bytes that were not executed. */
static bool hold(struct conn_io *io, struct conn *c, const uint8_t *bytes, size_t len)
{
    uint8_t *to = c->head;
    if (len >= sizeof c->head) {
        if (!take(io, len, &c->in))
            return false;
        to = c->in.data;
    }
    if (len != 0)
        memcpy(to, bytes, len);
    c->held = len;
    return true;
}

/* Keep the start of a frame; if there is no room for it, answer so and skip it. */
static void hold_partial(struct conn_io *io, struct conn *c, const uint8_t *bytes, size_t len, uint64_t need)
{
    bool large = need > CONN_IN_BYTES && len >= sizeof c->head;
    if (hold(io, c, bytes, len))
        c->frame = large ? (size_t)need : 0;
    else
        refuse(io, c, bytes, len);
}

/* ---------------------------------------------------------------------------------------------- ending */

static bool drain(struct conn_io *io, struct conn *c)
{
    size_t len;
    return receive_into(io, c, io->in.data, io->in.cap, &len) != IO_END;
}

/* All was sent: tell the peer that no more comes, and wait for it to do the same. */
static bool end_output(struct conn_io *io, struct conn *c)
{
    c->state = CONN_DRAINING;
    drop_input(io, c);
    return shutdown(c->fd, SHUT_WR) == 0 && drain(io, c);
}

static bool after_flush(struct conn_io *io, struct conn *c, enum io flushed)
{
    if (flushed == IO_END)
        return false;
    return flushed == IO_AGAIN || c->state != CONN_FLUSHING || end_output(io, c);
}

/* A connection is over, and with it what the worker's output holds for it. */
static bool over(struct conn_io *io)
{
    buf_out_drop(&io->out, dispatch_releaser(io->dispatch));
    return false;
}

bool conn_say_goodbye(struct conn_io *io, struct conn *c, uint16_t code)
{
    drop_input(io, c);
    c->state = CONN_FLUSHING;
    dispatch_goaway(io->dispatch, &c->session, code, &io->out);
    return after_flush(io, c, flush(io, c)) || over(io);
}

void conn_give_way(struct conn_io *io, struct conn *c, uint16_t code)
{
    uint8_t bytes[FAREWELL_MAX];
    struct buf_out out;
    buf_out_init(&out, bytes, sizeof bytes, NULL);
    /* Replies that wait would be lost: then the peer must not take what it has no answer to for not executed. [P-3.8.1] */
    if (c->out.data == NULL)
        dispatch_goaway(io->dispatch, &c->session, code, &out);
    bool told = c->out.data == NULL && (buf_out_empty(&out) || send_out(io, c, &out) == IO_DONE);
    if (told && shutdown(c->fd, SHUT_WR) == 0) {
        c->state = CONN_DRAINING;
        drop_input(io, c);
    } else {
        conn_break(io, c);
    }
}

/* ----------------------------------------------------------------------------------------------- serving */

/* Execute input. Returns false if the connection is over. */
static bool run(struct conn_io *io, struct conn *c, const uint8_t *in, size_t len)
{
    size_t at = 0;
    c->moved_ms = io->now_ms;
    for (unsigned round = 1;; round++) {
        struct dispatch_result result;
        dispatch_run(io->dispatch, &c->session, in + at, len - at, &io->out, &result);
        at += result.consumed;
        c->skip = result.skip;
        if (result.next == DISPATCH_CLOSE)
            c->state = CONN_FLUSHING;
        else if (result.next == DISPATCH_INPUT)
            hold_partial(io, c, in + at, len - at, result.need);
        enum io flushed = flush(io, c);
        if (result.next != DISPATCH_OUTPUT && result.next != DISPATCH_TURN)
            return after_flush(io, c, flushed);
        if (flushed == IO_END)
            return false;
        if (flushed == IO_AGAIN || round >= ROUNDS || result.next == DISPATCH_TURN) {
            c->runnable = hold(io, c, in + at, len - at);
            if (c->runnable)
                return true;
            if (flushed == IO_AGAIN)
                return give_up(io, c) != IO_END;
        } /* without room to hold it, what its client would read is executed now rather than lost */
    }
}

static bool go_on(struct conn_io *io, struct conn *c)
{
    if (c->state == CONN_DRAINING)
        return drain(io, c);
    if (c->out.data != NULL) {
        enum io flushed = flush_parked(io, c);
        if (flushed != IO_DONE || c->state == CONN_FLUSHING)
            return after_flush(io, c, flushed);
    }
    if (io->halted)
        return conn_say_goodbye(io, c, CRAB_ERR_SHUTTING_DOWN);

    const uint8_t *in = NULL;
    size_t len = 0;
    switch (receive(io, c, &in, &len)) {
    case IO_AGAIN:
        return !io->stopping || conn_say_goodbye(io, c, CRAB_ERR_SHUTTING_DOWN);
    case IO_MORE:
        return after_flush(io, c, flush(io, c));
    case IO_END:
        return false;
    case IO_DONE:
        break;
    }
    struct buf whole = {NULL, 0};
    if (c->frame != 0) { /* the frame is whole: its buffer is only needed for this call */
        whole = c->in;
        c->in = (struct buf){NULL, 0};
        c->held = 0;
        c->frame = 0;
    }
    bool goes_on = run(io, c, in, len);
    buf_give(io->pool, &whole);
    return goes_on;
}

bool conn_ready(struct conn_io *io, struct conn *c)
{
    return go_on(io, c) || over(io);
}

/* Whether there is nothing to do but to receive the next requests. */
static bool is_plain(const struct conn_io *io, const struct conn *c)
{
    return c->state == CONN_OPEN && c->out.data == NULL && !c->runnable && c->held == 0 && c->skip == 0 &&
           !io->stopping;
}

bool conn_receive_ahead(struct conn_io *io, struct conn *c, uint64_t *fetch)
{
    size_t len;
    uint8_t *to = io->ahead.data + io->ahead_len;
    if (!c->small || !is_plain(io, c) || io->ahead.cap - io->ahead_len < CONN_AHEAD_ROOM ||
        receive_into(io, c, to, CONN_AHEAD_ROOM, &len) != IO_DONE)
        return false;
    c->small = len < CONN_AHEAD_ROOM;
    c->ahead_at = (uint16_t)io->ahead_len;
    c->ahead_len = (uint16_t)len;
    io->ahead_len += len;
    *fetch = dispatch_fetch(io->dispatch, to, len);
    return true;
}

bool conn_run_ahead(struct conn_io *io, struct conn *c)
{
    return run(io, c, io->ahead.data + c->ahead_at, c->ahead_len) || over(io);
}
