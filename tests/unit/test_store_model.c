/* SPDX-License-Identifier: MIT */
/*
 * The store against a plain model: long random sequences of all operations, with a fake clock, held views
 * and pins. Threads are in test_store_threads.c.
 *
 * With STORE_REFUSE the model knows every answer, but for STORE_NO_MEMORY when memory is tight. With STORE_EVICT it asks the
 * index, before each operation, whether its key was evicted; all else must agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#define KEYS      512U
#define VIEWS     6U
#define PINS      4U
#define KEY_SPACE 8192U

/* What the model knows of a key. Numbers are kept as such, other values by the seed of their bytes. */
struct entry {
    bool present;
    bool number;
    int64_t integer;
    uint64_t seed;
    size_t len;
    uint64_t expiry;
    uint64_t version; /* 0: nobody has seen it yet. Once seen, it stays, wherever the item moves. */
    uint32_t app_flags;
};

/* A view that must stay as it was. */
struct kept {
    struct store_view view;
    struct entry entry;
    bool used;
};

struct model {
    struct store_clock clock;
    struct store *store;
    struct store_worker *worker;
    bool refuse;
    uint64_t random;
    uint64_t largest;
    struct entry entries[KEYS];
    struct kept views[VIEWS];
    struct kept pins[PINS];
    unsigned view_count;
    uint8_t *scratch;
    uint8_t keys[KEY_SPACE];
    uint64_t stored, refused, evicted;
};

static uint64_t pick(struct model *m, uint64_t below)
{
    return store_random(&m->random) % below;
}

static struct store_key key_of(struct model *m, unsigned id)
{
    /* Lengths from 2 bytes on, with a few long ones; the id at the start tells keys apart. */
    static uint8_t bytes[KEY_SPACE];
    size_t len = id % 64 == 63 ? 300 + id * 15U : 2 + id % 40;
    memcpy(bytes, m->keys, len);
    bytes[0] = (uint8_t)id;
    bytes[1] = (uint8_t)(id >> 8);
    return store_key(m->store, bytes, len);
}

static size_t text_of(const struct entry *entry, char text[24])
{
    return (size_t)snprintf(text, 24, "%lld", (long long)entry->integer);
}

static size_t entry_len(const struct entry *entry)
{
    char text[24];
    return entry->number ? text_of(entry, text) : entry->len;
}

static bool bytes_match(const struct entry *entry, const uint8_t *bytes, size_t len)
{
    char text[24];
    if (len != entry_len(entry))
        return false;
    return entry->number ? memcmp(bytes, text, text_of(entry, text)) == 0
                         : store_filled(bytes, len, entry->seed);
}

static bool live(const struct model *m, const struct entry *entry)
{
    return entry->present && (entry->expiry == STORE_NEVER || m->clock.now_ms < entry->expiry);
}

static uint64_t size_of(struct model *m, unsigned id, size_t len)
{
    size_t bytes = ITEM_MOST_EXTRA + key_of(m, id).len + len;
    return bytes > m->store->item_max ? store_large_pages(bytes) * STORE_PAGE : bytes;
}

static bool anything_held(const struct model *m)
{
    bool held = m->view_count > 0;
    for (unsigned i = 0; i < PINS; i++)
        held = held || m->pins[i].used;
    return held;
}

/* Must the store have room? Two fifths of the memory are enough, together with what is written twice over. */
static bool must_have_room(struct model *m, unsigned id, size_t len)
{
    uint64_t sum = 2 * size_of(m, id, len);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i != id && live(m, &m->entries[i]))
            sum += size_of(m, i, entry_len(&m->entries[i]));
    }
    return sum <= m->store->limit * 2 / 5;
}

/* Learns whether the key was evicted; it must not have come back. */
static struct entry *entry_of(struct model *m, unsigned id, struct store_key *key)
{
    struct entry *entry = &m->entries[id];
    *key = key_of(m, id);
    bool stored = store_holds(m->store, key);
    if (!live(m, entry)) {
        entry->present = false;
    } else if (!stored) {
        assert_false(m->refuse);
        entry->present = false;
        m->evicted++;
    }
    return entry;
}

static void check_no_memory(struct model *m, unsigned id, size_t len)
{
    m->refused++;
    if (!anything_held(m)) {
        assert_true(m->refuse);
        assert_false(must_have_room(m, id, len));
    }
}

