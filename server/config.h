/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What the server is told: on its command line, and in the file that --config names.
 *
 * Every flag has the same name in both; what the command line says wins. A flag that may be given several times is
 * replaced as a whole: one --bind on the command line, and those of the file are forgotten.
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

/** How often --unix may be given. */
#define CONFIG_MAX_UNIX 16U

/** Where the server listens if it is told nothing else. */
#define CONFIG_DEFAULT_BIND "127.0.0.1"

/** Room that every message of config_parse() fits; longer values are cut. */
#define CONFIG_MESSAGE_BYTES 512U

struct config_text; /**< A value that was read from the file. */

/** Everything that can be configured. */
struct config {
    const char *binds[CONFIG_MAX_BINDS]; /**< Numeric IPv4 or IPv6 addresses; borrowed. */
    unsigned bind_count;                 /**< 0, and no unix_paths either: CONFIG_DEFAULT_BIND is meant. */
    const char *unix_paths[CONFIG_MAX_UNIX]; /**< Of unix sockets; borrowed. */
    unsigned unix_count;
    unsigned unix_mode; /**< Permissions of the unix sockets. */
    bool insecure;      /**< Addresses that others can reach are allowed without users. */
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
    unsigned auth_failures; /**< Failed AUTHs per minute of one source; 0: any number. */
    enum log_level log_level;
    enum log_format log_format;
    int metrics_port;         /**< -1: no metrics; 0: any free one. */
    const char *metrics_bind; /**< Numeric address; borrowed. */
    const char *log_file; /**< NULL: standard error. Borrowed. */
    struct config_text *texts; /**< Owned: see config_fini(). */
};

/** What to do after config_parse(). */
enum config_result {
    CONFIG_RUN,     /**< Start the server. */
    CONFIG_HELP,    /**< Print config_help() and exit. */
    CONFIG_VERSION, /**< Print the version and exit. */
    CONFIG_CHECK,   /**< Check what the configuration names, and exit. */
    CONFIG_WRONG    /**< Print the message to standard error and exit with status 2. */
};

/**
 * @brief Read the command line, and the file that it names.
 * @param argc  as of main(). @param argv  as of main(); the configuration borrows from it.
 * @param[out] config  complete if the result is CONFIG_RUN or CONFIG_CHECK.
 * @param[out] message  CONFIG_MESSAGE_BYTES; with CONFIG_WRONG it names flag (or file and line), value and what is
 *                      allowed.
 * @return what to do.
 * @ownership The caller ends the configuration with config_fini(), whatever the result.
 * @threads Not two at a time: getopt_long() has state of its own.
 */
enum config_result config_parse(int argc, char **argv, struct config *config, char *message);

/** @brief Free what config_parse() took. */
void config_fini(struct config *config);

/** @brief The text of --help. */
const char *config_help(void);

/** @brief Whether a numeric address can be reached from this machine only. */
bool config_is_loopback(const char *address);

/** @brief How much of `memory_bytes` is for buffers of clients; the rest is the store's. */
size_t config_buffer_bytes(size_t memory_bytes);

#endif
