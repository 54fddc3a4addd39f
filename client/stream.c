/* SPDX-License-Identifier: MIT */
/*
 * Values in pieces.
 *
 * Reading: conn_next() asks stream_begin() whenever the frame at the front is not whole.  If its request has a sink and the
 * head of a VALUE or META is here, the head leaves the buffer, and from then on stream_pour() gives what comes to the
 * sink (`pour.active`), until the reply, without its bytes, goes the way of all replies.
 *
 * Writing: the head of a PUT is queued with the length of the whole; `put_left` bytes are owed, and nothing else can be
 * queued before they have followed.
 */
#include "client/internal.h"

#include <stdio.h>
#include <string.h>

/* What the buffer is asked to hold of a value that goes to a sink. */
#define POUR_BYTES ((size_t)64 * 1024)

/* ---- reading */

static struct crab_slice *value_of(union crab_reply *reply)
{
    if (reply->head.op == CRAB_REP_VALUE)
        return &reply->value.value;
    return reply->head.op == CRAB_REP_META ? &reply->meta.value : NULL;
}

/* The head of a VALUE or META, maybe in a TAGGED: its bytes, or 0 if it is something else or not all here. */
static size_t read_head(const uint8_t *at, size_t used, union crab_reply *reply)
{
    size_t skip = used != 0 && at[0] == CRAB_REP_TAGGED ? CRAB_TAGGED_HEAD : 0;
    if (used < skip + CRAB_REPLY_HEADER)
        return 0;
    const uint8_t *inner = at + skip;
    uint8_t op = inner[0];
    uint32_t len = crab_load_u32(inner + 1);
    if ((op != CRAB_REP_VALUE && op != CRAB_REP_META) || len < crab_reply_fixed(op) ||
        used < skip + CRAB_REPLY_HEADER + crab_reply_fixed(op))
        return 0;
    if (skip != 0 && (uint64_t)crab_load_u32(at + 1) != (uint64_t)4 + CRAB_REPLY_HEADER + len)
        return 0; /* malformed, as the codec will say when all of it is here */
    reply->head.op = op;
    reply->head.tagged = skip != 0;
    reply->head.tag = skip != 0 ? crab_load_u32(at + CRAB_REPLY_HEADER) : 0;
    crab_reply_fields(op, inner + CRAB_REPLY_HEADER, len, reply);
    value_of(reply)->data = NULL; /* only its length is known */
    return skip + CRAB_REPLY_HEADER + crab_reply_fixed(op);
}

enum crab_status stream_begin(struct crab_conn *conn)
{
    struct buffer *in = &conn->in;
    struct waiter *front = conn_front(conn);
    if (front == NULL || front->sink == NULL)
        return CRAB_EMPTY;
    union crab_reply reply;
    size_t head = read_head(buffer_front(in), buffer_used(in), &reply);
    if (head == 0)
        return CRAB_EMPTY;
    enum crab_status status = conn_check_answer(conn, &reply);
    if (status != CRAB_OK)
        return status;
    buffer_drop(in, head);
    conn->pour = (struct pour){.active = true, .reply = reply, .whole = value_of(&reply)->len};
    return CRAB_OK;
}

bool stream_pour(struct crab_conn *conn, uint64_t *wanted)
{
    struct pour *pour = &conn->pour;
    struct waiter *front = conn_front(conn);
    size_t left = pour->whole - pour->given;
    size_t used = buffer_used(&conn->in);
    size_t len = left < used ? left : used;
    if (len != 0) {
        struct crab_result head;
        struct crab_slice piece = slice_of(buffer_front(&conn->in), len);
        reply_to_result(&pour->reply, &head);
        head.request = conn->ring[conn->ring_first].op;
        head.tag = conn->ring[conn->ring_first].tag;
        front->sink(front->sink_context, &head, pour->given, piece);
        buffer_drop(&conn->in, len);
        pour->given += len;
        left -= len;
    }
    *wanted = left < POUR_BYTES ? left : POUR_BYTES;
    pour->active = left != 0;
    return left == 0;
}

