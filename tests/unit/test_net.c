/* SPDX-License-Identifier: MIT */
/*
 * Deadlines and connecting: signals, refused and silent hosts, names that do not resolve, what a socket is like; a
 * peer that never stops sending; and opening a connection under one deadline.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cmocka.h>

#include "client/net.h"
#include "tests/support/peer.h"

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void on_alarm(int number)
{
    (void)number;
}

static void signals_do_not_move_a_deadline(void **state)
{
    struct peer peer;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){.timeout_ms = 200});
    struct sigaction action = {.sa_handler = on_alarm}; /* without SA_RESTART: every wait is interrupted */
    struct itimerval often = {.it_interval = {.tv_usec = 3000}, .it_value = {.tv_usec = 3000}};
    struct itimerval never = {0};
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    uint64_t start = now_ms();
    assert_int_equal(crab_conn_ping(conn), CRAB_E_TIMEOUT);
    uint64_t took = now_ms() - start;
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_true(took >= 199 && took < 2000);
    crab_conn_close(conn);
    peer_close(&peer);
}

static void a_socket_is_made_as_it_should(void **state)
{
    struct peer peer;
    int value = 0;
    socklen_t size = sizeof value;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    int fd = crab_conn_fd(conn);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size), 0);
    assert_int_equal(value, 1);
    crab_conn_close(conn);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    peer_close(&peer);
}

static enum crab_status open_to(const char *host, uint16_t port, uint32_t timeout_ms, struct crab_failure *failure)
{
    struct crab_conn *conn = NULL;
    struct crab_conn_options options = {.host = host, .port = port, .timeout_ms = timeout_ms};
    enum crab_status status = crab_conn_open(&options, &conn, failure);
    assert_true((status == CRAB_OK) == (conn != NULL));
    crab_conn_close(conn);
    return status;
}

static void failures_to_connect_are_told_apart(void **state)
{
    struct peer peer;
    struct crab_failure failure;
    (void)state;
    peer_listen(&peer);
    uint16_t port = peer.port;
    peer_close(&peer);
    assert_int_equal(open_to("127.0.0.1", port, 5000, &failure), CRAB_E_REFUSED);
    assert_int_equal(failure.system_error, ECONNREFUSED);
    assert_non_null(strstr(failure.text, "127.0.0.1"));
    assert_int_equal(open_to("256.1.1.1.invalid", port, 5000, &failure), CRAB_E_RESOLVE);
    assert_non_null(strstr(failure.text, "256.1.1.1.invalid"));
    assert_int_equal(failure.status, CRAB_E_RESOLVE);
}

