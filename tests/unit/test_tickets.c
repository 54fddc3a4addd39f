/* SPDX-License-Identifier: MIT */
/*
 * Requests that nobody waits for at once: tickets, callbacks, crab_client_run(); many keys in one call; values that are loaded once.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "crabcache/crabcache.h"
#include "tests/support/counting.h"
#include "tests/support/serve.h"

static struct crab_client *open_client(const struct serve *a, const struct serve *b, const char *parameters,
                                       const struct crab_client_options *options)
{
    char uri[256];
    struct crab_client *client = NULL;
    struct crab_failure failure;
    if (b != NULL)
        (void)snprintf(uri, sizeof uri, "crab://127.0.0.1:%u,127.0.0.1:%u?%s", (unsigned)a->port, (unsigned)b->port, parameters);
    else
        (void)snprintf(uri, sizeof uri, "crab://127.0.0.1:%u?%s", (unsigned)a->port, parameters);
    if (crab_client_open(uri, options, &client, &failure) != CRAB_OK)
        fail_msg("%s", failure.text);
    return client;
}

static size_t key_of(char *key, size_t i)
{
    return (size_t)snprintf(key, 32, "key %zu", i);
}

/* ---- tickets */

static void tickets_are_answered_in_any_order(void **state)
{
    enum { N = 300 };
    static struct serve serve;
    struct crab_ticket *tickets[N];
    struct crab_result result;
    char key[32];
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, NULL, "timeout=20000", NULL);
    for (size_t i = 0; i < N; i++) {
        size_t len = key_of(key, i);
        assert_int_equal(crab_client_submit_put(client, key, len, key, len, NULL, NULL, &tickets[i]), CRAB_OK);
    }
    for (size_t i = 0; i < N; i++)
        crab_ticket_release(tickets[i]); /* given up, but executed, as they were queued before what follows */
    for (size_t i = 0; i < N; i++)
        assert_int_equal(crab_client_submit_get(client, key, key_of(key, i), NULL, &tickets[i]), CRAB_OK);
    for (size_t i = N; i-- > 0;) {
        size_t len = key_of(key, i);
        assert_int_equal(crab_ticket_wait(tickets[i], &result), CRAB_OK);
        assert_int_equal(result.value.len, len);
        assert_memory_equal(result.value.data, key, len);
        crab_ticket_release(tickets[i]);
    }
    assert_int_equal(crab_client_submit_del(client, key, key_of(key, 3), NULL, &tickets[0]), CRAB_OK);
    enum crab_status status;
    while ((status = crab_ticket_poll(tickets[0], NULL)) == CRAB_EMPTY)
        ;
    assert_int_equal(status, CRAB_OK);
    crab_ticket_release(tickets[0]);
    crab_ticket_release(NULL);
    crab_client_close(client);
    serve_end(&serve);
}

static void the_bound_is_kept_and_bad_arguments_refused(void **state)
{
    static struct serve serve;
    struct crab_ticket *tickets[8];
    struct crab_ticket *more = NULL;
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, NULL, "timeout=20000&max_in_flight=8", NULL);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(crab_client_submit_get(client, "k", 1, NULL, &tickets[i]), CRAB_OK);
    assert_int_equal(crab_client_submit_get(client, "k", 1, NULL, &more), CRAB_E_FULL);
    assert_int_equal(crab_ticket_wait(tickets[0], NULL), CRAB_MISS);
    struct crab_value value = {0}; /* who waits for room gets it */
    assert_int_equal(crab_client_get(client, "k", 1, &value, NULL), CRAB_MISS);
    for (size_t i = 0; i < 8; i++)
        crab_ticket_release(tickets[i]);
    assert_int_equal(crab_client_submit_get(client, "", 0, NULL, &more), CRAB_E_INVALID);
    assert_int_equal(crab_client_submit_get(client, "k", 1, NULL, NULL), CRAB_E_INVALID);
    assert_null(more);
    crab_client_close(client);
    serve_end(&serve);
}

