/* SPDX-License-Identifier: MIT */
/*
 * Pipelines with known answers; see story.h.  Each value names its request, so that an answer to another one is seen.
 */
#include "tests/support/story.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/internal.h"
#include "tests/support/counting.h"

#define FIRST_NUMBER 1000U
#define SILENCE_MS 3U
#define PATIENCE_MS 20000U
#define LATE_MS 5000U /* what a busy machine may add to a deadline */

enum kind { PING, PUT, PUT_VERSION, PUT_ABSENT, GET, GET_MISS, GET_META, GET_INTO, DEL, EXPIRE, INCR, STATS, FLUSH, REFUSED, KINDS };

struct step {
    struct story *story;
    enum kind kind;
    uint32_t number; /**< In the values that belong to it. */
    size_t len;      /**< Of its value. */
    size_t from, to; /**< Its reply in the stream. */
    size_t poured;   /**< What its sink has. */
    unsigned ends;   /**< How often it was told its end, */
    bool good;       /**< the last time by the right reply. */
};

struct story {
    const struct story_plan *plan;
    uint64_t random;
    struct counting counting;
    struct crab_conn *conn;
    int server; /**< The other end; -1: closed. */
    struct step steps[STORY_STEPS];
    unsigned count;
    size_t len;     /**< Of the stream. */
    size_t harmed;  /**< Bytes before this one are as they should be. */
    bool slow;      /**< The deadline of a silent server passed before all its bytes were fed: on a busy machine. */
    uint8_t *stream;
};

#define MUST(story, condition) must((story), (condition), #condition, __LINE__)

static void must(const struct story *story, bool good, const char *what, int line)
{
    const struct story_plan *p = story->plan;
    if (!good)
        fail_msg("story.c:%d: %s: seed %llu, %u steps, fault %d at %zu, events %d, tags %d: %s", line, what,
                 (unsigned long long)p->seed, p->steps, (int)p->fault, p->at, p->events, p->tags,
                 story->conn != NULL ? crab_conn_error_text(story->conn) : "");
}

static uint64_t draw(struct story *story, uint64_t below)
{
    uint64_t x = story->random += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return (x ^ (x >> 31)) % below;
}

static uint8_t value_byte(uint32_t number, size_t i)
{
    return (uint8_t)(i < 4 ? number >> (8 * i) : (size_t)number * 31 + i * 7 + i / 256);
}

static bool is_value(const struct step *step, const uint8_t *bytes, size_t offset, size_t len)
{
    bool same = offset + len <= step->len;
    for (size_t i = 0; same && i < len; i++)
        same = bytes[i] == value_byte(step->number, offset + i);
    return same;
}

/* ---- requests, and what is heard of them */

static void pour(void *context, const struct crab_result *head, size_t offset, struct crab_slice piece)
{
    struct step *step = context;
    if (!is_value(step, piece.data, offset, piece.len) || offset != step->poured || head->value.len != step->len)
        step->poured = SIZE_MAX / 2; /* wrong; what comes to that is judged when the end is told */
    step->poured += piece.len;
}

static bool is_right(const struct step *step, const struct crab_result *r)
{
    switch (step->kind) {
    case PING:
        return r->reply == CRAB_REP_PONG;
    case PUT:
    case DEL:
    case EXPIRE:
    case FLUSH:
        return r->reply == CRAB_REP_OK && r->status == CRAB_OK;
    case PUT_VERSION:
        return r->status == CRAB_OK && r->version == step->number;
    case PUT_ABSENT:
        return r->status == CRAB_EXISTS && r->version == step->number;
    case GET_MISS:
        return r->status == CRAB_MISS;
    case GET_META:
        return r->status == CRAB_OK && r->version == step->number && r->value.len == step->len &&
               is_value(step, r->value.data, 0, step->len);
    case GET:
    case STATS:
        return r->status == CRAB_OK && r->value.len == step->len && is_value(step, r->value.data, 0, step->len);
    case GET_INTO:
        return r->status == CRAB_OK && r->value.len == step->len && step->poured == step->len;
    case INCR:
        return r->status == CRAB_OK && r->number == (int64_t)step->number;
    case REFUSED:
        return r->status == CRAB_E_SERVER && r->error == CRAB_ERR_BUSY;
    case KINDS:
        break;
    }
    return false;
}

