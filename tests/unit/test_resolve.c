/* SPDX-License-Identifier: MIT */
/*
 * Resolving under a deadline, and the race of addresses.  This program has a getaddrinfo() of its own, which the library finds before
 * that of libc: names that end in ".test" are slow, or have the addresses that a test wants.
 */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>

#include <cmocka.h>

#include "client/eyeballs.h"
#include "client/resolve.h"
#include "tests/support/peer.h"

#define PLACES 24

static _Atomic unsigned slow_us;  /* how long "slow.test" takes */
static _Atomic unsigned lookups;  /* of names that end in ".test" */
static uint16_t ports[PLACES];    /* of "many.test": 127.0.0.1 with these, 0 ends; */
static bool sixes[PLACES];        /* or ::1 */

typedef int getaddrinfo_function(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static int real(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    getaddrinfo_function *function;
    *(void **)&function = dlsym(RTLD_NEXT, "getaddrinfo");
    return function(host, service, hints, list);
}

/* A chain of lists, which libc frees piece by piece. */
static int many(struct addrinfo **list)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    for (size_t i = 0; i < PLACES && ports[i] != 0; i++) {
        char service[8];
        (void)snprintf(service, sizeof service, "%u", (unsigned)ports[i]);
        int code = real(sixes[i] ? "::1" : "127.0.0.1", service, &hints, list);
        if (code != 0)
            return code;
        list = &(*list)->ai_next;
    }
    return 0;
}

