/* SPDX-License-Identifier: MIT */
/*
 * The store, operation by operation: what each answers, and its edges. A fake clock makes times exact.
 * Its making is in test_store_create.c, views and pressure in test_store_memory.c, long random sequences in
 * test_store_model.c, threads in test_store_threads.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

struct fixture {
    struct store_clock clock;
    struct store *store;
    struct store_worker *worker;
};

static void start(struct fixture *f, size_t memory, enum store_eviction eviction)
{
    f->clock.now_ms = 1000;
    struct store_config config = {.memory_bytes = memory,
                                  .eviction = eviction,
                                  .max_workers = 4,
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
}

static struct store_key key_of(const struct fixture *f, const char *text)
{
    return store_key(f->store, (const uint8_t *)text, strlen(text));
}

static enum store_result put_bytes(struct fixture *f, const char *key, const void *value, size_t len,
                                   uint64_t ttl_ms)
{
    struct store_key k = key_of(f, key);
    struct store_put_args args = {.value = value, .value_len = len, .ttl_ms = ttl_ms};
    return store_put(f->worker, &k, &args, NULL);
}

static enum store_result put(struct fixture *f, const char *key, const char *value)
{
    return put_bytes(f, key, value, strlen(value), STORE_NEVER);
}

static enum store_result get(struct fixture *f, const char *key, struct store_view *view)
{
    struct store_key k = key_of(f, key);
    return store_get(f->worker, &k, view);
}

static void expect(struct fixture *f, const char *key, const char *value)
{
    struct store_view view;
    assert_int_equal(get(f, key, &view), STORE_OK);
    assert_int_equal(view.value_len, strlen(value));
    assert_memory_equal(view.value, value, view.value_len);
}

static void expect_absent(struct fixture *f, const char *key)
{
    struct store_view view;
    assert_int_equal(get(f, key, &view), STORE_ABSENT);
}

static struct store_stats stats_of(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->store, &stats);
    return stats;
}

/* ---- put, get, delete ---- */

static void test_put_get_delete(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    expect_absent(&f, "a");
    assert_int_equal(put(&f, "a", "1"), STORE_OK);
    assert_int_equal(put(&f, "b", ""), STORE_OK);
    expect(&f, "a", "1");
    expect(&f, "b", "");
    assert_int_equal(put_bytes(&f, "c", NULL, 0, STORE_NEVER), STORE_OK);
    expect(&f, "c", "");
    assert_int_equal(put(&f, "a", "a longer value than before"), STORE_OK);
    expect(&f, "a", "a longer value than before");
    struct store_key a = key_of(&f, "a");
    assert_int_equal(store_delete(f.worker, &a), STORE_OK);
    assert_int_equal(store_delete(f.worker, &a), STORE_ABSENT);
    expect_absent(&f, "a");
    struct store_stats stats = stats_of(&f);
    assert_int_equal(stats.items, 2);
    assert_int_equal(stats.puts, 4);
    assert_int_equal(stats.deletes, 1);
    assert_int_equal(stats.hits, 4);
    assert_int_equal(stats.misses, 2);
    stop(&f);
}

/* Hints may be wrong, but are of use only if they are right for nearly all keys, those of overflow buckets included. */
static void test_hints_lead_to_the_items(void **state)
{
    (void)state;
    struct fixture f;
    const unsigned keys = 20000;
    unsigned right = 0, overflowed = 0;
    char name[16];
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    for (unsigned i = 0; i < keys; i++) {
        snprintf(name, sizeof name, "key %u", i);
        assert_int_equal(put(&f, name, "value"), STORE_OK);
    }
    for (unsigned i = 0; i < keys; i++) {
        snprintf(name, sizeof name, "key %u", i);
        struct store_key key = key_of(&f, name);
        struct store_hint hint = {.item = NULL};
        store_prefetch_index(f.store, key.hash);
        store_locate(f.store, key.hash, &hint);
        if (hint.overflow) {
            overflowed++;
            assert_null(hint.item);
            store_locate(f.store, key.hash, &hint);
            assert_false(hint.overflow);
        }
        store_prefetch_item(&hint, key.len);
        right += hint.item != NULL && memcmp(hint.item + STORE_LEAST_HEAD, name, key.len) == 0;
    }
    assert_in_range(right, keys - keys / 100, keys);
    assert_in_range(overflowed, keys / 100, keys / 4);
    struct store_key none = key_of(&f, "absent");
    struct store_hint hint = {.item = NULL};
    store_flush(f.worker);
    while (store_tick(f.worker))
        ;
    store_locate(f.store, none.hash, &hint);
    assert_null(hint.item);
    store_prefetch_item(&hint, 64);
    stop(&f);
}

