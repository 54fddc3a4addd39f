/* SPDX-License-Identifier: MIT */
/**
 * @file crabcache.h
 * @brief The whole public interface of libcrabcache in one include.
 *
 * - version.h: the library's version;
 * - wire.h: the protocol's codec, generated, without sockets or allocation;
 * - status.h: what calls answer;
 * - conn.h: one connection to one server, with blocking calls;
 * - pipeline.h: many requests on their way at once on such a connection;
 * - many.h: many keys in one call;
 * - stream.h: large values in pieces;
 * - event.h: such a connection in an event loop; adapters for loops are in crabcache/adapters/, and not included here;
 * - value.h: bytes that the caller owns and the library fills;
 * - client.h: a handle that all threads share, over one or several servers;
 * - ticket.h: requests on it that nobody waits for at once;
 * - fetch.h: many keys in one call on it, and values that are loaded once when they are missing.
 */
#ifndef CRABCACHE_CRABCACHE_H
#define CRABCACHE_CRABCACHE_H

#include "crabcache/version.h"
#include "crabcache/wire.h"
#include "crabcache/status.h"
#include "crabcache/conn.h"
#include "crabcache/pipeline.h"
#include "crabcache/many.h"
#include "crabcache/stream.h"
#include "crabcache/event.h"
#include "crabcache/value.h"
#include "crabcache/client.h"
#include "crabcache/ticket.h"
#include "crabcache/fetch.h"

CRAB_BEGIN_DECLS

/**
 * @brief The version of the library that the program runs with, which may be newer than the headers.
 * @return static text such as "0.1.0"
 * @ownership The text is static.
 * @threads Any thread.
 */
CRAB_API const char *crab_version(void);

CRAB_END_DECLS

#endif
