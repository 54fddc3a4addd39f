/* SPDX-License-Identifier: MIT */
/*
 * The order of eviction (server/store/store_evict.c): what stays, what goes, what is copied. Each test would fail
 * without the rule that it names; why the rules are as they are is in docs/decisions/0001-eviction.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/store/store_drain.h"
#include "tests/support/store_support.h"

#define BUFFER_BYTES ((size_t)4 << 20)

struct fixture {
    struct store_clock clock;
    struct store *store;
    struct store_worker *worker;
    uint8_t *buffer;
};

static void start(struct fixture *f, size_t memory, enum store_eviction eviction)
{
    f->clock.now_ms = 1000;
    f->buffer = calloc(1, BUFFER_BYTES);
    assert_non_null(f->buffer);
    struct store_config config = {.memory_bytes = memory,
                                  .eviction = eviction,
                                  .max_workers = 1,
                                  .now_ms = store_clock_now,
                                  .now_context = &f->clock};
    assert_int_equal(store_create(&config, &f->store), 0);
    assert_int_equal(store_worker_attach(f->store, &f->worker), 0);
}

static void stop(struct fixture *f)
{
    store_quiesce(f->worker);
    const char *wrong = store_inspect(f->store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    store_worker_detach(f->worker);
    store_destroy(f->store);
    free(f->buffer);
}

static struct store_key key_of(const struct fixture *f, const uint64_t *id)
{
    return store_key(f->store, (const uint8_t *)id, sizeof(*id));
}

static enum store_result try_put(struct fixture *f, uint64_t id, size_t len, uint64_t ttl_ms)
{
    struct store_key key = key_of(f, &id);
    struct store_put_args args = {
        .value = f->buffer, .value_len = len, .ttl_ms = ttl_ms, .version_unwanted = true};
    assert_true(len <= BUFFER_BYTES);
    enum store_result result = store_put(f->worker, &key, &args, NULL);
    store_quiesce(f->worker);
    return result;
}

static void put(struct fixture *f, uint64_t id, size_t len)
{
    assert_int_equal(try_put(f, id, len, STORE_NEVER), STORE_OK);
}

static bool get(struct fixture *f, uint64_t id)
{
    struct store_key key = key_of(f, &id);
    struct store_view view;
    bool found = store_get_value(f->worker, &key, &view) == STORE_OK;
    store_quiesce(f->worker);
    return found;
}

/* As get(), but without counting as a hit. */
static bool there(struct fixture *f, uint64_t id)
{
    struct store_key key = key_of(f, &id);
    return store_holds(f->store, &key);
}

static unsigned count_there(struct fixture *f, uint64_t from, uint64_t to)
{
    unsigned count = 0;
    for (uint64_t id = from; id < to; id++)
        count += there(f, id);
    return count;
}

static struct store_stats stats_of(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->store, &stats);
    return stats;
}

static uint64_t live_of(struct fixture *f, enum store_pool pool, uint64_t *all)
{
    uint64_t live[POOL_COUNT];
    *all = store_weigh_pools(f->store, live);
    return live[pool];
}

/* Puts new items of one size until something was evicted; answers the number that follows theirs. */
static uint64_t fill(struct fixture *f, uint64_t from, size_t len)
{
    uint64_t evictions = stats_of(f).evictions;
    for (unsigned i = 0;; i++) {
        put(f, from++, len);
        if (i % 64 == 0 && stats_of(f).evictions != evictions)
            return from;
    }
}

/* ---- the pools ---- */

static void test_what_was_read_survives_a_scan(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    const uint64_t hot = 10000;
    for (uint64_t id = 0; id < hot; id++)
        put(&f, id, 500);
    for (uint64_t id = 0; id < hot; id++)
        assert_true(get(&f, id));
    for (uint64_t id = 1000000; id < 1200000; id++)
        put(&f, id, 500);
    assert_true(count_there(&f, 0, hot) > hot * 99 / 100);
    /* And the scan has not even been copied. */
    assert_true(stats_of(&f).moved_bytes < hot * 600);
    stop(&f);
}

static void test_main_gets_whole_segments_while_the_memory_fills(void **state)
{
    (void)state;
    struct fixture f;
    uint64_t all, count;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    count = fill(&f, 0, 500);
    uint64_t main = live_of(&f, POOL_MAIN, &all);
    assert_true(main > all * 6 / 10 && main < all * 8 / 10);
    assert_int_equal(stats_of(&f).moved_bytes, 0);
    assert_true(there(&f, 0));
    assert_true(count_there(&f, 0, count) > count * 9 / 10);
    stop(&f);
}