static void test_conditions_and_versions(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    struct store_key k = key_of(&f, "k");
    struct store_put_args args = {.value = (const uint8_t *)"v", .value_len = 1, .ttl_ms = STORE_NEVER};
    uint64_t first = 0, second = 0, seen = 0;
    args.condition = STORE_IF_PRESENT;
    assert_int_equal(store_put(f.worker, &k, &args, &seen), STORE_ABSENT);
    args.condition = STORE_IF_VERSION;
    assert_int_equal(store_put(f.worker, &k, &args, &seen), STORE_ABSENT);
    assert_int_equal(seen, 0);
    args.condition = STORE_IF_ABSENT;
    assert_int_equal(store_put(f.worker, &k, &args, &first), STORE_OK);
    assert_int_not_equal(first, 0);
    assert_int_equal(store_put(f.worker, &k, &args, &seen), STORE_EXISTS);
    assert_int_equal(seen, first);
    assert_int_equal(store_put(f.worker, &k, &args, NULL), STORE_EXISTS);
    args.condition = STORE_IF_PRESENT;
    args.app_flags = UINT32_MAX;
    assert_int_equal(store_put(f.worker, &k, &args, &second), STORE_OK);
    assert_int_not_equal(second, first);
    args.condition = STORE_IF_VERSION;
    args.version = first;
    assert_int_equal(store_put(f.worker, &k, &args, &seen), STORE_EXISTS);
    assert_int_equal(seen, second);

    struct store_view view;
    assert_int_equal(store_expire(f.worker, &k, 500), STORE_OK);
    assert_int_equal(store_touch(f.worker, &k, 700, &view), STORE_OK);
    assert_int_equal(view.version, second);
    assert_int_equal(view.app_flags, UINT32_MAX);
    assert_int_equal(view.ttl_ms, 700);
    args.version = second;
    assert_int_equal(store_put(f.worker, &k, &args, &seen), STORE_OK);
    assert_int_not_equal(seen, second);
    f.clock.now_ms = UINT64_MAX - 1;
    assert_int_equal(get(&f, "k", &view), STORE_OK);
    assert_int_equal(view.ttl_ms, STORE_NEVER);
    stop(&f);
}

static void test_key_lengths(void **state)
{
    (void)state;
    struct fixture f;
    static uint8_t bytes[STORE_MAX_KEY];
    start(&f, STORE_MIN_MEMORY, STORE_REFUSE);
    store_fill(bytes, sizeof(bytes), 7);
    const size_t lengths[] = {1, 2, 7, 8, 9, 240, 241, 4096, STORE_MAX_KEY - 1, STORE_MAX_KEY};
    const size_t count = sizeof(lengths) / sizeof(lengths[0]);
    struct store_put_args args = {.ttl_ms = STORE_NEVER};
    for (size_t i = 0; i < count; i++) {
        struct store_key key = store_key(f.store, bytes, lengths[i]);
        args.value = (const uint8_t *)&lengths[i];
        args.value_len = sizeof(lengths[i]);
        assert_int_equal(store_put(f.worker, &key, &args, NULL), STORE_OK);
    }
    for (size_t i = 0; i < count; i++) {
        struct store_key key = store_key(f.store, bytes, lengths[i]);
        struct store_view view;
        assert_int_equal(store_get(f.worker, &key, &view), STORE_OK);
        assert_int_equal(view.value_len, sizeof(lengths[i]));
        assert_memory_equal(view.value, &lengths[i], sizeof(lengths[i]));
    }
    stop(&f);
}

