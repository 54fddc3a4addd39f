/* SPDX-License-Identifier: MIT */
/*
 * Every system call of a connection failing with each of its errors, at each place, once and from then on: an end by the
 * deadline, never a wrong value, nothing left behind.
 *
 * The program defines the system calls itself, so that the library, which is linked statically, calls these.  They fail only in
 * the thread that has armed them: the server in the other thread is well.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "crabcache/adapters/poll.h"
#include "crabcache/crabcache.h"
#include "tests/support/counting.h"
#include "tests/support/serve.h"

#define TIMEOUT_MS 40U
#define LATE_MS 3000U /* what a busy machine may add */

enum call { SOCKET, CONNECT, SETSOCKOPT, GETSOCKOPT, POLL, SENDMSG, RECV, CALLS };

static const int errors[CALLS][10] = {
    [SOCKET] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EAFNOSUPPORT, EACCES},
    [CONNECT] = {ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EACCES, EADDRNOTAVAIL, EAGAIN, EINTR, EINPROGRESS, EPERM},
    [SETSOCKOPT] = {EINVAL, ENOBUFS, ENOPROTOOPT},
    [GETSOCKOPT] = {EINVAL, ENOBUFS, EBADF},
    [POLL] = {EINTR, ENOMEM, EINVAL},
    [SENDMSG] = {EINTR, EAGAIN, EPIPE, ECONNRESET, ENOBUFS, ENOMEM, EIO, EACCES, ETIMEDOUT},
    [RECV] = {EINTR, EAGAIN, ECONNRESET, ETIMEDOUT, ENOMEM, EIO, EBADF, ECONNREFUSED},
};

/* What is to fail, in this thread. */
static __thread struct {
    enum call call;
    unsigned at; /* 0: nothing */
    bool ever_after;
    int error;
    unsigned seen;
} fault;

static bool fails(enum call call)
{
    if (fault.at == 0 || fault.call != call)
        return false;
    fault.seen++;
    if (fault.seen != fault.at && !(fault.ever_after && fault.seen > fault.at))
        return false;
    errno = fault.error;
    return true;
}

int socket(int domain, int type, int protocol)
{
    return fails(SOCKET) ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}