int getaddrinfo(const char *restrict host, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict list)
{
    const char *end = strstr(host, ".test");
    if (end == NULL || (hints->ai_flags & AI_NUMERICHOST) != 0)
        return real(host, service, hints, list);
    atomic_fetch_add(&lookups, 1);
    if (strncmp(host, "many", 4) == 0)
        return many(list);
    (void)usleep(atomic_load(&slow_us));
    return strncmp(host, "slow", 4) == 0 ? real("127.0.0.1", service, hints, list) : EAI_AGAIN;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static enum crab_status connect_to(const char *host, uint16_t port, uint32_t timeout_ms, int *fd)
{
    struct crab_failure failure = {.status = CRAB_OK};
    struct net_deadline deadline = {.timeout_ms = timeout_ms};
    enum crab_status status = net_connect(host, port, &deadline, fd, &failure);
    if (status != CRAB_OK)
        assert_non_null(strstr(failure.text, host));
    return status;
}

static void a_name_is_resolved(void **state)
{
    struct peer peer;
    int fd = -1;
    (void)state;
    peer_listen(&peer);
    atomic_store(&slow_us, 1000);
    assert_int_equal(connect_to("slow.test", peer.port, 20000, &fd), CRAB_OK);
    (void)close(fd);
    assert_int_equal(connect_to("localhost", peer.port, 20000, &fd), CRAB_OK);
    (void)close(fd);
    assert_int_equal(connect_to("bad.test", peer.port, 20000, &fd), CRAB_E_RESOLVE);
    peer_close(&peer);
}

static void a_slow_name_server_does_not_outlast_the_deadline(void **state)
{
    struct peer peer;
    int fd = -1;
    (void)state;
    peer_listen(&peer);
    atomic_store(&slow_us, 600000);
    uint64_t start = now_ms();
    assert_int_equal(connect_to("slow.test", peer.port, 100, &fd), CRAB_E_TIMEOUT);
    assert_in_range(now_ms() - start, 99, 590);
    assert_int_equal(connect_to("slow.test", peer.port, CRAB_NO_TIMEOUT, &fd), CRAB_OK);
    (void)close(fd);
    peer_close(&peer);
}

/* A target goes on with the resolution that took too long; however often it is tried, there is one thread. */
static void a_late_answer_is_used_by_the_next_call(void **state)
{
    struct peer peer;
    struct net_target target;
    struct crab_failure failure;
    int fd = -1;
    (void)state;
    peer_listen(&peer);
    atomic_store(&slow_us, 400000);
    net_target_init(&target, "slow.test", peer.port, "slow.test");
    unsigned before = atomic_load(&lookups);
    enum crab_status status = CRAB_E_TIMEOUT;
    unsigned tries = 0;
    for (; status == CRAB_E_TIMEOUT && tries < 200; tries++) {
        struct net_deadline deadline = {.timeout_ms = 20};
        status = net_connect_target(&target, &deadline, &fd, &failure);
    }
    assert_int_equal(status, CRAB_OK);
    assert_true(tries > 2);
    assert_int_equal(atomic_load(&lookups), before + 1);
    (void)close(fd);
    /* One that nobody waits for any more frees itself. */
    struct net_deadline deadline = {.timeout_ms = 20};
    assert_int_equal(net_connect_target(&target, &deadline, &fd, &failure), CRAB_E_TIMEOUT);
    net_target_fini(&target);
    peer_close(&peer);
    (void)usleep(600000);
}

/* ---- the race */

/* A listener whose queue is full drops connections: it is silent. */
static void make_silent(struct peer *peer, int *filler)
{
    peer_listen(peer);
    assert_int_equal(listen(peer->listener, 0), 0);
    assert_int_equal(connect_to("127.0.0.1", peer->port, 20000, filler), CRAB_OK);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    assert_int_equal(getpeername(fd, (struct sockaddr *)&address, &size), 0);
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

static void a_silent_address_costs_a_moment(void **state)
{
    struct peer silent;
    struct peer good;
    struct peer gone;
    int filler = -1;
    int fd = -1;
    (void)state;
    make_silent(&silent, &filler);
    peer_listen(&good);
    peer_listen(&gone);
    peer_close(&gone);
    uint64_t start = now_ms();
    memcpy(ports, (uint16_t[PLACES]){silent.port, good.port}, sizeof ports);
    assert_int_equal(connect_to("many.test", 1, 20000, &fd), CRAB_OK);
    assert_int_equal(port_of(fd), good.port);
    assert_in_range(now_ms() - start, EYEBALLS_DELAY_MS - 1, 5000);
    (void)close(fd);
    /* One that refuses costs nothing. */
    start = now_ms();
    memcpy(ports, (uint16_t[PLACES]){gone.port, gone.port, good.port}, sizeof ports);
    assert_int_equal(connect_to("many.test", 1, 20000, &fd), CRAB_OK);
    assert_true(now_ms() - start < EYEBALLS_DELAY_MS);
    (void)close(fd);
    memcpy(ports, (uint16_t[PLACES]){gone.port, gone.port}, sizeof ports);
    assert_int_equal(connect_to("many.test", 1, 20000, &fd), CRAB_E_REFUSED);
    memcpy(ports, (uint16_t[PLACES]){silent.port, gone.port, silent.port}, sizeof ports);
    start = now_ms();
    assert_int_equal(connect_to("many.test", 1, 700, &fd), CRAB_E_TIMEOUT);
    assert_in_range(now_ms() - start, 699, 5000);
    /* No more than so many are tried. */
    for (size_t i = 0; i < PLACES; i++)
        ports[i] = i < EYEBALLS_ADDRESSES ? gone.port : good.port;
    assert_int_equal(connect_to("many.test", 1, 20000, &fd), CRAB_E_REFUSED);
    ports[EYEBALLS_ADDRESSES - 1] = good.port;
    assert_int_equal(connect_to("many.test", 1, 20000, &fd), CRAB_OK);
    (void)close(fd);
    (void)close(filler);
    peer_close(&silent);
    peer_close(&good);
}

/* After a silent address of the preferred family comes one of the other, whatever their order was. */
static void families_take_turns(void **state)
{
    struct peer silent;
    int filler = -1;
    int fd = -1;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof address;
    (void)state;
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
        skip(); /* no IPv6 here */
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    make_silent(&silent, &filler);
    memcpy(ports, (uint16_t[PLACES]){silent.port, silent.port, silent.port, ntohs(address.sin6_port)}, sizeof ports);
    sixes[3] = true;
    uint64_t start = now_ms();
    assert_int_equal(connect_to("many.test", 1, 20000, &fd), CRAB_OK);
    assert_in_range(now_ms() - start, EYEBALLS_DELAY_MS - 1, 2 * EYEBALLS_DELAY_MS - 1);
    assert_int_equal(port_of(fd), ntohs(address.sin6_port));
    sixes[3] = false;
    (void)close(fd);
    (void)close(filler);
    (void)close(listener);
    peer_close(&silent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_resolved),
        cmocka_unit_test(a_slow_name_server_does_not_outlast_the_deadline),
        cmocka_unit_test(a_late_answer_is_used_by_the_next_call), /* tsan */
        cmocka_unit_test(a_silent_address_costs_a_moment),
        cmocka_unit_test(families_take_turns),
    };
    return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
