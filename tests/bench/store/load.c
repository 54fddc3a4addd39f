/* SPDX-License-Identifier: MIT */
/* Requests made beforehand: ids drawn by a seeded generator, uniform or Zipf's, encoded as frames. */
#include <stdlib.h>
#include <sys/mman.h>

#include "client/load/zipf_law.h"
#include "crabcache/wire.h"
#include "tests/bench/store/bench.h"

#define ZIPF_EXPONENT 0.99
#define SPREAD        611953U /* Odd, no multiple of 5: ranks that follow each other lie far apart. */

static uint8_t value[MAX_VALUE];

void name_key(uint8_t key[KEY_BYTES], uint64_t id)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < KEY_BYTES; i++, id >>= 4)
        key[i] = (uint8_t)digits[id & 15];
}

size_t encode_get(uint8_t *to, uint64_t id)
{
    uint8_t key[KEY_BYTES];
    name_key(key, id);
    struct crab_req_get get = {.key = crab_slice_of(key, KEY_BYTES)};
    return crab_req_get_encode(&get, to, CRAB_REQUEST_HEADER + KEY_BYTES);
}

size_t encode_put(uint8_t *to, uint64_t id, size_t value_len, uint64_t ttl_ms)
{
    uint8_t key[KEY_BYTES];
    name_key(key, id);
    struct crab_req_put put = {.flags = ttl_ms != 0 ? CRAB_PUT_TTL : 0, .ttl_ms = ttl_ms};
    put.key = crab_slice_of(key, KEY_BYTES);
    put.value = crab_slice_of(value, value_len);
    return crab_req_put_encode(&put, to, CRAB_REQUEST_HEADER + 8 + KEY_BYTES + value_len);
}

static uint64_t draw(const struct load *load, const struct zipf_law *law, uint64_t *random)
{
    if (load->zipf)
        return zipf_law_draw(law, random) * SPREAD % load->items;
    return random_below(random_next(random), load->items);
}

void stream_make(struct stream *stream, const struct load *load, size_t requests)
{
    size_t most = CRAB_REQUEST_HEADER + 8 + KEY_BYTES + (load->put_percent != 0 ? load->value_len : 0), at = 0;
    uint64_t random = load->seed * 0x2545f4914f6cdd1dU;
    struct zipf_law law;
    zipf_law_init(&law, ZIPF_EXPONENT, load->items);
    stream->batches = requests / BATCH;
    stream->mapped = stream->batches * BATCH * most;
    stream->bytes = mmap(NULL, stream->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stream->ends = calloc(stream->batches, sizeof *stream->ends);
    if (stream->bytes == MAP_FAILED || stream->ends == NULL)
        abort();
    madvise(stream->bytes, stream->mapped, MADV_HUGEPAGE);
    for (size_t batch = 0; batch < stream->batches; batch++) {
        size_t start = at;
        for (unsigned i = 0; i < BATCH; i++) {
            uint64_t id = draw(load, &law, &random);
            if (random_below(random_next(&random), 100) < load->put_percent)
                at += encode_put(stream->bytes + at, id, load->value_len, load->ttl_ms);
            else
                at += encode_get(stream->bytes + at, id);
        }
        stream->ends[batch] = (uint32_t)(at - start);
    }
}

void stream_free(struct stream *stream)
{
    munmap(stream->bytes, stream->mapped);
    free(stream->ends);
}
