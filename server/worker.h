/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief A worker: a thread, an epoll set, and the connections that were handed to it.
 *
 * Where it stands: the server accepts and hands over; from then on all of a connection happens on its worker's thread,
 * which runs each event to its end. Workers share nothing but the store and the budget.
 *
 * Invariant: a turn of the loop is bounded: at most WORKER_EVENTS connections, each with the bounded work of
 * conn_ready(), one slice of housekeeping.
 * No connection stands longer than struct roster_times allows.
 */
#ifndef CRABCACHE_SERVER_WORKER_H
#define CRABCACHE_SERVER_WORKER_H

#include <stdatomic.h>
#include <stddef.h>

#include "server/dispatch.h"
#include "server/roster.h"

struct log;

/** Most events of one turn. */
#define WORKER_EVENTS 128

/** Bytes of the budget that a worker takes for its shared buffers. */
#define WORKER_BUFFER_BYTES ((size_t)160 << 10)

/** After the stop, how long what was received is still read and executed. */
#define WORKER_GRACE_MS 500U

/** After the stop, when every connection is closed that still stands. */
#define WORKER_STOP_MS 5000U

/** One worker. */
struct worker;

/** What a worker is made of; all pointers are borrowed. */
struct worker_config {
    struct dispatch_config dispatch; /**< `pool` is set by the worker. */
    struct buf_budget *budget;       /**< Shared by all workers. */
    size_t cache_bytes;              /**< Free buffers that its pool keeps. */
    const struct log *log;
    struct roster_times times; /**< How long clients have for what they owe. */
    int done_fd;               /**< An eventfd that the worker adds 1 to when its thread ends. */
    int cpu;                   /**< The CPU that its thread is bound to, or -1. */
    unsigned number;           /**< From 0 on; names the thread. */
};

/**
 * @brief Make a worker and start its thread.
 * @return 0, or an errno value.
 * @ownership The caller ends it with worker_stop() and worker_destroy().
 */
int worker_create(const struct worker_config *config, struct worker **worker);

/** @brief Hand a connection over; the worker owns it from here on. @threads the accepting one */
void worker_adopt(struct worker *worker, struct conn *c);

/** @brief How many connections it has, those included that were just handed over. @threads any */
unsigned worker_load(const struct worker *worker);

/** @brief Ask the thread to answer what was received, say goodbye, and end. @threads any */
void worker_stop(struct worker *worker);

/** @brief Let the thread go: the process is about to end without waiting for it. @threads any */
void worker_abandon(struct worker *worker);

/** @brief Wait for the thread to end (see worker_stop()) and free the worker. NULL is accepted. */
void worker_destroy(struct worker *worker);

#endif
