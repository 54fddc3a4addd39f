/* SPDX-License-Identifier: MIT */
/*
 * Reading traces: lines `key,value_bytes`, with that header or without it, plain or xz-compressed.
 */
#ifndef CRABCACHE_REPLAY_TRACE_H
#define CRABCACHE_REPLAY_TRACE_H

#include <stddef.h>

#include "client/replay/source.h"

/** @brief A trace that is being read. */
struct trace;

/** @brief As source_open_trace(). */
struct trace *trace_open(const char *path, char *error, size_t error_size);
/** @brief As source_next(). */
int trace_next(struct trace *trace, struct request *request);
/** @brief As source_error(). */
const char *trace_error(const struct trace *trace);
/** @brief End a trace; NULL is accepted. */
void trace_close(struct trace *trace);

#endif
