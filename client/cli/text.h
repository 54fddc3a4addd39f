/* SPDX-License-Identifier: MIT */
/*
 * Text on its way in and out: times, numbers, escapes, and lines cut into words.  Nothing here knows the server.
 */
#ifndef CRABCACHE_CLI_TEXT_H
#define CRABCACHE_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "crabcache/wire.h"

/** @brief Words of a command; the bytes are not ended by zeros and may hold any. */
struct words {
    struct crab_slice *words;
    bool *quoted;     /**< A quoted word is never an option. */
    size_t count;
    uint8_t *bytes;   /**< Where the words point to, or NULL. */
};

/**
 * @brief Read a time such as 500ms, 10s, 2m, 1h, 1d or never.
 * @param text the time
 * @param[out] ttl_ms in milliseconds; #CRAB_TTL_NEVER for never
 * @return whether it is one, from 1ms to #CRAB_TTL_MAX_MS
 */
bool text_time(struct crab_slice text, uint64_t *ttl_ms);

/** @brief Read a number, decimal or 0x and hexadecimal, that is at most `most`. @return whether it is one */
bool text_number(struct crab_slice text, uint64_t most, uint64_t *number);

/** @brief Read a decimal number that may be negative. @return whether it is one and fits */
bool text_signed(struct crab_slice text, int64_t *number);

/**
 * @brief Replace the escapes \\xNN, \\n, \\r, \\t, \\0, \\\\, \\" and \\' in place.
 * @param bytes the text
 * @param[in,out] len its length, smaller afterwards
 * @return false if a backslash begins none of them
 */
bool text_unescape(uint8_t *bytes, size_t *len);

/**
 * @brief Cut a line into words: blanks part them, '...' keeps everything, "..." keeps blanks; escapes work outside
 *        of '...'.
 * @param line the line
 * @param[out] words the words; words_fini() frees them
 * @param[out] mistake what is wrong, if it fails
 * @return 0, or -1
 */
int words_split(const char *line, struct words *words, const char **mistake);

/** @brief Take an argument vector as words. @return 0, or -1 if memory or an escape is wrong */
int words_from_arguments(int count, char **arguments, bool escapes, struct words *words, const char **mistake);

/** @brief Free words. */
void words_fini(struct words *words);

/** @brief Print bytes in double quotes, everything that is not printable ASCII as an escape. */
void text_print_quoted(FILE *stream, struct crab_slice bytes);

#endif
