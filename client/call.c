/* SPDX-License-Identifier: MIT */
/*
 * Blocking calls: one request, one reply, one deadline over both.
 */
#include "client/internal.h"

enum crab_status conn_may_call(struct crab_conn *conn)
{
    if (conn->state != CRAB_OK)
        return CRAB_E_BROKEN;
    if (conn->events)
        return conn_complain(conn, CRAB_E_INVALID, "a connection in an event loop cannot wait for a reply");
    if (conn->ring_count != 0)
        return conn_complain(conn, CRAB_E_PENDING, crab_status_text(CRAB_E_PENDING));
    return CRAB_OK;
}

static enum crab_status call(struct crab_conn *conn, const union crab_request *request, struct crab_result *result)
{
    enum crab_status status = conn_may_call(conn);
    if (status != CRAB_OK)
        return status;
    struct net_deadline deadline = conn_deadline(conn);
    return conn_call(conn, request, result, &deadline);
}

/* A request without fields, whose reply says no more than its status. */
static enum crab_status call_plain(struct crab_conn *conn, uint8_t op, struct crab_slice key, struct crab_slice value)
{
    union crab_request request;
    struct crab_result result;
    request_plain(&request, op, key, value);
    return call(conn, &request, &result);
}

enum crab_status crab_conn_hello(struct crab_conn *conn, const char *client_name)
{
    union crab_request request;
    struct crab_result result;
    request_hello(&request, client_name);
    return call(conn, &request, &result);
}

enum crab_status crab_conn_auth(struct crab_conn *conn, const char *user, const void *secret, size_t secret_len)
{
    enum crab_status status =
        call_plain(conn, CRAB_OP_AUTH, slice_of_string(user), slice_of(secret, secret_len));
    conn_forget_sent(conn);
    return status;
}

enum crab_status crab_conn_ping(struct crab_conn *conn)
{
    return call_plain(conn, CRAB_OP_PING, slice_of(NULL, 0), slice_of(NULL, 0));
}

enum crab_status crab_conn_put(struct crab_conn *conn, const void *key, size_t key_len, const void *value,
                               size_t value_len, const struct crab_put_options *options, uint64_t *version)
{
    union crab_request request;
    struct crab_result result;
    if (!request_put(&request, slice_of(key, key_len), slice_of(value, value_len), options))
        return conn_complain(conn, CRAB_E_INVALID, "unknown condition of a put");
    if (version != NULL)
        request.put.flags |= CRAB_PUT_WANT_VERSION;
    enum crab_status status = call(conn, &request, &result);
    if (version != NULL && (status == CRAB_OK || status == CRAB_EXISTS))
        *version = result.version;
    return status;
}

static enum crab_status call_get(struct crab_conn *conn, const union crab_request *request, struct crab_slice *value)
{
    struct crab_result result;
    enum crab_status status = call(conn, request, &result);
    if (status == CRAB_OK)
        *value = result.value;
    return status;
}

enum crab_status crab_conn_get(struct crab_conn *conn, const void *key, size_t key_len, struct crab_slice *value)
{
    union crab_request request;
    request_get(&request, slice_of(key, key_len), 0, false);
    return call_get(conn, &request, value);
}

enum crab_status crab_conn_get_touch(struct crab_conn *conn, const void *key, size_t key_len, uint64_t ttl_ms,
                                     struct crab_slice *value)
{
    union crab_request request;
    request_get(&request, slice_of(key, key_len), ttl_ms, false);
    request.get.flags |= CRAB_GET_TTL; /* here 0 is a mistake, and the codec says so */
    return call_get(conn, &request, value);
}

enum crab_status crab_conn_get_meta(struct crab_conn *conn, const void *key, size_t key_len, uint64_t ttl_ms,
                                    struct crab_item *item)
{
    union crab_request request;
    struct crab_result result;
    request_get(&request, slice_of(key, key_len), ttl_ms, true);
    enum crab_status status = call(conn, &request, &result);
    if (status == CRAB_OK)
        *item = (struct crab_item){.value = result.value,
                                   .version = result.version,
                                   .ttl_ms = result.ttl_ms,
                                   .app_flags = result.app_flags};
    return status;
}

enum crab_status crab_conn_del(struct crab_conn *conn, const void *key, size_t key_len)
{
    return call_plain(conn, CRAB_OP_DEL, slice_of(key, key_len), slice_of(NULL, 0));
}

enum crab_status crab_conn_expire(struct crab_conn *conn, const void *key, size_t key_len, uint64_t ttl_ms)
{
    union crab_request request;
    struct crab_result result;
    request_expire(&request, slice_of(key, key_len), ttl_ms);
    return call(conn, &request, &result);
}

static enum crab_status call_count(struct crab_conn *conn, const union crab_request *request, int64_t *number)
{
    struct crab_result result;
    enum crab_status status = call(conn, request, &result);
    if (status == CRAB_OK && number != NULL)
        *number = result.number;
    return status;
}

enum crab_status crab_conn_incr(struct crab_conn *conn, const void *key, size_t key_len, uint64_t delta,
                                const struct crab_incr_options *options, int64_t *number)
{
    union crab_request request;
    request_count(&request, CRAB_OP_INCR, slice_of(key, key_len), delta, options);
    return call_count(conn, &request, number);
}

enum crab_status crab_conn_decr(struct crab_conn *conn, const void *key, size_t key_len, uint64_t delta,
                                const struct crab_incr_options *options, int64_t *number)
{
    union crab_request request;
    request_count(&request, CRAB_OP_DECR, slice_of(key, key_len), delta, options);
    return call_count(conn, &request, number);
}

enum crab_status crab_conn_stats(struct crab_conn *conn, const char *section, struct crab_slice *text)
{
    union crab_request request;
    request_plain(&request, CRAB_OP_STATS, slice_of_string(section), slice_of(NULL, 0));
    return call_get(conn, &request, text);
}

enum crab_status crab_conn_flush_all(struct crab_conn *conn)
{
    return call_plain(conn, CRAB_OP_FLUSH, slice_of(NULL, 0), slice_of(NULL, 0));
}
