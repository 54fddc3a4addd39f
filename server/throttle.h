/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief How many secrets may be guessed: a budget of failed AUTHs for each source.
 *
 * A source is where a client comes from, as a number (an address, a network, a local user); who chooses it is
 * listen.c. Each has a budget of failures that fills up again steadily; where it is used up, further attempts are
 * turned away without a look at the secret. Success costs nothing.
 *
 * Nobody can lock out a user who comes from another source. From the same source there is a second budget for each
 * user who has authenticated from there before: so guessing at other users, or at users who do not exist, does not lock
 * out who is known. What is left: somebody who guesses at the very same user from the same source.
 *
 * Invariants:
 * - Memory is fixed. When it is full, the source that owes least is forgotten: a flood of sources helps no one who owes
 *   more than those do.
 * - What is asked and what is answered do not depend on whether a user exists.
 */
#ifndef CRABCACHE_SERVER_THROTTLE_H
#define CRABCACHE_SERVER_THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Sources, and users known from a source, that are remembered. */
#define THROTTLE_ENTRIES 1024U

/** How many places a key has to choose from. */
#define THROTTLE_WAYS 8U

/** What is remembered of a source, or of a user from a source. */
struct throttle_entry {
    uint64_t key;     /**< 0: nothing. */
    uint64_t paid_ms; /**< When its budget is full again. */
};

/** All budgets. Set up by throttle_init(); the fields are private. */
struct throttle {
    uint64_t seed;
    uint64_t burst_ms;    /**< What a full budget is worth. */
    uint64_t interval_ms; /**< What one failure costs; 0: no limit. */
    struct throttle_entry sources[THROTTLE_ENTRIES];
    struct throttle_entry known[THROTTLE_ENTRIES]; /**< Users who have authenticated, by source. */
};

/** An attempt under way. */
struct throttle_attempt {
    uint64_t source_key, user_key;
    bool known; /**< It goes on the account of the user. */
};

/**
 * @brief Start with full budgets.
 * @param seed  random: others must not know which sources share a place.
 * @param per_minute  failures of one source: so many at once, and so many per minute in the long run; 0: no limit.
 */
void throttle_init(struct throttle *throttle, uint64_t seed, unsigned per_minute);

/**
 * @brief Ask whether an attempt may be made, and charge for it as if it failed.
 * @param source  where it comes from.
 * @param user  whose secret. @param user_len  its length.
 * @param now_ms  on a clock that only goes forward.
 * @param[out] attempt  for throttle_succeeded().
 * @return false: too many have failed; nothing is charged.
 * @threads one at a time, as with the other functions
 */
bool throttle_enter(struct throttle *throttle, uint64_t source, const uint8_t *user, size_t user_len, uint64_t now_ms,
                    struct throttle_attempt *attempt);

/** @brief Take the charge back, and remember who has authenticated from where. */
void throttle_succeeded(struct throttle *throttle, const struct throttle_attempt *attempt, uint64_t now_ms);

#endif
