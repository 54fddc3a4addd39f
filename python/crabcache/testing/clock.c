/* SPDX-License-Identifier: MIT */
/*
 * A clock for tests, preloaded into a server: CLOCK_BOOTTIME, by which items expire, stands still and moves only when
 * the test moves it.  The file that CRABCACHE_TEST_CLOCK names holds the time in nanoseconds and is shared with the test.
 * All other clocks stay true: deadlines of connections and sleeps go on as ever.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shared_ns;

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("CRABCACHE_TEST_CLOCK");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *memory = fd >= 0 ? mmap(NULL, sizeof *shared_ns, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (memory == MAP_FAILED)
        _exit(126);
    shared_ns = memory;
    close(fd);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock != CLOCK_BOOTTIME || shared_ns == NULL)
        return (int)syscall(SYS_clock_gettime, clock, time);
    int64_t now = __atomic_load_n(shared_ns, __ATOMIC_ACQUIRE);
    time->tv_sec = now / 1000000000;
    time->tv_nsec = now % 1000000000;
    return 0;
}
