/* SPDX-License-Identifier: MIT */
/*
 * Races of the store that were lost once, or that only a few instructions decide, each sought out: readers at the very bucket
 * that is being split, writers and readers beside a flush, compaction with as little room as can be. They mean most with
 * forced yields (MODE=yield). tests/support/planted-bugs.toml undoes what each is about.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#if defined(CRAB_YIELD) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define GROWTH  20000U
#define FLUSHES 3000U
#define FILLING 20000U
#else
#define GROWTH  30000U
#define FLUSHES 20000U
#define FILLING 60000U
#endif

struct race {
    struct store *store;
    bool done;
    uint64_t begun, ended; /* Flushes. */
    uint64_t turns;        /* What others have done meanwhile. */
    const char *wrong;
};

struct runner {
    pthread_t thread;
    struct race *race;
    struct store_worker *worker;
    unsigned number;
    uint64_t random, count;
};

static uint64_t pick(struct runner *r, uint64_t below)
{
    return store_random(&r->random) % below;
}

static struct store_key key_of(const struct race *race, const uint64_t *id)
{
    return store_key(race->store, (const uint8_t *)id, sizeof(*id));
}

static enum store_result put(struct runner *r, uint64_t id, size_t len, uint64_t ttl_ms, enum store_condition condition)
{
    static const uint8_t bytes[16384];
    struct store_key key = key_of(r->race, &id);
    struct store_put_args args = {
        .value = bytes, .value_len = len, .ttl_ms = ttl_ms, .condition = condition, .version_unwanted = true};
    return store_put(r->worker, &key, &args, NULL);
}

static bool is_done(const struct race *race)
{
    return __atomic_load_n(&race->done, __ATOMIC_ACQUIRE);
}

static void begin(struct race *race, struct runner *runners, unsigned count, size_t memory, enum store_eviction eviction)
{
    struct store_config config = {.memory_bytes = memory, .eviction = eviction, .max_workers = count};
    *race = (struct race){.done = false};
    assert_int_equal(store_create(&config, &race->store), 0);
    for (unsigned i = 0; i < count; i++) {
        runners[i] = (struct runner){.race = race, .number = i, .random = i + 1};
        assert_int_equal(store_worker_attach(race->store, &runners[i].worker), 0);
    }
}

