/* SPDX-License-Identifier: MIT */
/*
 * From bytes to replies. dispatch_run() is the whole path of a request:
 *
 *     decode up to BATCH_FRAMES as views into the input     batch_decode()
 *     hash their keys, prefetch the index                   batch_prefetch_index()
 *     prefetch the items                                    batch_prefetch_items()
 *     execute them strictly in order, each with its reply   execute()
 *
 * and again until the input holds no whole frame. With the last batch of an input the memory is fetched of the input that
 * dispatch_announce() named: see begin_next(). A batch depends on nothing but its input, so it may be made at any time while
 * that stays as it is. Errors that the decoder found take their turn in the batch like requests, since what comes before them
 * may change the session. Which error a frame gets depends on the session as it is at the frame's turn, and on nothing else:
 * not on whether the frame was whole when it was looked at.
 */
#include "server/dispatch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crabcache/wire.h"
#include "server/auth.h"
#include "server/batch.h"
#include "server/command.h"
#include "server/stats.h"
#include "server/store/store.h"

/* Of the next input so many are begun: more of them would drive those of this one out of the nearest cache. */
#define BATCH_AHEAD 16U

/* What requests cost that take longer than most; see DISPATCH_TURN_COST. */
#define STATS_COST 16U
#define FLUSH_COST 64U

/* Values referred to are sent before more of them are looked up: a slow reader pins no more than this. */
#define REF_BYTES_MAX ((size_t)256 << 10)

static_assert(COMMAND_STATS_ROOM <= DISPATCH_OUT_BYTES, "the longest reply fits an empty output");
static_assert(COMMAND_REPLY_ROOM <= DISPATCH_OUT_BYTES, "any reply fits an empty output");
static_assert(DISPATCH_FRAME_EXTRA >= CRAB_REQUEST_HEADER + 4 + 20 + 2 + CRAB_MAX_EXT + CRAB_MAX_KEY, "extra");

struct dispatch {
    struct command_env env;
    struct buf_releaser releaser;
    struct buf_budget *streams;
    unsigned until_timed; /* requests before the one that is timed, that one included */
    uint64_t random;      /* of the distances between them */
    const uint8_t *announced; /* the input after this one, or NULL */
    size_t announced_len;
    struct batch *now, *next; /* the one in execution, and the one after it */
    struct batch batches[2];
};

/* -------------------------------------------------------------------------------------------- lifetime */

static void release(void *context, struct buf_ref *ref)
{
    struct dispatch *d = context;
    if (ref->copy.data != NULL)
        buf_give(d->env.pool, &ref->copy);
    else
        store_unpin(d->env.worker, ref->pin);
}

int dispatch_create(const struct dispatch_config *config, struct dispatch **dispatch)
{
    struct dispatch *d = aligned_alloc(_Alignof(struct dispatch), sizeof *d);
    if (d == NULL)
        return ENOMEM;
    memset(d, 0, sizeof *d);
    d->env = (struct command_env){
        .store = config->store,
        .auth = config->auth,
        .stats = config->stats,
        .counters = config->counters,
        .pool = config->pool,
        .max_value = config->max_value,
    };
    d->releaser = (struct buf_releaser){release, d};
    d->streams = config->streams;
    d->until_timed = 1;
    d->now = &d->batches[0];
    d->next = &d->batches[1];
    int error = ENOMEM;
    d->env.text = malloc(STATS_TEXT_BYTES);
    if (d->env.text == NULL)
        goto fail;
    if (config->auth != NULL && (d->env.scratch = auth_scratch()) == NULL)
        goto fail;
    error = store_worker_attach(config->store, &d->env.worker);
    if (error != 0)
        goto fail;
    *dispatch = d;
    return 0;
fail:
    dispatch_destroy(d);
    return error;
}

void dispatch_destroy(struct dispatch *dispatch)
{
    if (dispatch == NULL)
        return;
    store_worker_detach(dispatch->env.worker);
    free(dispatch->env.scratch);
    free(dispatch->env.text);
    free(dispatch);
}

const struct buf_releaser *dispatch_releaser(const struct dispatch *dispatch)
{
    return &dispatch->releaser;
}

void dispatch_quiesce(struct dispatch *dispatch)
{
    store_quiesce(dispatch->env.worker);
}

bool dispatch_tick(struct dispatch *dispatch)
{
    return store_tick(dispatch->env.worker);
}

/* --------------------------------------------------------------------------------------- what holds now */

static bool has_room(const struct buf_out *out, uint8_t op)
{
    size_t wanted = op == CRAB_OP_STATS ? COMMAND_STATS_ROOM : COMMAND_REPLY_ROOM;
    return out->cap - out->len >= wanted && out->ref_count < BUF_OUT_REFS && out->ref_bytes < REF_BYTES_MAX;
}

