/* SPDX-License-Identifier: MIT */
/*
 * Below conn.c: the buffers that all connections of a worker share, buffers of their own for which others may have to give
 * way, and the calls that move bytes. Nothing here knows what the bytes are.
 */
#include "server/conn_impl.h"

#include <errno.h>
#include <sys/socket.h>

#include "server/stats.h"

/* How many connections may have to give way for one buffer: enough for the largest step of a usual frame. */
#define RELIEF_MAX 16

/* ---- what is shared ---- */

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

/* ---- memory ---- */

/* Whether it is worth trying again: somebody gave way. */
static bool relieved(struct conn_io *io, int *tries)
{
    return (*tries)++ < RELIEF_MAX && io->relief.give_up_one(io->relief.context);
}

bool conn_take(struct conn_io *io, size_t size, struct buf *buf)
{
    int tries = 0;
    while (!buf_take(io->pool, size, buf)) {
        if (!relieved(io, &tries))
            return false;
    }
    return true;
}

bool conn_grow(struct conn_io *io, size_t size, struct buf *buf)
{
    int tries = 0;
    while (!buf_grow(io->pool, size, buf)) {
        if (!relieved(io, &tries))
            return false;
    }
    return true;
}

bool conn_park(struct conn_io *io, struct buf *buf)
{
    int tries = 0;
    while (!buf_out_park(&io->out, io->pool, buf)) {
        if (!relieved(io, &tries))
            return false;
    }
    return true;
}

/* ---- moving bytes ---- */

static ssize_t send_once(int fd, const struct buf_out *out)
{
    if (out->ref_first == out->ref_count) /* mostly; the kernel then has no vector to copy */
        return send(fd, out->data + out->start, out->len - out->start, MSG_NOSIGNAL | MSG_DONTWAIT);
    struct iovec vector[BUF_OUT_VECTOR];
    struct msghdr message = {.msg_iov = vector};
    message.msg_iovlen = buf_out_vector(out, vector);
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

enum conn_moved conn_send(struct conn_io *io, struct conn *c, struct buf_out *out)
{
    ssize_t sent;
    do {
        sent = send_once(c->fd, out);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? CONN_AGAIN : CONN_END;
    c->moved_ms = io->now_ms;
    stats_add(&io->counters->bytes_sent, (uint64_t)sent);
    buf_out_sent(out, (size_t)sent, dispatch_releaser(io->dispatch));
    return buf_out_empty(out) ? CONN_DONE : CONN_AGAIN;
}

enum conn_moved conn_receive(struct conn_io *io, struct conn *c, uint8_t *to, size_t room, size_t *len)
{
    ssize_t got;
    do {
        got = recv(c->fd, to, room, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    c->rest = got == (ssize_t)room || got < 0;
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? CONN_AGAIN : CONN_END;
    if (got == 0)
        return CONN_END;
    c->moved_ms = io->now_ms;
    stats_add(&io->counters->bytes_received, (uint64_t)got);
    *len = (size_t)got;
    return CONN_DONE;
}
