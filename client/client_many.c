/* SPDX-License-Identifier: MIT */
/*
 * Many keys in one call: a window of tickets, waited for in the order in which they were submitted.  They go to their servers, and
 * back, at the same time.
 */
#include "client/handle.h"

/* Tickets on their way at the most. */
#define WINDOW 256U

/* What one call does with each of its items. */
struct many {
    struct crab_client *client;
    const struct crab_slice *keys;    /* of gets and deletes */
    const struct crab_pair *pairs;    /* of puts */
    const struct crab_put_options *put;
    struct crab_value *values;        /* of gets */
    const struct crab_call_options *options;
    enum crab_status *statuses;       /* or NULL */
    struct net_deadline deadline;
    enum crab_status first;           /* failure */
    struct crab_ticket *window[WINDOW]; /* of item i at i % WINDOW; NULL: it was not submitted */
};

static void note(struct many *many, size_t i, enum crab_status status, const struct crab_failure *failure)
{
    if (many->statuses != NULL)
        many->statuses[i] = status;
    if (!crab_status_failed(status) || many->first != CRAB_OK)
        return;
    many->first = status;
    if (failure != NULL && many->options != NULL && many->options->failure != NULL)
        *many->options->failure = *failure;
    else
        (void)client_fail(many->options, status, crab_status_text(status));
}

static bool build(const struct many *many, uint8_t op, size_t i, union crab_request *request)
{
    if (op == CRAB_OP_PUT)
        return request_put(request, many->pairs[i].key, many->pairs[i].value, many->put);
    request_plain(request, op, many->keys[i], slice_of(NULL, 0));
    return true;
}

/* Wait for item i. */
static void collect(struct many *many, size_t i)
{
    struct crab_ticket *ticket = many->window[i % WINDOW];
    if (ticket == NULL)
        return;
    struct crab_failure failure;
    enum crab_status status = crab_ticket_wait(ticket, NULL);
    if (status == CRAB_OK && many->values != NULL)
        ticket_swap_value(ticket, &many->values[i]);
    note(many, i, status, crab_ticket_failure(ticket, &failure) == CRAB_OK ? &failure : NULL);
    crab_ticket_release(ticket);
    many->window[i % WINDOW] = NULL;
}

static enum crab_status perform(struct many *many, uint8_t op, size_t count)
{
    static const struct crab_submit_options plain = {0};
    if (client_is_forked(many->client))
        return client_fail(many->options, CRAB_E_FORKED, crab_status_text(CRAB_E_FORKED));
    many->deadline = client_deadline(many->client, many->options != NULL ? many->options->timeout_ms : 0);
    net_deadline_start(&many->deadline);
    size_t oldest = 0;
    for (size_t i = 0; i < count; i++) {
        union crab_request request;
        enum crab_status status = CRAB_E_INVALID;
        if (i - oldest == WINDOW)
            collect(many, oldest++);
        if (build(many, op, i, &request)) {
            struct crab_ticket **ticket = &many->window[i % WINDOW];
            status = client_submit(many->client, &request, &many->deadline, &plain, ticket);
            while (status == CRAB_E_FULL && oldest < i) {
                collect(many, oldest++);
                status = client_submit(many->client, &request, &many->deadline, &plain, ticket);
            }
        }
        if (status != CRAB_OK) {
            many->window[i % WINDOW] = NULL;
            note(many, i, status, NULL);
        }
    }
    while (oldest < count)
        collect(many, oldest++);
    return many->first;
}

enum crab_status crab_client_get_many(struct crab_client *client, const struct crab_slice *keys, size_t count,
                                      struct crab_value *values, const struct crab_call_options *options,
                                      enum crab_status *statuses)
{
    struct many many = {.client = client, .keys = keys, .values = values, .options = options, .statuses = statuses};
    return perform(&many, CRAB_OP_GET, count);
}

enum crab_status crab_client_put_many(struct crab_client *client, const struct crab_pair *pairs, size_t count,
                                      const struct crab_put_options *put, const struct crab_call_options *options,
                                      enum crab_status *statuses)
{
    struct many many = {.client = client, .pairs = pairs, .put = put, .options = options, .statuses = statuses};
    return perform(&many, CRAB_OP_PUT, count);
}

enum crab_status crab_client_del_many(struct crab_client *client, const struct crab_slice *keys, size_t count,
                                      const struct crab_call_options *options, enum crab_status *statuses)
{
    struct many many = {.client = client, .keys = keys, .options = options, .statuses = statuses};
    return perform(&many, CRAB_OP_DEL, count);
}