static void tickets_end_by_their_deadline_or_when_cancelled(void **state)
{
    static struct serve serve;
    struct crab_ticket *ticket;
    struct crab_failure failure;
    struct crab_submit_options soon = {.timeout_ms = 30};
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, NULL, "timeout=20000", NULL);
    assert_int_equal(crab_client_ping(client, NULL), CRAB_OK);
    serve_hang(&serve, true);
    assert_int_equal(crab_client_submit_get(client, "k", 1, &soon, &ticket), CRAB_OK);
    assert_int_equal(crab_ticket_failure(ticket, &failure), CRAB_EMPTY);
    assert_int_equal(crab_ticket_wait(ticket, NULL), CRAB_E_TIMEOUT);
    assert_int_equal(crab_ticket_failure(ticket, &failure), CRAB_OK);
    assert_int_equal(failure.status, CRAB_E_TIMEOUT);
    crab_ticket_release(ticket);
    assert_int_equal(crab_client_submit_get(client, "k", 1, &soon, &ticket), CRAB_OK);
    enum crab_status status;
    while ((status = crab_ticket_poll(ticket, NULL)) == CRAB_EMPTY)
        (void)usleep(1000);
    assert_int_equal(status, CRAB_E_TIMEOUT);
    crab_ticket_release(ticket);
    assert_int_equal(crab_client_submit_get(client, "k", 1, NULL, &ticket), CRAB_OK);
    crab_ticket_cancel(ticket);
    assert_int_equal(crab_ticket_wait(ticket, NULL), CRAB_E_CANCELLED);
    crab_ticket_cancel(ticket);
    crab_ticket_release(ticket);
    assert_int_equal(crab_client_submit_put(client, "k", 1, "v", 1, NULL, NULL, &ticket), CRAB_OK);
    crab_ticket_cancel(ticket);
    assert_int_equal(crab_ticket_wait(ticket, NULL), CRAB_E_OUTCOME_UNKNOWN);
    crab_ticket_release(ticket);
    serve_hang(&serve, false);
    assert_int_equal(crab_client_ping(client, NULL), CRAB_OK);
    crab_client_close(client);
    serve_end(&serve);
}

/* ---- callbacks */

struct tally {
    struct crab_client *client;
    unsigned answers;
    unsigned failures;
    unsigned chained;
};

static void count_only(void *context, const struct crab_result *result)
{
    struct tally *tally = context;
    if (crab_status_failed(result->status))
        tally->failures++;
    else
        tally->answers++;
}

/* A callback may submit, and make blocking calls on the same connection. */
static void go_on(void *context, const struct crab_result *result)
{
    struct tally *tally = context;
    struct crab_submit_options next = {.done = count_only, .context = tally};
    struct crab_value value = {0};
    assert_int_equal(result->status, CRAB_OK);
    assert_int_equal(crab_client_get(tally->client, "k", 1, &value, NULL), CRAB_OK);
    assert_int_equal(crab_client_submit_get(tally->client, "k", 1, &next, NULL), CRAB_OK);
    tally->chained++;
    crab_value_fini(&value);
}

static void callbacks_are_called(void **state)
{
    static struct serve a;
    static struct serve b;
    char key[32];
    (void)state;
    serve_start(&a);
    serve_start(&b);
    struct tally tally = {.client = open_client(&a, &b, "timeout=20000&connections=2", NULL)};
    struct crab_submit_options chain = {.done = go_on, .context = &tally};
    struct crab_submit_options plain = {.done = count_only, .context = &tally};
    assert_int_equal(crab_client_run(tally.client, 0), CRAB_OK); /* nothing to do */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(crab_client_submit_put(tally.client, "k", 1, "v", 1, NULL, &chain, NULL), CRAB_OK);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(crab_client_submit_get(tally.client, key, key_of(key, i), &plain, NULL), CRAB_OK);
    assert_int_equal(crab_client_run(tally.client, 20000), CRAB_OK);
    assert_int_equal(tally.chained, 10);
    assert_int_equal(tally.answers, 110);
    assert_int_equal(tally.failures, 0);

    /* Deadlines of callbacks are kept by who runs; the end of a connection calls back as well. */
    struct crab_submit_options soon = {.done = count_only, .context = &tally, .timeout_ms = 30};
    serve_hang(&a, true);
    serve_hang(&b, true);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(crab_client_submit_get(tally.client, key, key_of(key, i), &soon, NULL), CRAB_OK);
    assert_int_equal(crab_client_run(tally.client, 1), CRAB_E_TIMEOUT);
    assert_int_equal(crab_client_run(tally.client, CRAB_NO_TIMEOUT), CRAB_OK);
    assert_int_equal(tally.failures, 10);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(crab_client_submit_get(tally.client, key, key_of(key, i), &plain, NULL), CRAB_OK);
    serve_stop(&a);
    serve_stop(&b);
    assert_int_equal(crab_client_run(tally.client, 20000), CRAB_OK);
    assert_int_equal(tally.failures, 20);
    crab_client_close(tally.client);
    serve_end(&a);
    serve_end(&b);
}

/* ---- many keys */

