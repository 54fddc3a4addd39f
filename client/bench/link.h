/* SPDX-License-Identifier: MIT */
/*
 * One connection: which requests are on their way, and what became of them.
 *
 * A request is one number: twice its key's number, plus its op.  The ring holds those that were issued and not yet
 * answered.  Bytes are made when they are sent, from the ring, and again for what the socket did not take; so a
 * connection owns no output buffer.
 *
 *       replied            sent                issued
 *          |   awaited      |    not yet sent    |
 *     -----+----------------+--------------------+-----> ring
 */
#ifndef CRABCACHE_BENCH_LINK_H
#define CRABCACHE_BENCH_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/bench/inbox.h"
#include "client/bench/request.h"
#include "client/bench/sizes.h"
#include "client/bench/tally.h"

#define LINK_FAILURE_BYTES 300U

/** @brief What all connections of a thread share. */
struct link_kit {
    struct requests requests;
    const struct sizes *sizes;
    const uint8_t *payload; /**< As many bytes as the longest value has. */
    struct tally *tally;
    uint8_t *in;
    uint8_t *out;
    bool counting;          /**< The measurement is on. */
    bool only_measured;     /**< Count only replies to requests that were issued during it. */
    double interval_ns;     /**< Open loop: between two requests of the thread; 0: closed loop. */
    uint64_t origin_ns;     /**< Open loop: when the first was due. */
    uint64_t measure_ns;    /**< Open loop: requests that are due from here on are measured. */
    char failure[LINK_FAILURE_BYTES]; /**< Why a function failed. */
};

/** @brief A connection. */
struct link {
    int fd;
    bool blocked;          /**< The socket takes no more for now. */
    bool measured;         /**< Closed loop: the requests on their way belong to the measurement. */
    uint32_t mask;         /**< Of the ring. */
    uint64_t *ring;
    uint64_t issued;
    uint64_t sent;
    uint64_t replied;
    uint64_t base;         /**< Open loop: `issued` when it began. */
    uint64_t due;          /**< Open loop: requests that are due and not yet issued. */
    uint64_t fill_next;    /**< Preload: the next key. */
    size_t sent_part;      /**< Bytes that were sent of the request after `sent`. */
    uint64_t start_ns;     /**< Closed loop: when the requests on their way were issued. */
    uint64_t heard_ns;     /**< When something was last received, or the first request was issued. */
    uint32_t slot;         /**< Open loop: its first turn, */
    uint32_t stride;       /**< and how many turns later it comes again. */
    struct inbox inbox;
};

/** @brief Prepare what is shared. @return 0, or -1 for lack of memory */
int link_kit_init(struct link_kit *kit, const struct protocol *protocol, uint32_t key_len, const struct sizes *sizes,
                  const uint8_t *payload, struct tally *tally);
/** @brief Free what link_kit_init() allocated. */
void link_kit_fini(struct link_kit *kit);

/** @brief Prepare a connection. @param link all zeros; takes over `fd` @return 0, or -1 for lack of memory */
int link_init(struct link *link, int fd, uint32_t depth);
/** @brief Close it. */
void link_fini(struct link *link);

/** @brief Requests that are not yet answered. */
static inline uint64_t link_in_flight(const struct link *link)
{
    return link->issued - link->replied;
}

/** @brief Issue a request; there must be room in the ring. */
static inline void link_issue(struct link *link, enum request_op op, uint64_t number)
{
    link->ring[link->issued++ & link->mask] = number << 1 | (op == REQUEST_PUT);
}

/** @brief Open loop: when the request was due that is the `index`th of the connection, from 0. */
static inline uint64_t link_due_ns(const struct link *link, const struct link_kit *kit, uint64_t index)
{
    return kit->origin_ns + (uint64_t)((double)(link->slot + index * link->stride) * kit->interval_ns);
}

/**
 * @brief Send what was issued, as far as the socket takes it; sets `blocked`.
 * @return 0, or -1 with the kit's `failure`
 */
int link_send(struct link *link, struct link_kit *kit);

/**
 * @brief Receive once, and count the replies.
 * @return how many replies came; -1 with the kit's `failure`
 */
int64_t link_receive(struct link *link, struct link_kit *kit);

/** @brief Nanoseconds of the monotonic clock. */
uint64_t link_now_ns(void);

#endif
