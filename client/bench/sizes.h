/* SPDX-License-Identifier: MIT */
/*
 * How long values are: --value-bytes.  The length of a value follows from its key's number alone, so that the reply to
 * a get can be checked.
 */
#ifndef CRABCACHE_BENCH_SIZES_H
#define CRABCACHE_BENCH_SIZES_H

#include <stdint.h>

#define SIZES_PARTS_MAX 32U

/** @brief A range of lengths, and where its share of all keys ends. */
struct sizes_part {
    uint32_t least;
    uint32_t most;
    uint64_t share_end; /**< In 2^64ths of all keys. */
};

/** @brief A distribution of lengths. */
struct sizes {
    uint32_t count;
    uint32_t most; /**< The longest of all. */
    struct sizes_part parts[SIZES_PARTS_MAX];
};

/**
 * @brief Read a distribution: "64", "16-1K", or ranges with weights, "64:70,1K-4K:25,64K:5".
 * @param[out] sizes the distribution
 * @param text what the user wrote; K and M are 1024 and 1024 * 1024 bytes
 * @param limit the longest value allowed
 * @return 0, or -1 if it is none
 */
int sizes_read(struct sizes *sizes, const char *text, uint64_t limit);

/** @brief The length of the value of a key. */
uint32_t sizes_of(const struct sizes *sizes, uint64_t number);

#endif
