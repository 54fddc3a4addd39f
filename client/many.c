/* SPDX-License-Identifier: MIT */
/*
 * Many keys in one call: requests and replies overlap, as many at a time as WINDOW, under one deadline.
 */
#include "client/internal.h"

#define WINDOW 512U

/* What is asked for each key. */
struct batch {
    uint8_t op;
    const struct crab_slice *keys;
    const struct crab_pair *pairs;
    const struct crab_put_options *options;
};

static bool build(const struct batch *batch, size_t i, union crab_request *request)
{
    if (batch->op == CRAB_OP_PUT)
        return request_put(request, batch->pairs[i].key, batch->pairs[i].value, batch->options);
    if (batch->op == CRAB_OP_GET)
        request_get(request, batch->keys[i], 0, false);
    else
        request_plain(request, batch->op, batch->keys[i], slice_of(NULL, 0));
    return true;
}

/* Nothing is sent if any of them breaks a rule. */
static enum crab_status check(struct crab_conn *conn, const struct batch *batch, size_t count)
{
    enum crab_status status = conn_may_call(conn);
    for (size_t i = 0; i < count && status == CRAB_OK; i++) {
        union crab_request request;
        if (!build(batch, i, &request) || crab_request_size(&request) == 0)
            status = conn_complain(conn, CRAB_E_INVALID, "one of the requests breaks a rule of the protocol");
    }
    return status;
}

static enum crab_status many(struct crab_conn *conn, const struct batch *batch, size_t count, crab_each each,
                             void *context)
{
    struct net_deadline deadline = conn_deadline(conn);
    enum crab_status status = check(conn, batch, count);
    size_t sent = 0, got = 0;
    if (status != CRAB_OK)
        return status;
    enum crab_status queued = CRAB_OK;
    while (got < count) {
        while (sent < count && sent - got < WINDOW) {
            union crab_request request;
            (void)build(batch, sent, &request);
            queued = conn_queue(conn, &request, NULL, &deadline);
            if (queued != CRAB_OK)
                break;
            sent++;
        }
        if (queued != CRAB_OK && queued != CRAB_E_FULL)
            count = sent; /* no more: take what was asked for */
        if (sent == got)
            return queued;
        struct crab_result result;
        status = conn_next(conn, &result, &deadline);
        if (status != CRAB_OK)
            return queued != CRAB_OK && queued != CRAB_E_FULL ? queued : status;
        if (each != NULL)
            each(context, got, &result);
        got++;
    }
    return queued == CRAB_E_FULL ? CRAB_OK : queued;
}

enum crab_status crab_conn_get_many(struct crab_conn *conn, const struct crab_slice *keys, size_t count,
                                    crab_each each, void *context)
{
    struct batch batch = {.op = CRAB_OP_GET, .keys = keys};
    return many(conn, &batch, count, each, context);
}

enum crab_status crab_conn_put_many(struct crab_conn *conn, const struct crab_pair *pairs, size_t count,
                                    const struct crab_put_options *options, crab_each each, void *context)
{
    struct batch batch = {.op = CRAB_OP_PUT, .pairs = pairs, .options = options};
    return many(conn, &batch, count, each, context);
}

enum crab_status crab_conn_del_many(struct crab_conn *conn, const struct crab_slice *keys, size_t count,
                                    crab_each each, void *context)
{
    struct batch batch = {.op = CRAB_OP_DEL, .keys = keys};
    return many(conn, &batch, count, each, context);
}
