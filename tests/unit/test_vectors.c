/* SPDX-License-Identifier: MIT */
/*
 * The C codec against the conformance vectors of spec/vectors, which the generator writes down a second time as the
 * tables of vectors.inc. Each frame is decoded whole, and cut at every byte at which the answer is not settled yet;
 * each cut lies in an allocation of exactly its size, so that a sanitizer sees a read beyond it. What decodes and is
 * canonical must encode to the same bytes again, and to nothing in a buffer that is too small by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crabcache/wire.h"

#define MAX_NUMBERS 6
#define MAX_STEPS 4
#define CUTS_AFTER_DECISION 64

/* `count` sizes of the buffer, one after the other from 0 on, at which `need` bytes are needed. */
struct step {
    uint32_t count;
    uint32_t need;
};

struct part {
    uint32_t at;
    uint32_t len;
};

struct vector {
    const char *id;
    const char *frame; /* hex; "4b*9." is nine times 0x4b */
    uint32_t limit;    /* max_value of requests, max_len of replies */
    enum crab_decode result;
    uint64_t size;
    uint16_t error;
    bool is_reply;
    bool canonical; /* encoding the message gives the frame */
    bool has_head;  /* op, flags and tag are to be looked at */
    uint8_t op;
    uint8_t flags;
    bool tagged;
    uint32_t tag;
    uint64_t numbers[MAX_NUMBERS]; /* the fixed fields in the order of the wire */
    struct part slices[3];         /* ext, key and value; of a reply: the field that takes the rest */
    struct step steps[MAX_STEPS];
};

struct vector_file {
    const char *name;
    const struct vector *vectors;
    size_t count;
};

#include "tests/unit/vectors.inc"

union message {
    union crab_request request;
    union crab_reply reply;
};

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

/* The bytes of a frame; the caller frees them. */
static uint8_t *frame_bytes(const char *text, size_t *len)
{
    size_t room = strlen(text) / 2 + 1;
    for (const char *star = strchr(text, '*'); star != NULL; star = strchr(star + 1, '*'))
        room += strtoul(star + 1, NULL, 10);
    uint8_t *bytes = malloc(room);
    assert_non_null(bytes);
    size_t n = 0;
    while (*text != '\0') {
        uint8_t byte = (uint8_t)(hex_digit(text[0]) << 4 | hex_digit(text[1]));
        size_t times = 1;
        text += 2;
        if (*text == '*') {
            char *end;
            times = strtoul(text + 1, &end, 10);
            text = end + 1;
        }
        memset(bytes + n, byte, times);
        n += times;
    }
    *len = n;
    return bytes;
}

static enum crab_decode decode(const struct vector *v, const uint8_t *bytes, size_t len, union message *m,
                               struct crab_frame *frame)
{
    memset(m, 0xa5, sizeof *m);
    memset(frame, 0xa5, sizeof *frame);
    if (v->is_reply)
        return crab_reply_decode(bytes, len, v->limit, &m->reply, frame);
    return crab_request_decode(bytes, len, v->limit, &m->request, frame);
}

static void check_slice(const struct vector *v, const char *name, const uint8_t *bytes, struct part part,
                        struct crab_slice slice)
{
    if (slice.len != part.len)
        fail_msg("%s: %s has %zu bytes, not %u", v->id, name, slice.len, part.len);
    if (part.len != 0 && slice.data != bytes + part.at)
        fail_msg("%s: %s does not begin at byte %u", v->id, name, part.at);
}

static void check_numbers(const struct vector *v, const uint64_t *numbers)
{
    for (size_t i = 0; i < MAX_NUMBERS; i++) {
        if (numbers[i] != v->numbers[i])
            fail_msg("%s: field %zu is %#llx, not %#llx", v->id, i, (unsigned long long)numbers[i],
                     (unsigned long long)v->numbers[i]);
    }
}

static void check_request(const struct vector *v, const uint8_t *bytes, const union crab_request *m)
{
    const struct crab_req_head *head = &m->head;
    if (head->op != v->op || head->flags != v->flags)
        fail_msg("%s: op %#x, flags %#x", v->id, head->op, head->flags);
    if (v->tagged ? head->tag != v->tag : (head->flags & CRAB_FLAG_TAG) != 0)
        fail_msg("%s: tag %#x, flags %#x", v->id, head->tag, head->flags);
    if (v->result != CRAB_WHOLE)
        return;
    uint64_t numbers[MAX_NUMBERS] = {0};
    request_numbers(m, numbers);
    check_numbers(v, numbers);
    check_slice(v, "ext", bytes, v->slices[0], head->ext);
    check_slice(v, "key", bytes, v->slices[1], head->key);
    check_slice(v, "value", bytes, v->slices[2], head->value);
}

