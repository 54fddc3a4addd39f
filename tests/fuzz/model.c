/* SPDX-License-Identifier: MIT */
/*
 * The model: for each frame of the stream, in order, work out what must be answered, take the next answer, compare.
 * Time stands still and memory does not run out, so that every answer but the versions is determined.
 */
#include "tests/fuzz/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crabcache/wire.h"

struct item {
    struct item *next;
    uint8_t *key;
    size_t key_len;
    uint8_t *value;
    size_t value_len;
    uint64_t ttl_ms;
    uint64_t version; /* 0: not known yet */
    uint32_t app_flags;
};

struct model {
    struct item *items;
    uint32_t max_value;
    uint32_t features;
    bool started;
    const uint8_t *answers;
    size_t answers_len;
    /* Of the request under way: */
    const struct crab_req_head *head;
    const char *wrong;
};

/* ----------------------------------------------------------------------------------------------- items */

static uint8_t *copy_of(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len + 1);
    if (copy == NULL)
        abort();
    if (len != 0)
        memcpy(copy, data, len);
    copy[len] = 0;
    return copy;
}

static struct item **find(struct model *m, struct crab_slice key)
{
    struct item **at = &m->items;
    while (*at != NULL && ((*at)->key_len != key.len || memcmp((*at)->key, key.data, key.len) != 0))
        at = &(*at)->next;
    return at;
}

static void erase(struct item **at)
{
    struct item *item = *at;
    *at = item->next;
    free(item->key);
    free(item->value);
    free(item);
}

static struct item *set(struct model *m, struct crab_slice key, const uint8_t *value, size_t len)
{
    struct item **at = find(m, key);
    if (*at == NULL) {
        *at = calloc(1, sizeof **at);
        if (*at == NULL)
            abort();
        (*at)->key = copy_of(key.data, key.len);
        (*at)->key_len = key.len;
    }
    uint8_t *copy = copy_of(value, len);
    free((*at)->value);
    (*at)->value = copy;
    (*at)->value_len = len;
    (*at)->version = 0;
    return *at;
}

static void clear(struct model *m)
{
    while (m->items != NULL)
        erase(&m->items);
}

/* --------------------------------------------------------------------------------------------- answers */

static void wrong(struct model *m, const char *what)
{
    if (m->wrong == NULL)
        m->wrong = what;
}

/* Take the next answer off the server's stream. */
static bool take(struct model *m, union crab_reply *reply)
{
    struct crab_frame frame;
    if (m->wrong != NULL)
        return false;
    if (crab_reply_decode(m->answers, m->answers_len, UINT32_MAX, reply, &frame) != CRAB_WHOLE) {
        wrong(m, "an answer is missing, or malformed");
        return false;
    }
    m->answers += frame.size;
    m->answers_len -= (size_t)frame.size;
    return true;
}

static bool is_quiet(const struct model *m)
{
    return (m->head->flags & CRAB_FLAG_QUIET) != 0;
}

/* The next answer must be this one, tagged as the request is; there is none if the request is quiet. */
static bool expect(struct model *m, uint8_t op, union crab_reply *reply)
{
    if (is_quiet(m) || !take(m, reply))
        return false;
    bool tagged = (m->head->flags & CRAB_FLAG_TAG) != 0;
    if (reply->head.op != op)
        wrong(m, "an answer has the wrong op");
    else if (reply->head.tagged != tagged || (tagged && reply->head.tag != m->head->tag))
        wrong(m, "an answer has the wrong tag");
    return m->wrong == NULL;
}

static void expect_plain(struct model *m, uint8_t op)
{
    union crab_reply reply;
    expect(m, op, &reply);
}

static void expect_error(struct model *m, uint16_t code)
{
    union crab_reply reply;
    if (is_quiet(m)) {
        if (take(m, &reply) && (reply.head.op != CRAB_PUSH_LATE_ERROR || reply.late_error.code != code ||
                                reply.late_error.late_tag != m->head->tag))
            wrong(m, "LATE_ERROR is missing or wrong");
    } else if (expect(m, CRAB_REP_ERROR, &reply) && reply.error.code != code) {
        wrong(m, "another error");
    }
}

/* What the server says of an item's version must fit what it said before. */
static void learn(struct model *m, struct item *item, uint64_t version)
{
    if (version == 0)
        wrong(m, "a version is 0");
    else if (item->version != 0 && item->version != version)
        wrong(m, "a version changed by itself");
    item->version = version;
}

/* -------------------------------------------------------------------------------------------- requests */

static void store(struct model *m, const struct crab_req_put *r)
{
    const struct item *before = *find(m, r->key);
    uint64_t former = before != NULL ? before->version : 0;
    struct item *item = set(m, r->key, r->value.data, r->value.len);
    item->ttl_ms = (r->flags & CRAB_PUT_TTL) != 0 ? r->ttl_ms : CRAB_TTL_NEVER;
    item->app_flags = r->app_flags;
    union crab_reply reply;
    if ((r->flags & CRAB_PUT_WANT_VERSION) == 0) {
        expect_plain(m, CRAB_REP_OK);
    } else if (expect(m, CRAB_REP_STORED, &reply)) {
        learn(m, item, reply.stored.version);
        if (item->version == former)
            wrong(m, "a version was used twice");
    }
}

