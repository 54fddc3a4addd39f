/* SPDX-License-Identifier: MIT */
/*
 * S3-FIFO over segments: items, segments and their accounting (segment.h has the picture).
 *
 * Options, defaults in brackets; the defaults are the decision of docs/decisions/0001-eviction.md.
 *   small [10] % of live bytes in the small pool     fill [30] %: over this it gives its oldest segments to main whole
 *   kept [70] % of live bytes in the kept pool, at most; 0: there is none
 *   threshold [1] hits that take an item out of small, one more per factor 2^n of size over the mean: sizebias [1] n
 *   mainbias [1] the same for staying in main and kept, where it starts from one hit; 0: size does not matter
 *   credit [1] n: an item under the mean size by 2^n starts with a hit, by 2^2n with two; 0: none does
 *   fmax [3] where the hit counter saturates         ghost [50] % of the number of items
 *   sketch [0] % of memory for a frequency sketch that guards main, fed on misses and evictions only
 *   div [128] memory / segment size, within          segmin [4096] .. segmax [1048576]
 *   workers [2] with an open segment per pool each   reserve [3] segments kept free for copying
 *   dead [20] % dead: compact before evicting        copy [3] bytes copied per byte written, at most; 0: no bound
 *   relink [80] % live and hit: goes round whole     solo [4] items over 1/4 segment stand alone
 *   inplace [1] 1: same-size overwrites in place     owhit [1] an overwrite counts as a hit
 *   ttl [2] classes of lifetime, a factor 8 apart    owsmall [8] an item that grows by this factor goes to small
 */
#include "tests/bench/sim/segment.h"

#include <stdlib.h>
#include <string.h>

static void read_options(struct seg_cache *c, struct sim_spec *spec)
{
    double div = sim_option(spec, "div", 128), least = sim_option(spec, "segmin", 4096);
    double most = sim_option(spec, "segmax", 1 << 20);

    for (c->segment_bytes = 1u << 20; c->segment_bytes > 1024; c->segment_bytes /= 2)
        if ((double)c->segment_bytes <= most &&
            ((double)c->segment_bytes * div <= (double)c->memory || (double)c->segment_bytes <= least))
            break;
    c->small_share = sim_option(spec, "small", 10) / 100;
    c->fill_share = sim_option(spec, "fill", 30) / 100;
    c->kept_share = sim_option(spec, "kept", 70) / 100;
    c->threshold = (uint32_t)sim_option(spec, "threshold", 1);
    c->size_bias = (uint32_t)sim_option(spec, "sizebias", 1);
    c->main_bias = (uint32_t)sim_option(spec, "mainbias", 1);
    c->credit = (uint32_t)sim_option(spec, "credit", 1);
    c->fmax = (uint32_t)sim_option(spec, "fmax", 3);
    c->ghost = sim_ghost_create(sim_option(spec, "ghost", 50) / 100);
    double sketch = sim_option(spec, "sketch", 0) / 100 * (double)c->memory;
    c->sketch = sketch > 0 ? sim_sketch_create((uint64_t)sketch) : NULL;
    c->workers = (uint32_t)sim_option(spec, "workers", 2);
    c->workers = c->workers < 1 ? 1 : c->workers > MAX_WORKERS ? MAX_WORKERS : c->workers;
    c->reserve_bytes = (uint64_t)sim_option(spec, "reserve", 3) * c->segment_bytes;
    c->dead_share = sim_option(spec, "dead", 20) / 100;
    c->copy_bound = sim_option(spec, "copy", 3);
    c->relink_share = sim_option(spec, "relink", 80) / 100;
    c->solo_part = (uint32_t)sim_option(spec, "solo", 4);
    c->in_place = sim_option(spec, "inplace", 1) != 0;
    c->overwrite_hits = sim_option(spec, "owhit", 1) != 0;
    c->classes = (uint32_t)sim_option(spec, "ttl", 2);
    c->classes = c->classes < 1 ? 1 : c->classes >= MAX_CLASSES ? MAX_CLASSES - 1 : c->classes;
    c->overwrite_small = sim_option(spec, "owsmall", 8);
}

