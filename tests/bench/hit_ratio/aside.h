/* SPDX-License-Identifier: MIT */
/*
 * Cache-aside over one connection, the same for every server.
 */
#ifndef CRABCACHE_BENCH_HIT_RATIO_ASIDE_H
#define CRABCACHE_BENCH_HIT_RATIO_ASIDE_H

#include <stdint.h>

#include "client/bench/protocol.h"
#include "client/replay/source.h"

#define ASIDE_KEY_BYTES 16U
/** @brief The longest value of any request; memcached takes no longer item. */
#define ASIDE_MAX_VALUE ((uint32_t)1 << 30)

/** @brief What to replay, and how. */
struct aside_options {
    const struct protocol *protocol; /**< NULL: no server, count the stream only. */
    uint16_t port;                   /**< On 127.0.0.1. */
    uint32_t batch;                  /**< Gets in one flight at the most, 1 to #ASIDE_MAX_BATCH. */
    uint32_t scale;                  /**< Values are so many times as long as the stream says. */
    uint32_t copies;                 /**< Each request of the stream is made for so many different keys. */
    uint64_t limit;                  /**< Requests of the stream at the most, before they are copied. */
};

#define ASIDE_MAX_BATCH 1024U
/** @brief A flight takes no further request once the values of its requests have so many bytes. */
#define ASIDE_BATCH_BYTES ((uint64_t)256 * 1024)

/** @brief What was counted. */
struct aside_result {
    uint64_t requests;
    uint64_t misses;    /**< Requests that found nothing; each is followed by a put. */
    uint64_t refused;   /**< Puts that the server refused. */
    uint64_t keys;      /**< Different keys: as many misses as no cache can avoid. */
    uint64_t footprint; /**< Bytes of all keys and of the first value of each. */
    uint32_t longest;   /**< Bytes of the longest value. */
    uint64_t elapsed_ns;
    char error[256];    /**< If it failed: why. */
};

/**
 * @brief Replay a stream.
 * @param options what and how
 * @param source the stream
 * @param[out] result what was counted
 * @return 0; -1 if the stream or the connection broke or an answer was wrong, see `result->error`
 */
int aside_run(const struct aside_options *options, struct source *source, struct aside_result *result);

#endif