/* Keys of one hash, as an attacker would like them: the bytes must decide. */
static void test_keys_of_one_hash(void **state)
{
    (void)state;
    static const char *const texts[] = {"a", "ab", "abc", "b", "ba", "abd"};
    const size_t count = sizeof(texts) / sizeof(texts[0]);
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_REFUSE);
    for (size_t put_count = 0; put_count <= count; put_count++) {
        for (size_t i = 0; i < count; i++) {
            struct store_key key = key_of(&f, texts[i]);
            struct store_view view;
            key.hash = 12345; /* The store believes its caller. */
            enum store_result found = store_get(f.worker, &key, &view);
            assert_int_equal(found, i >= count - put_count ? STORE_OK : STORE_ABSENT);
            if (found == STORE_OK)
                assert_memory_equal(view.value, texts[i], strlen(texts[i]));
        }
        if (put_count < count) { /* Longer ones first: they begin with what comes later. */
            const char *text = texts[count - put_count - 1];
            struct store_key key = key_of(&f, text);
            struct store_put_args args = {
                .value = (const uint8_t *)text, .value_len = strlen(text), .ttl_ms = STORE_NEVER};
            key.hash = 12345;
            assert_int_equal(store_put(f.worker, &key, &args, NULL), STORE_OK);
        }
    }
    store_flush(f.worker); /* What has a wrong hash must not move. */
    stop(&f);
}

static void check_largest_value(enum store_eviction eviction, size_t memory)
{
    struct fixture f;
    start(&f, memory, eviction);
    size_t max = store_max_value(f.store, 3);
    uint8_t *bytes = malloc(max + 1);
    assert_non_null(bytes);
    store_fill(bytes, max, 1);
    assert_int_equal(put(&f, "old", "stands"), STORE_OK);
    assert_int_equal(put_bytes(&f, "old", bytes, max + 1, STORE_NEVER), STORE_TOO_LARGE);
    assert_int_equal(put_bytes(&f, "old", bytes, SIZE_MAX, STORE_NEVER), STORE_TOO_LARGE);
    expect(&f, "old", "stands");
    store_quiesce(f.worker);
    for (int i = 0; i < 5; i++) { /* Overwriting, too: at times there is no room for old and new. */
        assert_int_equal(put_bytes(&f, "big", bytes, max, STORE_NEVER), STORE_OK);
        struct store_view view;
        assert_int_equal(get(&f, "big", &view), STORE_OK);
        assert_int_equal(view.value_len, max);
        assert_true(store_filled(view.value, max, 1));
        store_quiesce(f.worker);
    }
    if (eviction == STORE_REFUSE) {
        expect(&f, "old", "stands");
        assert_int_equal(put_bytes(&f, "two", bytes, max, STORE_NEVER), STORE_NO_MEMORY);
        expect_absent(&f, "two");
        assert_int_equal(stats_of(&f).refusals, 1);
    }
    free(bytes);
    stop(&f);
}

static void test_largest_value(void **state)
{
    (void)state;
    check_largest_value(STORE_EVICT, STORE_MIN_MEMORY);
    check_largest_value(STORE_REFUSE, STORE_MIN_MEMORY);
    check_largest_value(STORE_EVICT, (size_t)9 << 20);
    check_largest_value(STORE_REFUSE, (size_t)9 << 20);
}

/* ---- time ---- */

