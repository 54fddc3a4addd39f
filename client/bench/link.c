/* SPDX-License-Identifier: MIT */
/*
 * A connection's bytes; see link.h.  Of what is sent, short values are copied among the heads and long ones referred to.
 */
#include "client/bench/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define IN_BYTES ((size_t)256 * 1024)
#define OUT_BYTES ((size_t)256 * 1024)
#define COPY_MAX 4096U
#define REFS 64U
#define SEND_MAX ((size_t)4 * 1024 * 1024)

/* What one sendmsg is to send. */
struct outgoing {
    struct iovec refs[REFS];
    uint32_t count;
    size_t used;  /* of the kit's `out` */
    size_t open;  /* where in it the bytes begin that `refs` does not name yet */
    size_t total;
};

uint64_t link_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

int link_kit_init(struct link_kit *kit, const struct protocol *protocol, uint32_t key_len, const struct sizes *sizes,
                  const uint8_t *payload, struct tally *tally)
{
    *kit = (struct link_kit){.sizes = sizes, .payload = payload, .tally = tally};
    requests_init(&kit->requests, protocol, key_len);
    kit->in = malloc(PROTOCOL_HEAD_MAX + IN_BYTES);
    kit->out = malloc(OUT_BYTES);
    if (kit->in != NULL && kit->out != NULL)
        return 0;
    link_kit_fini(kit);
    return -1;
}

void link_kit_fini(struct link_kit *kit)
{
    free(kit->in);
    free(kit->out);
    kit->in = kit->out = NULL;
}

int link_init(struct link *link, int fd, uint32_t depth)
{
    uint32_t room = 1;
    while (room <= depth) /* one more: a reply may come before the last byte of its request was sent */
        room *= 2;
    *link = (struct link){.fd = fd, .mask = room - 1, .ring = calloc(room, sizeof *link->ring)};
    return link->ring != NULL ? 0 : -1;
}

void link_fini(struct link *link)
{
    if (link->fd >= 0)
        (void)close(link->fd);
    free(link->ring);
    link->fd = -1;
    link->ring = NULL;
}

static enum request_op op_of(uint64_t request)
{
    return (request & 1) != 0 ? REQUEST_PUT : REQUEST_GET;
}

static uint32_t value_len_of(const struct link_kit *kit, uint64_t request)
{
    return op_of(request) == REQUEST_PUT ? sizes_of(kit->sizes, request >> 1) : 0;
}

/* ---- sending -------------------------------------------------------------------------------------------------- */

/* Name the bytes that were written to `out` since the last time. */
static void refer(struct outgoing *outgoing, const struct link_kit *kit)
{
    if (outgoing->used == outgoing->open)
        return;
    outgoing->refs[outgoing->count++] =
        (struct iovec){.iov_base = kit->out + outgoing->open, .iov_len = outgoing->used - outgoing->open};
    outgoing->open = outgoing->used;
}

static void write_request(struct outgoing *outgoing, struct link_kit *kit, uint64_t request)
{
    uint32_t value_len = value_len_of(kit, request);
    const struct frame *frame =
        requests_write(&kit->requests, op_of(request), request >> 1, value_len, kit->out + outgoing->used);
    outgoing->used += frame->len;
    outgoing->total += (size_t)frame->len + value_len + frame->tail_len;
    if (value_len > COPY_MAX) {
        refer(outgoing, kit);
        void *payload = (void *)(uintptr_t)kit->payload; /* iovec knows no const; it is only read */
        outgoing->refs[outgoing->count++] = (struct iovec){.iov_base = payload, .iov_len = value_len};
    } else {
        memcpy(kit->out + outgoing->used, kit->payload, value_len);
        outgoing->used += value_len;
    }
    memcpy(kit->out + outgoing->used, frame->tail, frame->tail_len);
    outgoing->used += frame->tail_len;
}

/* Leave out the bytes that were sent before. */
static struct iovec *leave_out(struct outgoing *outgoing, size_t bytes)
{
    struct iovec *ref = outgoing->refs;
    while (bytes >= ref->iov_len && bytes != 0) {
        bytes -= ref->iov_len;
        ref++;
        outgoing->count--;
    }
    ref->iov_base = (uint8_t *)ref->iov_base + bytes;
    ref->iov_len -= bytes;
    return ref;
}

/* Note that of the requests after `sent` so many bytes are gone, part of the first one being gone before. */
static void advance(struct link *link, struct link_kit *kit, size_t bytes)
{
    bytes += link->sent_part;
    while (bytes != 0) {
        uint64_t request = link->ring[link->sent & link->mask];
        size_t size = requests_size(&kit->requests, op_of(request), value_len_of(kit, request));
        if (bytes < size)
            break;
        bytes -= size;
        link->sent++;
    }
    link->sent_part = bytes;
}

