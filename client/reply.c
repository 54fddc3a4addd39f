/* SPDX-License-Identifier: MIT */
/*
 * What replies mean: which request can have which reply [P-5], and how a reply becomes a result.
 *
 * The check is the first guard against the worst bug of pipelining clients, an answer that reaches the wrong
 * caller: a connection that lost step soon meets a reply which its request cannot have.
 */
#include "client/internal.h"

#include <string.h>

#include "crabcache/wire.h"

static bool put_fits(uint8_t flags, uint8_t reply)
{
    uint8_t condition = flags & CRAB_PUT_COND_MASK;
    switch (reply) {
    case CRAB_REP_OK:
        return (flags & CRAB_PUT_WANT_VERSION) == 0;
    case CRAB_REP_STORED:
        return (flags & CRAB_PUT_WANT_VERSION) != 0;
    case CRAB_REP_NULL:
        return condition == CRAB_PUT_IF_PRESENT || condition == CRAB_PUT_IF_VERSION;
    case CRAB_REP_EXISTS:
        return condition == CRAB_PUT_IF_ABSENT || condition == CRAB_PUT_IF_VERSION;
    default:
        return false;
    }
}

bool reply_fits(const struct in_flight *request, uint8_t reply)
{
    if (reply == CRAB_REP_ERROR || crab_reply_name(reply) == NULL)
        return true;
    switch (request->op) {
    case CRAB_OP_PING:
        return reply == CRAB_REP_PONG;
    case CRAB_OP_PUT:
        return put_fits(request->flags, reply);
    case CRAB_OP_GET:
        return reply == CRAB_REP_NULL ||
               reply == ((request->flags & CRAB_GET_META) != 0 ? CRAB_REP_META : CRAB_REP_VALUE);
    case CRAB_OP_DEL:
    case CRAB_OP_EXPIRE:
        return reply == CRAB_REP_OK || reply == CRAB_REP_NULL;
    case CRAB_OP_STATS:
        return reply == CRAB_REP_STATS;
    case CRAB_OP_HELLO:
        return reply == CRAB_REP_WELCOME;
    case CRAB_OP_AUTH:
    case CRAB_OP_FLUSH:
        return reply == CRAB_REP_OK;
    case CRAB_OP_INCR:
        return reply == CRAB_REP_NUMBER || (reply == CRAB_REP_NULL && (request->flags & CRAB_INCR_INITIAL) == 0);
    case CRAB_OP_DECR:
        return reply == CRAB_REP_NUMBER || (reply == CRAB_REP_NULL && (request->flags & CRAB_DECR_INITIAL) == 0);
    default:
        return false;
    }
}

const char *reply_mismatch(const struct in_flight *request, const union crab_reply *reply)
{
    bool wants_tag = (request->flags & CRAB_FLAG_TAG) != 0;
    if (reply->head.tagged && !wants_tag)
        return "with a tag that nobody asked for";
    if (!reply->head.tagged && wants_tag && reply->head.op != CRAB_REP_ERROR) /* [P-4.6.3] */
        return "without the request's tag";
    if (reply->head.tagged && reply->head.tag != request->tag)
        return "with another request's tag";
    return reply_fits(request, reply->head.op) ? NULL : "which that request cannot have";
}

void reply_to_result(const union crab_reply *reply, struct crab_result *result)
{
    *result = (struct crab_result){.status = CRAB_OK, .reply = reply->head.op};
    switch (reply->head.op) {
    case CRAB_REP_OK:
    case CRAB_REP_PONG:
        break;
    case CRAB_REP_NULL:
        result->status = CRAB_MISS;
        break;
    case CRAB_REP_ERROR:
        result->status = CRAB_E_SERVER;
        result->error = reply->error.code;
        result->value = reply->error.text;
        break;
    case CRAB_REP_VALUE:
        result->value = reply->value.value;
        break;
    case CRAB_REP_STATS:
        result->value = reply->stats.text;
        break;
    case CRAB_REP_META:
        result->value = reply->meta.value;
        result->version = reply->meta.version;
        result->ttl_ms = reply->meta.ttl_ms;
        result->app_flags = reply->meta.app_flags;
        break;
    case CRAB_REP_EXISTS:
        result->status = CRAB_EXISTS;
        result->version = reply->exists.version;
        break;
    case CRAB_REP_NUMBER:
        result->number = reply->number.value;
        break;
    case CRAB_REP_STORED:
        result->version = reply->stored.version;
        break;
    case CRAB_REP_WELCOME:
        result->value = reply->welcome.server_name;
        break;
    default:
        result->status = CRAB_E_UNKNOWN_REPLY;
        result->value = reply->unknown.payload;
        break;
    }
}

void reply_copy_text(struct crab_slice text, char *copy, size_t size)
{
    size_t len = text.len < size - 1 ? text.len : size - 1;
    for (size_t i = 0; i < len; i++)
        copy[i] = text.data[i] >= 0x20 && text.data[i] < 0x7f ? (char)text.data[i] : '?';
    copy[len] = '\0';
}

/* Room in a reply besides the value: META's fields, TAGGED around it. */
#define REPLY_EXTRA 64U

uint32_t reply_limit(uint32_t max_value)
{
    if (max_value < CRAB_MAX_STATS_TEXT)
        max_value = CRAB_MAX_STATS_TEXT;
    return max_value > UINT32_MAX - REPLY_EXTRA ? UINT32_MAX : max_value + REPLY_EXTRA;
}

enum crab_status conn_welcome(struct crab_conn *conn, const struct crab_rep_welcome *welcome)
{
    if (welcome->version != 1)
        return conn_break(conn, CRAB_E_PROTOCOL, 0, "the server chose protocol version %u, which was not offered",
                          (unsigned)welcome->version);
    if ((welcome->features & ~CRAB_FEATURE_PUSH) != 0 || welcome->max_in_flight == 0)
        return conn_break(conn, CRAB_E_PROTOCOL, 0, "the server's WELCOME is impossible: features 0x%x, max_in_flight %u",
                          (unsigned)welcome->features, (unsigned)welcome->max_in_flight);
    size_t len = welcome->server_name.len;
    if (len > sizeof conn->server_name)
        len = sizeof conn->server_name;
    if (len != 0)
        memcpy(conn->server_name, welcome->server_name.data, len);
    conn->info = (struct crab_server_info){
        .version = welcome->version,
        .features = welcome->features,
        .max_key = welcome->max_key,
        .max_value = welcome->max_value,
        .max_in_flight = welcome->max_in_flight,
        .name = {.data = conn->server_name, .len = len},
    };
    conn->welcomed = true;
    uint32_t limit = welcome->max_in_flight < CRAB_MAX_IN_FLIGHT ? welcome->max_in_flight : CRAB_MAX_IN_FLIGHT;
    if (conn->asked_in_flight == 0 || conn->asked_in_flight > limit)
        conn->max_in_flight = limit;
    if (!conn->asked_max_reply)
        conn->max_reply = reply_limit(welcome->max_value);
    return CRAB_OK;
}
