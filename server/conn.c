/* SPDX-License-Identifier: MIT */
/*
 * The life of a connection. conn_ready() is the whole path:
 *
 *     flush what waits  ->  receive()  ->  run(): dispatch, hold what is left  ->  flush()
 *
 * Most requests never touch the connection's own buffers: they are received into the worker's, executed from there,
 * and answered from the worker's output. Only what is cut off at the end of a receive, or does not go out at once,
 * is copied to a buffer of the connection's own, and back when its turn comes. A frame that is larger than the
 * worker's buffer is received right into one of its own, which grows with what arrives; but the value of a PUT goes right
 * into the store as soon as enough of it came. After such a frame only the beginning of the next one is received into
 * the worker's buffer, since that is copied (`bite`), and the call goes on until its share of the time is used up;
 * then one send answers all of these frames.
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
#include "server/conn_impl.h"
#include "server/log.h"
#include "server/stats.h"

/* Most bytes of large frames received in one call: they must not keep the others waiting. */
#define TURN_BYTES ((size_t)256 << 10)

/* After a large frame so much more than what the next one of its size is streamed from is received first. */
#define BITE_EXTRA 256U

/* How often one call fills and sends the output before the others have their turn. */
#define ROUNDS 4U

/* Longer inputs are not announced: with so many requests the wait for the first ones' memory is a small part. */
#define ANNOUNCE_MAX 2048U

/* Room for GOAWAY. */
#define FAREWELL_MAX (CRAB_REPLY_HEADER + 2U + CRAB_MAX_ERROR_TEXT)

static_assert(sizeof(struct conn) <= 512, "an idle connection costs less than 1 KiB");
static_assert(CONN_AHEAD_BYTES <= UINT16_MAX, "struct conn has 16 bits for places in it");

/* -------------------------------------------------------------------------------------------- lifetime */

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
    if (c->stream.value != NULL)
        dispatch_stream_drop(io->dispatch, &c->stream);
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
    return c->out.data != NULL || c->runnable ? EPOLLOUT : EPOLLIN | EPOLLRDHUP | EPOLLET;
}

/* --------------------------------------------------------------------------------------------- sending */

/* Give a connection up whose output does not fit the budget: its replies can neither be sent nor kept. */
static enum conn_moved give_up(struct conn_io *io, const struct conn *c)
{
    stats_add(&io->counters->connections_aborted, 1);
    log_line(io->log, LOG_LEVEL_DEBUG, "connection %d closed: its client reads too slowly, and buffers are used up",
             c->fd);
    return CONN_END;
}

/* Send the worker's output, and keep what does not go out. Leaves the worker's output empty unless it is over. */
static enum conn_moved flush(struct conn_io *io, struct conn *c)
{
    if (buf_out_empty(&io->out))
        return CONN_DONE;
    enum conn_moved sent = conn_send(io, c, &io->out);
    if (sent != CONN_AGAIN)
        return sent;
    stats_add(&io->counters->output_stalls, 1);
    return conn_park(io, &c->out) ? CONN_AGAIN : give_up(io, c);
}

static enum conn_moved flush_parked(struct conn_io *io, struct conn *c)
{
    enum conn_moved sent = conn_send(io, c, buf_out_parked(&c->out));
    if (sent == CONN_DONE)
        buf_give(io->pool, &c->out);
    return sent;
}

/* ------------------------------------------------------------------------------------------- receiving */

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

/* Let the value of a PUT go right into the store, once enough of it came to be taken seriously. */
static void try_stream(struct conn_io *io, struct conn *c)
{
    struct buf head;
    if (c->held < c->frame / CONN_STREAM_SHARE ||
        !dispatch_stream_begin(io->dispatch, c->in.data, c->held, c->frame, &c->stream))
        return;
    if (buf_take(io->pool, c->stream.head_len, &head)) { /* if not, what it has does as well */
        memcpy(head.data, c->in.data, c->stream.head_len);
        buf_give(io->pool, &c->in);
        c->in = head;
    }
}

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Where the next bytes of a large frame go, and how many. Returns false if there is no room. */
static bool room_in_frame(struct conn_io *io, struct conn *c, uint8_t **to, size_t *room)
{
    if (c->stream.value == NULL && c->held == c->in.cap) {
        try_stream(io, c);
        if (c->stream.value == NULL && !conn_grow(io, c->frame, &c->in))
            return false;
    }
    if (c->stream.value != NULL) {
        *to = c->stream.value + (c->held - c->stream.head_len);
        *room = c->frame - c->held;
    } else {
        *to = c->in.data + c->held;
        *room = (c->frame < c->in.cap ? c->frame : c->in.cap) - c->held;
    }
    return true;
}

