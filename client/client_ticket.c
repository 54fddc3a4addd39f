/* SPDX-License-Identifier: MIT */
/*
 * Submitted requests: a ticket is a call with memory of its own for value and failure.  Tickets come from a pool and go back to it, with
 * their values' memory unless that is large, so that in steady state nothing is allocated.
 *
 * A ticket with a callback belongs to the channel from the moment it has entered: it may be done, called back and in
 * the pool again before channel_submit() returns.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "client/handle.h"
#include "crabcache/ticket.h"

/* Channels that crab_client_run() can wait for at the same time; with more at work it looks at all every RUN_SLICE_MS. */
#define RUN_CHANNELS 64U
#define RUN_SLICE_MS 5
#define NS_PER_MS 1000000U

struct crab_ticket {
    struct call call; /* first: `finished` gets only this */
    struct crab_client *client;
    struct crab_ticket *next; /* in the pool */
    struct net_deadline deadline;
    void (*done)(void *context, const struct crab_result *result);
    void *context;
    struct crab_value value;
    struct crab_failure failure;
};

/* ---- the pool */

static struct crab_ticket *take_ticket(struct crab_client *client)
{
    struct ticket_pool *pool = &client->tickets;
    (void)pthread_mutex_lock(&pool->lock);
    struct crab_ticket *ticket = pool->free;
    if (ticket != NULL)
        pool->free = ticket->next;
    (void)pthread_mutex_unlock(&pool->lock);
    struct crab_value value = {0};
    if (ticket != NULL)
        value = ticket->value;
    else
        ticket = client->allocator.resize(client->allocator.context, NULL, sizeof *ticket);
    if (ticket == NULL)
        return NULL;
    memset(ticket, 0, offsetof(struct crab_ticket, failure));
    ticket->failure.status = CRAB_OK;
    ticket->value = value;
    ticket->client = client;
    return ticket;
}

static void return_ticket(struct crab_ticket *ticket)
{
    struct ticket_pool *pool = &ticket->client->tickets;
    if (ticket->value.capacity > CHANNEL_KEEP_BYTES)
        crab_value_fini(&ticket->value);
    (void)pthread_mutex_lock(&pool->lock);
    ticket->next = pool->free;
    pool->free = ticket;
    (void)pthread_mutex_unlock(&pool->lock);
}

static void free_ticket(struct crab_client *client, struct crab_ticket *ticket)
{
    crab_value_fini(&ticket->value);
    (void)client->allocator.resize(client->allocator.context, ticket, 0);
}

void tickets_fini(struct crab_client *client)
{
    struct crab_ticket *ticket = client->tickets.free;
    while (ticket != NULL) {
        struct crab_ticket *next = ticket->next;
        free_ticket(client, ticket);
        ticket = next;
    }
    client->tickets.free = NULL;
}

/* ---- submitting */

static void call_back(struct call *call)
{
    struct crab_ticket *ticket = (struct crab_ticket *)call;
    struct crab_client *client = ticket->client;
    ticket->done(ticket->context, &call->result);
    return_ticket(ticket);
    atomic_fetch_sub_explicit(&client->callbacks, 1, memory_order_release);
}

enum crab_status client_submit(struct crab_client *client, const union crab_request *request,
                               const struct net_deadline *deadline, const struct crab_submit_options *options,
                               struct crab_ticket **ticket)
{
    struct crab_ticket *made = take_ticket(client);
    if (made == NULL)
        return CRAB_E_NO_MEMORY;
    made->deadline = *deadline;
    made->done = options->done;
    made->context = options->context;
    made->call.value = &made->value;
    made->call.failure = &made->failure;
    made->call.end_ns = net_deadline_end(&made->deadline);
    if (options->done != NULL) {
        made->call.finished = call_back;
        atomic_fetch_add_explicit(&client->callbacks, 1, memory_order_relaxed);
    }
    struct net_deadline own = made->deadline;
    struct channel *channel = client_channel(client, client_pick(client, request->head.key));
    enum crab_status status = channel_submit(channel, request, &made->call, &own);
    if (status != CRAB_OK) {
        if (options->done != NULL)
            atomic_fetch_sub_explicit(&client->callbacks, 1, memory_order_relaxed);
        return_ticket(made);
    } else if (ticket != NULL) {
        *ticket = made;
    }
    return status;
}

enum crab_status crab_client_submit(struct crab_client *client, const union crab_request *request,
                                    const struct crab_submit_options *options, struct crab_ticket **ticket)
{
    static const struct crab_submit_options defaults = {0};
    if (options == NULL)
        options = &defaults;
    if (client_is_forked(client))
        return CRAB_E_FORKED;
    if ((ticket == NULL) != (options->done != NULL) || request->head.op == CRAB_OP_HELLO ||
        request->head.op == CRAB_OP_AUTH)
        return CRAB_E_INVALID;
    struct net_deadline deadline = client_deadline(client, options->timeout_ms);
    return client_submit(client, request, &deadline, options, ticket);
}

void ticket_swap_value(struct crab_ticket *ticket, struct crab_value *value)
{
    struct crab_value other = *value;
    *value = ticket->value;
    ticket->value = other;
}

enum crab_status crab_client_submit_get(struct crab_client *client, const void *key, size_t key_len,
                                        const struct crab_submit_options *options, struct crab_ticket **ticket)
{
    union crab_request request;
    request_get(&request, slice_of(key, key_len), 0, false);
    return crab_client_submit(client, &request, options, ticket);
}

