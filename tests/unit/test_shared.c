/* SPDX-License-Identifier: MIT */
/*
 * The handle that threads share: every call, values of all sizes, threads that check every answer amid restarts, hangs and
 * time-outs, forks, memory.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "crabcache/crabcache.h"
#include "tests/support/counting.h"
#include "tests/support/serve.h"

#define KEY "key", 3

static struct crab_client *open_client(const struct serve *serve, const char *parameters,
                                       const struct crab_client_options *options)
{
    char uri[256];
    struct crab_client *client = NULL;
    struct crab_failure failure;
    (void)snprintf(uri, sizeof uri, "crab://127.0.0.1:%u?%s", (unsigned)serve->port, parameters);
    if (crab_client_open(uri, options, &client, &failure) != CRAB_OK)
        fail_msg("%s", failure.text);
    return client;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += lseek(fd, 0, SEEK_CUR) != -1 || errno != EBADF;
    return count;
}

/* ---- every call */

static void check_calls(const char *parameters)
{
    static struct serve serve;
    struct crab_value value = {0};
    struct crab_item item;
    uint64_t version = 0;
    uint64_t other = 0;
    int64_t number = 0;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, parameters, NULL);
    assert_int_equal(crab_client_ping(client, NULL), CRAB_OK);
    assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_MISS);
    assert_int_equal(crab_client_put(client, KEY, "value", 5, NULL, NULL, &version), CRAB_OK);
    assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_OK);
    assert_int_equal(value.len, 5);
    assert_memory_equal(value.data, "value", 5);
    struct crab_put_options absent = {.condition = CRAB_IF_ABSENT};
    assert_int_equal(crab_client_put(client, KEY, "v", 1, &absent, NULL, &other), CRAB_EXISTS);
    assert_int_equal(other, version);
    struct crab_put_options with = {.condition = CRAB_IF_VERSION, .version = version, .app_flags = 7, .ttl_ms = 60000};
    assert_int_equal(crab_client_put(client, KEY, "w", 1, &with, NULL, NULL), CRAB_OK);
    assert_int_equal(crab_client_get_meta(client, KEY, 0, &value, NULL, &item), CRAB_OK);
    assert_int_equal(item.app_flags, 7);
    assert_in_range(item.ttl_ms, 1, 60000);
    assert_ptr_equal(item.value.data, value.data);
    assert_int_equal(crab_client_expire(client, KEY, CRAB_TTL_NEVER, NULL), CRAB_OK);
    assert_int_equal(crab_client_del(client, KEY, NULL), CRAB_OK);
    assert_int_equal(crab_client_del(client, KEY, NULL), CRAB_MISS);
    assert_int_equal(crab_client_incr(client, KEY, 5, NULL, NULL, &number), CRAB_MISS);
    struct crab_incr_options create = {.create = true, .initial = 40};
    assert_int_equal(crab_client_incr(client, KEY, 5, &create, NULL, &number), CRAB_OK);
    assert_int_equal(number, 40);
    assert_int_equal(crab_client_decr(client, KEY, 2, NULL, NULL, &number), CRAB_OK);
    assert_int_equal(number, 38);
    assert_int_equal(crab_client_stats(client, 0, "store", &value, NULL), CRAB_OK);
    assert_memory_equal(value.data, "store.", 6);
    assert_int_equal(crab_client_stats(client, 1, NULL, &value, NULL), CRAB_E_INVALID);
    assert_int_equal(crab_client_flush_all(client, NULL), CRAB_OK);
    assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_MISS);
    assert_memory_equal(value.data, "store.", 6); /* untouched */
    crab_value_fini(&value);
    crab_client_close(client);
    serve_end(&serve);
}

static void every_call_works(void **state)
{
    (void)state;
    check_calls("timeout=20000");
    check_calls("timeout=20000&tags=1&connections=3&max_in_flight=1");
}