static void *create(const struct sim_setup *setup)
{
    struct seg_cache *c = sim_alloc(1, sizeof(*c));

    c->memory = setup->memory;
    c->keys = setup->keys;
    c->has_ttl = setup->has_ttl;
    read_options(c, setup->spec);
    c->item = sim_alloc(c->keys, sizeof(*c->item));
    for (uint32_t key = 0; key < c->keys; key++)
        c->item[key].segment = SIM_NONE;
    if (c->has_ttl)
        c->expiry = sim_alloc(c->keys, sizeof(*c->expiry));
    for (int p = 0; p < POOLS; p++)
        c->queue[p] = (struct queue){ .head = SIM_NONE, .tail = SIM_NONE };
    memset(c->open, 0xff, sizeof(c->open));
    c->free_segment = SIM_NONE;
    return c;
}

uint64_t seg_charged(const struct seg_cache *c)
{
    return c->charged_segments + (uint64_t)c->items * sim_index_bytes + sim_ghost_bytes(c->ghost) +
           sim_sketch_bytes(c->sketch);
}

/* Into the pool's queue, at the young end. */
void seg_enqueue(struct seg_cache *c, uint32_t number, enum pool pool)
{
    struct queue *queue = &c->queue[pool];
    struct segment *s = &c->segment[number];

    s->pool = (uint8_t)pool;
    s->prev = SIM_NONE;
    s->next = queue->head;
    if (s->next != SIM_NONE)
        c->segment[s->next].prev = number;
    else
        queue->tail = number;
    queue->head = number;
    queue->live += s->live;
    queue->segments++;
}

void seg_dequeue(struct seg_cache *c, uint32_t number)
{
    struct segment *s = &c->segment[number];
    struct queue *queue = &c->queue[s->pool];

    if (s->prev != SIM_NONE)
        c->segment[s->prev].next = s->next;
    else
        queue->head = s->next;
    if (s->next != SIM_NONE)
        c->segment[s->next].prev = s->prev;
    else
        queue->tail = s->prev;
    queue->live -= s->live;
    queue->segments--;
}

uint32_t seg_new(struct seg_cache *c, enum pool pool, uint32_t class, uint64_t capacity)
{
    uint32_t number = c->free_segment;

    if (number != SIM_NONE) {
        c->free_segment = c->segment[number].next;
    } else {
        if (c->segments == c->segment_cap) {
            c->segment_cap = c->segment_cap ? c->segment_cap * 2 : 256;
            struct segment *more = realloc(c->segment, c->segment_cap * sizeof(*more));
            if (!more)
                exit(2);
            c->segment = more;
        }
        number = c->segments++;
        c->segment[number] = (struct segment){ 0 };
    }
    struct segment *s = &c->segment[number];
    s->count = s->live_items = 0;
    s->used = s->live = s->last_expiry = 0;
    s->capacity = capacity;
    s->class = (uint8_t)class;
    s->state = OPEN;
    s->solo = false;
    seg_enqueue(c, number, pool);
    c->charged_segments += capacity + SEGMENT_TABLE_BYTES;
    return number;
}

void seg_free(struct seg_cache *c, uint32_t number)
{
    struct segment *s = &c->segment[number];

    seg_dequeue(c, number);
    c->charged_segments -= s->capacity + SEGMENT_TABLE_BYTES;
    s->state = FREE;
    s->next = c->free_segment;
    c->free_segment = number;
}

/* Closes an open segment; one whose items have all died is free at once. */
void seg_seal(struct seg_cache *c, uint32_t number)
{
    c->segment[number].state = SEALED;
    if (c->segment[number].live_items == 0)
        seg_free(c, number);
}