static void test_ttl_is_exact(void **state)
{
    (void)state;
    struct fixture f;
    struct store_view view;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    assert_int_equal(put_bytes(&f, "k", "v", 1, 1), STORE_OK);
    assert_int_equal(get(&f, "k", &view), STORE_OK);
    assert_int_equal(view.ttl_ms, 1);
    f.clock.now_ms++;
    expect_absent(&f, "k");
    assert_int_equal(stats_of(&f).expirations, 1);
    assert_int_equal(stats_of(&f).items, 0);

    assert_int_equal(put_bytes(&f, "k", "v", 1, 100), STORE_OK);
    f.clock.now_ms += 99;
    assert_int_equal(get(&f, "k", &view), STORE_OK);
    assert_int_equal(view.ttl_ms, 1);
    struct store_key k = key_of(&f, "k");
    assert_int_equal(store_expire(f.worker, &k, STORE_NEVER), STORE_OK);
    f.clock.now_ms += 1000000;
    expect(&f, "k", "v");
    assert_int_equal(store_expire(f.worker, &k, 5), STORE_OK);
    f.clock.now_ms += 5;
    assert_int_equal(store_expire(f.worker, &k, 5), STORE_ABSENT);
    assert_int_equal(store_touch(f.worker, &k, 5, &view), STORE_ABSENT);

    /* now + ttl beyond the end of time is for ever. */
    assert_int_equal(put_bytes(&f, "k", "v", 1, UINT64_MAX - 1), STORE_OK);
    assert_int_equal(get(&f, "k", &view), STORE_OK);
    assert_int_equal(view.ttl_ms, STORE_NEVER);
    assert_int_equal(put_bytes(&f, "k", "v", 1, UINT64_MAX - 1 - f.clock.now_ms), STORE_OK);
    assert_int_equal(get(&f, "k", &view), STORE_OK);
    assert_int_equal(view.ttl_ms, UINT64_MAX - 1 - f.clock.now_ms);
    stop(&f);
}

static void test_an_expired_item_is_absent_to_every_operation(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    struct store_key k = key_of(&f, "k");
    struct store_put_args args = {.value = (const uint8_t *)"1", .value_len = 1, .ttl_ms = 10};
    struct store_incr_args incr = {.delta = 1};
    int64_t number = 77;
    for (int i = 0; i < 4; i++) {
        args.condition = STORE_ALWAYS;
        assert_int_equal(store_put(f.worker, &k, &args, NULL), STORE_OK);
        f.clock.now_ms += 10;
        args.condition = i == 0 ? STORE_IF_PRESENT : STORE_IF_ABSENT;
        if (i == 0 || i == 1)
            assert_int_equal(store_put(f.worker, &k, &args, NULL), i == 0 ? STORE_ABSENT : STORE_OK);
        else if (i == 2)
            assert_int_equal(store_delete(f.worker, &k), STORE_ABSENT);
        else
            assert_int_equal(store_incr(f.worker, &k, &incr, &number), STORE_ABSENT);
    }
    assert_int_equal(number, 77);
    stop(&f);
}

static void test_tick_collects_what_expired(void **state)
{
    (void)state;
    struct fixture f;
    char key[32];
    start(&f, 4 * STORE_MIN_MEMORY, STORE_REFUSE);
    assert_false(store_tick(f.worker));
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        assert_int_equal(put_bytes(&f, key, key, strlen(key), i % 2 == 0 ? 100 : 5000), STORE_OK);
    }
    assert_false(store_tick(f.worker));
    for (int round = 1; round <= 2; round++) {
        f.clock.now_ms += round == 1 ? 100 : 4900;
        int ticks = 0;
        while (store_tick(f.worker))
            assert_true(++ticks < 1000);
        assert_int_equal(stats_of(&f).expirations, 10000 * round);
        assert_int_equal(stats_of(&f).items, 20000 - 10000 * round);
    }
    assert_int_equal(stats_of(&f).bytes_live, 0);
    stop(&f);
}

/* ---- numbers ---- */

/* A clock at which another worker renews the item, as if it came just when a reader had read the old expiry. */
struct renewing_clock {
    uint64_t now_ms;
    struct store_worker *other; /* armed if not NULL */
    struct store_key key;
    bool by_touch;
};

