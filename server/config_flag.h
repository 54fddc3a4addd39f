/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The table of flags, between config.c, which fills it, and config_parse.c, which goes through it.
 */
#ifndef CRABCACHE_SERVER_CONFIG_FLAG_H
#define CRABCACHE_SERVER_CONFIG_FLAG_H

#include "server/config.h"

/** Room in an array that has something for every flag. */
#define CONFIG_FLAGS_MAX 64U

/** Most workers. */
#define CONFIG_MAX_THREADS 64U

/** One flag. */
struct config_flag {
    const char *name; /**< Without dashes. */
    /** Read its value, which the configuration may keep; false: it is not allowed. */
    bool (*set)(struct config *config, const char *value);
    const char *allowed; /**< What it takes: the end of a sentence. */
};

/** All flags but those that are not for the file: help, version, config, check-config. */
extern const struct config_flag config_flags[];

/** How many; at most CONFIG_FLAGS_MAX. */
extern const size_t config_flag_count;

/** @brief Where it is counted how often a flag was given; NULL: it may be given only once. */
unsigned *config_times(struct config *config, const struct config_flag *flag);

/** @brief Whether a flag takes no value on the command line; there it means "yes". */
bool config_is_bare(const struct config_flag *flag);

/** @brief What holds if nothing is said. */
void config_defaults(struct config *config);

#endif