static void test_kept_has_a_bound(void **state)
{
    (void)state;
    struct fixture f;
    uint64_t all, random = 1, most = 0;
    start(&f, (size_t)8 << 20, STORE_EVICT);
    /* As much is asked for as fits, and a bit more: all of it is hit again and again. */
    for (unsigned i = 0; i < 600000; i++) {
        uint64_t id = store_random(&random) % 30000;
        if (!get(&f, id))
            put(&f, id, 300);
        uint64_t kept = i % 1000 == 0 ? live_of(&f, POOL_KEPT, &all) : 0;
        if (i % 1000 == 0 && all != 0)
            most = kept * 100 / all > most ? kept * 100 / all : most;
    }
    assert_true(most > 40 && most < 78);
    stop(&f);
}

static void test_a_ghost_comes_back_to_stay(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    uint64_t next = fill(&f, 0, 500);
    /* The small pool turns over; what left it last is remembered. */
    uint64_t from = next;
    for (; next < from + 12000; next++)
        put(&f, next, 500);
    uint64_t back[1000], count = 0;
    for (uint64_t id = from; count < 1000 && id < next; id++) {
        if (!there(&f, id))
            back[count++] = id;
    }
    assert_int_equal(count, 1000);
    /* Among others: that all of them move is paid for. */
    for (unsigned i = 0; i < count; i++) {
        put(&f, back[i], 500);
        put(&f, next++, 500);
    }
    uint64_t hits = stats_of(&f).ghost_hits;
    assert_true(hits > 900);
    for (uint64_t end = next + 20000; next < end; next++)
        put(&f, next, 500);
    unsigned stayed = 0;
    for (unsigned i = 0; i < count; i++)
        stayed += there(&f, back[i]);
    assert_true(stayed > 900);
    stop(&f);
}

static void test_ghosts_are_as_many_as_suits_the_items(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    uint64_t next = 0, most = f.store->ghost_rows_max;
    for (; next < 20000; next++)
        put(&f, next, 8000);
    uint64_t items = stats_of(&f).items;
    assert_in_range(f.store->ghost_rows, items / 2 / 31 / 2, items / 2 / 31 * 2 + 1);
    for (uint64_t end = next + 500000; next < end; next++)
        put(&f, next, 60);
    items = stats_of(&f).items;
    assert_in_range(f.store->ghost_rows, most < items / 2 / 31 / 2 ? most : items / 2 / 31 / 2, most);
    stop(&f);
}

/* ---- size ---- */

static void test_small_items_stay_longer_than_large_ones(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    uint64_t next = fill(&f, 0, 1000);
    /* A twentieth of the bytes is small. All come once, and nothing is read. */
    unsigned little = 0, big = 0;
    uint64_t first = next;
    for (; next < first + 40000; next++)
        put(&f, next, next % 4 == 0 ? 100 : 1000);
    for (uint64_t id = first; id < first + 20000; id++) {
        little += id % 4 == 0 && there(&f, id);
        big += id % 4 == 1 && there(&f, id);
    }
    assert_true(little > 4500 && big < 500);
    stop(&f);
}

static void test_a_large_item_must_be_hit_more_often(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    uint64_t next = fill(&f, 0, 500);
    for (unsigned i = 0; i < 20; i++) {
        put(&f, 1000000 + i, 3000);
        put(&f, 2000000 + i, 3000);
        put(&f, 3000000 + i, 20000);
        put(&f, 4000000 + i, 20000);
        (void)get(&f, 1000000 + i);
        (void)get(&f, 3000000 + i);
        for (unsigned hits = 0; hits < 3; hits++) {
            (void)get(&f, 2000000 + i);
            (void)get(&f, 4000000 + i);
        }
    }
    for (uint64_t end = next + 20000; next < end; next++)
        put(&f, next, 500);
    assert_true(count_there(&f, 1000000, 1000020) < 5);
    assert_true(count_there(&f, 2000000, 2000020) > 15);
    assert_true(count_there(&f, 3000000, 3000020) < 5);
    assert_true(count_there(&f, 4000000, 4000020) > 15);
    stop(&f);
}