/* IF_VERSION against a version that the model has not seen: the answer tells which it is. */
static bool server_says_equal(const struct model *m)
{
    union crab_reply reply;
    struct crab_frame frame;
    return crab_reply_decode(m->answers, m->answers_len, UINT32_MAX, &reply, &frame) == CRAB_WHOLE &&
           reply.head.op != CRAB_REP_EXISTS;
}

static void check_put(struct model *m, const struct crab_req_put *r)
{
    struct item *item = *find(m, r->key);
    uint8_t condition = r->flags & CRAB_PUT_COND_MASK;
    bool differs = condition == CRAB_PUT_IF_VERSION && item != NULL &&
                   (item->version != 0 ? item->version != r->version : is_quiet(m) || !server_says_equal(m));
    union crab_reply reply;
    if ((condition == CRAB_PUT_IF_PRESENT || condition == CRAB_PUT_IF_VERSION) && item == NULL) {
        expect_plain(m, CRAB_REP_NULL);
    } else if ((condition == CRAB_PUT_IF_ABSENT && item != NULL) || differs) {
        if (expect(m, CRAB_REP_EXISTS, &reply)) {
            learn(m, item, reply.exists.version);
            if (differs && reply.exists.version == r->version)
                wrong(m, "EXISTS with the version that was asked for");
        }
    } else {
        store(m, r);
    }
}

static void check_get(struct model *m, const struct crab_req_get *r)
{
    struct item *item = *find(m, r->key);
    union crab_reply reply;
    if (item == NULL) {
        expect_plain(m, CRAB_REP_NULL);
        return;
    }
    if ((r->flags & CRAB_GET_TTL) != 0)
        item->ttl_ms = r->ttl_ms;
    bool meta = (r->flags & CRAB_GET_META) != 0;
    if (!expect(m, meta ? CRAB_REP_META : CRAB_REP_VALUE, &reply))
        return;
    struct crab_slice value = meta ? reply.meta.value : reply.value.value;
    if (value.len != item->value_len || (value.len != 0 && memcmp(value.data, item->value, value.len) != 0))
        wrong(m, "the wrong value");
    if (meta && (reply.meta.app_flags != item->app_flags || reply.meta.ttl_ms != item->ttl_ms))
        wrong(m, "META is wrong");
    if (meta)
        learn(m, item, reply.meta.version);
}

/* An i64 in its shortest decimal form. */
static bool read_number(const struct item *item, int64_t *number)
{
    const char *text = (const char *)item->value;
    char shortest[24];
    if (item->value_len == 0 || item->value_len > 20 || strlen(text) != item->value_len)
        return false;
    *number = strtoll(text, NULL, 10);
    snprintf(shortest, sizeof shortest, "%" PRId64, *number);
    return strcmp(text, shortest) == 0;
}

static void check_add(struct model *m, const struct crab_req_incr *r, bool negative)
{
    struct item *item = *find(m, r->key);
    int64_t number = r->initial;
    if (item == NULL && (r->flags & CRAB_INCR_INITIAL) == 0) {
        expect_plain(m, CRAB_REP_NULL);
        return;
    }
    if (item != NULL) {
        if (!read_number(item, &number)) {
            expect_error(m, CRAB_ERR_NOT_A_NUMBER);
            return;
        }
        __int128 sum = negative ? (__int128)number - r->delta : (__int128)number + r->delta;
        if (sum > INT64_MAX || sum < INT64_MIN) {
            expect_error(m, CRAB_ERR_OVERFLOW);
            return;
        }
        number = (int64_t)sum;
    }
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRId64, number);
    bool created = item == NULL;
    item = set(m, r->key, (const uint8_t *)text, (size_t)len);
    if (created)
        item->ttl_ms = (r->flags & CRAB_INCR_TTL) != 0 ? r->ttl_ms : CRAB_TTL_NEVER;
    union crab_reply reply;
    if (expect(m, CRAB_REP_NUMBER, &reply) && reply.number.value != number)
        wrong(m, "the wrong number");
}

static void check_hello(struct model *m, const struct crab_req_hello *r)
{
    union crab_reply reply;
    if (m->started) {
        expect_error(m, CRAB_ERR_BAD_STATE);
    } else if (r->version_min > r->version_max || r->version_min > 1) {
        expect_error(m, CRAB_ERR_UNSUPPORTED_VERSION);
    } else if (expect(m, CRAB_REP_WELCOME, &reply)) {
        m->started = true;
        m->features = reply.welcome.features;
        if (reply.welcome.version != 1 || m->features != (r->features & CRAB_FEATURE_PUSH) ||
            reply.welcome.max_value != m->max_value || reply.welcome.max_key != CRAB_MAX_KEY)
            wrong(m, "WELCOME is wrong");
    }
}