static void failures_are_told(void **state)
{
    static struct serve serve;
    struct crab_failure failure;
    struct crab_call_options options = {.failure = &failure};
    struct crab_value value = {0};
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, "timeout=20000", NULL);
    assert_int_equal(crab_client_get(client, "", 0, &value, &options), CRAB_E_INVALID);
    assert_int_equal(failure.status, CRAB_E_INVALID);
    union crab_request quiet = {.head = {.op = CRAB_OP_DEL, .flags = CRAB_FLAG_QUIET, .key = {(const uint8_t *)"k", 1}}};
    assert_int_equal(crab_client_call(client, &quiet, NULL, &options, NULL), CRAB_E_INVALID);
    union crab_request hello = {.head = {.op = CRAB_OP_HELLO}};
    assert_int_equal(crab_client_call(client, &hello, NULL, &options, NULL), CRAB_E_INVALID);
    assert_int_equal(crab_client_put(client, KEY, "word", 4, NULL, &options, NULL), CRAB_OK);
    assert_int_equal(crab_client_incr(client, KEY, 1, NULL, &options, NULL), CRAB_E_SERVER);
    assert_int_equal(failure.error, CRAB_ERR_NOT_A_NUMBER);
    assert_true(failure.text[0] != '\0');
    serve_stop(&serve);
    assert_int_equal(crab_client_get(client, KEY, &value, &options), CRAB_E_CLOSED);
    assert_int_equal(crab_client_get(client, KEY, &value, &options), CRAB_E_REFUSED);
    assert_non_null(strstr(failure.text, "127.0.0.1"));
    assert_int_equal(crab_client_get(client, KEY, &value, &options), CRAB_E_DOWN);
    struct crab_server_stats stats;
    assert_int_equal(crab_client_server_stats(client, 0, &stats), CRAB_OK);
    assert_int_equal(stats.connect_failures, 1);
    assert_int_not_equal(stats.state, CRAB_SERVER_UP);
    /* Back again: who repeats waits for it. */
    serve_start(&serve);
    options.retries = 20;
    assert_int_equal(crab_client_get(client, KEY, &value, &options), CRAB_OK);
    assert_int_equal(crab_client_server_stats(client, 0, &stats), CRAB_OK);
    assert_int_equal(stats.state, CRAB_SERVER_UP);
    assert_int_equal(stats.connects, 2);
    crab_value_fini(&value);
    crab_client_close(client);
    serve_end(&serve);
}

/* ---- values of all sizes */

static uint8_t *make_value(size_t len, uint32_t seed)
{
    uint8_t *bytes = malloc(len + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)((i * 2654435761U + seed) >> 13);
    return bytes;
}

static void values_of_all_sizes_come_back(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 16000, 32767, 32768, 65530, 65536, 65537, 300000, 1 << 20, 5 << 20, 7, 70000};
    static struct serve serve;
    struct crab_value value = {0};
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, "timeout=20000", NULL);
    for (size_t piece = 0; piece < 2; piece++) {
        atomic_store(&serve.piece, piece * 1371);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            uint8_t *bytes = make_value(sizes[i], (uint32_t)i);
            assert_int_equal(crab_client_put(client, KEY, bytes, sizes[i], NULL, NULL, NULL), CRAB_OK);
            assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_OK);
            assert_int_equal(value.len, sizes[i]);
            assert_memory_equal(value.data, bytes, sizes[i]);
            free(bytes);
        }
    }
    crab_value_fini(&value);
    crab_client_close(client);
    serve_end(&serve);
}

/* ---- threads */

#define THREADS 8

struct crowd {
    struct serve serve;
    struct crab_client *client;
    _Atomic bool stop;
    unsigned rounds;
    uint32_t timeout_us; /* of some calls; 0: none is cut short */
    _Atomic uint64_t answers;
    _Atomic uint64_t failures;
    _Atomic uint64_t wrong;
};

struct member {
    struct crowd *crowd;
    unsigned number;
    pthread_t thread;
};

/* A value says whose it is, so that an answer to the wrong caller is seen. */
static size_t own_value(uint8_t *bytes, unsigned number, unsigned key, unsigned round)
{
    size_t len = (size_t)snprintf((char *)bytes, 64, "of %u key %u round %u ", number, key, round);
    size_t more = key % 7 == 6 ? 40000 + key : key % 50;
    memset(bytes + len, 'a' + (int)(number % 26), more);
    return len + more;
}

