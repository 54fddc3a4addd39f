/* SPDX-License-Identifier: MIT */
/*
 * The circuit of a server: who may try to connect after connecting has failed, and when.
 *
 *     closed --failure--> open until a point in time --passed--> one caller tries --success--> closed
 *        ^                     ^                                       |
 *        +----- success        +------------- failure: twice as long --+
 *
 * Nobody waits here, and nothing is allocated.
 */
#ifndef CRABCACHE_CLIENT_CIRCUIT_H
#define CRABCACHE_CLIENT_CIRCUIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/** @brief The first pause after a failure; each further failure doubles it. */
#define CIRCUIT_LEAST_MS 50U
/** @brief The longest pause.  Of each a random part, up to a half, is taken off. */
#define CIRCUIT_MOST_MS 5000U

struct circuit {
    pthread_mutex_t lock;
    uint32_t failures;     /**< In a row; 0: closed. */
    bool probing;          /**< A caller tries after a failure. */
    uint64_t until_ns;     /**< Open until then; while somebody tries: when another one may. */
    uint64_t random;       /**< State of the random numbers. */
    uint64_t all_failures; /**< Ever. */
    _Atomic bool failing;  /**< failures != 0, for those who look without the lock. */
};

/** @brief A look at a circuit. */
struct circuit_view {
    bool closed;
    bool probing;
    uint32_t retry_in_ms; /**< 0: now. */
    uint64_t failures;    /**< Ever. */
};

/** @brief Prepare a circuit, closed. @return false if the system has no lock to give */
bool circuit_init(struct circuit *circuit, uint64_t seed);
/** @brief End it. */
void circuit_fini(struct circuit *circuit);
/**
 * @brief Ask whether to try to connect.
 * @param circuit the circuit
 * @param now_ns the time
 * @param probe_ms if the caller is the one who tries after a failure: how long nobody else shall
 * @return true: try, and tell how it went
 */
bool circuit_admit(struct circuit *circuit, uint64_t now_ns, uint32_t probe_ms);
/** @brief Connecting went well. @return true: it had failed before */
bool circuit_succeed(struct circuit *circuit);
/** @brief Connecting failed. @return how long nobody shall try, in ms */
uint32_t circuit_fail(struct circuit *circuit, uint64_t now_ns);
/** @brief The attempt was given up without saying anything about the server: another one may try. */
void circuit_forget(struct circuit *circuit);
/** @brief Whether nobody but one who tries shall be sent there now. */
bool circuit_is_out(struct circuit *circuit);
/** @brief Look at it. */
struct circuit_view circuit_look(struct circuit *circuit, uint64_t now_ns);

#endif
