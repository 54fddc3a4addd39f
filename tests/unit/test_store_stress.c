/* SPDX-License-Identifier: MIT */
/*
 * The store under threads that get in each other's way on purpose: stable keys while the index grows and segments are
 * compacted, values that prove themselves while everything is evicted and expires, sizes that shift, sleeping workers.
 * Readers yield at random, so that they are caught at any step. CRAB_TEST_SCALE=N does N times as much.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#define STABLE  3000U
#define READERS 2U
#define WRITERS 2U

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define PUTS  30000U
#define SHIFT ((size_t)8 << 20)
#elif defined(CRAB_YIELD)
#define PUTS  6000U
#else
#define PUTS  400000U
#define SHIFT ((size_t)32 << 20)
#endif

struct team {
    struct store *store;
    size_t value_max;
    bool stable; /* Keys below STABLE must be found, always. */
    bool done;
};

struct member {
    pthread_t thread;
    struct team *team;
    struct store_worker *worker;
    uint64_t random;
    const char *wrong;
    uint64_t hits;
};

static struct store_key key_of(const struct store *store, const uint64_t *id)
{
    return store_key(store, (const uint8_t *)id, sizeof(*id));
}

/* The value of a key proves itself: a seed, then what follows from it and the key. */
static enum store_result put(struct member *m, uint64_t id, size_t len, uint64_t ttl_ms)
{
    static _Thread_local uint8_t bytes[100000];
    uint64_t seed = store_random(&m->random);
    memcpy(bytes, &seed, 8);
    store_fill(bytes + 8, len - 8, seed ^ id);
    struct store_key key = key_of(m->team->store, &id);
    struct store_put_args args = {.value = bytes, .value_len = len, .ttl_ms = ttl_ms, .version_unwanted = id % 2 == 0};
    return store_put(m->worker, &key, &args, NULL);
}

static bool proven(const struct store_view *view, uint64_t id)
{
    uint64_t seed;
    if (view->value_len < 8)
        return false;
    memcpy(&seed, view->value, 8);
    return store_filled(view->value + 8, view->value_len - 8, seed ^ id);
}

static void *read_on(void *argument)
{
    struct member *m = argument;
    while (!__atomic_load_n(&m->team->done, __ATOMIC_ACQUIRE) && m->wrong == NULL) {
        struct store_view view;
        uint64_t id = store_random(&m->random) % (m->team->stable ? STABLE : 50000);
        struct store_key key = key_of(m->team->store, &id);
        enum store_result result = id % 3 == 0 ? store_get_value(m->worker, &key, &view)
                                               : store_get(m->worker, &key, &view);
        if (result == STORE_OK) {
            m->hits++;
            if (store_random(&m->random) % 512 == 0)
                sched_yield();
            if (!proven(&view, id))
                m->wrong = "a wrong value";
        } else if (m->team->stable) {
            m->wrong = "a stable key was missed";
        }
        uint64_t what = store_random(&m->random) % 4096;
        if (what % 16 == 0)
            store_quiesce(m->worker);
        if (what == 0)
            usleep(200); /* Asleep, holding nothing or a view. */
    }
    store_quiesce(m->worker);
    return NULL;
}

static void *write_on(void *argument)
{
    struct member *m = argument;
    for (uint64_t i = 0; i < PUTS * store_test_scale() && m->wrong == NULL; i++) {
        uint64_t what = store_random(&m->random) % 64;
        uint64_t id = store_random(&m->random);
        if (m->team->stable) {
            /* Stable keys are overwritten, the others come and go; all in bounds of what fits. */
            id = what < 8 ? id % STABLE : STABLE + id % 60000;
        } else {
            id %= 50000;
        }
        struct store_key key = key_of(m->team->store, &id);
        if (what == 9 && id >= STABLE)
            (void)store_delete(m->worker, &key);
        size_t len = 8 + store_random(&m->random) % (what == 10 ? m->team->value_max : 64);
        uint64_t ttl = what == 11 && id >= STABLE ? 1 + i % 5 : STORE_NEVER;
        (void)put(m, id, len, ttl);
        if (what == 12)
            store_quiesce(m->worker);
        if (what == 13)
            (void)store_tick(m->worker);
        if (what == 14 && id >= STABLE)
            (void)store_expire(m->worker, &key, 3);
    }
    store_quiesce(m->worker);
    return NULL;
}

static void start(struct team *team, struct member *m, unsigned number)
{
    *m = (struct member){.team = team, .random = number + 1};
    assert_int_equal(store_worker_attach(team->store, &m->worker), 0);
}

