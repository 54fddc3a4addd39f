/* SPDX-License-Identifier: MIT */
/*
 * The store under pressure: views and pins that stand in the way, eviction, refusal, flush. What each
 * operation answers otherwise is in test_store.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#define BUFFER_BYTES ((size_t)4 << 20)

#if defined(CRAB_YIELD) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define HOT_MEMORY ((size_t)8 << 20)
#else
#define HOT_MEMORY ((size_t)256 << 20)
#endif

struct fixture {
    struct store_clock clock;
    struct store *store;
    struct store_worker *worker;
    uint8_t *buffer;
};

static void start(struct fixture *f, size_t memory, enum store_eviction eviction)
{
    f->clock.now_ms = 1000;
    f->buffer = malloc(BUFFER_BYTES);
    assert_non_null(f->buffer);
    struct store_config config = {.memory_bytes = memory,
                                  .eviction = eviction,
                                  .max_workers = 2,
                                  .now_ms = store_clock_now,
                                  .now_context = &f->clock};
    assert_int_equal(store_create(&config, &f->store), 0);
    assert_int_equal(store_worker_attach(f->store, &f->worker), 0);
}

static void inspect(struct fixture *f)
{
    const char *wrong = store_inspect(f->store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

static void stop(struct fixture *f)
{
    inspect(f);
    store_quiesce(f->worker);
    inspect(f);
    store_worker_detach(f->worker);
    store_destroy(f->store);
    free(f->buffer);
}

static struct store_key key_of(const struct fixture *f, const uint64_t *id)
{
    return store_key(f->store, (const uint8_t *)id, sizeof(*id));
}

/* Puts an item whose bytes follow from its number. */
static enum store_result put(struct fixture *f, uint64_t id, size_t len, uint64_t ttl_ms)
{
    struct store_key key = key_of(f, &id);
    struct store_put_args args = {.value = f->buffer, .value_len = len, .ttl_ms = ttl_ms};
    assert_true(len <= BUFFER_BYTES);
    store_fill(f->buffer, len, id);
    return store_put(f->worker, &key, &args, NULL);
}

static enum store_result get(struct fixture *f, uint64_t id, struct store_view *view)
{
    struct store_key key = key_of(f, &id);
    return store_get(f->worker, &key, view);
}

static bool found(struct fixture *f, uint64_t id, size_t len)
{
    struct store_view view;
    if (get(f, id, &view) != STORE_OK)
        return false;
    assert_int_equal(view.value_len, len);
    assert_true(store_filled(view.value, len, id));
    return true;
}

static struct store_stats stats_of(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->store, &stats);
    return stats;
}

/* ---- views and pins ---- */

static void test_a_view_outlives_its_item(void **state)
{
    (void)state;
    struct fixture f;
    struct store_view deleted, replaced, flushed;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    uint64_t one = 1;
    struct store_key key = key_of(&f, &one);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(put(&f, id, 20000, STORE_NEVER), STORE_OK);
    assert_int_equal(get(&f, 1, &deleted), STORE_OK);
    assert_int_equal(get(&f, 2, &replaced), STORE_OK);
    assert_int_equal(get(&f, 3, &flushed), STORE_OK);
    assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    assert_int_equal(put(&f, 2, 100, STORE_NEVER), STORE_OK);
    store_flush(f.worker);
    inspect(&f);
    /* Nothing is reused while the views last: it may be refused, but the views stay. */
    uint64_t id = 10;
    while (id < 1000 && put(&f, id, 20000, STORE_NEVER) == STORE_OK)
        id++;
    assert_true(id > 40 && id < 1000);
    assert_true(store_filled(deleted.value, 20000, 1));
    assert_true(store_filled(replaced.value, 20000, 2));
    assert_true(store_filled(flushed.value, 20000, 3));
    store_quiesce(f.worker);
    for (id = 10; id < 1000; id++)
        assert_int_equal(put(&f, id, 20000, STORE_NEVER), STORE_OK);
    assert_true(stats_of(&f).evictions > 0);
    stop(&f);
}

