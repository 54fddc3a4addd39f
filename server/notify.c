/* SPDX-License-Identifier: MIT */
/*
 * Messages to the service manager. None of them can fail in a way that the server could do anything about.
 */
#include "server/notify.h"

#include <inttypes.h>
#include <systemd/sd-daemon.h>
#include <time.h>

void notify_ready(void)
{
    (void)sd_notify(0, "READY=1\nSTATUS=serving");
}

void notify_reloading(void)
{
    struct timespec now; /* the manager tells by it which READY belongs to this */
    clock_gettime(CLOCK_MONOTONIC, &now);
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=reading files again",
                     (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

void notify_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1\nSTATUS=answering what was received");
}

uint64_t notify_interval_ms(void)
{
    uint64_t microseconds = 0;
    if (sd_watchdog_enabled(0, &microseconds) <= 0)
        return 0;
    uint64_t ms = microseconds / 2000;
    return ms != 0 ? ms : 1;
}

void notify_alive(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
}
