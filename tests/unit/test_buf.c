/* SPDX-License-Identifier: MIT */
/*
 * The buffers: the budget is kept by all that is taken, output comes out in order however it is sent, and every
 * reference is released exactly once.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/buf.h"

#define LIMIT ((size_t)1 << 20)

struct releases {
    unsigned count;
    uint64_t pins[BUF_OUT_REFS];
};

static void note_release(void *context, struct buf_ref *ref)
{
    struct releases *releases = context;
    assert_true(releases->count < BUF_OUT_REFS);
    releases->pins[releases->count++] = ref->pin;
}

static void test_budget(void **state)
{
    (void)state;
    struct buf_budget budget;
    buf_budget_init(&budget, 1600);
    assert_true(buf_budget_charge(&budget, 1400, BUF_FOR_FRAMES));
    assert_false(buf_budget_charge(&budget, 1, BUF_FOR_FRAMES));
    assert_true(buf_budget_charge(&budget, 100, BUF_FOR_PIECES));
    assert_false(buf_budget_charge(&budget, 1, BUF_FOR_PIECES));
    assert_true(buf_budget_charge(&budget, 100, BUF_FOR_CONNECTIONS));
    assert_false(buf_budget_charge(&budget, 1, BUF_FOR_CONNECTIONS));
    assert_false(buf_budget_charge(&budget, SIZE_MAX, BUF_FOR_FRAMES));
    assert_false(buf_budget_charge(&budget, SIZE_MAX, BUF_FOR_CONNECTIONS));
    buf_budget_release(&budget, 1600);
    assert_int_equal(atomic_load(&budget.used), 0);
    assert_int_equal(atomic_load(&budget.refusals), 5);
}

static void test_sizes(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 255, 256, 257, 1024, 1025, 65535, 65536, 65537, 300000};
    struct buf_budget budget;
    struct buf_pool pool;
    buf_budget_init(&budget, LIMIT);
    buf_pool_init(&pool, &budget, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buf buf;
        assert_true(buf_take(&pool, sizes[i], &buf));
        assert_true(buf.cap >= sizes[i]);
        assert_int_equal(atomic_load(&budget.used), buf_cost(sizes[i]));
        assert_int_equal(buf.cap, buf_cost(sizes[i]));
        memset(buf.data, 1, buf.cap);
        buf_give(&pool, &buf);
        assert_null(buf.data);
        assert_int_equal(atomic_load(&budget.used), 0);
        buf_give(&pool, &buf); /* nothing to give */
    }
    struct buf buf;
    assert_false(buf_take(&pool, LIMIT + 1, &buf));
    assert_false(buf_take(&pool, SIZE_MAX, &buf));
    assert_false(buf_take(&pool, SIZE_MAX - 5000, &buf));
    buf_pool_fini(&pool);
}

/* A buffer grows by classes, then by steps, never beyond what is wanted; its bytes stay, and the budget knows. */
static void test_growing(void **state)
{
    (void)state;
    const size_t wanted = 3000001;
    struct buf_budget budget;
    struct buf_pool pool;
    struct buf buf;
    buf_budget_init(&budget, 4 * LIMIT);
    buf_pool_init(&pool, &budget, 0);
    assert_true(buf_take(&pool, 100, &buf));
    size_t filled = 0;
    while (filled < wanted) {
        size_t cap = buf.cap < wanted ? buf.cap : wanted;
        for (; filled < cap; filled++)
            buf.data[filled] = (uint8_t)(filled * 7 + filled / 4096);
        if (filled == wanted)
            break;
        assert_true(buf_grow(&pool, wanted, &buf));
        assert_true(buf.cap > filled && buf.cap <= buf_cost(wanted));
        assert_true(buf.cap <= 4 * filled || buf.cap <= 5 * BUF_LARGE);
        assert_true(filled <= 2 * BUF_STEP || buf.cap <= 2 * filled);
        assert_int_equal(atomic_load(&budget.used), buf.cap);
    }
    for (size_t i = 0; i < wanted; i++)
        assert_int_equal(buf.data[i], (uint8_t)(i * 7 + i / 4096));
    struct buf before = buf;
    assert_false(buf_grow(&pool, SIZE_MAX, &buf)); /* the frames' share of the budget is used up */
    assert_ptr_equal(buf.data, before.data);
    assert_int_equal(buf.cap, before.cap);
    assert_false(buf_budget_is_short(&budget));
    assert_true(buf_budget_charge(&budget, 4 * LIMIT / 16 * 15 - buf.cap, BUF_FOR_PIECES));
    assert_true(buf_budget_is_short(&budget));
    buf_give(&pool, &buf);
    buf_pool_fini(&pool);
}

