/* SPDX-License-Identifier: MIT */
/*
 * The store's life: making and ending it, its workers, their views and pins, housekeeping, statistics.
 * The operations on keys are in store_ops.c; the memory layout is explained in store_impl.h.
 *
 * Invariants: all memory comes from the one mapping made here, which is no larger than the limit;
 * segment.views counts the workers whose bitmap names the segment.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "server/store/store_impl.h"

#define MAX_WORKERS         1024U
#define MIN_SEGMENT_SHIFT   16U        /* 64 KiB */
#define MAX_SEGMENT_SHIFT   20U        /* 1 MiB */
#define BYTES_PER_BUCKET    256U       /* of memory_bytes */
#define SWEEP_INTERVAL_MS   1000U      /* A sweep for expired items starts no more often than this. */
#define SWEEP_DROPS         512U       /* Items that one store_tick() drops at most. */
#define SWEEP_SEGMENTS      4096U      /* Segments that it looks at, of which it walks one. */

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

/* Offsets from the start of the mapping. */
struct layout {
    size_t segments;
    size_t workers;
    size_t views;
    size_t buckets;
    size_t arena;
    size_t end;
    size_t segment_count;
    size_t bucket_count;
    size_t view_words;
    unsigned segment_shift;
};

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* The places of all parts for a number of segments, at most memory_bytes >> segment_shift. */
static void place_parts(const struct store_config *config, size_t segment_count, struct layout *at)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    at->segment_count = segment_count;
    at->view_words = round_up(segment_count, 64) / 64;
    at->segments = round_up(sizeof(struct store), 64);
    at->workers = at->segments + segment_count * sizeof(struct store_segment);
    at->views = at->workers + config->max_workers * sizeof(struct store_worker);
    at->buckets = round_up(at->views + config->max_workers * at->view_words * sizeof(uint64_t), page);
    at->arena = round_up(at->buckets + at->bucket_count * sizeof(uint64_t), page);
    at->end = at->arena + (segment_count << at->segment_shift);
}

static void plan_layout(const struct store_config *config, struct layout *at)
{
    size_t memory = config->memory_bytes;
    unsigned shift = log2_floor(memory / 64);
    shift = shift < MIN_SEGMENT_SHIFT ? MIN_SEGMENT_SHIFT : shift;
    at->segment_shift = shift > MAX_SEGMENT_SHIFT ? MAX_SEGMENT_SHIFT : shift;
    at->bucket_count = (size_t)1 << log2_floor(memory / BYTES_PER_BUCKET);

    /* All segments that fit beside the tables for as many as memory alone would allow, then what is left. */
    place_parts(config, memory >> at->segment_shift, at);
    size_t tables = at->arena;
    place_parts(config, (memory - tables) >> at->segment_shift, at);
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
    store->version = start >> 2; /* Room for 2^62 writes and more. */
    return 0;
}

static bool config_valid(const struct store_config *config)
{
    return config->memory_bytes >= STORE_MIN_MEMORY && config->max_workers >= 1 &&
           config->max_workers <= MAX_WORKERS &&
           (config->eviction == STORE_EVICT || config->eviction == STORE_REFUSE);
}