/* Make a listener on a unix socket in a folder of its own. */
static int listen_unix(char *path, size_t cap, int backlog)
{
    char folder[] = "/tmp/crabcache-net-XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_non_null(mkdtemp(folder));
    assert_true(snprintf(path, cap, "%s/socket", folder) < (int)sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void remove_unix(const char *path)
{
    char folder[128];
    (void)snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void a_path_is_a_unix_socket(void **state)
{
    char path[128];
    char too_long[200];
    struct crab_failure failure;
    struct crab_conn *conn = NULL;
    (void)state;
    int listener = listen_unix(path, sizeof path, 8);
    struct crab_conn_options options = {.host = path, .no_hello = true, .timeout_ms = 200};
    assert_int_equal(crab_conn_open(&options, &conn, NULL), CRAB_OK);
    assert_true((fcntl(crab_conn_fd(conn), F_GETFL) & O_NONBLOCK) != 0);
    crab_conn_close(conn);
    (void)close(listener);
    assert_int_equal(open_to(path, 0, 200, &failure), CRAB_E_REFUSED);
    assert_int_equal(failure.system_error, ECONNREFUSED);
    assert_non_null(strstr(failure.text, path));
    remove_unix(path);
    assert_int_equal(open_to(path, 0, 200, &failure), CRAB_E_REFUSED);
    assert_int_equal(failure.system_error, ENOENT);
    memset(too_long, '/', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = '\0';
    assert_int_equal(open_to(too_long, 0, 200, &failure), CRAB_E_REFUSED);
    assert_int_equal(failure.system_error, ENAMETOOLONG);
}

/* The deadline also holds where the queue of a unix socket stays full. */
static void a_full_unix_socket_is_waited_for(void **state)
{
    char path[128];
    struct crab_failure failure;
    struct crab_conn *first = NULL;
    (void)state;
    int listener = listen_unix(path, sizeof path, 0);
    struct crab_conn_options options = {.host = path, .no_hello = true};
    assert_int_equal(crab_conn_open(&options, &first, NULL), CRAB_OK);
    uint64_t start = now_ms();
    assert_int_equal(open_to(path, 0, 150, &failure), CRAB_E_TIMEOUT);
    uint64_t took = now_ms() - start;
    assert_true(took >= 149 && took < 2000);
    crab_conn_close(first);
    (void)close(listener);
    remove_unix(path);
}

static void one_deadline_covers_connect_and_hello(void **state)
{
    struct peer peer;
    struct crab_failure failure;
    (void)state;
    peer_listen(&peer); /* connections are made, but nobody answers HELLO */
    uint64_t start = now_ms();
    assert_int_equal(open_to("127.0.0.1", peer.port, 150, &failure), CRAB_E_TIMEOUT);
    uint64_t took = now_ms() - start;
    assert_true(took >= 149 && took < 2000);
    peer_close(&peer);

    /* A listener whose queue is full drops connections: connect() itself has to time out. */
    peer_listen(&peer);
    assert_int_equal(listen(peer.listener, 0), 0);
    struct crab_conn *first = NULL;
    struct crab_conn_options options = {.port = peer.port, .no_hello = true};
    assert_int_equal(crab_conn_open(&options, &first, NULL), CRAB_OK);
    start = now_ms();
    assert_int_equal(open_to("127.0.0.1", peer.port, 150, &failure), CRAB_E_TIMEOUT);
    took = now_ms() - start;
    assert_true(took >= 149 && took < 2000);
    crab_conn_close(first);
    peer_close(&peer);
}

/* ---- a peer that never stops sending */

static void nothing_is_ready_after_the_deadline(void **state)
{
    struct peer peer;
    short revents = 0;
    (void)state;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect(&peer, (struct crab_conn_options){0});
    int fd = crab_conn_fd(conn);
    struct net_deadline past = {.timeout_ms = 5};
    struct net_deadline future = {.timeout_ms = 20000};
    struct net_deadline none = {.timeout_ms = CRAB_NO_TIMEOUT};
    peer_send_hex(&peer, "11");
    net_deadline_start(&past);
    (void)usleep(10000);
    assert_int_equal(net_wait(fd, POLLIN | POLLOUT, &past, &revents), CRAB_E_TIMEOUT);
    assert_int_equal(net_wait(fd, POLLIN, &future, &revents), CRAB_OK);
    assert_int_equal(revents, POLLIN);
    assert_int_equal(net_wait(fd, POLLIN, &none, &revents), CRAB_OK);
    /* Less than a millisecond that is left is still time; a busy machine may let it pass, but not always. */
    enum crab_status status = CRAB_E_TIMEOUT;
    for (unsigned i = 0; i < 1000 && status == CRAB_E_TIMEOUT; i++) {
        struct net_deadline short_one = {.timeout_ms = 1};
        net_deadline_start(&short_one);
        short_one.end_ns -= 500000;
        status = net_wait(fd, POLLIN, &short_one, &revents);
    }
    assert_int_equal(status, CRAB_OK);
    crab_conn_close(conn);
    peer_close(&peer);
}

/* Send pushes that mean nothing to the client until it has gone; never read. */
static void *flood(void *argument)
{
    const struct peer *peer = argument;
    static uint8_t pushes[5 << 20]; /* zeros, but for the op: no bytes behind the length */
    for (size_t i = 0; i < sizeof pushes; i += 5)
        pushes[i] = 0xc5;
    while (send(peer->fd, pushes, sizeof pushes, MSG_NOSIGNAL) > 0)
        ;
    return NULL;
}

/* What a call returned, which begins after the flood did and must end by its deadline. */
static enum crab_status call_in_a_flood(bool large)
{
    static const uint8_t value[16 << 20];
    struct peer peer;
    pthread_t thread;
    peer_listen(&peer);
    struct crab_conn *conn = peer_connect_hello(&peer, (struct crab_conn_options){.timeout_ms = 300});
    assert_int_equal(pthread_create(&thread, NULL, flood, &peer), 0);
    uint64_t start = now_ms();
    enum crab_status status =
        large ? crab_conn_put(conn, "key", 3, value, sizeof value, NULL, NULL) : crab_conn_ping(conn);
    uint64_t took = now_ms() - start;
    crab_conn_close(conn);
    (void)pthread_join(thread, NULL);
    peer_close(&peer);
    assert_true(took >= 299 && took < 5000);
    return status;
}

static void a_flood_does_not_outlast_the_deadline(void **state)
{
    (void)state;
    assert_int_equal(call_in_a_flood(false), CRAB_E_TIMEOUT);
    assert_int_equal(call_in_a_flood(true), CRAB_E_TIMEOUT);
}

/* ---- opening */

/* What a server may do to a client that says HELLO and AUTH. */
struct script {
    struct peer peer;
    const char *welcome;
    const char *auth;
    uint32_t slowly_us; /* between bytes */
};

static void send_slowly(struct script *script, const char *digits)
{
    struct hex bytes = hex(digits);
    for (size_t i = 0; i < bytes.len; i++) {
        peer_send(&script->peer, &bytes.bytes[i], 1);
        if (script->slowly_us != 0)
            (void)usleep(script->slowly_us);
    }
}

static void *play(void *argument)
{
    struct script *script = argument;
    script->peer.fd = accept4(script->peer.listener, NULL, NULL, SOCK_CLOEXEC);
    peer_skip(&script->peer, 8 + 6 + 12);
    send_slowly(script, script->welcome);
    if (script->auth != NULL) {
        peer_skip(&script->peer, 8 + 2 + 6);
        send_slowly(script, script->auth);
    }
    uint8_t byte;
    (void)recv(script->peer.fd, &byte, 1, 0); /* until the client closes */
    return NULL;
}

static enum crab_status open_against(struct script *script, struct crab_failure *failure)
{
    pthread_t thread;
    struct crab_conn *conn = NULL;
    peer_listen(&script->peer);
    struct crab_conn_options options = {.port = script->peer.port, .timeout_ms = 20000};
    if (script->auth != NULL) {
        options.user = "me";
        options.secret = "secret";
        options.secret_len = 6;
    }
    assert_int_equal(pthread_create(&thread, NULL, play, script), 0);
    enum crab_status status = crab_conn_open(&options, &conn, failure);
    crab_conn_close(conn);
    (void)pthread_join(thread, NULL);
    peer_close(&script->peer);
    return status;
}

static void opening_says_hello_and_authenticates(void **state)
{
    static const char welcome[] = "1a 13000000 01 01000000 ffff0000 00001000 00040000 6869";
    struct crab_failure failure;
    struct script good = {.welcome = welcome, .auth = "10", .slowly_us = 300};
    struct script refused = {.welcome = welcome, .auth = "13 02000000 0f02"};
    struct script no_version = {.welcome = "13 02000000 0c02"};
    struct script http = {.welcome = "48 5454502f312e31203430302042616420526571756573740d0a"};
    struct script text = {.welcome = "45 52524f520d0a"};
    (void)state;
    assert_int_equal(open_against(&good, &failure), CRAB_OK);
    assert_int_equal(open_against(&refused, &failure), CRAB_E_SERVER);
    assert_int_equal(failure.error, CRAB_ERR_AUTH_FAILED);
    assert_int_equal(open_against(&no_version, &failure), CRAB_E_SERVER);
    assert_int_equal(failure.error, CRAB_ERR_UNSUPPORTED_VERSION);
    assert_int_equal(open_against(&http, &failure), CRAB_E_PROTOCOL);
    assert_int_equal(open_against(&text, &failure), CRAB_E_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_do_not_move_a_deadline),
        cmocka_unit_test(a_socket_is_made_as_it_should),
        cmocka_unit_test(failures_to_connect_are_told_apart),
        cmocka_unit_test(a_path_is_a_unix_socket),
        cmocka_unit_test(a_full_unix_socket_is_waited_for),
        cmocka_unit_test(one_deadline_covers_connect_and_hello),
        cmocka_unit_test(nothing_is_ready_after_the_deadline),
        cmocka_unit_test(a_flood_does_not_outlast_the_deadline),
        cmocka_unit_test(opening_says_hello_and_authenticates),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
