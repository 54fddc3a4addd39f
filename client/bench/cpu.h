/* SPDX-License-Identifier: MIT */
/*
 * The CPU time of a process, as the kernel accounts for it.
 */
#ifndef CRABCACHE_BENCH_CPU_H
#define CRABCACHE_BENCH_CPU_H

#include <stdint.h>
#include <sys/types.h>

/** @brief CPU time of all threads of a process, ended ones included. */
struct cpu_time {
    uint64_t user_ns;
    uint64_t system_ns;
};

/**
 * @brief Read what a process has used so far.
 * @param pid the process; 0 is the caller's
 * @param[out] time its CPU time, in steps of the kernel's clock tick (10 ms); finer for the caller's
 * @return 0, or -1 if there is no such process
 */
int cpu_of(pid_t pid, struct cpu_time *time);

#endif
