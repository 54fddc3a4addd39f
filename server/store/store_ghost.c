/* SPDX-License-Identifier: MIT */
/*
 * Ghosts: fingerprints of what was evicted from the small pool a short while ago. A key that comes back while its
 * ghost is there was evicted too early, and will be kept longer.
 *
 * A row is a cache line: the place of the next entry, then 31 fingerprints of 16 bits, of which the oldest is
 * written over. Rows are chosen by the hash; so all together forget in about the order of eviction. What is
 * remembered for too long does harm, so as many rows are in use as half the number of items fills: they grow by one
 * at a time, by linear hashing, each new row starting as a copy of the one that it is split from.
 *
 * Invariants: only the maintainer adds and fits; entries are relaxed atomics; a wrong answer (2^-16 for each entry
 * of a row) costs nothing but a little of the order of eviction.
 */
#include "server/store/store_impl.h"

#define ROW             32U
#define ENTRIES         (ROW - 1U)
#define ITEMS_PER_GHOST 2U
#define GROW_AT_ONCE    256U

static uint16_t *row_of(const struct store *store, uint64_t hash)
{
    uint64_t rows = store_peek(&store->ghost_rows);
    uint64_t mask = ~(uint64_t)0 >> __builtin_clzll(rows);
    uint64_t at = hash >> 16 & mask;
    at = at < rows ? at : at & mask >> 1;
    return &store->ghosts[at * ROW];
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
    store_poke(&row[0], (uint16_t)((at + 1U) % ENTRIES));
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

void store_ghost_fit(struct store *store)
{
    int64_t items = store_peek(&store->index_items);
    uint64_t rows = store_peek(&store->ghost_rows);
    uint64_t wanted = items <= 0 ? 1 : (uint64_t)items / ITEMS_PER_GHOST / ENTRIES + 1;
    wanted = wanted < store->ghost_rows_max ? wanted : store->ghost_rows_max;
    if (wanted < rows - rows / 8) {
        store_poke(&store->ghost_rows, wanted);
        return;
    }
    for (unsigned i = 0; i < GROW_AT_ONCE && rows < wanted; i++, rows++) {
        uint64_t bit = (uint64_t)1 << (63 - __builtin_clzll(rows));
        uint16_t *to = &store->ghosts[rows * ROW], *from = &store->ghosts[(rows - bit) * ROW];
        for (unsigned at = 0; at < ROW; at++)
            store_poke(&to[at], store_peek(&from[at]));
    }
    if (rows > store_peek(&store->ghost_rows))
        store_poke(&store->ghost_rows, rows);
}