static ssize_t send_out(struct outgoing *outgoing, const struct link *link)
{
    struct msghdr message = {.msg_iov = leave_out(outgoing, link->sent_part)};
    message.msg_iovlen = outgoing->count;
    if (outgoing->count == 1) /* cheaper for the kernel */
        return send(link->fd, message.msg_iov->iov_base, message.msg_iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sendmsg(link->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int link_send(struct link *link, struct link_kit *kit)
{
    link->blocked = false;
    while (link->sent != link->issued) {
        struct outgoing outgoing = {.count = 0};
        uint64_t next = link->sent;
        while (next != link->issued && outgoing.count + 3 <= REFS && outgoing.total < SEND_MAX &&
               outgoing.used + sizeof(struct frame) + COPY_MAX <= OUT_BYTES)
            write_request(&outgoing, kit, link->ring[next++ & link->mask]);
        refer(&outgoing, kit);
        ssize_t sent = send_out(&outgoing, link);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            link->blocked = true;
            return 0;
        }
        if (sent < 0) {
            (void)snprintf(kit->failure, sizeof kit->failure, "cannot send: %s", strerror(errno));
            return -1;
        }
        if (kit->counting)
            kit->tally->bytes_sent += (uint64_t)sent;
        if ((size_t)sent + link->sent_part == outgoing.total) {
            link->sent = next;
            link->sent_part = 0;
        } else {
            advance(link, kit, (size_t)sent);
        }
    }
    return 0;
}

/* ---- receiving ------------------------------------------------------------------------------------------------ */

static void note_wrong(struct link_kit *kit, uint64_t request, const struct reply *reply)
{
    static const char *const kinds[] = {"a value", "a miss", "stored", "an error", "a reply of another kind"};
    struct tally *tally = kit->tally;
    if (tally->wrong++ != 0)
        return;
    (void)snprintf(tally->first_wrong, sizeof tally->first_wrong,
                   "%s of key %llu, whose value has %u bytes, was answered by %s of %llu bytes",
                   op_of(request) == REQUEST_PUT ? "a put" : "a get", (unsigned long long)(request >> 1),
                   sizes_of(kit->sizes, request >> 1), kinds[reply->kind],
                   (unsigned long long)(reply->kind == REPLY_VALUE ? reply->value_len : reply->size));
}

static void note_error(struct link_kit *kit, const struct reply *reply)
{
    struct tally *tally = kit->tally;
    if (tally->errors++ == 0)
        (void)snprintf(tally->first_error, sizeof tally->first_error, "%.*s", (int)reply->text_len, reply->text);
}

/* Is it the answer to this request? `one` is 0 when it does not count, apart from mistakes. */
static void judge(struct link_kit *kit, uint64_t request, const struct reply *reply, unsigned one)
{
    struct tally *tally = kit->tally;
    bool put = op_of(request) == REQUEST_PUT;
    if (put)
        tally->puts += one;
    else
        tally->gets += one;
    if (reply->kind == REPLY_ERROR)
        note_error(kit, reply);
    else if (put && reply->kind == REPLY_STORED)
        tally->stored += one;
    else if (!put && reply->kind == REPLY_MISS)
        tally->misses += one;
    else if (!put && reply->kind == REPLY_VALUE && reply->value_len == sizes_of(kit->sizes, request >> 1))
        tally->hits += one;
    else
        note_wrong(kit, request, reply);
}

/* A request is awaited once its first byte was sent: a refusal may come early. */
static bool awaits(const struct link *link)
{
    return link->replied < link->sent + (link->sent_part != 0 ? 1 : 0);
}

/* Take all whole replies. 0, or -1 if they answer nothing. */
static int take_closed(struct link *link, struct link_kit *kit, struct bytes *bytes, uint64_t now_ns)
{
    uint64_t puts = 0;
    uint64_t begin = link->replied;
    bool counted = kit->counting && (link->measured || !kit->only_measured);
    struct reply reply;
    enum inbox_next next;
    while ((next = inbox_take(&link->inbox, kit->requests.protocol, bytes, &reply)) == INBOX_REPLY) {
        if (!awaits(link))
            return -1;
        uint64_t request = link->ring[link->replied++ & link->mask];
        puts += request & 1;
        judge(kit, request, &reply, counted ? 1 : 0);
    }
    if (kit->counting && link->measured) {
        uint64_t all = link->replied - begin;
        histogram_add_many(&kit->tally->put_ns, now_ns - link->start_ns, puts);
        histogram_add_many(&kit->tally->get_ns, now_ns - link->start_ns, all - puts);
    }
    return next == INBOX_EMPTY ? 0 : -1;
}

static int take_open(struct link *link, struct link_kit *kit, struct bytes *bytes, uint64_t now_ns)
{
    struct reply reply;
    enum inbox_next next;
    while ((next = inbox_take(&link->inbox, kit->requests.protocol, bytes, &reply)) == INBOX_REPLY) {
        if (!awaits(link))
            return -1;
        uint64_t due_ns = link_due_ns(link, kit, link->replied - link->base);
        uint64_t request = link->ring[link->replied++ & link->mask];
        bool measured = kit->counting && due_ns >= kit->measure_ns;
        judge(kit, request, &reply, measured || (kit->counting && !kit->only_measured) ? 1 : 0);
        if (measured)
            histogram_add(op_of(request) == REQUEST_PUT ? &kit->tally->put_ns : &kit->tally->get_ns, now_ns - due_ns);
    }
    return next == INBOX_EMPTY ? 0 : -1;
}

int64_t link_receive(struct link *link, struct link_kit *kit)
{
    uint8_t *in = kit->in + PROTOCOL_HEAD_MAX;
    ssize_t received;
    do
        received = recv(link->fd, in, IN_BYTES, MSG_DONTWAIT);
    while (received < 0 && errno == EINTR);
    if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (received <= 0) {
        (void)snprintf(kit->failure, sizeof kit->failure, "%s",
                       received == 0 ? "the server closed the connection" : strerror(errno));
        return -1;
    }
    uint64_t now_ns = link_now_ns();
    uint64_t before = link->replied;
    link->heard_ns = now_ns;
    if (kit->counting)
        kit->tally->bytes_received += (uint64_t)received;
    struct bytes bytes = {.at = inbox_begin(&link->inbox, in), .end = in + received};
    int failed = kit->interval_ns > 0.0 ? take_open(link, kit, &bytes, now_ns)
                                        : take_closed(link, kit, &bytes, now_ns);
    if (failed != 0) {
        (void)snprintf(kit->failure, sizeof kit->failure,
                       "what came is no reply of a %s server to what was asked", kit->requests.protocol->name);
        return -1;
    }
    return (int64_t)(link->replied - before);
}
