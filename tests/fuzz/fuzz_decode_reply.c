/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes crab_reply_decode(): whatever a hostile server sends, its answer keeps the promises of wire.h.
 *
 * An input is a stream; it is decoded with a low and with a high limit for lengths. Checked: sizes, that the rest of a
 * reply lies in the buffer, that what was decoded encodes to a frame that decodes to the same, and that no prefix
 * says something else than the whole.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crabcache/wire.h"
#include "tests/fuzz/check.h"

/* The bytes that a reply ends with, if its op has such. */
static struct crab_slice rest_of(const union crab_reply *reply)
{
    switch (reply->head.op) {
    case CRAB_REP_ERROR:
        return reply->error.text;
    case CRAB_REP_VALUE:
        return reply->value.value;
    case CRAB_REP_STATS:
        return reply->stats.text;
    case CRAB_REP_META:
        return reply->meta.value;
    case CRAB_REP_WELCOME:
        return reply->welcome.server_name;
    case CRAB_PUSH_LATE_ERROR:
        return reply->late_error.text;
    case CRAB_PUSH_GOAWAY:
        return reply->goaway.text;
    default:
        return crab_slice_of(NULL, 0);
    }
}

static void check_whole(const union crab_reply *reply, const uint8_t *data, size_t used, uint32_t max_len)
{
    struct crab_slice rest = crab_reply_name(reply->head.op) != NULL ? rest_of(reply) : reply->unknown.payload;
    if (rest.len != 0)
        CHECK(rest.data > data && rest.len < used && (size_t)(rest.data - data) <= used - rest.len);
    CHECK(!reply->head.tagged || data[0] == CRAB_REP_TAGGED);
    size_t size = crab_reply_size(reply); /* 0: an unknown op, or a text that is longer than one may send */
    if (size == 0)
        return;
    CHECK(size <= used); /* less: extra bytes after fixed fields were stepped over */
    uint8_t *copy = malloc(size);
    CHECK(copy != NULL);
    CHECK(crab_reply_encode(reply, copy, size - 1) == 0);
    CHECK(crab_reply_encode(reply, copy, size) == size);
    CHECK(size < used || memcmp(copy, data, size) == 0);
    union crab_reply again;
    struct crab_frame frame;
    CHECK(crab_reply_decode(copy, size, max_len, &again, &frame) == CRAB_WHOLE && frame.size == size);
    CHECK(again.head.op == reply->head.op && again.head.tagged == reply->head.tagged);
    CHECK(!reply->head.tagged || again.head.tag == reply->head.tag);
    CHECK(crab_reply_encode(&again, copy, size) == size);
    free(copy);
}

static void check_prefixes(const uint8_t *data, size_t len, uint32_t max_len, enum crab_decode outcome,
                           const struct crab_frame *frame)
{
    for (size_t cut = 0; cut < len; cut += cut < 48 ? 1 : 97) {
        union crab_reply reply;
        struct crab_frame partial;
        enum crab_decode early = crab_reply_decode(data, cut, max_len, &reply, &partial);
        if (early == CRAB_NEED_MORE) {
            CHECK(partial.size > cut);
            CHECK(outcome != CRAB_WHOLE || partial.size <= frame->size);
        } else {
            CHECK(early == outcome && partial.size == frame->size && partial.error == frame->error);
        }
    }
}

static void decode_stream(const uint8_t *data, size_t len, uint32_t max_len)
{
    while (len > 0) {
        union crab_reply reply;
        struct crab_frame frame;
        enum crab_decode outcome = crab_reply_decode(data, len, max_len, &reply, &frame);
        if (len <= 400)
            check_prefixes(data, len, max_len, outcome, &frame);
        if (outcome == CRAB_NEED_MORE)
            CHECK(frame.size > len);
        if (outcome == CRAB_MALFORMED)
            CHECK(frame.error != 0 && frame.size == 0);
        if (outcome != CRAB_WHOLE)
            return;
        CHECK(frame.size > 0 && frame.size <= len && frame.error == 0);
        check_whole(&reply, data, (size_t)frame.size, max_len);
        data += frame.size;
        len -= (size_t)frame.size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    decode_stream(data, len, 8);
    decode_stream(data, len, UINT32_MAX);
    return 0;
}
