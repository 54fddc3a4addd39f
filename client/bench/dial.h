/* SPDX-License-Identifier: MIT */
/*
 * Connections to the server.
 */
#ifndef CRABCACHE_BENCH_DIAL_H
#define CRABCACHE_BENCH_DIAL_H

#include <stddef.h>

#include "client/bench/plan.h"

/**
 * @brief Connect to the server of a plan, within its timeout.
 * @param plan where to
 * @param[out] error if it fails: why
 * @param error_size room in `error`
 * @return a non-blocking socket, or -1
 */
int dial(const struct plan *plan, char *error, size_t error_size);

#endif
