/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What the server counts, and the text of STATS.
 *
 * Each worker counts in a block of its own, which only it writes: a plain load, add and store, no shared line.
 * Whoever asks for statistics sums the blocks up; the sums are exact when nothing is under way.
 */
#ifndef CRABCACHE_SERVER_STATS_H
#define CRABCACHE_SERVER_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/wire.h"
#include "server/latency.h"

struct store;
struct buf_budget;

/** Ops with a counter of their own: all that requests can have; unknown ones share number 0. */
#define STATS_OPS 0xC0U

/** Room that every text of stats_render() fits, with up to STATS_MAX_WORKERS workers. */
#define STATS_TEXT_BYTES ((size_t)32 << 10)

/** Most workers that are told apart. */
#define STATS_MAX_WORKERS 64U

/** A counter with one writer. */
struct stats_counter {
    _Atomic uint64_t value; /**< Use stats_add(). */
};

/** Every counter of a worker but those of the ops: X(name). */
#define STATS_FOR_EACH_COUNTER(X)                                                                              \
    X(connections_opened)                                                                                      \
    X(connections_closed)                                                                                      \
    X(connections_aborted)                                                                                     \
    X(connections_timed_out)                                                                                   \
    X(bytes_received)                                                                                          \
    X(bytes_sent)                                                                                              \
    X(bytes_skipped)                                                                                           \
    X(wakeups)                                                                                                 \
    X(errors)                                                                                                  \
    X(late_errors)                                                                                             \
    X(fatal_errors)                                                                                            \
    X(auth_failures)                                                                                           \
    X(auth_throttled)                                                                                          \
    X(values_by_reference)                                                                                     \
    X(values_streamed)                                                                                         \
    X(output_stalls)

/** The known ops without gaps, for their times. */
enum stats_timed_op {
#define STATS_TIMED(name, NAME) STATS_TIMED_##NAME,
    CRAB_FOR_EACH_REQUEST(STATS_TIMED)
#undef STATS_TIMED
    STATS_TIMED_OPS /**< How many; also: an unknown one. */
};

/** What one worker counts. */
struct stats_worker {
    _Alignas(128) struct stats_counter ops[STATS_OPS]; /**< Requests by op. */
#define STATS_FIELD(name) struct stats_counter name;
    STATS_FOR_EACH_COUNTER(STATS_FIELD)
#undef STATS_FIELD
    struct latency latency[STATS_TIMED_OPS]; /**< How long requests took, of those that were timed. */
};

/** What the server is and has; set before the workers start. */
struct stats {
    uint64_t start_ms;               /**< When it started, on CLOCK_BOOTTIME. */
    size_t memory_bytes;             /**< --memory. */
    uint32_t max_value;              /**< The limit in force. */
    const char *eviction;            /**< "evict" or "none". */
    struct store *store;             /**< Borrowed. */
    const struct buf_budget *budget; /**< Borrowed. */
    const struct buf_budget *streams; /**< Of values on their way into their places, or NULL. Borrowed. */
    atomic_uint accept_pauses;       /**< How often accepting had to pause. */
    atomic_uint refused_connections; /**< Closed at once for want of memory. */
    unsigned worker_count;           /**< Blocks in use. */
    struct stats_worker *workers;    /**< One per worker. */
};

/** @brief Add to a counter of the calling worker. */
static inline void stats_add(struct stats_counter *counter, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(&counter->value, memory_order_relaxed);
    atomic_store_explicit(&counter->value, value + amount, memory_order_relaxed);
}

/** @brief Read a counter. @threads any */
static inline uint64_t stats_read(const struct stats_counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

/** @brief Which op this is. @return STATS_TIMED_OPS if it is not known. */
enum stats_timed_op stats_timed(uint8_t op);

/** @brief Milliseconds on a clock that no one sets, CLOCK_BOOTTIME. */
uint64_t stats_now_ms(void);

/**
 * @brief Start an empty block of statistics.
 * @param workers  1 to STATS_MAX_WORKERS.
 * @return 0, or ENOMEM.
 * @ownership ended with stats_fini().
 */
int stats_init(struct stats *stats, unsigned workers);

/** @brief Free what stats_init() took. */
void stats_fini(struct stats *stats);

/**
 * @brief Write the text of STATS: lines of section, dot, name, colon, value, line feed.
 * @param section  "server", "connections", "store", "workers", "ops"; all of them if len is 0.
 * @param len  of the section's name.
 * @param[out] text  room for STATS_TEXT_BYTES.
 * @return bytes written, or 0 if there is no such section.
 */
size_t stats_render(const struct stats *stats, const char *section, size_t len, char *text);

#endif