/* Whether what was told can be the bytes of another request's value: then somebody got what is not his. */
static bool is_anothers(const struct step *step, const struct crab_result *r)
{
    uint32_t number = 0;
    if (r->value.data == NULL || r->value.len < 64 || (r->status != CRAB_OK))
        return false;
    memcpy(&number, r->value.data, sizeof number);
    struct step other = {.number = number, .len = r->value.len};
    return number != step->number && number - FIRST_NUMBER < step->story->count && is_value(&other, r->value.data, 0, other.len);
}

static void told(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    struct step *step = context;
    (void)conn;
    step->ends++;
    step->good = result->reply != 0 && is_right(step, result);
    if (result->reply != 0 && step->story->plan->tags)
        MUST(step->story, !is_anothers(step, result));
}

static enum crab_status ask(struct crab_conn *c, struct step *step)
{
    static const uint8_t value[400] = {1};
    struct crab_put_options version = {.want_version = true}, absent = {.condition = CRAB_IF_ABSENT};
    enum crab_status status;
    switch (step->kind) {
    case PING:
        return crab_conn_queue_ping(c);
    case PUT:
        return crab_conn_queue_put(c, "key", 3, value, step->len % sizeof value, NULL);
    case PUT_VERSION:
        return crab_conn_queue_put(c, "key", 3, value, 9, &version);
    case PUT_ABSENT:
        return crab_conn_queue_put(c, "key", 3, value, 9, &absent);
    case GET:
    case GET_MISS:
    case REFUSED:
        return crab_conn_queue_get(c, "key", 3);
    case GET_META:
        return crab_conn_queue_get_meta(c, "key", 3, 0);
    case GET_INTO:
        status = crab_conn_queue_get(c, "key", 3);
        return status == CRAB_OK ? crab_conn_into(c, pour, step) : status;
    case DEL:
        return crab_conn_queue_del(c, "key", 3);
    case EXPIRE:
        return crab_conn_queue_expire(c, "key", 3, 5);
    case INCR:
        return crab_conn_queue_incr(c, "key", 3, 1, NULL);
    case STATS:
        return crab_conn_queue_stats(c, NULL);
    case FLUSH:
        return crab_conn_queue_flush_all(c);
    case KINDS:
        break;
    }
    return CRAB_E_INVALID;
}

/* ---- the stream of replies */

static void build_reply(const struct step *step, const uint8_t *value, union crab_reply *reply)
{
    struct crab_slice bytes = crab_slice_of(value, step->len);
    switch (step->kind) {
    case PING:
        *reply = (union crab_reply){.pong = {.op = CRAB_REP_PONG}};
        return;
    case PUT_VERSION:
        *reply = (union crab_reply){.stored = {.op = CRAB_REP_STORED, .version = step->number}};
        return;
    case PUT_ABSENT:
        *reply = (union crab_reply){.exists = {.op = CRAB_REP_EXISTS, .version = step->number}};
        return;
    case GET_MISS:
        *reply = (union crab_reply){.null = {.op = CRAB_REP_NULL}};
        return;
    case GET_META:
        *reply = (union crab_reply){
            .meta = {.op = CRAB_REP_META, .version = step->number, .ttl_ms = CRAB_TTL_NEVER, .value = bytes}};
        return;
    case GET:
    case GET_INTO:
        *reply = (union crab_reply){.value = {.op = CRAB_REP_VALUE, .value = bytes}};
        return;
    case STATS:
        *reply = (union crab_reply){.stats = {.op = CRAB_REP_STATS, .text = bytes}};
        return;
    case INCR:
        *reply = (union crab_reply){.number = {.op = CRAB_REP_NUMBER, .value = step->number}};
        return;
    case REFUSED:
        *reply = (union crab_reply){.error = {.op = CRAB_REP_ERROR, .code = CRAB_ERR_BUSY}};
        return;
    case PUT:
    case DEL:
    case EXPIRE:
    case FLUSH:
    case KINDS:
        *reply = (union crab_reply){.ok = {.op = CRAB_REP_OK}};
        return;
    }
}