static void check_own(struct member *m, const struct crab_value *value, unsigned key)
{
    char expected[64];
    int len = snprintf(expected, sizeof expected, "of %u key %u round ", m->number, key);
    if (value->len < (size_t)len || memcmp(value->data, expected, (size_t)len) != 0)
        atomic_fetch_add(&m->crowd->wrong, 1);
}

static void *take_part(void *argument)
{
    struct member *m = argument;
    struct crowd *crowd = m->crowd;
    struct crab_value value = {0};
    static _Thread_local uint8_t bytes[65536];
    unsigned seed = m->number;
    for (unsigned round = 0; round < crowd->rounds && !atomic_load(&crowd->stop); round++) {
        char name[32];
        unsigned key = (unsigned)rand_r(&seed) % 20;
        struct crab_call_options options = {.timeout_ms = crowd->timeout_us != 0 && rand_r(&seed) % 4 == 0 ? 1 : 0};
        size_t name_len = (size_t)snprintf(name, sizeof name, "%u/%u", m->number, key);
        enum crab_status status;
        if (rand_r(&seed) % 3 == 0) {
            size_t len = own_value(bytes, m->number, key, round);
            status = crab_client_put(crowd->client, name, name_len, bytes, len, NULL, &options, NULL);
        } else {
            status = crab_client_get(crowd->client, name, name_len, &value, &options);
            if (status == CRAB_OK)
                check_own(m, &value, key);
        }
        if (status == CRAB_OK || status == CRAB_MISS)
            atomic_fetch_add(&crowd->answers, 1);
        else
            atomic_fetch_add(&crowd->failures, 1);
    }
    crab_value_fini(&value);
    return NULL;
}

static void start_crowd(struct crowd *crowd, struct member *members)
{
    for (unsigned i = 0; i < THREADS; i++) {
        members[i] = (struct member){.crowd = crowd, .number = i + 1};
        assert_int_equal(pthread_create(&members[i].thread, NULL, take_part, &members[i]), 0);
    }
}

static void join_crowd(struct member *members)
{
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(members[i].thread, NULL);
}

static void many_threads_get_their_own_answers(void **state)
{
    static struct crowd crowd = {.rounds = 1500};
    static struct member members[THREADS];
    (void)state;
    for (unsigned connections = 1; connections <= 3; connections += 2) {
        char parameters[64];
        serve_start(&crowd.serve);
        (void)snprintf(parameters, sizeof parameters, "timeout=30000&max_in_flight=4&connections=%u", connections);
        crowd.client = open_client(&crowd.serve, parameters, NULL);
        start_crowd(&crowd, members);
        join_crowd(members);
        assert_int_equal(crowd.wrong, 0);
        assert_int_equal(crowd.failures, 0);
        crab_client_close(crowd.client);
        serve_end(&crowd.serve);
    }
}

/* Restarts, resets, orderly ends, hangs, short deadlines: whatever happens, no wrong answer, and an end. */
static void trouble_never_gives_a_wrong_answer(void **state)
{
    static struct crowd crowd = {.rounds = 1000000, .timeout_us = 1000};
    static struct member members[THREADS];
    (void)state;
    int before = open_descriptors();
    serve_start(&crowd.serve);
    crowd.client = open_client(&crowd.serve, "timeout=300&connections=2", NULL);
    start_crowd(&crowd, members);
    unsigned seed = 4;
    uint64_t end = now_ms() + 3000;
    while (now_ms() < end) {
        switch (rand_r(&seed) % 6) {
        case 0:
            serve_stop(&crowd.serve);
            (void)usleep(20000);
            serve_start(&crowd.serve);
            break;
        case 1:
            atomic_store(&crowd.serve.drop, true);
            break;
        case 2:
            atomic_store(&crowd.serve.leave, true);
            break;
        case 3:
            serve_hang(&crowd.serve, true);
            (void)usleep((unsigned)rand_r(&seed) % 400000);
            serve_hang(&crowd.serve, false);
            break;
        case 4:
            atomic_store(&crowd.serve.piece, (size_t)rand_r(&seed) % 3);
            break;
        default:
            atomic_store(&crowd.serve.delay_us, (unsigned)rand_r(&seed) % 3000);
            break;
        }
        serve_poke(&crowd.serve);
        (void)usleep(30000);
    }
    atomic_store(&crowd.stop, true);
    join_crowd(members);
    assert_int_equal(crowd.wrong, 0);
    assert_true(crowd.answers > 100 && crowd.failures > 0);
    crab_client_close(crowd.client);
    serve_end(&crowd.serve);
    assert_int_equal(open_descriptors(), before);
}

