/* SPDX-License-Identifier: MIT */
/*
 * Where requests come from: a trace file, or a Zipf stream that is made up.
 */
#ifndef CRABCACHE_REPLAY_SOURCE_H
#define CRABCACHE_REPLAY_SOURCE_H

#include <stddef.h>
#include <stdint.h>

/** @brief One request of a stream. */
struct request {
    const uint8_t *key;   /**< Borrowed from the source until its next request. */
    size_t key_len;       /**< 1 to 65,535. */
    uint32_t value_bytes; /**< How long the value is that a miss puts. */
};

/** @brief A made-up stream. */
struct zipf_options {
    double exponent;    /**< 0: all keys alike; about 1: like the web. */
    uint64_t keys;      /**< How many keys there are. */
    uint64_t requests;  /**< How many requests to make. */
    uint64_t seed;      /**< The same seed gives the same stream. */
    uint32_t least;     /**< Shortest value in bytes. */
    uint32_t most;      /**< Longest value in bytes. */
};

/** @brief A stream of requests. */
struct source;

/**
 * @brief Open a trace.
 * @param path a file of lines `key,value_bytes`, plain or xz-compressed; "-" is the standard input
 * @param[out] error if it fails: why
 * @param error_size room in `error`
 * @return the source, or NULL
 * @ownership The caller ends it by source_close().
 */
struct source *source_open_trace(const char *path, char *error, size_t error_size);

/** @brief Make up a Zipf stream. @return the source, or NULL for lack of memory */
struct source *source_open_zipf(const struct zipf_options *options);

/**
 * @brief Take the next request.
 * @param source a source
 * @param[out] request the request; its key is borrowed until the next call
 * @return 1: there is one; 0: the stream ended; -1: it is broken, see source_error()
 */
int source_next(struct source *source, struct request *request);

/** @brief What is wrong with the stream: "FILE:LINE: ...". Borrowed from the source. */
const char *source_error(const struct source *source);

/** @brief End a source; NULL is accepted. */
void source_close(struct source *source);

#endif