static void end(struct race *race, struct runner *runners, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        store_quiesce(runners[i].worker);
    if (race->wrong != NULL)
        fail_msg("%s", race->wrong);
    const char *wrong = store_inspect(race->store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    for (unsigned i = 0; i < count; i++)
        store_worker_detach(runners[i].worker);
    store_destroy(race->store);
}

/* ---- readers at the bucket that is being split ---- */

#define STABLE 3000U

static uint64_t stable_hash[STABLE];
static uint64_t stable_version[STABLE]; /* As first seen; each is written by one reader only. */

/* The bucket that is split next, and the bit that decides about its items. */
static struct store_bucket *next_split(const struct store *store, uint64_t *bit)
{
    uint64_t count = store_load(&store->bucket_count);
    *bit = (uint64_t)1 << (63 - __builtin_clzll(count));
    return &store->buckets[count - *bit];
}

static void read_stable(struct runner *r, uint64_t id)
{
    struct race *race = r->race;
    struct store_key key = key_of(race, &id);
    struct store_view view;
    if (store_get(r->worker, &key, &view) != STORE_OK)
        race->wrong = "a stable key was missed";
    else if (stable_version[id] == 0)
        stable_version[id] = view.version;
    else if (stable_version[id] != view.version)
        race->wrong = "a version changed by itself";
    r->count++;
}

/* The reader looks up the keys of a bucket, of which half are its own, from the moment on in which that is locked. */
static void *read_at_the_split(void *argument)
{
    struct runner *r = argument;
    const struct store *store = r->race->store;
    while (!is_done(r->race) && r->race->wrong == NULL) {
        uint64_t bit;
        struct store_bucket *home = next_split(store, &bit);
        for (unsigned i = 0; i < 50 && (store_load(&home->control) & STORE_LOCK) == 0 && !is_done(r->race); i++)
            sched_yield();
        for (uint64_t id = r->number; id < STABLE; id += 2) {
            if (&store->buckets[stable_hash[id] & (bit - 1)] == home)
                read_stable(r, id);
        }
        store_quiesce(r->worker);
        __atomic_fetch_add(&r->race->turns, 1, __ATOMIC_SEQ_CST);
    }
    store_quiesce(r->worker);
    return NULL;
}

/* Every few puts lead to a few splits; the readers have their turn in between. */
static void *grow(void *argument)
{
    struct runner *r = argument;
    for (uint64_t id = 2 * STABLE; id < GROWTH && r->race->wrong == NULL; id++) {
        if (put(r, id, 4, STORE_NEVER, STORE_ALWAYS) != STORE_OK)
            r->race->wrong = "the store was too small";
        store_quiesce(r->worker);
        uint64_t turns = __atomic_load_n(&r->race->turns, __ATOMIC_ACQUIRE);
        for (unsigned i = 0; id % 16 == 0 && i < 100 && __atomic_load_n(&r->race->turns, __ATOMIC_ACQUIRE) == turns; i++)
            sched_yield();
    }
    __atomic_store_n(&r->race->done, true, __ATOMIC_RELEASE);
    return NULL;
}

/* Half of what is in the segments of stable keys goes, then all room is needed: so these segments are compacted. */
static void move_all(struct runner *r)
{
    struct store_stats stats;
    uint64_t id = STABLE;
    for (; id < 2 * STABLE; id++) {
        struct store_key key = key_of(r->race, &id);
        assert_int_equal(store_delete(r->worker, &key), STORE_OK);
    }
    for (id = GROWTH; put(r, id, 3000, STORE_NEVER, STORE_ALWAYS) == STORE_OK; id++)
        store_quiesce(r->worker);
    for (uint64_t i = 0; i < 5 * (id - GROWTH); i++) {
        (void)put(r, GROWTH + pick(r, id - GROWTH), 3000, STORE_NEVER, STORE_ALWAYS);
        store_quiesce(r->worker);
    }
    store_stats(r->race->store, &stats);
    assert_true(stats.moved_bytes > (uint64_t)STABLE * 20);
}

static void test_readers_at_the_split(void **state)
{
    (void)state;
    struct race race;
    struct runner runners[3];
    begin(&race, runners, 3, (size_t)8 << 20, STORE_REFUSE);
    memset(stable_version, 0, sizeof(stable_version));
    for (uint64_t id = 0; id < STABLE; id++) { /* Each beside one that will be deleted. */
        stable_hash[id] = key_of(&race, &id).hash;
        assert_int_equal(put(&runners[2], id, 20, STORE_NEVER, STORE_ALWAYS), STORE_OK);
        assert_int_equal(put(&runners[2], STABLE + id, 20, STORE_NEVER, STORE_ALWAYS), STORE_OK);
    }
    uint64_t buckets = race.store->bucket_count;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&runners[i].thread, NULL, i < 2 ? read_at_the_split : grow, &runners[i]), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(runners[i].thread, NULL);
    if (race.wrong == NULL) {
        assert_true(runners[0].count + runners[1].count > 100 && race.store->bucket_count > 2 * buckets);
        move_all(&runners[2]);
        for (uint64_t id = 0; id < STABLE; id++)
            read_stable(&runners[0], id);
    }
    end(&race, runners, 3);
}

/* ---- beside a flush ---- */

static void *tick_on(void *argument)
{
    struct runner *r = argument;
    while (!is_done(r->race)) {
        (void)store_tick(r->worker);
        store_quiesce(r->worker);
    }
    return NULL;
}

/* What was there before a flush is not there after it, however quick another worker is to clean up. */
static void test_no_hit_after_a_flush(void **state)
{
    (void)state;
    struct race race;
    struct runner runners[2];
    struct store_view view;
    begin(&race, runners, 2, STORE_MIN_MEMORY, STORE_REFUSE);
    assert_int_equal(pthread_create(&runners[1].thread, NULL, tick_on, &runners[1]), 0);
    for (unsigned i = 0; i < FLUSHES && race.wrong == NULL; i++) {
        uint64_t id = i % 4;
        struct store_key key = key_of(&race, &id);
        (void)put(&runners[0], id, i % 2 == 0 ? 40 : 4000, STORE_NEVER, STORE_ALWAYS);
        store_quiesce(runners[0].worker);
        store_flush(runners[0].worker);
        (void)store_tick(runners[0].worker); /* Closes its segment; the rest is for the other, beside the reads. */
        for (unsigned n = 0; n < 4; n++) {
            if (store_get_value(runners[0].worker, &key, &view) == STORE_OK)
                race.wrong = "a hit after a flush";
        }
        store_quiesce(runners[0].worker);
    }
    __atomic_store_n(&race.done, true, __ATOMIC_RELEASE);
    pthread_join(runners[1].thread, NULL);
    end(&race, runners, 2);
}

/* A page that cannot be read: who does is stopped there, and the other worker cleans up after the flush, to its end. */
static struct {
    uint8_t *page;
    struct runner *other;
} stopper;

