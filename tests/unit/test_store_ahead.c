/* SPDX-License-Identifier: MIT */
/*
 * Memory that is touched ahead of those who write: that it is there before it is needed, that it counts for the limit, and
 * that nobody else goes without because of it. Which pages are resident is asked of the kernel.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#define MEMORY      ((size_t)32 << 20)
#define VALUE       1000U
#define LARGE       100000U
#define WAIT_US     1000U
#define WAITS       20000U /* 20 s, on the slowest machine. */
#define RACE_ROUNDS 3000U

struct fixture {
    struct store *store;
    struct store_worker *worker;
    pthread_t thread;
    bool with_thread;
};

static void *run_ahead(void *store)
{
    store_ahead_run(store);
    return NULL;
}

static void start(struct fixture *f, size_t memory, enum store_eviction eviction, bool with_thread)
{
    struct store_config config = {.memory_bytes = memory, .eviction = eviction, .max_workers = 4};
    assert_int_equal(store_create(&config, &f->store), 0);
    assert_int_equal(store_worker_attach(f->store, &f->worker), 0);
    f->with_thread = with_thread;
    if (with_thread)
        assert_int_equal(pthread_create(&f->thread, NULL, run_ahead, f->store), 0);
}

/* Pages of [from, from + bytes) that the kernel has found. */
static uint64_t resident(const struct store *store, uint64_t from, uint64_t bytes)
{
    uint64_t pages = bytes / STORE_PAGE, count = 0;
    unsigned char *seen = malloc(pages);
    assert_non_null(seen);
    assert_int_equal(mincore(store_at(store, from), bytes, seen), 0);
    for (uint64_t i = 0; i < pages; i++)
        count += seen[i] & 1;
    free(seen);
    return count * STORE_PAGE;
}

static void stop_thread(struct fixture *f)
{
    if (!f->with_thread)
        return;
    store_ahead_stop(f->store);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    f->with_thread = false;
}

static void stop(struct fixture *f)
{
    stop_thread(f);
    store_quiesce(f->worker);
    const char *wrong = store_inspect(f->store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    assert_true(f->store->committed <= f->store->limit);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
    /* Without huge pages, nothing is resident that was not charged. */
    if (f->store->limit < (size_t)128 << 20)
        assert_in_range(resident(f->store, 0, f->store->mapped), 1, f->store->committed);
#endif
    store_worker_detach(f->worker);
    store_destroy(f->store);
}

static enum store_result put(struct store_worker *worker, uint64_t id, size_t len)
{
    static const uint8_t value[LARGE];
    struct store_key key = store_key(worker->store, (const uint8_t *)&id, sizeof id);
    struct store_put_args args = {.value = value, .value_len = len, .ttl_ms = STORE_NEVER};
    enum store_result result = store_put(worker, &key, &args, NULL);
    store_quiesce(worker);
    return result;
}

/* Waits until the thread has nothing to do. Answers false if the kernel cannot touch ahead. */
static bool settle(struct fixture *f)
{
    for (unsigned i = 0; i < WAITS; i++) {
        pthread_mutex_lock(&f->store->mutex);
        bool due = store_ahead_wanted(f->store);
        uint64_t ahead = f->store->ahead;
        pthread_mutex_unlock(&f->store->mutex);
        if (ahead == 0)
            return false;
        if (!due)
            return true;
        usleep(WAIT_US);
    }
    fail_msg("the thread does nothing");
    return false;
}

static void test_free_segments_are_there_before_they_are_needed(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, MEMORY * 8, STORE_EVICT, true);
    for (uint64_t id = 0, in_use = 0; in_use < 8; id++) {
        assert_int_equal(put(f.worker, id, VALUE), STORE_OK);
        if (!settle(&f)) {
            print_message("this kernel cannot touch memory ahead\n");
            break;
        }
        in_use = store_peek(&f.store->fresh) - f.store->free.count;
    }
    stop_thread(&f);
    uint32_t count = 0, size = store_segment_bytes(f.store);
    for (uint32_t i = f.store->free.head; i != STORE_NONE; i = f.store->segments[i].next, count++)
        assert_int_equal(resident(f.store, store_segment_location(f.store, i), size), size);
    assert_in_range((uint64_t)count * size, f.store->ahead == 0 ? 0 : 1, f.store->ahead);
    stop(&f);
}

static void test_the_index_is_there_before_it_is_needed(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, MEMORY * 8, STORE_EVICT, true);
    uint64_t most = 0;
    for (uint64_t id = 0; id < 400000; id++) {
        assert_int_equal(put(f.worker, id, 1), STORE_OK);
        if (id % 1000 != 0 || !settle(&f))
            continue;
        uint64_t charged = f.store->bucket_charged * sizeof(struct store_bucket);
        uint64_t at = (uint64_t)((uint8_t *)f.store->buckets - f.store->base), goal = f.store->ahead_touched[0];
        assert_in_range(goal, charged + ((uint64_t)1 << 20), charged + ((uint64_t)3 << 20));
        assert_int_equal(resident(f.store, at, goal), goal);
        most = goal;
    }
    assert_true(most > (uint64_t)4 << 20 || f.store->ahead == 0);
    assert_int_equal(f.store->ahead_touched[1], 0); /* Of small pages. */
    stop(&f);
}

