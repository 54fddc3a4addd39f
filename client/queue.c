/* SPDX-License-Identifier: MIT */
/*
 * Requests from arguments: the builders that blocking calls share, and the typed queue and quiet calls on them.
 * Whether lengths and fields keep the rules of the protocol is the codec's business (crab_request_size()).
 */
#include "client/internal.h"

#include <string.h>

struct crab_slice slice_of_string(const char *string)
{
    return slice_of(string, string != NULL ? strlen(string) : 0);
}

/* ---- builders */

void request_plain(union crab_request *request, uint8_t op, struct crab_slice key, struct crab_slice value)
{
    *request = (union crab_request){.head = {.op = op, .key = key, .value = value}};
}

void request_hello(union crab_request *request, const char *client_name)
{
    const char *name = client_name != NULL ? client_name : "libcrabcache";
    *request = (union crab_request){.hello = {.op = CRAB_OP_HELLO,
                                              .version_min = 1,
                                              .version_max = 1,
                                              .features = CRAB_FEATURE_PUSH,
                                              .value = slice_of_string(name)}};
}

bool request_put(union crab_request *request, struct crab_slice key, struct crab_slice value,
                 const struct crab_put_options *options)
{
    static const uint8_t conditions[] = {[CRAB_ALWAYS] = 0,
                                         [CRAB_IF_ABSENT] = CRAB_PUT_IF_ABSENT,
                                         [CRAB_IF_PRESENT] = CRAB_PUT_IF_PRESENT,
                                         [CRAB_IF_VERSION] = CRAB_PUT_IF_VERSION};
    *request = (union crab_request){.put = {.op = CRAB_OP_PUT, .key = key, .value = value}};
    if (options == NULL)
        return true;
    if ((unsigned)options->condition >= sizeof conditions)
        return false;
    struct crab_req_put *put = &request->put;
    put->flags = conditions[options->condition];
    if (options->condition == CRAB_IF_VERSION)
        put->version = options->version;
    if (options->ttl_ms != 0) {
        put->flags |= CRAB_PUT_TTL;
        put->ttl_ms = options->ttl_ms;
    }
    if (options->app_flags != 0) {
        put->flags |= CRAB_PUT_APP_FLAGS;
        put->app_flags = options->app_flags;
    }
    if (options->want_version)
        put->flags |= CRAB_PUT_WANT_VERSION;
    return true;
}

void request_get(union crab_request *request, struct crab_slice key, uint64_t ttl_ms, bool meta)
{
    uint8_t flags = (uint8_t)((ttl_ms != 0 ? CRAB_GET_TTL : 0) | (meta ? CRAB_GET_META : 0));
    *request = (union crab_request){.get = {.op = CRAB_OP_GET, .flags = flags, .key = key, .ttl_ms = ttl_ms}};
}

void request_expire(union crab_request *request, struct crab_slice key, uint64_t ttl_ms)
{
    *request = (union crab_request){.expire = {.op = CRAB_OP_EXPIRE, .key = key, .ttl_ms = ttl_ms}};
}

_Static_assert(sizeof(struct crab_req_incr) == sizeof(struct crab_req_decr) && CRAB_INCR_TTL == CRAB_DECR_TTL &&
                   CRAB_INCR_INITIAL == CRAB_DECR_INITIAL,
               "INCR and DECR have the same shape");

void request_count(union crab_request *request, uint8_t op, struct crab_slice key, uint64_t delta,
                   const struct crab_incr_options *options)
{
    *request = (union crab_request){.incr = {.op = op, .key = key, .delta = delta}};
    if (options == NULL || !options->create)
        return;
    request->incr.flags = CRAB_INCR_INITIAL;
    request->incr.initial = options->initial;
    if (options->ttl_ms != 0) {
        request->incr.flags |= CRAB_INCR_TTL;
        request->incr.ttl_ms = options->ttl_ms;
    }
}

/* ---- queue calls: the request is answered by crab_conn_next_reply() */

