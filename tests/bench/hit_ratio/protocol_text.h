/* SPDX-License-Identifier: MIT */
/*
 * What the protocols of Redis and memcached share: lines that end with CR LF, and decimal numbers in them.
 */
#ifndef CRABCACHE_BENCH_HIT_RATIO_PROTOCOL_TEXT_H
#define CRABCACHE_BENCH_HIT_RATIO_PROTOCOL_TEXT_H

#include <stdbool.h>
#include <string.h>

#include "tests/bench/hit_ratio/protocol.h"

/** @brief No line of an answer is longer. */
#define TEXT_LINE_BYTES 1024U

/** @brief Find the line that `buf` begins with. @return its length with CR LF; 0: not whole; SIZE_MAX: too long */
static inline size_t text_line(const uint8_t *buf, size_t len)
{
    const uint8_t *end = len != 0 ? memchr(buf, '\n', len < TEXT_LINE_BYTES ? len : TEXT_LINE_BYTES) : NULL;
    if (end == NULL)
        return len < TEXT_LINE_BYTES ? 0 : SIZE_MAX;
    return end != buf && end[-1] == '\r' ? (size_t)(end - buf) + 1 : SIZE_MAX;
}

/** @brief The number that ends at `end`, in the digits before it, of which there are 1 to 10. @return false: none */
static inline bool text_number(const uint8_t *first, const uint8_t *end, size_t *number)
{
    *number = 0;
    if (first >= end || end - first > 10)
        return false;
    for (const uint8_t *digit = first; digit < end; digit++) {
        if (*digit < '0' || *digit > '9')
            return false;
        *number = *number * 10 + (size_t)(*digit - '0');
    }
    return *number <= PROTOCOL_MAX_VALUE;
}

/** @brief Whether a line begins with a text. */
static inline bool text_begins(const uint8_t *line, size_t len, const char *text)
{
    size_t text_len = strlen(text);
    return len >= text_len && memcmp(line, text, text_len) == 0;
}

/** @brief Read a value: `intro` and its length in a line, its bytes, CR LF; or the line that says that there is none. */
static inline struct answer text_value(const uint8_t *buf, size_t len, const char *intro, const char *none)
{
    size_t line = text_line(buf, len);
    size_t bytes;
    if (line == 0)
        return answer_of(ANSWER_NEED_MORE, len + 1);
    if (line == SIZE_MAX)
        return answer_of(ANSWER_BROKEN, 0);
    if (text_begins(buf, line, none))
        return answer_of(ANSWER_MISS, line);
    if (!text_begins(buf, line, intro) || !text_number(buf + strlen(intro), buf + line - 2, &bytes))
        return answer_of(ANSWER_BROKEN, 0);
    struct answer answer = answer_of(ANSWER_VALUE, line + bytes + 2);
    if (len < answer.size)
        answer.kind = ANSWER_NEED_MORE;
    else if (memcmp(buf + line + bytes, "\r\n", 2) != 0)
        answer.kind = ANSWER_BROKEN;
    else
        answer.value = crab_slice_of(buf + line, bytes);
    return answer;
}

#endif