static void check_views_in_the_way(enum store_eviction eviction)
{
    struct fixture f;
    struct store_view view;
    start(&f, STORE_MIN_MEMORY, eviction);
    size_t len = 50000;
    uint64_t count = 0;
    while (put(&f, count, len, STORE_NEVER) == STORE_OK && stats_of(&f).evictions == 0)
        count++;
    assert_true(count > 20);
    for (uint64_t id = 0; id <= count; id++)
        (void)get(&f, id, &view);
    /* All is held: whatever can't be placed is refused, and what stands is not lost. */
    uint64_t id = 0;
    while (id < count && put(&f, id, len, STORE_NEVER) != STORE_NO_MEMORY)
        id++;
    assert_true(id < count);
    assert_true(stats_of(&f).refusals > 0);
    assert_true(found(&f, id, len) || eviction == STORE_EVICT);
    inspect(&f);
    store_quiesce(f.worker);
    assert_int_equal(put(&f, id, len, STORE_NEVER), STORE_OK);
    assert_true(found(&f, id, len));
    stop(&f);
}

static void test_views_in_the_way(void **state)
{
    (void)state;
    check_views_in_the_way(STORE_EVICT);
    check_views_in_the_way(STORE_REFUSE);
}

static void test_pins_saturate(void **state)
{
    (void)state;
    struct fixture f;
    struct store_view view;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    assert_int_equal(put(&f, 1, 200000, STORE_NEVER), STORE_OK);
    assert_int_equal(get(&f, 1, &view), STORE_OK);
    for (unsigned i = 0; i < STORE_HELD_MAX; i++)
        assert_true(store_pin(f.worker, &view));
    assert_false(store_pin(f.worker, &view));
    store_unpin(f.worker, view.pin);
    assert_true(store_pin(f.worker, &view));
    store_quiesce(f.worker);
    assert_int_equal(stats_of(&f).pinned, STORE_HELD_MAX);
    struct store_key key = key_of(&f, &(uint64_t){1});
    assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    for (uint64_t id = 10; id < 500; id++)
        assert_int_equal(put(&f, id, 20000, STORE_NEVER), STORE_OK);
    assert_true(store_filled(view.value, 200000, 1));
    for (unsigned i = 0; i < STORE_HELD_MAX; i++)
        store_unpin(f.worker, view.pin);
    assert_int_equal(stats_of(&f).pinned, 0);
    for (uint64_t id = 10; id < 500; id++)
        assert_int_equal(put(&f, id, 20000, STORE_NEVER), STORE_OK);
    store_quiesce(f.worker);
    (void)store_tick(f.worker);
    assert_int_equal(f.store->large_retired.count, 0);
    stop(&f);
}

static void test_pins_leave_room_to_write(void **state)
{
    (void)state;
    struct fixture f;
    struct store_view views[100];
    unsigned pinned = 0;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    for (uint64_t id = 0; id < 100; id++) {
        assert_int_equal(put(&f, id, 60000, STORE_NEVER), STORE_OK);
        assert_int_equal(get(&f, id, &views[pinned]), STORE_OK);
        pinned += store_pin(f.worker, &views[pinned]);
        store_quiesce(f.worker);
    }
    assert_true(pinned > 5 && pinned < 20);
    for (uint64_t id = 1000; id < 2000; id++)
        assert_int_equal(put(&f, id, 60000, STORE_NEVER), STORE_OK);
    for (unsigned i = 0; i < pinned; i++)
        store_unpin(f.worker, views[i].pin);
    stop(&f);
}

/* ---- eviction and refusal ---- */

static void test_eviction_keeps_the_newest(void **state)
{
    (void)state;
    struct fixture f;
    const size_t lengths[] = {1, 100, 5000, 40000, 70000, 200000};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        start(&f, 3 * STORE_MIN_MEMORY, STORE_EVICT);
        uint64_t bytes = lengths[i] > f.store->item_max ? (lengths[i] + 4096) / 4096 * 4096 : 8 + lengths[i] + 4 + 14;
        uint64_t fit = f.store->limit / (bytes + 4), last = 3 * fit, there = 0;
        for (uint64_t id = 0; id <= last; id++)
            assert_int_equal(put(&f, id, lengths[i], STORE_NEVER), STORE_OK);
        /* As nothing was ever read, main has what filled the memory at first, and the small pool the newest. */
        for (uint64_t id = last; id > last - fit / 25; id--)
            assert_true(found(&f, id, lengths[i]));
        for (uint64_t id = 0; id <= last; id++)
            there += found(&f, id, lengths[i]);
        struct store_stats stats = stats_of(&f);
        assert_int_equal(there, stats.items);
        assert_true(there > fit * 2 / 3);
        assert_int_equal(stats.items + stats.evictions, last + 1);
        assert_int_equal(stats.refusals, 0);
        stop(&f);
    }
}

