/* SPDX-License-Identifier: MIT */
/*
 * The calls of exchanges.h: request and reply in hexadecimal, written by hand from the specification.
 */
#include "tests/support/exchanges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define KEY "key", 3
#define K "6b6579"

static enum crab_status do_ping(struct crab_conn *c, struct outcome *o)
{
    (void)o;
    return crab_conn_ping(c);
}

static enum crab_status do_auth(struct crab_conn *c, struct outcome *o)
{
    (void)o;
    return crab_conn_auth(c, "me", "pw", 2);
}

static enum crab_status do_put(struct crab_conn *c, struct outcome *o)
{
    (void)o;
    return crab_conn_put(c, KEY, "value", 5, NULL, NULL);
}

static enum crab_status do_put_all(struct crab_conn *c, struct outcome *o)
{
    struct crab_put_options options = {
        .ttl_ms = 1000, .app_flags = 0x01020304, .condition = CRAB_IF_VERSION, .version = 0x1122334455667788};
    return crab_conn_put(c, KEY, NULL, 0, &options, &o->version);
}

static enum crab_status do_put_absent(struct crab_conn *c, struct outcome *o)
{
    struct crab_put_options options = {.condition = CRAB_IF_ABSENT};
    (void)o;
    return crab_conn_put(c, KEY, "v", 1, &options, NULL);
}

static enum crab_status do_put_present(struct crab_conn *c, struct outcome *o)
{
    struct crab_put_options options = {.condition = CRAB_IF_PRESENT, .ttl_ms = CRAB_TTL_NEVER};
    (void)o;
    return crab_conn_put(c, KEY, "v", 1, &options, NULL);
}

static enum crab_status do_get(struct crab_conn *c, struct outcome *o)
{
    return crab_conn_get(c, KEY, &o->bytes);
}

static enum crab_status do_touch(struct crab_conn *c, struct outcome *o)
{
    return crab_conn_get_touch(c, KEY, 5, &o->bytes);
}

static enum crab_status do_meta(struct crab_conn *c, struct outcome *o)
{
    return crab_conn_get_meta(c, KEY, 0, &o->item);
}

static enum crab_status do_meta_touch(struct crab_conn *c, struct outcome *o)
{
    return crab_conn_get_meta(c, KEY, 5, &o->item);
}

static enum crab_status do_del(struct crab_conn *c, struct outcome *o)
{
    (void)o;
    return crab_conn_del(c, KEY);
}

static enum crab_status do_expire(struct crab_conn *c, struct outcome *o)
{
    (void)o;
    return crab_conn_expire(c, KEY, 60000);
}

static enum crab_status do_incr(struct crab_conn *c, struct outcome *o)
{
    return crab_conn_incr(c, KEY, 7, NULL, &o->number);
}

static enum crab_status do_decr(struct crab_conn *c, struct outcome *o)
{
    struct crab_incr_options options = {.create = true, .initial = -2, .ttl_ms = 9};
    return crab_conn_decr(c, KEY, 7, &options, &o->number);
}

static enum crab_status do_stats(struct crab_conn *c, struct outcome *o)
{
    return crab_conn_stats(c, NULL, &o->bytes);
}

static enum crab_status do_section(struct crab_conn *c, struct outcome *o)
{
    return crab_conn_stats(c, "ops", &o->bytes);
}

static enum crab_status do_flush(struct crab_conn *c, struct outcome *o)
{
    (void)o;
    return crab_conn_flush_all(c);
}

