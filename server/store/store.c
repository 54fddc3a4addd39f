/* SPDX-License-Identifier: MIT */
/*
 * The store's life: making and ending it, its workers, flush, statistics. The operations on keys are in store_ops.c;
 * the memory layout is explained in store_impl.h.
 *
 * Invariants: all addresses come from the one range reserved here; what is touched of it is charged.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "server/store/store_impl.h"

#define MAX_WORKERS       1024U
#define MAX_MEMORY        ((size_t)1 << 42) /* Four times as much, and some, fit a location. */
#define MIN_SEGMENT_SHIFT 16U               /* 64 KiB */
#define MAX_SEGMENT_SHIFT 20U               /* 1 MiB */
#define SEGMENTS_WANTED   256U
#define RESERVE_MOST      8U /* Segments of the reserve beyond three, with STORE_EVICT. */
#define BUCKET_STEP       1024U /* The index is charged in steps of 64 KiB. */
#define ITEM_MAX          61440U /* Bytes of an item in a segment, and no more than a quarter of that. */
#define LARGE_RANGE       4U    /* Addresses for large items, in times of the memory. */
#define GHOST_SHARE       128U  /* Of the memory, for ghosts. */
#define HUGE_FROM         ((size_t)128 << 20)
#define HUGE_OVERFLOW     ((size_t)1 << 30)
#define AHEAD_SHARE       64U   /* Of the memory, that is touched ahead of those who write, */
#define AHEAD_MOST        ((uint64_t)64 << 20)
#define CLASSES_FROM      128U /* Segments from which on items are kept apart by their time to live. */

/* ---- making and ending ---- */

