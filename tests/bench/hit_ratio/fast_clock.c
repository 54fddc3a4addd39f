/* SPDX-License-Identifier: MIT */
/*
 * A wall clock that runs FAST_CLOCK times as fast, preloaded into redis-server by run_hits.py.
 *
 * Redis orders items for LRU by a clock that ticks once a second, and LFU forgets nothing before a minute has passed.  A
 * replay puts an hour's requests into some ten seconds; with the true clock Redis would see most items as equally old
 * and miss 9 to 13 % more.  Only the wall clock is changed: Redis's timers and timeouts follow the monotonic one.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int64_t start_us;
static int64_t factor = 1;

static int64_t true_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

__attribute__((constructor)) static void start(void)
{
    const char *text = getenv("FAST_CLOCK");
    long wanted = text != NULL ? strtol(text, NULL, 10) : 0;
    if (wanted > 0 && wanted <= 100000)
        factor = wanted;
    start_us = true_us();
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    int64_t us = start_us + (true_us() - start_us) * factor;
    (void)zone;
    time->tv_sec = us / 1000000;
    time->tv_usec = us % 1000000;
    return 0;
}

__attribute__((visibility("default"))) time_t time(time_t *result)
{
    struct timeval now;
    (void)gettimeofday(&now, NULL);
    if (result != NULL)
        *result = now.tv_sec;
    return now.tv_sec;
}
