/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes crab_request_decode(): whatever the bytes, its answer keeps the promises of wire.h.
 *
 * An input is a stream; it is decoded with a low and with a high limit for values. Checked: sizes, that slices lie in
 * the buffer, that what was decoded encodes to a frame that decodes to the same, and that no prefix of the frame says
 * something else than the whole.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crabcache/wire.h"
#include "tests/fuzz/check.h"

static void check_inside(struct crab_slice slice, const uint8_t *data, size_t used)
{
    if (slice.len == 0)
        return;
    CHECK(slice.data >= data && slice.len <= used && (size_t)(slice.data - data) <= used - slice.len);
}

static bool same_slice(struct crab_slice a, struct crab_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Encode what was decoded and decode it again. Flags that the op does not have are dropped on the way. */
static void check_round_trip(const union crab_request *request, const uint8_t *data, size_t used, uint32_t max_value)
{
    size_t size = crab_request_size(request);
    CHECK(size == used);
    uint8_t *copy = malloc(size);
    CHECK(copy != NULL);
    CHECK(crab_request_encode(request, copy, size - 1) == 0);
    CHECK(crab_request_encode(request, copy, size) == size);
    CHECK(copy[0] == data[0] && (copy[1] & ~data[1]) == 0);
    CHECK(memcmp(copy + 2, data + 2, size - 2) == 0);
    union crab_request again;
    struct crab_frame frame;
    CHECK(crab_request_decode(copy, size, max_value, &again, &frame) == CRAB_WHOLE && frame.size == size);
    CHECK(again.head.tag == request->head.tag);
    CHECK(same_slice(again.head.ext, request->head.ext));
    CHECK(same_slice(again.head.key, request->head.key));
    CHECK(same_slice(again.head.value, request->head.value));
    free(copy);
}

/* A shorter input asks for more, or says the same; what it asks for is not more than is needed. */
static void check_prefixes(const uint8_t *data, size_t len, uint32_t max_value, enum crab_decode outcome,
                           const struct crab_frame *frame)
{
    size_t last_need = 0;
    for (size_t cut = 0; cut < len; cut += cut < 48 ? 1 : 97) {
        union crab_request request;
        struct crab_frame partial;
        enum crab_decode early = crab_request_decode(data, cut, max_value, &request, &partial);
        if (early == CRAB_NEED_MORE) {
            CHECK(partial.size > cut && partial.size >= last_need);
            CHECK(outcome != CRAB_WHOLE || partial.size <= frame->size);
            last_need = (size_t)partial.size;
        } else {
            CHECK(early == outcome && partial.size == frame->size && partial.error == frame->error);
        }
    }
}

static void decode_stream(const uint8_t *data, size_t len, uint32_t max_value)
{
    while (len > 0) {
        union crab_request request;
        struct crab_frame frame;
        enum crab_decode outcome = crab_request_decode(data, len, max_value, &request, &frame);
        check_prefixes(data, len < 400 ? len : 400, max_value, outcome, &frame);
        if (outcome == CRAB_NEED_MORE) {
            CHECK(frame.size > len);
            return;
        }
        if (outcome == CRAB_MALFORMED) {
            CHECK(frame.error != 0 && crab_error_name(frame.error) != NULL);
            CHECK((frame.size == 0) == crab_error_closes(frame.error));
            CHECK(frame.size == 0 || frame.size >= CRAB_REQUEST_HEADER);
            if (frame.size == 0 || frame.size > len)
                return;
        } else {
            CHECK(frame.error == 0 && frame.size >= CRAB_REQUEST_HEADER && frame.size <= len);
            check_inside(request.head.ext, data, (size_t)frame.size);
            check_inside(request.head.key, data, (size_t)frame.size);
            check_inside(request.head.value, data, (size_t)frame.size);
            check_round_trip(&request, data, (size_t)frame.size, max_value);
        }
        data += frame.size;
        len -= (size_t)frame.size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    decode_stream(data, len, 8);
    decode_stream(data, len, CRAB_DEFAULT_MAX_VALUE);
    return 0;
}
