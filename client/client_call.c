/* SPDX-License-Identifier: MIT */
/*
 * Blocking calls of the shared handle: arguments become a request, the reply becomes outputs.
 */
#include "client/handle.h"

static enum crab_status perform(struct crab_client *client, const union crab_request *request, size_t server,
                                struct crab_value *value, const struct crab_call_options *options,
                                struct crab_result *result)
{
    if (client_is_forked(client))
        return client_fail(options, CRAB_E_FORKED, crab_status_text(CRAB_E_FORKED));
    struct net_deadline deadline = client_deadline(client, options != NULL ? options->timeout_ms : 0);
    return client_perform(client, request, server, value, options, &deadline, result);
}

enum crab_status crab_client_call(struct crab_client *client, const union crab_request *request,
                                  struct crab_value *value, const struct crab_call_options *options,
                                  struct crab_result *result)
{
    struct crab_result reply;
    if (request->head.op == CRAB_OP_HELLO || request->head.op == CRAB_OP_AUTH)
        return client_fail(options, CRAB_E_INVALID, "HELLO and AUTH are the library's");
    enum crab_status status = perform(client, request, CLIENT_BY_KEY, value, options, &reply);
    if (result != NULL && status != CRAB_E_FORKED)
        *result = reply;
    return status;
}

enum crab_status crab_client_put(struct crab_client *client, const void *key, size_t key_len, const void *value,
                                 size_t value_len, const struct crab_put_options *put,
                                 const struct crab_call_options *options, uint64_t *version)
{
    union crab_request request;
    struct crab_result result;
    if (!request_put(&request, slice_of(key, key_len), slice_of(value, value_len), put))
        return client_fail(options, CRAB_E_INVALID, "unknown condition of a put");
    if (version != NULL)
        request.put.flags |= CRAB_PUT_WANT_VERSION;
    enum crab_status status = perform(client, &request, CLIENT_BY_KEY, NULL, options, &result);
    if (version != NULL && (status == CRAB_OK || status == CRAB_EXISTS))
        *version = result.version;
    return status;
}

enum crab_status crab_client_get(struct crab_client *client, const void *key, size_t key_len, struct crab_value *value,
                                 const struct crab_call_options *options)
{
    union crab_request request;
    struct crab_result result;
    request_get(&request, slice_of(key, key_len), 0, false);
    return perform(client, &request, CLIENT_BY_KEY, value, options, &result);
}

enum crab_status crab_client_get_meta(struct crab_client *client, const void *key, size_t key_len, uint64_t ttl_ms,
                                      struct crab_value *value, const struct crab_call_options *options,
                                      struct crab_item *item)
{
    union crab_request request;
    struct crab_result result;
    request_get(&request, slice_of(key, key_len), ttl_ms, true);
    enum crab_status status = perform(client, &request, CLIENT_BY_KEY, value, options, &result);
    if (status == CRAB_OK && item != NULL)
        *item = (struct crab_item){.value = result.value,
                                   .version = result.version,
                                   .ttl_ms = result.ttl_ms,
                                   .app_flags = result.app_flags};
    return status;
}

enum crab_status crab_client_del(struct crab_client *client, const void *key, size_t key_len,
                                 const struct crab_call_options *options)
{
    union crab_request request;
    struct crab_result result;
    request_plain(&request, CRAB_OP_DEL, slice_of(key, key_len), slice_of(NULL, 0));
    return perform(client, &request, CLIENT_BY_KEY, NULL, options, &result);
}

enum crab_status crab_client_expire(struct crab_client *client, const void *key, size_t key_len, uint64_t ttl_ms,
                                    const struct crab_call_options *options)
{
    union crab_request request;
    struct crab_result result;
    request_expire(&request, slice_of(key, key_len), ttl_ms);
    return perform(client, &request, CLIENT_BY_KEY, NULL, options, &result);
}

static enum crab_status count(struct crab_client *client, uint8_t op, struct crab_slice key, uint64_t delta,
                              const struct crab_incr_options *incr, const struct crab_call_options *options,
                              int64_t *number)
{
    union crab_request request;
    struct crab_result result;
    request_count(&request, op, key, delta, incr);
    enum crab_status status = perform(client, &request, CLIENT_BY_KEY, NULL, options, &result);
    if (status == CRAB_OK && number != NULL)
        *number = result.number;
    return status;
}

