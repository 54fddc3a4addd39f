/* SPDX-License-Identifier: MIT */
/*
 * Ghosts: fingerprints of what was evicted from the small pool a short while ago. A key that comes back while its
 * ghost is there was evicted too early, and will be kept longer.
 *
 * A row is a cache line: the place of the next entry, then 31 fingerprints of 16 bits, of which the oldest is
 * written over. Rows are chosen by the hash; so all together forget in about the order of eviction.
 *
 * Invariants: only the maintainer adds; entries are relaxed atomics; a wrong answer (2^-16 for each entry of a row)
 * costs nothing but a little of the order of eviction.
 */
#include "server/store/store_impl.h"

#define ROW 32U

static uint16_t *row_of(const struct store *store, uint64_t hash)
{
    return &store->ghosts[(hash >> 16 & store->ghost_mask) * ROW];
}

static uint16_t fingerprint_of(uint64_t hash)
{
    uint16_t print = (uint16_t)(hash >> 48);
    return print == 0 ? 1 : print;
}

void store_ghost_add(struct store *store, uint64_t hash)
{
    uint16_t *row = row_of(store, hash);
    uint16_t at = store_peek(&row[0]);
    store_poke(&row[1 + at], fingerprint_of(hash));
    store_poke(&row[0], (uint16_t)((at + 1U) % (ROW - 1)));
}

bool store_ghost_take(struct store *store, uint64_t hash)
{
    uint16_t *row = row_of(store, hash);
    uint16_t print = fingerprint_of(hash);
    for (unsigned i = 1; i < ROW; i++) {
        if (store_peek(&row[i]) == print) {
            store_poke(&row[i], (uint16_t)0);
            return true;
        }
    }
    return false;
}
