/* SPDX-License-Identifier: MIT */
/*
 * A seeded Zipf stream: the stand-in for a real trace.
 */
#ifndef CRABCACHE_REPLAY_ZIPF_H
#define CRABCACHE_REPLAY_ZIPF_H

#include "client/replay/source.h"

/** @brief A stream that is being made up. */
struct zipf;

/** @brief As source_open_zipf(); `keys` must be at least 1, `exponent` at least 0. */
struct zipf *zipf_create(const struct zipf_options *options);
/** @brief As source_next(), but it never breaks. */
int zipf_next(struct zipf *zipf, struct request *request);
/** @brief End a stream; NULL is accepted. */
void zipf_destroy(struct zipf *zipf);

#endif