static uint64_t pick_ttl(struct model *m)
{
    static const uint64_t ttls[] = {
        1, 2, 50, 1000, 100000, UINT32_MAX, (uint64_t)1 << 34, UINT64_MAX - 1, STORE_NEVER, STORE_NEVER};
    return ttls[pick(m, sizeof(ttls) / sizeof(ttls[0]))];
}

static uint64_t after(const struct model *m, uint64_t ttl)
{
    return ttl > UINT64_MAX - m->clock.now_ms ? STORE_NEVER : m->clock.now_ms + ttl;
}

static size_t pick_len(struct model *m)
{
    uint64_t kind = pick(m, 100);
    if (kind < 50)
        return pick(m, 200);
    if (kind < 85)
        return pick(m, 9000);
    if (kind < 98)
        return pick(m, 150000);
    return kind == 98 ? pick(m, m->largest + 1) : m->largest - pick(m, 3);
}

/* With STORE_EVICT, an operation may evict its own key while it makes room. */
static bool was_evicted(struct model *m, struct entry *entry)
{
    if (m->refuse || !entry->present)
        return false;
    entry->present = false;
    m->evicted++;
    return true;
}

static void check_version(struct entry *entry, uint64_t version)
{
    assert_int_not_equal(version, 0);
    if (entry->version == 0)
        entry->version = version;
    assert_int_equal(version, entry->version);
}

/* ---- operations ---- */

static enum store_result expected_put(const struct entry *entry, const struct store_put_args *args)
{
    if (args->condition == STORE_IF_ABSENT && entry->present)
        return STORE_EXISTS;
    if ((args->condition == STORE_IF_PRESENT || args->condition == STORE_IF_VERSION) && !entry->present)
        return STORE_ABSENT;
    bool differs = args->version != entry->version || entry->version == 0;
    return args->condition == STORE_IF_VERSION && differs ? STORE_EXISTS : STORE_OK;
}

/* Large values by way of a stream at times; one that is begun may be given up. */
static enum store_result put_or_stream(struct model *m, const struct store_key *key, const struct store_put_args *args,
                                       uint64_t *version)
{
    struct store_stream stream;
    if (pick(m, 2) == 0 || args->value_len == 0 || !store_stream_begin(m->worker, key, args, &stream))
        return store_put(m->worker, key, args, version);
    memcpy(stream.value, args->value, args->value_len);
    if (pick(m, 4) != 0)
        return store_stream_put(m->worker, key, args, &stream, version);
    store_stream_drop(m->worker, &stream);
    return store_put(m->worker, key, args, version);
}

static void do_put(struct model *m, unsigned id)
{
    struct store_key key;
    struct entry *entry = entry_of(m, id, &key);
    struct entry next = {.present = true, .app_flags = (uint32_t)pick(m, UINT32_MAX)};
    next.number = pick(m, 4) == 0;
    next.integer = (int64_t)store_random(&m->random) >> pick(m, 64);
    next.seed = store_random(&m->random);
    uint64_t largest = store_max_value(m->store, key.len);
    m->largest = largest;
    next.len = pick_len(m);
    char text[24];
    size_t len = entry_len(&next);
    if (next.number)
        memcpy(m->scratch, text, text_of(&next, text));
    else
        store_fill(m->scratch, len, next.seed);
    struct store_put_args args = {.value = m->scratch, .value_len = len, .app_flags = next.app_flags};
    args.ttl_ms = pick_ttl(m);
    args.condition = pick(m, 2) == 0 ? STORE_ALWAYS : (enum store_condition)pick(m, 4);
    args.version = pick(m, 2) == 0 ? entry->version : 12345;
    args.version_unwanted = pick(m, 3) == 0;
    next.expiry = after(m, args.ttl_ms);

    uint64_t version = 0;
    enum store_result expected = expected_put(entry, &args);
    enum store_result result = put_or_stream(m, &key, &args, &version);
    if (result != expected && expected != STORE_OK && was_evicted(m, entry))
        expected = expected_put(entry, &args);
    if (expected == STORE_OK && result == STORE_NO_MEMORY) {
        check_no_memory(m, id, len);
        return;
    }
    if (result != expected && was_evicted(m, entry))
        expected = expected_put(entry, &args);
    assert_int_equal(result, expected);
    if (result == STORE_EXISTS)
        check_version(entry, version);
    if (result != STORE_OK)
        return;
    assert_int_not_equal(version, 0);
    assert_int_not_equal(version, entry->version);
    next.version = args.version_unwanted ? 0 : version;
    *entry = next;
    m->stored++;
}

