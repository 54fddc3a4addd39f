/* SPDX-License-Identifier: MIT */
/*
 * Making a store: what is refused, what memory it takes, who may attach. The operations are in test_store.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/store/store_impl.h"

static void test_create_checks_its_configuration(void **state)
{
    (void)state;
    struct store *store = NULL;
    struct store_config good = {.memory_bytes = STORE_MIN_MEMORY, .max_workers = 1024};
    struct store_config bad = good;
    bad.memory_bytes--;
    assert_int_equal(store_create(&bad, &store), EINVAL);
    bad = good;
    bad.max_workers = 0;
    assert_int_equal(store_create(&bad, &store), EINVAL);
    bad.max_workers = 1025;
    assert_int_equal(store_create(&bad, &store), EINVAL);
    bad = good;
    bad.eviction = (enum store_eviction)2;
    assert_int_equal(store_create(&bad, &store), EINVAL);
    bad = good;
    bad.memory_bytes = SIZE_MAX;
    assert_int_equal(store_create(&bad, &store), ENOMEM);
    bad.memory_bytes = (size_t)1 << 60;
    assert_int_equal(store_create(&bad, &store), ENOMEM);
    assert_null(store);
    assert_int_equal(store_create(&good, &store), 0);
    assert_true(store_max_value(store, STORE_MAX_KEY) > 400 << 10);
    store_destroy(store);
    store_destroy(NULL);
    store_worker_detach(NULL);
}

static void test_create_without_memory(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* The sanitizers' own address space exceeds any limit. */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    skip();
#endif
#endif
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit limit = {64U << 20, 64U << 20};
        struct store *store = NULL;
        struct store_config config = {.memory_bytes = 128U << 20, .max_workers = 1};
        if (setrlimit(RLIMIT_AS, &limit) != 0)
            _exit(2);
        _exit(store_create(&config, &store) == ENOMEM && store == NULL ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_memory_is_within_the_limit(void **state)
{
    (void)state;
    for (size_t memory = STORE_MIN_MEMORY; memory <= (size_t)8 << 30; memory += memory / 3 + 12345) {
        struct store *store = NULL;
        struct store_config config = {.memory_bytes = memory, .max_workers = 64};
        assert_int_equal(store_create(&config, &store), 0);
        struct store_stats stats;
        store_stats(store, &stats);
        assert_int_equal(stats.bytes_limit, memory);
        assert_int_equal(stats.bytes_free + stats.bytes_index + stats.bytes_fixed, memory);
        assert_true(stats.bytes_free >= memory - memory / 10);
        if (memory >= (size_t)1 << 30)
            assert_true(store_max_value(store, STORE_MAX_KEY) >= 64U << 20);
        store_destroy(store);
    }
}

static long resident_kib(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &pages, &resident), 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void test_untouched_memory_is_not_resident(void **state)
{
    (void)state;
    struct store *store = NULL;
    struct store_worker *worker = NULL;
    struct store_config config = {.memory_bytes = (size_t)1 << 30, .max_workers = 64};
    struct store_put_args args = {.value = (const uint8_t *)"v", .value_len = 1, .ttl_ms = STORE_NEVER};
    long before = resident_kib();
    assert_int_equal(store_create(&config, &store), 0);
    assert_int_equal(store_worker_attach(store, &worker), 0);
    struct store_key key = store_key(store, (const uint8_t *)"k", 1);
    assert_int_equal(store_put(worker, &key, &args, NULL), STORE_OK);
    assert_true(resident_kib() - before < 16 << 10);
    store_worker_detach(worker);
    store_destroy(store);
}

static void test_workers_attach_up_to_the_maximum(void **state)
{
    (void)state;
    struct store *store = NULL;
    struct store_worker *workers[4] = {NULL};
    struct store_config config = {.memory_bytes = STORE_MIN_MEMORY, .max_workers = 3};
    assert_int_equal(store_create(&config, &store), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(store_worker_attach(store, &workers[i]), 0);
    assert_int_equal(store_worker_attach(store, &workers[3]), EBUSY);
    assert_null(workers[3]);
    store_worker_detach(workers[1]);
    assert_int_equal(store_worker_attach(store, &workers[1]), 0);
    for (int i = 0; i < 3; i++)
        store_worker_detach(workers[i]);
    store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_checks_its_configuration),
        cmocka_unit_test(test_create_without_memory),
        cmocka_unit_test(test_memory_is_within_the_limit),
        cmocka_unit_test(test_untouched_memory_is_not_resident),
        cmocka_unit_test(test_workers_attach_up_to_the_maximum),
    };
    return cmocka_run_group_tests_name("store_create", tests, NULL, NULL);
}
