/* SPDX-License-Identifier: MIT */
/*
 * What to measure, as the command line says it.
 */
#ifndef CRABCACHE_BENCH_PLAN_H
#define CRABCACHE_BENCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/bench/protocol.h"
#include "client/bench/sizes.h"

#define PLAN_THREADS_MAX 64U
#define PLAN_CONNECTIONS_MAX 60000U
#define PLAN_DEPTH_MAX 65536U

/** @brief Exit statuses, as the help names them. */
enum bench_exit { BENCH_OK = 0, BENCH_WRONG = 1, BENCH_USAGE = 2, BENCH_CONNECTION = 3 };

/** @brief All options. */
struct plan {
    const struct protocol *protocol;
    const char *host;
    uint16_t port;
    const char *socket_path;  /**< NULL: TCP. */
    uint32_t connections;
    uint32_t depth;           /**< Requests on their way on each connection. */
    uint32_t threads;
    const char *sizes_text;
    struct sizes sizes;
    uint64_t keys;
    uint32_t key_bytes;
    bool zipf;
    double exponent;          /**< With `zipf`. */
    uint32_t get_weight;      /**< Of --ratio. */
    uint32_t put_weight;
    uint64_t requests;        /**< Measured ones; 0: `duration_ns` decides. */
    uint64_t duration_ns;
    uint64_t warmup_ns;
    uint64_t rate;            /**< Requests per second of all threads; 0: closed loop. */
    uint64_t timeout_ns;      /**< A server that is silent for so long has failed. */
    uint64_t seed;
    bool preload;
    pid_t pid;                /**< 0: no accounting of the server's CPU time. */
    bool json;
    bool progress;
};

/**
 * @brief Read the command line; complains on the standard error.
 * @param[out] plan what to measure
 * @param argc as main() got it
 * @param argv as main() got it
 * @return -1: go on; otherwise the exit status, after --help, --version or a mistake
 */
int plan_read(struct plan *plan, int argc, char **argv);

#endif
