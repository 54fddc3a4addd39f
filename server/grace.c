/* SPDX-License-Identifier: MIT */
/*
 * Grace periods in the log. The main thread looks between accepting clients, as it is the one that no worker's stall
 * can stop.
 */
#include "server/grace.h"

#include <inttypes.h>

#include "server/log.h"
#include "server/store/store.h"

void grace_look(struct grace *grace, struct store *store, const struct log *log)
{
    struct store_grace now;
    bool late = store_grace(store, &now) && now.lag_ms > GRACE_WARN_MS;
    if (grace->warned && (!late || now.worker != grace->worker)) {
        log_line(log, LOG_LEVEL_INFO, "worker %u goes on, after %" PRIu64 " ms at least", grace->worker,
                 grace->lag_ms);
        grace->warned = false;
    }
    if (!late)
        return;
    if (!grace->warned)
        log_line(log, LOG_LEVEL_WARNING,
                 "worker %u has been stalled for %" PRIu64 " ms: %" PRIu64 " bytes cannot be used again before it goes on",
                 now.worker, now.lag_ms, now.bytes);
    *grace = (struct grace){.warned = true, .worker = now.worker, .lag_ms = now.lag_ms};
}
