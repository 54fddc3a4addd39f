/* SPDX-License-Identifier: MIT */
/*
 * The pipeline of a connection: requests go into the output buffer and the ring, replies come off the input buffer
 * and meet the oldest request of the ring.  Both blocking calls (call.c) and queued ones (queue.c) come through here.
 */
#include "client/internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define RING_LEAST 64U

/* In an event loop requests that are queued before WELCOME has named the server's bound. */
#define EARLY_IN_FLIGHT 64U

/* ---- queueing */

static bool ring_grow(struct crab_conn *conn)
{
    uint32_t capacity = conn->ring_capacity == 0 ? RING_LEAST : conn->ring_capacity * 2;
    struct crab_allocator *allocator = &conn->allocator;
    if (conn->events || conn->waiters != NULL) { /* first, so that they are never fewer than the ring's places */
        struct waiter *waiters = allocator->resize(allocator->context, conn->waiters, capacity * sizeof *waiters);
        if (waiters == NULL)
            return false;
        for (uint32_t i = 0; i < conn->ring_first; i++)
            waiters[conn->ring_capacity + i] = waiters[i];
        conn->waiters = waiters;
    }
    struct in_flight *ring = allocator->resize(allocator->context, conn->ring, capacity * sizeof *ring);
    if (ring == NULL)
        return false;
    /* What had wrapped around moves behind the old end, where the ring now goes on. */
    for (uint32_t i = 0; i < conn->ring_first; i++)
        ring[conn->ring_capacity + i] = ring[i];
    conn->ring = ring;
    conn->ring_capacity = capacity;
    return true;
}

static void ring_push(struct crab_conn *conn, const struct crab_req_head *head)
{
    uint32_t place = (conn->ring_first + conn->ring_count) & (conn->ring_capacity - 1);
    conn->ring[place] = (struct in_flight){
        .end = conn->queued_bytes,
        .tag = head->tag,
        .quiet_before = conn->quiet.trailing,
        .op = head->op,
        .flags = head->flags,
    };
    if (conn->waiters != NULL)
        conn->waiters[place] = (struct waiter){.end_ns = conn->events ? event_deadline(conn) : UINT64_MAX};
    conn->ring_count++;
    conn->quiet.trailing = 0;
}

static void note_quiet(struct crab_conn *conn)
{
    conn->quiet.in_flight++;
    conn->quiet.trailing++;
    if (!conn->quiet.open)
        conn->quiet.first_end = conn->queued_bytes;
    conn->quiet.open = true;
    conn->quiet.last_end = conn->queued_bytes;
}

/* Choose flags and tag. */
static enum crab_status prepare(struct crab_conn *conn, struct crab_req_head *head)
{
    if ((head->flags & CRAB_FLAG_QUIET) != 0) {
        if (!conn->welcomed || (conn->info.features & CRAB_FEATURE_PUSH) == 0)
            return conn_complain(conn, CRAB_E_INVALID, "a quiet request needs the feature PUSH, and so HELLO");
        if (!crab_op_is_write(head->op))
            return conn_complain(conn, CRAB_E_INVALID, "only a write can be quiet");
        head->flags |= CRAB_FLAG_TAG;
    }
    if (conn->check_tags)
        head->flags |= CRAB_FLAG_TAG;
    head->tag = 0;
    if ((head->flags & CRAB_FLAG_TAG) != 0)
        head->tag = conn->last_tag == UINT32_MAX ? 1 : conn->last_tag + 1; /* never 0, which means none */
    return CRAB_OK;
}