static void test_an_item_that_grew_is_on_trial_again(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    const uint64_t one = 20000, two = 20001;
    put(&f, one, 20000);
    put(&f, two, 20000);
    (void)fill(&f, 30000, 500);
    struct store_key keys[] = {key_of(&f, &one), key_of(&f, &two)};
    put(&f, one, 20000 * 7);
    put(&f, two, 20000 * 9);
    const enum store_pool pools[] = {POOL_MAIN, POOL_SMALL};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t *slot, value = store_index_get(f.store, &keys[i], &slot);
        assert_true(value != 0 && store_is_large(f.store, store_slot_location(value)));
        assert_int_equal(store_large_at(f.store, store_page_of(f.store, store_slot_location(value)))->pool, pools[i]);
    }
    stop(&f);
}

/* Asks for random items of a set of new ones that fits; answers the misses of the last tenth, in permille. */
static uint64_t settle_on(struct fixture *f, uint64_t first, size_t len, uint64_t *random)
{
    uint64_t items = f->store->limit * 6 / 10 / (len + 36), rounds = 60 * items, misses = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t id = first + store_random(random) % items;
        bool hit = get(f, id);
        if (!hit)
            put(f, id, len);
        misses += !hit && i >= rounds / 10 * 9;
    }
    return misses * 10000 / rounds;
}

static void test_shifts_of_size_do_not_calcify(void **state)
{
    (void)state;
    struct fixture f;
    const size_t lengths[] = {300, 6000, 300, 60000, 60, 1000};
    uint64_t random = 5;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        assert_in_range(settle_on(&f, (i + 1) * (uint64_t)1000000, lengths[i], &random), 0, 10);
    assert_int_equal(stats_of(&f).refusals, 0);
    stop(&f);
}

/* ---- copying ---- */

static void test_a_hot_segment_goes_round_whole(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    uint64_t hot = fill(&f, 0, 500);
    for (uint64_t id = 0; id < hot; id++)
        (void)get(&f, id);
    /* All is hot, and so is what comes: main and kept must give way, but nothing is worth copying there. */
    uint64_t next = 1000000;
    for (; next < 1010000; next++) {
        put(&f, next, 500);
        (void)get(&f, next);
    }
    struct store_stats stats = stats_of(&f);
    uint64_t all;
    assert_true(live_of(&f, POOL_KEPT, &all) > all / 10);
    assert_true(stats.moved_bytes < (next - 1000000 + hot / 3) * 550);
    stop(&f);
}

/* Large items that are all hot go round one by one: a write waits for some of them, and then one goes. */
static void test_hot_large_items_go_round_in_bounds(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)64 << 20, STORE_EVICT);
    uint64_t items = 1000, most = 0, len = 100000;
    for (uint64_t id = 0; id < items; id++)
        put(&f, id, len);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned hits = 0; hits < 3; hits++) {
            for (uint64_t id = 0; id < items; id++)
                (void)get(&f, id);
        }
        uint64_t orders = f.store->orders;
        put(&f, items++, len);
        most = f.store->orders - orders > most ? f.store->orders - orders : most;
    }
    assert_in_range(most, 32, 160); /* Without a bound, all of some 600. */
    stop(&f);
}

static void test_going_round_renews_the_earliest_expiry(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    for (uint64_t id = 0; stats_of(&f).evictions == 0; id++) {
        assert_int_equal(try_put(&f, id, 500, 100000 + id), STORE_OK);
        (void)get(&f, id);
        (void)get(&f, id);
    }
    /* As if sweeps had begun everywhere, and were cut short by what follows. */
    for (uint32_t i = 0; i < f.store->fresh; i++)
        f.store->segments[i].min_expiry = STORE_NEVER;
    for (uint64_t id = 1000000; id < 1010000; id++) {
        put(&f, id, 500);
        (void)get(&f, id);
    }
    uint32_t round = 0;
    for (uint32_t i = f.store->pool[POOL_KEPT].head; i != STORE_NONE; i = f.store->segments[i].next, round++)
        assert_true(f.store->segments[i].last_expiry == STORE_NO_EXPIRY || f.store->segments[i].min_expiry < 200000);
    assert_true(round > 10);
    for (uint32_t i = 0; i < f.store->fresh; i++)
        f.store->segments[i].min_expiry = 0;
    stop(&f);
}