int store_create(const struct store_config *config, struct store **store)
{
    if (!config_valid(config))
        return EINVAL;
    if (config->memory_bytes > PTRDIFF_MAX)
        return ENOMEM;
    struct layout at;
    plan_layout(config, &at);
    if (at.segment_count > UINT32_MAX / 2)
        return ENOMEM;
    uint8_t *memory = mmap(NULL, at.end, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return ENOMEM;

    struct store *made = (struct store *)(void *)memory;
    made->config = *config;
    if (config->now_ms == NULL)
        made->config.now_ms = boottime_ms;
    made->mapped = at.end;
    made->arena = memory + at.arena;
    made->arena_size = (uint64_t)at.segment_count << at.segment_shift;
    /* The headroom of STORE_REFUSE bounds what gathering dead bytes costs: about 32 bytes moved for one. */
    made->live_limit = made->arena_size - made->arena_size / 32;
    made->segments = (struct store_segment *)(void *)(memory + at.segments);
    made->segment_count = (uint32_t)at.segment_count;
    made->segment_shift = at.segment_shift;
    made->buckets = (uint64_t *)(void *)(memory + at.buckets);
    made->bucket_mask = at.bucket_count - 1;
    made->workers = (struct store_worker *)(void *)(memory + at.workers);
    made->view_words = (uint32_t)at.view_words;
    made->expiry_due = STORE_NEVER;
    uint64_t *views = (uint64_t *)(void *)(memory + at.views);
    for (unsigned i = 0; i < config->max_workers; i++)
        made->workers[i].views = views + i * at.view_words;
    store_arena_init(made);

    int failure = draw_secrets(made);
    if (failure == 0)
        failure = pthread_mutex_init(&made->mutex, NULL);
    if (failure != 0) {
        munmap(memory, at.end);
        return failure;
    }
    *store = made;
    return 0;
}

void store_destroy(struct store *store)
{
    if (store == NULL)
        return;
    pthread_mutex_destroy(&store->mutex);
    munmap(store, store->mapped);
}

/* ---- workers ---- */

int store_worker_attach(struct store *store, struct store_worker **worker)
{
    int failure = EBUSY;
    pthread_mutex_lock(&store->mutex);
    for (unsigned i = 0; i < store->config.max_workers; i++) {
        if (store->workers[i].store == NULL) {
            store->workers[i].store = store;
            *worker = &store->workers[i];
            failure = 0;
            break;
        }
    }
    pthread_mutex_unlock(&store->mutex);
    return failure;
}

void store_worker_detach(struct store_worker *worker)
{
    if (worker == NULL)
        return;
    store_quiesce(worker);
    struct store *store = worker->store;
    pthread_mutex_lock(&store->mutex);
    worker->store = NULL;
    pthread_mutex_unlock(&store->mutex);
}

void store_quiesce(struct store_worker *worker)
{
    if (worker->first_word == worker->end_word)
        return; /* No views: nothing to lock for. */
    struct store *store = worker->store;
    pthread_mutex_lock(&store->mutex);
    for (uint32_t i = worker->first_word; i < worker->end_word; i++) {
        for (uint64_t bits = worker->views[i]; bits != 0; bits &= bits - 1)
            store->segments[i * 64 + (uint32_t)__builtin_ctzll(bits)].views--;
        worker->views[i] = 0;
    }
    worker->first_word = worker->end_word = 0;
    pthread_mutex_unlock(&store->mutex);
}

/* ---- pins ---- */

/* store_view.pin: the first segment of the item, and above it how many more. */
static uint32_t pin_first(uint64_t pin)
{
    return (uint32_t)pin;
}

static uint32_t pin_last(uint64_t pin)
{
    return (uint32_t)pin + (uint32_t)(pin >> 32);
}

bool store_pin(struct store_worker *worker, const struct store_view *view)
{
    struct store *store = worker->store;
    uint32_t fresh = 0;
    bool fits = true;
    pthread_mutex_lock(&store->mutex);
    for (uint32_t i = pin_first(view->pin); i <= pin_last(view->pin); i++) {
        fresh += store->segments[i].held == 0;
        fits = fits && store->segments[i].held < STORE_HELD_MAX;
    }
    /* Half of the segments stay free of pins, whatever slow readers do. */
    fits = fits && (fresh == 0 || store->held_segments + fresh <= store->segment_count / 2);
    if (fits) {
        for (uint32_t i = pin_first(view->pin); i <= pin_last(view->pin); i++)
            store->segments[i].held++;
        store->held_segments += fresh;
        store->pinned++;
    }
    pthread_mutex_unlock(&store->mutex);
    return fits;
}

void store_unpin(struct store_worker *worker, uint64_t pin)
{
    struct store *store = worker->store;
    pthread_mutex_lock(&store->mutex);
    for (uint32_t i = pin_first(pin); i <= pin_last(pin); i++) {
        assert(store->segments[i].held > 0);
        store->held_segments -= --store->segments[i].held == 0;
    }
    store->pinned--;
    pthread_mutex_unlock(&store->mutex);
}

/* ---- housekeeping ---- */

/* One step of the sweep through all segments. Answers whether the sweep goes on. */
static bool sweep(struct store *store)
{
    if (!store->sweeping) {
        if (store->now < store->expiry_due || store->now < store->sweep_after)
            return false;
        uint64_t after = store->now + SWEEP_INTERVAL_MS;
        store->sweep_after = after < store->now ? STORE_NEVER : after;
        store->sweeping = true;
        store->expiry_due = STORE_NEVER; /* Learnt anew as the sweep passes. */
    }
    for (unsigned looked = 0; looked < SWEEP_SEGMENTS; looked++) {
        struct store_segment *segment = &store->segments[store->sweep_segment];
        bool due = segment->min_expiry <= store->now;
        if (due && !store_arena_expire(store, store->sweep_segment, SWEEP_DROPS))
            return true;
        if (segment->min_expiry < store->expiry_due)
            store->expiry_due = segment->min_expiry;
        if (++store->sweep_segment == store->segment_count) {
            store->sweep_segment = 0;
            store->sweeping = false;
            return false;
        }
        if (due)
            break;
    }
    return true;
}

bool store_tick(struct store_worker *worker)
{
    struct store *store = worker->store;
    pthread_mutex_lock(&store->mutex);
    store->now = store->config.now_ms(store->config.now_context);
    bool more = sweep(store);
    pthread_mutex_unlock(&store->mutex);
    return more;
}

void store_flush(struct store_worker *worker)
{
    struct store *store = worker->store;
    pthread_mutex_lock(&store->mutex);
    store_index_clear(store);
    store_arena_clear(store);
    pthread_mutex_unlock(&store->mutex);
}

/* ---- statistics ---- */

/* The gap, and the segments that hold nothing and are not pinned. */
static uint64_t free_bytes(const struct store *store)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < store->segment_count; i++) {
        uint64_t base = store_segment_base(store, i);
        uint64_t end = store_segment_base(store, i + 1);
        if (store->segments[i].live == 0 && !store_segment_pinned(&store->segments[i])) {
            sum += end - base;
            continue;
        }
        uint64_t from = store->gap > base ? store->gap : base;
        uint64_t to = store->gap_end < end ? store->gap_end : end;
        sum += to > from ? to - from : 0;
    }
    return sum;
}

void store_stats(struct store *store, struct store_stats *stats)
{
    pthread_mutex_lock(&store->mutex);
    uint64_t unused = free_bytes(store);
    *stats = (struct store_stats){
        .items = store->items,
        .bytes_live = store->live,
        .bytes_dead = store->arena_size - store->live - unused,
        .bytes_free = unused,
        .bytes_index = (store->bucket_mask + 1) * sizeof(store->buckets[0]),
        .bytes_limit = store->config.memory_bytes,
        .hits = store->hits,
        .misses = store->misses,
        .puts = store->puts,
        .deletes = store->deletes,
        .evictions = store->evictions,
        .expirations = store->expirations,
        .refusals = store->refusals,
        .pinned = store->pinned,
    };
    pthread_mutex_unlock(&store->mutex);
}