void seg_append(struct seg_cache *c, uint32_t number, uint32_t key, uint32_t bytes)
{
    struct segment *s = &c->segment[number];

    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 16;
        uint32_t *more = realloc(s->keys, s->cap * sizeof(*more));
        if (!more)
            exit(2);
        s->keys = more;
    }
    c->item[key].segment = number;
    c->item[key].index = s->count;
    c->item[key].bytes = bytes;
    s->keys[s->count++] = key;
    s->used += bytes;
    s->live += bytes;
    s->live_items++;
    c->queue[s->pool].live += bytes;
    c->items++;
    c->item_bytes += bytes;
    uint64_t expiry = c->has_ttl ? c->expiry[key] : SIM_NEVER;
    s->last_expiry = expiry > s->last_expiry ? expiry : s->last_expiry;
}

/* The item is gone: its bytes are dead; a sealed segment without live items is free. */
void seg_drop(struct seg_cache *c, uint32_t key)
{
    struct item *item = &c->item[key];
    struct segment *s = &c->segment[item->segment];

    s->live -= item->bytes;
    s->live_items--;
    c->queue[s->pool].live -= item->bytes;
    c->items--;
    c->item_bytes -= item->bytes;
    if (s->live_items == 0 && s->state == SEALED)
        seg_free(c, item->segment);
    item->segment = SIM_NONE;
}

bool seg_live(const struct seg_cache *c, uint32_t number, uint32_t index)
{
    const struct item *item = &c->item[c->segment[number].keys[index]];

    return item->segment == number && item->index == index;
}

bool seg_expired(const struct seg_cache *c, uint32_t key)
{
    return c->has_ttl && c->expiry[key] <= c->now_ms;
}

/* Class 0: no TTL; then by what is left of it: up to 4 s, 32 s, 256 s, ... */
uint32_t seg_class(const struct seg_cache *c, uint32_t key)
{
    uint32_t class = 1;

    if (!c->has_ttl || c->expiry[key] == SIM_NEVER)
        return 0;
    for (uint64_t left = c->expiry[key] - c->now_ms; left > 4000 && class < c->classes; left /= 8)
        class++;
    return class;
}

static bool get(void *cache, uint32_t key)
{
    struct seg_cache *c = cache;
    struct item *item = &c->item[key];

    if (item->segment == SIM_NONE)
        return false;
    if (item->hits < c->fmax)
        item->hits++;
    return true;
}

static void remove_key(void *cache, uint32_t key)
{
    struct seg_cache *c = cache;

    if (c->item[key].segment != SIM_NONE)
        seg_drop(c, key);
}

/* Where the next write goes, after making room; SIM_NONE: there is none to be made. */
static uint32_t place(struct seg_cache *c, enum pool pool, uint32_t class, uint32_t bytes)
{
    bool solo = c->solo_part ? (uint64_t)bytes * c->solo_part > c->segment_bytes : bytes > c->segment_bytes;
    uint64_t solo_bytes = ((uint64_t)bytes + 4095) & ~(uint64_t)4095;
    uint32_t *open = &c->open[c->worker][pool][class];

    for (;;) {
        bool fits = !solo && *open != SIM_NONE && c->segment[*open].used + bytes <= c->segment[*open].capacity;
        uint64_t need = fits ? 0 : (solo ? solo_bytes : c->segment_bytes) + SEGMENT_TABLE_BYTES;
        if (seg_charged(c) + need + sim_index_bytes + c->reserve_bytes <= c->memory) {
            if (fits)
                return *open;
            break;
        }
        if (!seg_reclaim(c))
            return SIM_NONE;
    }
    if (solo) {
        uint32_t number = seg_new(c, pool, class, solo_bytes);
        c->segment[number].solo = true;
        c->segment[number].state = SEALED;
        return number;
    }
    if (*open != SIM_NONE)
        seg_seal(c, *open);
    return *open = seg_new(c, pool, class, c->segment_bytes);
}

static void fit_ghost(struct seg_cache *c)
{
    if (c->evictions <= 64 + c->items / 8)
        return;
    c->evictions = 0;
    sim_ghost_resize(c->ghost, c->items);
    while (seg_charged(c) > c->memory && seg_reclaim(c))
        ;
}