static void test_copying_is_bounded_by_writing(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    uint64_t random = 7, written = 0;
    for (unsigned i = 0; i < 400000; i++) {
        uint64_t id = store_random(&random) % 40000;
        (void)get(&f, id);
        (void)get(&f, id);
        size_t len = 16 + store_random(&random) % 800;
        put(&f, id, len);
        written += len + 12;
    }
    struct store_stats stats = stats_of(&f);
    assert_true(stats.moved_bytes > written / 10);
    assert_true(stats.moved_bytes <= 3 * written + 8 * (uint64_t)store_segment_bytes(f.store));
    assert_int_equal(stats.refusals, 0);
    stop(&f);
}

static void test_the_unused_ends_of_segments_are_not_dead(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    /* Three of these and a small one leave nearly a quarter of each segment empty: no reason to copy anything else. */
    size_t size = store_segment_bytes(f.store), written = 0;
    for (uint64_t id = 0; id < 5000; id++) {
        size_t len = id % 4 == 3 ? size * 3 / 100 : size * 245 / 1000;
        put(&f, id, len);
        written += len;
    }
    assert_true(stats_of(&f).evictions > 3000);
    assert_true(stats_of(&f).moved_bytes < written / 15);
    stop(&f);
}

static void test_dead_space_goes_first(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    for (uint64_t id = 0; id < 20000; id++)
        put(&f, id, 500);
    /* A third of each segment dies: there is room enough for what comes. */
    for (uint64_t id = 0; id < 20000; id += 3) {
        struct store_key key = key_of(&f, &id);
        assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    }
    for (uint64_t id = 100000; id < 110000; id++)
        put(&f, id, 500);
    assert_int_equal(stats_of(&f).evictions, 0);
    stop(&f);
}

static void test_a_job_that_cannot_go_on_is_given_up(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)8 << 20, STORE_REFUSE);
    for (uint64_t id = 0; id < 3000; id++)
        put(&f, id, 1000);
    for (uint64_t id = 0; id < 3000; id += 2) {
        struct store_key key = key_of(&f, &id);
        assert_int_equal(store_delete(f.worker, &key), STORE_OK);
    }
    /* No segment is to be had to move to, not even one of the reserve. */
    uint64_t limit = f.store->limit;
    f.store->limit = f.store->committed;
    uint32_t segment = STORE_NONE;
    for (unsigned i = 0; i < 10; i++) {
        assert_true(store_evict_next(f.worker) > 0);
        assert_int_equal(f.store->job.kind, JOB_COMPACT);
        segment = f.store->job.segment;
        (void)store_drain_slice(f.worker, &f.store->job, STORE_SLICE);
        if (f.store->job.kind == JOB_NONE)
            break;
    }
    assert_int_equal(f.store->job.kind, JOB_NONE);
    assert_int_equal(f.store->segments[segment].state, SEGMENT_SEALED);
    f.store->limit = limit;
    assert_int_equal(count_there(&f, 0, 3000), 1500);
    for (uint64_t id = 5000; id < 8000; id++)
        put(&f, id, 1000);
    stop(&f);
}

/* ---- expiry ---- */

static void test_what_has_expired_goes_before_what_lives(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    for (uint64_t id = 0; id < 12000; id++)
        put(&f, id, 500);
    for (uint64_t id = 20000; id < 32000; id++)
        assert_int_equal(try_put(&f, id, 500, 10000), STORE_OK);
    f.clock.now_ms += 11001;
    /* Nobody ticks, and nobody reads: the segments themselves tell that they are over. */
    for (uint64_t id = 100000; id < 110000; id++)
        put(&f, id, 500);
    assert_int_equal(stats_of(&f).evictions, 0);
    assert_true(stats_of(&f).expirations > 4000);
    assert_int_equal(count_there(&f, 0, 12000), 12000);
    stop(&f);
}

static void test_a_renewed_item_outlives_its_segment(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)16 << 20, STORE_EVICT);
    for (uint64_t id = 20000; id < 32000; id++)
        assert_int_equal(try_put(&f, id, 500, 10000), STORE_OK);
    for (uint64_t id = 20000; id < 32000; id += 100) {
        struct store_key key = key_of(&f, &id);
        assert_int_equal(store_expire(f.worker, &key, id % 200 == 0 ? 1000000 : STORE_NEVER), STORE_OK);
        uint64_t *slot, value = store_index_get(f.store, &key, &slot);
        assert_true(f.store->segments[store_segment_of(f.store, store_slot_location(value))].last_expiry >= 1000);
    }
    f.clock.now_ms += 11001;
    for (uint64_t id = 100000; id < 115000; id++)
        put(&f, id, 500);
    for (uint64_t id = 20000; id < 32000; id += 100)
        assert_true(get(&f, id));
    stop(&f);
}