/* ---- one caller's time-out */

static void a_timeout_does_not_cost_the_others_their_connection(void **state)
{
    static struct serve serve;
    struct crab_value value = {0};
    struct crab_failure failure;
    struct crab_call_options hasty = {.timeout_ms = 5, .failure = &failure};
    struct crab_server_stats stats;
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, "timeout=20000", NULL);
    assert_int_equal(crab_client_put(client, KEY, "mine", 4, NULL, NULL, NULL), CRAB_OK);
    assert_int_equal(crab_client_put(client, "other", 5, "theirs", 6, NULL, NULL, NULL), CRAB_OK);
    for (unsigned i = 0; i < 5; i++) {
        serve_hang(&serve, true);
        assert_int_equal(crab_client_get(client, "other", 5, &value, &hasty), CRAB_E_TIMEOUT);
        assert_int_equal(crab_client_put(client, "x", 1, "y", 1, NULL, &hasty, NULL), CRAB_E_OUTCOME_UNKNOWN);
        assert_int_equal(failure.status, CRAB_E_TIMEOUT);
        serve_hang(&serve, false);
        assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_OK);
        assert_int_equal(value.len, 4);
        assert_memory_equal(value.data, "mine", 4);
    }
    assert_int_equal(crab_client_server_stats(client, 0, &stats), CRAB_OK);
    assert_int_equal(stats.connects, 1);
    assert_int_equal(stats.timeouts, 10);
    assert_int_equal(stats.unknown, 5);
    crab_value_fini(&value);
    crab_client_close(client);
    serve_end(&serve);
}

static void a_silent_server_is_left(void **state)
{
    static struct serve serve;
    struct crab_value value = {0};
    struct crab_server_stats stats;
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, "timeout=200&connect_timeout=200", NULL);
    assert_int_equal(crab_client_ping(client, NULL), CRAB_OK);
    serve_hang(&serve, true);
    uint64_t start = now_ms();
    assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_E_TIMEOUT);
    assert_in_range(now_ms() - start, 199, 3000);
    assert_int_equal(crab_client_server_stats(client, 0, &stats), CRAB_OK);
    assert_int_equal(stats.breaks, 1);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_E_TIMEOUT); /* HELLO is not answered either */
    serve_hang(&serve, false);
    struct crab_call_options patient = {.timeout_ms = 20000, .retries = 100};
    assert_int_equal(crab_client_get(client, KEY, &value, &patient), CRAB_MISS);
    crab_value_fini(&value);
    crab_client_close(client);
    serve_end(&serve);
}

/* A server that stops reading: a large value is cut by the deadline and the connection goes on when it reads again. */
static void a_large_value_that_is_late_is_completed(void **state)
{
    static struct serve serve;
    struct crab_value value = {0};
    struct crab_server_stats stats;
    size_t len = 6 << 20;
    (void)state;
    uint8_t *bytes = make_value(len, 3);
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, "timeout=20000", NULL);
    assert_int_equal(crab_client_ping(client, NULL), CRAB_OK);
    serve_hang(&serve, true);
    struct crab_call_options hasty = {.timeout_ms = 50};
    assert_int_equal(crab_client_put(client, KEY, bytes, len, NULL, &hasty, NULL), CRAB_E_OUTCOME_UNKNOWN);
    serve_hang(&serve, false);
    assert_int_equal(crab_client_get(client, KEY, &value, NULL), CRAB_OK);
    assert_int_equal(value.len, len);
    assert_memory_equal(value.data, bytes, len);
    assert_int_equal(crab_client_server_stats(client, 0, &stats), CRAB_OK);
    assert_int_equal(stats.connects, 1);
    free(bytes);
    crab_value_fini(&value);
    crab_client_close(client);
    serve_end(&serve);
}