static uint64_t renewing_now(void *context)
{
    struct renewing_clock *clock = context;
    struct store_worker *other = clock->other;
    if (other != NULL) {
        struct store_view view;
        struct store_put_args args = {.value = (const uint8_t *)"new", .value_len = 3, .ttl_ms = STORE_NEVER};
        clock->other = NULL;
        assert_int_equal(clock->by_touch ? store_touch(other, &clock->key, 100000, &view)
                                         : store_put(other, &clock->key, &args, NULL),
                         STORE_OK);
        clock->now_ms += 20;
    }
    return clock->now_ms;
}

static void test_renewed_in_time_is_no_miss(void **state)
{
    (void)state;
    for (int by_touch = 0; by_touch < 2; by_touch++) {
        struct renewing_clock clock = {.now_ms = 1000, .by_touch = by_touch != 0};
        struct store_config config = {.memory_bytes = (size_t)8 << 20,
                                      .eviction = STORE_REFUSE,
                                      .max_workers = 2,
                                      .now_ms = renewing_now,
                                      .now_context = &clock};
        struct store_put_args args = {.value = (const uint8_t *)"old", .value_len = 3, .ttl_ms = 10};
        struct store *store;
        struct store_worker *reader, *other;
        struct store_view view;
        assert_int_equal(store_create(&config, &store), 0);
        assert_int_equal(store_worker_attach(store, &reader), 0);
        assert_int_equal(store_worker_attach(store, &other), 0);
        clock.key = store_key(store, (const uint8_t *)"k", 1);
        assert_int_equal(store_put(reader, &clock.key, &args, NULL), STORE_OK);
        clock.other = other;
        assert_int_equal(store_get(reader, &clock.key, &view), STORE_OK);
        store_worker_detach(reader);
        store_worker_detach(other);
        store_destroy(store);
    }
}

/* What stays between large values that come and go must not cut the range for them to pieces. */
static void test_large_values_come_and_go(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (size_t)64 << 20, STORE_EVICT);
    size_t most = store_max_value(f.store, 3), kept = (size_t)64 << 10;
    uint8_t *bytes = calloc(1, most);
    assert_non_null(bytes);
    for (unsigned i = 0; i < 40; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "s%03u", i);
        struct store_key big = key_of(&f, "big");
        assert_int_equal(put_bytes(&f, "big", bytes, i < 20 ? most / 5 * 3 : most, STORE_NEVER), STORE_OK);
        store_quiesce(f.worker);
        if (i < 20)
            assert_int_equal(put_bytes(&f, name, bytes, kept, STORE_NEVER), STORE_OK);
        assert_int_equal(store_delete(f.worker, &big), STORE_OK);
        store_quiesce(f.worker);
    }
    free(bytes);
    stop(&f);
}

static void expect_incr(struct fixture *f, const char *from, uint64_t delta, bool negative,
                        enum store_result result, const char *to)
{
    struct store_key k = key_of(f, "n");
    struct store_incr_args args = {.delta = delta, .negative = negative};
    int64_t number = 4711;
    if (from != NULL)
        assert_int_equal(put(f, "n", from), STORE_OK);
    assert_int_equal(store_incr(f->worker, &k, &args, &number), result);
    if (result == STORE_OK)
        assert_int_equal(number, strtoll(to, NULL, 10));
    else
        assert_int_equal(number, 4711);
    expect(f, "n", to);
}

static void test_incr_is_exact_to_both_ends(void **state)
{
    (void)state;
    static const char most[] = "9223372036854775807", least[] = "-9223372036854775808";
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    expect_incr(&f, "0", 1, false, STORE_OK, "1");
    expect_incr(&f, "0", 1, true, STORE_OK, "-1");
    expect_incr(&f, "-1", 1, false, STORE_OK, "0");
    expect_incr(&f, "99", 1, false, STORE_OK, "100");
    expect_incr(&f, NULL, 1, true, STORE_OK, "99");
    expect_incr(&f, least, UINT64_MAX, false, STORE_OK, most);
    expect_incr(&f, most, UINT64_MAX, true, STORE_OK, least);
    expect_incr(&f, most, 1, false, STORE_OVERFLOW, most);
    expect_incr(&f, least, 1, true, STORE_OVERFLOW, least);
    expect_incr(&f, "-9223372036854775807", UINT64_MAX, false, STORE_OVERFLOW, "-9223372036854775807");
    expect_incr(&f, "9223372036854775806", UINT64_MAX, true, STORE_OVERFLOW, "9223372036854775806");
    expect_incr(&f, most, 0, false, STORE_OK, most);
    expect_incr(&f, "-1", (uint64_t)1 << 63, false, STORE_OK, most);
    expect_incr(&f, "0", (uint64_t)1 << 63, false, STORE_OVERFLOW, "0");
    expect_incr(&f, "0", (uint64_t)1 << 63, true, STORE_OK, least);
    stop(&f);
}

