/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Is a recorded history of one key linearizable? That is: is there an order of its operations, each taking
 *        place at once somewhere between its call and its return, in which a plain map would have given these answers?
 *
 * Threads record what they called, what came back, and a stamp before and after, from one counter. Values are unique, so
 * that a value read names the write that it came from. A value that is even stands for a number, to which one can add; an
 * odd one for bytes that are none.
 *
 * Time: the map's clock is recorded before and after each operation; so an expiry is known to lie in a range, and what the
 * range leaves open is allowed.
 */
#ifndef CRABCACHE_TEST_HISTORY_H
#define CRABCACHE_TEST_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "server/store/store.h"

/** Threads whose operations may overlap. */
#define HISTORY_THREADS 16U

/** What was called. */
enum history_kind {
    HISTORY_GET,
    HISTORY_TOUCH,
    HISTORY_EXPIRE,
    HISTORY_PUT,
    HISTORY_ADD,     /**< STORE_IF_ABSENT */
    HISTORY_REPLACE, /**< STORE_IF_PRESENT */
    HISTORY_CAS,     /**< STORE_IF_VERSION */
    HISTORY_INCR,
    HISTORY_DELETE,
    HISTORY_FLUSH
};

/** One operation on a key, and its answer. */
struct history_op {
    enum history_kind kind;
    enum store_result result;
    unsigned thread;        /**< Below HISTORY_THREADS; its operations do not overlap. */
    unsigned key;           /**< For the recorder; of no account here. */
    uint64_t called;        /**< Stamp before the call. No two stamps are equal. */
    uint64_t returned;      /**< Stamp after it. */
    uint64_t clock_before;  /**< The map's clock before the call, */
    uint64_t clock_after;   /**< and after it. */
    uint64_t written;       /**< The value written, or what INCR creates (0: nothing). */
    uint64_t delta;         /**< INCR: what is added. */
    uint64_t expected;      /**< CAS: the value whose version it names. */
    uint64_t ttl;           /**< PUT and the like, INCR, TOUCH, EXPIRE; or STORE_NEVER. */
    uint64_t seen;          /**< STORE_OK of GET, TOUCH, INCR: the value in the answer. */
    uint64_t left;          /**< STORE_OK of GET: time to live in the answer, or STORE_NEVER. */
    uint64_t version;       /**< In the answer, of `seen` or `written`; 0: none. */
};

/** What a map may do of its own accord. */
struct history_rules {
    bool evicts;  /**< Drop an item at any time. */
    bool refuses; /**< Answer STORE_NO_MEMORY to what might need room; nothing changes then. */
};

/**
 * @brief Check one key's history.
 * @param ops  in any order; put into the order of their calls.
 * @param[out] at  which operation's answer nothing explains.
 * @return NULL if the history is linearizable, else what is wrong.
 */
const char *history_check(struct history_op *ops, size_t count, const struct history_rules *rules, size_t *at);

/** @brief Print the operations that overlap or shortly precede ops[at], in the order of their calls. */
void history_print(FILE *to, const struct history_op *ops, size_t count, size_t at);

#endif