int connect(int fd, const struct sockaddr *address, socklen_t len)
{
    return fails(CONNECT) ? -1 : (int)syscall(SYS_connect, fd, address, len);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return fails(SETSOCKOPT) ? -1 : (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return fails(GETSOCKOPT) ? -1 : (int)syscall(SYS_getsockopt, fd, level, name, value, len);
}

int poll(struct pollfd *entries, nfds_t count, int timeout_ms)
{
    return fails(POLL) ? -1 : (int)syscall(SYS_poll, entries, count, timeout_ms);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return fails(SENDMSG) ? -1 : (ssize_t)syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    return fails(RECV) ? -1 : (ssize_t)syscall(SYS_recvfrom, fd, bytes, len, flags, NULL, NULL);
}

/* ---- what a client does */

static uint8_t large[100000];

static void check_value(struct crab_slice value, size_t len)
{
    assert_int_equal(value.len, len);
    assert_memory_equal(value.data, large, len);
}

static void pour(void *context, const struct crab_result *head, size_t offset, struct crab_slice piece)
{
    (void)head;
    *(size_t *)context += piece.len;
    assert_true(offset + piece.len <= sizeof large);
    assert_memory_equal(piece.data, large + offset, piece.len);
}

static void waiting_client(const struct crab_conn_options *options)
{
    struct crab_conn *conn = NULL;
    struct crab_failure failure = {0};
    struct crab_slice value;
    struct crab_result result;
    size_t poured = 0;
    if (crab_conn_open(options, &conn, &failure) != CRAB_OK) {
        assert_true(crab_status_failed(failure.status) && failure.text[0] != '\0');
        return;
    }
    (void)!crab_conn_put(conn, "a", 1, large, 50, NULL, NULL);
    if (crab_conn_get(conn, "a", 1, &value) == CRAB_OK)
        check_value(value, 50);
    (void)!crab_conn_put(conn, "b", 1, large, sizeof large, NULL, NULL);
    if (crab_conn_get_into(conn, "b", 1, pour, &poured, NULL) == CRAB_OK)
        assert_int_equal(poured, sizeof large);
    for (unsigned i = 0; i < 20; i++)
        (void)!crab_conn_queue_get(conn, i % 2 == 0 ? "a" : "b", 1);
    for (unsigned i = 0; crab_conn_next_reply(conn, &result) == CRAB_OK; i++)
        check_value(result.value, i % 2 == 0 ? 50 : sizeof large);
    if (crab_conn_state(conn) != CRAB_OK)
        assert_true(crab_conn_error_text(conn)[0] != '\0' && crab_conn_fd(conn) == -1);
    crab_conn_close(conn);
}

struct heard {
    unsigned asked;
    unsigned ended;
};

static void done(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    struct heard *heard = context;
    (void)conn;
    heard->ended++;
    if (result->request == CRAB_OP_GET && result->status == CRAB_OK)
        check_value(result->value, 50);
}

static void ask(struct heard *heard, struct crab_conn *conn, enum crab_status queued)
{
    if (queued == CRAB_OK && crab_conn_then(conn, done, heard) == CRAB_OK)
        heard->asked++;
}

static void looping_client(const struct crab_conn_options *options)
{
    struct crab_conn *conn = NULL;
    struct heard heard = {0};
    if (crab_conn_start(options, &conn, NULL) != CRAB_OK)
        return;
    ask(&heard, conn, crab_conn_queue_put(conn, "a", 1, large, 50, NULL));
    for (unsigned i = 0; i < 20; i++)
        ask(&heard, conn, crab_conn_queue_get(conn, "a", 1));
    for (unsigned i = 0; heard.ended < heard.asked && i < 100000; i++) {
        struct pollfd entry = crab_poll_entry(conn);
        int64_t wait_ms = crab_conn_next_timeout(conn);
        (void)syscall(SYS_poll, &entry, 1, (int)wait_ms); /* the loop itself is well */
        (void)crab_conn_process(conn, crab_poll_events(&entry));
    }
    assert_int_equal(heard.ended, heard.asked);
    crab_conn_close(conn);
}

/* ---- every fault */

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* One run. Returns whether the fault was reached. */
static bool run(struct serve *serve, void (*client)(const struct crab_conn_options *))
{
    struct counting counting;
    counting_init(&counting);
    struct crab_conn_options options = {
        .port = serve->port, .allocator = &counting.allocator, .timeout_ms = fault.at == 0 ? 20000 : TIMEOUT_MS};
    uint64_t began = now_ms();
    fault.seen = 0;
    client(&options);
    bool reached = fault.seen >= fault.at;
    fault.at = 0;
    assert_true(now_ms() - began < LATE_MS);
    assert_int_equal(counting.blocks, 0);
    return reached;
}

static void each_call_fails(struct serve *serve, void (*client)(const struct crab_conn_options *), bool ever_after)
{
    unsigned runs = 0;
    for (enum call call = 0; call < CALLS; call++) {
        for (size_t i = 0; i < 10 && errors[call][i] != 0; i++) {
            /* what only delays costs the whole deadline, so not everywhere */
            bool delays = errors[call][i] == EAGAIN || errors[call][i] == EINTR || errors[call][i] == EINPROGRESS;
            bool reached = true;
            for (unsigned at = 1; reached && at < 60; at += ever_after && delays ? 7 : 1) {
                fault.call = call;
                fault.at = at;
                fault.error = errors[call][i];
                fault.ever_after = ever_after;
                reached = run(serve, client);
                runs++;
            }
        }
    }
    print_message("%u runs\n", runs);
    assert_true(runs > CALLS * 3);
}

static void with_server(void (*client)(const struct crab_conn_options *))
{
    static struct serve serve;
    memset(&serve, 0, sizeof serve);
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (uint8_t)(i * 7 + i / 256);
    serve_start(&serve);
    fault.at = 0;
    (void)run(&serve, client);
    size_t files = open_files();
    each_call_fails(&serve, client, false);
    each_call_fails(&serve, client, true);
    serve_end(&serve);
    assert_true(open_files() <= files);
}

static void waiting(void **state)
{
    (void)state;
    with_server(waiting_client);
}

static void in_an_event_loop(void **state)
{
    (void)state;
    with_server(looping_client);
}

/* Once the buffers have grown, requests of all kinds allocate nothing: waiting, pipelined, in pieces, and in an event loop. */
static void nothing_is_allocated_in_the_steady_state(void **state)
{
    static struct serve serve;
    struct counting counting;
    struct crab_slice value;
    struct crab_result result;
    struct heard heard = {0};
    size_t calls = 0, poured = 0;
    (void)state;
    memset(&serve, 0, sizeof serve);
    serve_start(&serve);
    counting_init(&counting);
    struct crab_conn_options options = {.port = serve.port, .allocator = &counting.allocator, .timeout_ms = 20000};
    struct crab_conn *conn = NULL;
    assert_int_equal(crab_conn_open(&options, &conn, NULL), CRAB_OK);
    for (unsigned round = 0; round < 400; round++) {
        if (round == 100 || round == 300) /* from 200 on in an event loop */
            calls = counting.calls;
        if (round == 200) {
            assert_int_equal(counting.calls, calls);
            assert_int_equal(crab_conn_use_events(conn), CRAB_OK);
        }
        if (round < 200) {
            assert_int_equal(crab_conn_put(conn, "a", 1, large, 50, NULL, NULL), CRAB_OK);
            assert_int_equal(crab_conn_put(conn, "b", 1, large, sizeof large, NULL, NULL), CRAB_OK);
            assert_int_equal(crab_conn_get(conn, "b", 1, &value), CRAB_OK);
            assert_int_equal(crab_conn_get_into(conn, "b", 1, pour, &poured, NULL), CRAB_OK);
            for (unsigned i = 0; i < 200; i++)
                assert_int_equal(crab_conn_queue_get(conn, "a", 1), CRAB_OK);
            while (crab_conn_next_reply(conn, &result) == CRAB_OK)
                continue;
            continue;
        }
        heard = (struct heard){0};
        for (unsigned i = 0; i < 200; i++)
            ask(&heard, conn, crab_conn_queue_get(conn, "a", 1));
        while (heard.ended < heard.asked)
            (void)crab_poll_turn(&conn, 1, -1);
    }
    assert_int_equal(counting.calls, calls);
    assert_int_equal(heard.asked, 200);
    crab_conn_close(conn);
    serve_end(&serve);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting),
        cmocka_unit_test(in_an_event_loop),
        cmocka_unit_test(nothing_is_allocated_in_the_steady_state),
    };
    return cmocka_run_group_tests_name("client_syscalls", tests, NULL, NULL);
}