static void test_eviction_prefers_dead_space(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * STORE_MIN_MEMORY, STORE_EVICT);
    /* A third of the memory in items that stay; the rest is written again and again. */
    for (uint64_t id = 0; id < 2500; id++)
        assert_int_equal(put(&f, id, 1000, STORE_NEVER), STORE_OK);
    for (unsigned i = 0; i < 40000; i++)
        assert_int_equal(put(&f, 100000 + i % 100, 1000, STORE_NEVER), STORE_OK);
    assert_int_equal(stats_of(&f).evictions, 0);
    for (uint64_t id = 0; id < 2500; id++)
        assert_true(found(&f, id, 1000));
    stop(&f);
}

/* The page of a large item. */
static uint64_t page_of(struct fixture *f, uint64_t id)
{
    struct store_key key = key_of(f, &id);
    uint64_t *slot, value = store_index_get(f->store, &key, &slot);
    assert_true(value != 0 && store_is_large(f->store, store_slot_location(value)));
    return store_page_of(f->store, store_slot_location(value));
}

static void take_pages(struct fixture *f, uint64_t from, uint64_t to, bool taken)
{
    for (uint64_t page = from; page < to; page++) {
        uint64_t *word = &f->store->page_map[page / 64], bit = (uint64_t)1 << page % 64;
        *word = taken ? *word | bit : *word & ~bit;
    }
}

#define SURVIVOR 1000U
#define SURVIVOR_BYTES 20000U

/*
 * Large items that were read, a little too close to each other for a run of pages to fit between them, as if what stood
 * between them had come and gone. Answers how many.
 */
static uint64_t scatter_survivors(struct fixture *f, uint64_t run)
{
    struct store_view view;
    uint64_t end = f->store->large_pages, count = 0;
    for (uint64_t id = 100000; id < 101500; id++) /* Nothing is wrong with these. */
        assert_int_equal(put(f, id, 500, STORE_NEVER), STORE_OK);
    for (uint64_t at = 0; at + run < end; count++) {
        assert_int_equal(put(f, SURVIVOR + count, SURVIVOR_BYTES, STORE_NEVER), STORE_OK);
        at = page_of(f, SURVIVOR + count);
        take_pages(f, 0, at + run - 1, true);
    }
    take_pages(f, 0, end, false);
    for (uint64_t id = SURVIVOR; id < SURVIVOR + count; id++) {
        take_pages(f, page_of(f, id), page_of(f, id) + store_large_pages(SURVIVOR_BYTES + 40), true);
        for (unsigned hits = 0; hits < 3; hits++)
            assert_int_equal(get(f, id, &view), STORE_OK);
    }
    store_quiesce(f->worker);
    return count;
}

static void test_a_very_large_item_finds_its_run(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * STORE_MIN_MEMORY, STORE_EVICT);
    size_t largest = store_max_value(f.store, 8);
    assert_true(scatter_survivors(&f, store_large_pages(largest)) >= 6);
    assert_int_equal(put(&f, 1, largest, STORE_NEVER), STORE_OK);
    assert_true(found(&f, 1, largest));
    struct store_stats stats = stats_of(&f);
    assert_in_range(stats.evictions, 1, 2);
    assert_int_equal(stats.refusals, 0);
    stop(&f);
}

/* What is pinned would stay where it is: it is not evicted in vain, and a run is made elsewhere. */
static void test_a_very_large_item_finds_a_run_past_pins(void **state)
{
    (void)state;
    struct fixture f;
    struct store_view views[7];
    start(&f, 4 * STORE_MIN_MEMORY, STORE_EVICT);
    size_t largest = store_max_value(f.store, 8);
    uint64_t count = scatter_survivors(&f, store_large_pages(largest));
    uint64_t pinned = count - 1 < 7 ? count - 1 : 7;
    for (uint64_t i = 0; i < pinned; i++) {
        assert_int_equal(get(&f, SURVIVOR + i, &views[i]), STORE_OK);
        assert_true(store_pin(f.worker, &views[i]));
    }
    store_quiesce(f.worker);
    assert_int_equal(put(&f, 1, largest, STORE_NEVER), STORE_OK);
    assert_true(found(&f, 1, largest));
    for (uint64_t i = 0; i < pinned; i++) {
        assert_true(found(&f, SURVIVOR + i, SURVIVOR_BYTES));
        store_unpin(f.worker, views[i].pin);
    }
    assert_in_range(stats_of(&f).evictions, 1, 2);
    stop(&f);
}