/* Room in the ring and in the output buffer, which may mean to send first. */
static enum crab_status make_way(struct crab_conn *conn, const struct crab_req_head *head, size_t bytes, bool may_wait,
                                 struct net_deadline *deadline)
{
    bool answered = (head->flags & CRAB_FLAG_QUIET) == 0;
    /* The last place is for a request with a reply: nothing else ends quiet ones [P-6.11.2]. */
    uint32_t limit = conn->phase == CONN_READY || conn->max_in_flight < EARLY_IN_FLIGHT + conn->greetings
                         ? conn->max_in_flight
                         : EARLY_IN_FLIGHT + conn->greetings;
    if (conn->ring_count + conn->quiet.in_flight >= limit - (answered ? 0 : 1))
        return conn_complain(conn, CRAB_E_FULL, "as many requests are unanswered as may be");
    if (answered && conn->ring_count == conn->ring_capacity && !ring_grow(conn))
        return conn_complain(conn, CRAB_E_NO_MEMORY, "no memory for another request");
    bool crowded = buffer_used(&conn->out) + bytes > CONN_QUEUE_LIMIT;
    if (conn->events && crowded && buffer_used(&conn->out) != 0)
        return conn_complain(conn, CRAB_E_FULL, "as many bytes are queued as may be");
    if (!conn->events && may_wait && crowded) {
        struct crab_slice nothing = {0};
        enum crab_status status = conn_send(conn, &nothing, deadline);
        if (status == CRAB_E_FULL)
            return conn_complain(conn, status, "as many replies are waiting as may be kept");
        if (status != CRAB_OK)
            return status;
    }
    if (!buffer_reserve(&conn->out, &conn->allocator, bytes))
        return conn_complain(conn, CRAB_E_NO_MEMORY, "no memory to queue a request");
    return CRAB_OK;
}

/* Send the queue and a value from where it lies. What can't go now, because replies must be taken first, is copied. */
static enum crab_status send_value(struct crab_conn *conn, struct crab_slice value, struct net_deadline *deadline)
{
    enum crab_status status = conn_send(conn, &value, deadline);
    if (status != CRAB_E_FULL)
        return status;
    if (!buffer_reserve(&conn->out, &conn->allocator, value.len))
        return conn_break(conn, CRAB_E_NO_MEMORY, 0, "no memory for the rest of a value of which a part was sent");
    crab_put_slice(conn->out.data + conn->out.end, value);
    conn->out.end += value.len;
    return CRAB_OK;
}

/* How the value of a request goes out. */
enum value_way { VALUE_COPIED, VALUE_BORROWED, VALUE_FOLLOWS };

static enum value_way way_of(const struct crab_conn *conn, struct crab_slice value, bool own)
{
    return value.len >= CONN_COPY_LIMIT && !own && !conn->events ? VALUE_BORROWED : VALUE_COPIED;
}

/* Encode into the room that make_way() has made, and note that it is there. */
static void append(struct crab_conn *conn, const union crab_request *message, size_t size, size_t bytes)
{
    if (conn->events && buffer_used(&conn->out) == 0)
        conn->send_end_ns = event_deadline(conn);
    uint8_t *end = conn->out.data + conn->out.end;
    size_t written = bytes < size ? crab_request_encode_head(message, end, bytes)
                                  : crab_request_encode(message, end, bytes);
    assert(written == bytes); /* the codec sized it a moment ago */
    conn->out.end += written;
    conn->queued_bytes += size;
    if ((message->head.flags & CRAB_FLAG_TAG) != 0)
        conn->last_tag = message->head.tag;
    if ((message->head.flags & CRAB_FLAG_QUIET) != 0)
        note_quiet(conn);
    else
        ring_push(conn, &message->head);
}

static enum crab_status queue_request(struct crab_conn *conn, const union crab_request *request, uint32_t *tag,
                                      bool follows, struct net_deadline *deadline)
{
    if (conn->state != CRAB_OK)
        return CRAB_E_BROKEN;
    if (conn->put_left != 0)
        return conn_complain(conn, CRAB_E_PENDING, "the value of a put is not complete");
    union crab_request message = *request;
    struct crab_req_head *head = &message.head;
    enum crab_status status = prepare(conn, head);
    if (status == CRAB_OK && conn->ring_count == 0 && buffer_used(&conn->in) != 0)
        status = conn_take_pushes(conn);
    if (status != CRAB_OK)
        return status;
    size_t size = crab_request_size(&message);
    if (size == 0)
        return conn_complain(conn, CRAB_E_INVALID, "the request breaks a rule of the protocol (length or field)");

    /* Slices of our own input buffer move when we read, so such a request is copied before anything else. */
    bool own = buffer_holds(&conn->in, head->key) || buffer_holds(&conn->in, head->value);
    enum value_way way = follows ? VALUE_FOLLOWS : way_of(conn, head->value, own);
    size_t bytes = way != VALUE_COPIED ? size - head->value.len : size;
    status = make_way(conn, head, bytes, !own, deadline);
    if (status != CRAB_OK)
        return status;
    append(conn, &message, size, bytes);
    if (tag != NULL)
        *tag = head->tag;

    if (conn->events) {
        event_update(conn);
        return CRAB_OK;
    }
    if (way == VALUE_BORROWED)
        return send_value(conn, head->value, deadline);
    if (buffer_used(&conn->out) < CONN_SEND_AT || own)
        return CRAB_OK;
    struct crab_slice nothing = {0};
    status = conn_send(conn, &nothing, NULL);
    return status == CRAB_EMPTY ? CRAB_OK : status;
}