/* How many items fit before one is refused. */
static uint64_t capacity(size_t len, bool with_thread)
{
    struct fixture f;
    uint64_t count = 0;
    start(&f, MEMORY, STORE_REFUSE, with_thread);
    while (put(f.worker, count, len) == STORE_OK) {
        if (with_thread && count % 200 == 0)
            (void)settle(&f);
        count++;
    }
    stop(&f);
    return count;
}

static void test_nobody_goes_without(void **state)
{
    (void)state;
    const size_t lengths[] = {1, VALUE, LARGE};
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint64_t without = capacity(lengths[i], false), with = capacity(lengths[i], true);
        uint64_t spread = without / 100 + 1; /* Each store has its own hashes, and so its own overflow buckets. */
        assert_in_range(with, without - spread, without + spread);
    }
}

/* The budget of segments that are just being touched goes to somebody else: then they are not resident in the end. */
static void test_what_was_given_back_meanwhile(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t first, count, size;
    start(&f, MEMORY, STORE_EVICT, false);
    size = store_segment_bytes(f.store);
    count = store_ahead_begin(f.store, &first);
    assert_int_equal(count, f.store->ahead / size);
    assert_int_equal(f.store->free.count, count);
    uint64_t rest = f.store->limit - f.store->committed + size;
    assert_true(store_budget_take(f.store, rest, 0));
    assert_in_range(f.store->unused.count, 1, count - 1);
    if (store_ahead_end(f.store, first, count)) {
        uint64_t there = resident(f.store, store_segment_location(f.store, first), (uint64_t)count * size);
        assert_int_equal(there, (uint64_t)f.store->free.count * size);
    }
    pthread_mutex_lock(&f.store->mutex);
    f.store->committed -= rest;
    store_update_available(f.store);
    pthread_mutex_unlock(&f.store->mutex);
    stop(&f);
}

/* What was touched for segments is given back when large items need the bytes. */
static void test_large_items_get_the_memory(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, MEMORY, STORE_EVICT, true);
    assert_int_equal(put(f.worker, 0, VALUE), STORE_OK);
    (void)settle(&f);
    for (uint64_t id = 1; id < 1000; id++)
        assert_int_equal(put(f.worker, id, LARGE), STORE_OK);
    stop_thread(&f);
    assert_in_range(f.store->large_bytes, MEMORY / 4 * 3, MEMORY);
    stop(&f);
}

static void test_a_store_that_is_full_leaves_nothing_to_do(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, MEMORY, STORE_EVICT, true);
    for (uint64_t id = 0; id < 3 * MEMORY / VALUE; id++)
        assert_int_equal(put(f.worker, id, VALUE), STORE_OK);
    pthread_mutex_lock(&f.store->mutex);
    assert_false(store_ahead_due(f.store));
    pthread_mutex_unlock(&f.store->mutex);
    stop(&f);
}

static void test_stop_may_come_first(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, MEMORY, STORE_EVICT, false);
    store_ahead_stop(f.store);
    store_ahead_run(f.store);
    assert_int_equal(f.store->free.count, 0);
    stop(&f);
}

/* A store of two megabytes has nothing to spare. */
static void test_the_smallest_store_does_without(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT, true);
    for (uint64_t id = 0; id < 5000; id++)
        assert_int_equal(put(f.worker, id, VALUE), STORE_OK);
    stop(&f);
}

struct writer {
    pthread_t thread;
    struct store *store;
    uint64_t random;
};

/* Small and large in turn, so that segments are given back while they are being touched. */
static void *write_all_sizes(void *argument)
{
    struct writer *w = argument;
    struct store_worker *worker;
    if (store_worker_attach(w->store, &worker) != 0)
        return NULL;
    for (unsigned i = 0; i < RACE_ROUNDS * store_test_scale(); i++) {
        uint64_t random = store_random(&w->random);
        if (random % 1000 == 0)
            store_flush(worker);
        (void)put(worker, random % 4096, i / 200 % 2 == 0 ? VALUE : LARGE);
        (void)store_tick(worker);
        store_quiesce(worker);
    }
    store_worker_detach(worker);
    return w;
}

static void test_writers_may_take_what_is_being_touched(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct fixture f;
        struct writer writers[2];
        start(&f, MEMORY, round % 2 == 0 ? STORE_EVICT : STORE_REFUSE, true);
        for (unsigned i = 0; i < 2; i++) {
            writers[i] = (struct writer){.store = f.store, .random = 2 * round + i};
            assert_int_equal(pthread_create(&writers[i].thread, NULL, write_all_sizes, &writers[i]), 0);
        }
        for (unsigned i = 0; i < 2; i++) {
            void *result;
            assert_int_equal(pthread_join(writers[i].thread, &result), 0);
            assert_ptr_equal(result, &writers[i]);
        }
        stop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_segments_are_there_before_they_are_needed),
        cmocka_unit_test(test_the_index_is_there_before_it_is_needed),
        cmocka_unit_test(test_nobody_goes_without),
        cmocka_unit_test(test_what_was_given_back_meanwhile),
        cmocka_unit_test(test_large_items_get_the_memory),
        cmocka_unit_test(test_a_store_that_is_full_leaves_nothing_to_do),
        cmocka_unit_test(test_stop_may_come_first),
        cmocka_unit_test(test_the_smallest_store_does_without),
        cmocka_unit_test(test_writers_may_take_what_is_being_touched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
