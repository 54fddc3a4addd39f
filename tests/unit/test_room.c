/* SPDX-License-Identifier: MIT */
/* A put that finds no room while it is another worker's turn to make some: it waits, and does not refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/store/store_impl.h"

#define TURN_US 200000U

static uint8_t bytes[1000];

static enum store_result put(struct store *store, struct store_worker *worker, uint64_t id)
{
    uint8_t name[8];
    memcpy(name, &id, sizeof id);
    struct store_key key = store_key(store, name, sizeof name);
    struct store_put_args args = {.value = bytes, .value_len = sizeof bytes, .ttl_ms = STORE_NEVER};
    enum store_result result = store_put(worker, &key, &args, NULL);
    store_quiesce(worker);
    return result;
}

/* Ends a turn that was begun by the test. */
static void *end_turn(void *argument)
{
    struct store *store = argument;
    usleep(TURN_US);
    store_publish(&store->maintaining, 0U);
    return NULL;
}

static void test_a_long_turn_of_another_is_waited_for(void **state)
{
    (void)state;
    struct store *store;
    struct store_worker *worker;
    struct store_stats stats;
    pthread_t thread;
    uint64_t id = 0;
    struct store_config config = {.memory_bytes = STORE_MIN_MEMORY, .eviction = STORE_EVICT, .max_workers = 2};
    assert_int_equal(store_create(&config, &store), 0);
    assert_int_equal(store_worker_attach(store, &worker), 0);
    for (store_stats(store, &stats); stats.evictions == 0 && id < 10000; store_stats(store, &stats))
        assert_int_equal(put(store, worker, id++), STORE_OK);
    assert_true(id < 10000);
    store_publish(&store->maintaining, 1U);
    assert_int_equal(pthread_create(&thread, NULL, end_turn, store), 0);
    uint64_t waited = stats.grace_waits;
    for (unsigned i = 0; i < 4000; i++)
        assert_int_equal(put(store, worker, id++), STORE_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    store_stats(store, &stats);
    assert_true(stats.grace_waits > waited); /* Else it was no test of waiting. */
    store_worker_detach(worker);
    store_destroy(store);
}

/* A view of another worker that does not end costs one wait, not one for each write. */
static void test_what_was_waited_for_in_vain_is_not_again(void **state)
{
    (void)state;
    struct store *store;
    struct store_worker *worker, *asleep;
    struct store_stats before, after;
    struct store_view view;
    uint64_t id = 0, zero = 0;
    struct store_config config = {.memory_bytes = STORE_MIN_MEMORY, .eviction = STORE_EVICT, .max_workers = 2};
    assert_int_equal(store_create(&config, &store), 0);
    assert_int_equal(store_worker_attach(store, &worker), 0);
    assert_int_equal(store_worker_attach(store, &asleep), 0);
    assert_int_equal(put(store, worker, id), STORE_OK);
    struct store_key key = store_key(store, (const uint8_t *)&zero, sizeof zero);
    assert_int_equal(store_get(asleep, &key, &view), STORE_OK);
    while (id < 10000 && put(store, worker, ++id) == STORE_OK) {
    }
    assert_true(id < 10000);
    store_stats(store, &before);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(put(store, worker, ++id), STORE_NO_MEMORY);
    store_stats(store, &after);
    assert_in_range(after.grace_waits - before.grace_waits, 1, 1000);
    store_quiesce(asleep);
    for (unsigned i = 0; i < 4000; i++)
        assert_int_equal(put(store, worker, ++id), STORE_OK);
    store_worker_detach(asleep);
    store_worker_detach(worker);
    store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_long_turn_of_another_is_waited_for),
                                       cmocka_unit_test(test_what_was_waited_for_in_vain_is_not_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
