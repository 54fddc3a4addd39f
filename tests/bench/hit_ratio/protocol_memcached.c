/* SPDX-License-Identifier: MIT */
/*
 * memcached's text protocol: `mg` to get, since memcached makes one system call for each classic `get`, but sends the
 * answers to many `mg` at once; `set` to put.  Both count as uses of the item alike.
 */
#include <stdio.h>

#include "tests/bench/hit_ratio/protocol_text.h"

static size_t get(uint8_t *buf, const uint8_t *key)
{
    return (size_t)snprintf((char *)buf, PROTOCOL_HEAD_BYTES, "mg %.*s v\r\n", (int)PROTOCOL_KEY_BYTES,
                            (const char *)key);
}

static size_t put_head(uint8_t *buf, const uint8_t *key, uint32_t value_len)
{
    return (size_t)snprintf((char *)buf, PROTOCOL_HEAD_BYTES, "set %.*s 0 0 %u\r\n", (int)PROTOCOL_KEY_BYTES,
                            (const char *)key, value_len);
}

/* `VA bytes CR LF`, the value, CR LF; of a miss `EN CR LF`. */
static struct answer get_answer(const uint8_t *buf, size_t len)
{
    return text_value(buf, len, "VA ", "EN\r\n");
}

static struct answer put_answer(const uint8_t *buf, size_t len)
{
    size_t line = text_line(buf, len);
    if (line == 0)
        return answer_of(ANSWER_NEED_MORE, len + 1);
    if (line == SIZE_MAX)
        return answer_of(ANSWER_BROKEN, 0);
    if (text_begins(buf, line, "STORED\r\n"))
        return answer_of(ANSWER_STORED, line);
    bool refused = text_begins(buf, line, "SERVER_ERROR out of memory") ||
                   text_begins(buf, line, "SERVER_ERROR Out of memory") ||
                   text_begins(buf, line, "SERVER_ERROR object too large");
    return answer_of(refused ? ANSWER_REFUSED : ANSWER_BROKEN, line);
}

const struct protocol protocol_memcached = {
    .name = "memcached",
    .get = get,
    .put_head = put_head,
    .put_tail = "\r\n",
    .get_answer = get_answer,
    .put_answer = put_answer,
};