/* Whether a new key goes to main at once: it comes back soon after its eviction from the small pool. */
static bool comes_back(struct seg_cache *c, uint32_t key)
{
    return sim_ghost_take(c->ghost, key) && (!c->sketch || sim_sketch_estimate(c->sketch, key) > c->price);
}

/* Hits that an item starts with: a small one costs little to keep. */
static uint32_t first_hits(const struct seg_cache *c, uint32_t bytes)
{
    uint64_t mean = c->item_bytes / (c->items ? c->items : 1);
    uint32_t hits = 0;

    if (c->credit)
        while (hits < 2 && ((uint64_t)bytes << ((hits + 1) * c->credit)) <= mean)
            hits++;
    return hits;
}

static void put(void *cache, uint32_t key, uint32_t size, uint64_t expiry_ms)
{
    struct seg_cache *c = cache;
    struct item *item = &c->item[key];
    uint32_t bytes = sim_item_bytes(size, expiry_ms != SIM_NEVER);
    bool known = item->segment != SIM_NONE;
    enum pool pool = known && bytes < c->overwrite_small * item->bytes ? (enum pool)c->segment[item->segment].pool : SMALL;

    c->worker = c->worker + 1 < c->workers ? c->worker + 1 : 0;
    c->counters.written_bytes += bytes;
    c->copy_tokens += bytes * c->copy_bound;
    if (c->copy_tokens > 4.0 * (double)c->segment_bytes)
        c->copy_tokens = 4.0 * (double)c->segment_bytes;
    if (known && c->overwrite_hits && item->hits < c->fmax)
        item->hits++;
    if (known && c->in_place && bytes == item->bytes && !c->has_ttl)
        return;
    if (known)
        seg_drop(c, key);
    if (bytes > c->memory / 2)
        return;
    if (c->has_ttl)
        c->expiry[key] = expiry_ms;
    if (!known) {
        item->hits = first_hits(c, bytes);
        seg_note(c, key, 1);
        pool = comes_back(c, key) ? MAIN : SMALL;
    }
    uint32_t number = place(c, pool, seg_class(c, key), bytes);
    if (number != SIM_NONE)
        seg_append(c, number, key, bytes);
    fit_ghost(c);
}

static void tick(void *cache, uint64_t now_ms)
{
    struct seg_cache *c = cache;

    c->now_ms = now_ms;
    if (c->has_ttl && now_ms % 16 == 0)
        seg_expire(c);
}

static void counters(const void *cache, struct sim_counters *out)
{
    const struct seg_cache *c = cache;

    *out = c->counters;
    out->live_bytes = c->item_bytes;
    out->charged = seg_charged(c);
}

static bool audit(const void *cache)
{
    const struct seg_cache *c = cache;
    uint64_t live = 0, capacity = 0;
    uint32_t items = 0;

    for (uint32_t number = 0; number < c->segments; number++) {
        const struct segment *s = &c->segment[number];
        uint64_t in_segment = 0;
        if (s->state == FREE)
            continue;
        for (uint32_t i = 0; i < s->count; i++) {
            if (seg_live(c, number, i)) {
                in_segment += c->item[s->keys[i]].bytes;
                items++;
            }
        }
        if (in_segment != s->live || s->used > s->capacity)
            return false;
        live += in_segment;
        capacity += s->capacity + SEGMENT_TABLE_BYTES;
    }
    return items == c->items && live == c->item_bytes && live == c->queue[SMALL].live + c->queue[MAIN].live + c->queue[KEPT].live &&
           capacity == c->charged_segments;
}

static void destroy(void *cache)
{
    struct seg_cache *c = cache;

    for (uint32_t number = 0; number < c->segments; number++)
        free(c->segment[number].keys);
    sim_ghost_destroy(c->ghost);
    sim_sketch_destroy(c->sketch);
    free(c->segment);
    free(c->item);
    free(c->expiry);
    free(c);
}

const struct sim_policy sim_segment = { "segment", create, get, put, remove_key, counters, audit, destroy, tick, true };
