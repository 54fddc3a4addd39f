/* SPDX-License-Identifier: MIT */
/*
 * memcached's text protocol, in two forms: the meta commands mg and ms, since 1.6, to which it answers in batches; and
 * the classic get and set, to each of which it answers with a system call of its own.
 *
 *     mg key v            VA 64, the value            EN
 *     ms key 64           HD
 *     get key             VALUE key 0 64, the value, END: all of it is one reply here      END
 *     set key 0 0 64      STORED
 */
#include <stdio.h>
#include <string.h>

#include "client/bench/protocol.h"

#define VALUE_MAX (UINT64_C(1) << 30) /* the largest -I of memcached */
#define LINE_END 2U

/* "command key rest", where the rest is short. */
static void line(struct frame *frame, const char *command, uint32_t key_len, const char *rest)
{
    frame->key_at = (uint32_t)strlen(command);
    frame->len = frame->key_at + key_len + (uint32_t)strlen(rest);
    memcpy(frame->bytes, command, frame->key_at);
    memcpy(frame->bytes + frame->key_at + key_len, rest, strlen(rest));
}

static void line_of_put(struct frame *frame, const char *command, uint32_t key_len, const char *flags,
                        uint32_t value_len)
{
    char rest[40];
    *frame = (struct frame){.value_len = value_len, .tail = {'\r', '\n'}, .tail_len = LINE_END};
    (void)snprintf(rest, sizeof rest, "%s %u\r\n", flags, value_len);
    line(frame, command, key_len, rest);
}

static void meta_get(struct frame *frame, uint32_t key_len)
{
    *frame = (struct frame){.len = 0};
    line(frame, "mg ", key_len, " v\r\n");
}

static void meta_put(struct frame *frame, uint32_t key_len, uint32_t value_len)
{
    line_of_put(frame, "ms ", key_len, "", value_len);
}

static void classic_get(struct frame *frame, uint32_t key_len)
{
    *frame = (struct frame){.len = 0};
    line(frame, "get ", key_len, "\r\n");
}

static void classic_put(struct frame *frame, uint32_t key_len, uint32_t value_len)
{
    line_of_put(frame, "set ", key_len, " 0 0", value_len);
}

/* Up to the line's end the last number is the value's length; behind the value comes `after`. */
static enum parsed value_line(const uint8_t *bytes, const uint8_t *end, const char *after, struct reply *reply)
{
    const uint8_t *at = end;
    uint64_t length = 0;
    uint64_t unit = 1;
    while (at > bytes && at[-1] >= '0' && at[-1] <= '9' && end - at < 10) {
        at--;
        length += unit * (uint64_t)(*at - '0');
        unit *= 10;
    }
    if (at == end || at[-1] != ' ')
        return PARSED_BROKEN;
    reply->kind = REPLY_VALUE;
    reply->value_len = length;
    reply->size += length + strlen(after);
    return PARSED_HEAD;
}

static int is(const uint8_t *line, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(line, text, len) == 0;
}

static int begins(const uint8_t *line, size_t len, const char *text)
{
    return len >= strlen(text) && memcmp(line, text, strlen(text)) == 0;
}

static void parse_word(const uint8_t *word, size_t len, struct reply *reply)
{
    if (is(word, len, "HD") || is(word, len, "STORED")) {
        reply->kind = REPLY_STORED;
    } else if (is(word, len, "EN") || is(word, len, "END")) {
        reply->kind = REPLY_MISS;
    } else if (is(word, len, "ERROR") || begins(word, len, "SERVER_ERROR") || begins(word, len, "CLIENT_ERROR") ||
               is(word, len, "NS") || is(word, len, "NOT_STORED")) {
        reply->kind = REPLY_ERROR;
        reply->text = (const char *)word;
        reply->text_len = len;
    } else {
        reply->kind = REPLY_OTHER;
    }
}

static enum parsed memcached_parse(const uint8_t *bytes, size_t len, struct reply *reply)
{
    const uint8_t *line_end = memchr(bytes, '\n', len < PROTOCOL_HEAD_MAX ? len : PROTOCOL_HEAD_MAX);
    if (bytes[0] < 'A' || bytes[0] > 'Z')
        return PARSED_BROKEN;
    if (line_end == NULL)
        return len < PROTOCOL_HEAD_MAX ? PARSED_MORE : PARSED_BROKEN;
    if (line_end[-1] != '\r')
        return PARSED_BROKEN;
    size_t text_len = (size_t)(line_end - bytes) - 1;
    reply->size = text_len + LINE_END;
    if (begins(bytes, text_len, "VA "))
        return value_line(bytes, line_end - 1, "\r\n", reply);
    if (begins(bytes, text_len, "VALUE "))
        return value_line(bytes, line_end - 1, "\r\nEND\r\n", reply);
    parse_word(bytes, text_len, reply);
    return PARSED_HEAD;
}

const struct protocol protocol_memcached = {
    .name = "memcached",
    .port = 11211,
    .value_max = VALUE_MAX,
    .get = meta_get,
    .put = meta_put,
    .parse = memcached_parse,
};

const struct protocol protocol_memcached_classic = {
    .name = "memcached-classic",
    .port = 11211,
    .value_max = VALUE_MAX,
    .get = classic_get,
    .put = classic_put,
    .parse = memcached_parse,
};
