/* SPDX-License-Identifier: MIT */
/*
 * Values that are written right into their places: what comes of them is what store_put() would have made, whatever
 * happens between the beginning and the end, and nothing of one that is given up stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#define MIB ((size_t)1 << 20)
#define SIZE ((size_t)300000)

struct fixture {
    struct store *store;
    struct store_worker *worker;
    struct store_clock clock;
};

static void open_store(struct fixture *f, enum store_eviction eviction)
{
    f->clock.now_ms = 1000;
    struct store_config config = {.memory_bytes = 32 * MIB,
                                  .eviction = eviction,
                                  .max_workers = 2,
                                  .now_ms = store_clock_now,
                                  .now_context = &f->clock};
    assert_int_equal(store_create(&config, &f->store), 0);
    assert_int_equal(store_worker_attach(f->store, &f->worker), 0);
}

static void close_store(struct fixture *f)
{
    store_quiesce(f->worker);
    assert_null(store_inspect(f->store));
    store_worker_detach(f->worker);
    store_destroy(f->store);
}

static struct store_key key_of(const struct fixture *f, const char *text)
{
    return store_key(f->store, (const uint8_t *)text, strlen(text));
}

static const struct store_put_args plain = {.value_len = SIZE, .ttl_ms = STORE_NEVER};

/* Begin a stream and write its value. */
static struct store_stream write_stream(struct fixture *f, const char *text, const struct store_put_args *args,
                                        uint64_t seed)
{
    struct store_stream stream;
    struct store_key key = key_of(f, text);
    assert_true(store_stream_begin(f->worker, &key, args, &stream));
    assert_int_equal(stream.value_len, args->value_len);
    store_fill(stream.value, stream.value_len, seed);
    store_quiesce(f->worker); /* turns of other connections lie between */
    return stream;
}

static enum store_result end(struct fixture *f, const char *text, const struct store_put_args *args,
                             const struct store_stream *stream, uint64_t *version)
{
    struct store_key key = key_of(f, text);
    return store_stream_put(f->worker, &key, args, stream, version);
}

static bool holds(struct fixture *f, const char *text, uint64_t seed, struct store_view *view)
{
    struct store_key key = key_of(f, text);
    return store_get(f->worker, &key, view) == STORE_OK && view->value_len == SIZE &&
           store_filled(view->value, SIZE, seed);
}

static uint64_t live_bytes(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->store, &stats);
    return stats.bytes_live;
}

static void a_streamed_value_is_as_one_that_was_put(void **state)
{
    struct fixture f;
    struct store_view view;
    uint64_t version = 0;
    (void)state;
    open_store(&f, STORE_EVICT);
    struct store_put_args args = plain;
    args.app_flags = 77;
    args.ttl_ms = 500;
    struct store_stream stream = write_stream(&f, "key", &args, 1);
    struct store_key key = key_of(&f, "key");
    assert_int_equal(store_get(f.worker, &key, &view), STORE_ABSENT);
    f.clock.now_ms += 10000; /* its time begins with the put */
    assert_int_equal(end(&f, "key", &args, &stream, &version), STORE_OK);
    assert_true(holds(&f, "key", 1, &view));
    assert_int_equal(view.app_flags, 77);
    assert_int_equal(view.ttl_ms, 500);
    assert_true(version != 0 && view.version == version);
    f.clock.now_ms += 500;
    assert_false(holds(&f, "key", 1, &view));
    close_store(&f);
}

static void it_replaces_and_is_replaced(void **state)
{
    struct fixture f;
    struct store_view view;
    (void)state;
    open_store(&f, STORE_EVICT);
    struct store_key key = key_of(&f, "key");
    struct store_put_args small = {.value = (const uint8_t *)"small", .value_len = 5, .ttl_ms = STORE_NEVER};
    assert_int_equal(store_put(f.worker, &key, &small, NULL), STORE_OK);
    struct store_stream first = write_stream(&f, "key", &plain, 1), second = write_stream(&f, "key", &plain, 2);
    uint64_t versions[2] = {0, 0};
    assert_int_equal(end(&f, "key", &plain, &second, &versions[0]), STORE_OK);
    assert_true(holds(&f, "key", 2, &view));
    assert_int_equal(end(&f, "key", &plain, &first, &versions[1]), STORE_OK);
    assert_true(holds(&f, "key", 1, &view));
    assert_true(versions[0] != versions[1]);
    assert_int_equal(store_put(f.worker, &key, &small, NULL), STORE_OK);
    assert_int_equal(store_get(f.worker, &key, &view), STORE_OK);
    assert_int_equal(view.value_len, 5);
    close_store(&f);
}

