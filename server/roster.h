/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The connections of a worker, in the orders in which they are given up.
 *
 * Where it stands: the worker adds a connection, places it again after each of its turns, and asks who is late, or who
 * has to give way. What is then done to that connection is the worker's business.
 *
 * A connection is in one list at a time: while it is OPEN in that of what its peer owes (enum conn_debt), then among
 * those that end, or among those that are gone. All of these but the last are in the order of deadlines, because
 * all in one list have the same time; so only the first one of each has to be looked at. Until a connection has made its first
 * request it is also in the list of those that still owe that, in the order in which they came.
 *
 * Invariant: every function but roster_visit() takes a bounded time, however many connections there are.
 */
#ifndef CRABCACHE_SERVER_ROSTER_H
#define CRABCACHE_SERVER_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "server/conn.h"

/**
 * How long the peer of a connection must not have moved before it gives way to others when the budget of buffers is
 * used up.
 */
#define ROSTER_PATIENCE_MS 1000U

/** Among how many of those that have not moved for the longest the one that holds the most is looked for. */
#define ROSTER_LOOK 64U

/**
 * While a budget is used up, a large frame has to come at this many bytes per second, on the average since it began, or its
 * connection gives way: else a few bytes now and then would hold memory for ever.
 */
#define ROSTER_LEAST_RATE 65536U

/** After so long a frame's rate is known. */
#define ROSTER_RATE_MS 5000U

/** An idle connection is put in order this often at the most; its deadline is so much less exact. */
#define ROSTER_GRAIN_MS 1000U

/** How long peers have; 0: as long as they like. */
struct roster_times {
    uint32_t stall_ms; /**< For going on with a frame, and for reading some of what waits. */
    uint32_t first_ms; /**< For the first request, and for AUTH where it is demanded. */
    uint32_t idle_ms;  /**< Between requests. */
};

/** Why a connection is late. */
enum roster_reason {
    ROSTER_NOT_READING, /**< It took nothing of what waits for it. */
    ROSTER_HALF_FRAME,  /**< The rest of a frame did not come. */
    ROSTER_NO_REQUEST,  /**< It never made a request, or never authenticated. */
    ROSTER_IDLE,        /**< It asked nothing for too long. */
    ROSTER_ENDING       /**< Its end took too long. */
};

/** All connections of a worker; in the caller's storage. */
struct roster {
    struct conn_link lists[CONN_DEBTS + 2]; /**< By struct conn.list; the last two: ending, gone. */
    struct conn_link fresh;                 /**< Those that owe their first request. */
    struct roster_times times;
};

/** @brief Start an empty roster. */
void roster_init(struct roster *roster, const struct roster_times *times);

/** @brief Whether there is no connection in it. */
bool roster_is_empty(const struct roster *roster);

/** @brief Take a connection in, OPEN and new. */
void roster_add(struct roster *roster, struct conn *c, uint64_t now_ms);

/**
 * @brief Put a connection where it belongs after a turn.
 * @param settled  it has made its first request: see dispatch_is_settled().
 */
void roster_place(struct roster *roster, struct conn *c, bool settled, uint64_t now_ms);

/** @brief Let go of a connection. */
void roster_remove(struct conn *c);

/**
 * @brief Who is late. Ask again after having closed it, or having made it end and placed it.
 * @param[out] reason  why; untouched if nobody is.
 * @return the connection, or NULL.
 */
struct conn *roster_late(struct roster *roster, uint64_t now_ms, enum roster_reason *reason);

/**
 * @brief Who has to give way when buffers run out: of those whose peers have not moved for ROSTER_PATIENCE_MS and
 *        longest, ROSTER_LOOK of them, the one that holds the most.
 * @param but  not this one; or NULL.
 * @return the connection, or NULL: nobody holds anything for so long.
 */
struct conn *roster_offender(const struct roster *roster, const struct conn *but, uint64_t now_ms);

/**
 * @brief Of those that have to go on with a large frame, ROSTER_LOOK of them, the one that goes on most slowly.
 * @param streamed  look at those whose value goes right into the store; else at those that hold a buffer for it.
 * @return the connection, or NULL: none is slower than ROSTER_LEAST_RATE.
 */
struct conn *roster_slowest(const struct roster *roster, bool streamed, uint64_t now_ms);

/** @brief One that is gone and can be freed, or NULL. */
struct conn *roster_gone(const struct roster *roster);

/** @brief How long to wait for the end of a connection, at most `most_ms`. */
uint32_t roster_wait_ms(const struct roster *roster, uint64_t now_ms, uint32_t most_ms);

/**
 * @brief Visit each connection that was OPEN at the call once.
 * @param visit  may place, remove and end that one and any other.
 */
void roster_visit(struct roster *roster, void (*visit)(void *context, struct conn *c), void *context);

/** @brief One of those that end, or NULL. */
struct conn *roster_ending(const struct roster *roster);

#endif
