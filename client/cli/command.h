/* SPDX-License-Identifier: MIT */
/*
 * The commands: their names, arguments and options as a table, for running, for the help and for completion.
 */
#ifndef CRABCACHE_CLI_COMMAND_H
#define CRABCACHE_CLI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "client/cli/session.h"
#include "client/cli/text.h"

/** @brief All options that commands have; a command allows some of them. */
enum command_option {
    OPTION_TTL,
    OPTION_FILE,
    OPTION_IF_ABSENT,
    OPTION_IF_PRESENT,
    OPTION_IF_VERSION,
    OPTION_FLAGS,
    OPTION_SHOW_VERSION,
    OPTION_META,
    OPTION_TOUCH,
    OPTION_OUTPUT,
    OPTION_INITIAL,
    OPTION_COUNT
};

/** @brief An option: its name with dashes, and what its value is called (NULL: it has none). */
struct command_option_name {
    const char *name;
    const char *value;
};

/** @brief The names, by enum command_option. */
extern const struct command_option_name command_options[OPTION_COUNT];

/** @brief A command's words, sorted. */
struct arguments {
    struct crab_slice *words; /**< Arguments that are no options. */
    size_t count;
    bool given[OPTION_COUNT];
    struct crab_slice values[OPTION_COUNT];
};

/** @brief A command. */
struct command {
    const char *name;
    const char *usage;  /**< Its arguments. */
    const char *help;   /**< What it does, one line. */
    size_t least, most; /**< How many arguments. */
    unsigned allowed;   /**< Bits 1 << enum command_option. */
    int (*run)(struct session *session, const struct arguments *arguments);
};

/** @brief The commands; the last one has no name. */
extern const struct command commands[];

/** @brief Find a command by its name. @return it, or NULL */
const struct command *command_find(struct crab_slice name);

/**
 * @brief Run one command: the first word is its name.
 * @return its exit status
 */
int command_run(struct session *session, const struct words *words);

/* The commands themselves: in items.c those for items, in server.c those for the server. */
int command_put(struct session *session, const struct arguments *arguments);
int command_get(struct session *session, const struct arguments *arguments);
int command_del(struct session *session, const struct arguments *arguments);
int command_expire(struct session *session, const struct arguments *arguments);
int command_incr(struct session *session, const struct arguments *arguments);
int command_decr(struct session *session, const struct arguments *arguments);
int command_stats(struct session *session, const struct arguments *arguments);
int command_flush(struct session *session, const struct arguments *arguments);
int command_ping(struct session *session, const struct arguments *arguments);
int command_hello(struct session *session, const struct arguments *arguments);

/** @brief Read an option's time. @return CLI_OK, also if it is not given; or CLI_USAGE after a complaint */
int argument_time(const struct arguments *arguments, enum command_option option, uint64_t *ttl_ms);

/** @brief Finish output on the standard output. @return CLI_OK, or CLI_USAGE after a complaint */
int output_done(void);

#endif
