/* SPDX-License-Identifier: MIT */
/*
 * crabcache-replay's command line.
 */
#ifndef CRABCACHE_REPLAY_OPTIONS_H
#define CRABCACHE_REPLAY_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/replay/source.h"
#include "crabcache/crabcache.h"

#define REPLAY_MAX_THREADS 256U

/** @brief Exit statuses, as the help names them. */
enum replay_exit {
    REPLAY_OK = 0,
    REPLAY_WRONG = 1,
    REPLAY_USAGE = 2,
    REPLAY_CONNECTION = 3,
    REPLAY_SERVER = 4
};

/** @brief What the user wants. */
struct options {
    struct crab_conn_options conn;
    uint32_t depth;
    uint32_t threads;
    uint64_t limit;            /**< Requests at the most. */
    const char *prefix;        /**< Put before each key. */
    bool json;
    bool progress;
    const char *trace;         /**< A path or "-"; NULL: the Zipf stream. */
    struct zipf_options zipf;
    char secret[CRAB_MAX_SECRET + 4]; /**< With room for a line end, and to see that it is too long. */
};

/**
 * @brief Read the command line; complains on the standard error.
 * @param[out] options what the user wants
 * @param argc as main() got it
 * @param argv as main() got it
 * @return -1: go on; otherwise the exit status, after --help, --version or a mistake
 */
int options_read(struct options *options, int argc, char **argv);

#endif
