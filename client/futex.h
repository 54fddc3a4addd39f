/* SPDX-License-Identifier: MIT */
/*
 * Sleeping on a word, and waking all who sleep on it.  Sleepers may wake without reason; they look again at what they
 * wait for.
 */
#ifndef CRABCACHE_CLIENT_FUTEX_H
#define CRABCACHE_CLIENT_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <linux/futex.h>
#include <sys/syscall.h>

/**
 * @brief Sleep while the word has this value.
 * @param word the word
 * @param seen its value when the caller last looked at what it waits for
 * @param end_ns when to wake up at the latest, on CLOCK_MONOTONIC; 0: never
 * @return false: it is later than `end_ns`
 */
static inline bool futex_sleep(_Atomic uint32_t *word, uint32_t seen, uint64_t end_ns)
{
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000U), .tv_nsec = (long)(end_ns % 1000000000U)};
    long slept = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen, end_ns != 0 ? &end : NULL, NULL,
                         FUTEX_BITSET_MATCH_ANY);
    return slept == 0 || errno != ETIMEDOUT;
}

/** @brief Wake everybody who sleeps on the word.  It must have been changed before. */
static inline void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

#endif