static void clean_up_meanwhile(int signal_number)
{
    (void)signal_number;
    if (mprotect(stopper.page, 4096, PROT_READ) != 0)
        abort();
    for (unsigned i = 0; i < 1000 && store_load(&stopper.other->race->store->flushed) != 0; i++)
        (void)store_tick(stopper.other->worker);
}

/* The same to the instruction: the reader is stopped while it compares the key, its slot having been read. */
static void test_no_hit_by_a_reader_that_was_stopped(void **state)
{
    (void)state;
    struct race race;
    struct runner runners[2];
    struct store_view view;
    struct sigaction action = {.sa_handler = clean_up_meanwhile}, before;
    uint64_t id = 77;
    begin(&race, runners, 2, STORE_MIN_MEMORY, STORE_REFUSE);
    stopper.other = &runners[1];
    stopper.page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(stopper.page != MAP_FAILED);
    memcpy(stopper.page, &id, sizeof(id));
    struct store_key key = store_key(race.store, stopper.page, sizeof(id));
    assert_int_equal(put(&runners[1], id, 40, STORE_NEVER, STORE_ALWAYS), STORE_OK);
    assert_int_equal(store_get(runners[0].worker, &key, &view), STORE_OK);
    store_quiesce(runners[0].worker);
    store_flush(runners[1].worker);
    assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
    assert_int_equal(mprotect(stopper.page, 4096, PROT_NONE), 0);
    enum store_result result = store_get_value(runners[0].worker, &key, &view);
    assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
    assert_int_equal(store_load(&race.store->flushed), 0); /* It was stopped. */
    assert_int_equal(result, STORE_ABSENT);
    assert_int_equal(munmap(stopper.page, 4096), 0);
    end(&race, runners, 2);
}

/* Flushes, one for every few of the other's turns. */
static void *flush_on(void *argument)
{
    struct runner *r = argument;
    while (!is_done(r->race)) {
        uint64_t turns = __atomic_load_n(&r->race->turns, __ATOMIC_ACQUIRE);
        __atomic_fetch_add(&r->race->begun, 1, __ATOMIC_SEQ_CST);
        store_flush(r->worker);
        __atomic_fetch_add(&r->race->ended, 1, __ATOMIC_SEQ_CST);
        (void)store_tick(r->worker);
        store_quiesce(r->worker);
        for (uint64_t i = pick(r, 4); __atomic_load_n(&r->race->turns, __ATOMIC_ACQUIRE) < turns + i && !is_done(r->race);)
            sched_yield();
    }
    return NULL;
}

static enum store_result create(struct runner *r, uint64_t id, bool by_incr)
{
    struct store_key key = key_of(r->race, &id);
    struct store_incr_args args = {.has_initial = true, .initial = 7, .ttl_ms = STORE_NEVER};
    int64_t number = 0;
    if (!by_incr)
        return put(r, id, 30, STORE_NEVER, STORE_IF_ABSENT);
    enum store_result result = store_incr(r->worker, &key, &args, &number);
    return result == STORE_NOT_A_NUMBER ? STORE_EXISTS : result;
}

/*
 * A key is put, then created: that succeeds only if a flush came in between. Then what was created is there, unless there
 * was a second flush.
 */
