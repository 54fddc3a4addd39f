/* SPDX-License-Identifier: MIT */
/*
 * Cache-aside in flights, with the exact meaning of one request after the other for each key.
 *
 *     flight n:   puts of the misses of flight n-1 | gets for keys that missed twice in it | gets of new requests
 *
 * A flight is written whole, then all its answers are read.  Servers execute it in order, so a request always finds what
 * an earlier request for its key has put: the first miss of a key in a flight will put it, and further misses of the same
 * key, which came before that put could be sent, are asked again after it and count only if they miss then too.  So the
 * order of requests for different keys is changed by at most one flight, in the same way for every server.
 *
 * A flight's gets are bounded in number and in the bytes of their values, so that the answers that wait in a server take
 * no noticeable part of its memory.  Writing cannot block for good: answers to puts are short, and the gets that end a
 * flight (at most 1024 of 64 bytes) fit the buffers of a socket even while a server waits for its answers to be read.
 */
#include "tests/bench/hit_ratio/aside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client/load/random.h"
#include "client/replay/keys.h"
#include "client/replay/value.h"

#define OUT_BYTES ((size_t)256 * 1024)
#define IN_BYTES ((size_t)256 * 1024)
#define ANSWER_TIMEOUT_S 60

struct wanted {
    uint64_t hash;
    uint32_t value_len;
    uint8_t key[ASIDE_KEY_BYTES];
};

struct aside {
    const struct aside_options *options;
    const struct protocol *protocol;
    struct source *source;
    struct aside_result *result;
    struct keys keys;
    int fd;
    uint8_t tail[2]; /* what ends a value in this protocol */
    uint32_t tail_len;
    bool ended; /* the stream has no more requests */
    uint64_t stream_requests;
    uint32_t copy;         /* of the current request, which is next; 0: read another */
    struct wanted current; /* without its key */
    uint32_t put_count, get_count;
    struct wanted puts[ASIDE_MAX_BATCH]; /* of the flight that is being prepared */
    struct wanted gets[ASIDE_MAX_BATCH];
    size_t out_len;
    uint8_t out[OUT_BYTES];
    size_t in_first, in_last, in_capacity;
    uint8_t *in;
};

__attribute__((format(printf, 2, 3))) static int fail(struct aside *aside, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(aside->result->error, sizeof aside->result->error, format, arguments);
    va_end(arguments);
    return -1;
}

/* ---- the stream */

static void make_key(struct wanted *wanted)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < ASIDE_KEY_BYTES; i++)
        wanted->key[i] = (uint8_t)digits[(wanted->hash >> (60 - 4 * i)) & 15];
}

/* Read the next request of the stream. 1: there is one; 0: no more; -1: failed. */
static int read_stream(struct aside *aside)
{
    struct request request;
    int found = aside->stream_requests < aside->options->limit ? source_next(aside->source, &request) : 0;
    if (found < 0)
        return fail(aside, "%s", source_error(aside->source));
    if (found == 0)
        return 0;
    aside->stream_requests++;
    uint64_t bytes = (uint64_t)request.value_bytes * aside->options->scale;
    if (bytes > ASIDE_MAX_VALUE)
        return fail(aside, "request %llu: a value of %llu bytes, at most %u are possible",
                    (unsigned long long)aside->stream_requests, (unsigned long long)bytes, ASIDE_MAX_VALUE);
    aside->current.hash = value_hash(request.key, request.key_len);
    aside->current.value_len = (uint32_t)bytes;
    return 1;
}

/* Take the next request: the stream's, or another copy of it. 1: there is one; 0: no more; -1: failed. */
static int take(struct aside *aside, struct wanted *wanted)
{
    struct aside_result *result = aside->result;
    if (aside->copy == 0) {
        int found = read_stream(aside);
        if (found != 1)
            return found;
    }
    *wanted = aside->current;
    if (aside->copy != 0)
        wanted->hash = random_mix(wanted->hash + aside->copy * RANDOM_STEP) | 1; /* never 0, which keys.c reserves */
    aside->copy = (aside->copy + 1) % aside->options->copies;
    make_key(wanted);
    size_t known = aside->keys.count;
    if (keys_find(&aside->keys, wanted->hash) == NULL)
        return fail(aside, "no memory for the keys of the stream");
    if (aside->keys.count != known)
        result->footprint += ASIDE_KEY_BYTES + (uint64_t)wanted->value_len;
    if (wanted->value_len > result->longest)
        result->longest = wanted->value_len;
    result->requests++;
    return 1;
}

/* Add new requests to the gets of the flight. */
static int fill_flight(struct aside *aside)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < aside->get_count; i++)
        bytes += aside->gets[i].value_len;
    while (!aside->ended && aside->get_count < aside->options->batch && bytes < ASIDE_BATCH_BYTES) {
        int found = take(aside, &aside->gets[aside->get_count]);
        if (found < 0)
            return -1;
        aside->ended = found == 0;
        if (found == 1)
            bytes += aside->gets[aside->get_count++].value_len;
    }
    return 0;
}

/* ---- the connection */

