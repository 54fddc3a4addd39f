/* SPDX-License-Identifier: MIT */
/*
 * Text in and out; see text.h.  What is printed quoted can be typed again as it stands.
 */
#include "client/cli/text.h"

#include <stdlib.h>
#include <string.h>

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static int hex_digit(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c = (uint8_t)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The decimal number at the start of a text; *used digits, 0 if there is none or it is too large. */
static uint64_t leading_number(struct crab_slice text, size_t *used)
{
    uint64_t number = 0;
    size_t i = 0;
    *used = 0;
    for (; i < text.len && is_digit(text.data[i]); i++) {
        uint64_t digit = (uint64_t)(text.data[i] - '0');
        if (number > (UINT64_MAX - digit) / 10)
            return 0;
        number = number * 10 + digit;
    }
    *used = i;
    return number;
}

static bool equals(struct crab_slice text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.data, word, text.len) == 0;
}

bool text_time(struct crab_slice text, uint64_t *ttl_ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    if (text.len != 0 && equals(text, "never")) {
        *ttl_ms = CRAB_TTL_NEVER;
        return true;
    }
    size_t used;
    uint64_t number = leading_number(text, &used);
    if (used == 0 || number == 0)
        return false;
    struct crab_slice unit = crab_slice_of(text.data + used, text.len - used);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (equals(unit, units[i].name) && number <= CRAB_TTL_MAX_MS / units[i].ms) {
            *ttl_ms = number * units[i].ms;
            return true;
        }
    }
    return false;
}

bool text_number(struct crab_slice text, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;
    if (text.len > 2 && text.len <= 18 && text.data[0] == '0' && text.data[1] == 'x') {
        for (size_t i = 2; i < text.len; i++) {
            int digit = hex_digit(text.data[i]);
            if (digit < 0)
                return false;
            value = value << 4 | (uint64_t)digit;
        }
    } else {
        size_t used;
        value = leading_number(text, &used);
        if (used == 0 || used != text.len)
            return false;
    }
    if (value > most)
        return false;
    *number = value;
    return true;
}

bool text_signed(struct crab_slice text, int64_t *number)
{
    bool negative = text.len != 0 && text.data[0] == '-';
    size_t used;
    struct crab_slice digits = negative ? crab_slice_of(text.data + 1, text.len - 1) : text;
    uint64_t value = leading_number(digits, &used);
    if (used == 0 || used != digits.len || value > (uint64_t)INT64_MAX + (negative ? 1U : 0U))
        return false;
    *number = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

/* The escape after a backslash: writes its byte, gives the characters used, 0 if it is none. */
static size_t escape(const uint8_t *text, size_t len, uint8_t *byte)
{
    static const char names[] = "nrt0\\\"' ";
    static const char bytes[] = "\n\r\t\0\\\"' ";
    if (len == 0)
        return 0;
    if (text[0] == 'x') {
        int high = len > 1 ? hex_digit(text[1]) : -1;
        int low = len > 2 ? hex_digit(text[2]) : -1;
        if (high < 0 || low < 0)
            return 0;
        *byte = (uint8_t)(high << 4 | low);
        return 3;
    }
    const char *found = memchr(names, text[0], sizeof names - 1);
    if (found == NULL)
        return 0;
    *byte = (uint8_t)bytes[found - names];
    return 1;
}

bool text_unescape(uint8_t *bytes, size_t *len)
{
    size_t to = 0;
    for (size_t from = 0; from < *len;) {
        if (bytes[from] != '\\') {
            bytes[to++] = bytes[from++];
            continue;
        }
        uint8_t byte = 0;
        size_t used = escape(bytes + from + 1, *len - from - 1, &byte);
        if (used == 0)
            return false;
        bytes[to++] = byte;
        from += 1 + used;
    }
    *len = to;
    return true;
}

static const char bad_escape[] =
    "a backslash must be followed by xNN (two hexadecimal digits), n, r, t, 0, \\, \" or '";

static int words_init(struct words *words, size_t most, size_t bytes)
{
    *words = (struct words){0};
    words->words = calloc(most + 1, sizeof *words->words);
    words->quoted = calloc(most + 1, sizeof *words->quoted);
    words->bytes = malloc(bytes + 1);
    if (words->words != NULL && words->quoted != NULL && words->bytes != NULL)
        return 0;
    words_fini(words);
    return -1;
}

/* One word from `at` on: its bytes go to `out`. Gives where it ends; NULL after a mistake. */
static const char *split_word(const char *at, uint8_t *out, size_t *len, bool *quoted, const char **mistake)
{
    char quote = '\0';
    *len = 0;
    *quoted = false;
    for (; *at != '\0' && (quote != '\0' || (*at != ' ' && *at != '\t')); at++) {
        if (*at == '\\' && quote != '\'') {
            size_t used = escape((const uint8_t *)at + 1, strlen(at + 1), &out[*len]);
            if (used == 0) {
                *mistake = bad_escape;
                return NULL;
            }
            (*len)++;
            at += used;
        } else if (quote == '\0' && (*at == '"' || *at == '\'')) {
            quote = *at;
            *quoted = true;
        } else if (quote != '\0' && *at == quote) {
            quote = '\0';
        } else {
            out[(*len)++] = (uint8_t)*at;
        }
    }
    if (quote != '\0') {
        *mistake = "a quote is not closed";
        return NULL;
    }
    return at;
}

int words_split(const char *line, struct words *words, const char **mistake)
{
    size_t length = strlen(line);
    *mistake = "no memory";
    if (words_init(words, length / 2 + 1, length) != 0)
        return -1;
    uint8_t *out = words->bytes;
    for (const char *at = line;;) {
        at += strspn(at, " \t");
        if (*at == '\0')
            return 0;
        size_t len = 0;
        at = split_word(at, out, &len, &words->quoted[words->count], mistake);
        if (at == NULL) {
            words_fini(words);
            return -1;
        }
        words->words[words->count++] = crab_slice_of(out, len);
        out += len;
    }
}

int words_from_arguments(int count, char **arguments, bool escapes, struct words *words, const char **mistake)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += strlen(arguments[i]);
    *mistake = "no memory";
    if (words_init(words, (size_t)count, total) != 0)
        return -1;
    uint8_t *out = words->bytes;
    for (int i = 0; i < count; i++) {
        size_t len = strlen(arguments[i]);
        memcpy(out, arguments[i], len);
        if (escapes && !text_unescape(out, &len)) {
            *mistake = bad_escape;
            words_fini(words);
            return -1;
        }
        words->words[words->count++] = crab_slice_of(out, len);
        out += len;
    }
    return 0;
}

void words_fini(struct words *words)
{
    free(words->words);
    free(words->quoted);
    free(words->bytes);
    *words = (struct words){0};
}

void text_print_quoted(FILE *stream, struct crab_slice bytes)
{
    (void)fputc('"', stream);
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t c = bytes.data[i];
        if (c == '"' || c == '\\')
            (void)fprintf(stream, "\\%c", c);
        else if (c == '\n')
            (void)fputs("\\n", stream);
        else if (c >= 0x20 && c < 0x7f)
            (void)fputc(c, stream);
        else
            (void)fprintf(stream, "\\x%02x", c);
    }
    (void)fputc('"', stream);
}
