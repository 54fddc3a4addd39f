/* SPDX-License-Identifier: MIT */
/*
 * The CPU time of a process, as the kernel accounts for it.
 */
#ifndef CRABCACHE_BENCH_CPU_H
#define CRABCACHE_BENCH_CPU_H

#include <stdint.h>
#include <sys/types.h>

/** @brief CPU time of all threads of a process. */
struct cpu_time {
    uint64_t user_ns;
    uint64_t system_ns;
    uint64_t exact_ns; /**< Of the threads that run now, without such steps; 0 if the kernel does not tell. */
};

/**
 * @brief Read what a process has used so far.
 * @param pid the process; 0 is the caller's
 * @param[out] time its CPU time, in steps of the kernel's clock tick (10 ms); finer for the caller's
 * @return 0, or -1 if there is no such process
 */
int cpu_of(pid_t pid, struct cpu_time *time);

/**
 * @brief What a process has used between two moments: as exactly as the kernel tells, split into user and system time
 * in the proportion of its steps.
 */
struct cpu_time cpu_between(const struct cpu_time *begin, const struct cpu_time *end);

#endif
