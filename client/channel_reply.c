/* SPDX-License-Identifier: MIT */
/*
 * Replies meet the calls at the head of the ring; and how all calls end when the connection does.
 *
 * A reply is given to a request only if that request can have it and the tags agree; anything else ends the connection,
 * because an answer must never reach the wrong caller.  Whether a caller still waits makes no difference to this check.
 */
#include "client/channel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- completing */

void channel_complete(struct channel *channel, struct call *call)
{
    channel->expected += call->blocking;
    if (call->asleep) {
        call->asleep = false;
        channel->asleep[call->word]--;
        channel_mark(channel, call->word);
    }
    if (call->finished != NULL) {
        call->next = NULL;
        *channel->finished_end = call;
        channel->finished_end = &call->next;
    }
    atomic_store_explicit(&call->done, true, memory_order_release); /* from here on it may be gone */
}

/* The reply's block goes to the caller, the caller's becomes the input buffer, with the bytes behind the reply. */
static bool swap_blocks(struct channel *channel, struct crab_value *value, struct crab_slice bytes)
{
    const struct crab_allocator *allocator = &channel->config->allocator;
    if (!value_same_memory(value, allocator))
        return false;
    struct buffer *in = &channel->in;
    struct buffer other = {.data = value->block, .capacity = value->capacity};
    size_t rest = buffer_used(in);
    if (rest != 0 && !buffer_reserve(&other, allocator, rest)) {
        value->block = other.data;
        value->capacity = other.capacity;
        return false;
    }
    if (rest != 0)
        memcpy(other.data, in->data + in->start, rest);
    other.end = rest;
    *value = (struct crab_value){
        .data = bytes.data, .len = bytes.len, .block = in->data, .capacity = in->capacity, .allocator = *allocator};
    *in = other;
    return true;
}

/* Give the caller the reply's bytes. */
static void deliver(struct channel *channel, struct call *call)
{
    struct crab_result *result = &call->result;
    struct crab_value *value = call->value;
    struct crab_slice bytes = result->value;
    result->value = (struct crab_slice){0};
    if (value == NULL || result->status != CRAB_OK)
        return;
    value_bind(value, &channel->config->allocator);
    bool swapped = bytes.len >= CHANNEL_SWAP_LIMIT && swap_blocks(channel, value, bytes);
    if (!swapped && crab_value_set(value, bytes.data, bytes.len) != CRAB_OK) {
        *result = (struct crab_result){.status = CRAB_E_NO_MEMORY, .request = result->request};
        if (call->failure != NULL)
            (void)net_fail(call->failure, CRAB_E_NO_MEMORY, 0, "no memory for a value of %zu bytes", bytes.len);
        return;
    }
    result->value = (struct crab_slice){.data = value->data, .len = value->len};
}

/* ---- errors of the server */

static void describe_error(const struct crab_rep_error *error, struct crab_failure *failure)
{
    const char *known = crab_error_text(error->code);
    struct crab_slice text = error->text;
    if (text.len == 0)
        text = slice_of_string(known != NULL ? known : "the server gave no reason");
    failure->status = CRAB_E_SERVER;
    failure->system_error = 0;
    failure->error = error->code;
    reply_copy_text(text, failure->text, sizeof failure->text);
}

/* An error behind which the stream ends. */
static void break_fatal(struct channel *channel, const struct crab_rep_error *error)
{
    struct crab_failure failure;
    describe_error(error, &failure);
    channel->fatal = true;
    channel_break(channel, CRAB_E_SERVER, 0, "%s ended the connection: %s", channel->target->name, failure.text);
}

static void take_push(struct channel *channel, const union crab_reply *push)
{
    if (push->head.op == CRAB_PUSH_GOAWAY) {
        channel->goaway = true;
        channel->goaway_code = push->goaway.code;
    }
    /* Late errors are of quiet writes, which a channel does not send; pushes of a newer protocol are stepped over. */
}

/* ---- dispatch */

/* What no request waits for: it may be the error that ends the stream. */
static void refuse_unasked(struct channel *channel, const union crab_reply *reply)
{
    if (reply->head.op == CRAB_REP_ERROR && !reply->head.tagged &&
        (crab_error_closes(reply->error.code) || crab_error_name(reply->error.code) == NULL))
        break_fatal(channel, &reply->error);
    else
        channel_break(channel, CRAB_E_PROTOCOL, 0, "%s sent a reply (0x%02x) to no request", channel->target->name,
                      (unsigned)reply->head.op);
}

/* Give a reply to the oldest request.  @return false: the connection has ended */
static bool answer(struct channel *channel, const union crab_reply *reply)
{
    if (channel->head == channel->tail) {
        refuse_unasked(channel, reply);
        return false;
    }
    struct slot *slot = &channel->ring[channel->head & (channel->capacity - 1)];
    const struct in_flight request = slot->request;
    const char *wrong = reply_mismatch(&request, reply);
    if (wrong != NULL) {
        const char *name = crab_reply_name(reply->head.op);
        const char *asked = crab_op_name(request.op);
        channel_break(channel, CRAB_E_PROTOCOL, 0, "%s answered %s with %s %s", channel->target->name,
                      asked != NULL ? asked : "a request", name != NULL ? name : "an unknown reply", wrong);
        return false;
    }
    bool last = reply->head.op == CRAB_REP_ERROR &&
                (crab_error_closes(reply->error.code) ||
                 ((request.flags & CRAB_FLAG_TAG) != 0 && !reply->head.tagged)); /* [P-4.6.4] */
    if (reply->head.op == CRAB_REP_WELCOME && !channel_welcome(channel, &reply->welcome))
        return false;
    struct call *call = slot->call;
    channel->head++;
    if (reply->head.op == CRAB_REP_ERROR)
        channel->counts.errors++;
    if (call != NULL) {
        reply_to_result(reply, &call->result);
        call->result.request = request.op;
        call->result.tag = request.tag;
        if (reply->head.op == CRAB_REP_ERROR && call->failure != NULL)
            describe_error(&reply->error, call->failure);
        call->not_executed =
            reply->head.op == CRAB_REP_ERROR && crab_error_class(reply->error.code) == CRAB_CLASS_RETRY;
        deliver(channel, call);
        channel_complete(channel, call);
    }
    if (last)
        break_fatal(channel, &reply->error);
    return !last;
}

