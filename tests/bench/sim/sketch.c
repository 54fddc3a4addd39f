/* SPDX-License-Identifier: MIT */
/*
 * A count-min sketch of 4-bit counters in 4 rows, halved after ten additions per column: how often a key was asked
 * for lately, whether it is in the cache or not.  It is charged half a byte per counter.
 */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>

#define ROWS 4
#define MOST 15

struct sim_sketch {
    uint8_t *counters; /* one per byte here */
    uint32_t columns, added;
};

/* Of the largest power of two of columns that costs at most `bytes`. */
struct sim_sketch *sim_sketch_create(uint64_t bytes)
{
    struct sim_sketch *sketch = sim_alloc(1, sizeof(*sketch));

    for (sketch->columns = 64; (uint64_t)sketch->columns * ROWS <= bytes; sketch->columns *= 2)
        ;
    sketch->counters = sim_alloc(sketch->columns, ROWS);
    return sketch;
}

void sim_sketch_destroy(struct sim_sketch *sketch)
{
    if (sketch)
        free(sketch->counters);
    free(sketch);
}

uint64_t sim_sketch_bytes(const struct sim_sketch *sketch)
{
    return sketch ? (uint64_t)sketch->columns * ROWS / 2 : 0;
}

static uint8_t *counter(const struct sim_sketch *sketch, uint32_t key, uint32_t row)
{
    uint32_t at = (uint32_t)(sim_hash(key + ((uint64_t)row << 40)) & (sketch->columns - 1));

    return &sketch->counters[(size_t)row * sketch->columns + at];
}

uint32_t sim_sketch_estimate(const struct sim_sketch *sketch, uint32_t key)
{
    uint32_t least = MOST;

    for (uint32_t row = 0; row < ROWS; row++) {
        uint32_t count = *counter(sketch, key, row);
        least = count < least ? count : least;
    }
    return least;
}

/* True: all counters were halved. */
bool sim_sketch_add(struct sim_sketch *sketch, uint32_t key, uint32_t times)
{
    for (uint32_t row = 0; row < ROWS; row++) {
        uint8_t *count = counter(sketch, key, row);
        *count = (uint8_t)(*count + times > MOST ? MOST : *count + times);
    }
    sketch->added += times;
    if (sketch->added < sketch->columns * 10)
        return false;
    sketch->added /= 2;
    for (size_t i = 0; i < (size_t)sketch->columns * ROWS; i++)
        sketch->counters[i] /= 2;
    return true;
}
