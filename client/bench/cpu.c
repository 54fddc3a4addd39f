/* SPDX-License-Identifier: MIT */
/*
 * CPU time from /proc/PID/stat, which counts in clock ticks, and from /proc/PID/task/TID/schedstat, which counts in
 * nanoseconds, but neither tells user from system time nor includes threads that have ended; see proc(5).
 */
#include "client/bench/cpu.h"

#include <dirent.h>
#include <stdbool.h>
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

/* The first number of a task's schedstat: its time on a CPU. */
static uint64_t exact_of_task(pid_t pid, const char *task)
{
    char path[320];
    char text[100];
    (void)snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, task);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    const char *line = fgets(text, sizeof text, file);
    (void)fclose(file);
    return line != NULL ? strtoull(line, NULL, 10) : 0;
}

static uint64_t exact_of(pid_t pid)
{
    char path[40];
    uint64_t sum = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
        if (task->d_name[0] != '.')
            sum += exact_of_task(pid, task->d_name);
    }
    if (tasks != NULL)
        (void)closedir(tasks);
    return sum;
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
    *time = (struct cpu_time){.user_ns = user * tick_ns, .system_ns = system * tick_ns, .exact_ns = exact_of(pid)};
    return 0;
}

struct cpu_time cpu_between(const struct cpu_time *begin, const struct cpu_time *end)
{
    struct cpu_time used = {.user_ns = end->user_ns - begin->user_ns, .system_ns = end->system_ns - begin->system_ns};
    uint64_t ticks_ns = used.user_ns + used.system_ns;
    bool exact = end->exact_ns > begin->exact_ns && begin->exact_ns != 0;
    if (!exact)
        return used;
    used.exact_ns = end->exact_ns - begin->exact_ns;
    double user = ticks_ns != 0 ? (double)used.user_ns / (double)ticks_ns : 0.0;
    used.user_ns = (uint64_t)((double)used.exact_ns * user);
    used.system_ns = used.exact_ns - used.user_ns;
    return used;
}