static void run_team(struct team *team, enum store_eviction eviction, size_t memory)
{
    struct member members[READERS + WRITERS];
    struct store_config config = {.memory_bytes = memory, .eviction = eviction, .max_workers = READERS + WRITERS};
    assert_int_equal(store_create(&config, &team->store), 0);
    for (unsigned i = 0; i < READERS + WRITERS; i++)
        start(team, &members[i], i);
    for (uint64_t id = 0; team->stable && id < STABLE; id++)
        assert_int_equal(put(&members[0], id, 40, STORE_NEVER), STORE_OK);
    store_quiesce(members[0].worker);
    for (unsigned i = 0; i < READERS + WRITERS; i++)
        pthread_create(&members[i].thread, NULL, i < READERS ? read_on : write_on, &members[i]);
    for (unsigned i = READERS; i < READERS + WRITERS; i++)
        pthread_join(members[i].thread, NULL);
    __atomic_store_n(&team->done, true, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(members[i].thread, NULL);
    for (unsigned i = 0; i < READERS + WRITERS; i++) {
        if (members[i].wrong != NULL)
            fail_msg("%s", members[i].wrong);
        assert_true(i >= READERS || members[i].hits > 0);
    }
    const char *wrong = store_inspect(team->store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    for (unsigned i = 0; i < READERS + WRITERS; i++)
        store_worker_detach(members[i].worker);
    store_destroy(team->store);
}

static void test_stable_keys_are_never_missed(void **state)
{
    (void)state;
    struct team team = {.value_max = 3000, .stable = true};
    run_team(&team, STORE_REFUSE, (size_t)16 << 20); /* Grows from 512 buckets; compaction moves all the time. */
}

static void test_values_prove_themselves_under_eviction(void **state)
{
    (void)state;
    struct team team = {.value_max = 60000};
    run_team(&team, STORE_EVICT, (size_t)4 << 20);
    team = (struct team){.value_max = 60000};
    run_team(&team, STORE_EVICT, STORE_MIN_MEMORY);
}

/* ---- one thread ---- */

#ifndef CRAB_YIELD

static long resident_kib(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &pages, &resident), 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Small, large, small again: nothing calcifies, and the resident set stays in bounds. */
static void test_sizes_that_shift(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 20];
    static const size_t lengths[] = {20, 300, 40000, 1 << 20, 5000, 20, 100000, 20};
    struct store *store;
    struct store_worker *worker;
    struct store_config config = {.memory_bytes = SHIFT, .eviction = STORE_EVICT, .max_workers = 2};
    long before = resident_kib();
    assert_int_equal(store_create(&config, &store), 0);
    assert_int_equal(store_worker_attach(store, &worker), 0);
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (uint64_t id = 0; id < config.memory_bytes * 3 / (lengths[i] + 30); id++) {
            uint64_t name = id << 8 | i;
            struct store_key key = key_of(store, &name);
            struct store_put_args args = {.value = bytes, .value_len = lengths[i], .ttl_ms = STORE_NEVER};
            assert_int_equal(store_put(worker, &key, &args, NULL), STORE_OK);
        }
        struct store_stats stats;
        store_stats(store, &stats);
        const char *wrong = store_inspect(store);
        if (wrong != NULL)
            fail_msg("%s", wrong);
        /* In all but the smallest sizes, most of the memory is of this size by now. */
        assert_true(lengths[i] < 300 || stats.bytes_live > config.memory_bytes / 2);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
        assert_true(resident_kib() - before < (long)(config.memory_bytes / 1024) * 105 / 100 + 4096);
#endif
    }
    (void)before;
    store_worker_detach(worker);
    store_destroy(store);
}

static void test_the_largest_values(void **state)
{
    (void)state;
    size_t len = (size_t)64 << 20;
    uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    struct store *store;
    struct store_worker *worker;
    struct store_config config = {.memory_bytes = (size_t)256 << 20, .eviction = STORE_EVICT, .max_workers = 2};
    assert_int_equal(store_create(&config, &store), 0);
    assert_int_equal(store_worker_attach(store, &worker), 0);
    for (uint64_t id = 0; id < 8; id++) {
        uint64_t name = id % 3;
        struct store_key key = key_of(store, &name);
        struct store_put_args args = {.value = bytes, .value_len = len, .ttl_ms = STORE_NEVER};
        struct store_view view;
        store_fill(bytes, len, id);
        assert_int_equal(store_put(worker, &key, &args, NULL), STORE_OK);
        assert_int_equal(store_get(worker, &key, &view), STORE_OK);
        assert_true(view.value_len == len && store_filled(view.value, len, id));
        store_quiesce(worker);
    }
    store_worker_detach(worker);
    store_destroy(store);
    free(bytes);
}

