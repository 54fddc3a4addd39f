/* SPDX-License-Identifier: MIT */
/*
 * What threads see of the store, recorded and checked key by key: each key's history must be linearizable
 * (tests/support/history.h). A few keys that all threads fight for, beside a crowd of others that come and go, so that
 * what is fought for is moved, evicted, and swept meanwhile. Time is a counter that the threads themselves move on.
 *
 * Strict where nothing is evicted: a miss needs a deletion, a flush, or the end of its time to live. Elsewhere it counts as
 * an eviction, from which nothing comes back. CRAB_TEST_SCALE=N: N times as many rounds, each with other random numbers.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/history.h"
#include "tests/support/store_support.h"

#define THREADS  4U
#define KEYS     6U
#define MAX_LEN  130000U
#define CROWD    ((uint64_t)1 << 40) /* Where the numbers of the other keys start. */

#if defined(CRAB_YIELD) || defined(__SANITIZE_THREAD__)
#define STEPS  10000U
#define ROUNDS 3U
#else
#define STEPS  20000U
#define ROUNDS 5U
#endif

struct setting {
    const char *name;
    enum store_eviction eviction;
    size_t memory;
    unsigned crowd;        /* Keys of the crowd; 0: every one is a new one. */
    unsigned crowd_len;    /* Its values are shorter than this. */
    unsigned prefill;      /* Its puts before all else, so that memory is short from the start. */
    unsigned flush_one_in; /* Steps; 0: never. */
    uint64_t clock; /* Where it starts, once the store is made. */
    bool ttls;
    bool large; /* Values with pages of their own. */
    bool moves; /* Items must have been moved, */
    bool grows; /* and the index must have grown: else the run proves nothing. */
};

struct run {
    const struct setting *setting;
    struct store *store;
    uint64_t clock, stamp;
    pthread_barrier_t start;
    bool done;
};

struct recorder {
    pthread_t thread;
    struct run *run;
    struct store_worker *worker;
    unsigned number;
    uint64_t random, serial, crowd_puts;
    struct history_op *ops;
    size_t count;
    struct { uint64_t value, version; } known[KEYS]; /* For CAS. */
    const char *wrong;
    uint8_t scratch[MAX_LEN];
};

static uint64_t clock_now(void *context)
{
    return __atomic_load_n(&((struct run *)context)->clock, __ATOMIC_SEQ_CST);
}

static uint64_t pick(struct recorder *r, uint64_t below)
{
    return store_random(&r->random) % below;
}

static struct store_key key_of(const struct recorder *r, const uint64_t *id)
{
    return store_key(r->run->store, (const uint8_t *)id, sizeof(*id));
}

/* ---- values: an even one is a number's text; an odd one has bytes behind it that follow from it ---- */

static uint64_t fresh_value(struct recorder *r)
{
    return (uint64_t)(r->number + 1) << 56 | ++r->serial << 32 | (store_random(&r->random) & 0xfffffff);
}

static size_t tail_of(const struct recorder *r, uint64_t value)
{
    uint64_t mixed = value;
    uint64_t kind = store_random(&mixed) % 64;
    return kind > 1 ? kind : kind == 1 || !r->run->setting->large ? mixed % 3000 : mixed % (MAX_LEN - 64);
}

static size_t encode(struct recorder *r, uint64_t value)
{
    size_t len = (size_t)snprintf((char *)r->scratch, 32, "%llu", (unsigned long long)value);
    if (value % 2 == 0)
        return len;
    r->scratch[len++] = '/';
    size_t tail = tail_of(r, value);
    store_fill(r->scratch + len, tail, value);
    return len + tail;
}

static uint64_t decode(struct recorder *r, const struct store_view *view)
{
    char text[32] = "";
    size_t digits = 0;
    while (digits < view->value_len && digits < 20 && view->value[digits] >= '0' && view->value[digits] <= '9')
        digits++;
    memcpy(text, view->value, digits);
    uint64_t value = strtoull(text, NULL, 10);
    bool whole = value % 2 == 0 ? view->value_len == digits
                                : view->value_len == digits + 1 + tail_of(r, value) && view->value[digits] == '/' &&
                                      store_filled(view->value + digits + 1, view->value_len - digits - 1, value);
    if (!whole)
        r->wrong = "a value that is torn, or another's";
    return value;
}

/* ---- operations ---- */

static void begin(struct recorder *r, struct history_op *op)
{
    op->thread = r->number;
    op->called = __atomic_add_fetch(&r->run->stamp, 1, __ATOMIC_SEQ_CST);
    op->clock_before = clock_now(r->run);
}

