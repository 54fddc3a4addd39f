/* SPDX-License-Identifier: MIT */
/*
 * Loaded into the server by LD_PRELOAD: counts what a request in a steady state must do without. The counts stand in the
 * file COUNT_FILE, one u64 for each: allocations, mappings, locks taken; so a test reads them while the server runs.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ALLOCATIONS, MAPPINGS, LOCKS, COUNTS };

static atomic_uint_fast64_t nowhere[COUNTS];
static atomic_uint_fast64_t *counts = nowhere;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);

__attribute__((constructor)) static void open_counts(void)
{
    const char *path = getenv("COUNT_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *shared = fd < 0 ? MAP_FAILED
                          : (void *)syscall(SYS_mmap, NULL, sizeof nowhere, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0L);
    if (shared != MAP_FAILED)
        counts = shared;
    if (fd >= 0)
        close(fd);
}

static void count(int what)
{
    atomic_fetch_add_explicit(&counts[what], 1, memory_order_relaxed);
}

void *malloc(size_t size)
{
    count(ALLOCATIONS);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    count(ALLOCATIONS);
    return __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size)
{
    count(ALLOCATIONS);
    return __libc_realloc(memory, size);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    count(MAPPINGS);
    return (void *)syscall(SYS_mmap, at, len, protection, flags, fd, offset);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*real)(pthread_mutex_t *);
    if (real == NULL)
        real = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    count(LOCKS);
    return real(mutex);
}
