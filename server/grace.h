/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Tells the log when a worker holds up the reuse of memory, and when it no longer does.
 *
 * A worker that is stopped between two requests holds up nothing; one that is stopped in the middle of one (by a
 * debugger, by swapping, by a host that took the processor away) keeps what was retired since from being used again.
 */
#ifndef CRABCACHE_SERVER_GRACE_H
#define CRABCACHE_SERVER_GRACE_H

#include <stdbool.h>
#include <stdint.h>

struct log;
struct store;

/** After how long it is worth a line. */
#define GRACE_WARN_MS 1000U

/** How often to look, at least. */
#define GRACE_LOOK_MS 500U

/** What was said last. All zero at the start. */
struct grace {
    bool warned;     /**< Of `worker`. */
    unsigned worker; /**< Its number. */
    uint64_t lag_ms; /**< The longest that was seen. */
};

/**
 * @brief Look, and log what has changed: WARNING when a worker has been late for more than GRACE_WARN_MS, once, and
 *        INFO when none is any more.
 * @threads One thread at a time; not a worker, which could not see its own stall.
 */
void grace_look(struct grace *grace, struct store *store, const struct log *log);

#endif
