/* SPDX-License-Identifier: MIT */
/*
 * Which server a key belongs to: MD5, the continuum beside libmemcached's, rendezvous; what a server's leaving moves; the circuit's
 * pauses; and a client over servers that come and go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <libmemcached/memcached.h>

#include "client/circuit.h"
#include "client/md5.h"
#include "client/ring.h"
#include "client/value.h"
#include "tests/support/serve.h" /* tsan */

#define KEYS 20000U

static const struct crab_allocator libc = {.resize = value_resize_by_libc};
static struct uri uri;

static void make_ring(struct ring *ring, const char *text)
{
    char why[200];
    if (!uri_parse(text, &uri, why, sizeof why))
        fail_msg("%s", why);
    assert_true(ring_init(ring, &uri, uri.distribution, &libc));
}

static size_t find(const struct ring *ring, unsigned i, uint64_t out)
{
    char key[32];
    return ring_find(ring, key, (size_t)snprintf(key, sizeof key, "key:%u", i), out);
}

static void md5_is_right(void **state)
{
    static const struct {
        const char *text;
        const char *digest;
    } known[] = {
        /* RFC 1321, A.5 */
        {"", "d41d8cd98f00b204e9800998ecf8427e"},
        {"a", "0cc175b9c0f1b6a831c399e269772661"},
        {"abc", "900150983cd24fb0d6963f7d28e17f72"},
        {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
        {"abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"},
        {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
         "57edf4a22be3c955ac49da2e2107b67a"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint8_t digest[16];
        char text[33];
        md5(known[i].text, strlen(known[i].text), digest);
        for (unsigned k = 0; k < 16; k++)
            (void)snprintf(text + 2 * (size_t)k, 3, "%02x", (unsigned)digest[k]);
        assert_string_equal(text, known[i].digest);
    }
}

/* libmemcached with the same servers; it rebuilds libketama's continuum. */
static memcached_st *make_oracle(void)
{
    memcached_st *oracle = memcached_create(NULL);
    assert_non_null(oracle);
    assert_int_equal(memcached_behavior_set(oracle, MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, 1), MEMCACHED_SUCCESS);
    for (size_t i = 0; i < uri.count; i++)
        assert_int_equal(memcached_server_add_with_weight(oracle, uri.servers[i].host, uri.servers[i].port, uri.servers[i].weight),
                         MEMCACHED_SUCCESS);
    return oracle;
}

static void the_continuum_is_libketamas(void **state)
{
    static const char *const texts[] = {
        "crab://10.0.1.1,10.0.1.2",
        "crab://10.0.1.1:1,10.0.1.2:2,10.0.1.3:3,10.0.1.4:4,10.0.1.5:5,10.0.1.6:6,10.0.1.7:7",
        "crab://a,b,c?weights=1,2,3",
        "crab://a,b,c,d,e?weights=600,300,200,350,1000",
        "crab://a:1000,b.example:2000?weights=1,1000",
    };
    (void)state;
    for (size_t t = 0; t < sizeof texts / sizeof texts[0]; t++) {
        struct ring ring;
        make_ring(&ring, texts[t]);
        memcached_st *oracle = make_oracle();
        for (unsigned i = 0; i < KEYS; i++) {
            char key[32];
            size_t len = (size_t)snprintf(key, sizeof key, "key:%u", i);
            if (ring_find(&ring, key, len, 0) != memcached_generate_hash(oracle, key, len))
                fail_msg("%s: %s", texts[t], key);
        }
        memcached_free(oracle);
        ring_fini(&ring, &libc);
    }
}

/* The first points of libketama's own example, from its C source by hand: "10.0.1.1:11211-0" and so on. */
static void its_points_are_those_of_the_names(void **state)
{
    struct ring ring;
    uint8_t digest[16];
    (void)state;
    make_ring(&ring, "crab://10.0.1.1:11211,10.0.1.2:11211");
    assert_int_equal(ring.points_count, 2 * RING_DIGESTS * RING_POINTS_OF_DIGEST);
    md5("10.0.1.2:11211-39", 17, digest);
    uint32_t value = (uint32_t)digest[15] << 24 | (uint32_t)digest[14] << 16 | (uint32_t)digest[13] << 8 | digest[12];
    bool found = false;
    for (size_t i = 0; i < ring.points_count; i++)
        found |= ring.points[i].value == value && ring.points[i].server == 1;
    assert_true(found);
    ring_fini(&ring, &libc);
}

static void check_spread(const char *text, double tolerance)
{
    struct ring ring;
    unsigned counts[CRAB_MAX_SERVERS] = {0};
    double total = 0;
    make_ring(&ring, text);
    for (unsigned i = 0; i < KEYS; i++)
        counts[find(&ring, i, 0)]++;
    for (size_t i = 0; i < uri.count; i++)
        total += uri.servers[i].weight;
    for (size_t i = 0; i < uri.count; i++) {
        double share = counts[i] / (double)KEYS / (uri.servers[i].weight / total);
        if (share < 1 - tolerance || share > 1 + tolerance)
            fail_msg("%s: server %zu has %.3f of its share", text, i, share);
    }
    /* Without a server its keys go to others, and no other key moves. */
    for (unsigned i = 0; i < KEYS; i++) {
        size_t before = find(&ring, i, 0);
        size_t after = find(&ring, i, 2);
        assert_true(before == 1 ? after != 1 : after == before);
        assert_int_equal(find(&ring, i, UINT64_MAX), before);
    }
    ring_fini(&ring, &libc);
}

static void keys_are_spread_by_weight(void **state)
{
    (void)state;
    check_spread("crab://a,b,c,d,e", 0.25);
    check_spread("crab://a,b,c,d,e?distribution=rendezvous", 0.06);
    check_spread("crab://a,b,c?weights=1,2,7&distribution=rendezvous", 0.06);
    check_spread("crab://a,b,c,d?weights=100,100,100,10&distribution=rendezvous", 0.12);
}

/* Where keys lie must never change from one version to the next. */
static void rendezvous_stays_as_it_is(void **state)
{
    struct ring ring;
    char places[33] = "";
    (void)state;
    make_ring(&ring, "crab://a,b:1,c?weights=1,2,3&distribution=rendezvous");
    for (unsigned i = 0; i < 32; i++)
        places[i] = (char)('0' + find(&ring, i, 0));
    assert_string_equal(places, "02122222112210121112120222221212");
    ring_fini(&ring, &libc);
}

static void a_circuit_opens_and_closes(void **state)
{
    struct circuit circuit;
    uint64_t now = 1000000000;
    uint32_t most = CIRCUIT_LEAST_MS;
    (void)state;
    assert_true(circuit_init(&circuit, 7));
    assert_true(circuit_admit(&circuit, now, 100));
    assert_false(circuit_is_out(&circuit));
    for (unsigned i = 0; i < 20; i++) {
        uint32_t pause = circuit_fail(&circuit, now);
        assert_in_range(pause, most / 2, most);
        assert_false(circuit_admit(&circuit, now + (uint64_t)(pause - 1) * 1000000, 100));
        assert_int_equal(circuit_look(&circuit, now).retry_in_ms, pause);
        if (i == 3) { /* another connection fails at the same time: nothing doubles */
            uint32_t same = circuit_fail(&circuit, now + 1000000);
            assert_in_range(same, pause - 2, pause);
        }
        now += (uint64_t)pause * 1000000;
        assert_true(circuit_admit(&circuit, now, 100)); /* one tries, */
        assert_false(circuit_admit(&circuit, now, 100)); /* nobody else, */
        assert_true(circuit_look(&circuit, now).probing);
        if (i == 5) { /* unless it takes too long, or is given up */
            now += 100000000;
            assert_true(circuit_admit(&circuit, now, 100));
            circuit_forget(&circuit);
            assert_true(circuit_admit(&circuit, now, 100));
        }
        most = most * 2 > CIRCUIT_MOST_MS ? CIRCUIT_MOST_MS : most * 2;
    }
    assert_true(circuit_succeed(&circuit));
    assert_false(circuit_succeed(&circuit));
    assert_true(circuit_look(&circuit, now).closed);
    assert_in_range(circuit_fail(&circuit, now), CIRCUIT_LEAST_MS / 2, CIRCUIT_LEAST_MS);
    circuit_fini(&circuit);
}

/* ---- a client over three servers */

static void servers_leave_and_return(void **state)
{
    static struct serve serves[3];
    struct crab_client *client = NULL;
    struct crab_value value = {0};
    struct crab_server_stats stats;
    char text[256];
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        serve_start(&serves[i]);
    (void)snprintf(text, sizeof text, "crab://127.0.0.1:%u,127.0.0.1:%u,127.0.0.1:%u?eject=1&timeout=20000&retries=8",
                   (unsigned)serves[0].port, (unsigned)serves[1].port, (unsigned)serves[2].port);
    assert_int_equal(crab_client_open(text, NULL, &client, NULL), CRAB_OK);
    assert_int_equal(crab_client_servers(client), 3);
    for (unsigned round = 0; round < 3; round++) {
        if (round == 1)
            serve_stop(&serves[1]);
        if (round == 2)
            serve_start(&serves[1]);
        for (unsigned i = 0; i < 300; i++) {
            char key[32];
            size_t len = (size_t)snprintf(key, sizeof key, "%u/%u", round, i);
            enum crab_status status = crab_client_put(client, key, len, key, len, NULL, NULL, NULL);
            if (status != CRAB_OK)
                fail_msg("round %u key %u: %s", round, i, crab_status_name(status));
            status = crab_client_get(client, key, len, &value, NULL); /* a key may move in between: that is a miss */
            assert_true(status == CRAB_OK || (round != 0 && status == CRAB_MISS));
        }
    }
    uint64_t requests = 0;
    for (int waits = 0; waits < 1000 && requests == 0; waits++) { /* until its pause is over, and it is tried again */
        char key[32];
        size_t len = (size_t)snprintf(key, sizeof key, "again %d", waits);
        assert_int_equal(crab_client_put(client, key, len, key, len, NULL, NULL, NULL), CRAB_OK);
        assert_int_equal(crab_client_server_stats(client, 1, &stats), CRAB_OK);
        requests = stats.connected;
        (void)usleep(10000);
    }
    assert_int_equal(stats.state, CRAB_SERVER_UP);
    assert_true(stats.connects >= 2 && stats.connect_failures >= 1);
    assert_int_equal(crab_client_flush_all(client, NULL), CRAB_OK);
    crab_value_fini(&value);
    crab_client_close(client);
    for (unsigned i = 0; i < 3; i++)
        serve_end(&serves[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(md5_is_right),
        cmocka_unit_test(the_continuum_is_libketamas),
        cmocka_unit_test(its_points_are_those_of_the_names),
        cmocka_unit_test(keys_are_spread_by_weight),
        cmocka_unit_test(rendezvous_stays_as_it_is),
        cmocka_unit_test(a_circuit_opens_and_closes),
        cmocka_unit_test(servers_leave_and_return),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