static void many_keys_in_one_call(void **state)
{
    enum { N = 1000 };
    static struct serve a;
    static struct serve b;
    static struct crab_slice keys[N];
    static struct crab_pair pairs[N];
    static struct crab_value values[N];
    static enum crab_status statuses[N];
    static char names[N][32];
    (void)state;
    serve_start(&a);
    serve_start(&b);
    struct crab_client *client = open_client(&a, &b, "timeout=20000&max_in_flight=64", NULL);
    for (size_t i = 0; i < N; i++) {
        keys[i] = (struct crab_slice){.data = (const uint8_t *)names[i], .len = key_of(names[i], i)};
        pairs[i] = (struct crab_pair){.key = keys[i], .value = keys[i]};
    }
    assert_int_equal(crab_client_put_many(client, pairs, N, NULL, NULL, NULL), CRAB_OK);
    assert_int_equal(crab_client_del_many(client, keys, 10, NULL, statuses), CRAB_OK);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(crab_client_get_many(client, keys, N, values, NULL, statuses), CRAB_OK);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(statuses[i], i < 10 ? CRAB_MISS : CRAB_OK);
            if (i >= 10) {
                assert_int_equal(values[i].len, keys[i].len);
                assert_memory_equal(values[i].data, keys[i].data, keys[i].len);
            }
        }
    }
    assert_int_equal(crab_client_get_many(client, keys, 0, values, NULL, statuses), CRAB_OK);
    /* One server is gone: its keys fail, the others do not. */
    serve_stop(&b);
    struct crab_failure failure;
    struct crab_call_options options = {.failure = &failure};
    assert_true(crab_status_failed(crab_client_get_many(client, keys, N, values, &options, statuses)));
    assert_true(crab_status_failed(failure.status));
    for (size_t i = 10; i < N; i++)
        assert_int_equal(statuses[i] == CRAB_OK, crab_client_server_of(client, keys[i].data, keys[i].len) == 0);
    for (size_t i = 0; i < N; i++)
        crab_value_fini(&values[i]);
    crab_client_close(client);
    serve_end(&a);
    serve_end(&b);
}

/* ---- fetch */

struct source {
    struct crab_client *client;
    _Atomic unsigned loads;
    enum crab_status answer;
    unsigned slow_us;
};

static enum crab_status load(void *context, const void *key, size_t key_len, struct crab_value *value)
{
    struct source *source = context;
    atomic_fetch_add(&source->loads, 1);
    (void)usleep(source->slow_us);
    return source->answer == CRAB_OK ? crab_value_set(value, key, key_len) : source->answer;
}

static void *fetch_once(void *argument)
{
    struct source *source = argument;
    struct crab_value value = {0};
    enum crab_status status = crab_fetch(source->client, "popular", 7, 60000, load, source, NULL, &value);
    bool good = status == CRAB_OK && value.len == 7 && memcmp(value.data, "popular", 7) == 0;
    crab_value_fini(&value);
    return good ? source : NULL;
}

static void a_value_is_loaded_once(void **state)
{
    enum { N = 8 };
    static struct serve serve;
    pthread_t threads[N];
    struct crab_value value = {0};
    struct crab_item item;
    (void)state;
    serve_start(&serve);
    struct source source = {.client = open_client(&serve, NULL, "timeout=20000", NULL), .slow_us = 200000};
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fetch_once, &source), 0);
    for (unsigned i = 0; i < N; i++) {
        void *good;
        (void)pthread_join(threads[i], &good);
        assert_non_null(good);
    }
    assert_int_equal(source.loads, 1);
    assert_int_equal(crab_client_get_meta(source.client, "popular", 7, 0, &value, NULL, &item), CRAB_OK);
    assert_in_range(item.ttl_ms, 1, 60000);

    source.slow_us = 0;
    source.answer = CRAB_MISS;
    assert_int_equal(crab_fetch(source.client, "x", 1, 0, load, &source, NULL, &value), CRAB_MISS);
    source.answer = CRAB_E_SYSTEM;
    assert_int_equal(crab_fetch(source.client, "x", 1, 0, load, &source, NULL, &value), CRAB_E_LOADER);
    assert_int_equal(crab_fetch(source.client, "", 0, 0, load, &source, NULL, &value), CRAB_E_INVALID);
    assert_int_equal(source.loads, 3);
    /* The cache is down: the value comes nevertheless. */
    serve_stop(&serve);
    source.answer = CRAB_OK;
    struct crab_failure failure = {.status = CRAB_OK};
    struct crab_call_options options = {.failure = &failure};
    assert_int_equal(crab_fetch(source.client, "y", 1, 0, load, &source, &options, &value), CRAB_OK);
    assert_true(crab_status_failed(failure.status));
    assert_memory_equal(value.data, "y", 1);
    crab_value_fini(&value);
    crab_client_close(source.client);
    serve_end(&serve);
}

static void *fetch_slowly(void *argument)
{
    struct source *source = argument;
    struct crab_value value = {0};
    assert_int_equal(crab_fetch(source->client, "z", 1, 0, load, source, NULL, &value), CRAB_OK);
    crab_value_fini(&value);
    return NULL;
}

