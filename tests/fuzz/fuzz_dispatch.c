/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes dispatch with a real store below it: a stream of frames goes in, and what comes out is checked against a simple
 * model. Each input runs twice, at once and in pieces; every answer must be right both times.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/check.h"
#include "tests/fuzz/model.h"
#include "tests/support/dispatch_peer.h"

#define MAX_VALUE 3000U

static struct dispatch_peer *peer; /* made once: a store for every input would cost more than the input */

static void end_peer(void)
{
    dispatch_peer_destroy(peer);
}

static void run(const uint8_t *data, size_t len, size_t piece)
{
    dispatch_peer_reset(peer, true);
    dispatch_peer_feed_pieces(peer, data, len, piece);
    struct model *model = model_create(MAX_VALUE);
    const char *wrong = model_check(model, data, len, peer->answers.data, peer->answers.len, peer->closed);
    model_destroy(model);
    if (wrong != NULL) {
        fprintf(stderr, "in pieces of %zu bytes: %s\n", piece, wrong);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (peer == NULL) {
        peer = dispatch_peer_create(&(struct dispatch_peer_config){.max_value = MAX_VALUE});
        atexit(end_peer);
    }
    if (len == 0)
        return 0;
    run(data, len, len);
    run(data, len, len % 13 + 1);
    return 0;
}
