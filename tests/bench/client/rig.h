/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What the parts of bench_client share: keys, values, a clock, and the rows of the report.
 */
#ifndef CRABCACHE_BENCH_CLIENT_RIG_H
#define CRABCACHE_BENCH_CLIENT_RIG_H

#include <stddef.h>
#include <stdint.h>

#define RIG_KEY_BYTES 16
#define RIG_KEYS 100000U
#define RIG_DEPTH 64U
#define RIG_MAX_VALUE 4096U
#define RIG_CONNECTIONS 16U

/** What to measure. */
struct rig {
    uint16_t crab_port;
    uint16_t redis_port;
    double seconds;     /**< Of each measured piece. */
    size_t value_bytes;
    uint64_t random;    /**< The state of rig_key(). */
    char (*keys)[RIG_KEY_BYTES];
    uint8_t value[RIG_MAX_VALUE];
};

/** What a piece of work cost. */
struct rig_cost {
    uint64_t ops;
    double seconds;
    double cpu_seconds; /**< User and system time of this thread. */
};

/** @brief Seconds on a clock that does not step. */
double rig_now(void);

/** @brief Seconds of processor time that this thread has used, user and system. */
double rig_cpu(void);

/** @brief The same of the whole process. */
double rig_process_cpu(void);

/** @brief A key at random. */
const char *rig_key(struct rig *rig);

/** @brief A key at random, by a thread's own state, which is not 0. */
const char *rig_next_key(const struct rig *rig, uint64_t *random);

/** @brief A bare socket to a server on the loopback, without Nagle's delay. */
int rig_connect(uint16_t port);

/** @brief The middle one; they are sorted afterwards. */
double rig_median(double *values, size_t count);

/** @brief Say why and end the program. */
__attribute__((noreturn, format(printf, 1, 2))) void rig_die(const char *format, ...);

/* ---- each prepares its connection, and does pipelines of RIG_DEPTH until the time is up */

struct crab_side;
struct redis_side;

struct crab_side *crab_side_open(struct rig *rig);
void crab_side_close(struct crab_side *side);
void crab_side_fill(struct rig *rig, struct crab_side *side);
struct rig_cost crab_side_run(struct rig *rig, struct crab_side *side, int put);

struct redis_side *redis_side_open(struct rig *rig);
void redis_side_close(struct redis_side *side);
void redis_side_fill(struct rig *rig, struct redis_side *side);
struct rig_cost redis_side_run(struct rig *rig, struct redis_side *side, int put);

/** @brief RIG_CONNECTIONS hiredis contexts in turn: all pipelines are sent before the replies of the first are taken. */
struct rig_cost redis_many_run(struct rig *rig, int put);

/** @brief The same bytes by plain send() and recv() to the same server: what no library can be below. */
struct rig_cost bare_run(struct rig *rig, int put);

/** @brief RIG_CONNECTIONS connections in one event loop (epoll), each with a pipeline of RIG_DEPTH. */
struct rig_cost loop_run(struct rig *rig, int put);

/** @brief Blocking GETs against send and recv of the same bytes, in turns; prints its own rows. */
void latency_compare(struct rig *rig, unsigned rounds);

/** @brief Threads with blocking GETs on one shared client, beside a hiredis context each; prints its own rows. */
void threads_compare(struct rig *rig);

#endif
