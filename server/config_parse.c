/* SPDX-License-Identifier: MIT */
/*
 * From the command line, and the file that it names, to a configuration: look ahead for --help, --config and for what
 * is no flag; read the file; then the command line, which so has the last word; then see whether it fits together. What
 * the flags are and take is in config.c, the form of the file in config_file.c.
 */
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"
#include "server/config_file.h"
#include "server/config_flag.h"

#define MIB ((size_t)1 << 20)

/* Each worker needs this much of --memory, or its buffers would leave too little for those of clients. */
#define MEMORY_PER_THREAD (2 * MIB)

/* What getopt_long() returns; above every character, so that a short flag, of which there is none, is told apart. */
#define OPTION_HELP 256
#define OPTION_VERSION 257
#define OPTION_CONFIG 258
#define OPTION_CHECK 259
#define OPTION_FLAG 260 /* plus the index in flags */
#define OPTIONS (CONFIG_FLAGS_MAX + 5)

static void set_options(struct option options[OPTIONS])
{
    memset(options, 0, OPTIONS * sizeof options[0]);
    for (size_t i = 0; i < config_flag_count; i++)
        options[i] = (struct option){config_flags[i].name, config_is_bare(&config_flags[i]) ? no_argument : required_argument,
                                     NULL, OPTION_FLAG + (int)i};
    options[config_flag_count] = (struct option){"help", no_argument, NULL, OPTION_HELP};
    options[config_flag_count + 1] = (struct option){"version", no_argument, NULL, OPTION_VERSION};
    options[config_flag_count + 2] = (struct option){"config", required_argument, NULL, OPTION_CONFIG};
    options[config_flag_count + 3] = (struct option){"check-config", no_argument, NULL, OPTION_CHECK};
}

static enum config_result wrong(char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static enum config_result wrong(char *message, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, CONFIG_MESSAGE_BYTES, format, args);
    va_end(args);
    return CONFIG_WRONG;
}

/* A name that getopt_long() did not take, or one without its value. */
static enum config_result bad_option(int kind, char **argv, char *message)
{
    if (optopt > 0 && optopt < OPTION_HELP)
        return wrong(message, "-%c: there is no such flag; see --help", optopt);
    const char *given = argv[optind - 1];
    if (kind == ':')
        return wrong(message, "%.200s: a value is missing; see --help", given);
    return wrong(message, "%.200s: there is no such flag, or it takes no value; see --help", given);
}

static unsigned default_threads(size_t memory_bytes)
{
    cpu_set_t cpus;
    unsigned threads = 1;
    if (sched_getaffinity(0, sizeof cpus, &cpus) == 0)
        threads = (unsigned)CPU_COUNT(&cpus);
    size_t fitting = memory_bytes / MEMORY_PER_THREAD;
    if (threads > CONFIG_MAX_THREADS)
        threads = CONFIG_MAX_THREADS;
    return threads < fitting ? threads : (unsigned)fitting;
}

static enum config_result complete(struct config *config, char *message)
{
    if (config->threads == 0)
        config->threads = default_threads(config->memory_bytes);
    if (config->threads > config->memory_bytes / MEMORY_PER_THREAD)
        return wrong(message, "--threads: %u do not fit --memory of %zuM: allowed is at most one per 2M",
                     config->threads, config->memory_bytes / MIB);
    for (unsigned i = 0; i < config->bind_count; i++) {
        if (config->auth_file == NULL && !config->insecure && !config_is_loopback(config->binds[i]))
            return wrong(message, "--bind: \"%s\" would be open to everyone who can reach it: give --auth-file, or "
                                  "--insecure if that is meant", config->binds[i]);
    }
    return CONFIG_RUN;
}

/* ------------------------------------------------------------------------------------------------ file */

struct config_text {
    struct config_text *next;
    char text[];
};

void config_fini(struct config *config)
{
    while (config->texts != NULL) {
        struct config_text *text = config->texts;
        config->texts = text->next;
        free(text);
    }
}

