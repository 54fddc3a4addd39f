/* SPDX-License-Identifier: MIT */
/*
 * A trace as a stream of requests: bytes of a file, through the xz decoder if they begin like xz, cut into lines.
 *
 * A line is `key,value_bytes`; the last comma parts them, so a key may hold commas.  The first line may be the header
 * `key,value_bytes`.  Memory is bounded whatever the file is: a line has at most the longest key and a number.
 */
#include "client/replay/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crabcache/wire.h"

#define RAW_BYTES ((size_t)64 * 1024)
#define LONGEST_LINE ((size_t)CRAB_MAX_KEY + 32)
#define TEXT_BYTES (RAW_BYTES + LONGEST_LINE)
#define XZ_MEMORY_LIMIT ((uint64_t)256 * 1024 * 1024)

struct trace {
    int fd;
    bool compressed;
    bool raw_ended;  /* the file has no more bytes */
    bool text_ended; /* nothing more will be appended to text */
    lzma_stream xz;
    uint64_t line;
    size_t raw_first, raw_last;   /* bytes of the file that are not decoded yet */
    size_t text_first, text_last; /* decoded bytes that are not cut into lines yet */
    char name[256];
    char error[512];
    uint8_t raw[RAW_BYTES];
    uint8_t text[TEXT_BYTES];
};

__attribute__((format(printf, 2, 3))) static int fail(struct trace *trace, const char *format, ...)
{
    va_list arguments;
    int written = trace->line != 0 ? snprintf(trace->error, sizeof trace->error, "%s:%llu: ", trace->name,
                                              (unsigned long long)trace->line)
                                   : snprintf(trace->error, sizeof trace->error, "%s: ", trace->name);
    va_start(arguments, format);
    (void)vsnprintf(trace->error + written, sizeof trace->error - (size_t)written, format, arguments);
    va_end(arguments);
    return -1;
}

/* Read more bytes of the file behind those that are left. */
static int fill_raw(struct trace *trace)
{
    if (trace->raw_first == trace->raw_last)
        trace->raw_first = trace->raw_last = 0;
    if (trace->raw_ended || trace->raw_last == RAW_BYTES)
        return 0;
    ssize_t got;
    do
        got = read(trace->fd, trace->raw + trace->raw_last, RAW_BYTES - trace->raw_last);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return fail(trace, "cannot read: %s", strerror(errno));
    trace->raw_ended = got == 0;
    trace->raw_last += (size_t)got;
    return 0;
}

static const char *xz_problem(lzma_ret code)
{
    switch (code) {
    case LZMA_MEM_ERROR:
        return "no memory to decompress";
    case LZMA_MEMLIMIT_ERROR:
        return "decompressing needs more than 256 MiB of memory";
    case LZMA_FORMAT_ERROR:
        return "not an xz file";
    case LZMA_OPTIONS_ERROR:
        return "an xz file with options that are not supported";
    case LZMA_BUF_ERROR:
        return "the xz file is cut off";
    default:
        return "the xz file is damaged";
    }
}

/* Append decoded bytes to text. */
static int fill_text(struct trace *trace)
{
    size_t left = trace->text_last - trace->text_first;
    memmove(trace->text, trace->text + trace->text_first, left);
    trace->text_first = 0;
    trace->text_last = left;
    if (trace->raw_first == trace->raw_last && fill_raw(trace) != 0)
        return -1;
    size_t raw = trace->raw_last - trace->raw_first;
    if (!trace->compressed) {
        size_t room = TEXT_BYTES - left;
        size_t bytes = raw < room ? raw : room;
        memcpy(trace->text + left, trace->raw + trace->raw_first, bytes);
        trace->raw_first += bytes;
        trace->text_last += bytes;
        trace->text_ended = raw == 0;
        return 0;
    }
    trace->xz.next_in = trace->raw + trace->raw_first;
    trace->xz.avail_in = raw;
    trace->xz.next_out = trace->text + left;
    trace->xz.avail_out = TEXT_BYTES - left;
    lzma_ret code = lzma_code(&trace->xz, trace->raw_ended ? LZMA_FINISH : LZMA_RUN);
    trace->raw_first = trace->raw_last - trace->xz.avail_in;
    trace->text_last = TEXT_BYTES - trace->xz.avail_out;
    if (code == LZMA_STREAM_END)
        trace->text_ended = true;
    else if (code != LZMA_OK)
        return fail(trace, "%s", xz_problem(code));
    return 0;
}