/* A pool keeps buffers for reuse, up to its bound, and gives them up when the budget is short. */
static void test_cache(void **state)
{
    (void)state;
    struct buf_budget budget;
    struct buf_pool pool;
    buf_budget_init(&budget, LIMIT);
    buf_pool_init(&pool, &budget, 2 * 4096);
    struct buf bufs[4];
    for (int i = 0; i < 4; i++)
        assert_true(buf_take(&pool, 4096, &bufs[i]));
    uint8_t *last = bufs[1].data;
    for (int i = 0; i < 2; i++)
        buf_give(&pool, &bufs[i]);
    assert_int_equal(atomic_load(&budget.used), 4 * 4096);
    buf_give(&pool, &bufs[2]); /* over the bound: freed */
    assert_int_equal(atomic_load(&budget.used), 3 * 4096);
    assert_true(buf_take(&pool, 2000, &bufs[0]));
    assert_ptr_equal(bufs[0].data, last);
    buf_give(&pool, &bufs[0]);

    struct buf large;
    assert_true(buf_take(&pool, LIMIT / 8 * 7 - 4096, &large)); /* only fits without what is cached */
    assert_int_equal(atomic_load(&budget.used), LIMIT / 8 * 7);
    buf_give(&pool, &large);
    buf_give(&pool, &bufs[3]);
    buf_pool_fini(&pool);
    assert_int_equal(atomic_load(&budget.used), 0);
}

#define REF_LEN 10

/* Eight bytes, then references and bytes by turns. */
static size_t fill(struct buf_out *out, const uint8_t *data, uint8_t *wire)
{
    size_t total = 0;
    for (unsigned i = 0; i < 6; i++) {
        size_t bytes = i % 3 * 4; /* also none between two references */
        memset(out->data + out->len, (int)(i + 1), bytes);
        memset(wire + total, (int)(i + 1), bytes);
        out->len += bytes;
        total += bytes;
        struct buf_ref ref = {.data = data + i * REF_LEN, .len = REF_LEN, .pin = 100 + i};
        buf_out_refer(out, &ref);
        memcpy(wire + total, ref.data, REF_LEN);
        total += REF_LEN;
    }
    memset(out->data + out->len, 99, 3);
    memset(wire + total, 99, 3);
    out->len += 3;
    return total + 3;
}

static size_t gather(const struct buf_out *out, uint8_t *to)
{
    struct iovec vector[BUF_OUT_VECTOR];
    unsigned count = buf_out_vector(out, vector);
    size_t len = 0;
    for (unsigned i = 0; i < count; i++) {
        assert_int_not_equal(vector[i].iov_len, 0);
        memcpy(to + len, vector[i].iov_base, vector[i].iov_len);
        len += vector[i].iov_len;
    }
    return len;
}