static void break_malformed(struct channel *channel, uint16_t error)
{
    if (error == CRAB_ERR_VALUE_TOO_LARGE)
        channel_break(channel, CRAB_E_PROTOCOL, 0, "%s sent a reply of more than %u bytes, or does not speak CrabCache",
                      channel->target->name, (unsigned)channel->max_reply);
    else
        channel_break(channel, CRAB_E_PROTOCOL, 0, "%s sent a malformed reply: %s", channel->target->name,
                      crab_error_text(error));
}

void channel_dispatch(struct channel *channel)
{
    bool was_full = !channel_has_room(channel);
    channel->wanted = 0;
    while (!channel->closing && buffer_used(&channel->in) != 0) {
        struct buffer *in = &channel->in;
        union crab_reply reply;
        struct crab_frame frame;
        enum crab_decode decoded =
            crab_reply_decode(in->data + in->start, buffer_used(in), channel->max_reply, &reply, &frame);
        if (decoded == CRAB_NEED_MORE) {
            channel->wanted = frame.size;
            break;
        }
        if (decoded == CRAB_MALFORMED) {
            break_malformed(channel, frame.error);
            break;
        }
        buffer_drop(in, (size_t)frame.size);
        if (crab_op_is_push(reply.head.op))
            take_push(channel, &reply);
        else if (!answer(channel, &reply))
            break;
    }
    if (buffer_used(&channel->in) == 0 && channel->in.capacity > CHANNEL_KEEP_BYTES)
        buffer_fini(&channel->in, &channel->config->allocator);
    if (channel->asleep[CHANNEL_EVENT] != 0 && (was_full || channel->head == channel->tail))
        channel_mark(channel, CHANNEL_EVENT);
}

/* ---- the end of a connection */

/* Whether the request of a slot was certainly not executed, given how the connection ended. */
static bool certainly_not_executed(const struct channel *channel, const struct in_flight *request)
{
    return request->end > channel->offered || channel->fatal || (channel->ended && channel->goaway);
}

static void fail_slot(struct channel *channel, struct slot *slot, const struct crab_failure *why)
{
    struct call *call = slot->call;
    bool not_executed = certainly_not_executed(channel, &slot->request);
    bool unknown = !not_executed && crab_op_is_write(slot->request.op);
    if (call == NULL)
        return;
    channel->counts.unknown += unknown;
    call->result = (struct crab_result){.status = unknown ? CRAB_E_OUTCOME_UNKNOWN : why->status,
                                        .request = slot->request.op,
                                        .error = why->error};
    call->not_executed = not_executed;
    if (call->failure != NULL)
        *call->failure = *why;
    channel_complete(channel, call);
}

void channel_break(struct channel *channel, enum crab_status status, int system_error, const char *format, ...)
{
    if (channel->closing || channel->fd < 0)
        return;
    struct crab_failure why = {.status = status, .system_error = system_error};
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(why.text, sizeof why.text, format, arguments);
    va_end(arguments);
    size_t len = written < 0 ? 0 : (size_t)written;
    const char *reason = channel->goaway ? crab_error_text(channel->goaway_code) : NULL;
    char system_text[128];
    if (system_error != 0)
        reason = strerror_r(system_error, system_text, sizeof system_text);
    if (reason != NULL && len < sizeof why.text)
        (void)snprintf(why.text + len, sizeof why.text - len, ": %s", reason);

    channel->closing = true;
    channel->counts.breaks++;
    if (channel->state == CHANNEL_UP)
        channel->state = CHANNEL_DOWN;
    memcpy(channel->note, why.text, sizeof channel->note);
    channel->note_level = channel->head == channel->tail ? CRAB_LOG_INFO : CRAB_LOG_WARNING;
    (void)shutdown(channel->fd, SHUT_RDWR); /* whoever waits for the socket wakes up */
    for (; channel->head != channel->tail; channel->head++)
        fail_slot(channel, &channel->ring[channel->head & (channel->capacity - 1)], &why);
    channel_mark(channel, CHANNEL_EVENT);
    channel_settle(channel);
}

void channel_settle(struct channel *channel)
{
    if (!channel->closing || channel->sender || channel->reader)
        return;
    int fd = channel->fd;
    channel->fd = -1; /* first: a child that is forked now closes what it finds here, which may be another file after close() */
    (void)close(fd);
    channel->closing = false;
    channel->goaway = channel->ended = channel->fatal = false;
    channel->send_failed = 0;
    channel->queued = channel->sent = channel->offered = channel->wanted = 0;
    buffer_drop(&channel->out, buffer_used(&channel->out));
    buffer_drop(&channel->sending, buffer_used(&channel->sending));
    buffer_drop(&channel->in, buffer_used(&channel->in));
    channel_mark(channel, CHANNEL_EVENT);
}