static void test_no_write_is_lost_to_a_flush(void **state)
{
    (void)state;
    struct race race;
    struct runner runners[2];
    struct store_view view;
    uint64_t created = 0;
    begin(&race, runners, 2, STORE_MIN_MEMORY, STORE_REFUSE);
    assert_int_equal(pthread_create(&runners[1].thread, NULL, flush_on, &runners[1]), 0);
    for (unsigned i = 0; i < FLUSHES * 4 && race.wrong == NULL; i++) {
        uint64_t id = i % 4, ended = __atomic_load_n(&race.ended, __ATOMIC_SEQ_CST);
        struct store_key key = key_of(&race, &id);
        if (put(&runners[0], id, 50, STORE_NEVER, STORE_ALWAYS) != STORE_OK)
            continue;
        enum store_result result = create(&runners[0], id, i % 2 == 0);
        bool found = store_get(runners[0].worker, &key, &view) == STORE_OK;
        uint64_t begun = __atomic_load_n(&race.begun, __ATOMIC_SEQ_CST);
        created += result == STORE_OK;
        if (result == STORE_OK && begun == ended)
            race.wrong = "a key was created that was there";
        if (result == STORE_OK && !found && begun - ended < 2)
            race.wrong = "what was created is gone";
        if (result == STORE_EXISTS && !found && begun == ended)
            race.wrong = "a miss without a flush";
        store_quiesce(runners[0].worker);
        __atomic_fetch_add(&race.turns, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&race.done, true, __ATOMIC_RELEASE);
    pthread_join(runners[1].thread, NULL);
#ifdef CRAB_YIELD
    assert_true(race.wrong != NULL || created > 0); /* Else both threads may have had their turns one after the other. */
#endif
    (void)created;
    end(&race, runners, 2);
}

/* ---- compaction with little room ---- */

#define FILLERS     4U
#define FILLER_KEYS 2600U /* Of some 2 KiB: two thirds of 8 MiB. */

static void *fill(void *argument)
{
    static const uint64_t ttls[] = {3900, 50000, 100000, 3000000, STORE_NEVER, STORE_NEVER, STORE_NEVER};
    struct runner *r = argument;
    for (unsigned i = 0; i < FILLING; i++) {
        uint64_t id = pick(r, FILLER_KEYS);
        uint64_t ttl = ttls[pick(r, sizeof(ttls) / sizeof(ttls[0]))];
        struct store_key key = key_of(r->race, &id);
        if (pick(r, 3) == 0) /* Which copies an item that has none yet, and may use more of the last segments. */
            (void)store_expire(r->worker, &key, ttl);
        else
            r->count += put(r, id, pick(r, 4000), ttl, STORE_ALWAYS) == STORE_OK;
        store_quiesce(r->worker);
    }
    return NULL;
}

/* All workers write items of all kinds of times to live, to the brim. That never gets stuck: what is deleted gives room. */
static void test_mixed_times_to_live_to_the_brim(void **state)
{
    (void)state;
    struct race race;
    struct runner runners[FILLERS];
    begin(&race, runners, FILLERS, (size_t)8 << 20, STORE_REFUSE);
    for (unsigned i = 0; i < FILLERS; i++)
        assert_int_equal(pthread_create(&runners[i].thread, NULL, fill, &runners[i]), 0);
    for (unsigned i = 0; i < FILLERS; i++)
        pthread_join(runners[i].thread, NULL);
    for (uint64_t id = 0; id < FILLER_KEYS; id += 2) {
        struct store_key key = key_of(&race, &id);
        (void)store_delete(runners[0].worker, &key);
    }
    for (unsigned i = 0; i < FILLERS; i++) {
        store_quiesce(runners[i].worker);
        assert_true(runners[i].count > FILLING / 20);
    }
    for (uint64_t id = 0; id < FILLER_KEYS / 2; id += 2) {
        assert_int_equal(put(&runners[id / 2 % FILLERS], id, 1000, STORE_NEVER, STORE_ALWAYS), STORE_OK);
        store_quiesce(runners[id / 2 % FILLERS].worker);
    }
    end(&race, runners, FILLERS);
}

/*
 * Not one segment is free, and what is to be moved has times to live of a kind for which nobody has one open. It moves to
 * where there is room: else compaction, which alone makes room, would wait for itself.
 */
static void test_compaction_without_a_free_segment(void **state)
{
    (void)state;
    struct race race;
    struct runner runner;
    begin(&race, &runner, 1, (size_t)8 << 20, STORE_REFUSE);
    for (uint64_t id = 0; id < 640; id++) /* Ten segments. */
        assert_int_equal(put(&runner, id, 1000, 100000, STORE_ALWAYS), STORE_OK);
    for (uint64_t id = 0; id < 640; id++) {
        struct store_key key = key_of(&race, &id);
        if (id % 20 != 0)
            assert_int_equal(store_delete(runner.worker, &key), STORE_OK);
    }
    assert_int_equal(put(&runner, 1000, 100, STORE_NEVER, STORE_ALWAYS), STORE_OK);
    struct store *store = race.store;
    uint64_t bytes = store->limit - store->committed + ((uint64_t)store->free.count << store->segment_shift);
    assert_true(store_budget_take(store, bytes, 0));
    assert_int_equal(store_peek(&store->available), 0);
    for (uint64_t id = 1001; id < 1012; id++) {
        assert_int_equal(put(&runner, id, 15000, STORE_NEVER, STORE_ALWAYS), STORE_OK);
        store_quiesce(runner.worker);
    }
    for (uint64_t id = 0; id < 640; id += 20) {
        struct store_key key = key_of(&race, &id);
        assert_true(store_holds(store, &key));
    }
    store->committed -= bytes;
    store_update_available(store);
    end(&race, &runner, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers_at_the_split),
        cmocka_unit_test(test_no_hit_after_a_flush),
        cmocka_unit_test(test_no_hit_by_a_reader_that_was_stopped),
        cmocka_unit_test(test_no_write_is_lost_to_a_flush),
        cmocka_unit_test(test_mixed_times_to_live_to_the_brim),
        cmocka_unit_test(test_compaction_without_a_free_segment),
    };
    return cmocka_run_group_tests_name("store_races", tests, NULL, NULL);
}
