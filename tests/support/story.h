/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief A pipeline of requests whose right answers are known, and a server that harms the stream of replies.
 *
 * The server is no program: the stream is made in advance, byte for byte, and fed into the other end of a socket pair.
 */
#ifndef CRABCACHE_TESTS_STORY_H
#define CRABCACHE_TESTS_STORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crabcache/crabcache.h"

#define STORY_STEPS 48U
#define STORY_BYTES ((size_t)160 * 1024)

/** What happens to the stream of replies, at its byte `at`. */
enum story_fault {
    STORY_NONE,
    STORY_END,     /**< It ends in order. */
    STORY_RESET,   /**< The server's end is closed with requests unread. */
    STORY_SILENCE, /**< Nothing comes any more. */
    STORY_CANCEL,  /**< The client closes. */
    STORY_CORRUPT, /**< One byte is another one. */
    STORY_LOST,    /**< The reply there is left out. */
    STORY_TWICE,   /**< The reply there comes twice. */
    STORY_FAULTS
};

/** What a run is to be. */
struct story_plan {
    uint64_t seed;          /**< Of requests, values and pieces. */
    unsigned steps;         /**< Requests; 0: one of each kind. */
    enum story_fault fault;
    size_t at;              /**< Where; beyond the end: nowhere. */
    bool events;            /**< In an event loop, the stream in random pieces; otherwise with blocking calls. */
    bool tags;              /**< The connection checks tags. */
};

/**
 * @brief Do a run.  Whatever is wrong about it ends the test with a message that has the plan.
 *
 * Checked: replies that were whole before the fault are right, and came; no other request's reply is ever given out (with a
 * corrupted byte or a lost step: as far as tags show it); each completion is called once; it ends by the deadline; no memory
 * is left.
 * @return the bytes of the stream of replies
 */
size_t story_run(const struct story_plan *plan);

#endif
