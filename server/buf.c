/* SPDX-License-Identifier: MIT */
/*
 * Buffers of clients, and what is to be sent to them.
 *
 * A connection holds a buffer only while a partial frame or unsent output waits in it; all the rest of the time
 * the buffers of its worker do. That is why a pool needs few of them, and why the shared budget is touched only
 * when a pool runs dry or overflows, not per request.
 *
 *     buf_out:  data  [ sent | bytes . bytes ....... bytes | room ]
 *                     0      start   ^at              ^at  len
 *     refs      [ sent | ref ---------'  ref ---------'  ]        the wire sees: bytes ref bytes ref bytes
 */
#include "server/buf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

static const size_t class_sizes[BUF_CLASSES] = {256, 1024, 4096, 16384, BUF_LARGE};

static_assert(sizeof(struct buf_out) % _Alignof(struct buf_ref) == 0, "references can follow the queue in one buffer");

/* ---------------------------------------------------------------------------------------------- budget */

void buf_budget_init(struct buf_budget *budget, size_t limit)
{
    atomic_init(&budget->used, 0);
    atomic_init(&budget->refusals, 0);
    budget->limit = limit;
}

static size_t limit_for(const struct buf_budget *budget, enum buf_use use)
{
    switch (use) {
    case BUF_FOR_FRAMES:
        return budget->limit / 8 * 7;
    case BUF_FOR_PIECES:
        return budget->limit / 16 * 15;
    case BUF_FOR_CONNECTIONS:
        break;
    }
    return budget->limit;
}