static uint64_t boottime_ms(void *context)
{
    (void)context;
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static unsigned log2_floor(uint64_t n)
{
    return 63U - (unsigned)__builtin_clzll(n);
}

static uint32_t least_of(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Offsets from the start of the range. */
struct layout {
    size_t segments, workers, page_map, page_starts, page_idle, ghosts, fixed_end;
    size_t buckets, overflow, arena, large, end;
    size_t bucket_max, overflow_max, large_pages, ghost_rows;
    uint32_t segment_count, segment_shift;
};

static void plan_layout(const struct store_config *config, struct layout *at)
{
    size_t memory = config->memory_bytes;
    unsigned shift = log2_floor(memory / SEGMENTS_WANTED);
    shift = shift < MIN_SEGMENT_SHIFT ? MIN_SEGMENT_SHIFT : shift;
    at->segment_shift = shift > MAX_SEGMENT_SHIFT ? MAX_SEGMENT_SHIFT : shift;
    at->segment_count = (uint32_t)(memory >> at->segment_shift);
    at->large_pages = round_up(memory * LARGE_RANGE / STORE_PAGE, 64);
    at->ghost_rows = (size_t)1 << log2_floor(memory / GHOST_SHARE / 64);
    at->bucket_max = round_up(memory / 4 * 3 / sizeof(struct store_bucket), BUCKET_STEP);
    at->overflow_max = round_up(memory / 4 / sizeof(struct store_bucket), BUCKET_STEP);
    at->overflow_max = at->overflow_max < UINT32_MAX / 2 ? at->overflow_max : UINT32_MAX / 2;

    at->segments = round_up(sizeof(struct store), 64);
    at->workers = at->segments + at->segment_count * sizeof(struct store_segment);
    at->page_map = at->workers + config->max_workers * sizeof(struct store_worker);
    at->page_starts = at->page_map + at->large_pages / 8;
    at->page_idle = at->page_starts + at->large_pages / 8;
    at->ghosts = round_up(at->page_idle + at->large_pages / 8, 64);
    at->fixed_end = at->ghosts + at->ghost_rows * 64;
    at->buckets = round_up(at->fixed_end, STORE_HUGE_PAGE);
    at->overflow = round_up(at->buckets + at->bucket_max * sizeof(struct store_bucket), STORE_HUGE_PAGE);
    at->arena = round_up(at->overflow + at->overflow_max * sizeof(struct store_bucket), STORE_HUGE_PAGE);
    at->large = round_up(at->arena + ((size_t)at->segment_count << at->segment_shift), STORE_HUGE_PAGE);
    at->end = at->large + at->large_pages * STORE_PAGE;
}

static int draw_secrets(struct store *store)
{
    uint8_t *to = store->secret;
    for (size_t have = 0; have < sizeof(store->secret);) {
        ssize_t got = getrandom(to + have, sizeof(store->secret) - have, 0);
        if (got < 0 && errno != EINTR)
            return errno;
        have += got > 0 ? (size_t)got : 0;
    }
    uint64_t start;
    if (getrandom(&start, sizeof(start), 0) != (ssize_t)sizeof(start))
        return EAGAIN;
    store->seq = (start >> 22) + 1; /* 44 bits of a version are a sequence number: room for 2^43 segments and more. */
    return 0;
}

static bool config_valid(const struct store_config *config)
{
    return config->memory_bytes >= STORE_MIN_MEMORY && config->max_workers >= 1 &&
           config->max_workers <= MAX_WORKERS &&
           (config->eviction == STORE_EVICT || config->eviction == STORE_REFUSE);
}

static void init_writer(struct store_writer *writer, enum store_pool pool)
{
    writer->pool = pool;
    for (unsigned class = 0; class < STORE_CLASSES; class ++)
        writer->open[class] = (struct store_open){.segment = STORE_NONE};
}

/* Two fit, so that one can be overwritten. */
static uint64_t largest_item(const struct store *store)
{
    uint64_t room = store->limit - store->fixed - store->first_index_bytes;
    room = ((room >> store->segment_shift) - store_aside(store)) << store->segment_shift;
    uint64_t largest = (room - room / 16) / 2 / STORE_PAGE * STORE_PAGE;
    largest -= sizeof(struct store_large) + ITEM_MOST_EXTRA + 16;
    return largest < UINT32_MAX ? largest : UINT32_MAX;
}

static void init_parts(struct store *store, const struct layout *at)
{
    uint8_t *base = store->base;
    store->segments = (struct store_segment *)(void *)(base + at->segments);
    store->workers = (struct store_worker *)(void *)(base + at->workers);
    store->page_map = (uint64_t *)(void *)(base + at->page_map);
    store->page_starts = (uint64_t *)(void *)(base + at->page_starts);
    store->page_idle = (uint64_t *)(void *)(base + at->page_idle);
    store->ghosts = (uint16_t *)(void *)(base + at->ghosts);
    store->buckets = (struct store_bucket *)(void *)(base + at->buckets);
    store->overflow = (struct store_bucket *)(void *)(base + at->overflow);
    store->arena_at = at->arena;
    store->large_at = at->large;
    store->bucket_max = at->bucket_max;
    store->overflow_max = at->overflow_max;
    store->ghost_rows_max = store->ghost_rows = at->ghost_rows;
    store->large_pages = at->large_pages;
    store->segment_count = at->segment_count;
    store->segment_shift = at->segment_shift;
    store->item_max = least_of(store_segment_bytes(store) / 4, ITEM_MAX);
    /* What evicts can always evict instead of moving. */
    bool refuse = store->config.eviction == STORE_REFUSE;
    store->reserve = 3 + (refuse ? at->segment_count / 64 : least_of(at->segment_count / 128, RESERVE_MOST));
    store->classes = at->segment_count >= CLASSES_FROM ? STORE_CLASSES : 1;
    store->fixed = round_up(at->fixed_end, STORE_PAGE);
    store->bucket_count = BUCKET_STEP / 2;
    store->bucket_charged = BUCKET_STEP;
    store->first_index_bytes = BUCKET_STEP * sizeof(struct store_bucket);
    store->committed = store->fixed + store->first_index_bytes;
    store->epoch = 1;
    store->largest = largest_item(store);
    store->ahead = store->limit / AHEAD_SHARE < AHEAD_MOST ? store->limit / AHEAD_SHARE : AHEAD_MOST;
    store->sweep_large = STORE_NONE;
    for (unsigned pool = 0; pool < POOL_COUNT; pool++) {
        init_writer(&store->mover[pool], (enum store_pool)pool);
        store_list_init(&store->pool[pool]);
        store_list_init(&store->large[pool]);
    }
    store_list_init(&store->free);
    store_list_init(&store->unused);
    store_list_init(&store->retired);
    store_list_init(&store->pinned);
    store_list_init(&store->large_retired);
    store_update_available(store);
}

/* Prefetching gains little if each access misses the TLB. But of the overflow buckets so few are used that only in a
 * large store a huge page is nothing among its items. */
static void ask_for_huge_pages(struct store *store)
{
    store->huge = store->limit >= HUGE_FROM;
    store->huge_overflow = store->limit >= HUGE_OVERFLOW;
    if (!store->huge)
        return;
    madvise(store->buckets, store->bucket_max * sizeof(struct store_bucket), MADV_HUGEPAGE);
    if (store->huge_overflow)
        madvise(store->overflow, store->overflow_max * sizeof(struct store_bucket), MADV_HUGEPAGE);
    madvise(store_at(store, store->arena_at), (size_t)store->segment_count << store->segment_shift, MADV_HUGEPAGE);
}

int store_create(const struct store_config *config, struct store **store)
{
    if (!config_valid(config))
        return EINVAL;
    if (config->memory_bytes > MAX_MEMORY)
        return ENOMEM;
    struct layout at;
    plan_layout(config, &at);
    uint8_t *base = mmap(NULL, at.end, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return ENOMEM;
    struct store *made = (struct store *)(void *)base;
    made->config = *config;
    if (config->now_ms == NULL)
        made->config.now_ms = boottime_ms;
    made->made_at = made->config.now_ms(made->config.now_context);
    made->base = base;
    made->mapped = at.end;
    made->limit = config->memory_bytes;
    init_parts(made, &at);
    ask_for_huge_pages(made);
    int failure = draw_secrets(made);
    if (failure == 0)
        failure = pthread_mutex_init(&made->mutex, NULL);
    if (failure == 0 && (failure = pthread_cond_init(&made->ahead_call, NULL)) != 0)
        pthread_mutex_destroy(&made->mutex);
    if (failure != 0) {
        munmap(base, at.end);
        return failure;
    }
    *store = made;
    return 0;
}

void store_destroy(struct store *store)
{
    if (store == NULL)
        return;
    pthread_cond_destroy(&store->ahead_call);
    pthread_mutex_destroy(&store->mutex);
    munmap(store, store->mapped);
}

/* ---- workers ---- */

int store_worker_attach(struct store *store, struct store_worker **worker)
{
    int failure = EBUSY;
    pthread_mutex_lock(&store->mutex);
    for (uint32_t i = 0; i < store->config.max_workers; i++) {
        struct store_worker *at = &store->workers[i];
        if (at->store != NULL)
            continue;
        at->store = store; /* The counters of who was here before stay: they are the store's. */
        at->debt = at->unpaid = at->credit = 0;
        at->late_epoch = at->given_up = 0;
        at->has_views = false;
        init_writer(&at->writer, POOL_SMALL);
        store_poke(&at->epoch, (uint64_t)0);
        if (i + 1 > store->workers_attached)
            store_publish(&store->workers_attached, i + 1);
        *worker = at;
        failure = 0;
        break;
    }
    pthread_mutex_unlock(&store->mutex);
    return failure;
}

void store_worker_detach(struct store_worker *worker)
{
    if (worker == NULL)
        return;
    struct store *store = worker->store;
    store_segment_seal(store, &worker->writer, STORE_NEVER);
    store_quiesce(worker);
    pthread_mutex_lock(&store->mutex);
    worker->store = NULL;
    pthread_mutex_unlock(&store->mutex);
}

void store_flush(struct store_worker *worker)
{
    struct store *store = store_enter(worker);
    pthread_mutex_lock(&store->mutex);
    /* What was begun before has a smaller number, and is gone from here on. */
    uint64_t flushed = __atomic_add_fetch(&store->seq, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&store->flushed, flushed, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&store->mutex);
    worker->credit = 0;
}

/* ---- statistics ---- */

static void add_counters(const struct store *store, struct store_stats *stats)
{
    for (uint32_t i = 0; i < store->config.max_workers; i++) {
        const struct store_counters *from = &store->workers[i].counters;
        stats->hits += store_peek(&from->hits);
        stats->misses += store_peek(&from->misses);
        stats->puts += store_peek(&from->puts);
        stats->deletes += store_peek(&from->deletes);
        stats->evictions += store_peek(&from->evictions);
        stats->evictions_small += store_peek(&from->evictions_small);
        stats->evictions_main += store_peek(&from->evictions_main);
        stats->evictions_large += store_peek(&from->evictions_large);
        stats->evictions_bucket += store_peek(&from->evictions_bucket);
        stats->expirations += store_peek(&from->expirations);
        stats->refusals += store_peek(&from->refusals);
        stats->ghost_hits += store_peek(&from->ghost_hits);
        stats->moved_bytes += store_peek(&from->moved_bytes);
    }
}

/* The mutex is held. */
static void add_segments(const struct store *store, struct store_stats *stats)
{
    uint64_t flushed = store_load(&store->flushed);
    for (uint32_t i = 0; i < store->fresh; i++) {
        const struct store_segment *at = &store->segments[i];
        uint8_t state = store_load(&at->state);
        if (state == SEGMENT_UNUSED || state == SEGMENT_FREE || state == SEGMENT_RETIRED ||
            store_peek(&at->seq) < flushed)
            continue;
        uint64_t live = store_segment_live(at);
        if ((int64_t)live > 0) { /* Else an item is just being counted. */
            stats->items += live >> 32;
            stats->bytes_live += (uint32_t)live;
        }
    }
    for (unsigned pool = 0; pool < POOL_COUNT; pool++) {
        for (uint32_t page = store->large[pool].head; page != STORE_NONE; page = store_large_at(store, page)->next) {
            const struct store_large *large = store_large_at(store, page);
            stats->items += large->seq >= flushed;
            stats->bytes_live += large->seq >= flushed ? (uint64_t)large->pages * STORE_PAGE : 0;
        }
    }
}

void store_stats(struct store *store, struct store_stats *stats)
{
    *stats = (struct store_stats){.bytes_limit = store->limit, .bytes_fixed = store->fixed};
    add_counters(store, stats);
    pthread_mutex_lock(&store->mutex);
    add_segments(store, stats);
    stats->bytes_free = store_budget_room(store);
    stats->bytes_retired = store_retired_bytes(store);
    stats->grace_lag = store_load(&store->epoch) - store_oldest_epoch(store);
    pthread_mutex_unlock(&store->mutex);
    uint64_t charged = store_peek(&store->bucket_charged) + store_peek(&store->overflow_charged);
    stats->bytes_index = charged * sizeof(struct store_bucket);
    stats->index_slots = store_load(&store->bucket_count) * STORE_SLOTS;
    uint64_t taken = stats->bytes_free + stats->bytes_live + stats->bytes_index + stats->bytes_fixed;
    stats->bytes_dead = stats->bytes_limit > taken ? stats->bytes_limit - taken : 0;
    stats->grace_waits = store_peek(&store->waited);
    stats->pinned = store_peek(&store->pinned_views);
    struct store_grace grace;
    if (store_grace(store, &grace)) {
        stats->grace_lag_ms = grace.lag_ms;
        stats->grace_worker = grace.worker;
    }
}
