/* SPDX-License-Identifier: MIT */
/*
 * Every blocking call of the client with the bytes that it must send and a reply to it: what the tests of the client
 * run through, whole and in pieces.
 */
#ifndef CRABCACHE_TESTS_EXCHANGES_H
#define CRABCACHE_TESTS_EXCHANGES_H

#include <stdbool.h>

#include "crabcache/crabcache.h"

/* What a call gave besides its status. */
struct outcome {
    uint64_t version;
    int64_t number;
    struct crab_slice bytes;
    struct crab_item item;
};

/* One blocking call, the bytes that it must send, and the reply to it. */
struct exchange {
    const char *name;
    enum crab_status (*call)(struct crab_conn *conn, struct outcome *outcome);
    const char *request;
    const char *reply;
    enum crab_status status;
    bool write;
};

/** @brief The exchanges; the last one has no name. */
extern const struct exchange exchanges[];

/** @brief How many there are. */
extern const size_t exchange_count;

/** @brief A broken connection must say so, to every call. */
void check_broken(struct crab_conn *conn);

#endif