/* Keep a value of the file for as long as the configuration. */
static const char *keep(struct config *config, const char *value)
{
    size_t len = strlen(value) + 1;
    struct config_text *text = malloc(sizeof *text + len);
    if (text == NULL)
        return NULL;
    memcpy(text->text, value, len);
    text->next = config->texts;
    config->texts = text;
    return text->text;
}

struct file_settings {
    struct config *config;
    bool given[CONFIG_FLAGS_MAX];
};

/* One setting of the file. */
static bool set_from_file(void *context, const char *name, const char *value, char *why, size_t why_cap)
{
    struct file_settings *settings = context;
    size_t i = 0;
    while (i < config_flag_count && strcmp(config_flags[i].name, name) != 0)
        i++;
    if (i == config_flag_count) {
        snprintf(why, why_cap, "\"%.100s\": there is no such setting; see --help", name);
        return false;
    }
    if (settings->given[i] && config_times(settings->config, &config_flags[i]) == NULL) {
        snprintf(why, why_cap, "%s: it was given before", name);
        return false;
    }
    settings->given[i] = true;
    const char *kept = keep(settings->config, value);
    if (kept == NULL) {
        snprintf(why, why_cap, "memory is short");
        return false;
    }
    if (config_flags[i].set(settings->config, kept))
        return true;
    snprintf(why, why_cap, "%s: \"%.200s\" is not allowed: it takes %s", name, value, config_flags[i].allowed);
    return false;
}

/* ---------------------------------------------------------------------------------------- command line */

/* Everything but the values of flags. CONFIG_RUN means: go on with them. */
static enum config_result look_ahead(int argc, char **argv, const char **file, bool *check, char *message)
{
    struct option options[OPTIONS];
    set_options(options);
    optind = 0; /* start anew, whoever used getopt before */
    opterr = 0;
    int option;
    while ((option = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        if (option == OPTION_HELP)
            return CONFIG_HELP;
        if (option == OPTION_VERSION)
            return CONFIG_VERSION;
        if (option == OPTION_CHECK)
            *check = true;
        else if (option == OPTION_CONFIG && *file != NULL)
            return wrong(message, "--config: it is allowed only once");
        else if (option == OPTION_CONFIG)
            *file = optarg;
        else if (option < OPTION_FLAG)
            return bad_option(option, argv, message);
    }
    if (optind < argc)
        return wrong(message, "%.200s: only flags are allowed; see --help", argv[optind]);
    return CONFIG_RUN;
}

/* The values of flags, after look_ahead() found the line in order. */
static enum config_result apply_flags(int argc, char **argv, struct config *config, char *message)
{
    struct option options[OPTIONS];
    bool given[CONFIG_FLAGS_MAX] = {false};
    set_options(options);
    optind = 0;
    int option;
    while ((option = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        if (option < OPTION_FLAG)
            continue;
        size_t i = (size_t)(option - OPTION_FLAG);
        const char *value = config_is_bare(&config_flags[i]) ? "yes" : optarg;
        unsigned *count = config_times(config, &config_flags[i]);
        if (!given[i] && count != NULL)
            *count = 0; /* forget those of the file */
        given[i] = true;
        if (!config_flags[i].set(config, value))
            return wrong(message, "--%s: \"%.200s\" is not allowed: it takes %s", config_flags[i].name, value,
                         config_flags[i].allowed);
    }
    return CONFIG_RUN;
}

enum config_result config_parse(int argc, char **argv, struct config *config, char *message)
{
    const char *file = NULL;
    bool check = false;
    config_defaults(config);
    enum config_result result = look_ahead(argc, argv, &file, &check, message);
    if (result != CONFIG_RUN)
        return result;
    struct file_settings settings = {.config = config};
    if (file != NULL && !config_file_read(file, set_from_file, &settings, message, CONFIG_MESSAGE_BYTES))
        return CONFIG_WRONG;
    result = apply_flags(argc, argv, config, message);
    if (result == CONFIG_RUN)
        result = complete(config, message);
    return result == CONFIG_RUN && check ? CONFIG_CHECK : result;
}