enum crab_status conn_queue(struct crab_conn *conn, const union crab_request *request, uint32_t *tag,
                            struct net_deadline *deadline)
{
    return queue_request(conn, request, tag, false, deadline);
}

enum crab_status conn_queue_head(struct crab_conn *conn, const union crab_request *request,
                                 struct net_deadline *deadline)
{
    enum crab_status status = queue_request(conn, request, NULL, true, deadline);
    if (status == CRAB_OK)
        conn->put_left = request->head.value.len;
    return status;
}

/* ---- replies */

static void take_push(struct crab_conn *conn, const union crab_reply *push)
{
    if (push->head.op == CRAB_PUSH_LATE_ERROR)
        late_add(conn, &push->late_error);
    if (push->head.op == CRAB_PUSH_GOAWAY) {
        conn->goaway = true;
        conn->goaway_code = push->goaway.code;
        conn_log(conn, CRAB_LOG_WARNING, "the server is about to close the connection: %s",
                 crab_error_text(push->goaway.code) != NULL ? crab_error_text(push->goaway.code) : "no known reason");
    }
    /* Pushes of a newer protocol are stepped over [P-11]. */
}

static enum crab_status break_malformed(struct crab_conn *conn, const struct crab_frame *frame)
{
    if (frame->error == CRAB_ERR_VALUE_TOO_LARGE)
        return conn_break(conn, CRAB_E_PROTOCOL, 0,
                          "the server sent a reply of more than %u bytes, or does not speak CrabCache",
                          (unsigned)conn->max_reply);
    return conn_break(conn, CRAB_E_PROTOCOL, 0, "the server sent a malformed reply: %s", crab_error_text(frame->error));
}

/* An ERROR. `last`: where it stands, it can only be the last frame of the stream, whether its code is known or not. */
static void note_error(struct crab_conn *conn, const struct crab_rep_error *error, bool last)
{
    char text[CRAB_FAILURE_TEXT];
    const char *known = crab_error_text(error->code);
    reply_copy_text(error->text, text, sizeof text);
    if (error->text.len == 0)
        reply_copy_text(slice_of_string(known != NULL ? known : "the server gave no reason"), text, sizeof text);
    conn->error = error->code;
    (void)conn_complain(conn, CRAB_E_SERVER, text);
    if (last || crab_error_closes(error->code)) {
        conn->fatal = true;
        (void)conn_break(conn, CRAB_E_SERVER, 0, "%s", text);
        buffer_drop(&conn->in, buffer_used(&conn->in));
    }
}

/*
 * What stands at the front of the input is no push, and no request waits for a reply.  It may be the ERROR that ends
 * the stream: one that closes, one of a newer protocol, or any at all if it answers a quiet write [P-8.2.1, P-8.2.4].
 */
static enum crab_status refuse_unasked(struct crab_conn *conn)
{
    union crab_reply reply;
    struct crab_frame frame;
    const uint8_t *start = buffer_front(&conn->in);
    bool whole = crab_reply_decode(start, buffer_used(&conn->in), conn->max_reply, &reply, &frame) == CRAB_WHOLE;
    if (*start == CRAB_REP_ERROR && !whole) /* whether it closes the stream is still to come */
        return CRAB_OK;
    if (whole && reply.head.op == CRAB_REP_ERROR && !reply.head.tagged &&
        (conn->quiet.open || crab_error_closes(reply.error.code) || crab_error_name(reply.error.code) == NULL)) {
        note_error(conn, &reply.error, true);
        return CRAB_E_SERVER;
    }
    return conn_break(conn, CRAB_E_PROTOCOL, 0, "the server sent a reply (0x%02x) to no request", (unsigned)*start);
}

