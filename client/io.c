/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a connection on their way: sending that reads whenever the socket takes no more, receiving that sends
 * what is queued, and the one place where a connection breaks.
 *
 * Why sending reads: a server stops reading a client that does not take its replies.  A client that only wrote
 * would wait for the server, and the server for the client.  What is read early stays in the input buffer, up to
 * `max_buffered` bytes; beyond it the caller gets CRAB_E_FULL and takes replies.
 *
 * A failed send does not hide what the server had said before: the rest of the stream is read first, because it
 * often holds the error or the GOAWAY that explains the end.
 */
#include "client/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* The input buffer starts with this room and doubles up to READ_MOST while the socket fills it in one go. */
#define READ_LEAST ((size_t)16 * 1024)
#define READ_MOST ((size_t)256 * 1024)
#define READ_CRUMB ((size_t)4 * 1024)

/* How often the last words of a connection are read again after a signal. */
#define INTERRUPTED_MOST 100U

enum crab_status conn_complain(struct crab_conn *conn, enum crab_status status, const char *text)
{
    (void)snprintf(conn->text, sizeof conn->text, "%s", text);
    return status;
}

void conn_log(struct crab_conn *conn, enum crab_log_level level, const char *format, ...)
{
    char line[CRAB_FAILURE_TEXT + 64];
    if (conn->log == NULL)
        return;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    conn->log(conn->log_context, level, line);
}

enum crab_status conn_break(struct crab_conn *conn, enum crab_status status, int system_error,
                            const char *format, ...)
{
    if (conn->state != CRAB_OK)
        return CRAB_E_BROKEN;
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(conn->text, sizeof conn->text, format, arguments);
    va_end(arguments);
    if (system_error != 0 && written >= 0 && (size_t)written < sizeof conn->text) {
        char reason[128];
        (void)snprintf(conn->text + written, sizeof conn->text - (size_t)written, ": %s",
                       strerror_r(system_error, reason, sizeof reason));
    }
    conn->state = status;
    conn->system_error = system_error;
    buffer_drop(&conn->out, buffer_used(&conn->out));
    if (status == CRAB_E_PROTOCOL) /* nothing behind the breach can be trusted */
        buffer_drop(&conn->in, buffer_used(&conn->in));
    if (conn->events)
        event_stop(conn); /* before the number can be another file's */
    (void)close(conn->fd);
    conn->fd = -1;
    conn_log(conn, CRAB_LOG_WARNING, "connection lost: %s", conn->text);
    return status;
}

static enum crab_status break_timeout(struct crab_conn *conn)
{
    return conn_break(conn, CRAB_E_TIMEOUT, 0, "no answer within %u ms", (unsigned)conn->timeout_ms);
}

/* Interrupted is like not ready: whoever waits then looks at the clock, so that even a storm of signals ends. */
static bool is_not_now(int failed)
{
    return failed == EAGAIN || failed == EWOULDBLOCK || failed == EINTR;
}

/* Receive what is there. CRAB_OK: some bytes; CRAB_EMPTY: none now; otherwise the connection is broken. */
static enum crab_status receive_some(struct crab_conn *conn)
{
    struct buffer *in = &conn->in;
    if (buffer_room(in) == 0 && !buffer_reserve(in, &conn->allocator, READ_LEAST))
        return conn_break(conn, CRAB_E_NO_MEMORY, 0, "no memory for %zu bytes of replies", READ_LEAST);
    ssize_t got = recv(conn->fd, in->data + in->end, buffer_room(in), MSG_DONTWAIT);
    if (got > 0) {
        in->end += (size_t)got;
        /* Filled to the brim: there is more to come, so the next read may be larger. Failing to grow is no harm. */
        if (buffer_room(in) == 0 && in->capacity < READ_MOST && buffer_used(in) == in->capacity)
            (void)buffer_reserve(in, &conn->allocator, in->capacity);
        return CRAB_OK;
    }
    if (got == 0) {
        conn->ended = true;
        return conn_break(conn, CRAB_E_CLOSED, 0, "the server closed the connection");
    }
    if (is_not_now(errno))
        return CRAB_EMPTY;
    if (errno == ECONNRESET || errno == EPIPE)
        return conn_break(conn, CRAB_E_CLOSED, errno, "the connection was reset");
    return conn_break(conn, CRAB_E_SYSTEM, errno, "receiving failed");
}

/* Sending failed: keep what the server said before it went, then break. */
static enum crab_status send_failed(struct crab_conn *conn, int failed)
{
    if (failed != EPIPE && failed != ECONNRESET)
        return conn_break(conn, CRAB_E_SYSTEM, failed, "sending failed");
    struct buffer *in = &conn->in;
    for (unsigned interrupted = 0; buffer_used(in) < conn->max_buffered && interrupted < INTERRUPTED_MOST;) {
        if (buffer_room(in) == 0 && !buffer_reserve(in, &conn->allocator, READ_LEAST))
            break;
        ssize_t got = recv(conn->fd, in->data + in->end, buffer_room(in), MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EINTR))
            break;
        if (got > 0)
            in->end += (size_t)got;
        else
            interrupted++;
    }
    return conn_break(conn, CRAB_E_CLOSED, failed, "the connection was closed while sending");
}