static void check_stats(struct model *m, const struct crab_req_stats *r)
{
    static const char *const sections[] = {"server", "connections", "store", "workers", "ops"};
    bool known = r->key.len == 0;
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
        known = known || (strlen(sections[i]) == r->key.len && memcmp(sections[i], r->key.data, r->key.len) == 0);
    if (known)
        expect_plain(m, CRAB_REP_STATS);
    else
        expect_error(m, CRAB_ERR_UNKNOWN_SECTION);
}

static void check_request(struct model *m, const union crab_request *r)
{
    struct item **at = find(m, r->head.key);
    switch (r->head.op) {
    case CRAB_OP_PING:
        expect_plain(m, CRAB_REP_PONG);
        break;
    case CRAB_OP_PUT:
        check_put(m, &r->put);
        break;
    case CRAB_OP_GET:
        check_get(m, &r->get);
        break;
    case CRAB_OP_DEL:
        expect_plain(m, *at != NULL ? CRAB_REP_OK : CRAB_REP_NULL);
        if (*at != NULL)
            erase(at);
        break;
    case CRAB_OP_EXPIRE:
        expect_plain(m, *at != NULL ? CRAB_REP_OK : CRAB_REP_NULL);
        if (*at != NULL)
            (*at)->ttl_ms = r->expire.ttl_ms;
        break;
    case CRAB_OP_STATS:
        check_stats(m, &r->stats);
        break;
    case CRAB_OP_HELLO:
        check_hello(m, &r->hello);
        break;
    case CRAB_OP_AUTH:
        expect_error(m, CRAB_ERR_AUTH_FAILED);
        break;
    case CRAB_OP_FLUSH:
        clear(m);
        expect_plain(m, CRAB_REP_OK);
        break;
    case CRAB_OP_INCR:
        check_add(m, &r->incr, false);
        break;
    case CRAB_OP_DECR: { /* the same fields as INCR */
        struct crab_req_incr incr = {.flags = r->decr.flags, .key = r->decr.key, .delta = r->decr.delta,
                                     .ttl_ms = r->decr.ttl_ms, .initial = r->decr.initial};
        check_add(m, &incr, true);
        break;
    }
    default:
        wrong(m, "the decoder let an unknown op pass");
        break;
    }
}

/* ---------------------------------------------------------------------------------------------- streams */

/* The connection ends with this error: untagged, and nothing after it. */
static void check_fatal(struct model *m, uint16_t code, bool closed)
{
    union crab_reply reply;
    if (!take(m, &reply))
        return;
    if (reply.head.op != CRAB_REP_ERROR || reply.head.tagged || reply.error.code != code)
        wrong(m, "not the fatal error");
    else if (!closed)
        wrong(m, "no close after a fatal error");
}

const char *model_check(struct model *model, const uint8_t *stream, size_t len, const uint8_t *answers,
                        size_t answers_len, bool closed)
{
    model->answers = answers;
    model->answers_len = answers_len;
    bool fatal = false;
    while (len > 0 && model->wrong == NULL && !fatal) {
        union crab_request request;
        struct crab_frame frame;
        enum crab_decode outcome = crab_request_decode(stream, len, model->max_value, &request, &frame);
        uint8_t flags = len >= CRAB_REQUEST_HEADER ? stream[1] : 0;
        uint16_t error = outcome == CRAB_MALFORMED ? frame.error : 0;
        if (error != CRAB_ERR_NOT_CRABCACHE && (flags & CRAB_FLAG_QUIET) != 0 &&
            (model->features & CRAB_FEATURE_PUSH) == 0)
            error = CRAB_ERR_QUIET_MISUSE; /* decided by the header, whether or not the rest has come */
        else if (outcome == CRAB_NEED_MORE)
            break;
        model->head = &request.head;
        fatal = error != 0 && crab_error_closes(error);
        if (fatal)
            check_fatal(model, error, closed);
        else if (error != 0)
            expect_error(model, error);
        else
            check_request(model, &request);
        if (request.head.op != CRAB_OP_HELLO)
            model->started = true;
        if (fatal || frame.size >= len)
            break;
        stream += frame.size;
        len -= (size_t)frame.size;
    }
    if (model->wrong == NULL && model->answers_len != 0)
        wrong(model, "the server says more than it was asked");
    if (model->wrong == NULL && closed != fatal)
        wrong(model, "the server closes without reason");
    return model->wrong;
}

struct model *model_create(uint32_t max_value)
{
    struct model *model = calloc(1, sizeof *model);
    if (model == NULL)
        abort();
    model->max_value = max_value;
    return model;
}

void model_destroy(struct model *model)
{
    clear(model);
    free(model);
}
