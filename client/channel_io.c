/* SPDX-License-Identifier: MIT */
/*
 * The two roles of a channel, see channel.h.
 *
 * The sender takes what all callers have queued and gives it to the socket in one go; while it does, the next batch collects.
 * When the socket is full it waits for room, and if nobody reads it reads as well: a server stops reading a client
 * that does not take its replies.  The reader waits for bytes and hands them to dispatch.
 *
 * A thread with only one of the roles cannot hear when the other is given up, so while bytes are stuck in the queue it looks
 * up every STUCK_MS.
 *
 * Turns.  8 threads with blocking calls on one connection, 2 cores: without giving up the processor anywhere, 1.2 requests
 * went with each system call, 97,000 per second at 12.2 us of the client's CPU time each; with COMPANY_TURNS 4 alone 4.2 requests,
 * 135,000, 6.6 us; with the turns as they stand here 7.3 requests, 258,000, 6.0 us.  A caller alone on its channel does none of this.
 */
#include "client/channel.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define STUCK_MS 5
#define COMPANY_TURNS 1
#define READER_TURNS 8
#define READ_LEAST ((size_t)16 * 1024)
#define READ_MOST ((size_t)256 * 1024)
/* How often channel_turn() receives before it lets others have their turn. */
#define TURN_ROUNDS 16

/* ---- the sender */

static void release_sender(struct channel *channel)
{
    channel->sender = false;
    if (channel->asleep[CHANNEL_EVENT] != 0)
        channel_mark(channel, CHANNEL_EVENT);
    if (channel->closing)
        channel_settle(channel);
}

static void note_sent(struct channel *channel, size_t bytes, struct crab_slice *tail)
{
    size_t from_buffer = bytes < buffer_used(&channel->sending) ? bytes : buffer_used(&channel->sending);
    buffer_drop(&channel->sending, from_buffer);
    if (bytes > from_buffer) {
        tail->data += bytes - from_buffer;
        tail->len -= bytes - from_buffer;
    }
    channel->sent += bytes;
    channel->counts.sent_bytes += bytes;
    struct buffer *sending = &channel->sending;
    if (buffer_used(sending) == 0 && sending->capacity > CHANNEL_KEEP_BYTES)
        buffer_fini(sending, &channel->config->allocator);
}

/* One system call for `sending` and `tail`.  The lock is left meanwhile. @return false: the socket is full, or broken */
static bool send_some(struct channel *channel, struct crab_slice *tail)
{
    struct buffer *sending = &channel->sending;
    struct iovec parts[2];
    size_t count = 0;
    if (buffer_used(sending) != 0)
        parts[count++] = (struct iovec){.iov_base = sending->data + sending->start, .iov_len = buffer_used(sending)};
    if (tail->len != 0) /* iov_base wants a pointer to non-const; sendmsg() only reads */
        parts[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)tail->data, .iov_len = tail->len};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    channel->offered = channel->sent + buffer_used(sending) + tail->len;
    channel->counts.sends++;
    int fd = channel->fd;
    channel_pause(channel);
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    int failed = errno;
    (void)pthread_mutex_lock(&channel->lock);
    if (sent >= 0)
        note_sent(channel, (size_t)sent, tail);
    channel->offered = channel->sent;
    if (sent >= 0)
        return true;
    if (failed == EPIPE || failed == ECONNRESET) {
        channel->send_failed = failed; /* the reader breaks it: what the server said before it went may explain it */
    } else if (failed != EAGAIN && failed != EWOULDBLOCK) {
        channel_break(channel, CRAB_E_SYSTEM, failed, "sending to %s failed", channel->target->name);
    }
    return false;
}

/* Move what callers have queued into the sender's hands. */
static void take_queue(struct channel *channel)
{
    struct buffer queued = channel->out;
    channel->out = channel->sending;
    channel->sending = queued;
    channel->batch = (channel->batch + 1) % CHANNEL_BATCH_WORDS;
}