enum crab_status conn_take_pushes(struct crab_conn *conn)
{
    struct buffer *in = &conn->in;
    if (conn->pour.active) /* what is here are bytes of a value */
        return CRAB_OK;
    while (buffer_used(in) != 0 && crab_op_is_push(in->data[in->start])) {
        union crab_reply push;
        struct crab_frame frame;
        enum crab_decode decoded =
            crab_reply_decode(buffer_front(in), buffer_used(in), conn->max_reply, &push, &frame);
        if (decoded == CRAB_MALFORMED)
            return break_malformed(conn, &frame);
        if (decoded == CRAB_NEED_MORE)
            return CRAB_OK;
        buffer_drop(in, (size_t)frame.size);
        take_push(conn, &push);
    }
    return buffer_used(in) != 0 && conn->ring_count == 0 ? refuse_unasked(conn) : CRAB_OK;
}

/* A PONG: everything quiet that was queued before its PING is settled. */
static void settle_quiet(struct crab_conn *conn, uint64_t ping_end)
{
    if (ping_end >= conn->quiet.last_end)
        conn->quiet.open = false;
    else if (conn->quiet.first_end < ping_end)
        conn->quiet.first_end = ping_end;
}

enum crab_status conn_check_answer(struct crab_conn *conn, const union crab_reply *reply)
{
    if (conn->ring_count == 0)
        return conn_break(conn, CRAB_E_PROTOCOL, 0, "the server sent a reply to no request");
    const struct in_flight *request = &conn->ring[conn->ring_first];
    const char *wrong = reply_mismatch(request, reply);
    if (wrong == NULL)
        return CRAB_OK;
    const char *name = crab_reply_name(reply->head.op);
    const char *asked = crab_op_name(request->op);
    return conn_break(conn, CRAB_E_PROTOCOL, 0, "the server answered %s with %s %s",
                      asked != NULL ? asked : "a request", name != NULL ? name : "an unknown reply", wrong);
}

/* Give a reply to the oldest request. */
static enum crab_status answer(struct crab_conn *conn, const union crab_reply *reply, struct crab_result *result)
{
    enum crab_status status = conn_check_answer(conn, reply);
    if (status != CRAB_OK)
        return status;
    struct in_flight request = conn->ring[conn->ring_first];
    struct waiter waiter = {0};
    if (conn->waiters != NULL)
        waiter = conn->waiters[conn->ring_first];
    conn->ring_first = (conn->ring_first + 1) & (conn->ring_capacity - 1);
    conn->ring_count--;
    conn->quiet.in_flight -= request.quiet_before;
    reply_to_result(reply, result);
    result->request = request.op;
    result->tag = request.tag;
    if (waiter.sink != NULL)
        stream_whole(&waiter, result);
    if (reply->head.op == CRAB_REP_PONG && conn->quiet.open) /* an ERROR instead may be due to a quiet write */
        settle_quiet(conn, request.end);
    if (reply->head.op == CRAB_REP_WELCOME)
        return conn_welcome(conn, &reply->welcome);
    if (reply->head.op == CRAB_REP_ERROR) /* without the tag that the request has, it is the last frame [P-4.6.4] */
        note_error(conn, &reply->error, (request.flags & CRAB_FLAG_TAG) != 0 && !reply->head.tagged);
    return CRAB_OK;
}

/* The stream ended before the reply came. */
static enum crab_status explain_end(struct crab_conn *conn)
{
    const char *why = conn->goaway ? crab_error_text(conn->goaway_code) : NULL;
    if (why != NULL)
        (void)snprintf(conn->text, sizeof conn->text, "the server closed the connection: %s", why);
    return CRAB_E_CLOSED;
}

/* The frame at the front, or what of a value goes to its sink; `frame->size`: how much is wanted. */
static enum crab_decode next_frame(struct crab_conn *conn, union crab_reply *reply, struct crab_frame *frame)
{
    struct buffer *in = &conn->in;
    if (!conn->pour.active) {
        enum crab_decode decoded =
            crab_reply_decode(buffer_front(in), buffer_used(in), conn->max_reply, reply, frame);
        if (decoded == CRAB_WHOLE)
            buffer_drop(in, (size_t)frame->size);
        if (decoded != CRAB_NEED_MORE || stream_begin(conn) != CRAB_OK)
            return decoded;
    }
    *reply = conn->pour.reply;
    return stream_pour(conn, &frame->size) ? CRAB_WHOLE : CRAB_NEED_MORE;
}

