/* SPDX-License-Identifier: MIT */
/*
 * crabcache-server: reads the command line and runs the server. Everything else is in server.c.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "crabcache/version.h"
#include "server/config.h"
#include "server/server.h"

/* Exit status of a wrong command line. */
#define EXIT_USAGE 2

int main(int argc, char **argv)
{
    struct config config;
    char message[CONFIG_MESSAGE_BYTES];
    switch (config_parse(argc, argv, &config, message)) {
    case CONFIG_HELP:
        fputs(config_help(), stdout);
        return EXIT_SUCCESS;
    case CONFIG_VERSION:
        printf("crabcache-server %s\n", CRAB_VERSION_STRING);
        return EXIT_SUCCESS;
    case CONFIG_WRONG:
        fprintf(stderr, "crabcache-server: %s\n", message);
        return EXIT_USAGE;
    case CONFIG_RUN:
        break;
    }
    mallopt(M_ARENA_MAX, 2); /* small blocks only, few and pooled: more arenas would just hold memory */
    struct log log = {.fd = STDERR_FILENO, .level = config.log_level};
    return server_run(&config, &log);
}