static void do_get(struct model *m, unsigned id)
{
    struct store_key key;
    struct entry *entry = entry_of(m, id, &key);
    struct store_view view;
    uint64_t ttl = pick_ttl(m);
    bool touch = pick(m, 4) == 0, versioned = touch || pick(m, 2) == 0;
    enum store_result result = touch       ? store_touch(m->worker, &key, ttl, &view)
                               : versioned ? store_get(m->worker, &key, &view)
                                           : store_get_value(m->worker, &key, &view);
    if (touch && result == STORE_NO_MEMORY && entry->present && anything_held(m))
        return; /* No room for the expiry. */
    if (touch && result == STORE_ABSENT)
        (void)was_evicted(m, entry);
    assert_int_equal(result, entry->present ? STORE_OK : STORE_ABSENT);
    if (result != STORE_OK)
        return;
    if (touch)
        entry->expiry = after(m, ttl);
    assert_true(bytes_match(entry, view.value, view.value_len));
    if (versioned)
        check_version(entry, view.version);
    else
        assert_int_equal(view.version, 0);
    assert_int_equal(view.app_flags, entry->app_flags);
    assert_int_equal(view.ttl_ms,
                     entry->expiry == STORE_NEVER ? STORE_NEVER : entry->expiry - m->clock.now_ms);
    m->views[m->view_count % VIEWS] = (struct kept){.view = view, .entry = *entry};
    m->view_count++;
    struct kept *pin = &m->pins[pick(m, PINS)];
    if (pick(m, 20) == 0 && !pin->used && store_pin(m->worker, &view))
        *pin = (struct kept){.view = view, .entry = *entry, .used = true};
}

static void do_incr(struct model *m, unsigned id)
{
    struct store_key key;
    struct entry *entry = entry_of(m, id, &key);
    struct store_incr_args args = {.delta = store_random(&m->random) >> pick(m, 64)};
    args.negative = pick(m, 2) == 0;
    args.has_initial = pick(m, 2) == 0;
    args.initial = (int64_t)store_random(&m->random);
    args.ttl_ms = pick_ttl(m);

    struct entry next = *entry;
    enum store_result expected = STORE_OK;
    if (!entry->present) {
        next = (struct entry){.present = true, .number = true, .integer = args.initial};
        next.expiry = after(m, args.ttl_ms);
        expected = args.has_initial ? STORE_OK : STORE_ABSENT;
    } else if (!entry->number) {
        expected = STORE_NOT_A_NUMBER;
    } else {
        __int128 sum = args.negative ? (__int128)entry->integer - args.delta
                                     : (__int128)entry->integer + args.delta;
        if (sum < INT64_MIN || sum > INT64_MAX)
            expected = STORE_OVERFLOW;
        else
            next.integer = (int64_t)sum;
    }
    int64_t number = 0;
    enum store_result result = store_incr(m->worker, &key, &args, &number);
    if (expected != STORE_ABSENT && result == STORE_NO_MEMORY) {
        assert_true(expected == STORE_OK || was_evicted(m, entry));
        check_no_memory(m, id, 20);
        return;
    }
    /* Random bytes of a short value may be a number by chance. */
    if (expected == STORE_NOT_A_NUMBER && entry->len <= 2 && result != expected) {
        assert_int_equal(store_delete(m->worker, &key), STORE_OK);
        entry->present = false;
        return;
    }
    if (result != expected && expected != STORE_ABSENT && was_evicted(m, entry)) {
        if (result == STORE_OK) {
            assert_int_equal(number, args.initial);
            next = (struct entry){.present = true, .number = true, .integer = args.initial};
            next.expiry = after(m, args.ttl_ms);
        }
        expected = args.has_initial ? STORE_OK : STORE_ABSENT;
    }
    assert_int_equal(result, expected);
    if (result != STORE_OK)
        return;
    assert_int_equal(number, next.integer);
    struct store_view view;
    assert_int_equal(store_get(m->worker, &key, &view), STORE_OK);
    store_quiesce(m->worker); /* Ends the views kept so far, too. */
    m->view_count = 0;
    assert_int_not_equal(view.version, entry->version);
    next.version = view.version;
    *entry = next;
}

static void check_kept(const struct kept *kept)
{
    assert_true(bytes_match(&kept->entry, kept->view.value, kept->view.value_len));
}

static void do_quiesce(struct model *m)
{
    for (unsigned i = 0; i < m->view_count && i < VIEWS; i++)
        check_kept(&m->views[i]);
    store_quiesce(m->worker);
    m->view_count = 0;
}

