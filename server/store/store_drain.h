/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Draining: what becomes of the items of a segment, or of a large one. All for the maintainer only.
 */
#ifndef CRABCACHE_STORE_DRAIN_H
#define CRABCACHE_STORE_DRAIN_H

#include "server/store/store_impl.h"

/**
 * @brief Begin to drain the segment whose turn it is, or drop a large item (store_evict.c).
 * @return bytes looked at; 0: nothing would help.
 */
uint64_t store_evict_next(struct store_worker *worker);

/** @brief Work on a job's next items. @return bytes looked at; 0: no segment to move to, now. */
uint64_t store_drain_slice(struct store_worker *worker, struct store_job *job, unsigned items);

/** What is to become of a large item that has not expired. */
enum store_large_fate {
    LARGE_STAYS,
    LARGE_IF_HIT, /**< It stays if it was hit often enough, and goes round. */
    LARGE_GOES
};

/** Large items that go round in a row, before one goes, hit or not. */
#define STORE_LARGE_RELINKS 64U

/** @brief Drop a large item that has expired, or was flushed, or is to go. @return bytes looked at. */
uint64_t store_drain_large(struct store_worker *worker, uint32_t page, enum store_large_fate fate);

/**
 * @brief Drop expired items.
 * @param segments  to be looked at, at most. @param items  to be looked at, about at most.
 * @return true if the round is not over.
 */
bool store_drain_expired(struct store_worker *worker, uint32_t segments, unsigned items);

/** @brief Drop what store_flush() emptied. @return true if there is more. */
bool store_drain_flushed(struct store_worker *worker);

#endif