bool dispatch_has_room(const struct buf_out *out)
{
    return has_room(out, CRAB_OP_PUT);
}

static bool must_authenticate(const struct dispatch *d, const struct session *session)
{
    return d->env.auth != NULL && !session->authenticated;
}

bool dispatch_is_settled(const struct dispatch *dispatch, const struct session *session)
{
    return session->started && !must_authenticate(dispatch, session);
}

/* The checks that need the whole frame come after those that need the session. */
static bool is_late_check(uint16_t error)
{
    return error == 0 || error == CRAB_ERR_BAD_EXTENSION || error == CRAB_ERR_UNKNOWN_EXTENSION ||
           error == CRAB_ERR_BAD_FIELD;
}

/* What the session has against a frame whose head is in order; 0: nothing. */
static uint16_t objection(const struct dispatch *d, const struct session *session, uint8_t op, uint64_t size)
{
    if (!must_authenticate(d, session))
        return 0;
    if (size - CRAB_REQUEST_HEADER > CRAB_MAX_BODY_BEFORE_AUTH)
        return CRAB_ERR_AUTH_REQUIRED;
    return op == CRAB_OP_HELLO || op == CRAB_OP_AUTH || op == CRAB_OP_PING ? 0 : CRAB_ERR_AUTH_REQUIRED;
}

static bool is_quiet_misuse(const struct session *session, uint8_t flags)
{
    return (flags & CRAB_FLAG_QUIET) != 0 && (session->features & CRAB_FEATURE_PUSH) == 0;
}

/* ------------------------------------------------------------------------------------------- the stages */

/* Make d->now the batch at the start of an input, which begin_next() may have begun. */
static void take_batch(struct dispatch *d, const uint8_t *in, size_t len)
{
    struct batch *batch = d->now;
    if (d->next->in == in && d->next->len == len) {
        d->now = d->next;
        d->next = batch;
    } else {
        batch_decode(batch, in, len, BATCH_FRAMES, d->env.max_value);
        batch_prefetch_index(batch, d->env.store);
        batch_prefetch_items(batch, d->env.store);
    }
    d->next->in = NULL;
}

/* If d->now is the last batch of its input, begin the one of the next input. */
static void begin_next(struct dispatch *d)
{
    struct batch *next = d->next;
    next->count = 0;
    if (d->now->bytes < d->now->len || d->announced == NULL)
        return;
    batch_decode(next, d->announced, d->announced_len, BATCH_AHEAD, d->env.max_value);
    batch_prefetch_index(next, d->env.store);
}

void dispatch_announce(struct dispatch *dispatch, const uint8_t *in, size_t len)
{
    dispatch->announced = in;
    dispatch->announced_len = len;
    if (in == NULL)
        dispatch->next->in = NULL;
}