/* ---- the end of connections */

static void goaway_and_an_orderly_end_can_be_repeated(void **state)
{
    static struct serve serve;
    struct crab_server_stats stats;
    (void)state;
    serve_start(&serve);
    struct crab_client *client = open_client(&serve, "timeout=20000", NULL);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(crab_client_put(client, KEY, "v", 1, NULL, NULL, NULL), CRAB_OK);
        atomic_store(&serve.leave, true);
        serve_poke(&serve);
        while (atomic_load(&serve.leave))
            (void)usleep(1000);
        (void)usleep(i < 3 ? 150000 : 20000); /* the socket is looked at only after a while */
        struct crab_call_options once_more = {.retries = i < 3 ? 0 : 1};
        assert_int_equal(crab_client_del(client, KEY, &once_more), CRAB_OK);
    }
    assert_int_equal(crab_client_server_stats(client, 0, &stats), CRAB_OK);
    assert_int_equal(stats.connects, 6);
    assert_int_equal(stats.unknown, 0);
    crab_client_close(client);
    serve_end(&serve);
}

/* A connection cut after every byte of the replies, with several callers on their way. */
static void a_cut_at_every_byte_is_survived(void **state)
{
    static struct crowd crowd = {.rounds = 12};
    static struct member members[THREADS];
    (void)state;
    serve_start(&crowd.serve);
    crowd.client = open_client(&crowd.serve, "timeout=20000", NULL);
    start_crowd(&crowd, members);
    join_crowd(members); /* so that there are values to read */
    crab_client_close(crowd.client);
    for (size_t cut = 1; cut < 120; cut++) {
        atomic_store(&crowd.serve.cut_after, cut);
        crowd.client = open_client(&crowd.serve, cut % 2 != 0 ? "timeout=20000&tags=1" : "timeout=20000", NULL);
        start_crowd(&crowd, members);
        join_crowd(members);
        crab_client_close(crowd.client);
    }
    assert_int_equal(crowd.wrong, 0);
    assert_true(crowd.failures > 0);
    serve_end(&crowd.serve);
}

/* ---- forks */