void stream_whole(const struct waiter *waiter, struct crab_result *result)
{
    struct crab_slice value = result->value;
    if (result->reply != CRAB_REP_VALUE && result->reply != CRAB_REP_META)
        return;
    result->value.data = NULL;
    if (value.data != NULL && value.len != 0)
        waiter->sink(waiter->sink_context, result, 0, value);
}

enum crab_status crab_conn_into(struct crab_conn *conn, crab_sink sink, void *context)
{
    if (conn->ring_count == 0 || conn->quiet.trailing != 0 || conn->state != CRAB_OK)
        return CRAB_E_INVALID;
    if (conn->waiters == NULL) {
        size_t bytes = conn->ring_capacity * sizeof *conn->waiters;
        conn->waiters = conn->allocator.resize(conn->allocator.context, NULL, bytes);
        if (conn->waiters == NULL)
            return conn_complain(conn, CRAB_E_NO_MEMORY, crab_status_text(CRAB_E_NO_MEMORY));
        for (uint32_t i = 0; i < conn->ring_capacity; i++)
            conn->waiters[i] = (struct waiter){.end_ns = UINT64_MAX};
    }
    uint32_t place = (conn->ring_first + conn->ring_count - 1) & (conn->ring_capacity - 1);
    if (conn->ring[place].op != CRAB_OP_GET || conn->waiters[place].sink != NULL)
        return CRAB_E_INVALID;
    conn->waiters[place].sink = sink;
    conn->waiters[place].sink_context = context;
    return CRAB_OK;
}

enum crab_status crab_conn_get_into(struct crab_conn *conn, const void *key, size_t key_len, crab_sink sink,
                                    void *context, size_t *value_len)
{
    struct crab_result result;
    enum crab_status status = conn_may_call(conn);
    if (status != CRAB_OK)
        return status;
    struct net_deadline deadline = conn_deadline(conn);
    union crab_request request;
    request_get(&request, slice_of(key, key_len), 0, false);
    status = conn_queue(conn, &request, NULL, &deadline);
    if (status != CRAB_OK)
        return status;
    enum crab_status sunk = crab_conn_into(conn, sink, context);
    status = conn_next(conn, &result, &deadline);
    if (status != CRAB_OK || result.status != CRAB_OK)
        return status != CRAB_OK ? status : result.status;
    if (sunk != CRAB_OK && result.value.len != 0) /* no memory for the sink, but for the value: then it comes in one piece */
        sink(context, &result, 0, result.value);
    if (value_len != NULL)
        *value_len = result.value.len;
    return CRAB_OK;
}

/* ---- writing */

static enum crab_status begin(struct crab_conn *conn, const void *key, size_t key_len, size_t value_len,
                              const struct crab_put_options *options, bool want_version,
                              struct net_deadline *deadline)
{
    union crab_request request;
    if (!request_put(&request, slice_of(key, key_len), slice_of(NULL, value_len), options))
        return conn_complain(conn, CRAB_E_INVALID, "unknown condition of a put");
    if (want_version)
        request.put.flags |= CRAB_PUT_WANT_VERSION;
    return conn_queue_head(conn, &request, deadline);
}

enum crab_status crab_conn_put_begin(struct crab_conn *conn, const void *key, size_t key_len, size_t value_len,
                                     const struct crab_put_options *options)
{
    struct net_deadline deadline = conn_deadline(conn);
    return begin(conn, key, key_len, value_len, options, false, &deadline);
}

static enum crab_status copy_piece(struct crab_conn *conn, struct crab_slice piece)
{
    if (conn->events && buffer_used(&conn->out) == 0)
        conn->send_end_ns = event_deadline(conn);
    if (!buffer_reserve(&conn->out, &conn->allocator, piece.len))
        return conn_complain(conn, CRAB_E_NO_MEMORY, "no memory to queue a piece of a value");
    crab_put_slice(conn->out.data + conn->out.end, piece);
    conn->out.end += piece.len;
    return CRAB_OK;
}

