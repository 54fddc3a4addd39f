/* SPDX-License-Identifier: MIT */
/*
 * Typed commands: a prompt with editing, history and completion by libedit, and scripts without all that.
 *
 * The history is the user's alone (mode 0600): keys and values of a cache may be confidential.  Secrets are never typed
 * as part of a command, so they cannot get into it.
 */
#include "client/cli/interactive.h"

#include <editline/readline.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/command.h"

#define HISTORY_LINES 1000

static const char *const sections[] = {"server", "connections", "store", "workers", "ops", NULL};

/* ---- completion; libedit's interface keeps its state in statics of the generator */

static char *next_match(const char *text, const char *candidate)
{
    return candidate != NULL && strncmp(candidate, text, strlen(text)) == 0 ? strdup(candidate) : NULL;
}

static char *match_command(const char *text, int state)
{
    static size_t next;
    static const char *const extra[] = {"help", "quit"};
    size_t count = 0;
    if (state == 0)
        next = 0;
    while (commands[count].name != NULL)
        count++;
    while (next < count + 2) {
        const char *candidate = next < count ? commands[next].name : extra[next - count];
        next++;
        char *match = next_match(text, candidate);
        if (match != NULL)
            return match;
    }
    return NULL;
}

static char *match_section(const char *text, int state)
{
    static size_t next;
    if (state == 0)
        next = 0;
    while (sections[next] != NULL) {
        char *match = next_match(text, sections[next++]);
        if (match != NULL)
            return match;
    }
    return NULL;
}

/* The command that the line begins with. */
static const struct command *line_command(void)
{
    const char *start = rl_line_buffer + strspn(rl_line_buffer, " \t");
    return command_find(crab_slice_of(start, strcspn(start, " \t")));
}

static char *match_option(const char *text, int state)
{
    static unsigned next;
    const struct command *command = line_command();
    if (state == 0)
        next = 0;
    while (command != NULL && next < OPTION_COUNT) {
        unsigned option = next++;
        char *match = (command->allowed & 1U << option) != 0 ? next_match(text, command_options[option].name) : NULL;
        if (match != NULL)
            return match;
    }
    return NULL;
}

static char **complete(const char *text, int start, int end)
{
    (void)end;
    rl_attempted_completion_over = 1; /* no file names */
    if (strspn(rl_line_buffer, " \t") >= (size_t)start)
        return rl_completion_matches(text, match_command);
    const struct command *command = line_command();
    if (command != NULL && strcmp(command->name, "stats") == 0)
        return rl_completion_matches(text, match_section);
    return text[0] == '-' ? rl_completion_matches(text, match_option) : NULL;
}

/* ---- history */

/* Where the history is kept; an empty path if the user has no home. */
static void history_path(char *path, size_t size)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    path[0] = '\0';
    if (state != NULL && state[0] == '/')
        (void)snprintf(path, size, "%s/crabcache_history", state);
    else if (home != NULL && home[0] == '/')
        (void)snprintf(path, size, "%s/.crabcache_history", home);
}

static void history_save(const char *path)
{
    if (path[0] == '\0')
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    bool private = fchmod(fd, 0600) == 0;
    (void)close(fd);
    if (private)
        (void)write_history(path);
}

/* ---- lines */

static void print_help(void)
{
    for (const struct command *command = commands; command->name != NULL; command++) {
        (void)printf("%-7s %-30s %s\n", command->name, command->usage, command->help);
        for (unsigned i = 0; i < OPTION_COUNT; i++) {
            if ((command->allowed & 1U << i) != 0)
                (void)printf("          %s%s%s\n", command_options[i].name, command_options[i].value != NULL ? " " : "",
                             command_options[i].value != NULL ? command_options[i].value : "");
        }
    }
    (void)puts("help, quit\n\nWords are parted by blanks. 'single quotes' keep everything, \"double quotes\" keep\n"
               "blanks; \\xNN, \\n, \\t, \\\\ and so on work outside of single quotes.");
}

/* One line. *quit is set if it says so. */
static int run_line(struct session *session, const char *line, bool *quit)
{
    struct words words;
    const char *mistake;
    if (words_split(line, &words, &mistake) != 0) {
        session_complain("%s", mistake);
        return CLI_USAGE;
    }
    int status = CLI_OK;
    if (words.count == 0) {
        words_fini(&words);
        return CLI_OK;
    }
    struct crab_slice first = words.words[0];
    if ((first.len == 4 && (memcmp(first.data, "quit", 4) == 0 || memcmp(first.data, "exit", 4) == 0)))
        *quit = true;
    else if (first.len == 4 && memcmp(first.data, "help", 4) == 0)
        print_help();
    else
        status = command_run(session, &words);
    words_fini(&words);
    return status;
}

int interactive_run(struct session *session)
{
    char path[4096];
    char prompt[300];
    session->interactive = true;
    int status = session_connect(session);
    if (status != CLI_OK)
        return status;
    if (session->options.host[0] == '/')
        (void)snprintf(prompt, sizeof prompt, "%s> ", session->options.host);
    else
        (void)snprintf(prompt, sizeof prompt, "%s:%u> ", session->options.host, (unsigned)session->options.port);
    rl_readline_name = "crabcache-cli";
    rl_attempted_completion_function = complete;
    using_history();
    stifle_history(HISTORY_LINES);
    history_path(path, sizeof path);
    if (path[0] != '\0')
        (void)read_history(path);

    bool quit = false;
    while (!quit) {
        char *line = readline(prompt);
        if (line == NULL) {
            (void)putchar('\n');
            break;
        }
        if (line[strspn(line, " \t")] != '\0')
            (void)add_history(line);
        (void)run_line(session, line, &quit);
        free(line);
    }
    history_save(path);
    return CLI_OK;
}

int script_run(struct session *session)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t len;
    int first_failure = CLI_OK;
    bool quit = false;
    session->interactive = true;
    while (!quit && (len = getline(&line, &capacity, stdin)) > 0) {
        if (line[len - 1] == '\n')
            line[--len] = '\0';
        if (len > 0 && line[len - 1] == '\r') /* a script with the line ends of Windows */
            line[len - 1] = '\0';
        int status = run_line(session, line, &quit);
        if (first_failure == CLI_OK)
            first_failure = status;
        if (status == CLI_CONNECTION)
            break;
    }
    free(line);
    return first_failure;
}
