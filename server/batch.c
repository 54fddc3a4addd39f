/* SPDX-License-Identifier: MIT */
/*
 * The stages of a request before it is executed; dispatch.c has the whole path. Each stage goes over all frames of a batch, so
 * that their memory is waited for together, and not one after the other.
 */
#include "server/batch.h"

#include <stdbool.h>

/* How much of an item is prefetched: what of its value a GET will copy, and its key, for comparing. */
#define PREFETCH_VALUE 64U
#define PREFETCH_KEY   256U

void batch_decode(struct batch *batch, const uint8_t *in, size_t len, unsigned most, uint32_t max_value)
{
    size_t at = 0;
    unsigned count = 0;
    batch->need = 0;
    while (count < most && at < len) {
        struct batch_entry *entry = &batch->entries[count];
        struct crab_frame frame;
        enum crab_decode outcome = crab_request_decode(in + at, len - at, max_value, &entry->request, &frame);
        if (outcome == CRAB_NEED_MORE) {
            batch->need = frame.size;
            break;
        }
        entry->size = frame.size;
        entry->error = outcome == CRAB_MALFORMED ? frame.error : 0;
        count++;
        bool goes_on = frame.size != 0 && frame.size <= len - at;
        at = goes_on ? at + (size_t)frame.size : len;
    }
    batch->in = in;
    batch->len = len;
    batch->bytes = at;
    batch->count = count;
}

void batch_prefetch_index(struct batch *batch, const struct store *store)
{
    for (unsigned i = 0; i < batch->count; i++) {
        struct batch_entry *entry = &batch->entries[i];
        const struct crab_slice *key = &entry->request.head.key;
        entry->hint = (struct store_hint){.item = NULL};
        entry->key.len = 0;
        if (entry->error != 0 || key->len == 0)
            continue;
        entry->key = store_key(store, key->data, key->len);
        store_prefetch_index(store, entry->key.hash);
    }
}

/*
 * Find the items that the index has at hand, or those for which more of it had to be fetched, then prefetch them. In two
 * passes, so that the second is short: a processor may let no prefetch retire before it knows the page, and waits
 * together for those misses of the TLB only that are within its reach.
 */
static void prefetch_items(struct batch *batch, const struct store *store, bool overflow)
{
    const struct batch_entry *sought[BATCH_FRAMES];
    unsigned n = 0;
    for (unsigned i = 0; i < batch->count; i++) {
        struct batch_entry *entry = &batch->entries[i];
        if (entry->key.len == 0 || entry->hint.overflow != overflow)
            continue;
        store_locate(store, entry->key.hash, &entry->hint);
        sought[n++] = entry;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct batch_entry *entry = sought[i];
        size_t wanted = entry->key.len < PREFETCH_KEY ? entry->key.len : PREFETCH_KEY;
        wanted += entry->request.head.op == CRAB_OP_GET ? PREFETCH_VALUE : 0;
        store_prefetch_item(&entry->hint, wanted);
    }
}

void batch_prefetch_items(struct batch *batch, const struct store *store)
{
    prefetch_items(batch, store, false);
    prefetch_items(batch, store, true);
}