static void test_what_is_no_number(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "-", "-0", "00", "007", "-01", "+1", " 1", "1 ", "1\n", "1.0", "1e3", "0x1", "a", "--1", "1-",
        "9223372036854775808", "-9223372036854775809", "10000000000000000000", "18446744073709551615",
        "99999999999999999999", "-10000000000000000000", "123456789012345678901"};
    struct fixture f;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect_incr(&f, texts[i], 0, false, STORE_NOT_A_NUMBER, texts[i]);
    assert_int_equal(put_bytes(&f, "z", "1\0", 2, STORE_NEVER), STORE_OK);
    struct store_key z = key_of(&f, "z");
    struct store_incr_args args = {.delta = 1};
    int64_t number;
    assert_int_equal(store_incr(f.worker, &z, &args, &number), STORE_NOT_A_NUMBER);
    stop(&f);
}

static void test_incr_keeps_expiry_and_flags_and_creates(void **state)
{
    (void)state;
    struct fixture f;
    struct store_view view;
    int64_t number = 0;
    start(&f, STORE_MIN_MEMORY, STORE_EVICT);
    struct store_key k = key_of(&f, "k"), other = key_of(&f, "other");
    struct store_put_args put_args = {
        .value = (const uint8_t *)"5", .value_len = 1, .ttl_ms = 100, .app_flags = 9};
    uint64_t version = 0;
    assert_int_equal(store_put(f.worker, &k, &put_args, &version), STORE_OK);
    f.clock.now_ms += 40;
    struct store_incr_args args = {
        .delta = 3, .negative = true, .has_initial = true, .initial = INT64_MIN, .ttl_ms = 7};
    assert_int_equal(store_incr(f.worker, &k, &args, &number), STORE_OK);
    assert_int_equal(number, 2);
    assert_int_equal(get(&f, "k", &view), STORE_OK);
    assert_int_equal(view.ttl_ms, 60);
    assert_int_equal(view.app_flags, 9);
    assert_int_not_equal(view.version, version);

    assert_int_equal(store_incr(f.worker, &other, &args, &number), STORE_OK);
    assert_true(number == INT64_MIN);
    assert_int_equal(get(&f, "other", &view), STORE_OK);
    assert_int_equal(view.ttl_ms, 7);
    assert_int_equal(view.app_flags, 0);
    expect(&f, "other", "-9223372036854775808");
    args.has_initial = false;
    f.clock.now_ms += 7;
    assert_int_equal(store_incr(f.worker, &other, &args, &number), STORE_ABSENT);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get_delete),
        cmocka_unit_test(test_hints_lead_to_the_items),
        cmocka_unit_test(test_conditions_and_versions),
        cmocka_unit_test(test_key_lengths),
        cmocka_unit_test(test_keys_of_one_hash),
        cmocka_unit_test(test_largest_value),
        cmocka_unit_test(test_ttl_is_exact),
        cmocka_unit_test(test_an_expired_item_is_absent_to_every_operation),
        cmocka_unit_test(test_tick_collects_what_expired),
        cmocka_unit_test(test_renewed_in_time_is_no_miss),
        cmocka_unit_test(test_large_values_come_and_go),
        cmocka_unit_test(test_incr_is_exact_to_both_ends),
        cmocka_unit_test(test_what_is_no_number),
        cmocka_unit_test(test_incr_keeps_expiry_and_flags_and_creates),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