static void do_unpin(struct model *m, unsigned which)
{
    if (m->pins[which].used) {
        check_kept(&m->pins[which]);
        store_unpin(m->worker, m->pins[which].view.pin);
        m->pins[which].used = false;
    }
}

static void do_small_things(struct model *m, unsigned id)
{
    struct store_key key;
    struct entry *entry = entry_of(m, id, &key);
    switch (pick(m, 8)) {
    case 0:
    case 1:
        assert_int_equal(store_delete(m->worker, &key), entry->present ? STORE_OK : STORE_ABSENT);
        entry->present = false;
        break;
    case 2: {
        uint64_t ttl = pick_ttl(m);
        enum store_result result = store_expire(m->worker, &key, ttl);
        if (result == STORE_NO_MEMORY) {
            assert_true(entry->present);
            break;
        }
        if (result == STORE_ABSENT)
            (void)was_evicted(m, entry);
        assert_int_equal(result, entry->present ? STORE_OK : STORE_ABSENT);
        entry->expiry = after(m, ttl);
        break;
    }
    case 3:
        m->clock.now_ms += pick(m, 100) == 0 ? pick(m, 100000) : pick(m, 60);
        break;
    case 4:
        store_tick(m->worker);
        break;
    case 5:
        if (pick(m, 300) == 0) {
            store_flush(m->worker);
            memset(m->entries, 0, sizeof(m->entries));
        }
        break;
    default:
        do_unpin(m, (unsigned)pick(m, PINS));
        break;
    }
}

static void inspect(struct model *m)
{
    const char *wrong = store_inspect(m->store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

/* `later` is how long before the first step the store was made: expiries are kept relative to that, in few bits. */
static void run_model(enum store_eviction eviction, size_t memory, uint64_t seed, unsigned steps, uint64_t later)
{
    struct model *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->random = seed;
    m->clock.now_ms = 5;
    m->refuse = eviction == STORE_REFUSE;
    struct store_config config = {.memory_bytes = memory,
                                  .eviction = eviction,
                                  .max_workers = 1,
                                  .now_ms = store_clock_now,
                                  .now_context = &m->clock};
    assert_int_equal(store_create(&config, &m->store), 0);
    assert_int_equal(store_worker_attach(m->store, &m->worker), 0);
    m->clock.now_ms += later;
    m->scratch = malloc(store_max_value(m->store, 1));
    assert_non_null(m->scratch);
    store_fill(m->keys, sizeof(m->keys), seed);

    for (unsigned step = 0; step < steps; step++) {
        unsigned id = (unsigned)(pick(m, 3) == 0 ? pick(m, KEYS) : pick(m, KEYS / 8));
        uint64_t kind = pick(m, 10);
        if (kind < 4)
            do_put(m, id);
        else if (kind < 6)
            do_get(m, id);
        else if (kind < 7)
            do_incr(m, id);
        else
            do_small_things(m, id);
        if (pick(m, 8) == 0)
            do_quiesce(m);
        if (step % 512 == 0)
            inspect(m);
    }
    for (unsigned i = 0; i < PINS; i++)
        do_unpin(m, i);
    do_quiesce(m);
    inspect(m);
    struct store_key key;
    uint64_t present = 0;
    for (unsigned id = 0; id < KEYS; id++) {
        present += entry_of(m, id, &key)->present;
        do_get(m, id);
    }
    for (unsigned i = 0; i < PINS; i++)
        do_unpin(m, i);
    do_quiesce(m);
    /* Proof that the run was under pressure, and that not everything was refused. */
    assert_true(m->stored > steps / 20 && present > 0);
    assert_true(m->refuse ? m->refused > 0 : m->evicted > 0);
    store_worker_detach(m->worker);
    store_destroy(m->store);
    free(m->scratch);
    free(m);
}

static const uint64_t starts[] = {0, ((uint64_t)1 << 32) - 100000, ((uint64_t)1 << 34) - 100000};

static void test_model_evict(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6 * store_test_scale(); i++)
        run_model(STORE_EVICT, STORE_MIN_MEMORY + i % 3 * 700001, 100 + i, 12000, starts[i % 3]);
}

static void test_model_refuse(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6 * store_test_scale(); i++)
        run_model(STORE_REFUSE, STORE_MIN_MEMORY + i % 3 * 700001, 200 + i, 12000, starts[i % 3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_evict),
        cmocka_unit_test(test_model_refuse),
    };
    return cmocka_run_group_tests_name("store_model", tests, NULL, NULL);
}
