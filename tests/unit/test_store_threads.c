/* SPDX-License-Identifier: MIT */
/*
 * The store with many threads: values that prove themselves, views and pins that must not change while they
 * are held, counters that must add up. Meant for the thread sanitizer above all.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/store_support.h"

#define THREADS  4U
#define KEYS     200U
#define COUNTERS 4U
#define STEPS    20000U
#define VIEWS    8U
#define PINS     4U
#define MAX_LEN  90000U

struct kept {
    struct store_view view;
    uint64_t id;
    bool used;
};

struct team {
    struct store *store;
    bool numbers; /* Count, too: only where nothing is evicted or flushed. */
};

struct member {
    pthread_t thread;
    struct team *team;
    struct store_worker *worker;
    uint64_t random;
    struct kept views[VIEWS];
    unsigned view_count;
    struct kept pins[PINS];
    uint8_t *scratch;
    int64_t counted[COUNTERS];
    const char *wrong;
    uint64_t stored, hits;
};

static uint64_t pick(struct member *m, uint64_t below)
{
    return store_random(&m->random) % below;
}

static struct store_key key_of(const struct member *m, const uint64_t *id)
{
    return store_key(m->team->store, (const uint8_t *)id, sizeof(*id));
}

/* A value: the key's number, the seed of what follows, and these bytes. */
static void put(struct member *m, uint64_t id)
{
    uint64_t seed = store_random(&m->random);
    size_t len = 16 + (pick(m, 16) == 0 ? pick(m, MAX_LEN - 16) : pick(m, 500));
    memcpy(m->scratch, &id, 8);
    memcpy(m->scratch + 8, &seed, 8);
    store_fill(m->scratch + 16, len - 16, seed ^ len ^ id);
    struct store_key key = key_of(m, &id);
    struct store_put_args args = {.value = m->scratch,
                                  .value_len = len,
                                  .ttl_ms = pick(m, 3) == 0 ? 1 + pick(m, 20) : STORE_NEVER,
                                  .app_flags = (uint32_t)len,
                                  .condition = (enum store_condition)pick(m, 3)};
    enum store_result result = store_put(m->worker, &key, &args, NULL);
    m->stored += result == STORE_OK;
    if (result == STORE_TOO_LARGE)
        m->wrong = "a put was too large";
}

static void check(struct member *m, const struct store_view *view, uint64_t id)
{
    uint64_t seed, written;
    if (view->value_len < 16 || view->app_flags != view->value_len || view->ttl_ms == 0 ||
        view->version == 0) {
        m->wrong = "a view is incomplete";
        return;
    }
    memcpy(&written, view->value, 8);
    memcpy(&seed, view->value + 8, 8);
    if (written != id)
        m->wrong = "another key's value";
    else if (!store_filled(view->value + 16, view->value_len - 16, seed ^ view->value_len ^ id))
        m->wrong = "torn bytes";
}

static void quiesce(struct member *m)
{
    for (unsigned i = 0; i < m->view_count; i++)
        check(m, &m->views[i].view, m->views[i].id);
    m->view_count = 0;
    store_quiesce(m->worker);
}

static void get(struct member *m, uint64_t id)
{
    struct store_key key = key_of(m, &id);
    struct store_view view;
    store_prefetch_index(m->team->store, key.hash);
    struct store_hint hint = {.item = NULL};
    store_locate(m->team->store, key.hash, &hint);
    if (hint.overflow)
        store_locate(m->team->store, key.hash, &hint);
    store_prefetch_item(&hint, 64);
    enum store_result result = pick(m, 4) == 0 ? store_touch(m->worker, &key, 1 + pick(m, 50), &view)
                                               : store_get(m->worker, &key, &view);
    if (result != STORE_OK)
        return;
    m->hits++;
    check(m, &view, id);
    if (m->view_count == VIEWS)
        quiesce(m);
    else
        m->views[m->view_count++] = (struct kept){.view = view, .id = id};
    struct kept *pin = &m->pins[pick(m, PINS)];
    if (pick(m, 8) != 0 || m->view_count == 0)
        return;
    if (pin->used) {
        check(m, &pin->view, pin->id);
        store_unpin(m->worker, pin->view.pin);
        pin->used = false;
    } else if (store_pin(m->worker, &view)) {
        *pin = (struct kept){.view = view, .id = id, .used = true};
    }
}

