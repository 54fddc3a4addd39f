/* SPDX-License-Identifier: MIT */
/*
 * crabcache-server: reads the command line and runs the server. Everything else is in server.c.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crabcache/version.h"
#include "server/config.h"
#include "server/log.h"
#include "server/server.h"

/* Exit status of a wrong command line. */
#define EXIT_USAGE 2

static int run(const struct config *config)
{
    mallopt(M_ARENA_MAX, 2); /* small blocks only, few and pooled: more arenas would just hold memory */
    struct log log = {.fd = STDERR_FILENO, .level = config->log_level, .format = config->log_format};
    int error = config->log_file != NULL ? log_open(&log, config->log_file) : 0;
    if (error != 0) {
        log_line(&log, LOG_LEVEL_ERROR, "--log-file: cannot write to \"%s\": %s", config->log_file, strerror(error));
        return EXIT_FAILURE;
    }
    int status = server_run(config, &log);
    if (config->log_file != NULL)
        log_close(&log);
    return status;
}

static int check(const struct config *config)
{
    struct log log = {.fd = STDERR_FILENO, .level = LOG_LEVEL_WARNING};
    int status = server_check(config, &log);
    if (status == EXIT_SUCCESS)
        puts("the configuration is right");
    return status;
}

int main(int argc, char **argv)
{
    struct config config;
    char message[CONFIG_MESSAGE_BYTES];
    int status = EXIT_SUCCESS;
    switch (config_parse(argc, argv, &config, message)) {
    case CONFIG_HELP:
        fputs(config_help(), stdout);
        break;
    case CONFIG_VERSION:
        printf("crabcache-server %s\n", CRAB_VERSION_STRING);
        break;
    case CONFIG_WRONG:
        fprintf(stderr, "crabcache-server: %s\n", message);
        status = EXIT_USAGE;
        break;
    case CONFIG_CHECK:
        status = check(&config);
        break;
    case CONFIG_RUN:
        status = run(&config);
        break;
    }
    config_fini(&config);
    return status;
}
