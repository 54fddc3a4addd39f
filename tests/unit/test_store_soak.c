/* SPDX-License-Identifier: MIT */
/*
 * A great number of reads, each verified, while everything else goes on: writes, deletes, expiry, evictions, growth,
 * compaction, flushes, housekeeping, sleeping workers. Every value proves itself: that it is this key's, whole, and of its
 * length. One round after the other, each with a new store that starts empty.
 *
 * CRAB_VERIFIED_READS=N: so many verified reads in all. `make soak-store` is this test with a thousand million of them, and
 * forced yields.
 */
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#define THREADS     4U
#define ROUND_READS ((uint64_t)10000000) /* Verified in one round, at most. */
#define PATIENCE    100U                 /* Looks for each verified read, at most. */
#define MAX_LEN     60000U

#if defined(CRAB_YIELD) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define VERIFIED_READS ((uint64_t)300000)
#else
#define VERIFIED_READS ((uint64_t)2000000)
#endif

struct round {
    enum store_eviction eviction;
    size_t memory;
    uint64_t keys; /* Of which the first eighth is asked for most. */
    uint64_t fill; /* Puts of each thread before all else. */
    bool ttls;
    struct store *store;
    uint64_t quota; /* Verified reads of each thread. */
};

struct member {
    pthread_t thread;
    struct round *round;
    struct store_worker *worker;
    uint64_t random, verified, flushes;
    const char *wrong;
    uint8_t bytes[MAX_LEN + 8];
};

struct totals {
    uint64_t rounds, verified, misses, flushes, puts, deletes, evictions, expirations, moved, refusals, waits, slots;
};

static uint64_t pick(struct member *m, uint64_t below)
{
    return store_random(&m->random) % below;
}

static struct store_key key_of(const struct member *m, const uint64_t *id)
{
    return store_key(m->round->store, (const uint8_t *)id, sizeof(*id));
}

/* A value: its seed, and the bytes that follow from seed and key, as many as the seed says. */
static size_t len_of(uint64_t seed)
{
    uint64_t kind = seed >> 50;
    size_t most = kind == 0 ? MAX_LEN : kind < 1024 ? 3000 : 64;
    return 8 + (seed & 0xffffffff) % most;
}

static void put(struct member *m, const struct store_key *key, uint64_t id)
{
    uint64_t seed = store_random(&m->random);
    size_t len = len_of(seed);
    memcpy(m->bytes, &seed, 8);
    store_fill(m->bytes + 8, len - 8, seed ^ id);
    struct store_put_args args = {.value = m->bytes, .value_len = len, .ttl_ms = STORE_NEVER, .version_unwanted = true};
    if (m->round->ttls && pick(m, 6) == 0)
        args.ttl_ms = 1 + pick(m, 200);
    (void)store_put(m->worker, key, &args, NULL);
}

static void read_one(struct member *m, const struct store_key *key, uint64_t id)
{
    struct store_view view;
    uint64_t seed;
    enum store_result result = id % 4 == 0 ? store_get(m->worker, key, &view) : store_get_value(m->worker, key, &view);
    if (result != STORE_OK)
        return;
    if (view.value_len < 8) {
        m->wrong = "a value that is too short";
        return;
    }
    memcpy(&seed, view.value, 8);
    if (view.value_len != len_of(seed))
        m->wrong = "a value of a wrong length";
    else if (!store_filled(view.value + 8, view.value_len - 8, seed ^ id))
        m->wrong = "a value that is torn, or another key's";
    m->verified++;
}

/* The rare things. */
static void disturb(struct member *m, const struct store_key *key)
{
    uint64_t what = pick(m, 4096);
    struct store_view view;
    if (what < 1500)
        (void)store_delete(m->worker, key);
    else if (what < 1800 && m->round->ttls)
        (void)store_expire(m->worker, key, 1 + what % 256);
    else if (what < 2000)
        (void)store_touch(m->worker, key, STORE_NEVER, &view);
    else if (what < 3000)
        (void)store_tick(m->worker);
    else if (what == 3000)
        usleep(500); /* With a view, perhaps. */
    if (what == 3001 && pick(m, 4) == 0) {
        store_flush(m->worker);
        m->flushes++;
    }
}

static void *run_member(void *argument)
{
    struct member *m = argument;
    const struct round *round = m->round;
    for (uint64_t i = 0; m->verified < round->quota && m->wrong == NULL; i++) {
        if (i > round->quota * PATIENCE + 1000000)
            m->wrong = "hardly anything is found";
        uint64_t id = pick(m, pick(m, 4) == 0 ? round->keys : round->keys / 8);
        struct store_key key = key_of(m, &id);
        uint64_t what = pick(m, 64);
        if (i < round->fill)
            put(m, &key, id);
        else if (what < 54)
            read_one(m, &key, id);
        else if (what < 62)
            put(m, &key, id);
        else
            disturb(m, &key);
        if (i % 64 == 0)
            store_quiesce(m->worker);
    }
    store_quiesce(m->worker);
    return NULL;
}

