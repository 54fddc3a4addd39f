/* SPDX-License-Identifier: MIT */
/*
 * CrabCache's own protocol: frames by the generated codec, heads of replies as spec/PROTOCOL.md lays them out.
 */
#include <endian.h>
#include <string.h>

#include "client/bench/protocol.h"
#include "crabcache/wire.h"

#define ERROR_CODE 2U    /* bytes, before its text */
#define OTHER_MAX 65536U /* only a VALUE is longer: more is another protocol */

static const uint8_t no_key[PROTOCOL_KEY_MAX];

static void native_get(struct frame *frame, uint32_t key_len)
{
    struct crab_req_get get = {.op = CRAB_OP_GET, .key = {no_key, key_len}};
    *frame = (struct frame){.key_at = CRAB_REQUEST_HEADER};
    frame->len = (uint32_t)crab_req_get_encode(&get, frame->bytes, sizeof frame->bytes);
}

static void native_put(struct frame *frame, uint32_t key_len, uint32_t value_len)
{
    struct crab_req_put put = {.op = CRAB_OP_PUT, .key = {no_key, key_len}, .value = {NULL, value_len}}; /* only its length is read */
    *frame = (struct frame){.key_at = CRAB_REQUEST_HEADER, .value_len = value_len};
    frame->len = (uint32_t)crab_req_put_encode_head(&put, frame->bytes, sizeof frame->bytes);
}

static enum parsed native_error(const uint8_t *bytes, size_t len, struct reply *reply)
{
    reply->kind = REPLY_ERROR;
    reply->text = "";
    reply->text_len = 0;
    if (reply->size > PROTOCOL_HEAD_MAX || reply->size < CRAB_REPLY_HEADER + ERROR_CODE)
        return PARSED_HEAD;
    if (len < reply->size)
        return PARSED_MORE;
    reply->text = (const char *)bytes + CRAB_REPLY_HEADER + ERROR_CODE;
    reply->text_len = (size_t)reply->size - CRAB_REPLY_HEADER - ERROR_CODE;
    return PARSED_HEAD;
}

static enum parsed native_parse(const uint8_t *bytes, size_t len, struct reply *reply)
{
    uint8_t op = bytes[0];
    reply->size = 1;
    if (op == CRAB_REP_OK || op == CRAB_REP_NULL) {
        reply->kind = op == CRAB_REP_OK ? REPLY_STORED : REPLY_MISS;
        return PARSED_HEAD;
    }
    reply->kind = REPLY_OTHER;
    if (op == CRAB_REP_PONG)
        return PARSED_HEAD;
    if (op < CRAB_REP_OK || op >= 0x80) /* neither a reply nor, without HELLO, a push */
        return PARSED_BROKEN;
    if (len < CRAB_REPLY_HEADER)
        return PARSED_MORE;
    uint32_t body;
    memcpy(&body, bytes + 1, sizeof body);
    body = le32toh(body);
    reply->size = (uint64_t)CRAB_REPLY_HEADER + body;
    if (op == CRAB_REP_VALUE) {
        reply->kind = REPLY_VALUE;
        reply->value_len = body;
        return PARSED_HEAD;
    }
    if (body > OTHER_MAX)
        return PARSED_BROKEN;
    return op == CRAB_REP_ERROR ? native_error(bytes, len, reply) : PARSED_HEAD;
}

const struct protocol protocol_native = {
    .name = "native",
    .port = CRAB_DEFAULT_PORT,
    .value_max = CRAB_CEILING_MAX_VALUE,
    .get = native_get,
    .put = native_put,
    .parse = native_parse,
};