/* Bytes of the store that the kernel has given pages for. */
static uint64_t resident(const struct store *store)
{
    uint64_t pages = store->mapped / STORE_PAGE, count = 0;
    unsigned char *seen = malloc(pages);
    assert_non_null(seen);
    assert_int_equal(mincore(store->base, pages * STORE_PAGE, seen), 0);
    for (uint64_t i = 0; i < pages; i++)
        count += seen[i] & 1;
    free(seen);
    return count * STORE_PAGE;
}

/* Nothing is resident that is not charged. */
static void check_overwritten_large_items(enum store_eviction eviction)
{
    struct fixture f;
    uint64_t random = 1;
    start(&f, 8 * STORE_MIN_MEMORY, eviction);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t id = store_random(&random) % 12;
        size_t len = 20000 + store_random(&random) % (i % 100 < 50 ? 100000 : 2500000);
        enum store_result result = put(&f, id, len, STORE_NEVER);
        assert_true(result == STORE_OK || eviction == STORE_REFUSE);
        store_quiesce(f.worker);
        if (i % 20 == 0)
            assert_in_range(resident(f.store), 1, f.store->committed);
    }
    assert_true(f.store->committed <= f.store->limit);
    stop(&f);
}

static void test_a_stream_that_is_given_up_is_not_resident(void **state)
{
    (void)state;
    struct fixture f;
    struct store_stream stream;
    start(&f, 8 * STORE_MIN_MEMORY, STORE_EVICT);
    uint64_t one = 1, before = resident(f.store);
    struct store_key key = key_of(&f, &one);
    struct store_put_args args = {.value_len = 2000000, .ttl_ms = STORE_NEVER};
    assert_true(store_stream_begin(f.worker, &key, &args, &stream));
    store_fill(stream.value, stream.value_len, 1);
    assert_in_range(resident(f.store), before + stream.value_len, f.store->committed);
    store_stream_drop(f.worker, &stream);
    assert_in_range(resident(f.store), 1, f.store->committed);
    stop(&f);
}

static void test_overwritten_large_items_are_not_resident(void **state)
{
    (void)state;
    check_overwritten_large_items(STORE_EVICT);
    check_overwritten_large_items(STORE_REFUSE);
}

/* What is free but resident is used again, and counts as free meanwhile. */
static void test_pages_are_used_again(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 16 * STORE_MIN_MEMORY, STORE_EVICT);
    uint64_t free = stats_of(&f).bytes_free;
    uint32_t available = f.store->available;
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(put(&f, i % 3, 1000000, STORE_NEVER), STORE_OK);
        store_quiesce(f.worker);
        if (i > 3)
            assert_in_range(f.store->large_bytes + f.store->idle_bytes, 4 * 1000000, 4 * 1020000);
    }
    uint64_t before = resident(f.store);
    for (uint64_t id = 0; id < 3; id++) {
        struct store_key key = key_of(&f, &id);
        assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    }
    store_quiesce(f.worker);
    (void)store_reclaim(f.store);
    assert_int_equal(f.store->large_bytes, 0);
    assert_int_equal(stats_of(&f).bytes_free, free);
    assert_int_equal(f.store->available, available);
    assert_int_equal(put(&f, 1, 3000000, STORE_NEVER), STORE_OK);
    assert_in_range(resident(f.store), 1, before + STORE_PAGE);
    stop(&f);
}

/* Idle pages are those of others as soon as they need them: segments, */
static void test_idle_pages_make_room_for_segments(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * STORE_MIN_MEMORY, STORE_EVICT);
    uint64_t one = 1;
    struct store_key key = key_of(&f, &one);
    size_t len = store_max_value(f.store, 8);
    assert_int_equal(put(&f, 1, len, STORE_NEVER), STORE_OK);
    assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    store_quiesce(f.worker);
    (void)store_reclaim(f.store);
    assert_in_range(f.store->idle_bytes, len, f.store->limit);
    for (uint64_t id = 10; stats_of(&f).evictions == 0; id++)
        assert_int_equal(put(&f, id, 5000, STORE_NEVER), STORE_OK);
    assert_in_range(f.store->idle_bytes, 0, ((uint64_t)f.store->reserve + 1) << f.store->segment_shift);
    assert_in_range(resident(f.store), f.store->limit / 2, f.store->committed);
    stop(&f);
}