/* The next line without its end. 1: there is one; 0: no more; -1: broken. */
static int next_line(struct trace *trace, struct crab_slice *line)
{
    for (;;) {
        uint8_t *first = trace->text + trace->text_first;
        size_t left = trace->text_last - trace->text_first;
        const uint8_t *end = left != 0 ? memchr(first, '\n', left) : NULL;
        if (end == NULL && !trace->text_ended) {
            if (left > LONGEST_LINE) {
                trace->line++;
                return fail(trace, "the line is longer than %zu bytes", LONGEST_LINE);
            }
            trace->line++; /* what goes wrong now is wrong with the next line */
            if (fill_text(trace) != 0)
                return -1;
            trace->line--;
            continue;
        }
        if (left == 0)
            return 0;
        size_t len = end != NULL ? (size_t)(end - first) : left;
        trace->text_first += len + (end != NULL ? 1 : 0);
        trace->line++;
        if (len != 0 && first[len - 1] == '\r')
            len--;
        *line = crab_slice_of(first, len);
        return 1;
    }
}

static bool parse_number(struct crab_slice text, uint32_t *number)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 10)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *number = (uint32_t)value;
    return value <= UINT32_MAX;
}

static int parse_line(struct trace *trace, struct crab_slice line, struct request *request)
{
    const uint8_t *comma = line.len != 0 ? memrchr(line.data, ',', line.len) : NULL;
    int shown = line.len < 40 ? (int)line.len : 40;
    if (comma == NULL)
        return fail(trace, "'%.*s' is not of the form key,value_bytes", shown, (const char *)line.data);
    size_t key_len = (size_t)(comma - line.data);
    struct crab_slice number = crab_slice_of(comma + 1, line.len - key_len - 1);
    if (key_len == 0)
        return fail(trace, "the key is empty");
    if (key_len > CRAB_MAX_KEY)
        return fail(trace, "the key has %zu bytes, at most %u are allowed", key_len, (unsigned)CRAB_MAX_KEY);
    if (!parse_number(number, &request->value_bytes))
        return fail(trace, "value_bytes is '%.*s', not a number from 0 to 4294967295",
                    number.len < 40 ? (int)number.len : 40, (const char *)number.data);
    request->key = line.data;
    request->key_len = key_len;
    return 1;
}

int trace_next(struct trace *trace, struct request *request)
{
    static const char header[] = "key,value_bytes";
    struct crab_slice line;
    int found = next_line(trace, &line);
    if (found == 1 && trace->line == 1 && line.len == sizeof header - 1 && memcmp(line.data, header, line.len) == 0)
        found = next_line(trace, &line);
    return found == 1 ? parse_line(trace, line, request) : found;
}

const char *trace_error(const struct trace *trace)
{
    return trace->error;
}

/* Look at the first bytes: is it xz? */
static int detect(struct trace *trace)
{
    static const uint8_t magic[] = {0xfd, '7', 'z', 'X', 'Z', 0};
    while (!trace->raw_ended && trace->raw_last < sizeof magic) {
        if (fill_raw(trace) != 0)
            return -1;
    }
    trace->compressed = trace->raw_last >= sizeof magic && memcmp(trace->raw, magic, sizeof magic) == 0;
    if (!trace->compressed)
        return 0;
    lzma_ret code = lzma_stream_decoder(&trace->xz, XZ_MEMORY_LIMIT, LZMA_CONCATENATED);
    return code == LZMA_OK ? 0 : fail(trace, "%s", xz_problem(code));
}

struct trace *trace_open(const char *path, char *error, size_t error_size)
{
    bool is_stdin = strcmp(path, "-") == 0;
    struct trace *trace = malloc(sizeof *trace);
    if (trace == NULL) {
        (void)snprintf(error, error_size, "no memory to read a trace");
        return NULL;
    }
    memset(trace, 0, offsetof(struct trace, raw));
    trace->xz = (lzma_stream)LZMA_STREAM_INIT;
    (void)snprintf(trace->name, sizeof trace->name, "%s", is_stdin ? "standard input" : path);
    trace->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (trace->fd < 0) {
        (void)snprintf(error, error_size, "cannot open %s: %s", path, strerror(errno));
        free(trace);
        return NULL;
    }
    if (detect(trace) != 0) {
        (void)snprintf(error, error_size, "%s", trace->error);
        trace_close(trace);
        return NULL;
    }
    return trace;
}

void trace_close(struct trace *trace)
{
    if (trace == NULL)
        return;
    lzma_end(&trace->xz);
    if (trace->fd > STDERR_FILENO)
        (void)close(trace->fd);
    free(trace);
}