static enum conn_moved receive_frame(struct conn_io *io, struct conn *c, size_t *left)
{
    uint8_t *to;
    size_t room, len = 0;
    if (!room_in_frame(io, c, &to, &room)) {
        refuse(io, c, c->in.data, c->held);
        drop_input(io, c);
        c->rest = true; /* nothing was received */
        return CONN_MORE;
    }
    enum conn_moved got = conn_receive(io, c, to, least_of(room, *left), &len);
    if (got != CONN_DONE)
        return got;
    c->held += len;
    *left -= len;
    return c->held == c->frame ? CONN_DONE : CONN_MORE;
}

/* Get input to execute, no more than *left bytes of it. With CONN_DONE it is at *in. */
static enum conn_moved receive(struct conn_io *io, struct conn *c, size_t *left, const uint8_t **in, size_t *len)
{
    if (c->frame != 0) {
        enum conn_moved got = receive_frame(io, c, left);
        *in = c->in.data;
        *len = c->held;
        return got;
    }
    size_t held = c->held;
    size_t fresh = 0;
    if (!c->runnable) {
        size_t room = least_of(io->in.cap - held, c->bite != 0 ? c->bite : *left);
        enum conn_moved got = conn_receive(io, c, io->in.data + held, least_of(room, *left), &fresh);
        if (got != CONN_DONE)
            return got;
        c->small = fresh < CONN_AHEAD_ROOM && c->bite == 0;
        c->bite = 0;
        *left -= fresh;
    }
    take_held(io, c);
    size_t skipped = c->skip < fresh ? (size_t)c->skip : fresh;
    c->skip -= skipped;
    stats_add(&io->counters->bytes_skipped, skipped);
    *in = io->in.data + skipped;
    *len = held + fresh - skipped;
    return *len != 0 ? CONN_DONE : CONN_MORE;
}

/* --------------------------------------------------------------------------------------------- holding */

/* Keep bytes that were not executed. */
static bool hold(struct conn_io *io, struct conn *c, const uint8_t *bytes, size_t len)
{
    uint8_t *to = c->head;
    if (len >= sizeof c->head) {
        if (!conn_take(io, len, &c->in))
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
    if (!hold(io, c, bytes, len)) {
        refuse(io, c, bytes, len);
        return;
    }
    c->frame = large ? (size_t)need : 0;
    c->frame_from = len;
    c->frame_ms = io->now_ms;
    if (large)
        try_stream(io, c);
}

/* ---------------------------------------------------------------------------------------------- ending */

static bool drain(struct conn_io *io, struct conn *c)
{
    size_t len;
    return conn_receive(io, c, io->in.data, io->in.cap, &len) != CONN_END;
}

/* All was sent: tell the peer that no more comes, and wait for it to do the same. */
static bool end_output(struct conn_io *io, struct conn *c)
{
    c->state = CONN_DRAINING;
    drop_input(io, c);
    return shutdown(c->fd, SHUT_WR) == 0 && drain(io, c);
}

static bool after_flush(struct conn_io *io, struct conn *c, enum conn_moved flushed)
{
    if (flushed == CONN_END)
        return false;
    return flushed == CONN_AGAIN || c->state != CONN_FLUSHING || end_output(io, c);
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
    bool told = c->out.data == NULL && (buf_out_empty(&out) || conn_send(io, c, &out) == CONN_DONE);
    if (told && shutdown(c->fd, SHUT_WR) == 0) {
        c->state = CONN_DRAINING;
        drop_input(io, c);
    } else {
        conn_break(io, c);
    }
}

/* ----------------------------------------------------------------------------------------------- serving */

/* Execute input; the last of its output may still have to be sent. Returns false if the connection is over. */
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
        if (result.next != DISPATCH_OUTPUT && result.next != DISPATCH_TURN)
            return true;
        enum conn_moved flushed = flush(io, c);
        if (flushed == CONN_END)
            return false;
        if (flushed == CONN_AGAIN || round >= ROUNDS || result.next == DISPATCH_TURN) {
            c->runnable = hold(io, c, in + at, len - at);
            if (c->runnable)
                return true;
            if (flushed == CONN_AGAIN)
                return give_up(io, c) != CONN_END;
        } /* without room to hold it, what its client would read is executed now rather than lost */
    }
}