static void end(struct recorder *r, struct history_op *op)
{
    op->clock_after = clock_now(r->run);
    op->returned = __atomic_add_fetch(&r->run->stamp, 1, __ATOMIC_SEQ_CST);
    r->ops[r->count++] = *op;
}

static uint64_t pick_ttl(struct recorder *r)
{
    return r->run->setting->ttls && pick(r, 2) == 0 ? 1 + pick(r, 40) : STORE_NEVER;
}

static void look(struct recorder *r, struct history_op *op, const struct store_key *key)
{
    struct store_view view;
    bool versioned = true;
    begin(r, op);
    if (op->kind == HISTORY_TOUCH) {
        op->result = store_touch(r->worker, key, op->ttl, &view);
    } else {
        versioned = pick(r, 3) != 0;
        op->result = versioned ? store_get(r->worker, key, &view) : store_get_value(r->worker, key, &view);
    }
    if (op->result == STORE_OK) {
        op->seen = decode(r, &view);
        op->left = view.ttl_ms;
        op->version = view.version;
        if (versioned != (view.version != 0))
            r->wrong = "a view without its version";
        if (view.app_flags != (uint32_t)op->seen && op->seen % 2 != 0)
            r->wrong = "another value's application flags";
        r->known[op->key].value = op->seen;
        r->known[op->key].version = view.version;
    }
    end(r, op);
    store_quiesce(r->worker);
}

/* Stores by way of a stream, if that is for such values; this may begin long before. */
static enum store_result put_or_stream(struct recorder *r, struct history_op *op, const struct store_key *key,
                                       const struct store_put_args *args, uint64_t *version)
{
    struct store_stream stream;
    bool streams = store_stream_begin(r->worker, key, args, &stream);
    if (streams)
        memcpy(stream.value, args->value, args->value_len);
    if (streams && op->written % 8 == 1) {
        store_stream_drop(r->worker, &stream);
        streams = false;
    }
    begin(r, op);
    return streams ? store_stream_put(r->worker, key, args, &stream, version) : store_put(r->worker, key, args, version);
}

static void put(struct recorder *r, struct history_op *op, const struct store_key *key)
{
    op->written = fresh_value(r);
    if (op->kind == HISTORY_CAS && r->known[op->key].version == 0)
        op->kind = HISTORY_PUT;
    static const enum store_condition conditions[] = {[HISTORY_PUT] = STORE_ALWAYS,
                                                      [HISTORY_ADD] = STORE_IF_ABSENT,
                                                      [HISTORY_REPLACE] = STORE_IF_PRESENT,
                                                      [HISTORY_CAS] = STORE_IF_VERSION};
    struct store_put_args args = {.value = r->scratch,
                                  .value_len = encode(r, op->written),
                                  .ttl_ms = op->ttl,
                                  .app_flags = (uint32_t)op->written,
                                  .condition = conditions[op->kind],
                                  .version = r->known[op->key].version,
                                  .version_unwanted = pick(r, 3) == 0};
    if (op->kind == HISTORY_CAS)
        op->expected = r->known[op->key].value;
    uint64_t version = 0;
    op->result = put_or_stream(r, op, key, &args, args.version_unwanted ? NULL : &version);
    op->version = op->result == STORE_OK ? version : 0;
    if (op->result == STORE_OK) {
        r->known[op->key].value = op->written;
        r->known[op->key].version = op->version;
    }
    end(r, op);
}

static void increase(struct recorder *r, struct history_op *op, const struct store_key *key)
{
    struct store_incr_args args = {
        .delta = 2 * (1 + pick(r, 1 << 20)), .has_initial = pick(r, 2) == 0, .ttl_ms = op->ttl};
    int64_t number = 0;
    op->delta = args.delta;
    if (args.has_initial) {
        op->written = fresh_value(r) & ~(uint64_t)1;
        args.initial = (int64_t)op->written;
    }
    begin(r, op);
    op->result = store_incr(r->worker, key, &args, &number);
    op->seen = (uint64_t)number;
    end(r, op);
}

