/* SPDX-License-Identifier: MIT */
/*
 * Adding up what the threads have counted.
 */
#include "client/bench/tally.h"

#include <string.h>

void tally_add(struct tally *tally, const struct tally *other)
{
    tally->gets += other->gets;
    tally->hits += other->hits;
    tally->misses += other->misses;
    tally->puts += other->puts;
    tally->stored += other->stored;
    tally->errors += other->errors;
    tally->wrong += other->wrong;
    tally->bytes_sent += other->bytes_sent;
    tally->bytes_received += other->bytes_received;
    histogram_merge(&tally->get_ns, &other->get_ns);
    histogram_merge(&tally->put_ns, &other->put_ns);
    if (tally->first_error[0] == '\0')
        memcpy(tally->first_error, other->first_error, sizeof tally->first_error);
    if (tally->first_wrong[0] == '\0')
        memcpy(tally->first_wrong, other->first_wrong, sizeof tally->first_wrong);
}