/* In an event loop: what fits into the queue. */
static enum crab_status queue_piece(struct crab_conn *conn, struct crab_slice *piece)
{
    size_t used = buffer_used(&conn->out);
    size_t room = used < CONN_SEND_AT ? CONN_SEND_AT - used : 0;
    struct crab_slice part = slice_of(piece->data, piece->len < room ? piece->len : room);
    if (part.len == 0)
        return conn_complain(conn, CRAB_E_FULL, "as many bytes are queued as may be");
    enum crab_status status = copy_piece(conn, part);
    if (status != CRAB_OK)
        return status;
    piece->data += part.len;
    piece->len -= part.len;
    event_update(conn);
    return piece->len == 0 ? CRAB_OK : conn_complain(conn, CRAB_E_FULL, "as many bytes are queued as may be");
}

static enum crab_status put_piece(struct crab_conn *conn, struct crab_slice *piece, struct net_deadline *deadline)
{
    if (conn->state != CRAB_OK)
        return CRAB_E_BROKEN;
    if (piece->len > conn->put_left)
        return conn_complain(conn, CRAB_E_INVALID, "the value has fewer bytes than are given");
    if (piece->len == 0)
        return CRAB_OK;
    size_t before = piece->len;
    enum crab_status status;
    bool small = piece->len < CONN_COPY_LIMIT && buffer_used(&conn->out) + piece->len <= CONN_SEND_AT;
    if (conn->events) {
        status = queue_piece(conn, piece);
    } else if (small || buffer_holds(&conn->in, *piece)) { /* our own input moves while we send */
        status = copy_piece(conn, *piece);
        piece->len = status == CRAB_OK ? 0 : piece->len;
    } else {
        status = conn_send(conn, piece, deadline);
        if (status == CRAB_E_FULL)
            (void)conn_complain(conn, status, "as many replies are waiting as may be kept");
    }
    conn->put_left -= before - piece->len;
    return status;
}

enum crab_status crab_conn_put_piece(struct crab_conn *conn, const void *data, size_t len, size_t *taken)
{
    struct net_deadline deadline = conn_deadline(conn);
    struct crab_slice piece = slice_of(data, len);
    enum crab_status status = put_piece(conn, &piece, &deadline);
    *taken = len - piece.len;
    return status;
}

size_t crab_conn_put_left(const struct crab_conn *conn)
{
    return conn->put_left;
}

enum crab_status crab_conn_put_parts(struct crab_conn *conn, const void *key, size_t key_len,
                                     const struct crab_slice *parts, size_t count,
                                     const struct crab_put_options *options, uint64_t *version)
{
    struct crab_result result;
    size_t whole = 0;
    enum crab_status status = conn_may_call(conn);
    for (size_t i = 0; i < count && status == CRAB_OK; i++) {
        whole += parts[i].len;
        if (whole < parts[i].len || whole > UINT32_MAX)
            status = conn_complain(conn, CRAB_E_INVALID, "the parts are longer than a value can be");
    }
    struct net_deadline deadline = conn_deadline(conn);
    if (status == CRAB_OK)
        status = begin(conn, key, key_len, whole, options, version != NULL, &deadline);
    if (status != CRAB_OK)
        return status;
    for (size_t i = 0; i < count && status == CRAB_OK; i++) {
        struct crab_slice part = parts[i];
        status = put_piece(conn, &part, &deadline);
    }
    if (status == CRAB_E_NO_MEMORY) /* a part of it was sent: there is no way back */
        return conn_break(conn, status, 0, "no memory for the rest of a value of which a part was sent");
    if (status != CRAB_OK && (status != CRAB_E_CLOSED || conn->ring_count == 0))
        return status;
    enum crab_status answered = conn_next(conn, &result, &deadline);
    if (answered != CRAB_OK)
        return status != CRAB_OK ? status : answered;
    if (version != NULL && (result.status == CRAB_OK || result.status == CRAB_EXISTS))
        *version = result.version;
    return result.status;
}