/*
 * Callers who were woken together come back together: give those that have not come yet a chance to put their requests into
 * this batch.  Who does not come within a few turns of the processor is not waited for.
 */
static void await_company(struct channel *channel)
{
    for (int turn = 0; turn < COMPANY_TURNS && channel->expected != 0; turn++) {
        (void)pthread_mutex_unlock(&channel->lock);
        (void)sched_yield();
        (void)pthread_mutex_lock(&channel->lock);
    }
    channel->expected = 0;
}

/* Send all that is queued.  For the sender. @return false: the socket is full, or broken */
static bool send_all(struct channel *channel)
{
    struct crab_slice nothing = {0};
    if (channel->expected != 0)
        await_company(channel);
    while (!channel->closing) {
        if (buffer_used(&channel->sending) == 0) {
            if (buffer_used(&channel->out) == 0)
                return true;
            take_queue(channel);
        }
        if (!send_some(channel, &nothing))
            return false;
    }
    return false;
}

/* ---- the reader */

/*
 * Room for what is missing of `wanted` bytes, but believe a peer's length only as far as bytes came: the buffer at most
 * doubles with each step.
 */
static bool make_room(struct channel *channel)
{
    struct buffer *in = &channel->in;
    size_t used = buffer_used(in);
    uint64_t missing = channel->wanted > used ? channel->wanted - used : 1;
    size_t step = used < READ_LEAST ? READ_LEAST : used;
    if (missing < READ_LEAST)
        return buffer_room(in) >= READ_LEAST / 2 || buffer_reserve(in, &channel->config->allocator, READ_LEAST);
    return buffer_reserve(in, &channel->config->allocator, missing < step ? (size_t)missing : step);
}

/* What one recv() gave. */
struct received {
    ssize_t bytes; /* -1: see failed */
    int failed;    /* an errno; EAGAIN: nothing there; ENOMEM: no room to receive into */
};

static bool is_nothing(struct received got)
{
    return got.bytes < 0 && (got.failed == EAGAIN || got.failed == EWOULDBLOCK);
}

