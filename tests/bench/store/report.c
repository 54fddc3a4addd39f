/* SPDX-License-Identifier: MIT */
/* The lines of the result, as a Markdown table and as JSON. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/store/bench.h"

#define MOST_LINES 128U
#define TEXT       160U

struct line {
    const char *part, *unit;
    enum sense sense;
    double target, measured;
    char what[TEXT], note[TEXT];
};

static struct line lines[MOST_LINES];
static unsigned count;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_size);
    return values[n / 2];
}

static const char *verdict(const struct line *line)
{
    if (line->sense == NO_TARGET)
        return "";
    bool good = line->sense == AT_LEAST ? line->measured >= line->target : line->measured <= line->target;
    return good ? "reached" : "missed";
}

void report(const char *part, enum sense sense, double target, double measured, const char *unit, const char *note,
            const char *format, ...)
{
    if (count == MOST_LINES)
        abort();
    struct line *line = &lines[count++];
    *line = (struct line){.part = part, .unit = unit, .sense = sense, .target = target, .measured = measured};
    snprintf(line->note, TEXT, "%s", note);
    va_list args;
    va_start(args, format);
    vsnprintf(line->what, TEXT, format, args);
    va_end(args);
    fprintf(stderr, "%-9s %-62s %9.2f %-4s %s %s\n", part, line->what, measured, unit, verdict(line), note);
}

static void print_target(const struct line *line)
{
    if (line->sense == NO_TARGET)
        printf("|");
    else
        printf(" %s %g %s |", line->sense == AT_LEAST ? ">=" : "<=", line->target, line->unit);
}

static void print_json(FILE *file)
{
    fprintf(file, "[\n");
    for (unsigned i = 0; i < count; i++) {
        const struct line *line = &lines[i];
        fprintf(file, "  {\"part\": \"%s\", \"what\": \"%s\", ", line->part, line->what);
        if (line->sense != NO_TARGET)
            fprintf(file, "\"%s\": %g, ", line->sense == AT_LEAST ? "at_least" : "at_most", line->target);
        fprintf(file, "\"measured\": %g, \"unit\": \"%s\", \"verdict\": \"%s\", \"note\": \"%s\"}%s\n", line->measured,
                line->unit, verdict(line), line->note, i + 1 < count ? "," : "");
    }
    fprintf(file, "]\n");
}

int report_print(const char *json)
{
    printf("| part | what | target | measured | verdict | |\n|---|---|---|---|---|---|\n");
    for (unsigned i = 0; i < count; i++) {
        printf("| %s | %s |", lines[i].part, lines[i].what);
        print_target(&lines[i]);
        printf(" %.3g %s | %s | %s |\n", lines[i].measured, lines[i].unit, verdict(&lines[i]), lines[i].note);
    }
    if (json == NULL)
        return 0;
    FILE *file = fopen(json, "w");
    if (file == NULL)
        return errno;
    print_json(file);
    return fclose(file) == 0 ? 0 : errno;
}
