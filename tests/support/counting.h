/* SPDX-License-Identifier: MIT */
/*
 * What a test looks at to see that nothing is left behind: an allocator that counts and that can be made to fail, and how many
 * descriptors are open.
 */
#ifndef CRABCACHE_TESTS_COUNTING_H
#define CRABCACHE_TESTS_COUNTING_H

#include <stddef.h>

#include "crabcache/crabcache.h"

/** @brief An allocator that counts and that can be made to fail. */
struct counting {
    struct crab_allocator allocator; /**< Pass this to the library. */
    size_t calls;                    /**< Growing and new allocations. */
    size_t blocks;                   /**< Blocks that exist now. */
    size_t largest;                  /**< The largest one ever asked for. */
    size_t fail_at;                  /**< This call fails (1 is the first); 0: none. */
    int fail_after;                  /**< Whether all later ones fail too. */
};

/** @brief Prepare a counting allocator. */
void counting_init(struct counting *counting);

/**
 * @brief Do something again and again, and each time one allocation more succeeds before one fails, until none does; then the
 *        same with all failing that follow.  No block may be left.
 * @param use what to do; returns CRAB_OK if nothing failed, and checks itself which failures may be
 * @param context for `use`
 */
void each_allocation_fails(enum crab_status (*use)(struct counting *counting, void *context), void *context);

/** @brief How many descriptors this process has open. */
size_t open_files(void);

#endif
