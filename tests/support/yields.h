/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Forced yields: in MODE=yield this header is included by the compiler before every file of server/store.
 *
 * Each atomic access, each comparison of a key, and each side of the mutex may let another thread run, spin, or sleep
 * for some ten microseconds first. So threads meet at places at which they would not meet in years otherwise, and
 * the store knows nothing of it: the names of the builtins that it uses are macros here, which do not expand again within
 * themselves.
 *
 * CRAB_YIELD_EVERY=N (64): about one of N accesses yields; 0: none. CRAB_YIELD_SEED=S (1): what the threads' random
 * numbers start from; the n-th thread that comes here always draws the same ones, though it need not get the same turns.
 */
#ifndef CRABCACHE_TEST_YIELDS_H
#define CRABCACHE_TEST_YIELDS_H

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Weak, so that all files share one of each, and a program that has no need of it needs no further file. */
uint64_t yields_setting(const char *name, uint64_t usual);
void yields_now(uint64_t random);
void yields_here(void);
extern unsigned yields_threads;

__attribute__((weak)) unsigned yields_threads = 0;

__attribute__((weak)) uint64_t yields_setting(const char *name, uint64_t usual)
{
    const char *text = getenv(name);
    return text == NULL ? usual : strtoull(text, NULL, 10);
}

/* Half of the time the others' turn; else a spin or a sleep, which also keeps this thread from its core's next turn. */
__attribute__((weak)) void yields_now(uint64_t random)
{
    if (random % 8 < 4) {
        sched_yield();
    } else if (random % 8 < 7) {
        for (volatile uint64_t spins = random >> 8 & 1023; spins != 0;)
            spins = spins - 1;
    } else {
        struct timespec pause = {.tv_nsec = (long)(random >> 8 & 0x7fff)};
        nanosleep(&pause, NULL);
    }
}

__attribute__((weak)) void yields_here(void)
{
    static _Thread_local uint64_t state, every;
    if (state == 0) {
        uint64_t thread = __atomic_add_fetch(&yields_threads, 1, __ATOMIC_RELAXED);
        state = (yields_setting("CRAB_YIELD_SEED", 1) << 32 | thread) * 0x9e3779b97f4a7c15U | 1;
        every = yields_setting("CRAB_YIELD_EVERY", 64);
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    if (every != 0 && (state >> 33) % every == 0)
        yields_now(state * 0x2545f4914f6cdd1dU >> 16);
}

#define __atomic_load_n(p, order)        (yields_here(), __atomic_load_n(p, order))
#define __atomic_store_n(p, v, order)    (yields_here(), __atomic_store_n(p, v, order))
#define __atomic_exchange_n(p, v, order) (yields_here(), __atomic_exchange_n(p, v, order))
#define __atomic_add_fetch(p, v, order)  (yields_here(), __atomic_add_fetch(p, v, order))
#define __atomic_sub_fetch(p, v, order)  (yields_here(), __atomic_sub_fetch(p, v, order))
#define __atomic_fetch_add(p, v, order)  (yields_here(), __atomic_fetch_add(p, v, order))
#define __atomic_fetch_sub(p, v, order)  (yields_here(), __atomic_fetch_sub(p, v, order))
#define __atomic_fetch_or(p, v, order)   (yields_here(), __atomic_fetch_or(p, v, order))
#define __atomic_fetch_and(p, v, order)  (yields_here(), __atomic_fetch_and(p, v, order))
#define __atomic_compare_exchange_n(p, was, v, weak, yes, no) \
    (yields_here(), __atomic_compare_exchange_n(p, was, v, weak, yes, no))

/* Between reading a slot and reading what it names. */
#define memcmp(a, b, len) (yields_here(), memcmp(a, b, len))

#define pthread_mutex_lock(mutex)   (yields_here(), pthread_mutex_lock(mutex))
#define pthread_mutex_unlock(mutex) (yields_here(), pthread_mutex_unlock(mutex))

#endif