static void check_reply(const struct vector *v, const uint8_t *bytes, const union crab_reply *m)
{
    if (m->head.op != v->op || m->head.tagged != v->tagged || (v->tagged && m->head.tag != v->tag))
        fail_msg("%s: op %#x, tagged %d, tag %#x", v->id, m->head.op, m->head.tagged, m->head.tag);
    uint64_t numbers[MAX_NUMBERS] = {0};
    struct crab_slice rest = {NULL, 0};
    reply_numbers(m, numbers, &rest);
    check_numbers(v, numbers);
    check_slice(v, "rest", bytes, v->slices[0], rest);
}

static void check_answer(const struct vector *v, const uint8_t *bytes, size_t len)
{
    union message m;
    struct crab_frame frame;
    enum crab_decode result = decode(v, bytes, len, &m, &frame);
    if (result != v->result || frame.size != v->size || frame.error != v->error)
        fail_msg("%s: with %zu bytes: result %d, size %llu, error %#x", v->id, len, (int)result,
                 (unsigned long long)frame.size, frame.error);
    if (!v->has_head)
        return;
    if (v->is_reply)
        check_reply(v, bytes, &m.reply);
    else
        check_request(v, bytes, &m.request);
}

/* Decode the frame cut to each size at which more is needed; and, if it is malformed, to some at which it shows. */
static void check_cuts(const struct vector *v, const uint8_t *bytes, size_t len)
{
    size_t cut = 0;
    for (size_t i = 0; i < MAX_STEPS; i++) {
        for (uint32_t n = 0; n < v->steps[i].count; n++, cut++) {
            uint8_t *copy = malloc(cut != 0 ? cut : 1);
            assert_non_null(copy);
            memcpy(copy, bytes, cut);
            union message m;
            struct crab_frame frame;
            enum crab_decode result = decode(v, copy, cut, &m, &frame);
            free(copy);
            if (result != CRAB_NEED_MORE || frame.size != v->steps[i].need)
                fail_msg("%s: with %zu bytes: result %d, size %llu, not %u more", v->id, cut, (int)result,
                         (unsigned long long)frame.size, v->steps[i].need);
        }
    }
    if (v->result != CRAB_MALFORMED)
        return;
    for (size_t end = cut + CUTS_AFTER_DECISION; cut < len && cut < end; cut++) {
        uint8_t *copy = malloc(cut);
        assert_non_null(copy);
        memcpy(copy, bytes, cut);
        check_answer(v, copy, cut);
        free(copy);
    }
}

/* Bytes that follow the frame, or a limit that is not reached, change nothing. */
static void check_followed(const struct vector *v, const uint8_t *bytes, size_t len)
{
    if (v->result == CRAB_NEED_MORE || len == 0)
        return;
    uint8_t *longer = malloc(len + 3);
    assert_non_null(longer);
    memcpy(longer, bytes, len);
    memset(longer + len, 0xff, 3);
    check_answer(v, longer, len + 3);
    free(longer);
}

static void check_encoding(const struct vector *v, const uint8_t *bytes, size_t len)
{
    if (!v->canonical || len == 0)
        return;
    union message m;
    struct crab_frame frame;
    assert_int_equal(decode(v, bytes, len, &m, &frame), CRAB_WHOLE);
    uint8_t *out = malloc(len);
    assert_non_null(out);
    size_t size = v->is_reply ? crab_reply_size(&m.reply) : crab_request_size(&m.request);
    size_t small = v->is_reply ? crab_reply_encode(&m.reply, out, len - 1) : crab_request_encode(&m.request, out, len - 1);
    size_t used = v->is_reply ? crab_reply_encode(&m.reply, out, len) : crab_request_encode(&m.request, out, len);
    if (size != len || used != len || small != 0 || memcmp(out, bytes, len) != 0)
        fail_msg("%s: encodes to %zu bytes (size says %zu) of %zu, or to other ones; in a smaller buffer: %zu", v->id, used,
                 size, len, small);
    free(out);
}

static void test_file(void **state)
{
    const struct vector_file *file = *state;
    for (size_t i = 0; i < file->count; i++) {
        const struct vector *v = &file->vectors[i];
        size_t len;
        uint8_t *bytes = frame_bytes(v->frame, &len);
        check_answer(v, bytes, len);
        check_cuts(v, bytes, len);
        check_followed(v, bytes, len);
        check_encoding(v, bytes, len);
        free(bytes);
    }
}

int main(void)
{
    enum { FILES = sizeof vector_files / sizeof vector_files[0] };
    struct CMUnitTest tests[FILES];
    for (size_t i = 0; i < FILES; i++)
        tests[i] = (struct CMUnitTest){
            .name = vector_files[i].name, .test_func = test_file, .initial_state = (void *)(uintptr_t)&vector_files[i]};
    return cmocka_run_group_tests_name("vectors", tests, NULL, NULL);
}