/* Send some bytes, park the rest at that point, send the rest in pieces: nothing is lost, doubled or out of order. */
static void test_output_in_pieces(void **state)
{
    (void)state;
    uint8_t data[6 * REF_LEN], wire[256], got[256], bytes[256];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(150 + i);
    struct buf_budget budget;
    struct buf_pool pool;
    buf_budget_init(&budget, LIMIT);
    buf_pool_init(&pool, &budget, 0);
    size_t total = 0;
    for (size_t first = 0; first == 0 || first < total; first++) {
        for (size_t piece = 1; piece < 12; piece += 5) {
            struct buf_ref refs[BUF_OUT_REFS];
            struct releases releases = {0};
            const struct buf_releaser releaser = {note_release, &releases};
            struct buf_out out;
            buf_out_init(&out, bytes, sizeof bytes, refs);
            assert_true(buf_out_empty(&out));
            total = fill(&out, data, wire);
            assert_int_equal(gather(&out, got), total);
            assert_memory_equal(got, wire, total);
            buf_out_sent(&out, first, &releaser);

            struct buf parked;
            assert_true(buf_out_park(&out, &pool, &parked));
            assert_true(buf_out_empty(&out));
            struct buf_out *rest = buf_out_parked(&parked);
            for (size_t sent = first; sent < total;) {
                size_t left = gather(rest, got);
                assert_int_equal(left, total - sent);
                assert_memory_equal(got, wire + sent, left);
                size_t now = left < piece ? left : piece;
                buf_out_sent(rest, now, &releaser);
                sent += now;
            }
            assert_true(buf_out_empty(rest));
            assert_int_equal(releases.count, 6);
            for (unsigned i = 0; i < 6; i++)
                assert_int_equal(releases.pins[i], 100 + i);
            buf_give(&pool, &parked);
        }
    }
    buf_pool_fini(&pool);
    assert_int_equal(atomic_load(&budget.used), 0);
}

static void test_output_dropped(void **state)
{
    (void)state;
    uint8_t data[6 * REF_LEN] = {0}, wire[256], bytes[256];
    struct buf_ref refs[BUF_OUT_REFS];
    struct releases releases = {0};
    const struct buf_releaser releaser = {note_release, &releases};
    struct buf_out out;
    buf_out_init(&out, bytes, sizeof bytes, refs);
    fill(&out, data, wire);
    buf_out_sent(&out, 25, &releaser);
    unsigned before = releases.count;
    assert_true(before > 0 && before < 6);
    buf_out_drop(&out, &releaser);
    assert_int_equal(releases.count, 6);
    assert_true(buf_out_empty(&out));
}

/* Without budget nothing changes: the output can still be sent or dropped. */
static void test_park_without_budget(void **state)
{
    (void)state;
    uint8_t data[6 * REF_LEN] = {0}, wire[256], got[256], bytes[256];
    struct buf_budget budget;
    struct buf_pool pool;
    buf_budget_init(&budget, 100);
    buf_pool_init(&pool, &budget, 0);
    struct buf_ref refs[BUF_OUT_REFS];
    struct buf_out out;
    buf_out_init(&out, bytes, sizeof bytes, refs);
    size_t total = fill(&out, data, wire);
    struct buf parked;
    assert_false(buf_out_park(&out, &pool, &parked));
    assert_int_equal(gather(&out, got), total);
    assert_memory_equal(got, wire, total);
    buf_pool_fini(&pool);
}

/* One pool's buffer, growing again and again where another's has just been. */
static void *grow_and_give(void *argument)
{
    static char no_buffer[] = "no buffer", did_not_grow[] = "a buffer did not grow", lost[] = "bytes were lost";
    struct buf_pool pool;
    buf_pool_init(&pool, argument, 0);
    for (unsigned round = 0; round < 200; round++) {
        struct buf buf;
        if (!buf_take(&pool, BUF_LARGE, &buf))
            return no_buffer;
        for (size_t size = BUF_LARGE; size < 4 * BUF_STEP; size = buf.cap) {
            memset(buf.data, (int)round, buf.cap);
            if (!buf_grow(&pool, 4 * BUF_STEP, &buf))
                return did_not_grow;
            if (buf.data[size - 1] != (uint8_t)round || buf.data[0] != (uint8_t)round)
                return lost;
        }
        buf_give(&pool, &buf);
    }
    buf_pool_fini(&pool);
    return NULL;
}

static void test_growing_beside_others(void **state)
{
    (void)state;
    struct buf_budget budget;
    buf_budget_init(&budget, 64 * LIMIT);
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, grow_and_give, &budget), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *complaint;
        assert_int_equal(pthread_join(threads[i], &complaint), 0);
        if (complaint != NULL)
            fail_msg("%s", (char *)complaint);
    }
    assert_int_equal(atomic_load(&budget.used), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget),           cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_cache),            cmocka_unit_test(test_output_in_pieces),
        cmocka_unit_test(test_output_dropped),   cmocka_unit_test(test_park_without_budget),
        cmocka_unit_test(test_growing),          cmocka_unit_test(test_growing_beside_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