enum crab_status crab_client_incr(struct crab_client *client, const void *key, size_t key_len, uint64_t delta,
                                  const struct crab_incr_options *incr, const struct crab_call_options *options,
                                  int64_t *number)
{
    return count(client, CRAB_OP_INCR, slice_of(key, key_len), delta, incr, options, number);
}

enum crab_status crab_client_decr(struct crab_client *client, const void *key, size_t key_len, uint64_t delta,
                                  const struct crab_incr_options *incr, const struct crab_call_options *options,
                                  int64_t *number)
{
    return count(client, CRAB_OP_DECR, slice_of(key, key_len), delta, incr, options, number);
}

/* ---- servers */

/* A request without fields to every server, one after the other, under one deadline. */
static enum crab_status tell_all(struct crab_client *client, uint8_t op, const struct crab_call_options *options)
{
    if (client_is_forked(client))
        return client_fail(options, CRAB_E_FORKED, crab_status_text(CRAB_E_FORKED));
    struct net_deadline deadline = client_deadline(client, options != NULL ? options->timeout_ms : 0);
    struct crab_call_options own = options != NULL ? *options : (struct crab_call_options){0};
    enum crab_status first = CRAB_OK;
    for (size_t i = 0; i < client->server_count; i++) {
        union crab_request request;
        struct crab_result result;
        request_plain(&request, op, slice_of(NULL, 0), slice_of(NULL, 0));
        enum crab_status status = client_perform(client, &request, i, NULL, &own, &deadline, &result);
        if (status != CRAB_OK && first == CRAB_OK) {
            first = status;
            own.failure = NULL; /* it tells of the first */
        }
    }
    return first;
}

enum crab_status crab_client_ping(struct crab_client *client, const struct crab_call_options *options)
{
    return tell_all(client, CRAB_OP_PING, options);
}

enum crab_status crab_client_flush_all(struct crab_client *client, const struct crab_call_options *options)
{
    return tell_all(client, CRAB_OP_FLUSH, options);
}

enum crab_status crab_client_stats(struct crab_client *client, size_t server, const char *section,
                                   struct crab_value *text, const struct crab_call_options *options)
{
    union crab_request request;
    struct crab_result result;
    if (server >= client->server_count)
        return client_fail(options, CRAB_E_INVALID, "there is no such server");
    request_plain(&request, CRAB_OP_STATS, slice_of_string(section), slice_of(NULL, 0));
    return perform(client, &request, server, text, options, &result);
}

size_t crab_client_servers(const struct crab_client *client)
{
    return client->server_count;
}

size_t crab_client_server_of(const struct crab_client *client, const void *key, size_t key_len)
{
    return ring_find(&client->ring, key, key_len, 0);
}

static void add_channel(struct channel *channel, struct crab_server_stats *stats)
{
    struct channel_counts counts;
    uint64_t in_flight;
    bool up;
    channel_look(channel, &counts, &in_flight, &up);
    stats->connected += up;
    stats->in_flight += in_flight;
    stats->requests += counts.requests;
    stats->errors += counts.errors;
    stats->timeouts += counts.timeouts;
    stats->unknown += counts.unknown;
    stats->connects += counts.connects;
    stats->breaks += counts.breaks;
    stats->sends += counts.sends;
    stats->receives += counts.receives;
    stats->sent_bytes += counts.sent_bytes;
    stats->received_bytes += counts.received_bytes;
}

enum crab_status crab_client_server_stats(struct crab_client *client, size_t server, struct crab_server_stats *stats)
{
    if (server >= client->server_count)
        return CRAB_E_INVALID;
    if (client_is_forked(client))
        return CRAB_E_FORKED;
    struct server *s = &client->servers[server];
    struct circuit_view view = circuit_look(&s->circuit, net_now_ns());
    *stats = (struct crab_server_stats){
        .name = s->name,
        .state = view.closed                               ? CRAB_SERVER_UP
                 : view.probing || view.retry_in_ms == 0 ? CRAB_SERVER_PROBING
                                                         : CRAB_SERVER_DOWN,
        .retry_in_ms = view.retry_in_ms,
        .weight = s->weight,
        .connect_failures = view.failures,
    };
    for (uint32_t i = 0; i < client->connections; i++)
        add_channel(&s->channels[i], stats);
    return CRAB_OK;
}
