/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The server's log: one line of text per event, to a file descriptor.
 *
 * Below everything else in the server. A line goes out in one write(2), so that lines of different threads never
 * mix; a line that is too long is cut. Nothing a peer sends reaches the log unescaped.
 */
#ifndef CRABCACHE_SERVER_LOG_H
#define CRABCACHE_SERVER_LOG_H

#include <stdbool.h>

/** How much an event matters. */
enum log_level {
    LOG_LEVEL_ERROR,   /**< The server, or a part of it, does not work. */
    LOG_LEVEL_WARNING, /**< It works, but someone should look. */
    LOG_LEVEL_INFO,    /**< Start, stop, and what an operator expects to see. */
    LOG_LEVEL_DEBUG    /**< Every connection. */
};

/** Where lines go, and which. Set once, then shared read-only. */
struct log {
    int fd;               /**< Borrowed; usually standard error. */
    enum log_level level; /**< Events that matter less are left out. */
};

/**
 * @brief Read the name of a level.
 * @param name  "error", "warning", "info" or "debug".
 * @param[out] level  untouched if the name is none of these.
 * @return whether it is one.
 */
bool log_level_parse(const char *name, enum log_level *level);

/**
 * @brief Write one line: time in UTC, level, text. Keeps errno.
 * @param log  where to.
 * @param level  left out if it matters less than `log->level`.
 * @param format  as for printf(), without a line feed.
 * @threads any
 */
void log_line(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