/* Expired memory comes back without anybody reading or writing these keys. */
static void test_expired_memory_comes_back(void **state)
{
    (void)state;
    struct store_clock clock = {.now_ms = 1};
    struct store *store;
    struct store_worker *worker;
    struct store_stats stats;
    struct store_config config = {.memory_bytes = (size_t)64 << 20,
                                  .eviction = STORE_REFUSE,
                                  .max_workers = 1,
                                  .now_ms = store_clock_now,
                                  .now_context = &clock};
    assert_int_equal(store_create(&config, &store), 0);
    assert_int_equal(store_worker_attach(store, &worker), 0);
    static uint8_t bytes[100];
    for (uint64_t id = 0; id < 200000; id++) {
        static const uint64_t ttls[] = {1000, 100000, 4000000, STORE_NEVER};
        struct store_key key = key_of(store, &id);
        struct store_put_args args = {.value = bytes, .value_len = sizeof(bytes), .ttl_ms = ttls[id % 4]};
        assert_int_equal(store_put(worker, &key, &args, NULL), STORE_OK);
    }
    for (unsigned round = 0; round < 3; round++) {
        clock.now_ms += round == 0 ? 1000 : round == 1 ? 100000 : 4000000;
        for (unsigned ticks = 0; store_tick(worker); ticks++)
            assert_true(ticks < 2000);
        store_stats(store, &stats);
        assert_int_equal(stats.items, 200000 - (round + 1) * 50000);
    }
    const char *wrong = store_inspect(store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    store_worker_detach(worker);
    store_destroy(store);
}

#endif

/* A worker that sleeps with a view holds up reuse, visibly; one that sleeps without holds up nothing. */
static void test_sleeping_workers(void **state)
{
    (void)state;
    static uint8_t bytes[1000];
    struct store *store;
    struct store_worker *awake, *asleep;
    struct store_view view;
    struct store_stats stats;
    uint64_t id = 0, puts = 0;
    struct store_config config = {.memory_bytes = STORE_MIN_MEMORY, .eviction = STORE_EVICT, .max_workers = 2};
    assert_int_equal(store_create(&config, &store), 0);
    assert_int_equal(store_worker_attach(store, &awake), 0);
    assert_int_equal(store_worker_attach(store, &asleep), 0);
    struct store_put_args args = {.value = bytes, .value_len = sizeof(bytes), .ttl_ms = STORE_NEVER};
    struct store_key key = key_of(store, &id);
    memset(bytes, 1, sizeof(bytes));
    assert_int_equal(store_put(awake, &key, &args, NULL), STORE_OK);
    assert_int_equal(store_get(asleep, &key, &view), STORE_OK);
    memset(bytes, 2, sizeof(bytes));
    for (id = 1; puts < 10000; puts++, id++) {
        key = key_of(store, &id);
        if (store_put(awake, &key, &args, NULL) != STORE_OK)
            break;
    }
    assert_true(puts < 10000);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        assert_int_equal(view.value[i], 1);
    store_stats(store, &stats);
    assert_true(stats.grace_lag > 0 && stats.bytes_retired > 0);
    store_quiesce(asleep);
    for (puts = 0; puts < 10000; puts++, id++) {
        key = key_of(store, &id);
        assert_int_equal(store_put(awake, &key, &args, NULL), STORE_OK);
    }
    store_worker_detach(asleep);
    store_worker_detach(awake);
    store_destroy(store);
}

/* More keys of one hash than a chain takes: the store stays within it, and right. */
static void test_a_bucket_that_is_full(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 2; mode++) {
        struct store *store;
        struct store_worker *worker;
        struct store_stats stats;
        struct store_config config = {.memory_bytes = STORE_MIN_MEMORY, .max_workers = 1};
        config.eviction = mode == 0 ? STORE_EVICT : STORE_REFUSE;
        assert_int_equal(store_create(&config, &store), 0);
        assert_int_equal(store_worker_attach(store, &worker), 0);
        uint64_t stored = 0, found = 0;
        for (unsigned round = 0; round < 2; round++) {
            for (uint64_t id = 0; id < 200; id++) {
                struct store_key key = key_of(store, &id);
                struct store_put_args args = {.value = (const uint8_t *)&id, .value_len = 8, .ttl_ms = STORE_NEVER};
                struct store_view view;
                key.hash = 99;
                if (round == 0) {
                    stored += store_put(worker, &key, &args, NULL) == STORE_OK;
                } else if (store_get(worker, &key, &view) == STORE_OK) {
                    assert_memory_equal(view.value, &id, 8);
                    found++;
                }
            }
        }
        store_stats(store, &stats);
        assert_int_equal(found, STORE_SLOTS * (1 + STORE_CHAIN_MAX));
        assert_int_equal(stats.items, found);
        assert_int_equal(stored, mode == 0 ? 200 : found);
        assert_int_equal(stats.evictions_bucket, stored - found);
        store_worker_detach(worker);
        store_destroy(store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stable_keys_are_never_missed),
        cmocka_unit_test(test_values_prove_themselves_under_eviction),
#ifndef CRAB_YIELD /* One thread has nobody to yield to. */
        cmocka_unit_test(test_sizes_that_shift),
        cmocka_unit_test(test_the_largest_values),
        cmocka_unit_test(test_expired_memory_comes_back),
#endif
        cmocka_unit_test(test_sleeping_workers),
        cmocka_unit_test(test_a_bucket_that_is_full),
    };
    return cmocka_run_group_tests_name("store_stress", tests, NULL, NULL);
}