static void a_child_gets_a_clean_error(void **state)
{
    static struct crowd crowd = {.rounds = 1000000};
    static struct member members[THREADS];
    struct crab_value value = {0};
    (void)state;
    serve_start(&crowd.serve);
    crowd.client = open_client(&crowd.serve, "timeout=20000", NULL);
    start_crowd(&crowd, members); /* so that locks are held while this process is forked */
    for (unsigned i = 0; i < 20; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct crab_server_stats stats;
            bool clean = crab_client_get(crowd.client, KEY, &value, NULL) == CRAB_E_FORKED &&
                         crab_client_ping(crowd.client, NULL) == CRAB_E_FORKED &&
                         crab_client_server_stats(crowd.client, 0, &stats) == CRAB_E_FORKED;
            crab_client_close(crowd.client);
            _exit(clean ? 0 : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    atomic_store(&crowd.stop, true);
    join_crowd(members);
    assert_int_equal(crowd.wrong, 0);
    assert_int_equal(crowd.failures, 0);
    crab_client_close(crowd.client);
    serve_end(&crowd.serve);
}

/* An allocator in which a thread stops half way: the old block is gone, nobody has the new one yet. */
struct halfway {
    struct crab_allocator allocator;
    pid_t parent;
    _Atomic bool armed;
    _Atomic bool inside;
    _Atomic bool go_on;
};

static void *resize_halfway(void *context, void *block, size_t size)
{
    struct halfway *halfway = context;
    if (getpid() != halfway->parent)
        _exit(2);
    if (size == 0) {
        free(block);
        return NULL;
    }
    void *resized = realloc(block, size);
    if (atomic_exchange(&halfway->armed, false)) {
        atomic_store(&halfway->inside, true);
        while (!atomic_load(&halfway->go_on))
            (void)usleep(1000);
    }
    return resized;
}

static void *put_a_value(void *client)
{
    static const uint8_t bytes[30000];
    static enum crab_status status;
    status = crab_client_put(client, KEY, bytes, sizeof bytes, NULL, NULL, NULL);
    return &status;
}

static void a_child_frees_nothing(void **state)
{
    static struct halfway halfway = {.allocator = {resize_halfway, &halfway}};
    static struct serve serve;
    struct crab_client_options options = {.allocator = &halfway.allocator};
    void *status = NULL;
    pthread_t thread;
    (void)state;
    serve_start(&serve);
    halfway.parent = getpid();
    struct crab_client *client = open_client(&serve, "timeout=20000", &options);
    assert_int_equal(crab_client_ping(client, NULL), CRAB_OK);
    atomic_store(&halfway.armed, true);
    assert_int_equal(pthread_create(&thread, NULL, put_a_value, client), 0);
    while (!atomic_load(&halfway.inside))
        (void)usleep(1000);
    pid_t child = fork();
    if (child == 0) {
        int before = open_descriptors();
        crab_client_close(client);
        _exit(open_descriptors() == before - 1 ? 0 : 1); /* the socket is closed */
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    atomic_store(&halfway.go_on, true);
    (void)pthread_join(thread, &status);
    assert_true(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    assert_int_equal(*(enum crab_status *)status, CRAB_OK);
    crab_client_close(client);
    serve_end(&serve);
}

/* ---- memory */

static enum crab_status use_client(const struct serve *serve, struct counting *counting, size_t *steady)
{
    struct crab_client *client = NULL;
    struct crab_value value = {0};
    char uri[128];
    static uint8_t bytes[100000];
    struct crab_client_options options = {.allocator = &counting->allocator, .client_name = "it"};
    (void)snprintf(uri, sizeof uri, "crab://127.0.0.1:%u,127.0.0.1:%u", (unsigned)serve->port, (unsigned)serve->port);
    enum crab_status status = crab_client_open(uri, &options, &client, NULL);
    for (unsigned i = 0; i < 60 && status == CRAB_OK; i++) {
        size_t calls = counting->calls;
        size_t len = i % 3 == 0 ? 90000 : 200;
        status = crab_client_put(client, KEY, bytes, len, NULL, NULL, NULL);
        if (status == CRAB_OK)
            status = crab_client_get(client, KEY, &value, NULL);
        if (i >= 10)
            *steady += counting->calls - calls;
    }
    crab_value_fini(&value);
    crab_client_close(client);
    return status;
}

static void nothing_is_allocated_in_steady_state(void **state)
{
    static struct serve serve;
    struct counting counting;
    size_t steady = 0;
    (void)state;
    serve_start(&serve);
    counting_init(&counting);
    assert_int_equal(use_client(&serve, &counting, &steady), CRAB_OK);
    assert_int_equal(steady, 0);
    assert_int_equal(counting.blocks, 0);
    serve_end(&serve);
}

static enum crab_status use_with(struct counting *counting, void *context)
{
    size_t steady = 0;
    enum crab_status status = use_client(context, counting, &steady);
    assert_true(status == CRAB_OK || status == CRAB_E_NO_MEMORY || status == CRAB_E_OUTCOME_UNKNOWN);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_works),
        cmocka_unit_test(failures_are_told),
        cmocka_unit_test(values_of_all_sizes_come_back),
        cmocka_unit_test(many_threads_get_their_own_answers),
        cmocka_unit_test(trouble_never_gives_a_wrong_answer),
        cmocka_unit_test(a_timeout_does_not_cost_the_others_their_connection),
        cmocka_unit_test(a_silent_server_is_left),
        cmocka_unit_test(a_large_value_that_is_late_is_completed),
        cmocka_unit_test(goaway_and_an_orderly_end_can_be_repeated),
        cmocka_unit_test(a_cut_at_every_byte_is_survived),
        cmocka_unit_test(a_child_gets_a_clean_error),
        cmocka_unit_test(a_child_frees_nothing),
        cmocka_unit_test(nothing_is_allocated_in_steady_state),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
