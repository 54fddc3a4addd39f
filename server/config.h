/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What the server is told on its command line.
 */
#ifndef CRABCACHE_SERVER_CONFIG_H
#define CRABCACHE_SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/log.h"
#include "server/store/store.h"

/** How often --bind may be given. */
#define CONFIG_MAX_BINDS 16U

/** Room that every message of config_parse() fits; longer values are cut. */
#define CONFIG_MESSAGE_BYTES 512U

/** Everything that can be configured. */
struct config {
    const char *binds[CONFIG_MAX_BINDS]; /**< Numeric IPv4 or IPv6 addresses; borrowed. */
    unsigned bind_count;
    uint16_t port;        /**< 0: any free one. */
    size_t memory_bytes;  /**< For everything. */
    unsigned threads;     /**< Workers. */
    enum store_eviction eviction;
    uint32_t max_value;    /**< In bytes; an upper bound of the limit in force. */
    const char *auth_file; /**< NULL: no authentication. Borrowed. */
    uint32_t stall_ms;     /**< How long a client may neither go on with a frame nor take a reply. */
    uint32_t first_ms;     /**< How long it may take for its first request, and AUTH; 0: any time. */
    uint32_t idle_ms;      /**< How long it may ask nothing; 0: any time. */
    unsigned max_connections; /**< 0: as many as descriptors and memory allow. */
    bool pin;              /**< Bind each worker to a CPU of its own. */
    enum log_level log_level;
};

/** What to do after config_parse(). */
enum config_result {
    CONFIG_RUN,     /**< Start the server. */
    CONFIG_HELP,    /**< Print config_help() and exit. */
    CONFIG_VERSION, /**< Print the version and exit. */
    CONFIG_WRONG    /**< Print the message to standard error and exit with status 2. */
};

/**
 * @brief Read the command line.
 * @param argc  as of main(). @param argv  as of main(); the configuration borrows from it.
 * @param[out] config  complete if the result is CONFIG_RUN.
 * @param[out] message  CONFIG_MESSAGE_BYTES; with CONFIG_WRONG it names flag, value and what is allowed.
 * @return what to do.
 * @threads Not two at a time: getopt_long() has state of its own.
 */
enum config_result config_parse(int argc, char **argv, struct config *config, char *message);

/** @brief The text of --help. */
const char *config_help(void);

/** @brief How much of `memory_bytes` is for buffers of clients; the rest is the store's. */
size_t config_buffer_bytes(size_t memory_bytes);

#endif