/* and large items elsewhere. */
static void test_idle_pages_make_room_for_larger_items(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * STORE_MIN_MEMORY, STORE_EVICT);
    size_t largest = store_max_value(f.store, 8);
    for (uint64_t id = 0; id < 100; id++)
        assert_int_equal(put(&f, id, 65000, STORE_NEVER), STORE_OK);
    for (uint64_t id = 0; id < 100; id += 2) {
        struct store_key key = key_of(&f, &id);
        assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    }
    store_quiesce(f.worker);
    (void)store_reclaim(f.store);
    assert_in_range(f.store->idle_bytes, 50 * 65000, f.store->limit);
    assert_int_equal(put(&f, 1000, largest, STORE_NEVER), STORE_OK);
    assert_true(found(&f, 1000, largest));
    assert_int_equal(stats_of(&f).refusals, 0);
    assert_in_range(resident(f.store), 1, f.store->committed);
    stop(&f);
}

static void test_idle_pages_go_back_in_slices(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 16 * STORE_MIN_MEMORY, STORE_REFUSE);
    uint64_t one = 1;
    struct store_key key = key_of(&f, &one);
    assert_int_equal(put(&f, 1, 4000000, STORE_NEVER), STORE_OK);
    assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    store_quiesce(f.worker);
    (void)store_tick(f.worker);
    uint64_t last = f.store->idle_bytes, before = resident(f.store);
    assert_in_range(last, 4000000, 4010000);
    f.clock.now_ms += 999;
    assert_false(store_tick(f.worker)); /* It may be wanted again. */
    f.clock.now_ms += 1;
    assert_false(store_tick(f.worker)); /* It was there all the time since then? That is known in a second. */
    f.clock.now_ms += 1000;
    unsigned calls = 0;
    for (bool more = true; more; calls++) {
        more = store_tick(f.worker);
        assert_true(f.store->idle_bytes < last && last - f.store->idle_bytes <= (uint64_t)2 << 20);
        last = f.store->idle_bytes;
        inspect(&f);
    }
    assert_int_equal(calls, 2);
    assert_int_equal(f.store->idle_bytes, 0);
    assert_in_range(resident(f.store), 1, before - 4000000 + 16 * STORE_PAGE); /* What is touched by looking. */
    stop(&f);
}

static void test_budget_given_back_can_be_had_at_once(void **state)
{
    (void)state;
    struct fixture f;
    struct store_place place;
    start(&f, STORE_MIN_MEMORY, STORE_REFUSE);
    uint32_t available = f.store->available;
    memset(f.store->page_map, 0xff, f.store->large_pages / 8);
    assert_false(store_large_place(f.store, 300000, &place));
    assert_int_equal(f.store->available, available);
    memset(f.store->page_map, 0, f.store->large_pages / 8);
    assert_true(store_large_place(f.store, 300000, &place));
    assert_true(f.store->available < available);
    store_large_drop(f.store, place.page);
    assert_int_equal(f.store->available, available);
    stop(&f);
}

static void test_refuse_fills_and_overwrites(void **state)
{
    (void)state;
    struct fixture f;
    const size_t lengths[] = {0, 100, 3000, 40000, 65536, 100000, 150000, 400000};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        size_t len = lengths[i];
        start(&f, STORE_MIN_MEMORY, STORE_REFUSE);
        uint64_t count = 0, random = 3;
        while (put(&f, count, len, STORE_NEVER) == STORE_OK)
            count++;
        /* Most bytes are used, even in so small a store, whatever the sizes. */
        uint64_t size = len + 8 + 4 + 10;
        assert_true(count >= f.store->limit * (len < 3000 ? 11 : 8) / 20 / size);
        for (unsigned n = 0; n < 3000; n++)
            assert_int_equal(put(&f, store_random(&random) % count, len, STORE_NEVER), STORE_OK);
        for (uint64_t id = 0; id < count; id++)
            assert_true(found(&f, id, len));
        assert_int_equal(stats_of(&f).items, count);
        assert_int_equal(stats_of(&f).evictions, 0);
        assert_int_equal(stats_of(&f).refusals, 1);
        stop(&f);
    }
}