static void count(struct member *m)
{
    uint64_t which = pick(m, COUNTERS);
    uint64_t id = 1000000 + which;
    struct store_key key = key_of(m, &id);
    struct store_incr_args args = {
        .delta = pick(m, 100), .negative = pick(m, 2) == 0, .has_initial = true, .ttl_ms = STORE_NEVER};
    int64_t number;
    enum store_result result = store_incr(m->worker, &key, &args, &number);
    if (result == STORE_OK)
        m->counted[which] += args.negative ? -(int64_t)args.delta : (int64_t)args.delta;
    else if (result != STORE_NO_MEMORY)
        m->wrong = "a counter is no number";
}

static void step(struct member *m)
{
    uint64_t id = pick(m, KEYS);
    struct store_key key = key_of(m, &id);
    struct store_stats stats;
    switch (pick(m, 12)) {
    case 0:
    case 1:
    case 2:
        put(m, id);
        break;
    case 3:
        (void)store_delete(m->worker, &key);
        break;
    case 4:
        (void)store_expire(m->worker, &key, 1 + pick(m, 30));
        break;
    case 5:
        (void)store_tick(m->worker);
        store_stats(m->team->store, &stats);
        break;
    case 6:
        if (m->team->numbers)
            count(m);
        else if (pick(m, 200) == 0)
            store_flush(m->worker);
        break;
    case 7:
        quiesce(m);
        if (pick(m, 4) == 0)
            sched_yield();
        break;
    default:
        get(m, id);
        break;
    }
}

static void *run_member(void *argument)
{
    struct member *m = argument;
    for (unsigned i = 0; i < STEPS * store_test_scale() && m->wrong == NULL; i++)
        step(m);
    quiesce(m);
    for (unsigned i = 0; i < PINS; i++) {
        if (m->pins[i].used) {
            check(m, &m->pins[i].view, m->pins[i].id);
            store_unpin(m->worker, m->pins[i].view.pin);
        }
    }
    return NULL;
}

static void check_counters(struct member *members)
{
    for (uint64_t i = 0; i < COUNTERS; i++) {
        int64_t sum = 0, number = 0;
        for (unsigned t = 0; t < THREADS; t++)
            sum += members[t].counted[i];
        uint64_t id = 1000000 + i;
        struct store_key key = key_of(&members[0], &id);
        struct store_incr_args none = {.delta = 0};
        assert_int_equal(store_incr(members[0].worker, &key, &none, &number), STORE_OK);
        assert_int_equal(number, sum);
    }
}

static void run_team(enum store_eviction eviction, size_t memory, bool numbers)
{
    struct team team = {.numbers = numbers};
    struct store_config config = {
        .memory_bytes = memory, .eviction = eviction, .max_workers = THREADS};
    assert_int_equal(store_create(&config, &team.store), 0);
    struct member *members = calloc(THREADS, sizeof(*members));
    assert_non_null(members);
    for (unsigned i = 0; i < THREADS; i++) {
        members[i].team = &team;
        members[i].random = i + 1;
        members[i].scratch = malloc(MAX_LEN);
        assert_non_null(members[i].scratch);
        assert_int_equal(store_worker_attach(team.store, &members[i].worker), 0);
    }
    if (numbers) { /* The counters are there before anybody counts: what creates one does not add. */
        for (uint64_t i = 0; i < COUNTERS; i++) {
            uint64_t id = 1000000 + i;
            struct store_key key = key_of(&members[0], &id);
            struct store_put_args zero = {
                .value = (const uint8_t *)"0", .value_len = 1, .ttl_ms = STORE_NEVER};
            assert_int_equal(store_put(members[0].worker, &key, &zero, NULL), STORE_OK);
        }
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&members[i].thread, NULL, run_member, &members[i]), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(members[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        if (members[i].wrong != NULL)
            fail_msg("%s", members[i].wrong);
        assert_true(members[i].stored > 0 && members[i].hits > 0);
    }
    const char *wrong = store_inspect(team.store);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    if (numbers)
        check_counters(members);
    struct store_stats stats;
    store_stats(team.store, &stats);
    assert_int_equal(stats.pinned, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        store_worker_detach(members[i].worker);
        free(members[i].scratch);
    }
    free(members);
    store_destroy(team.store);
}

static void test_threads_evict(void **state)
{
    (void)state;
    run_team(STORE_EVICT, STORE_MIN_MEMORY, false);
}

static void test_threads_refuse(void **state)
{
    (void)state;
    run_team(STORE_REFUSE, STORE_MIN_MEMORY, false);
}

static void test_threads_count(void **state)
{
    (void)state;
    run_team(STORE_REFUSE, STORE_MIN_MEMORY, true);
    run_team(STORE_REFUSE, 8 * STORE_MIN_MEMORY, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_evict),
        cmocka_unit_test(test_threads_refuse),
        cmocka_unit_test(test_threads_count),
    };
    return cmocka_run_group_tests_name("store_threads", tests, NULL, NULL);
}