const struct exchange exchanges[] = {
    {"ping", do_ping, "01 00 0000 00000000", "11", CRAB_OK, false},
    {"auth", do_auth, "08 00 0200 04000000 6d65 7077", "10", CRAB_OK, false},
    {"put", do_put, "02 00 0300 08000000" K "76616c7565", "10", CRAB_OK, true},
    {"put, all options", do_put_all,
     "02 1f 0300 17000000 e803000000000000 04030201 8877665544332211" K, "19 08000000 0500000000000000", CRAB_OK, true},
    {"put, other version", do_put_all,
     "02 1f 0300 17000000 e803000000000000 04030201 8877665544332211" K, "17 08000000 0500000000000000",
     CRAB_EXISTS, true},
    {"put, version of nothing", do_put_all,
     "02 1f 0300 17000000 e803000000000000 04030201 8877665544332211" K, "12", CRAB_MISS, true},
    {"put if absent", do_put_absent, "02 04 0300 04000000" K "76", "17 0a000000 0500000000000000 ffff",
     CRAB_EXISTS, true},
    {"put if present", do_put_present, "02 09 0300 0c000000 ffffffffffffffff" K "76", "12", CRAB_MISS, true},
    {"get", do_get, "03 00 0300 03000000" K, "14 05000000 76616c7565", CRAB_OK, false},
    {"get, empty", do_get, "03 00 0300 03000000" K, "14 00000000", CRAB_OK, false},
    {"get, miss", do_get, "03 00 0300 03000000" K, "12", CRAB_MISS, false},
    {"get and touch", do_touch, "03 01 0300 0b000000 0500000000000000" K, "14 05000000 76616c7565", CRAB_OK, false},
    {"get meta", do_meta, "03 02 0300 03000000" K, "16 19000000 0500000000000000 ffffffffffffffff 07000000 76616c7565",
     CRAB_OK, false},
    {"get meta and touch", do_meta_touch, "03 03 0300 0b000000 0500000000000000" K,
     "16 19000000 0500000000000000 ffffffffffffffff 07000000 76616c7565", CRAB_OK, false},
    {"del", do_del, "04 00 0300 03000000" K, "10", CRAB_OK, true},
    {"del, miss", do_del, "04 00 0300 03000000" K, "12", CRAB_MISS, true},
    {"expire", do_expire, "05 00 0300 0b000000 60ea000000000000" K, "10", CRAB_OK, true},
    {"incr", do_incr, "0b 00 0300 0b000000 0700000000000000" K, "18 08000000 feffffffffffffff", CRAB_OK, true},
    {"incr, miss", do_incr, "0b 00 0300 0b000000 0700000000000000" K, "12", CRAB_MISS, true},
    {"decr, all options", do_decr,
     "0c 03 0300 1b000000 0700000000000000 0900000000000000 feffffffffffffff" K, "18 09000000 feffffffffffffff aa",
     CRAB_OK, true},
    {"stats", do_stats, "06 00 0000 00000000", "15 05000000 76616c7565", CRAB_OK, false},
    {"stats of a section", do_section, "06 00 0300 03000000 6f7073", "15 05000000 76616c7565", CRAB_OK, false},
    {"flush", do_flush, "09 00 0000 00000000", "10", CRAB_OK, true},
    {"error", do_get, "03 00 0300 03000000" K, "13 07000000 0201 62757379 0a", CRAB_E_SERVER, false},
    {"unknown reply", do_get, "03 00 0300 03000000" K, "55 03000000 010203", CRAB_E_UNKNOWN_REPLY, false},
    {NULL, NULL, NULL, NULL, CRAB_OK, false},
};

const size_t exchange_count = sizeof exchanges / sizeof exchanges[0] - 1;

void check_broken(struct crab_conn *conn)
{
    struct outcome outcome = {0};
    struct crab_result result;
    assert_int_not_equal(crab_conn_state(conn), CRAB_OK);
    assert_int_equal(crab_conn_fd(conn), -1);
    assert_true(crab_conn_error_text(conn)[0] != '\0');
    for (size_t i = 0; i < exchange_count; i++)
        assert_int_equal(exchanges[i].call(conn, &outcome), CRAB_E_BROKEN);
    assert_int_equal(crab_conn_queue_ping(conn), CRAB_E_BROKEN);
    assert_int_equal(crab_conn_flush(conn), CRAB_E_BROKEN);
    assert_int_equal(crab_conn_next_reply(conn, &result), CRAB_E_BROKEN);
}
