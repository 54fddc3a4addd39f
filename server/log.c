/* SPDX-License-Identifier: MIT */
/*
 * Log lines: formatted on the stack, written in one go. Control characters in the text become '?', so that no
 * event can forge a second line. A full or closed descriptor loses lines, never blocks a worker for good: the
 * descriptor is the operator's, and the server does not depend on it.
 */
#include "server/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 1024

static const char *const level_names[] = {"error", "warning", "info", "debug"};

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

static size_t put_time(char *line, size_t cap)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t len = strftime(line, cap, "%Y-%m-%dT%H:%M:%S", &utc);
    return len + (size_t)snprintf(line + len, cap - len, ".%03dZ ", (int)(now.tv_nsec / 1000000));
}

void log_line(const struct log *log, enum log_level level, const char *format, ...)
{
    if (level > log->level)
        return;
    int saved = errno;
    char line[LINE_BYTES];
    size_t len = put_time(line, sizeof line);
    len += (size_t)snprintf(line + len, sizeof line - len, "%s ", level_names[level]);
    size_t text = len;

    va_list args;
    va_start(args, format);
    errno = saved; /* for %m */
    int wanted = vsnprintf(line + len, sizeof line - len, format, args);
    va_end(args);
    if (wanted > 0)
        len += (size_t)wanted;
    if (len > sizeof line - 1)
        len = sizeof line - 1;
    for (size_t i = text; i < len; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    }
    line[len++] = '\n';

    ssize_t written;
    do {
        written = write(log->fd, line, len);
    } while (written < 0 && errno == EINTR);
    errno = saved;
}