static void step(struct recorder *r)
{
    uint64_t id = pick(r, KEYS);
    struct store_key key = key_of(r, &id);
    struct history_op op = {.key = (unsigned)id};
    static const enum history_kind kinds[] = {
        HISTORY_GET, HISTORY_GET, HISTORY_GET, HISTORY_GET,  HISTORY_PUT,    HISTORY_PUT, HISTORY_ADD,    HISTORY_REPLACE,
        HISTORY_CAS, HISTORY_CAS, HISTORY_INCR, HISTORY_INCR, HISTORY_DELETE, HISTORY_GET, HISTORY_EXPIRE, HISTORY_TOUCH};
    op.kind = kinds[pick(r, sizeof(kinds) / sizeof(kinds[0]))];
    const struct setting *setting = r->run->setting;
    if (setting->flush_one_in != 0 && pick(r, setting->flush_one_in) == 0)
        op.kind = HISTORY_FLUSH;
    if (op.kind != HISTORY_GET && op.kind != HISTORY_DELETE && op.kind != HISTORY_FLUSH)
        op.ttl = pick_ttl(r);
    switch (op.kind) {
    case HISTORY_GET:
    case HISTORY_TOUCH:
        look(r, &op, &key);
        return;
    case HISTORY_INCR:
        increase(r, &op, &key);
        return;
    case HISTORY_PUT:
    case HISTORY_ADD:
    case HISTORY_REPLACE:
    case HISTORY_CAS:
        put(r, &op, &key);
        return;
    case HISTORY_EXPIRE:
        begin(r, &op);
        op.result = store_expire(r->worker, &key, op.ttl);
        break;
    case HISTORY_DELETE:
        begin(r, &op);
        op.result = store_delete(r->worker, &key);
        break;
    case HISTORY_FLUSH:
        begin(r, &op);
        store_flush(r->worker);
        op.result = STORE_OK;
        break;
    }
    end(r, &op);
}

static void *record(void *argument)
{
    struct recorder *r = argument;
    pthread_barrier_wait(&r->run->start);
    for (unsigned i = 0; i < STEPS && r->wrong == NULL; i++) {
        step(r);
        uint64_t what = pick(r, 64);
        if (what < 8)
            __atomic_fetch_add(&r->run->clock, 1 + what / 4, __ATOMIC_SEQ_CST);
        if (what >= 56)
            store_quiesce(r->worker);
    }
    store_quiesce(r->worker);
    return NULL;
}

/* The crowd: keys that nobody looks at, and the store's housekeeping. */
static void crowd_step(struct recorder *r)
{
    const struct setting *setting = r->run->setting;
    uint64_t id = CROWD + (setting->crowd == 0 ? r->crowd_puts : pick(r, setting->crowd));
    struct store_key key = key_of(r, &id);
    struct store_put_args args = {.value = r->scratch, .value_len = pick(r, setting->crowd_len), .ttl_ms = pick_ttl(r)};
    (void)store_put(r->worker, &key, &args, NULL);
    if (r->crowd_puts++ % 4 == 0)
        (void)store_tick(r->worker);
    store_quiesce(r->worker);
}

static void *make_crowd(void *argument)
{
    struct recorder *r = argument;
    pthread_barrier_wait(&r->run->start);
    while (!__atomic_load_n(&r->run->done, __ATOMIC_ACQUIRE))
        crowd_step(r);
    return NULL;
}

/* ---- the whole ---- */

static void check_key(struct recorder *recorders, unsigned key, const struct setting *setting)
{
    struct history_op *ops = calloc(THREADS * STEPS, sizeof(*ops));
    assert_non_null(ops);
    size_t count = 0, at = 0;
    for (unsigned t = 0; t < THREADS; t++) {
        for (size_t i = 0; i < recorders[t].count; i++) {
            if (recorders[t].ops[i].key == key || recorders[t].ops[i].kind == HISTORY_FLUSH)
                ops[count++] = recorders[t].ops[i];
        }
    }
    struct history_rules rules = {.evicts = setting->eviction == STORE_EVICT, .refuses = true};
    const char *wrong = history_check(ops, count, &rules, &at);
    if (wrong != NULL) {
        history_print(stderr, ops, count, at);
        fail_msg("%s, key %u: %s", setting->name, key, wrong);
    }
    free(ops);
}

/* Answers whether what the setting is about happened at all: the crowd may not have had its turns. */
static bool check_store(const struct run *run)
{
    const struct setting *setting = run->setting;
    struct store_stats stats;
    const char *wrong = store_inspect(run->store);
    if (wrong != NULL)
        fail_msg("%s: %s", setting->name, wrong);
    store_stats(run->store, &stats);
    return !(setting->moves && stats.moved_bytes == 0) && !(setting->grows && stats.index_slots < 3600) &&
           !(setting->ttls && stats.expirations == 0) && !(setting->eviction == STORE_EVICT && stats.evictions == 0);
}

static void start(struct run *run, struct recorder *r, unsigned number, uint64_t seed)
{
    r->run = run;
    r->number = number;
    r->random = seed * 100 + number;
    r->ops = calloc(STEPS, sizeof(*r->ops));
    assert_non_null(r->ops);
    assert_int_equal(store_worker_attach(run->store, &r->worker), 0);
    while (number == THREADS && r->crowd_puts < run->setting->prefill)
        crowd_step(r);
    assert_int_equal(pthread_create(&r->thread, NULL, number < THREADS ? record : make_crowd, r), 0);
}

