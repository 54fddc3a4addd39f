/* SPDX-License-Identifier: MIT */
/*
 * Request traces from files: `key,value_bytes` lines, plain or .xz.  Keys are any text; they become dense numbers
 * in order of first appearance.
 */
#include "tests/bench/sim/sim.h"

#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct key_table {
    uint64_t *hash; /* 64-bit hashes stand for the keys: no two of a few million are likely to agree */
    uint32_t *number;
    size_t size;
    uint32_t count;
};

static void table_grow(struct key_table *table)
{
    struct key_table old = *table;

    table->size = old.size ? old.size * 2 : 1u << 16;
    table->hash = sim_alloc(table->size, sizeof(*table->hash));
    table->number = sim_alloc(table->size, sizeof(*table->number));
    for (size_t i = 0; i < old.size; i++) {
        if (!old.hash[i])
            continue;
        size_t at = old.hash[i] & (table->size - 1);
        while (table->hash[at])
            at = (at + 1) & (table->size - 1);
        table->hash[at] = old.hash[i];
        table->number[at] = old.number[i];
    }
    free(old.hash);
    free(old.number);
}

static uint32_t table_number(struct key_table *table, const char *key, size_t len)
{
    uint64_t hash = XXH3_64bits(key, len) | 1;

    if ((size_t)table->count * 2 >= table->size)
        table_grow(table);
    size_t at = hash & (table->size - 1);
    while (table->hash[at] && table->hash[at] != hash)
        at = (at + 1) & (table->size - 1);
    if (!table->hash[at]) {
        table->hash[at] = hash;
        table->number[at] = table->count++;
    }
    return table->number[at];
}

/* The whole file, unpacked if it is .xz; NULL: a message is printed. */
static char *read_all(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    lzma_stream xz = LZMA_STREAM_INIT;
    size_t cap = 1u << 24, used = 0, got;
    char *text = NULL;
    unsigned char in[65536];
    bool packed = strlen(path) > 3 && strcmp(path + strlen(path) - 3, ".xz") == 0;
    lzma_ret state = LZMA_OK;

    if (!file || (packed && lzma_stream_decoder(&xz, UINT64_MAX, LZMA_CONCATENATED) != LZMA_OK)) {
        fprintf(stderr, "crabcache-sim: cannot read %s\n", path);
        goto out;
    }
    text = sim_alloc(cap, 1);
    do {
        got = fread(in, 1, sizeof(in), file);
        if (cap - used < 40 * sizeof(in)) {
            char *more = realloc(text, cap *= 2);
            if (!more)
                goto fail;
            text = more;
        }
        if (!packed) {
            memcpy(text + used, in, got);
            used += got;
            continue;
        }
        xz.next_in = in;
        xz.avail_in = got;
        do {
            if (cap == used) {
                char *more = realloc(text, cap *= 2);
                if (!more)
                    goto fail;
                text = more;
            }
            xz.next_out = (unsigned char *)text + used;
            xz.avail_out = cap - used;
            state = lzma_code(&xz, got ? LZMA_RUN : LZMA_FINISH);
            used = cap - xz.avail_out;
        } while (state == LZMA_OK && (xz.avail_in || xz.avail_out == 0));
        if (state != LZMA_OK && state != LZMA_STREAM_END)
            goto fail;
    } while (got);
    if (ferror(file) || (packed && state != LZMA_STREAM_END))
        goto fail;
    *len = used;
    goto out;
fail:
    fprintf(stderr, "crabcache-sim: %s is damaged or does not fit in memory\n", path);
    free(text);
    text = NULL;
out:
    lzma_end(&xz);
    if (file)
        fclose(file);
    return text;
}

int sim_stream_load(const char *path, struct sim_stream *out)
{
    size_t len = 0, cap = 1u << 20, line = 0;
    char *text = read_all(path, &len), *at = text;
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    struct key_table table = { 0 };

    if (!text)
        return -1;
    *out = (struct sim_stream){ .requests = sim_alloc(cap, sizeof(*out->requests)) };
    snprintf(out->name, sizeof(out->name), "%.*s", (int)strcspn(base, "."), base);
    while (at < text + len) {
        char *end = memchr(at, '\n', (size_t)(text + len - at));
        end = end ? end : text + len - 1;
        char *comma = memrchr(at, ',', (size_t)(end - at));
        line++;
        if (!comma || comma == at || comma[1] < '0' || comma[1] > '9') {
            if (line > 1) {
                fprintf(stderr, "crabcache-sim: %s:%zu: not `key,value_bytes`\n", path, line);
                break;
            }
            at = end + 1;
            continue;
        }
        if (out->count == cap) {
            struct sim_request *more = realloc(out->requests, (cap *= 2) * sizeof(*more));
            if (!more)
                break;
            out->requests = more;
        }
        out->requests[out->count++] = (struct sim_request){
            .key = table_number(&table, at, (size_t)(comma - at)),
            .size = (uint32_t)strtoul(comma + 1, NULL, 10),
            .op = SIM_GET,
        };
        at = end + 1;
    }
    bool whole = (size_t)(at - text) >= len;
    out->keys = table.count;
    free(table.hash);
    free(table.number);
    sim_stream_finish(out);
    free(text);
    if (!whole)
        sim_stream_fini(out);
    return whole ? 0 : -1;
}

/* Counts the footprint once the requests stand. */
void sim_stream_finish(struct sim_stream *stream)
{
    bool *seen = sim_alloc(stream->keys, sizeof(*seen));

    stream->footprint = 0;
    for (size_t i = 0; i < stream->count; i++) {
        const struct sim_request *request = &stream->requests[i];
        if (!seen[request->key])
            stream->footprint += sim_key_bytes + request->size;
        seen[request->key] = true;
    }
    free(seen);
}

void sim_stream_fini(struct sim_stream *stream)
{
    free(stream->requests);
    stream->requests = NULL;
}