static void test_refuse_takes_expired_items_for_dead(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_REFUSE);
    for (unsigned round = 0; round < 3; round++) {
        uint64_t count = 0;
        while (put(&f, round * 100000 + count, 500, 100) == STORE_OK)
            count++;
        assert_true(count > 2300);
        f.clock.now_ms += 99;
        assert_int_equal(put(&f, UINT64_MAX, 500, 100), STORE_NO_MEMORY);
        f.clock.now_ms++;
    }
    assert_int_equal(put(&f, UINT64_MAX, 600000, 100), STORE_OK);
    stop(&f);
}

static void test_flush_frees_everything(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_REFUSE);
    for (unsigned round = 0; round < 3; round++) {
        uint64_t count = 0;
        while (put(&f, count, 700, STORE_NEVER) == STORE_OK)
            count++;
        store_flush(f.worker);
        inspect(&f);
        struct store_stats stats = stats_of(&f);
        assert_int_equal(stats.items, 0);
        assert_int_equal(stats.bytes_live, 0);
        assert_false(found(&f, 0, 700));
        assert_int_equal(put(&f, 1, 600000, STORE_NEVER), STORE_OK);
        assert_true(found(&f, 1, 600000));
        store_quiesce(f.worker);
        store_flush(f.worker);
        for (unsigned ticks = 0; store_tick(f.worker); ticks++)
            assert_true(ticks < 1000);
        store_quiesce(f.worker);
        (void)store_tick(f.worker);
        stats = stats_of(&f);
        assert_int_equal(stats.bytes_dead, 0);
        assert_int_equal(stats.bytes_free + stats.bytes_index + stats.bytes_fixed, stats.bytes_limit);
    }
    stop(&f);
}

/* Everything has been read and would be spared: a large put takes its room all the same, at the first try. */
static void test_a_large_item_among_hot_ones(void **state)
{
    (void)state;
    struct fixture f;
    size_t memory = HOT_MEMORY, len = memory / 4;
    start(&f, memory, STORE_EVICT);
    uint64_t count = memory / 84;
    for (uint64_t id = 1; id <= count; id++)
        assert_int_equal(put(&f, id, 60, STORE_NEVER), STORE_OK);
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t id = 1; id <= count; id++) {
            struct store_view view;
            (void)get(&f, id, &view);
            store_quiesce(f.worker);
        }
    }
    uint64_t large = count + 1;
    struct store_key key = key_of(&f, &large);
    uint8_t *value = calloc(1, len);
    assert_non_null(value);
    struct store_put_args args = {.value = value, .value_len = len, .ttl_ms = STORE_NEVER};
    assert_int_equal(store_put(f.worker, &key, &args, NULL), STORE_OK);
    free(value);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_view_outlives_its_item),
        cmocka_unit_test(test_views_in_the_way),
        cmocka_unit_test(test_pins_saturate),
        cmocka_unit_test(test_pins_leave_room_to_write),
        cmocka_unit_test(test_eviction_keeps_the_newest),
        cmocka_unit_test(test_eviction_prefers_dead_space),
        cmocka_unit_test(test_a_very_large_item_finds_its_run),
        cmocka_unit_test(test_a_very_large_item_finds_a_run_past_pins),
        cmocka_unit_test(test_overwritten_large_items_are_not_resident),
        cmocka_unit_test(test_a_stream_that_is_given_up_is_not_resident),
        cmocka_unit_test(test_pages_are_used_again),
        cmocka_unit_test(test_idle_pages_make_room_for_segments),
        cmocka_unit_test(test_idle_pages_make_room_for_larger_items),
        cmocka_unit_test(test_idle_pages_go_back_in_slices),
        cmocka_unit_test(test_budget_given_back_can_be_had_at_once),
        cmocka_unit_test(test_refuse_fills_and_overwrites),
        cmocka_unit_test(test_refuse_takes_expired_items_for_dead),
        cmocka_unit_test(test_flush_frees_everything),
        cmocka_unit_test(test_a_large_item_among_hot_ones),
    };
    return cmocka_run_group_tests_name("store_memory", tests, NULL, NULL);
}