/* Execute a large frame, which is whole, as run() does: its buffer is only needed for this call. */
static bool run_frame(struct conn_io *io, struct conn *c)
{
    struct buf whole = c->in;
    size_t len = c->held;
    bool goes_on = true;
    c->bite = (uint32_t)least_of(c->frame / CONN_STREAM_SHARE + BITE_EXTRA, CONN_IN_BYTES);
    c->in = (struct buf){NULL, 0};
    c->held = 0;
    c->frame = 0;
    if (c->stream.value != NULL)
        dispatch_stream_end(io->dispatch, &c->session, whole.data, &c->stream, &io->out);
    else
        goes_on = run(io, c, whole.data, len);
    buf_give(io->pool, &whole);
    return goes_on;
}

/* Whether more of a row of large frames may be received in this call: there is more, and its answers have room. */
static bool goes_on_at_once(const struct conn_io *io, const struct conn *c, size_t left)
{
    return c->rest && left != 0 && (c->frame != 0 || c->bite != 0) && c->state == CONN_OPEN && c->out.data == NULL &&
           !c->runnable && dispatch_has_room(&io->out);
}

static bool go_on(struct conn_io *io, struct conn *c)
{
    if (c->state == CONN_DRAINING)
        return drain(io, c);
    if (c->out.data != NULL) {
        enum conn_moved flushed = flush_parked(io, c);
        if (flushed != CONN_DONE || c->state == CONN_FLUSHING)
            return after_flush(io, c, flushed);
    }
    if (io->halted)
        return conn_say_goodbye(io, c, CRAB_ERR_SHUTTING_DOWN);

    size_t left = TURN_BYTES;
    enum conn_moved got;
    do {
        const uint8_t *in = NULL;
        size_t len = 0;
        got = receive(io, c, &left, &in, &len);
        if (got == CONN_DONE && !(c->frame != 0 ? run_frame(io, c) : run(io, c, in, len)))
            return false;
    } while ((got == CONN_DONE || got == CONN_MORE) && goes_on_at_once(io, c, left));
    if (got == CONN_END && buf_out_empty(&io->out))
        return false;
    if (got == CONN_AGAIN && buf_out_empty(&io->out))
        return !io->stopping || conn_say_goodbye(io, c, CRAB_ERR_SHUTTING_DOWN);
    if (got == CONN_END)
        c->rest = true; /* what was executed is answered first */
    return after_flush(io, c, flush(io, c));
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

bool conn_ahead_is_full(const struct conn_io *io)
{
    return io->ahead.cap - io->ahead_len < CONN_AHEAD_ROOM;
}

bool conn_receive_ahead(struct conn_io *io, struct conn *c)
{
    size_t len;
    uint8_t *to = io->ahead.data + io->ahead_len;
    if (!c->small || !is_plain(io, c) || conn_receive(io, c, to, CONN_AHEAD_ROOM, &len) != CONN_DONE)
        return false;
    c->small = len < CONN_AHEAD_ROOM;
    c->ahead_at = (uint16_t)io->ahead_len;
    c->ahead_len = (uint16_t)len;
    io->ahead_len += len;
    dispatch_fetch(io->dispatch, to, len);
    return true;
}

bool conn_run_ahead(struct conn_io *io, struct conn *c, const struct conn *next)
{
    if (next != NULL && next->ahead_len <= ANNOUNCE_MAX)
        dispatch_announce(io->dispatch, io->ahead.data + next->ahead_at, next->ahead_len);
    return (run(io, c, io->ahead.data + c->ahead_at, c->ahead_len) && after_flush(io, c, flush(io, c))) || over(io);
}

void conn_end_ahead(struct conn_io *io)
{
    io->ahead_len = 0;
    dispatch_announce(io->dispatch, NULL, 0);
}
