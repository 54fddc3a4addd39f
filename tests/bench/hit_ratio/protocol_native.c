/* SPDX-License-Identifier: MIT */
/*
 * CrabCache's protocol, by the public codec.
 */
#include "tests/bench/hit_ratio/protocol.h"

static size_t get(uint8_t *buf, const uint8_t *key)
{
    struct crab_req_get request = {.key = crab_slice_of(key, PROTOCOL_KEY_BYTES)};
    return crab_req_get_encode(&request, buf, PROTOCOL_HEAD_BYTES);
}

static size_t put_head(uint8_t *buf, const uint8_t *key, uint32_t value_len)
{
    /* encode_head() never reads the value, only its length counts */
    struct crab_req_put request = {.key = crab_slice_of(key, PROTOCOL_KEY_BYTES), .value = {.len = value_len}};
    return crab_req_put_encode_head(&request, buf, PROTOCOL_HEAD_BYTES);
}

static struct answer decode(const uint8_t *buf, size_t len, union crab_reply *reply)
{
    struct crab_frame frame;
    switch (crab_reply_decode(buf, len, PROTOCOL_MAX_VALUE + CRAB_MAX_ERROR_TEXT, reply, &frame)) {
    case CRAB_WHOLE:
        return answer_of(ANSWER_STORED, (size_t)frame.size);
    case CRAB_NEED_MORE:
        return answer_of(ANSWER_NEED_MORE, (size_t)frame.size);
    default:
        return answer_of(ANSWER_BROKEN, 0);
    }
}

static struct answer get_answer(const uint8_t *buf, size_t len)
{
    union crab_reply reply;
    struct answer answer = decode(buf, len, &reply);
    if (answer.kind != ANSWER_STORED)
        return answer;
    if (reply.head.op == CRAB_REP_VALUE) {
        answer.kind = ANSWER_VALUE;
        answer.value = reply.value.value;
    } else {
        answer.kind = reply.head.op == CRAB_REP_NULL ? ANSWER_MISS : ANSWER_BROKEN;
    }
    return answer;
}

static struct answer put_answer(const uint8_t *buf, size_t len)
{
    union crab_reply reply;
    struct answer answer = decode(buf, len, &reply);
    if (answer.kind != ANSWER_STORED || reply.head.op == CRAB_REP_OK)
        return answer;
    bool refused = reply.head.op == CRAB_REP_ERROR &&
                   (reply.error.code == CRAB_ERR_OUT_OF_MEMORY || reply.error.code == CRAB_ERR_VALUE_TOO_LARGE ||
                    reply.error.code == CRAB_ERR_BUSY);
    answer.kind = refused ? ANSWER_REFUSED : ANSWER_BROKEN;
    return answer;
}

const struct protocol protocol_native = {
    .name = "crabcache",
    .get = get,
    .put_head = put_head,
    .put_tail = "",
    .get_answer = get_answer,
    .put_answer = put_answer,
};
