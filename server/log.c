/* SPDX-License-Identifier: MIT */
/*
 * Log lines: formatted on the stack, written in one go. In text, control characters become '?', so that no event can
 * forge a second line; JSON escapes them, and what is no UTF-8 becomes U+FFFD. A descriptor that is full or closed loses
 * lines and never blocks: it is the operator's, and the server does not depend on it.
 */
#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The longest message; and the longest line, which a pipe takes as a whole (PIPE_BUF). */
#define MESSAGE_BYTES 1024
#define LINE_BYTES 4096

/* Who may read the file of --log-file, but for what the umask takes away. */
#define FILE_MODE 0640

static const char *const level_names[] = {"error", "warning", "info", "debug"};

struct line {
    char data[LINE_BYTES];
    size_t len;
};

bool log_level_parse(const char *name, enum log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/* --------------------------------------------------------------------------------------------- the file */

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, FILE_MODE);
}

int log_open(struct log *log, const char *path)
{
    int fd = open_file(path);
    if (fd < 0)
        return errno;
    log->fd = fd;
    return 0;
}

int log_reopen(const struct log *log, const char *path)
{
    int fd = open_file(path);
    if (fd < 0)
        return errno;
    int error = dup3(fd, log->fd, O_CLOEXEC) < 0 ? errno : 0;
    close(fd);
    return error;
}

void log_close(struct log *log)
{
    close(log->fd);
    log->fd = -1;
}

/* --------------------------------------------------------------------------------------------- the lines */

static void put(struct line *line, const char *bytes, size_t len)
{
    memcpy(line->data + line->len, bytes, len);
    line->len += len;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

static void put_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    line->len += strftime(line->data + line->len, 32, "%Y-%m-%dT%H:%M:%S", &utc);
    line->len += (size_t)snprintf(line->data + line->len, 8, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

static bool is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

/* How many bytes the character of UTF-8 at `text` has, from 1 to 4; 0: there is none. */
static size_t utf8_len(const char *text)
{
    const unsigned char *u = (const unsigned char *)text;
    size_t len = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    }
    bool overlong = (u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xf0 && u[1] < 0x90);
    bool outside = (u[0] == 0xed && u[1] > 0x9f) || (u[0] == 0xf4 && u[1] > 0x8f);
    return overlong || outside ? 0 : len;
}

/* What a line has after the message. */
#define JSON_END "\"}\n"

static void put_json_string(struct line *line, const char *text)
{
    while (*text != '\0' && line->len + 6 + sizeof JSON_END <= LINE_BYTES) {
        size_t len = utf8_len(text);
        if (*text == '"' || *text == '\\') {
            put_text(line, *text == '"' ? "\\\"" : "\\\\");
        } else if (len == 1 && is_control(*text)) {
            char escaped[8];
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)(unsigned char)*text);
            put_text(line, escaped);
        } else if (len == 0) {
            put_text(line, "\\ufffd");
        } else {
            put(line, text, len);
        }
        text += len == 0 ? 1 : len;
    }
}

static void make_text_line(struct line *line, enum log_level level, char *message)
{
    for (char *c = message; *c != '\0'; c++)
        *c = is_control(*c) ? '?' : *c;
    put_time(line);
    put_text(line, " ");
    put_text(line, level_names[level]);
    put_text(line, " ");
    put_text(line, message);
    put_text(line, "\n");
}

static void make_json_line(struct line *line, enum log_level level, const char *message)
{
    put_text(line, "{\"time\":\"");
    put_time(line);
    put_text(line, "\",\"level\":\"");
    put_text(line, level_names[level]);
    put_text(line, "\",\"message\":\"");
    put_json_string(line, message);
    put_text(line, JSON_END);
}

/* Files are always ready; pipes, sockets and terminals are when there is room. */
static bool takes_more(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLOUT};
    return poll(&entry, 1, 0) == 1 && (entry.revents & POLLOUT) != 0;
}

void log_line(const struct log *log, enum log_level level, const char *format, ...)
{
    if (level > log->level)
        return;
    int saved = errno;
    char message[MESSAGE_BYTES] = "";
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);

    struct line line;
    line.len = 0;
    if (log->format == LOG_FORMAT_JSON)
        make_json_line(&line, level, message);
    else
        make_text_line(&line, level, message);
    ssize_t written = 0;
    do {
        if (takes_more(log->fd))
            written = write(log->fd, line.data, line.len);
    } while (written < 0 && errno == EINTR);
    errno = saved;
}
