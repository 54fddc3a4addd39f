/* SPDX-License-Identifier: MIT */
/*
 * Redis's protocol (RESP2), as far as GET and SET go.
 */
#include <stdio.h>

#include "tests/bench/hit_ratio/protocol_text.h"

static size_t get(uint8_t *buf, const uint8_t *key)
{
    return (size_t)snprintf((char *)buf, PROTOCOL_HEAD_BYTES, "*2\r\n$3\r\nGET\r\n$%u\r\n%.*s\r\n", PROTOCOL_KEY_BYTES,
                            (int)PROTOCOL_KEY_BYTES, (const char *)key);
}

static size_t put_head(uint8_t *buf, const uint8_t *key, uint32_t value_len)
{
    return (size_t)snprintf((char *)buf, PROTOCOL_HEAD_BYTES, "*3\r\n$3\r\nSET\r\n$%u\r\n%.*s\r\n$%u\r\n",
                            PROTOCOL_KEY_BYTES, (int)PROTOCOL_KEY_BYTES, (const char *)key, value_len);
}

static struct answer get_answer(const uint8_t *buf, size_t len)
{
    return text_value(buf, len, "$", "$-1\r\n");
}

static struct answer put_answer(const uint8_t *buf, size_t len)
{
    size_t line = text_line(buf, len);
    if (line == 0)
        return answer_of(ANSWER_NEED_MORE, len + 1);
    if (line == SIZE_MAX)
        return answer_of(ANSWER_BROKEN, 0);
    if (text_begins(buf, line, "+OK\r\n"))
        return answer_of(ANSWER_STORED, line);
    return answer_of(text_begins(buf, line, "-OOM ") ? ANSWER_REFUSED : ANSWER_BROKEN, line);
}

const struct protocol protocol_redis = {
    .name = "redis",
    .get = get,
    .put_head = put_head,
    .put_tail = "\r\n",
    .get_answer = get_answer,
    .put_answer = put_answer,
};