static void add_up(struct totals *totals, const struct store_stats *stats)
{
    totals->rounds++;
    totals->misses += stats->misses;
    totals->puts += stats->puts;
    totals->deletes += stats->deletes;
    totals->evictions += stats->evictions;
    totals->expirations += stats->expirations;
    totals->moved += stats->moved_bytes;
    totals->refusals += stats->refusals;
    totals->waits += stats->grace_waits;
    totals->slots += stats->index_slots;
}

static void *run_ahead(void *store)
{
    store_ahead_run(store);
    return NULL;
}

static void run_round(struct round *round, uint64_t number, struct totals *totals)
{
    struct store_config config = {.memory_bytes = round->memory, .eviction = round->eviction, .max_workers = THREADS};
    struct member *members = calloc(THREADS, sizeof(*members));
    struct store_stats stats;
    pthread_t ahead;
    assert_non_null(members);
    assert_int_equal(store_create(&config, &round->store), 0);
    assert_int_equal(pthread_create(&ahead, NULL, run_ahead, round->store), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        members[i].round = round;
        members[i].random = number * THREADS + i;
        assert_int_equal(store_worker_attach(round->store, &members[i].worker), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&members[i].thread, NULL, run_member, &members[i]), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(members[i].thread, NULL);
    store_ahead_stop(round->store);
    pthread_join(ahead, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        if (members[i].wrong != NULL)
            fail_msg("round %" PRIu64 ": %s", number, members[i].wrong);
        totals->verified += members[i].verified;
        totals->flushes += members[i].flushes;
    }
    const char *wrong = store_inspect(round->store);
    if (wrong != NULL)
        fail_msg("round %" PRIu64 ": %s", number, wrong);
    store_stats(round->store, &stats);
    add_up(totals, &stats);
    for (unsigned i = 0; i < THREADS; i++)
        store_worker_detach(members[i].worker);
    store_destroy(round->store);
    free(members);
}

static void print_totals(const struct totals *t, time_t began)
{
    print_message("%" PRIu64 " verified reads in %" PRIu64 " rounds and %ld s: %" PRIu64 " puts, %" PRIu64 " misses, %" PRIu64
                  " deletes, %" PRIu64 " expirations, %" PRIu64 " evictions, %" PRIu64 " flushes, %" PRIu64
                  " refusals, %" PRIu64 " MiB moved, %" PRIu64 " grace waits, %" PRIu64 " slots\n",
                  t->verified, t->rounds, (long)(time(NULL) - began), t->puts, t->misses, t->deletes, t->expirations,
                  t->evictions, t->flushes, t->refusals, t->moved >> 20, t->waits, t->slots);
}

static void test_verified_reads(void **state)
{
    (void)state;
    static const struct round kinds[] = {
        {.eviction = STORE_EVICT, .memory = STORE_MIN_MEMORY, .keys = 30000, .fill = 8000, .ttls = true},
        {.eviction = STORE_REFUSE, .memory = 2 * STORE_MIN_MEMORY, .keys = 20000, .fill = 8000, .ttls = true},
        {.eviction = STORE_EVICT, .memory = (size_t)24 << 20, .keys = 300000},
        {.eviction = STORE_REFUSE, .memory = (size_t)64 << 20, .keys = 200000},
    };
    const unsigned count = sizeof(kinds) / sizeof(kinds[0]);
    const char *text = getenv("CRAB_VERIFIED_READS");
    uint64_t wanted = text == NULL ? VERIFIED_READS : strtoull(text, NULL, 10);
    struct totals totals = {.rounds = 0};
    time_t began = time(NULL);
    while (totals.verified < wanted) {
        struct round round = kinds[totals.rounds % count];
        uint64_t reads = wanted / count < ROUND_READS ? wanted / count : ROUND_READS;
        round.quota = reads / THREADS + 1;
        run_round(&round, totals.rounds, &totals);
        if (totals.rounds % count == 0 && totals.verified < wanted)
            print_totals(&totals, began);
    }
    print_totals(&totals, began);
    assert_true(totals.expirations > 0 && totals.evictions > 0 && totals.moved > 0);
    assert_true(totals.slots > totals.rounds * 5000); /* The indexes have grown, from 3584. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verified_reads),
    };
    return cmocka_run_group_tests_name("store_soak", tests, NULL, NULL);
}