enum crab_status conn_next(struct crab_conn *conn, struct crab_result *result, struct net_deadline *deadline)
{
    if (conn->ring_count == 0) {
        enum crab_status status = conn->state == CRAB_OK ? conn_take_pushes(conn) : CRAB_E_BROKEN;
        return status == CRAB_OK ? CRAB_EMPTY : status;
    }
    enum crab_status ended = CRAB_E_BROKEN;
    for (;;) {
        union crab_reply reply;
        struct crab_frame frame;
        enum crab_status before = conn->state;
        enum crab_decode decoded = next_frame(conn, &reply, &frame);
        if (decoded == CRAB_WHOLE) {
            if (!crab_op_is_push(reply.head.op))
                return answer(conn, &reply, result);
            take_push(conn, &reply);
        } else if (decoded == CRAB_MALFORMED) {
            return conn->state == CRAB_OK ? break_malformed(conn, &frame) : CRAB_E_BROKEN;
        } else if (conn->state != CRAB_OK) {
            if (before == CRAB_OK) /* the head of a value for a sink was another request's */
                return conn->state;
            return ended == CRAB_E_CLOSED ? explain_end(conn) : ended;
        } else if (conn->events) {
            conn->wanted = frame.size;
            return CRAB_WAIT;
        } else {
            enum crab_status status = conn_exchange(conn, frame.size, deadline);
            if (status != CRAB_OK && status != CRAB_E_CLOSED)
                return status;
            if (status == CRAB_E_CLOSED) /* what came before the end is still to be looked at */
                ended = status;
        }
    }
}

enum crab_status conn_call(struct crab_conn *conn, const union crab_request *request, struct crab_result *result,
                           struct net_deadline *deadline)
{
    enum crab_status queued = conn_queue(conn, request, NULL, deadline);
    if (queued != CRAB_OK && (queued != CRAB_E_CLOSED || conn->ring_count == 0))
        return queued;
    enum crab_status status = conn_next(conn, result, deadline);
    if (status != CRAB_OK)
        return queued != CRAB_OK ? queued : status;
    return result->status;
}

void conn_forget_sent(struct crab_conn *conn)
{
    if (buffer_used(&conn->out) == 0 && conn->out.data != NULL)
        explicit_bzero(conn->out.data, conn->out.capacity);
}

/* ---- the public face */

enum crab_status crab_conn_queue(struct crab_conn *conn, const union crab_request *request, uint32_t *tag)
{
    struct net_deadline deadline = conn_deadline(conn);
    return conn_queue(conn, request, tag, &deadline);
}

enum crab_status crab_conn_next_reply(struct crab_conn *conn, struct crab_result *result)
{
    struct waiter *front = conn->ring_count != 0 ? conn_front(conn) : NULL;
    if (front != NULL && front->done != NULL)
        return conn->state == CRAB_OK ? CRAB_WAIT : CRAB_E_BROKEN;
    if (conn->put_left != 0 && conn->ring_count == 1 && !conn->events && conn->state == CRAB_OK)
        return conn_complain(conn, CRAB_E_PENDING, "the value of the put is not complete");
    struct net_deadline deadline = conn_deadline(conn);
    return conn_next(conn, result, &deadline);
}

enum crab_status crab_conn_flush(struct crab_conn *conn)
{
    if (conn->state != CRAB_OK)
        return CRAB_E_BROKEN;
    struct crab_slice nothing = {0};
    struct net_deadline deadline = conn_deadline(conn);
    if (!conn->events)
        return conn_send(conn, &nothing, &deadline);
    enum crab_status status = conn->phase == CONN_CONNECTING ? CRAB_EMPTY : conn_send(conn, &nothing, NULL);
    event_update(conn);
    return status == CRAB_EMPTY ? CRAB_WAIT : status;
}

size_t crab_conn_in_flight(const struct crab_conn *conn)
{
    return conn->ring_count;
}

size_t crab_conn_max_in_flight(const struct crab_conn *conn)
{
    return conn->max_in_flight;
}
