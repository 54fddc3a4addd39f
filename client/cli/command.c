/* SPDX-License-Identifier: MIT */
/*
 * From words to a command: find it in the table, sort options from arguments, run it.  The same for the command line
 * and for typed lines, so that both understand the same things.
 */
#include "client/cli/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIT(option) (1U << OPTION_##option)

const struct command_option_name command_options[OPTION_COUNT] = {
    [OPTION_TTL] = {"--ttl", "TIME"},
    [OPTION_FILE] = {"--file", "FILE"},
    [OPTION_IF_ABSENT] = {"--if-absent", NULL},
    [OPTION_IF_PRESENT] = {"--if-present", NULL},
    [OPTION_IF_VERSION] = {"--if-version", "VERSION"},
    [OPTION_FLAGS] = {"--flags", "N"},
    [OPTION_SHOW_VERSION] = {"--show-version", NULL},
    [OPTION_META] = {"--meta", NULL},
    [OPTION_TOUCH] = {"--touch", "TIME"},
    [OPTION_OUTPUT] = {"--output", "FILE"},
    [OPTION_INITIAL] = {"--initial", "N"},
};

const struct command commands[] = {
    {"put", "KEY [VALUE | - | --file FILE]", "store a value; - is the standard input", 1, 2,
     BIT(TTL) | BIT(FILE) | BIT(IF_ABSENT) | BIT(IF_PRESENT) | BIT(IF_VERSION) | BIT(FLAGS) | BIT(SHOW_VERSION),
     command_put},
    {"get", "KEY", "print a value as it is", 1, 1, BIT(META) | BIT(TOUCH) | BIT(OUTPUT), command_get},
    {"del", "KEY...", "delete keys and print how many there were", 1, SIZE_MAX, 0, command_del},
    {"expire", "KEY TIME|never", "give an item a new time to live", 2, 2, 0, command_expire},
    {"incr", "KEY [N]", "add N (default 1) to a number and print it", 1, 2, BIT(INITIAL) | BIT(TTL), command_incr},
    {"decr", "KEY [N]", "subtract N (default 1) from a number and print it", 1, 2, BIT(INITIAL) | BIT(TTL),
     command_decr},
    {"stats", "[SECTION]", "print the server's statistics, all or one section", 0, 1, 0, command_stats},
    {"flush", "", "delete every item", 0, 0, 0, command_flush},
    {"ping", "", "ask for a sign of life", 0, 0, 0, command_ping},
    {"hello", "", "print what the server says of itself", 0, 0, 0, command_hello},
    {NULL, NULL, NULL, 0, 0, 0, NULL},
};

static bool is(struct crab_slice word, const char *name)
{
    return word.len == strlen(name) && memcmp(word.data, name, word.len) == 0;
}

const struct command *command_find(struct crab_slice name)
{
    for (const struct command *command = commands; command->name != NULL; command++) {
        if (is(name, command->name))
            return command;
    }
    return NULL;
}

/* How much of a word a complaint shows. */
static int shown(struct crab_slice word)
{
    return word.len < 60 ? (int)word.len : 60;
}

static int unknown_option(const struct command *command, struct crab_slice word)
{
    char allowed[256] = "";
    size_t used = 0;
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        if ((command->allowed & 1U << i) == 0)
            continue;
        int added = snprintf(allowed + used, sizeof allowed - used, " %s", command_options[i].name);
        used += added > 0 && (size_t)added < sizeof allowed - used ? (size_t)added : 0;
    }
    session_complain("%s: unknown option '%.*s'; allowed are%s (-- ends the options)", command->name, shown(word),
                     (const char *)word.data, used != 0 ? allowed : " none");
    return CLI_USAGE;
}

/* Take the option at words[*at], and its value. */
static int take_option(const struct command *command, const struct words *words, size_t *at,
                       struct arguments *arguments)
{
    struct crab_slice word = words->words[*at];
    const uint8_t *equals = memchr(word.data, '=', word.len);
    struct crab_slice name = equals != NULL ? crab_slice_of(word.data, (size_t)(equals - word.data)) : word;
    unsigned option = 0;
    while (option < OPTION_COUNT && !((command->allowed & 1U << option) != 0 && is(name, command_options[option].name)))
        option++;
    if (option == OPTION_COUNT)
        return unknown_option(command, name);
    arguments->given[option] = true;
    if (command_options[option].value == NULL) {
        if (equals == NULL)
            return CLI_OK;
        session_complain("%s: %s has no value", command->name, command_options[option].name);
        return CLI_USAGE;
    }
    if (equals != NULL) {
        arguments->values[option] = crab_slice_of(equals + 1, word.len - name.len - 1);
        return CLI_OK;
    }
    if (*at + 1 == words->count) {
        session_complain("%s: %s needs a value: %s", command->name, command_options[option].name,
                         command_options[option].value);
        return CLI_USAGE;
    }
    arguments->values[option] = words->words[++*at];
    return CLI_OK;
}

/* Sort a command's words into options and the rest. */
static int sort_words(const struct command *command, const struct words *words, struct arguments *arguments)
{
    bool options_ended = false;
    for (size_t i = 1; i < words->count; i++) {
        struct crab_slice word = words->words[i];
        if (!options_ended && !words->quoted[i] && is(word, "--")) {
            options_ended = true;
        } else if (!options_ended && !words->quoted[i] && word.len > 2 && memcmp(word.data, "--", 2) == 0) {
            int status = take_option(command, words, &i, arguments);
            if (status != CLI_OK)
                return status;
        } else {
            arguments->words[arguments->count++] = word;
        }
    }
    if (arguments->count >= command->least && arguments->count <= command->most)
        return CLI_OK;
    session_complain("usage: %s %s", command->name, command->usage);
    return CLI_USAGE;
}

int command_run(struct session *session, const struct words *words)
{
    const struct command *command = command_find(words->words[0]);
    if (command == NULL) {
        session_complain("unknown command '%.*s'; try --help", shown(words->words[0]),
                         (const char *)words->words[0].data);
        return CLI_USAGE;
    }
    struct arguments arguments = {.words = calloc(words->count, sizeof *arguments.words)};
    if (arguments.words == NULL) {
        session_complain("no memory");
        return CLI_USAGE;
    }
    int status = sort_words(command, words, &arguments);
    if (status == CLI_OK)
        status = command->run(session, &arguments);
    free(arguments.words);
    return status;
}

int argument_time(const struct arguments *arguments, enum command_option option, uint64_t *ttl_ms)
{
    struct crab_slice value = arguments->values[option];
    if (!arguments->given[option] || text_time(value, ttl_ms))
        return CLI_OK;
    session_complain("%s '%.*s': must be a time from 1ms on with the unit ms, s, m, h or d, or never",
                     command_options[option].name, shown(value), (const char *)value.data);
    return CLI_USAGE;
}

int output_done(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLI_OK;
    session_complain("cannot write to the standard output: %s", strerror(errno));
    return CLI_USAGE;
}