static unsigned cost_of(const struct dispatch *d, const struct batch_entry *entry)
{
    if (entry->error != 0)
        return 1;
    switch (entry->request.head.op) {
    case CRAB_OP_AUTH:
        return d->env.auth != NULL ? DISPATCH_TURN_COST : 1;
    case CRAB_OP_FLUSH:
        return FLUSH_COST;
    case CRAB_OP_STATS:
        return STATS_COST;
    default:
        return 1;
    }
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Execute a request, and see how long it takes. The next one comes at an uneven distance: else the first of each batch
 * might be timed, and no other. */
static void execute_timed(struct dispatch *d, struct command *c, const union crab_request *request)
{
    enum stats_timed_op op = stats_timed(request->head.op);
    assert(op < STATS_TIMED_OPS && "the decoder lets only known ops pass");
    uint64_t began = monotonic_ns();
    command_execute(c, request);
    latency_record(&d->env.counters->latency[op], monotonic_ns() - began);
    d->random = d->random * 6364136223846793005U + 1442695040888963407U;
    d->until_timed = 1 + (unsigned)(d->random >> 33) % (2 * LATENCY_EVERY - 1);
}

/* Execute one frame, or say what is wrong with it. Returns whether the connection goes on. */
static bool execute(struct dispatch *d, struct session *session, const struct batch_entry *entry, struct buf_out *out)
{
    const struct crab_req_head *head = &entry->request.head;
    struct command c = {
        .env = &d->env, .session = session, .out = out, .key = entry->key, .tag = head->tag, .flags = head->flags};
    uint16_t error = entry->error;
    if (error != CRAB_ERR_NOT_CRABCACHE && is_quiet_misuse(session, head->flags))
        error = CRAB_ERR_QUIET_MISUSE;
    else if (is_late_check(error)) {
        uint16_t against = objection(d, session, head->op, entry->size);
        error = against != 0 ? against : error;
    }
    stats_add(&d->env.counters->ops[head->op < STATS_OPS ? head->op : 0], 1);
    if (error != 0)
        command_fail(&c, error);
    else if (--d->until_timed != 0)
        command_execute(&c, &entry->request);
    else
        execute_timed(d, &c, &entry->request);
    if (head->op != CRAB_OP_HELLO)
        session->started = true;
    if (session->failures >= DISPATCH_AUTH_FAILURES) {
        dispatch_goaway(d, session, CRAB_ERR_AUTH_FAILED, out);
        return false;
    }
    return error == 0 || !crab_error_closes(error);
}

/* ---- large values, received into their places ---- */

static struct store_stream of_store(const struct dispatch_stream *stream)
{
    return (struct store_stream){
        .value = stream->value, .value_len = stream->value_len, .location = stream->location, .page = stream->page};
}

static void end_stream(struct dispatch *d, struct dispatch_stream *stream)
{
    buf_budget_release(d->streams, stream->value_len);
    *stream = (struct dispatch_stream){.value = NULL};
}

static void set_body(uint8_t *head, size_t len)
{
    crab_store_u32(head + 4, (uint32_t)(len - CRAB_REQUEST_HEADER));
}

bool dispatch_stream_begin(struct dispatch *dispatch, uint8_t *head, size_t len, uint64_t size,
                           struct dispatch_stream *stream)
{
    union crab_request request;
    struct crab_frame frame;
    struct buf_budget *budget = dispatch->streams;
    if (budget == NULL || head[0] != CRAB_OP_PUT || (head[1] & CRAB_FLAG_EXT) != 0)
        return false;
    set_body(head, len); /* as if the value ended here, so that the head can be taken apart */
    enum crab_decode outcome = crab_request_decode(head, len, dispatch->env.max_value, &request, &frame);
    if (outcome == CRAB_WHOLE) {
        const struct crab_req_put *put = &request.put;
        size_t head_len = len - put->value.len;
        struct store_put_args args = {
            .value_len = (size_t)size - head_len, .ttl_ms = STORE_NEVER, .app_flags = put->app_flags};
        struct store_key key = store_key(dispatch->env.store, put->key.data, put->key.len);
        struct store_stream place;
        if (buf_budget_charge(budget, args.value_len, BUF_FOR_CONNECTIONS)) {
            if (store_stream_begin(dispatch->env.worker, &key, &args, &place)) {
                stats_add(&dispatch->env.counters->values_streamed, 1);
                memcpy(place.value, put->value.data, put->value.len);
                set_body(head, head_len);
                *stream = (struct dispatch_stream){.value = place.value, .value_len = place.value_len,
                                                   .head_len = head_len, .location = place.location, .page = place.page};
                return true;
            }
            buf_budget_release(budget, args.value_len);
        }
    }
    set_body(head, (size_t)size);
    return false;
}

void dispatch_stream_end(struct dispatch *dispatch, struct session *session, const uint8_t *head,
                         struct dispatch_stream *stream, struct buf_out *out)
{
    struct batch_entry entry = {.size = stream->head_len};
    struct crab_frame frame;
    struct store_stream place = of_store(stream);
    enum crab_decode outcome =
        crab_request_decode(head, stream->head_len, dispatch->env.max_value, &entry.request, &frame);
    assert(outcome == CRAB_WHOLE); /* it was so at the beginning */
    (void)outcome;
    entry.key = store_key(dispatch->env.store, entry.request.head.key.data, entry.request.head.key.len);
    dispatch->env.stream = &place;
    execute(dispatch, session, &entry, out);
    if (dispatch->env.stream != NULL) /* it came to no PUT */
        store_stream_drop(dispatch->env.worker, &place);
    dispatch->env.stream = NULL;
    end_stream(dispatch, stream);
}

void dispatch_stream_drop(struct dispatch *dispatch, struct dispatch_stream *stream)
{
    if (stream->value == NULL)
        return;
    struct store_stream place = of_store(stream);
    store_stream_drop(dispatch->env.worker, &place);
    end_stream(dispatch, stream);
}

/* The rest of the input is part of a frame: see whether it can be answered already. Returns its error, or 0. */
static uint16_t judge_partial(const struct dispatch *d, const struct session *session, const uint8_t *in, size_t len,
                              uint64_t need)
{
    if (len < CRAB_REQUEST_HEADER)
        return 0;
    if (is_quiet_misuse(session, in[1]))
        return CRAB_ERR_QUIET_MISUSE;
    uint64_t size = (uint64_t)CRAB_REQUEST_HEADER + crab_load_u32(in + 4);
    if (need < size || size - CRAB_REQUEST_HEADER <= CRAB_MAX_BODY_BEFORE_AUTH)
        return 0; /* short enough to wait for, or its head is not complete yet */
    return objection(d, session, in[0], size);
}

/* Answer a frame of which the head is known, and skip it. */
static void fail_partial(struct dispatch *d, struct session *session, const uint8_t *in, size_t len, uint16_t error,
                         struct buf_out *out, struct dispatch_result *result)
{
    struct batch_entry entry = {.error = error, .size = (uint64_t)CRAB_REQUEST_HEADER + crab_load_u32(in + 4)};
    struct crab_req_head *head = &entry.request.head;
    head->op = in[0];
    head->flags = in[1];
    if ((head->flags & CRAB_FLAG_TAG) != 0 && len >= CRAB_REQUEST_HEADER + 4)
        head->tag = crab_load_u32(in + CRAB_REQUEST_HEADER);
    bool goes_on = execute(d, session, &entry, out);
    result->next = goes_on ? DISPATCH_INPUT : DISPATCH_CLOSE;
    result->consumed += len;
    result->skip = goes_on ? entry.size - len : 0;
}

/* Execute d->now, as far as it may be: where not, result->next says so. Returns whether all of it was executed. */
static bool run_batch(struct dispatch *d, struct session *session, unsigned *spent, size_t len, struct buf_out *out,
                      struct dispatch_result *result)
{
    const struct batch *batch = d->now;
    for (unsigned i = 0; i < batch->count; i++) {
        const struct batch_entry *entry = &batch->entries[i];
        if (*spent >= DISPATCH_TURN_COST || !has_room(out, entry->request.head.op)) {
            result->next = *spent >= DISPATCH_TURN_COST ? DISPATCH_TURN : DISPATCH_OUTPUT;
            return false;
        }
        *spent += cost_of(d, entry);
        size_t left = len - result->consumed;
        if (!execute(d, session, entry, out)) {
            result->next = DISPATCH_CLOSE;
            result->consumed = len;
            return false;
        }
        result->skip = entry->size > left ? entry->size - left : 0;
        result->consumed += entry->size > left ? left : (size_t)entry->size;
    }
    return true;
}

/* What is left of the input is part of a frame. */
static void end_input(struct dispatch *d, struct session *session, const uint8_t *in, size_t len, struct buf_out *out,
                      struct dispatch_result *result)
{
    result->need = d->now->need;
    uint16_t error = judge_partial(d, session, in, len, result->need);
    if (error != 0 && !has_room(out, 0))
        result->next = DISPATCH_OUTPUT;
    else if (error != 0)
        fail_partial(d, session, in, len, error, out, result);
}

void dispatch_run(struct dispatch *dispatch, struct session *session, const uint8_t *in, size_t len,
                  struct buf_out *out, struct dispatch_result *result)
{
    unsigned spent = 0;
    bool goes_on = true;
    *result = (struct dispatch_result){.next = DISPATCH_INPUT};
    while (goes_on && result->consumed < len) {
        const uint8_t *at = in + result->consumed;
        size_t left = len - result->consumed;
        take_batch(dispatch, at, left);
        if (dispatch->now->count == 0) {
            end_input(dispatch, session, at, left, out, result);
            break;
        }
        begin_next(dispatch);
        goes_on = run_batch(dispatch, session, &spent, len, out, result);
        batch_prefetch_items(dispatch->next, dispatch->env.store);
    }
    dispatch->announced = NULL;
    dispatch->announced_len = 0;
}

void dispatch_fetch(const struct dispatch *dispatch, const uint8_t *in, size_t len)
{
    union crab_request request;
    struct crab_frame frame;
    if (crab_request_decode(in, len, dispatch->env.max_value, &request, &frame) != CRAB_WHOLE ||
        request.head.key.len == 0)
        return;
    struct store_key key = store_key(dispatch->env.store, request.head.key.data, request.head.key.len);
    store_prefetch_index(dispatch->env.store, key.hash);
}

void dispatch_refuse(struct dispatch *dispatch, struct session *session, const uint8_t *in, size_t len,
                     struct buf_out *out, struct dispatch_result *result)
{
    assert(len >= DISPATCH_HEAD_BYTES);
    *result = (struct dispatch_result){.next = DISPATCH_INPUT};
    fail_partial(dispatch, session, in, len, CRAB_ERR_BUSY, out, result);
}

void dispatch_goaway(struct dispatch *dispatch, const struct session *session, uint16_t code, struct buf_out *out)
{
    (void)dispatch;
    if ((session->features & CRAB_FEATURE_PUSH) == 0)
        return;
    struct crab_push_goaway push = {.code = code, .text = crab_slice_str(crab_error_text(code))};
    size_t len = crab_push_goaway_encode(&push, out->data + out->len, out->cap - out->len);
    assert(len != 0);
    out->len += len;
}