static void test_expiries_of_any_length(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)8 << 20, STORE_EVICT);
    const uint64_t ttls[] = {1, 4000, UINT32_MAX - 1, UINT32_MAX, (uint64_t)1 << 32, ((uint64_t)1 << 33) + 5,
                             ((uint64_t)1 << 34) - 1, (uint64_t)1 << 34, (uint64_t)1 << 40, ((uint64_t)1 << 53) - 1};
    const size_t count = sizeof(ttls) / sizeof(ttls[0]);
    /* Given at first, and changed from each to each: in small items, wide ones, and ones with pages of their own. */
    const size_t lengths[] = {0, 77, 70000, 300000};
    for (size_t n = 0; n < count * count * 4; n++) {
        size_t from = n % count, to = n / count % count, len = lengths[n / count / count];
        uint64_t id = 5;
        struct store_key key = key_of(&f, &id);
        struct store_view view;
        assert_int_equal(try_put(&f, id, len, ttls[from]), STORE_OK);
        assert_int_equal(store_get(f.worker, &key, &view), STORE_OK);
        assert_true(view.ttl_ms == ttls[from]);
        uint64_t version = view.version;
        assert_int_equal(store_expire(f.worker, &key, ttls[to]), STORE_OK);
        assert_int_equal(store_get(f.worker, &key, &view), STORE_OK);
        assert_true(view.ttl_ms == ttls[to] && view.value_len == len && view.version == version);
        assert_int_equal(store_touch(f.worker, &key, STORE_NEVER, &view), STORE_OK);
        assert_true(view.ttl_ms == STORE_NEVER && view.version == version);
        assert_int_equal(store_expire(f.worker, &key, ttls[to]), STORE_OK);
        f.clock.now_ms += ttls[to] < 100000 ? ttls[to] - 1 : 1;
        assert_int_equal(store_get(f.worker, &key, &view), STORE_OK);
        f.clock.now_ms += 1;
        assert_int_equal(store_get(f.worker, &key, &view), ttls[to] <= 4000 ? STORE_ABSENT : STORE_OK);
        store_quiesce(f.worker);
    }
    /* Where all of the lower bits are ones, which would mean never. */
    for (uint64_t high = 1; high <= 5; high++) {
        uint64_t ttl = (high << 32) - 1 - store_now(f.store), id = high;
        struct store_key key = key_of(&f, &id);
        struct store_view view;
        for (unsigned changed = 0; changed < 2; changed++) {
            assert_int_equal(try_put(&f, id, 10, changed != 0 ? ttl - 1 : ttl), STORE_OK);
            assert_int_equal(store_expire(f.worker, &key, ttl), STORE_OK);
            assert_int_equal(store_get(f.worker, &key, &view), STORE_OK);
            assert_true(view.ttl_ms == ttl);
        }
    }
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_read_survives_a_scan),
        cmocka_unit_test(test_main_gets_whole_segments_while_the_memory_fills),
        cmocka_unit_test(test_kept_has_a_bound),
        cmocka_unit_test(test_a_ghost_comes_back_to_stay),
        cmocka_unit_test(test_ghosts_are_as_many_as_suits_the_items),
        cmocka_unit_test(test_small_items_stay_longer_than_large_ones),
        cmocka_unit_test(test_a_large_item_must_be_hit_more_often),
        cmocka_unit_test(test_an_item_that_grew_is_on_trial_again),
        cmocka_unit_test(test_shifts_of_size_do_not_calcify),
        cmocka_unit_test(test_a_hot_segment_goes_round_whole),
        cmocka_unit_test(test_hot_large_items_go_round_in_bounds),
        cmocka_unit_test(test_going_round_renews_the_earliest_expiry),
        cmocka_unit_test(test_copying_is_bounded_by_writing),
        cmocka_unit_test(test_the_unused_ends_of_segments_are_not_dead),
        cmocka_unit_test(test_dead_space_goes_first),
        cmocka_unit_test(test_a_job_that_cannot_go_on_is_given_up),
        cmocka_unit_test(test_what_has_expired_goes_before_what_lives),
        cmocka_unit_test(test_a_renewed_item_outlives_its_segment),
        cmocka_unit_test(test_expiries_of_any_length),
    };
    return cmocka_run_group_tests_name("store_evict", tests, NULL, NULL);
}