static enum crab_status queue_plain(struct crab_conn *conn, uint8_t op, struct crab_slice key, struct crab_slice value)
{
    union crab_request request;
    request_plain(&request, op, key, value);
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_ping(struct crab_conn *conn)
{
    return queue_plain(conn, CRAB_OP_PING, slice_of(NULL, 0), slice_of(NULL, 0));
}

enum crab_status crab_conn_queue_put(struct crab_conn *conn, const void *key, size_t key_len, const void *value,
                                     size_t value_len, const struct crab_put_options *options)
{
    union crab_request request;
    if (!request_put(&request, slice_of(key, key_len), slice_of(value, value_len), options))
        return conn_complain(conn, CRAB_E_INVALID, "unknown condition of a put");
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_get(struct crab_conn *conn, const void *key, size_t key_len)
{
    union crab_request request;
    request_get(&request, slice_of(key, key_len), 0, false);
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_get_touch(struct crab_conn *conn, const void *key, size_t key_len, uint64_t ttl_ms)
{
    union crab_request request;
    request_get(&request, slice_of(key, key_len), ttl_ms, false);
    request.get.flags |= CRAB_GET_TTL; /* here 0 is a mistake, and the codec says so */
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_get_meta(struct crab_conn *conn, const void *key, size_t key_len, uint64_t ttl_ms)
{
    union crab_request request;
    request_get(&request, slice_of(key, key_len), ttl_ms, true);
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_del(struct crab_conn *conn, const void *key, size_t key_len)
{
    return queue_plain(conn, CRAB_OP_DEL, slice_of(key, key_len), slice_of(NULL, 0));
}

enum crab_status crab_conn_queue_expire(struct crab_conn *conn, const void *key, size_t key_len, uint64_t ttl_ms)
{
    union crab_request request;
    request_expire(&request, slice_of(key, key_len), ttl_ms);
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_incr(struct crab_conn *conn, const void *key, size_t key_len, uint64_t delta,
                                      const struct crab_incr_options *options)
{
    union crab_request request;
    request_count(&request, CRAB_OP_INCR, slice_of(key, key_len), delta, options);
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_decr(struct crab_conn *conn, const void *key, size_t key_len, uint64_t delta,
                                      const struct crab_incr_options *options)
{
    union crab_request request;
    request_count(&request, CRAB_OP_DECR, slice_of(key, key_len), delta, options);
    return crab_conn_queue(conn, &request, NULL);
}

enum crab_status crab_conn_queue_stats(struct crab_conn *conn, const char *section)
{
    return queue_plain(conn, CRAB_OP_STATS, slice_of_string(section), slice_of(NULL, 0));
}

enum crab_status crab_conn_queue_flush_all(struct crab_conn *conn)
{
    return queue_plain(conn, CRAB_OP_FLUSH, slice_of(NULL, 0), slice_of(NULL, 0));
}

enum crab_status crab_conn_queue_auth(struct crab_conn *conn, const char *user, const void *secret, size_t secret_len)
{
    return queue_plain(conn, CRAB_OP_AUTH, slice_of_string(user), slice_of(secret, secret_len));
}

/* ---- quiet calls: no reply, at most a late error */

static enum crab_status quiet(struct crab_conn *conn, union crab_request *request, uint32_t *tag)
{
    request->head.flags |= CRAB_FLAG_QUIET;
    return crab_conn_queue(conn, request, tag);
}

enum crab_status crab_conn_quiet_put(struct crab_conn *conn, const void *key, size_t key_len, const void *value,
                                     size_t value_len, const struct crab_put_options *options, uint32_t *tag)
{
    union crab_request request;
    if (!request_put(&request, slice_of(key, key_len), slice_of(value, value_len), options))
        return conn_complain(conn, CRAB_E_INVALID, "unknown condition of a put");
    return quiet(conn, &request, tag);
}

enum crab_status crab_conn_quiet_del(struct crab_conn *conn, const void *key, size_t key_len, uint32_t *tag)
{
    union crab_request request;
    request_plain(&request, CRAB_OP_DEL, slice_of(key, key_len), slice_of(NULL, 0));
    return quiet(conn, &request, tag);
}

enum crab_status crab_conn_quiet_expire(struct crab_conn *conn, const void *key, size_t key_len, uint64_t ttl_ms,
                                        uint32_t *tag)
{
    union crab_request request;
    request_expire(&request, slice_of(key, key_len), ttl_ms);
    return quiet(conn, &request, tag);
}

enum crab_status crab_conn_quiet_incr(struct crab_conn *conn, const void *key, size_t key_len, uint64_t delta,
                                      const struct crab_incr_options *options, uint32_t *tag)
{
    union crab_request request;
    request_count(&request, CRAB_OP_INCR, slice_of(key, key_len), delta, options);
    return quiet(conn, &request, tag);
}

enum crab_status crab_conn_quiet_decr(struct crab_conn *conn, const void *key, size_t key_len, uint64_t delta,
                                      const struct crab_incr_options *options, uint32_t *tag)
{
    union crab_request request;
    request_count(&request, CRAB_OP_DECR, slice_of(key, key_len), delta, options);
    return quiet(conn, &request, tag);
}

enum crab_status crab_conn_quiet_flush_all(struct crab_conn *conn, uint32_t *tag)
{
    union crab_request request;
    request_plain(&request, CRAB_OP_FLUSH, slice_of(NULL, 0), slice_of(NULL, 0));
    return quiet(conn, &request, tag);
}
