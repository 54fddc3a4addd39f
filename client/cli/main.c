/* SPDX-License-Identifier: MIT */
/*
 * crabcache-cli: options of the program, then one command, or typed ones.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/command.h"
#include "client/cli/interactive.h"
#include "client/cli/session.h"
#include "client/cli/text.h"

static const char help_head[] =
    "Usage: crabcache-cli [OPTION]... COMMAND [ARGUMENT]...\n"
    "       crabcache-cli [OPTION]...\n"
    "Talk to a CrabCache server. Without a command, commands are read from the standard input:\n"
    "with editing, history and completion if it is a terminal.\n"
    "\n"
    "      --host HOST         name or address, or /path of a unix socket (default 127.0.0.1)\n"
    "  -p, --port PORT         TCP port (default 2722)\n"
    "      --timeout TIME      of each call, such as 500ms or 10s (default 5s)\n"
    "      --user NAME         authenticate; the secret comes from --secret-file or, without it,\n"
    "                          from the environment variable CRABCACHE_SECRET\n"
    "      --secret-file FILE  first line of FILE is the secret\n"
    "  -e, --escapes           understand \\xNN, \\n, \\\\ and so on in the command's arguments\n"
    "  -h, --help              print this help and exit\n"
    "  -V, --version           print the version and exit\n"
    "\n"
    "Commands\n";

static const char help_tail[] =
    "\n"
    "A TIME is a number with the unit ms, s, m, h or d, such as 500ms or 1d, or never.\n"
    "get prints the value as it is, and a line end after it only on a terminal.\n"
    "\n"
    "Exit status: 0 done; 1 no such key, or a condition did not hold; 2 bad usage or local file;\n"
    "3 no connection, it broke or timed out; 4 the server answered with an error.\n";

enum long_only { OPT_HOST = 256, OPT_TIMEOUT, OPT_USER, OPT_SECRET_FILE };

static const struct option long_options[] = {
    {"host", required_argument, NULL, OPT_HOST},
    {"port", required_argument, NULL, 'p'},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"user", required_argument, NULL, OPT_USER},
    {"secret-file", required_argument, NULL, OPT_SECRET_FILE},
    {"escapes", no_argument, NULL, 'e'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static int print_help(void)
{
    (void)fputs(help_head, stdout);
    for (const struct command *command = commands; command->name != NULL; command++) {
        (void)printf("  %-6s %-30s %s\n", command->name, command->usage, command->help);
        for (unsigned i = 0; i < OPTION_COUNT; i++) {
            if ((command->allowed & 1U << i) != 0)
                (void)printf("           %s%s%s\n", command_options[i].name,
                             command_options[i].value != NULL ? " " : "",
                             command_options[i].value != NULL ? command_options[i].value : "");
        }
    }
    (void)fputs(help_tail, stdout);
    return output_done();
}

static int read_timeout(struct session *session)
{
    uint64_t ms;
    if (text_time(crab_slice_str(optarg), &ms) && ms != 0) {
        if (ms == CRAB_TTL_NEVER) {
            session->options.timeout_ms = CRAB_NO_TIMEOUT;
            return 0;
        }
        if (ms <= 86400000) {
            session->options.timeout_ms = (uint32_t)ms;
            return 0;
        }
    }
    session_complain("--timeout '%s': must be a time from 1ms to 1d with the unit ms, s, m, h or d, or never", optarg);
    return -1;
}

static int read_port(struct session *session)
{
    uint64_t port;
    if (!text_number(crab_slice_str(optarg), UINT16_MAX, &port) || port == 0) {
        session_complain("--port '%s': must be a number from 1 to 65535", optarg);
        return -1;
    }
    session->options.port = (uint16_t)port;
    return 0;
}

static int read_secret(struct session *session, const char *path)
{
    const char *secret = getenv("CRABCACHE_SECRET");
    if (path != NULL) {
        FILE *file = fopen(path, "re");
        bool got = file != NULL && fgets(session->secret, sizeof session->secret, file) != NULL;
        if (!got)
            session_complain("--secret-file '%s': cannot read a secret: %s", path,
                             file == NULL ? strerror(errno) : "the file is empty");
        if (file != NULL)
            (void)fclose(file);
        if (!got)
            return -1;
        session->secret[strcspn(session->secret, "\r\n")] = '\0';
        if (strlen(session->secret) > CRAB_MAX_SECRET) {
            session_complain("--secret-file '%s': a secret has at most %u bytes", path, (unsigned)CRAB_MAX_SECRET);
            return -1;
        }
    } else if (secret == NULL || strlen(secret) > CRAB_MAX_SECRET) {
        session_complain("--user '%s': needs --secret-file or CRABCACHE_SECRET with at most %u bytes",
                         session->options.user, (unsigned)CRAB_MAX_SECRET);
        return -1;
    } else {
        (void)snprintf(session->secret, sizeof session->secret, "%s", secret);
    }
    session->options.secret = session->secret;
    session->options.secret_len = strlen(session->secret);
    return 0;
}

/* -1: go on; otherwise the exit status. */
static int read_options(struct session *session, int argc, char **argv, bool *escapes)
{
    const char *secret_file = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "+p:ehV", long_options, NULL)) != -1) {
        switch (option) {
        case OPT_HOST:
            session->options.host = optarg;
            break;
        case 'p':
            if (read_port(session) != 0)
                return CLI_USAGE;
            break;
        case OPT_TIMEOUT:
            if (read_timeout(session) != 0)
                return CLI_USAGE;
            break;
        case OPT_USER:
            session->options.user = optarg;
            break;
        case OPT_SECRET_FILE:
            secret_file = optarg;
            break;
        case 'e':
            *escapes = true;
            break;
        case 'h':
            return print_help();
        case 'V':
            (void)printf("crabcache-cli %s\n", crab_version());
            return output_done();
        default: /* getopt has complained */
            (void)fputs("Try crabcache-cli --help\n", stderr);
            return CLI_USAGE;
        }
    }
    if (session->options.user != NULL && read_secret(session, secret_file) != 0)
        return CLI_USAGE;
    return -1;
}

int main(int argc, char **argv)
{
    static struct session session = {
        .options = {.host = "127.0.0.1", .port = CRAB_DEFAULT_PORT, .client_name = "crabcache-cli"}};
    bool escapes = false;
    (void)signal(SIGPIPE, SIG_IGN); /* a closed standard output is an error of writing, with its own exit status */
    int status = read_options(&session, argc, argv, &escapes);
    if (status >= 0)
        return status;
    if (optind == argc) {
        status = isatty(STDIN_FILENO) ? interactive_run(&session) : script_run(&session);
    } else {
        struct words words;
        const char *mistake;
        if (words_from_arguments(argc - optind, argv + optind, escapes, &words, &mistake) != 0) {
            session_complain("%s", mistake);
            return CLI_USAGE;
        }
        status = command_run(&session, &words);
        words_fini(&words);
    }
    session_close(&session);
    explicit_bzero(session.secret, sizeof session.secret);
    return status;
}
