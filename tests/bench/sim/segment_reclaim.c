/* SPDX-License-Identifier: MIT */
/*
 * S3-FIFO over segments: making room.  In this order:
 *   1. a sealed segment of which at least the share `dead` is dead is compacted: its live items keep their pool
 *      and their hits, but are young again;
 *   2. the oldest segment of the small pool, if that is over its share; else of kept, if that is; else of main:
 *      items that have earned it are copied to an open segment of main or kept, the others are gone.
 * Copying spends tokens, which writing earns (`copy` per byte): without tokens items are evicted, not copied, but for
 * segments that are mostly hit: those go round whole, uncopied.  So the work per byte written is bounded, and so is
 * the time of one call: one victim.
 */
#include "tests/bench/sim/segment.h"

static uint32_t most_dead(const struct seg_cache *c)
{
    uint32_t best = SIM_NONE;
    double best_share = c->dead_share;

    for (uint32_t number = 0; number < c->segments; number++) {
        const struct segment *s = &c->segment[number];
        if (s->state != SEALED || s->solo)
            continue;
        /* Only dead items count, not the tail that no item fitted into: copying would leave as much again. */
        double share = (double)(s->used - s->live) / (double)s->capacity;
        if (share >= best_share) {
            best_share = share;
            best = number;
        }
    }
    return best;
}

/* Feeds the sketch where the store writes anyway: on misses, and with an item's hits when it moves or goes. */
void seg_note(struct seg_cache *c, uint32_t key, uint32_t times)
{
    if (c->sketch && times && sim_sketch_add(c->sketch, key, times))
        c->price /= 2;
}

static void evict_item(struct seg_cache *c, uint32_t key, enum pool pool)
{
    if (!seg_expired(c, key)) {
        c->counters.evicted++;
        c->evictions++;
        if (c->sketch && pool != SMALL)
            c->price += (sim_sketch_estimate(c->sketch, key) - c->price) / (c->items / 16.0 + 16);
        seg_note(c, key, c->item[key].hits);
        if (pool == SMALL)
            sim_ghost_add(c->ghost, key);
    }
    seg_drop(c, key);
}

/*
 * Copies an item to the open segment *to, opening another at need, which may use the reserve.
 * False: not even the reserve has room.
 */
static bool copy_item(struct seg_cache *c, uint32_t key, uint32_t *to, enum pool pool, uint32_t class)
{
    uint32_t bytes = c->item[key].bytes;

    if (*to == SIM_NONE || c->segment[*to].used + bytes > c->segment[*to].capacity) {
        if (seg_charged(c) + c->segment_bytes + SEGMENT_TABLE_BYTES > c->memory)
            return false;
        if (*to != SIM_NONE)
            seg_seal(c, *to);
        *to = seg_new(c, pool, class, c->segment_bytes);
    }
    seg_drop(c, key);
    seg_append(c, *to, key, bytes);
    c->counters.copied_bytes += bytes;
    c->copy_tokens -= bytes;
    return true;
}

static bool may_copy(const struct seg_cache *c)
{
    return c->copy_bound <= 0 || c->copy_tokens > 0;
}

static void compact(struct seg_cache *c, uint32_t victim)
{
    enum pool pool = (enum pool)c->segment[victim].pool;
    uint32_t class = c->segment[victim].class, count = c->segment[victim].count;
    uint32_t *to = &c->open[c->worker][pool][class];

    c->segment[victim].state = OPEN; /* not to be freed while we walk it */
    for (uint32_t i = 0; i < count; i++) {
        if (!seg_live(c, victim, i))
            continue;
        uint32_t key = c->segment[victim].keys[i];
        if (seg_expired(c, key) || !copy_item(c, key, to, pool, class))
            evict_item(c, key, pool);
    }
    seg_seal(c, victim);
}

/* One hit more for each factor of 2^bias by which an item is over the mean size: large items must earn their place. */
static uint32_t needed_hits(const struct seg_cache *c, uint32_t key, uint32_t least, uint32_t bias)
{
    uint64_t mean = c->item_bytes / (c->items ? c->items : 1) + 1;

    if (bias)
        for (uint64_t bytes = c->item[key].bytes >> bias; bytes >= mean && least < c->fmax; bytes >>= bias)
            least++;
    return least;
}

static bool deserves(struct seg_cache *c, uint32_t key, enum pool pool)
{
    uint32_t hits = c->item[key].hits;

    if (seg_expired(c, key))
        return false;
    if (pool != SMALL)
        return hits >= needed_hits(c, key, 1, c->main_bias);
    return hits >= needed_hits(c, key, c->threshold, c->size_bias) &&
           (!c->sketch || sim_sketch_estimate(c->sketch, key) + hits > c->price);
}

/* Where an item goes from the old end of a pool if it has earned it. */
static enum pool destination(const struct seg_cache *c, enum pool pool)
{
    return pool == SMALL || c->kept_share <= 0 ? MAIN : KEPT;
}

static void age(struct seg_cache *c, uint32_t key, enum pool pool)
{
    uint32_t used = pool == SMALL ? c->item[key].hits : 1;

    seg_note(c, key, used);
    c->item[key].hits -= used;
}