static void who_waits_for_a_loader_has_a_deadline(void **state)
{
    static struct serve serve;
    pthread_t thread;
    struct crab_value value = {0};
    (void)state;
    serve_start(&serve);
    struct source source = {.client = open_client(&serve, NULL, "timeout=20000", NULL), .slow_us = 300000};
    assert_int_equal(pthread_create(&thread, NULL, fetch_slowly, &source), 0);
    while (source.loads == 0)
        (void)usleep(1000);
    struct crab_call_options hasty = {.timeout_ms = 100};
    assert_int_equal(crab_fetch(source.client, "z", 1, 0, load, &source, &hasty, &value), CRAB_E_TIMEOUT);
    (void)pthread_join(thread, NULL);
    assert_int_equal(source.loads, 1);
    crab_value_fini(&value);
    crab_client_close(source.client);
    serve_end(&serve);
}

/* ---- memory, forks */

static enum crab_status use_everything(struct crab_client *client)
{
    static const struct crab_slice keys[3] = {{(const uint8_t *)"a", 1}, {(const uint8_t *)"b", 1}, {(const uint8_t *)"c", 1}};
    static struct source source;
    struct crab_value values[3] = {{0}};
    enum crab_status statuses[3];
    struct tally tally = {.client = client};
    struct crab_submit_options done = {.done = count_only, .context = &tally};
    struct crab_pair pair = {.key = keys[0], .value = keys[1]};
    enum crab_status status = crab_client_put_many(client, &pair, 1, NULL, NULL, NULL);
    if (status == CRAB_OK)
        status = crab_client_get_many(client, keys, 3, values, NULL, statuses);
    if (status == CRAB_OK)
        status = crab_client_submit_get(client, "a", 1, &done, NULL);
    if (status == CRAB_OK)
        status = crab_client_run(client, 20000);
    if (status == CRAB_OK)
        status = crab_client_del(client, "b", 1, NULL) == CRAB_E_OUTCOME_UNKNOWN ? CRAB_E_NO_MEMORY : CRAB_OK;
    if (status == CRAB_OK)
        status = crab_fetch(client, "b", 1, 0, load, &source, NULL, &values[0]);
    for (size_t i = 0; i < 3; i++)
        crab_value_fini(&values[i]);
    return tally.failures != 0 ? CRAB_E_NO_MEMORY : status;
}

static enum crab_status use_with(struct counting *counting, void *context)
{
    const struct serve *serve = context;
    struct crab_client_options options = {.allocator = &counting->allocator};
    struct crab_client *client = NULL;
    char uri[64];
    (void)snprintf(uri, sizeof uri, "crab://127.0.0.1:%u?timeout=20000", (unsigned)serve->port);
    enum crab_status status = crab_client_open(uri, &options, &client, NULL);
    if (status == CRAB_OK)
        status = use_everything(client);
    assert_true(status == CRAB_OK || status == CRAB_E_NO_MEMORY || status == CRAB_E_OUTCOME_UNKNOWN ||
                status == CRAB_E_DOWN || status == CRAB_E_LOADER);
    crab_client_close(client);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    static struct serve serve;
    (void)state;
    serve_start(&serve);
    each_allocation_fails(use_with, &serve);
    serve_end(&serve);
}

static void a_child_may_end_its_tickets(void **state)
{
    static struct serve serve;
    struct crab_ticket *ticket;
    struct crab_value value = {0};
    struct source source = {0};
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, NULL, "timeout=20000", NULL);
    assert_int_equal(crab_client_submit_get(client, "k", 1, NULL, &ticket), CRAB_OK);
    pid_t child = fork();
    if (child == 0) {
        bool clean = crab_ticket_wait(ticket, NULL) == CRAB_E_FORKED && crab_ticket_poll(ticket, NULL) == CRAB_E_FORKED &&
                     crab_client_run(client, 10) == CRAB_E_FORKED &&
                     crab_client_submit_get(client, "k", 1, NULL, &ticket) == CRAB_E_FORKED &&
                     crab_fetch(client, "k", 1, 0, load, &source, NULL, &value) == CRAB_E_FORKED;
        crab_ticket_release(ticket);
        crab_client_close(client);
        _exit(clean ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(crab_ticket_wait(ticket, NULL), CRAB_MISS);
    crab_ticket_release(ticket);
    crab_client_close(client);
    serve_end(&serve);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tickets_are_answered_in_any_order),
        cmocka_unit_test(the_bound_is_kept_and_bad_arguments_refused),
        cmocka_unit_test(tickets_end_by_their_deadline_or_when_cancelled),
        cmocka_unit_test(callbacks_are_called),
        cmocka_unit_test(many_keys_in_one_call),
        cmocka_unit_test(a_value_is_loaded_once),
        cmocka_unit_test(who_waits_for_a_loader_has_a_deadline),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_child_may_end_its_tickets),
    };
    return cmocka_run_group_tests_name("tickets", tests, NULL, NULL);
}