static void conditions_hold_at_the_end(void **state)
{
    struct fixture f;
    struct store_view view;
    uint64_t version = 0;
    (void)state;
    open_store(&f, STORE_EVICT);
    struct store_put_args absent = plain, present = plain, same = plain;
    absent.condition = STORE_IF_ABSENT;
    present.condition = STORE_IF_PRESENT;
    same.condition = STORE_IF_VERSION;
    struct store_stream stream = write_stream(&f, "key", &present, 1);
    assert_int_equal(end(&f, "key", &present, &stream, NULL), STORE_ABSENT);
    stream = write_stream(&f, "key", &absent, 2);
    assert_int_equal(end(&f, "key", &absent, &stream, &version), STORE_OK);
    stream = write_stream(&f, "key", &absent, 3);
    assert_int_equal(end(&f, "key", &absent, &stream, NULL), STORE_EXISTS);
    assert_true(holds(&f, "key", 2, &view));
    same.version = version;
    stream = write_stream(&f, "key", &same, 4);
    struct store_stream late = write_stream(&f, "key", &same, 5);
    assert_int_equal(end(&f, "key", &same, &stream, NULL), STORE_OK);
    assert_int_equal(end(&f, "key", &same, &late, NULL), STORE_EXISTS);
    assert_true(holds(&f, "key", 4, &view));
    close_store(&f);
}

static void a_flush_in_between_takes_nothing_away(void **state)
{
    struct fixture f;
    struct store_view view;
    (void)state;
    open_store(&f, STORE_EVICT);
    struct store_stream stream = write_stream(&f, "key", &plain, 1);
    store_flush(f.worker);
    assert_int_equal(end(&f, "key", &plain, &stream, NULL), STORE_OK);
    assert_true(holds(&f, "key", 1, &view));
    store_flush(f.worker);
    assert_false(holds(&f, "key", 1, &view));
    close_store(&f);
}

static void one_that_is_given_up_leaves_nothing(void **state)
{
    struct fixture f;
    struct store_stats before, after;
    (void)state;
    open_store(&f, STORE_EVICT);
    store_stats(f.store, &before);
    for (int i = 0; i < 1000; i++) {
        struct store_stream stream = write_stream(&f, "key", &plain, 1);
        store_stream_drop(f.worker, &stream);
    }
    store_stats(f.store, &after);
    assert_int_equal(after.items, 0);
    assert_int_equal(after.bytes_free, before.bytes_free);
    close_store(&f);
}

static void sizes_that_are_not_for_streams(void **state)
{
    struct fixture f;
    struct store_stream stream;
    (void)state;
    open_store(&f, STORE_EVICT);
    struct store_key key = key_of(&f, "key");
    struct store_put_args args = plain;
    args.value_len = 32 * MIB / 256 / 4; /* fits a segment */
    assert_false(store_stream_begin(f.worker, &key, &args, &stream));
    args.value_len = store_max_value(f.store, 3) + 1;
    assert_false(store_stream_begin(f.worker, &key, &args, &stream));
    args.value_len--;
    assert_true(store_stream_begin(f.worker, &key, &args, &stream));
    store_stream_drop(f.worker, &stream);
    close_store(&f);
}

/* Streams fill the memory up: others are evicted for them, and beyond that they are refused. */
static void streams_stay_within_the_memory(void **state)
{
    struct fixture f;
    struct store_stream streams[200];
    struct store_view view;
    unsigned count = 0;
    (void)state;
    open_store(&f, STORE_EVICT);
    struct store_key key = key_of(&f, "kept");
    while (count < 200 && store_stream_begin(f.worker, &key, &plain, &streams[count]))
        store_fill(streams[count].value, SIZE, count), count++;
    assert_true(count > 50 && count < 200);
    assert_true(live_bytes(&f) <= 32 * MIB);
    for (unsigned i = 1; i < count; i++)
        store_stream_drop(f.worker, &streams[i]);
    assert_int_equal(end(&f, "kept", &plain, &streams[0], NULL), STORE_OK);
    assert_true(holds(&f, "kept", 0, &view));
    close_store(&f);
}

static void without_eviction_nothing_that_was_accepted_is_lost(void **state)
{
    struct fixture f;
    struct store_view view;
    char names[200][8];
    unsigned count = 0;
    (void)state;
    open_store(&f, STORE_REFUSE);
    for (;; count++) {
        struct store_stream stream;
        snprintf(names[count], sizeof names[count], "k%u", count);
        struct store_key key = key_of(&f, names[count]);
        if (!store_stream_begin(f.worker, &key, &plain, &stream))
            break;
        store_fill(stream.value, SIZE, count);
        assert_int_equal(store_stream_put(f.worker, &key, &plain, &stream, NULL), STORE_OK);
        assert_true(count < 199);
    }
    assert_true(count > 20);
    for (unsigned i = 0; i < count; i++)
        assert_true(holds(&f, names[i], i, &view));
    close_store(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_streamed_value_is_as_one_that_was_put),
        cmocka_unit_test(it_replaces_and_is_replaced),
        cmocka_unit_test(conditions_hold_at_the_end),
        cmocka_unit_test(a_flush_in_between_takes_nothing_away),
        cmocka_unit_test(one_that_is_given_up_leaves_nothing),
        cmocka_unit_test(sizes_that_are_not_for_streams),
        cmocka_unit_test(streams_stay_within_the_memory),
        cmocka_unit_test(without_eviction_nothing_that_was_accepted_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