static void append_reply(struct story *story, struct step *step)
{
    static uint8_t value[40000];
    union crab_reply reply = {.head = {.op = CRAB_REP_OK}};
    for (size_t i = 0; i < step->len; i++)
        value[i] = value_byte(step->number, i);
    build_reply(step, value, &reply);
    reply.head.tagged = story->plan->tags;
    reply.head.tag = (uint32_t)(step - story->steps) + 1;
    step->from = story->len;
    size_t size = crab_reply_encode(&reply, story->stream + story->len, STORY_BYTES - story->len);
    MUST(story, size != 0);
    story->len += size;
    step->to = story->len;
}

static void append_push(struct story *story)
{
    union crab_reply push = {.late_error = {.op = CRAB_PUSH_LATE_ERROR, .late_tag = 9, .code = CRAB_ERR_BUSY}};
    story->len += crab_reply_encode(&push, story->stream + story->len, STORY_BYTES - story->len);
}

static void write_stream(struct story *story)
{
    const struct story_plan *plan = story->plan;
    story->count = plan->steps == 0 ? KINDS : plan->steps;
    for (unsigned i = 0; i < story->count; i++) {
        struct step *step = &story->steps[i];
        step->story = story;
        step->kind = plan->steps == 0 ? (enum kind)i : (enum kind)draw(story, KINDS);
        step->number = (uint32_t)(FIRST_NUMBER + i);
        step->len = plan->steps == 0 ? 70 : draw(story, 12) == 0 && i < 4 ? 20000 + draw(story, 20000) : draw(story, 300);
        if (plan->steps != 0 && draw(story, 16) == 0)
            append_push(story);
        append_reply(story, step);
    }
    story->harmed = plan->fault != STORY_NONE && plan->at < story->len ? plan->at : story->len;
}

/* Corrupted, lost and doubled replies change the stream itself. */
static void harm_stream(struct story *story)
{
    enum story_fault fault = story->plan->fault;
    if (story->harmed == story->len)
        return;
    if (fault == STORY_CORRUPT) {
        story->stream[story->harmed] ^= (uint8_t)(1 + draw(story, 255));
        return;
    }
    const struct step *step = story->steps;
    while (step->to <= story->harmed)
        step++;
    size_t len = step->to - step->from;
    if (fault == STORY_LOST) {
        memmove(story->stream + step->from, story->stream + step->to, story->len - step->to);
        story->len -= len;
        story->harmed = step->from;
    } else if (fault == STORY_TWICE) {
        memmove(story->stream + step->to + len, story->stream + step->to, story->len - step->to);
        memcpy(story->stream + step->to, story->stream + step->from, len);
        story->len += len;
        story->harmed = step->to;
    }
}

/* ---- the run */

