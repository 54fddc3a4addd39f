/* SPDX-License-Identifier: MIT */
/* A worker that sleeps with a view: seen in the statistics, by its number and for how long, and in the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/grace.h"
#include "server/log.h"
#include "server/store/store.h"

#define START_MS 5000U

struct fixture {
    uint64_t now_ms;
    struct store *store;
    struct store_worker *awake, *asleep;
    struct log log;
    struct grace grace;
    uint8_t key[8];
};

static uint64_t fixture_now(void *context)
{
    return ((struct fixture *)context)->now_ms;
}

static void start(struct fixture *f)
{
    *f = (struct fixture){.now_ms = START_MS};
    struct store_config config = {.memory_bytes = STORE_MIN_MEMORY,
                                  .eviction = STORE_EVICT,
                                  .max_workers = 3,
                                  .now_ms = fixture_now,
                                  .now_context = f};
    assert_int_equal(store_create(&config, &f->store), 0);
    assert_int_equal(store_worker_attach(f->store, &f->awake), 0);
    assert_int_equal(store_worker_attach(f->store, &f->asleep), 0);
    f->log = (struct log){.fd = memfd_create("log", 0), .level = LOG_LEVEL_INFO};
    assert_true(f->log.fd >= 0);
}

static void end(struct fixture *f)
{
    close(f->log.fd);
    store_worker_detach(f->awake);
    store_worker_detach(f->asleep);
    store_destroy(f->store);
}

static enum store_result put(struct fixture *f, uint64_t id)
{
    static const uint8_t value[1000];
    struct store_put_args args = {.value = value, .value_len = sizeof value, .ttl_ms = STORE_NEVER};
    memcpy(f->key, &id, sizeof id);
    struct store_key key = store_key(f->store, f->key, sizeof f->key);
    return store_put(f->awake, &key, &args, NULL);
}

/* Lets `asleep` look at an item and sleep, while the other writes until nothing can be used again. */
static void fall_asleep(struct fixture *f)
{
    struct store_view view;
    uint64_t id = 1;
    assert_int_equal(put(f, id), STORE_OK);
    struct store_key key = store_key(f->store, f->key, sizeof f->key);
    assert_int_equal(store_get(f->asleep, &key, &view), STORE_OK);
    while (id < 10000 && put(f, ++id) == STORE_OK) {
    }
    assert_true(id < 10000);
    store_quiesce(f->awake);
}

static void look(struct fixture *f, uint64_t after_ms)
{
    f->now_ms = START_MS + after_ms;
    grace_look(&f->grace, f->store, &f->log);
}

/* What was logged since the last time. */
static const char *logged(struct fixture *f)
{
    static char text[2048];
    ssize_t len = pread(f->log.fd, text, sizeof text - 1, 0);
    assert_true(len >= 0);
    text[len] = '\0';
    assert_int_equal(ftruncate(f->log.fd, 0), 0);
    assert_int_equal(lseek(f->log.fd, 0, SEEK_SET), 0);
    return text;
}

static void test_a_sleeper_is_seen_by_number_and_time(void **state)
{
    (void)state;
    struct fixture f;
    struct store_grace grace;
    struct store_stats stats;
    start(&f);
    assert_false(store_grace(f.store, &grace));
    fall_asleep(&f);
    assert_true(store_grace(f.store, &grace));
    assert_int_equal(grace.lag_ms, 0); /* The first look starts the clock. */
    f.now_ms += 1234;
    store_stats(f.store, &stats);
    assert_int_equal(stats.grace_lag_ms, 1234);
    assert_int_equal(stats.grace_worker, 1);
    assert_true(stats.grace_lag > 0);
    assert_true(store_grace(f.store, &grace));
    assert_int_equal(grace.bytes, stats.bytes_retired);
    assert_true(grace.bytes > 0);
    store_quiesce(f.asleep);
    assert_false(store_grace(f.store, &grace));
    store_stats(f.store, &stats);
    assert_int_equal(stats.grace_lag_ms, 0);
    assert_int_equal(put(&f, 20000), STORE_OK);
    end(&f);
}

/* A worker that comes and goes is late by no more than its last request. */
static void test_one_that_comes_back_starts_again(void **state)
{
    (void)state;
    struct fixture f;
    struct store_grace grace;
    start(&f);
    fall_asleep(&f);
    assert_true(store_grace(f.store, &grace));
    store_quiesce(f.asleep);
    f.now_ms += 5000;
    struct store_view view;
    struct store_key key = store_key(f.store, f.key, sizeof f.key);
    (void)store_get(f.asleep, &key, &view);
    for (uint64_t id = 20000; id < 30000 && put(&f, id) == STORE_OK; id++) {
    }
    assert_true(store_grace(f.store, &grace));
    assert_int_equal(grace.lag_ms, 0);
    end(&f);
}

static void test_the_log_says_it_once_and_when_it_is_over(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    look(&f, 0);
    fall_asleep(&f);
    look(&f, 0);
    look(&f, GRACE_WARN_MS);
    assert_string_equal(logged(&f), "");
    look(&f, GRACE_WARN_MS + 1);
    const char *text = logged(&f);
    assert_non_null(strstr(text, "warning"));
    assert_non_null(strstr(text, "worker 1 has been stalled for 1001 ms"));
    look(&f, 2500);
    assert_string_equal(logged(&f), "");
    store_quiesce(f.asleep);
    look(&f, 3000);
    text = logged(&f);
    assert_non_null(strstr(text, "info"));
    assert_non_null(strstr(text, "worker 1 goes on, after 2500 ms at least"));
    look(&f, 9000);
    assert_string_equal(logged(&f), "");
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sleeper_is_seen_by_number_and_time),
        cmocka_unit_test(test_one_that_comes_back_starts_again),
        cmocka_unit_test(test_the_log_says_it_once_and_when_it_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
