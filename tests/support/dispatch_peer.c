/* SPDX-License-Identifier: MIT */
/*
 * What a connection does, without a connection. Input is kept in a heap block of exactly its length, so that a read
 * past what was received is seen by AddressSanitizer.
 */
#include "tests/support/dispatch_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

static void must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "dispatch_peer: %s\n", what);
        abort();
    }
}

void dispatch_bytes_add(struct dispatch_bytes *bytes, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (bytes->cap - bytes->len < len) {
        bytes->cap = (bytes->len + len) * 2;
        bytes->data = realloc(bytes->data, bytes->cap);
        must(bytes->data != NULL, "memory");
    }
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

static uint64_t peer_now(void *context)
{
    const struct dispatch_peer *peer = context;
    return peer->now_ms;
}

struct dispatch_peer *dispatch_peer_create(const struct dispatch_peer_config *config)
{
    struct dispatch_peer *peer = calloc(1, sizeof *peer);
    must(peer != NULL, "memory");
    peer->now_ms = 1000;
    struct store_config store = {
        .memory_bytes = config->memory_bytes != 0 ? config->memory_bytes : (size_t)16 << 20,
        .eviction = config->eviction,
        .max_workers = 2,
        .now_ms = peer_now,
        .now_context = peer,
    };
    must(store_create(&store, &peer->store) == 0, "store_create");
    must(stats_init(&peer->stats, 1) == 0, "stats_init");
    buf_budget_init(&peer->budget, config->budget_bytes != 0 ? config->budget_bytes : (size_t)16 << 20);
    buf_pool_init(&peer->pool, &peer->budget, 0);
    peer->stats.store = peer->store;
    peer->stats.budget = &peer->budget;
    peer->stats.eviction = "evict";
    struct dispatch_config dispatch = {
        .store = peer->store,
        .auth = config->auth,
        .stats = &peer->stats,
        .counters = peer->stats.workers,
        .pool = &peer->pool,
        .max_value = config->max_value != 0 ? config->max_value : 1U << 20,
    };
    must(dispatch_create(&dispatch, &peer->dispatch) == 0, "dispatch_create");
    buf_out_init(&peer->out, peer->out_bytes, sizeof peer->out_bytes, peer->refs);
    return peer;
}

void dispatch_peer_destroy(struct dispatch_peer *peer)
{
    dispatch_destroy(peer->dispatch);
    buf_pool_fini(&peer->pool);
    must(atomic_load(&peer->budget.used) == 0, "a buffer was not given back");
    stats_fini(&peer->stats);
    store_destroy(peer->store);
    free(peer->in.data);
    free(peer->answers.data);
    free(peer);
}

void dispatch_peer_reset(struct dispatch_peer *peer, bool flush)
{
    if (flush) {
        struct store_worker *worker;
        must(store_worker_attach(peer->store, &worker) == 0, "store_worker_attach");
        store_flush(worker);
        store_worker_detach(worker);
    }
    peer->session = (struct session){0};
    peer->skip = 0;
    peer->closed = false;
    peer->in.len = 0;
    peer->answers.len = 0;
}

static void collect(struct dispatch_peer *peer)
{
    struct iovec vector[BUF_OUT_VECTOR];
    unsigned count = buf_out_vector(&peer->out, vector);
    size_t total = 0;
    for (unsigned i = 0; i < count; i++) {
        dispatch_bytes_add(&peer->answers, vector[i].iov_base, vector[i].iov_len);
        total += vector[i].iov_len;
    }
    buf_out_sent(&peer->out, total, dispatch_releaser(peer->dispatch));
    must(buf_out_empty(&peer->out), "the output is not empty after all was sent");
}

/* Execute what has been received; returns how much of it is done with. */
static size_t run(struct dispatch_peer *peer, const uint8_t *in, size_t len)
{
    size_t at = 0;
    for (;;) {
        struct dispatch_result result;
        dispatch_run(peer->dispatch, &peer->session, in + at, len - at, &peer->out, &result);
        must(result.consumed <= len - at, "more was consumed than there is");
        at += result.consumed;
        must(result.skip == 0 || at == len, "a skip while input is left");
        must(result.next != DISPATCH_OUTPUT || !buf_out_empty(&peer->out), "no room in an empty output");
        must(result.next != DISPATCH_INPUT || at == len || result.need > len - at, "it waits for what it has");
        collect(peer);
        dispatch_quiesce(peer->dispatch);
        peer->skip = result.skip;
        peer->closed = result.next == DISPATCH_CLOSE;
        if (result.next != DISPATCH_OUTPUT && result.next != DISPATCH_TURN)
            return peer->closed ? len : at;
    }
}

void dispatch_peer_feed(struct dispatch_peer *peer, const uint8_t *bytes, size_t len)
{
    if (peer->closed)
        return;
    size_t skipped = peer->skip < len ? (size_t)peer->skip : len;
    peer->skip -= skipped;
    if (skipped == len)
        return;
    dispatch_bytes_add(&peer->in, bytes + skipped, len - skipped);
    uint8_t *exact = malloc(peer->in.len);
    must(exact != NULL, "memory");
    memcpy(exact, peer->in.data, peer->in.len);
    size_t done = run(peer, exact, peer->in.len);
    free(exact);
    peer->in.len -= done;
    memmove(peer->in.data, peer->in.data + done, peer->in.len);
}

void dispatch_peer_feed_pieces(struct dispatch_peer *peer, const uint8_t *bytes, size_t len, size_t piece)
{
    for (size_t at = 0; at < len; at += piece)
        dispatch_peer_feed(peer, bytes + at, len - at < piece ? len - at : piece);
}