static void open_conn(struct story *story)
{
    int ends[2];
    bool silent = story->plan->fault == STORY_SILENCE;
    counting_init(&story->counting);
    struct crab_conn_options options = {.allocator = &story->counting.allocator,
                                        .check_tags = story->plan->tags,
                                        .no_hello = true,
                                        .timeout_ms = silent ? SILENCE_MS : PATIENCE_MS};
    MUST(story, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    story->conn = conn_make(&options);
    MUST(story, story->conn != NULL);
    story->conn->fd = ends[0];
    story->server = ends[1];
    if (story->plan->events)
        MUST(story, crab_conn_use_events(story->conn) == CRAB_OK);
}

static void feed(struct story *story, size_t from, size_t to)
{
    while (from < to) {
        ssize_t sent = send(story->server, story->stream + from, to - from, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            return; /* the client has gone */
        from += (size_t)sent;
    }
}

static void end_stream(struct story *story)
{
    enum story_fault fault = story->plan->fault;
    if (fault == STORY_RESET) {
        (void)close(story->server);
        story->server = -1;
    } else if (fault != STORY_SILENCE && fault != STORY_CANCEL) {
        (void)shutdown(story->server, SHUT_WR);
    }
}

static size_t stream_end(const struct story *story)
{
    enum story_fault fault = story->plan->fault;
    bool stops = fault == STORY_END || fault == STORY_RESET || fault == STORY_SILENCE || fault == STORY_CANCEL;
    return stops ? story->harmed : story->len;
}

/* In random pieces, with a turn after each. */
static void run_events(struct story *story)
{
    size_t end = stream_end(story);
    bool small = end < 3000;
    for (size_t at = 0; at < end && crab_conn_state(story->conn) == CRAB_OK;) {
        size_t piece = 1 + draw(story, small ? 60 : 9000);
        piece = piece < end - at ? piece : end - at;
        feed(story, at, at + piece);
        at += piece;
        (void)crab_conn_process(story->conn, CRAB_EVENT_READ | CRAB_EVENT_WRITE);
    }
    (void)crab_conn_process(story->conn, CRAB_EVENT_READ | CRAB_EVENT_WRITE);
    story->slow = crab_conn_state(story->conn) == CRAB_E_TIMEOUT;
    end_stream(story);
    if (story->plan->fault == STORY_CANCEL)
        return;
    while (crab_conn_state(story->conn) == CRAB_OK && crab_conn_in_flight(story->conn) != 0) {
        if (story->plan->fault == STORY_SILENCE)
            (void)usleep(500);
        (void)crab_conn_process(story->conn, CRAB_EVENT_READ | CRAB_EVENT_WRITE);
    }
}

static void run_blocking(struct story *story)
{
    struct crab_result result;
    if (draw(story, 2) == 0)
        MUST(story, crab_conn_flush(story->conn) == CRAB_OK);
    feed(story, 0, stream_end(story));
    end_stream(story);
    for (unsigned i = 0; i < story->count; i++) {
        struct step *step = &story->steps[i];
        if (story->plan->fault == STORY_CANCEL && step->to > story->harmed)
            return;
        if (crab_conn_next_reply(story->conn, &result) != CRAB_OK) {
            story->slow = step->to <= story->harmed && crab_conn_state(story->conn) == CRAB_E_TIMEOUT;
            break;
        }
        told(story->conn, &result, step);
    }
}

static void check(const struct story *story)
{
    enum story_fault fault = story->plan->fault;
    bool lost_step = fault == STORY_CORRUPT || fault == STORY_LOST || fault == STORY_TWICE;
    for (unsigned i = 0; i < story->count; i++) {
        const struct step *step = &story->steps[i];
        if (step->to <= story->harmed)
            MUST(story, step->good || (story->slow && fault == STORY_SILENCE));
        else if (!lost_step) /* what did not come cannot have been told */
            MUST(story, !step->good);
        MUST(story, story->plan->events ? step->ends == 1 : step->ends <= 1);
        if (step->ends != 0 && !step->good && fault != STORY_CORRUPT && story->plan->tags)
            MUST(story, story->plan->events); /* told why there is no reply, not a wrong one */
    }
    MUST(story, story->counting.blocks == 0);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

size_t story_run(const struct story_plan *plan)
{
    static uint8_t stream[STORY_BYTES];
    struct story story = {.plan = plan, .random = plan->seed, .stream = stream};
    uint64_t began = now_ms();
    write_stream(&story);
    harm_stream(&story);
    open_conn(&story);
    for (unsigned i = 0; i < story.count; i++) {
        MUST(&story, ask(story.conn, &story.steps[i]) == CRAB_OK);
        if (plan->events)
            MUST(&story, crab_conn_then(story.conn, told, &story.steps[i]) == CRAB_OK);
    }
    if (plan->events)
        run_events(&story);
    else
        run_blocking(&story);
    if (story.conn != NULL && crab_conn_state(story.conn) != CRAB_OK)
        MUST(&story, crab_conn_queue_ping(story.conn) == CRAB_E_BROKEN && crab_conn_fd(story.conn) == -1);
    crab_conn_close(story.conn);
    story.conn = NULL;
    if (story.server >= 0)
        (void)close(story.server);
    check(&story);
    MUST(&story, now_ms() - began < LATE_MS);
    return story.len;
}
