/* SPDX-License-Identifier: MIT */
/*
 * RESP2, as Redis, Valkey and others speak it: GET and SET as arrays of bulk strings.
 */
#include <stdio.h>
#include <string.h>

#include "client/bench/protocol.h"

#define VALUE_MAX (UINT64_C(512) << 20) /* proto-max-bulk-len of Redis */
#define LINE_END 2U

static void resp_get(struct frame *frame, uint32_t key_len)
{
    *frame = (struct frame){.len = 0};
    int head = snprintf((char *)frame->bytes, sizeof frame->bytes, "*2\r\n$3\r\nGET\r\n$%u\r\n", key_len);
    frame->key_at = (uint32_t)head;
    memcpy(frame->bytes + frame->key_at + key_len, "\r\n", LINE_END);
    frame->len = frame->key_at + key_len + LINE_END;
}

static void resp_put(struct frame *frame, uint32_t key_len, uint32_t value_len)
{
    *frame = (struct frame){.value_len = value_len, .tail = {'\r', '\n'}, .tail_len = LINE_END};
    int head = snprintf((char *)frame->bytes, sizeof frame->bytes, "*3\r\n$3\r\nSET\r\n$%u\r\n", key_len);
    frame->key_at = (uint32_t)head;
    uint8_t *after = frame->bytes + frame->key_at + key_len;
    int middle = snprintf((char *)after, sizeof frame->bytes - frame->key_at - key_len, "\r\n$%u\r\n", value_len);
    frame->len = frame->key_at + key_len + (uint32_t)middle;
}

/* "-1" or digits, up to the line's end. */
static int read_length(const uint8_t *at, const uint8_t *end, int64_t *length)
{
    if (end - at == 2 && at[0] == '-' && at[1] == '1') {
        *length = -1;
        return 0;
    }
    *length = 0;
    if (at == end || end - at > 10)
        return -1;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9')
            return -1;
        *length = *length * 10 + (*at - '0');
    }
    return 0;
}

static enum parsed resp_parse(const uint8_t *bytes, size_t len, struct reply *reply)
{
    const uint8_t *line_end = memchr(bytes, '\n', len < PROTOCOL_HEAD_MAX ? len : PROTOCOL_HEAD_MAX);
    if (strchr("$+-:_", bytes[0]) == NULL || bytes[0] == '\0')
        return PARSED_BROKEN;
    if (line_end == NULL)
        return len < PROTOCOL_HEAD_MAX ? PARSED_MORE : PARSED_BROKEN;
    if (line_end == bytes || line_end[-1] != '\r')
        return PARSED_BROKEN;
    const uint8_t *text_end = line_end - 1;
    reply->size = (uint64_t)(line_end + 1 - bytes);
    int64_t length;
    switch (bytes[0]) {
    case '$':
        if (read_length(bytes + 1, text_end, &length) != 0)
            return PARSED_BROKEN;
        reply->kind = length < 0 ? REPLY_MISS : REPLY_VALUE;
        if (length >= 0) {
            reply->value_len = (uint64_t)length;
            reply->size += (uint64_t)length + LINE_END;
        }
        return PARSED_HEAD;
    case '+':
        reply->kind = text_end - bytes == 3 && memcmp(bytes, "+OK", 3) == 0 ? REPLY_STORED : REPLY_OTHER;
        return PARSED_HEAD;
    case '-':
        reply->kind = REPLY_ERROR;
        reply->text = (const char *)bytes + 1;
        reply->text_len = (size_t)(text_end - bytes) - 1;
        return PARSED_HEAD;
    case '_':
        reply->kind = REPLY_MISS;
        return PARSED_HEAD;
    default:
        reply->kind = REPLY_OTHER;
        return PARSED_HEAD;
    }
}

const struct protocol protocol_resp = {
    .name = "resp",
    .port = 6379,
    .value_max = VALUE_MAX,
    .get = resp_get,
    .put = resp_put,
    .parse = resp_parse,
};