/* One sendmsg(). CRAB_OK: some bytes went; CRAB_EMPTY: the socket takes none now; otherwise broken. */
static enum crab_status send_some(struct crab_conn *conn, struct crab_slice *tail)
{
    struct buffer *out = &conn->out;
    size_t queued = buffer_used(out);
    struct iovec parts[2];
    size_t count = 0;
    if (queued != 0)
        parts[count++] = (struct iovec){.iov_base = out->data + out->start, .iov_len = queued};
    if (tail->len != 0) /* iov_base wants a pointer to non-const; sendmsg() only reads */
        parts[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)tail->data, .iov_len = tail->len};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (is_not_now(errno))
            return CRAB_EMPTY;
        return send_failed(conn, errno);
    }
    size_t bytes = (size_t)sent;
    conn->sent_bytes += bytes;
    size_t from_out = bytes < queued ? bytes : queued;
    buffer_drop(out, from_out);
    tail->data = tail->len != 0 ? tail->data + (bytes - from_out) : tail->data;
    tail->len -= bytes - from_out;
    return CRAB_OK;
}

/* The socket is full: wait until it takes more, and read meanwhile. */
static enum crab_status wait_to_send(struct crab_conn *conn, struct net_deadline *deadline)
{
    enum crab_status status = CRAB_OK;
    if (buffer_used(&conn->in) >= conn->max_buffered) {
        status = conn_take_pushes(conn);
        if (status != CRAB_OK)
            return status;
        /* Without a request that is owed a reply there is nothing to take: what is here is the start of a push. */
        if (buffer_used(&conn->in) >= conn->max_buffered && conn->ring_count != 0)
            return CRAB_E_FULL;
    }
    short revents = 0;
    status = net_wait(conn->fd, POLLIN | POLLOUT, deadline, &revents);
    if (status == CRAB_E_TIMEOUT)
        return break_timeout(conn);
    if (status != CRAB_OK)
        return conn_break(conn, CRAB_E_SYSTEM, errno, "waiting for the socket failed");
    if ((revents & ~POLLOUT) == 0)
        return CRAB_OK;
    status = receive_some(conn);
    return status == CRAB_EMPTY ? CRAB_OK : status;
}

enum crab_status conn_send(struct crab_conn *conn, struct crab_slice *tail, struct net_deadline *deadline)
{
    while (buffer_used(&conn->out) + tail->len != 0) {
        enum crab_status status = send_some(conn, tail);
        if (status == CRAB_EMPTY) {
            if (deadline == NULL)
                return CRAB_EMPTY;
            status = wait_to_send(conn, deadline);
        }
        if (status != CRAB_OK)
            return status;
    }
    return CRAB_OK;
}

/*
 * Make room for what is missing of `wanted` bytes, but believe a peer's length only as far as bytes came: the buffer at
 * most doubles with each step. Never so little room that reading would go in crumbs.
 */
static bool make_room(struct crab_conn *conn, uint64_t wanted)
{
    struct buffer *in = &conn->in;
    size_t used = buffer_used(in);
    uint64_t missing = wanted > used ? wanted - used : 1;
    size_t step = used < READ_LEAST ? READ_LEAST : used;
    size_t room = missing < step ? (size_t)missing : step;
    return buffer_reserve(in, &conn->allocator, room < READ_CRUMB ? READ_CRUMB : room);
}

static enum crab_status no_room(struct crab_conn *conn, uint64_t wanted)
{
    return conn_break(conn, CRAB_E_NO_MEMORY, 0, "no memory for a reply of %llu bytes", (unsigned long long)wanted);
}

enum crab_status conn_receive(struct crab_conn *conn, uint64_t wanted)
{
    return make_room(conn, wanted) ? receive_some(conn) : no_room(conn, wanted);
}

enum crab_status conn_exchange(struct crab_conn *conn, uint64_t wanted, struct net_deadline *deadline)
{
    struct crab_slice nothing = {0};
    enum crab_status status = conn_send(conn, &nothing, NULL);
    if (status != CRAB_OK && status != CRAB_EMPTY)
        return status;
    if (!make_room(conn, wanted))
        return no_room(conn, wanted);
    short events = buffer_used(&conn->out) != 0 ? POLLIN | POLLOUT : POLLIN;
    short revents = 0;
    status = net_wait(conn->fd, events, deadline, &revents);
    if (status == CRAB_E_TIMEOUT)
        return break_timeout(conn);
    if (status != CRAB_OK)
        return conn_break(conn, CRAB_E_SYSTEM, errno, "waiting for the socket failed");
    if ((revents & ~POLLOUT) == 0)
        return CRAB_OK;
    status = receive_some(conn);
    return status == CRAB_EMPTY ? CRAB_OK : status;
}