static int connect_to(struct aside *aside)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(aside->options->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
    int on = 1;
    aside->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (aside->fd < 0 || setsockopt(aside->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        setsockopt(aside->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
        setsockopt(aside->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0 ||
        connect(aside->fd, (struct sockaddr *)&address, sizeof address) != 0)
        return fail(aside, "cannot connect to 127.0.0.1:%u: %s", aside->options->port, strerror(errno));
    return 0;
}

static int flush(struct aside *aside)
{
    for (size_t sent = 0; sent < aside->out_len;) {
        ssize_t wrote = send(aside->fd, aside->out + sent, aside->out_len - sent, MSG_NOSIGNAL);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return fail(aside, "cannot send: %s", strerror(errno));
        sent += (size_t)wrote;
    }
    aside->out_len = 0;
    return 0;
}

static int write_bytes(struct aside *aside, const void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        if (aside->out_len == OUT_BYTES && flush(aside) != 0)
            return -1;
        size_t room = OUT_BYTES - aside->out_len;
        size_t part = len - done < room ? len - done : room;
        memcpy(aside->out + aside->out_len, (const uint8_t *)bytes + done, part);
        aside->out_len += part;
        done += part;
    }
    return 0;
}

/* A value is its key over and over, so that another key's value is seen; each answer is checked at both ends. */
static int write_value(struct aside *aside, const struct wanted *wanted)
{
    uint8_t piece[64 * ASIDE_KEY_BYTES];
    for (size_t i = 0; i < sizeof piece; i += ASIDE_KEY_BYTES)
        memcpy(piece + i, wanted->key, ASIDE_KEY_BYTES);
    for (uint32_t left = wanted->value_len; left != 0;) {
        uint32_t part = left < sizeof piece ? left : (uint32_t)sizeof piece;
        if (write_bytes(aside, piece, part) != 0)
            return -1;
        left -= part;
    }
    return 0;
}

static int write_put(struct aside *aside, const struct wanted *put)
{
    struct frame frame;
    aside->protocol->put(&frame, ASIDE_KEY_BYTES, put->value_len);
    memcpy(frame.bytes + frame.key_at, put->key, ASIDE_KEY_BYTES);
    if (write_bytes(aside, frame.bytes, frame.len) != 0 || write_value(aside, put) != 0)
        return -1;
    return write_bytes(aside, frame.tail, frame.tail_len);
}

static int write_flight(struct aside *aside)
{
    struct frame frame;
    for (uint32_t i = 0; i < aside->put_count; i++) {
        if (write_put(aside, &aside->puts[i]) != 0)
            return -1;
    }
    aside->protocol->get(&frame, ASIDE_KEY_BYTES);
    for (uint32_t i = 0; i < aside->get_count; i++) {
        memcpy(frame.bytes + frame.key_at, aside->gets[i].key, ASIDE_KEY_BYTES);
        if (write_bytes(aside, frame.bytes, frame.len) != 0)
            return -1;
    }
    return flush(aside);
}

/* Make room for `needed` bytes in all from in_first on, and receive some. */
static int receive(struct aside *aside, size_t needed)
{
    memmove(aside->in, aside->in + aside->in_first, aside->in_last - aside->in_first);
    aside->in_last -= aside->in_first;
    aside->in_first = 0;
    if (needed > aside->in_capacity) {
        uint8_t *grown = realloc(aside->in, needed);
        if (grown == NULL)
            return fail(aside, "no memory for an answer of %zu bytes", needed);
        aside->in = grown;
        aside->in_capacity = needed;
    }
    for (;;) {
        ssize_t got = recv(aside->fd, aside->in + aside->in_last, aside->in_capacity - aside->in_last, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fail(aside, "cannot receive: %s", got == 0 ? "the server closed the connection" : strerror(errno));
        aside->in_last += (size_t)got;
        return 0;
    }
}

/* Show how the answer begins. */
static int fail_answer(struct aside *aside, const uint8_t *first)
{
    char shown[41];
    size_t len = 0;
    for (; first < aside->in + aside->in_last && len < sizeof shown - 1; first++)
        shown[len++] = (char)(*first >= ' ' && *first < 0x7f ? *first : '.');
    shown[len] = '\0';
    return fail(aside, "%s answered something unexpected: %s", aside->protocol->name, shown);
}

/* The next answer, whole; where it begins, valid until the next call; NULL: failed. */
static const uint8_t *next_answer(struct aside *aside, struct reply *reply)
{
    for (;;) {
        const uint8_t *first = aside->in + aside->in_first;
        size_t len = aside->in_last - aside->in_first;
        enum parsed parsed = len != 0 ? aside->protocol->parse(first, len, reply) : PARSED_MORE;
        if (parsed == PARSED_BROKEN ||
            (parsed == PARSED_HEAD && reply->kind == REPLY_VALUE && reply->value_len > ASIDE_MAX_VALUE)) {
            (void)fail_answer(aside, first);
            return NULL;
        }
        if (parsed == PARSED_HEAD && reply->size <= len) {
            aside->in_first += (size_t)reply->size;
            return first;
        }
        if (receive(aside, parsed == PARSED_HEAD ? (size_t)reply->size : len + 1) != 0)
            return NULL;
    }
}

/* The value of an answer is the last of it but for what ends a value in this protocol, as it does in a put. */
static bool value_fits(struct aside *aside, const struct wanted *wanted, const uint8_t *answer,
                       const struct reply *reply)
{
    const struct key_entry *entry = keys_find(&aside->keys, wanted->hash);
    size_t len = (size_t)reply->value_len;
    const uint8_t *end = answer + reply->size - aside->tail_len;
    size_t head = len < ASIDE_KEY_BYTES ? len : ASIDE_KEY_BYTES;
    size_t rest = len % ASIDE_KEY_BYTES;
    return entry != NULL && entry->length == len && memcmp(end, aside->tail, aside->tail_len) == 0 &&
           memcmp(end - len, wanted->key, head) == 0 && memcmp(end - rest, wanted->key, rest) == 0;
}

/* Whether a server had no room for a value; each says it in its own words. */
static bool is_refusal(const struct reply *reply)
{
    static const char *const words[] = {"memory", "too large", "longer than the limit", "short of resources"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (memmem(reply->text, reply->text_len, words[i], strlen(words[i])) != NULL)
            return true;
    }
    return false;
}

/* ---- flights */

static int read_puts(struct aside *aside)
{
    struct reply reply;
    for (uint32_t i = 0; i < aside->put_count; i++) {
        struct key_entry *entry = keys_find(&aside->keys, aside->puts[i].hash);
        const uint8_t *answer = next_answer(aside, &reply);
        if (entry == NULL || answer == NULL)
            return -1;
        if (reply.kind == REPLY_STORED)
            entry->length = aside->puts[i].value_len;
        else if (reply.kind == REPLY_ERROR && is_refusal(&reply))
            aside->result->refused++;
        else
            return fail_answer(aside, answer);
    }
    aside->put_count = 0;
    return 0;
}

static bool is_to_be_put(const struct aside *aside, uint64_t hash)
{
    for (uint32_t i = 0; i < aside->put_count; i++) {
        if (aside->puts[i].hash == hash)
            return true;
    }
    return false;
}

/* Leaves the puts of the next flight in puts, and what must be asked again at the head of gets. */
static int read_gets(struct aside *aside)
{
    uint32_t again = 0;
    struct reply reply;
    for (uint32_t i = 0; i < aside->get_count; i++) {
        const struct wanted *wanted = &aside->gets[i];
        const uint8_t *answer = next_answer(aside, &reply);
        if (answer == NULL)
            return -1;
        if (reply.kind == REPLY_VALUE) {
            if (!value_fits(aside, wanted, answer, &reply))
                return fail(aside, "%s returned a wrong value of %llu bytes for key %.*s", aside->protocol->name,
                            (unsigned long long)reply.value_len, (int)ASIDE_KEY_BYTES, (const char *)wanted->key);
        } else if (reply.kind != REPLY_MISS) {
            return fail_answer(aside, answer);
        } else if (is_to_be_put(aside, wanted->hash)) {
            aside->gets[again++] = *wanted;
        } else {
            aside->puts[aside->put_count++] = *wanted;
            aside->result->misses++;
        }
    }
    aside->get_count = again;
    return 0;
}

static int replay(struct aside *aside)
{
    struct frame put;
    aside->protocol->put(&put, ASIDE_KEY_BYTES, 0);
    memcpy(aside->tail, put.tail, sizeof aside->tail);
    aside->tail_len = put.tail_len;
    for (;;) {
        if (fill_flight(aside) != 0)
            return -1;
        if (aside->put_count == 0 && aside->get_count == 0)
            return 0;
        if (write_flight(aside) != 0 || read_puts(aside) != 0 || read_gets(aside) != 0)
            return -1;
    }
}

static int count_only(struct aside *aside)
{
    struct wanted wanted;
    int found;
    while ((found = take(aside, &wanted)) == 1)
        continue;
    return found;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

int aside_run(const struct aside_options *options, struct source *source, struct aside_result *result)
{
    int status = -1;
    struct aside *aside = malloc(sizeof *aside);
    *result = (struct aside_result){0};
    if (aside == NULL) {
        (void)snprintf(result->error, sizeof result->error, "no memory");
        return -1;
    }
    memset(aside, 0, sizeof *aside);
    aside->options = options;
    aside->protocol = options->protocol;
    aside->source = source;
    aside->result = result;
    aside->fd = -1;
    aside->in_capacity = IN_BYTES;
    aside->in = malloc(IN_BYTES);
    uint64_t start_ns = now_ns();
    if (aside->in == NULL)
        (void)fail(aside, "no memory");
    else if (options->protocol == NULL)
        status = count_only(aside);
    else if (connect_to(aside) == 0)
        status = replay(aside);
    result->elapsed_ns = now_ns() - start_ns;
    result->keys = aside->keys.count;
    if (aside->fd >= 0)
        (void)close(aside->fd);
    keys_fini(&aside->keys);
    free(aside->in);
    free(aside);
    return status;
}