enum crab_status crab_client_submit_put(struct crab_client *client, const void *key, size_t key_len, const void *value,
                                        size_t value_len, const struct crab_put_options *put,
                                        const struct crab_submit_options *options, struct crab_ticket **ticket)
{
    union crab_request request;
    if (!request_put(&request, slice_of(key, key_len), slice_of(value, value_len), put))
        return CRAB_E_INVALID;
    return crab_client_submit(client, &request, options, ticket);
}

enum crab_status crab_client_submit_del(struct crab_client *client, const void *key, size_t key_len,
                                        const struct crab_submit_options *options, struct crab_ticket **ticket)
{
    union crab_request request;
    request_plain(&request, CRAB_OP_DEL, slice_of(key, key_len), slice_of(NULL, 0));
    return crab_client_submit(client, &request, options, ticket);
}

/* ---- tickets */

static bool is_done(const struct crab_ticket *ticket)
{
    return atomic_load_explicit(&ticket->call.done, memory_order_acquire);
}

static enum crab_status take_result(const struct crab_ticket *ticket, struct crab_result *result)
{
    if (result != NULL)
        *result = ticket->call.result;
    return ticket->call.result.status;
}

enum crab_status crab_ticket_wait(struct crab_ticket *ticket, struct crab_result *result)
{
    if (client_is_forked(ticket->client))
        return CRAB_E_FORKED;
    channel_wait(&ticket->call, &ticket->deadline);
    return take_result(ticket, result);
}

enum crab_status crab_ticket_poll(struct crab_ticket *ticket, struct crab_result *result)
{
    if (client_is_forked(ticket->client))
        return CRAB_E_FORKED;
    if (!is_done(ticket))
        channel_nudge(ticket->call.channel);
    if (!is_done(ticket) && ticket->call.end_ns != 0 && net_now_ns() >= ticket->call.end_ns)
        channel_abandon(&ticket->call, CRAB_E_TIMEOUT);
    return is_done(ticket) ? take_result(ticket, result) : CRAB_EMPTY;
}

void crab_ticket_cancel(struct crab_ticket *ticket)
{
    if (!client_is_forked(ticket->client) && !is_done(ticket))
        channel_abandon(&ticket->call, CRAB_E_CANCELLED);
}

enum crab_status crab_ticket_failure(const struct crab_ticket *ticket, struct crab_failure *failure)
{
    if (!is_done(ticket) || ticket->failure.status == CRAB_OK)
        return CRAB_EMPTY;
    *failure = ticket->failure;
    return CRAB_OK;
}

void crab_ticket_release(struct crab_ticket *ticket)
{
    if (ticket == NULL || client_is_forked(ticket->client)) /* in a child nothing is freed: see crab_client_close() */
        return;
    crab_ticket_cancel(ticket);
    return_ticket(ticket);
}

/* ---- running */

/* How long to wait for the sockets, in ms; -1: until one is ready. */
static int wait_ms(uint64_t now, uint64_t end_ns, uint64_t earliest_ns, bool slice)
{
    uint64_t until = end_ns;
    if (earliest_ns != 0 && (until == 0 || earliest_ns < until))
        until = earliest_ns;
    if (until == 0)
        return slice ? RUN_SLICE_MS : -1;
    uint64_t ms = until > now ? (until - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    if (slice && ms > RUN_SLICE_MS)
        return RUN_SLICE_MS;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static struct channel *channel_at(const struct crab_client *client, size_t i)
{
    return &client->servers[i / client->connections].channels[i % client->connections];
}

/* Wait until something comes.  No callback runs here, as one could wait for what is watched. */
static enum crab_status wait_for_any(struct crab_client *client, uint64_t end_ns, uint64_t earliest_ns)
{
    struct pollfd entries[RUN_CHANNELS];
    struct channel *watched[RUN_CHANNELS];
    nfds_t count = 0;
    bool others = false; /* at work that are not watched */
    size_t channels = client->server_count * client->connections;
    for (size_t i = 0; i < channels; i++) {
        if (count == RUN_CHANNELS) {
            others = true;
            break;
        }
        enum channel_watched found = channel_watch(channel_at(client, i), &entries[count]);
        if (found == CHANNEL_WATCHED)
            watched[count++] = channel_at(client, i);
        others |= found == CHANNEL_BUSY;
    }
    int ms = wait_ms(net_now_ns(), end_ns, earliest_ns, others || count == 0);
    int failed = poll(entries, count, ms) < 0 && errno != EINTR ? errno : 0;
    for (nfds_t i = 0; i < count; i++)
        channel_unwatch(watched[i]);
    return failed != 0 ? CRAB_E_SYSTEM : CRAB_OK;
}

enum crab_status crab_client_run(struct crab_client *client, uint32_t timeout_ms)
{
    if (client_is_forked(client))
        return CRAB_E_FORKED;
    struct net_deadline deadline = {.timeout_ms = timeout_ms};
    uint64_t end_ns = net_deadline_end(&deadline);
    for (;;) {
        uint64_t earliest_ns = 0;
        for (size_t i = 0; i < client->server_count * client->connections; i++)
            channel_tend(channel_at(client, i), &earliest_ns);
        if (atomic_load_explicit(&client->callbacks, memory_order_acquire) == 0)
            return CRAB_OK;
        if (end_ns != 0 && net_now_ns() >= end_ns)
            return CRAB_E_TIMEOUT;
        enum crab_status status = wait_for_any(client, end_ns, earliest_ns);
        if (status != CRAB_OK)
            return status;
    }
}
