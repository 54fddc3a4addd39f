/* SPDX-License-Identifier: MIT */
/*
 * Large values that come piece by piece: the pages of the item are taken when the first pieces are there, the rest is received
 * right into them, and store_put_placed() publishes the item as if its place had been taken at that time.
 *
 * Invariant: pages of a stream are charged and marked as taken, but in no list: nothing evicts or moves them.
 */
#include "server/store/store_impl.h"

/* Large items always have an expiry field and a wide header: so what stands before the value takes as much at the end as
 * at the beginning. */
static uint64_t item_bytes(const struct store_key *key, const struct store_put_args *args)
{
    struct store_item item = {.key_len = key->len,
                              .value_len = (uint32_t)args->value_len,
                              .expiry = STORE_NEVER,
                              .app_flags = args->app_flags,
                              .has_expiry = true,
                              .must_be_wide = true};
    return store_item_bytes(&item);
}

bool store_stream_begin(struct store_worker *worker, const struct store_key *key, const struct store_put_args *args,
                        struct store_stream *stream)
{
    struct store *store = store_enter(worker);
    if (args->value_len <= store->item_max || args->value_len > store_max_value(store, key->len))
        return false;
    struct store_need need = {.bytes = item_bytes(key, args), .large = true};
    struct store_place place;
    if (store->config.eviction == STORE_REFUSE && !store_admit(worker, need.bytes))
        return false;
    store_pay(worker, need.bytes);
    if (!store_make_room(worker, &need, &place))
        return false;
    *stream = (struct store_stream){.value = place.at + need.bytes - args->value_len,
                                    .value_len = args->value_len,
                                    .location = place.location,
                                    .page = place.page};
    return true;
}

enum store_result store_stream_put(struct store_worker *worker, const struct store_key *key,
                                   const struct store_put_args *args, const struct store_stream *stream,
                                   uint64_t *version)
{
    struct store_put_args placed = *args;
    placed.value = NULL;
    placed.value_len = stream->value_len;
    const struct store_place place = {.at = store_at(worker->store, stream->location),
                                      .location = stream->location,
                                      .bytes = item_bytes(key, &placed),
                                      .segment = STORE_NONE,
                                      .page = stream->page};
    return store_put_placed(worker, key, &placed, &place, version);
}

void store_stream_drop(struct store_worker *worker, const struct store_stream *stream)
{
    store_large_drop(worker->store, stream->page);
}
