/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The file of --config: lines of `name = value`.
 *
 * Knows the form of the file and nothing of the names; config.c does. Empty lines and lines that begin with '#' or ';'
 * are left out, and so is what follows a blank and ';'. Blanks around name and value do not count. The file has no
 * sections.
 */
#ifndef CRABCACHE_SERVER_CONFIG_FILE_H
#define CRABCACHE_SERVER_CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>

/** Most lines of a file. */
#define CONFIG_FILE_LINES 10000U

/** The longest line of a file, in bytes, its end left out. */
#define CONFIG_FILE_COLUMNS 197U

/**
 * @brief Take one setting.
 * @param context  as given to config_file_read().
 * @param name  of the setting. @param value  of it; both only for the call.
 * @param[out] why  if it is wrong: what is, for people. @param why_cap  room in why, in bytes.
 * @return whether it is right.
 */
typedef bool config_file_set(void *context, const char *name, const char *value, char *why, size_t why_cap);

/**
 * @brief Read a file, down to the first mistake.
 * @param path  of the file. @param set  is called for each setting, in order. @param context  handed to it.
 * @param[out] message  on failure: `PATH:LINE: what is wrong`. @param message_cap  room in message, in bytes.
 * @return whether all of it is right.
 */
bool config_file_read(const char *path, config_file_set *set, void *context, char *message, size_t message_cap);

#endif
