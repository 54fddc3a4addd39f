/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The server's log: one line per event, of text or JSON, to a file descriptor.
 *
 * Below everything else in the server. A line goes out in one write(2), so that lines of different threads never
 * mix; a line that is too long is cut. Nothing a peer sends reaches the log unescaped. Where the descriptor takes no
 * more, as a pipe that nobody reads, lines are lost: the log never holds a worker up.
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

/** What a line looks like. */
enum log_format {
    LOG_FORMAT_TEXT, /**< `TIME LEVEL MESSAGE`. */
    LOG_FORMAT_JSON  /**< An object with the members time, level and message. */
};

/** Where lines go, and which. Set once, then shared read-only. */
struct log {
    int fd;               /**< Borrowed, usually standard error; owned after log_open(). */
    enum log_level level; /**< Events that matter less are left out. */
    enum log_format format;
};

/**
 * @brief Read the name of a level.
 * @param name  "error", "warning", "info" or "debug".
 * @param[out] level  untouched if the name is none of these.
 * @return whether it is one.
 */
bool log_level_parse(const char *name, enum log_level *level);

/**
 * @brief Write to the end of a file from now on, which is made if it is not there.
 * @param path  of the file. @param[in,out] log  `fd` is set.
 * @return 0, or an errno value: then nothing changed.
 * @ownership The caller ends it with log_close().
 */
int log_open(struct log *log, const char *path);

/**
 * @brief Open the file anew under its name, so that one that was renamed can be put away.
 * @param path  as of log_open().
 * @return 0, or an errno value: then it goes on with the old file.
 * @threads any: a line of another thread goes to the old file or to the new one
 */
int log_reopen(const struct log *log, const char *path);

/** @brief Close what log_open() opened. */
void log_close(struct log *log);

/**
 * @brief Write one line: time in UTC, level, message. Keeps errno.
 * @param log  where to.
 * @param level  left out if it matters less than `log->level`.
 * @param format  as for printf(), without a line feed.
 * @threads any
 */
void log_line(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
