/* SPDX-License-Identifier: MIT */
/*
 * The file of --config, by libinih. It gets its lines from next_line(), which knows their numbers (Debian's build of
 * the library does not tell them) and refuses what the library would take in silence: sections, lines that go on the
 * one before, lines that are too long, and what is no text.
 */
#include "server/config_file.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#define WHY_BYTES 400

struct reader {
    FILE *file;
    config_file_set *set;
    void *context;
    unsigned line;
    bool wrong;
    char why[WHY_BYTES];
};

static void complain(struct reader *r, const char *why)
{
    if (!r->wrong)
        snprintf(r->why, sizeof r->why, "%s", why);
    r->wrong = true;
}

/* Read a line without its end. Returns whether there was one. */
static bool read_line(struct reader *r, char *line, size_t cap)
{
    size_t len = 0;
    int c;
    while ((c = getc_unlocked(r->file)) != EOF && c != '\n') {
        if (len == cap - 1 || len == CONFIG_FILE_COLUMNS) {
            complain(r, "the line is longer than 197 bytes");
            break;
        }
        if (c == '\0')
            complain(r, "the line has a byte of value 0: is this a text file?");
        line[len++] = (char)c;
    }
    line[len] = '\0';
    if (ferror(r->file))
        complain(r, strerror(errno));
    return len != 0 || c == '\n';
}

/* For ini_parse_stream(): like fgets(), and NULL also after a mistake, which so ends the reading. */
static char *next_line(char *line, int cap, void *context)
{
    struct reader *r = context;
    if (r->wrong)
        return NULL;
    r->line++;
    if (!read_line(r, line, (size_t)cap - 1))
        return NULL;
    if (r->line > CONFIG_FILE_LINES)
        complain(r, "the file has more than 10000 lines");
    size_t blanks = strspn(line, " \t"); /* the library takes a line that begins with one for part of the last */
    memmove(line, line + blanks, strlen(line + blanks) + 1);
    if (line[0] == '[')
        complain(r, "this file has no sections");
    if (r->wrong)
        return NULL;
    size_t len = strlen(line);
    line[len] = '\n'; /* there is room: one byte of cap was held back */
    line[len + 1] = '\0';
    return line;
}

static int take(void *context, const char *section, const char *name, const char *value)
{
    struct reader *r = context;
    if (section[0] != '\0')
        complain(r, "this file has no sections");
    if (!r->wrong && !r->set(r->context, name, value, r->why, sizeof r->why))
        r->wrong = true;
    return 1;
}

bool config_file_read(const char *path, config_file_set *set, void *context, char *message, size_t message_cap)
{
    struct reader r = {.file = fopen(path, "re"), .set = set, .context = context};
    if (r.file == NULL) {
        snprintf(message, message_cap, "--config: cannot read \"%.200s\": %s", path, strerror(errno));
        return false;
    }
    int bad_line = ini_parse_stream(next_line, &r, take, &r);
    if (bad_line > 0 && (!r.wrong || (unsigned)bad_line < r.line)) { /* the library went on after it */
        r.wrong = false;
        r.line = (unsigned)bad_line;
        complain(&r, "this is no `name = value`");
    } else if (bad_line < 0) {
        complain(&r, "memory is short");
    }
    fclose(r.file);
    if (r.wrong)
        snprintf(message, message_cap, "%.100s:%u: %s", path, r.line, r.why);
    return !r.wrong;
}
