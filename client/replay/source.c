/* SPDX-License-Identifier: MIT */
/*
 * The two kinds of streams behind one face, so that what replays them need not know which it is.
 */
#include "client/replay/source.h"

#include <stdlib.h>

#include "client/replay/trace.h"
#include "client/replay/zipf.h"

struct source {
    struct trace *trace; /* either this */
    struct zipf *zipf;   /* or this */
};

struct source *source_open_trace(const char *path, char *error, size_t error_size)
{
    struct source *source = calloc(1, sizeof *source);
    struct trace *trace = source != NULL ? trace_open(path, error, error_size) : NULL;
    if (trace == NULL) {
        free(source);
        return NULL;
    }
    source->trace = trace;
    return source;
}

struct source *source_open_zipf(const struct zipf_options *options)
{
    struct source *source = calloc(1, sizeof *source);
    struct zipf *zipf = source != NULL ? zipf_create(options) : NULL;
    if (zipf == NULL) {
        free(source);
        return NULL;
    }
    source->zipf = zipf;
    return source;
}

int source_next(struct source *source, struct request *request)
{
    return source->trace != NULL ? trace_next(source->trace, request) : zipf_next(source->zipf, request);
}

const char *source_error(const struct source *source)
{
    return source->trace != NULL ? trace_error(source->trace) : "";
}

void source_close(struct source *source)
{
    if (source == NULL)
        return;
    trace_close(source->trace);
    zipf_destroy(source->zipf);
    free(source);
}