static bool one_round(const struct setting *setting, uint64_t seed)
{
    struct run run = {.setting = setting, .clock = 1};
    struct recorder *recorders = calloc(THREADS + 1, sizeof(*recorders));
    struct store_config config = {.memory_bytes = setting->memory,
                                  .eviction = setting->eviction,
                                  .max_workers = THREADS + 1,
                                  .now_ms = clock_now,
                                  .now_context = &run};
    assert_non_null(recorders);
    assert_int_equal(store_create(&config, &run.store), 0);
    run.clock += setting->clock;
    assert_int_equal(pthread_barrier_init(&run.start, NULL, THREADS + 1), 0);
    for (unsigned i = 0; i <= THREADS; i++)
        start(&run, &recorders[i], i, seed);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(recorders[i].thread, NULL);
    __atomic_store_n(&run.done, true, __ATOMIC_RELEASE);
    pthread_join(recorders[THREADS].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        if (recorders[i].wrong != NULL)
            fail_msg("%s: %s", setting->name, recorders[i].wrong);
    }
    bool eventful = check_store(&run);
    for (unsigned key = 0; key < KEYS; key++)
        check_key(recorders, key, setting);
    for (unsigned i = 0; i <= THREADS; i++) {
        store_worker_detach(recorders[i].worker);
        free(recorders[i].ops);
    }
    free(recorders);
    pthread_barrier_destroy(&run.start);
    store_destroy(run.store);
    return eventful;
}

static void run_setting(const struct setting *setting)
{
    unsigned eventful = 0;
    for (unsigned i = 0; i < ROUNDS * store_test_scale(); i++)
        eventful += one_round(setting, 1 + i);
    if (eventful == 0)
        fail_msg("%s: all rounds were too quiet to prove anything", setting->name);
}

static void test_strictly_while_segments_are_compacted(void **state)
{
    (void)state;
    run_setting(&(struct setting){.name = "compaction",
                                  .eviction = STORE_REFUSE,
                                  .memory = STORE_MIN_MEMORY,
                                  .crowd = 500,
                                  .crowd_len = 2000,
                                  .prefill = 3000,
                                  .moves = true});
}

static void test_strictly_with_expiry_and_large_values(void **state)
{
    (void)state;
    run_setting(&(struct setting){.name = "expiry",
                                  .eviction = STORE_REFUSE,
                                  .memory = 2 * STORE_MIN_MEMORY,
                                  .crowd = 1000,
                                  .crowd_len = 2000,
                                  .prefill = 6000,
                                  .ttls = true,
                                  .large = true});
    /* Expiries have 32 bits in small items, then two more. */
    run_setting(&(struct setting){.name = "expiry, later",
                                  .eviction = STORE_REFUSE,
                                  .memory = 2 * STORE_MIN_MEMORY,
                                  .crowd = 1000,
                                  .crowd_len = 2000,
                                  .prefill = 3000,
                                  .clock = ((uint64_t)1 << 32) - STEPS / 4,
                                  .ttls = true});
}

static void test_strictly_while_the_index_grows(void **state)
{
    (void)state;
    run_setting(&(struct setting){.name = "growth",
                                  .eviction = STORE_REFUSE,
                                  .memory = (size_t)64 << 20,
                                  .crowd_len = 30,
                                  .prefill = 2800,
                                  .grows = true});
}

static void test_under_eviction(void **state)
{
    (void)state;
    run_setting(&(struct setting){.name = "eviction",
                                  .eviction = STORE_EVICT,
                                  .memory = STORE_MIN_MEMORY,
                                  .crowd_len = 2000,
                                  .prefill = 3000,
                                  .ttls = true,
                                  .large = true});
}

static void test_strictly_with_flushes(void **state)
{
    (void)state;
    run_setting(&(struct setting){.name = "flush",
                                  .eviction = STORE_REFUSE,
                                  .memory = STORE_MIN_MEMORY,
                                  .crowd = 300,
                                  .crowd_len = 2000,
                                  .prefill = 3000,
                                  .flush_one_in = 40,
                                  .ttls = true,
                                  .large = true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strictly_while_segments_are_compacted),
        cmocka_unit_test(test_strictly_with_expiry_and_large_values),
        cmocka_unit_test(test_strictly_while_the_index_grows),
        cmocka_unit_test(test_under_eviction),
        cmocka_unit_test(test_strictly_with_flushes),
    };
    return cmocka_run_group_tests_name("store_history", tests, NULL, NULL);
}