bool buf_budget_charge(struct buf_budget *budget, size_t bytes, enum buf_use use)
{
    size_t limit = limit_for(budget, use);
    size_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
    do {
        if (used > limit || bytes > limit - used) {
            atomic_fetch_add_explicit(&budget->refusals, 1, memory_order_relaxed);
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&budget->used, &used, used + bytes, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void buf_budget_release(struct buf_budget *budget, size_t bytes)
{
    atomic_fetch_sub_explicit(&budget->used, bytes, memory_order_relaxed);
}

bool buf_budget_is_short(const struct buf_budget *budget)
{
    return atomic_load_explicit(&budget->used, memory_order_relaxed) > budget->limit / 4 * 3;
}

/* ------------------------------------------------------------------------------------------------ pool */

void buf_pool_init(struct buf_pool *pool, struct buf_budget *budget, size_t cache_max)
{
    memset(pool, 0, sizeof *pool);
    pool->budget = budget;
    pool->cache_max = cache_max;
    for (unsigned i = 0; i < BUF_CLASSES; i++)
        pool->classes[i].size = class_sizes[i];
}

static void trim(struct buf_pool *pool)
{
    for (unsigned i = 0; i < BUF_CLASSES; i++) {
        struct buf_class *class = &pool->classes[i];
        while (class->free != NULL) {
            void *data = class->free;
            memcpy(&class->free, data, sizeof class->free);
            free(data);
            buf_budget_release(pool->budget, class->size);
        }
    }
    pool->cached = 0;
}

void buf_pool_fini(struct buf_pool *pool)
{
    trim(pool);
}

static struct buf_class *class_of(struct buf_pool *pool, size_t size)
{
    unsigned i = 0;
    while (pool->classes[i].size < size)
        i++;
    return &pool->classes[i];
}

size_t buf_cost(size_t size)
{
    if (size > BUF_LARGE)
        return (size + PAGE - 1) / PAGE * PAGE;
    unsigned i = 0;
    while (class_sizes[i] < size)
        i++;
    return class_sizes[i];
}

static bool charge(struct buf_pool *pool, size_t bytes, enum buf_use use)
{
    if (buf_budget_charge(pool->budget, bytes, use))
        return true;
    if (pool->cached == 0)
        return false;
    trim(pool);
    return buf_budget_charge(pool->budget, bytes, use);
}

static bool take_large(struct buf_pool *pool, size_t size, struct buf *buf)
{
    if (size > pool->budget->limit)
        return false;
    size_t cap = buf_cost(size);
    if (!charge(pool, cap, BUF_FOR_FRAMES))
        return false;
    void *data = mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        buf_budget_release(pool->budget, cap);
        return false;
    }
    *buf = (struct buf){data, cap};
    return true;
}

bool buf_take(struct buf_pool *pool, size_t size, struct buf *buf)
{
    if (size > BUF_LARGE)
        return take_large(pool, size, buf);
    struct buf_class *class = class_of(pool, size);
    void *data = class->free;
    if (data != NULL) {
        memcpy(&class->free, data, sizeof class->free);
        pool->cached -= class->size;
    } else {
        if (!charge(pool, class->size, BUF_FOR_PIECES))
            return false;
        data = malloc(class->size);
        if (data == NULL) {
            buf_budget_release(pool->budget, class->size);
            return false;
        }
    }
    *buf = (struct buf){data, class->size};
    return true;
}

/* Mapped ones are moved by the kernel, without copying. */
static void *remap(void *data, size_t from, size_t to)
{
#ifdef __SANITIZE_THREAD__
    /* ThreadSanitizer does not know mremap(): it would take what the last owner of these addresses did for a race. */
    void *moved = mmap(NULL, to, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (moved != MAP_FAILED) {
        memcpy(moved, data, from);
        munmap(data, from);
    }
    return moved;
#else
    return mremap(data, from, to, MREMAP_MAYMOVE);
#endif
}

static bool grow_large(struct buf_pool *pool, size_t size, struct buf *buf)
{
    size_t cap = buf_cost(size);
    if (cap > pool->budget->limit || !charge(pool, cap - buf->cap, BUF_FOR_FRAMES))
        return false;
    void *data = remap(buf->data, buf->cap, cap);
    if (data == MAP_FAILED) {
        buf_budget_release(pool->budget, cap - buf->cap);
        return false;
    }
    *buf = (struct buf){data, cap};
    return true;
}

bool buf_grow(struct buf_pool *pool, size_t size, struct buf *buf)
{
    assert(size > buf->cap);
    size_t step = buf->cap / 4 > BUF_STEP ? buf->cap / 4 : BUF_STEP;
    size_t wanted = buf->cap < BUF_LARGE ? buf->cap + 1 : buf->cap + step;
    if (wanted > size)
        wanted = size;
    if (buf->cap > BUF_LARGE)
        return grow_large(pool, wanted, buf);
    struct buf larger;
    if (!buf_take(pool, wanted, &larger))
        return false;
    memcpy(larger.data, buf->data, buf->cap);
    buf_give(pool, buf);
    *buf = larger;
    return true;
}

void buf_give(struct buf_pool *pool, struct buf *buf)
{
    if (buf->data == NULL)
        return;
    if (buf->cap > BUF_LARGE) {
        munmap(buf->data, buf->cap);
        buf_budget_release(pool->budget, buf->cap);
    } else if (pool->cached + buf->cap > pool->cache_max) {
        free(buf->data);
        buf_budget_release(pool->budget, buf->cap);
    } else {
        struct buf_class *class = class_of(pool, buf->cap);
        memcpy(buf->data, &class->free, sizeof class->free);
        class->free = buf->data;
        pool->cached += buf->cap;
    }
    *buf = (struct buf){NULL, 0};
}

/* ---------------------------------------------------------------------------------------------- output */

void buf_out_init(struct buf_out *out, uint8_t *data, size_t cap, struct buf_ref *refs)
{
    memset(out, 0, sizeof *out);
    out->data = data;
    out->cap = cap;
    out->refs = refs;
}

void buf_out_reset(struct buf_out *out)
{
    out->start = 0;
    out->len = 0;
    out->ref_first = 0;
    out->ref_count = 0;
    out->ref_bytes = 0;
}

void buf_out_refer(struct buf_out *out, const struct buf_ref *ref)
{
    assert(out->ref_count < BUF_OUT_REFS);
    struct buf_ref *to = &out->refs[out->ref_count++];
    *to = *ref;
    to->at = out->len;
    out->ref_bytes += ref->len;
}

static unsigned add_entry(struct iovec *vector, unsigned count, const uint8_t *data, size_t len)
{
    if (len == 0)
        return count;
    vector[count].iov_base = (void *)(uintptr_t)data;
    vector[count].iov_len = len;
    return count + 1;
}

unsigned buf_out_vector(const struct buf_out *out, struct iovec *vector)
{
    unsigned count = 0;
    size_t at = out->start;
    for (unsigned i = out->ref_first; i < out->ref_count; i++) {
        const struct buf_ref *ref = &out->refs[i];
        count = add_entry(vector, count, out->data + at, ref->at - at);
        count = add_entry(vector, count, ref->data, ref->len);
        at = ref->at;
    }
    return add_entry(vector, count, out->data + at, out->len - at);
}

void buf_out_sent(struct buf_out *out, size_t bytes, const struct buf_releaser *releaser)
{
    while (out->ref_first < out->ref_count) {
        struct buf_ref *ref = &out->refs[out->ref_first];
        size_t before = ref->at - out->start;
        if (bytes < before) {
            out->start += bytes;
            return;
        }
        out->start = ref->at;
        bytes -= before;
        if (bytes < ref->len) {
            ref->data += bytes;
            ref->len -= bytes;
            return;
        }
        bytes -= ref->len;
        releaser->release(releaser->context, ref);
        out->ref_first++;
    }
    assert(bytes <= out->len - out->start);
    out->start += bytes;
    if (out->start == out->len)
        buf_out_reset(out);
}

void buf_out_drop(struct buf_out *out, const struct buf_releaser *releaser)
{
    for (unsigned i = out->ref_first; i < out->ref_count; i++)
        releaser->release(releaser->context, &out->refs[i]);
    buf_out_reset(out);
}

bool buf_out_park(struct buf_out *out, struct buf_pool *pool, struct buf *buf)
{
    unsigned refs = out->ref_count - out->ref_first;
    size_t bytes = out->len - out->start;
    size_t head = sizeof(struct buf_out) + refs * sizeof(struct buf_ref);
    struct buf taken;
    if (!buf_take(pool, head + bytes, &taken))
        return false;

    struct buf_out *to = (struct buf_out *)(void *)taken.data;
    buf_out_init(to, taken.data + head, bytes, (struct buf_ref *)(void *)(taken.data + sizeof *to));
    if (bytes != 0)
        memcpy(to->data, out->data + out->start, bytes);
    to->len = bytes;
    for (unsigned i = 0; i < refs; i++) {
        to->refs[i] = out->refs[out->ref_first + i];
        to->refs[i].at -= out->start;
        to->ref_bytes += to->refs[i].len;
    }
    to->ref_count = refs;
    buf_out_reset(out);
    *buf = taken;
    return true;
}
