/* SPDX-License-Identifier: MIT */
/*
 * The counters' memory, and the clock. What they are called and mean is in stats_rows.c.
 */
#include "server/stats.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(name, NAME) static_assert(CRAB_OP_##NAME < STATS_OPS, "every op has a counter");
CRAB_FOR_EACH_REQUEST(CHECK)
#undef CHECK

uint64_t stats_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int stats_init(struct stats *stats, unsigned workers)
{
    memset(stats, 0, sizeof *stats);
    size_t bytes = workers * sizeof *stats->workers;
    stats->workers = aligned_alloc(_Alignof(struct stats_worker), bytes);
    if (stats->workers == NULL)
        return ENOMEM;
    memset(stats->workers, 0, bytes);
    stats->worker_count = workers;
    stats->start_ms = stats_now_ms();
    return 0;
}

void stats_fini(struct stats *stats)
{
    free(stats->workers);
    stats->workers = NULL;
}

enum stats_timed_op stats_timed(uint8_t op)
{
    switch (op) {
#define CASE(name, NAME)                                                                                       \
    case CRAB_OP_##NAME:                                                                                       \
        return STATS_TIMED_##NAME;
        CRAB_FOR_EACH_REQUEST(CASE)
#undef CASE
    default:
        return STATS_TIMED_OPS;
    }
}
