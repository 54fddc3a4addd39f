/* SPDX-License-Identifier: MIT */
/*
 * CPU time from /proc/PID/stat; see proc(5).  The kernel measures the sum exactly and splits it into user and system
 * time by samples taken at each tick.
 */
#include "client/bench/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)
#define USER_FIELD 14 /* then comes the system time */

static uint64_t ns_of(struct timeval time)
{
    return (uint64_t)time.tv_sec * SECOND_NS + (uint64_t)time.tv_usec * 1000;
}

static int cpu_of_self(struct cpu_time *time)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return -1;
    *time = (struct cpu_time){.user_ns = ns_of(usage.ru_utime), .system_ns = ns_of(usage.ru_stime)};
    return 0;
}

int cpu_of(pid_t pid, struct cpu_time *time)
{
    char path[40];
    char text[1024];
    if (pid == 0)
        return cpu_of_self(time);
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    size_t len = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    text[len] = '\0';
    const char *field = strrchr(text, ')'); /* the second one; the name in it may hold anything */
    for (int i = 2; field != NULL && i < USER_FIELD; i++)
        field = strchr(field + 1, ' ');
    if (field == NULL)
        return -1;
    char *end;
    uint64_t user = strtoull(field, &end, 10);
    uint64_t system = strtoull(end, NULL, 10);
    uint64_t tick_ns = SECOND_NS / (uint64_t)sysconf(_SC_CLK_TCK);
    *time = (struct cpu_time){.user_ns = user * tick_ns, .system_ns = system * tick_ns};
    return 0;
}
