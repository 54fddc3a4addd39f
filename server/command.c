/* SPDX-License-Identifier: MIT */
/*
 * The commands. First the replies, which know TAG and QUIET so that the commands need not; then one function per
 * request, do_NAME(), and the switch that calls them. dispatch has made sure that the reply has room, so that no
 * command can fail half-way for want of output.
 */
#include "server/command.h"

#include <assert.h>
#include <string.h>

#include "crabcache/version.h"
#include "server/auth.h"
#include "server/dispatch.h"

static_assert(CRAB_TTL_NEVER == STORE_NEVER, "the wire and the store agree on what never expires");
static_assert(CRAB_MAX_KEY == STORE_MAX_KEY, "the wire and the store agree on the longest key");
static_assert(STATS_TEXT_BYTES <= CRAB_MAX_STATS_TEXT, "STATS is not too long for the wire");
static_assert(COMMAND_REPLY_ROOM - COMMAND_COPY_MAX >= 2 * (CRAB_MAX_ERROR_TEXT + 32) + 64, "room for an error");

#define SERVER_NAME "crabcache-server " CRAB_VERSION_STRING

/* --------------------------------------------------------------------------------------------- replies */

/* Encode a reply into the output; nothing if the request is quiet. */
#define REPLY(c, type, ...)                                                                                    \
    do {                                                                                                       \
        if (((c)->flags & CRAB_FLAG_QUIET) == 0) {                                                             \
            struct crab_rep_##type reply = {.tagged = is_tagged(c), .tag = (c)->tag, __VA_ARGS__};             \
            wrote((c)->out, crab_rep_##type##_encode(&reply, room_at((c)->out), room_of((c)->out)));           \
        }                                                                                                      \
    } while (0)

static bool is_tagged(const struct command *c)
{
    return (c->flags & CRAB_FLAG_TAG) != 0;
}

static uint8_t *room_at(const struct buf_out *out)
{
    return out->data + out->len;
}

static size_t room_of(const struct buf_out *out)
{
    return out->cap - out->len;
}

static void wrote(struct buf_out *out, size_t len)
{
    assert(len != 0); /* dispatch saw to the room */
    out->len += len;
}

void command_fail(struct command *c, uint16_t code)
{
    struct crab_slice text = crab_slice_str(crab_error_text(code));
    struct stats_worker *counters = c->env->counters;
    c->failed = true;
    if (crab_error_closes(code)) {
        stats_add(&counters->fatal_errors, 1);
        struct crab_rep_error reply = {.code = code, .text = text};
        wrote(c->out, crab_rep_error_encode(&reply, room_at(c->out), room_of(c->out)));
    } else if ((c->flags & CRAB_FLAG_QUIET) != 0) {
        stats_add(&counters->late_errors, 1);
        struct crab_push_late_error push = {.late_tag = c->tag, .code = code, .text = text};
        wrote(c->out, crab_push_late_error_encode(&push, room_at(c->out), room_of(c->out)));
    } else {
        stats_add(&counters->errors, 1);
        REPLY(c, error, .code = code, .text = text);
    }
}

static void reply_ok(struct command *c)
{
    REPLY(c, ok, );
}

/* Answer what the store says where nothing but success is special. */
static void reply_result(struct command *c, enum store_result result)
{
    switch (result) {
    case STORE_OK:
        reply_ok(c);
        return;
    case STORE_ABSENT:
        REPLY(c, null, );
        return;
    case STORE_NO_MEMORY:
        command_fail(c, CRAB_ERR_OUT_OF_MEMORY);
        return;
    case STORE_TOO_LARGE:
        command_fail(c, CRAB_ERR_VALUE_TOO_LARGE);
        return;
    case STORE_NOT_A_NUMBER:
        command_fail(c, CRAB_ERR_NOT_A_NUMBER);
        return;
    case STORE_OVERFLOW:
        command_fail(c, CRAB_ERR_OVERFLOW);
        return;
    case STORE_EXISTS: /* only PUT has conditions, and answers this itself */
        break;
    }
    command_fail(c, CRAB_ERR_INTERNAL);
}

/* Keep a large value in place until it is sent: pinned in the store, or else copied. */
static bool hold_value(struct command *c, const struct store_view *view, struct buf_ref *ref)
{
    *ref = (struct buf_ref){.data = view->value, .len = view->value_len, .pin = view->pin};
    if (store_pin(c->env->worker, view)) {
        stats_add(&c->env->counters->values_by_reference, 1);
        return true;
    }
    if (!buf_take(c->env->pool, view->value_len, &ref->copy))
        return false;
    memcpy(ref->copy.data, view->value, view->value_len);
    ref->data = ref->copy.data;
    return true;
}

static void reply_view(struct command *c, const struct store_view *view, bool meta, uint16_t busy)
{
    struct crab_rep_value value = {.tagged = is_tagged(c), .tag = c->tag};
    struct crab_rep_meta full = {.tagged = is_tagged(c), .tag = c->tag, .version = view->version,
                                 .ttl_ms = view->ttl_ms, .app_flags = view->app_flags};
    value.value = crab_slice_of(view->value, view->value_len);
    full.value = value.value;
    uint8_t *to = room_at(c->out);
    size_t room = room_of(c->out);
    if (view->value_len <= COMMAND_COPY_MAX) {
        wrote(c->out, meta ? crab_rep_meta_encode(&full, to, room) : crab_rep_value_encode(&value, to, room));
        return;
    }
    struct buf_ref ref;
    if (!hold_value(c, view, &ref)) {
        command_fail(c, busy);
        return;
    }
    wrote(c->out, meta ? crab_rep_meta_encode_head(&full, to, room) : crab_rep_value_encode_head(&value, to, room));
    buf_out_refer(c->out, &ref);
}

/* -------------------------------------------------------------------------------------------- commands */

/* One handler per request of the specification: one that is missing does not compile. */
#define DECLARE(name, NAME) static void do_##name(struct command *c, const struct crab_req_##name *m);
CRAB_FOR_EACH_REQUEST(DECLARE)
#undef DECLARE

static void do_ping(struct command *c, const struct crab_req_ping *m)
{
    (void)m;
    REPLY(c, pong, );
}

static void do_put(struct command *c, const struct crab_req_put *m)
{
    struct store_put_args args = {
        .value = m->value.data,
        .value_len = m->value.len,
        .ttl_ms = (m->flags & CRAB_PUT_TTL) != 0 ? m->ttl_ms : STORE_NEVER,
        .app_flags = m->app_flags,
        .version = m->version,
        .version_unwanted = (m->flags & CRAB_PUT_WANT_VERSION) == 0,
    };
    switch (m->flags & CRAB_PUT_COND_MASK) {
    case CRAB_PUT_IF_ABSENT:
        args.condition = STORE_IF_ABSENT;
        break;
    case CRAB_PUT_IF_PRESENT:
        args.condition = STORE_IF_PRESENT;
        break;
    case CRAB_PUT_IF_VERSION:
        args.condition = STORE_IF_VERSION;
        break;
    default:
        args.condition = STORE_ALWAYS;
        break;
    }
    uint64_t version = 0;
    const struct store_stream *stream = c->env->stream;
    c->env->stream = NULL;
    enum store_result result = stream != NULL
                                   ? store_stream_put(c->env->worker, &c->key, &args, stream, &version)
                                   : store_put(c->env->worker, &c->key, &args, &version);
    if (result == STORE_OK && (m->flags & CRAB_PUT_WANT_VERSION) != 0)
        REPLY(c, stored, .version = version);
    else if (result == STORE_EXISTS)
        REPLY(c, exists, .version = version);
    else
        reply_result(c, result);
}

static void do_get(struct command *c, const struct crab_req_get *m)
{
    struct store_view view;
    bool touch = (m->flags & CRAB_GET_TTL) != 0;
    bool meta = (m->flags & CRAB_GET_META) != 0;
    enum store_result result = touch  ? store_touch(c->env->worker, &c->key, m->ttl_ms, &view)
                               : meta ? store_get(c->env->worker, &c->key, &view)
                                      : store_get_value(c->env->worker, &c->key, &view);
    /* A touch that cannot be answered did happen: then the outcome is not "nothing changed". */
    if (result == STORE_OK)
        reply_view(c, &view, meta, touch ? CRAB_ERR_INTERNAL : CRAB_ERR_BUSY);
    else
        reply_result(c, result);
    /* The reply has the bytes, or a pin on them. A view that lasted longer would stand in the way of writes, which
     * may need just that memory. */
    store_release_views(c->env->worker);
}

static void do_del(struct command *c, const struct crab_req_del *m)
{
    (void)m;
    reply_result(c, store_delete(c->env->worker, &c->key));
}

static void do_expire(struct command *c, const struct crab_req_expire *m)
{
    reply_result(c, store_expire(c->env->worker, &c->key, m->ttl_ms));
}

static void do_stats(struct command *c, const struct crab_req_stats *m)
{
    size_t len = stats_render(c->env->stats, (const char *)m->key.data, m->key.len, c->env->text);
    if (len == 0)
        command_fail(c, CRAB_ERR_UNKNOWN_SECTION);
    else
        REPLY(c, stats, .text = crab_slice_of(c->env->text, len));
}

static void do_hello(struct command *c, const struct crab_req_hello *m)
{
    if (c->session->started) {
        command_fail(c, CRAB_ERR_BAD_STATE);
        return;
    }
    if (m->version_min > m->version_max || m->version_min > CRAB_PROTOCOL_VERSION) {
        command_fail(c, CRAB_ERR_UNSUPPORTED_VERSION);
        return;
    }
    c->session->started = true;
    c->session->features = m->features & CRAB_FEATURE_PUSH;
    REPLY(c, welcome, .version = CRAB_PROTOCOL_VERSION, .features = c->session->features, .max_key = CRAB_MAX_KEY,
          .max_value = c->env->max_value, .max_in_flight = CRAB_MAX_IN_FLIGHT,
          .server_name = crab_slice_str(SERVER_NAME));
}

static void do_auth(struct command *c, const struct crab_req_auth *m)
{
    struct auth *auth = c->env->auth;
    const struct auth_attempt attempt = {m->key.data, m->key.len, m->value.data, m->value.len, c->session->source};
    enum auth_result result = auth != NULL ? auth_check(auth, &attempt, c->env->scratch) : AUTH_WRONG;
    if (result == AUTH_LATER) { /* nothing was executed, so nothing changes [P-3.5.6] */
        stats_add(&c->env->counters->auth_throttled, 1);
        command_fail(c, CRAB_ERR_BUSY);
        return;
    }
    c->session->authenticated = result == AUTH_GOOD;
    if (result == AUTH_GOOD) {
        c->session->failures = 0;
        reply_ok(c);
    } else {
        if (auth != NULL) /* without users every AUTH fails, and costs nothing */
            c->session->failures++;
        stats_add(&c->env->counters->auth_failures, 1);
        command_fail(c, CRAB_ERR_AUTH_FAILED);
    }
}

static void do_flush(struct command *c, const struct crab_req_flush *m)
{
    (void)m;
    store_flush(c->env->worker);
    reply_ok(c);
}

static void add(struct command *c, const struct store_incr_args *args)
{
    int64_t number;
    enum store_result result = store_incr(c->env->worker, &c->key, args, &number);
    if (result == STORE_OK)
        REPLY(c, number, .value = number);
    else
        reply_result(c, result);
}

static void do_incr(struct command *c, const struct crab_req_incr *m)
{
    const struct store_incr_args args = {
        .delta = m->delta,
        .has_initial = (m->flags & CRAB_INCR_INITIAL) != 0,
        .initial = m->initial,
        .ttl_ms = (m->flags & CRAB_INCR_TTL) != 0 ? m->ttl_ms : STORE_NEVER,
    };
    add(c, &args);
}

static void do_decr(struct command *c, const struct crab_req_decr *m)
{
    const struct store_incr_args args = {
        .delta = m->delta,
        .negative = true,
        .has_initial = (m->flags & CRAB_DECR_INITIAL) != 0,
        .initial = m->initial,
        .ttl_ms = (m->flags & CRAB_DECR_TTL) != 0 ? m->ttl_ms : STORE_NEVER,
    };
    add(c, &args);
}

void command_execute(struct command *c, const union crab_request *request)
{
    switch (request->head.op) {
#define CALL(name, NAME)                                                                                       \
    case CRAB_OP_##NAME:                                                                                       \
        do_##name(c, &request->name);                                                                          \
        break;
        CRAB_FOR_EACH_REQUEST(CALL)
#undef CALL
    default:
        assert(false && "the decoder lets only known ops pass");
        break;
    }
}