/* For the reader, without the lock. */
static struct received receive_some(struct channel *channel, int fd)
{
    struct buffer *in = &channel->in;
    if (!make_room(channel))
        return (struct received){.bytes = -1, .failed = ENOMEM};
    size_t room = buffer_room(in);
    if (channel->wanted > READ_MOST && room > channel->wanted - buffer_used(in)) /* a large reply ends its block */
        room = (size_t)(channel->wanted - buffer_used(in));
    ssize_t got;
    do
        got = recv(fd, in->data + in->end, room, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    int failed = errno;
    if (got > 0)
        in->end += (size_t)got;
    if (got > 0 && buffer_room(in) == 0 && in->capacity < READ_MOST && buffer_used(in) == in->capacity)
        (void)buffer_reserve(in, &channel->config->allocator, in->capacity); /* more is to come; failing is no harm */
    return (struct received){.bytes = got, .failed = got < 0 ? failed : 0};
}

/* What was received, or why nothing was.  The lock is held. */
static void take_received(struct channel *channel, struct received got)
{
    const char *name = channel->target->name;
    channel->counts.receives++;
    if (channel->closing)
        return;
    if (got.bytes > 0) {
        channel->counts.received_bytes += (uint64_t)got.bytes;
        channel->waiting_since = net_now_ns();
        channel_dispatch(channel);
    } else if (got.bytes == 0) {
        channel->ended = channel->send_failed == 0;
        channel_break(channel, CRAB_E_CLOSED, channel->send_failed, "%s closed the connection", name);
    } else if (got.failed == ECONNRESET || got.failed == EPIPE || channel->send_failed != 0) {
        channel_break(channel, CRAB_E_CLOSED, got.failed, "the connection to %s was reset", name);
    } else if (got.failed == ENOMEM) {
        channel_break(channel, CRAB_E_NO_MEMORY, 0, "no memory for a reply of %llu bytes",
                      (unsigned long long)channel->wanted);
    } else if (got.failed != EAGAIN && got.failed != EWOULDBLOCK) {
        channel_break(channel, CRAB_E_SYSTEM, got.failed, "receiving from %s failed", name);
    }
}

static void release_reader(struct channel *channel)
{
    channel->reader = false;
    if (channel->head == channel->tail && channel->asleep[CHANNEL_EVENT] != 0)
        channel_mark(channel, CHANNEL_EVENT);
    if (channel->closing)
        channel_settle(channel);
}

/* Among others: look a few times before waiting, and let those run who have something to send. */
static struct received receive_soon(struct channel *channel, int fd)
{
    struct received got = {.bytes = -1, .failed = EAGAIN};
    for (int turn = 0; turn < READER_TURNS; turn++) {
        got = receive_some(channel, fd);
        if (!is_nothing(got))
            break;
        (void)sched_yield();
    }
    return got;
}

/*
 * Wait until the socket can do what the caller's roles need, and receive if there is something and `read` is its role.
 * The lock is left meanwhile. @return false: the deadline has passed
 */
static bool await_socket(struct channel *channel, bool read, bool write, struct net_deadline *deadline)
{
    short events = (short)((read ? POLLIN : 0) | (write ? POLLOUT : 0));
    short revents = 0;
    int fd = channel->fd;
    int slice_ms = (!read || !write) && channel_unsent(channel) != 0 ? STUCK_MS : -1;
    bool alone = channel->tail - channel->head == 1;
    struct received got = {.bytes = -1, .failed = EAGAIN};
    enum crab_status status = CRAB_OK;
    channel_pause(channel);
    if (read && !write && !alone)
        got = receive_soon(channel, fd);
    if (is_nothing(got)) {
        status = net_wait_slice(fd, events, deadline, slice_ms, &revents);
        if (status == CRAB_OK && read && (revents & ~POLLOUT) != 0)
            got = receive_some(channel, fd);
    }
    int failed = errno;
    (void)pthread_mutex_lock(&channel->lock);
    if (status == CRAB_E_SYSTEM && !channel->closing)
        channel_break(channel, CRAB_E_SYSTEM, failed, "waiting for the socket failed");
    if (read && (!is_nothing(got) || (revents != 0 && channel->send_failed != 0)))
        take_received(channel, got);
    return status != CRAB_E_TIMEOUT;
}

/* ---- one step of somebody who waits */

static bool is_done(const struct call *call)
{
    return call != NULL && atomic_load_explicit(&call->done, memory_order_acquire);
}

bool channel_step(struct channel *channel, struct call *call, struct net_deadline *deadline)
{
    bool usable = channel->fd >= 0 && !channel->closing;
    bool send = usable && !channel->sender && channel_unsent(channel) != 0;
    bool read = usable && !channel->reader && channel->head != channel->tail;
    if (!send && !read)
        return channel_sleep(channel, call, call != NULL ? call->word : CHANNEL_EVENT, deadline);

    channel->sender |= send;
    channel->reader |= read;
    bool full = send && !send_all(channel);
    if (send && !full) {
        release_sender(channel);
        send = false;
    }
    bool in_time = true;
    if ((read || full) && !channel->closing && !is_done(call))
        in_time = await_socket(channel, read, full, deadline);
    if (send)
        release_sender(channel);
    if (read)
        release_reader(channel);
    if (call == NULL || is_done(call) || channel->finished != NULL)
        channel_hand_over(channel);
    channel_leave(channel);
    return in_time;
}

/* The rest of a value whose caller has no time left.  The frame must be completed, or the connection is of no use. */
static void keep_rest(struct channel *channel, struct crab_slice tail)
{
    struct buffer *sending = &channel->sending;
    if (!buffer_reserve(sending, &channel->config->allocator, tail.len)) {
        channel_break(channel, CRAB_E_NO_MEMORY, 0, "no memory for the rest of a value of which a part was sent");
        return;
    }
    crab_put_slice(sending->data + sending->end, tail);
    sending->end += tail.len;
}

void channel_send_value(struct channel *channel, struct crab_slice tail, struct net_deadline *deadline)
{
    channel->sender = true;
    take_queue(channel);
    bool in_time = true;
    while (!channel->closing && in_time && buffer_used(&channel->sending) + tail.len != 0) {
        if (send_some(channel, &tail) || channel->closing)
            continue;
        bool read = !channel->reader;
        channel->reader = true;
        in_time = await_socket(channel, read, channel->send_failed == 0, deadline);
        if (read)
            release_reader(channel);
    }
    if (!channel->closing && tail.len != 0)
        keep_rest(channel, tail);
    release_sender(channel);
}

void channel_turn(struct channel *channel)
{
    bool usable = channel->fd >= 0 && !channel->closing;
    bool send = usable && !channel->sender && channel_unsent(channel) != 0;
    if (send) {
        channel->sender = true;
        (void)send_all(channel);
        release_sender(channel);
    }
    usable = channel->fd >= 0 && !channel->closing;
    if (!usable || channel->reader || channel->head == channel->tail)
        return;
    channel->reader = true;
    for (int round = 0; round < TURN_ROUNDS && !channel->closing && channel->head != channel->tail; round++) {
        int fd = channel->fd;
        channel_pause(channel);
        struct received got = receive_some(channel, fd);
        (void)pthread_mutex_lock(&channel->lock);
        if (is_nothing(got))
            break;
        take_received(channel, got);
    }
    release_reader(channel);
}

void channel_peek(struct channel *channel)
{
    if (channel->fd < 0 || channel->closing || channel->reader)
        return;
    int fd = channel->fd;
    channel->reader = true;
    channel_pause(channel);
    struct received got = receive_some(channel, fd);
    (void)pthread_mutex_lock(&channel->lock);
    take_received(channel, got);
    release_reader(channel);
}

/* ---- watching many channels, for crab_client_run() */

/* Give up what is overdue, and find the next deadline. */
static void expire(struct channel *channel, uint64_t *earliest_ns)
{
    uint64_t now = net_now_ns();
    for (uint64_t place = channel->head; place < channel->tail; place++) {
        struct call *call = channel->ring[place & (channel->capacity - 1)].call;
        if (call == NULL || call->finished == NULL || call->end_ns == 0)
            continue;
        if (call->end_ns <= now)
            channel_give_up(channel, call, CRAB_E_TIMEOUT); /* this may end the connection, and with it all places */
        else if (*earliest_ns == 0 || call->end_ns < *earliest_ns)
            *earliest_ns = call->end_ns;
    }
}

void channel_tend(struct channel *channel, uint64_t *earliest_ns)
{
    (void)pthread_mutex_lock(&channel->lock);
    expire(channel, earliest_ns);
    channel_turn(channel);
    channel_hand_over(channel);
    channel_leave(channel);
}

enum channel_watched channel_watch(struct channel *channel, struct pollfd *entry)
{
    enum channel_watched watched = CHANNEL_IDLE;
    (void)pthread_mutex_lock(&channel->lock);
    if (channel->finished != NULL || (channel->head != channel->tail && (channel->reader || channel->closing))) {
        watched = CHANNEL_BUSY;
    } else if (channel->head != channel->tail) {
        watched = CHANNEL_WATCHED;
        channel->reader = true;
        *entry = (struct pollfd){.fd = channel->fd, .events = POLLIN};
        if (channel_unsent(channel) != 0)
            entry->events = POLLIN | POLLOUT;
    }
    channel_pause(channel);
    return watched;
}

void channel_unwatch(struct channel *channel)
{
    (void)pthread_mutex_lock(&channel->lock);
    release_reader(channel);
    channel_hand_over(channel);
    channel_pause(channel);
}