/* A segment of one item moves by a change of queue. */
static void evict_solo(struct seg_cache *c, uint32_t victim)
{
    enum pool pool = (enum pool)c->segment[victim].pool;
    uint32_t key = c->segment[victim].keys[0];

    if (!deserves(c, key, pool)) {
        evict_item(c, key, pool);
        return;
    }
    enum pool to = destination(c, pool);
    age(c, key, pool);
    seg_dequeue(c, victim);
    seg_enqueue(c, victim, to);
}

/* A main segment that is nearly all live and hit goes to the young end whole, each item a hit poorer. */
static bool relink(struct seg_cache *c, uint32_t victim)
{
    struct segment *s = &c->segment[victim];
    uint64_t worth = 0;

    double least = may_copy(c) ? c->relink_share : c->relink_share / 2;
    enum pool pool = (enum pool)s->pool;
    if (c->relink_share <= 0 || pool == SMALL || c->relinks > c->queue[pool].segments)
        return false;
    for (uint32_t i = 0; i < s->count; i++)
        if (seg_live(c, victim, i) && c->item[s->keys[i]].hits && !seg_expired(c, s->keys[i]))
            worth += c->item[s->keys[i]].bytes;
    if ((double)worth < least * (double)s->capacity)
        return false;
    for (uint32_t i = 0; i < s->count; i++)
        if (seg_live(c, victim, i) && c->item[s->keys[i]].hits)
            age(c, s->keys[i], pool);
    seg_dequeue(c, victim);
    seg_enqueue(c, victim, destination(c, pool));
    c->relinks++;
    return true;
}

static void evict_segment(struct seg_cache *c, uint32_t victim)
{
    enum pool pool = (enum pool)c->segment[victim].pool;
    uint32_t count = c->segment[victim].count;

    if (c->segment[victim].solo) {
        evict_solo(c, victim);
        return;
    }
    if (relink(c, victim))
        return;
    c->relinks = 0;
    c->segment[victim].state = OPEN;
    for (uint32_t i = 0; i < count; i++) {
        if (!seg_live(c, victim, i))
            continue;
        uint32_t key = c->segment[victim].keys[i];
        if (deserves(c, key, pool) && may_copy(c)) {
            uint32_t class = seg_class(c, key);
            enum pool to = destination(c, pool);
            age(c, key, pool);
            if (copy_item(c, key, &c->open[c->worker][to][class], to, class))
                continue;
        }
        evict_item(c, key, pool);
    }
    seg_seal(c, victim);
}

static uint32_t oldest_sealed(const struct seg_cache *c, enum pool pool)
{
    uint32_t number = c->queue[pool].tail;

    while (number != SIM_NONE && c->segment[number].state != SEALED)
        number = c->segment[number].prev;
    return number;
}

static bool seal_any(struct seg_cache *c, uint32_t *open)
{
    if (*open == SIM_NONE)
        return false;
    seg_seal(c, *open);
    *open = SIM_NONE;
    return true;
}

/* Nothing sealed is left: seal what is open, so that it can be evicted. */
static bool seal_open(struct seg_cache *c)
{
    bool any = false;

    for (uint32_t pool = 0; pool < POOLS; pool++) {
        for (uint32_t class = 0; class < MAX_CLASSES; class++) {
            for (uint32_t w = 0; w < c->workers; w++)
                any |= seal_any(c, &c->open[w][pool][class]);
        }
    }
    return any;
}

/*
 * While the cache fills up for the first time everything is in the small pool.  Its oldest segments then become the
 * main pool as they are: to sift them as if the pool were full would throw out what nobody has had time to ask for.
 */
static void fill_main(struct seg_cache *c)
{
    double over = (double)c->segment_bytes + c->fill_share * (double)c->item_bytes;

    for (uint32_t n = c->queue[SMALL].segments; n > 0 && (double)c->queue[SMALL].live > over; n--) {
        uint32_t number = oldest_sealed(c, SMALL);
        if (number == SIM_NONE)
            return;
        seg_dequeue(c, number);
        seg_enqueue(c, number, MAIN);
    }
}

bool seg_reclaim(struct seg_cache *c)
{
    uint32_t victim = may_copy(c) ? most_dead(c) : SIM_NONE;

    if (victim != SIM_NONE) {
        compact(c, victim);
        return true;
    }
    if (c->fill_share < 1)
        fill_main(c);
    enum pool order[POOLS] = { SMALL, MAIN, KEPT };
    double live = (double)(c->queue[SMALL].live + c->queue[MAIN].live + c->queue[KEPT].live);
    if ((double)c->queue[SMALL].live <= c->small_share * live) {
        bool kept_first = (double)c->queue[KEPT].live > c->kept_share * live;
        order[0] = kept_first ? KEPT : MAIN;
        order[1] = kept_first ? MAIN : KEPT;
        order[2] = SMALL;
    }
    for (int i = 0; i < POOLS && victim == SIM_NONE; i++)
        victim = oldest_sealed(c, order[i]);
    if (victim == SIM_NONE)
        return seal_open(c);
    evict_segment(c, victim);
    return true;
}

/* Frees the segments of which every item has expired. */
void seg_expire(struct seg_cache *c)
{
    for (uint32_t number = 0; number < c->segments; number++) {
        if (c->segment[number].state != SEALED || c->segment[number].last_expiry > c->now_ms)
            continue;
        c->segment[number].state = OPEN;
        for (uint32_t i = 0; i < c->segment[number].count; i++)
            if (seg_live(c, number, i))
                seg_drop(c, c->segment[number].keys[i]);
        seg_seal(c, number);
    }
}
