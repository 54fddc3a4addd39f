/* SPDX-License-Identifier: MIT */
/*
 * Looking at the workers' counters of turns. Time in which nobody looked, as while the whole process was stopped, is
 * not held against them: after such a pause it is as if they had all just moved.
 */
#include "server/health.h"

#include "server/log.h"

static bool is_late(struct health *h, unsigned i, uint64_t turns, uint64_t now_ms, bool anew)
{
    if (anew || h->turns[i] != turns) {
        h->turns[i] = turns;
        h->moved_ms[i] = now_ms;
    }
    return now_ms - h->moved_ms[i] >= HEALTH_LATE_MS;
}

bool health_look(struct health *health, const struct stats *stats, const struct log *log, uint64_t now_ms)
{
    bool good = true;
    bool anew = now_ms - health->looked_ms > HEALTH_LATE_MS / 2;
    health->looked_ms = now_ms;
    for (unsigned i = 0; i < stats->worker_count; i++) {
        bool late = is_late(health, i, stats_read(&stats->workers[i].wakeups), now_ms, anew);
        if (late && !health->late[i])
            log_line(log, LOG_LEVEL_ERROR, "worker %u has not had a turn for %u ms", i, HEALTH_LATE_MS);
        else if (!late && health->late[i])
            log_line(log, LOG_LEVEL_WARNING, "worker %u goes on", i);
        health->late[i] = late;
        good = good && !late;
    }
    atomic_store_explicit(&health->good, good, memory_order_relaxed);
    return good;
}
