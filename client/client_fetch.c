/* SPDX-License-Identifier: MIT */
/*
 * Get, or load once: a flight is a key that a thread is loading.  Others who miss the key meanwhile join the flight and wait for
 * what comes of it.
 *
 * Invariants: a flight is in its list from before its loader is called until it has landed, so there is one per key at a time.  It
 * lives until the last of those who know it has left (`parties`, under the lock); once `landed` is set its value changes
 * no more.
 */
#include <string.h>

#include "client/futex.h"
#include "client/handle.h"

struct flight {
    struct flight *next;
    uint64_t hash;
    size_t key_len;
    uint32_t parties;
    _Atomic uint32_t landed;
    enum crab_status status;
    struct crab_value value;
    uint8_t key[];
};

static uint64_t hash_of(struct crab_slice key) /* FNV-1a */
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t i = 0; i < key.len; i++)
        hash = (hash ^ key.data[i]) * 0x100000001b3U;
    return hash ^ hash >> 29;
}

/* The flight of a key, joined; or a new one. @return NULL: out of memory */
static struct flight *join(struct crab_client *client, struct crab_slice key, bool *is_mine)
{
    uint64_t hash = hash_of(key);
    struct flight **list = &client->flights.lists[hash % FLIGHT_LISTS];
    (void)pthread_mutex_lock(&client->flights.lock);
    struct flight *flight = *list;
    while (flight != NULL &&
           (flight->hash != hash || flight->key_len != key.len || memcmp(flight->key, key.data, key.len) != 0))
        flight = flight->next;
    *is_mine = flight == NULL;
    if (flight == NULL) {
        flight = client->allocator.resize(client->allocator.context, NULL, sizeof *flight + key.len);
        if (flight != NULL) {
            *flight = (struct flight){.next = *list, .hash = hash, .key_len = key.len};
            memcpy(flight->key, key.data, key.len);
            value_bind(&flight->value, &client->allocator);
            *list = flight;
        }
    }
    if (flight != NULL)
        flight->parties++;
    (void)pthread_mutex_unlock(&client->flights.lock);
    return flight;
}

static void part(struct crab_client *client, struct flight *flight)
{
    (void)pthread_mutex_lock(&client->flights.lock);
    bool last = --flight->parties == 0;
    (void)pthread_mutex_unlock(&client->flights.lock);
    if (!last)
        return;
    crab_value_fini(&flight->value);
    (void)client->allocator.resize(client->allocator.context, flight, 0);
}

static void land(struct crab_client *client, struct flight *flight)
{
    (void)pthread_mutex_lock(&client->flights.lock);
    struct flight **place = &client->flights.lists[flight->hash % FLIGHT_LISTS];
    while (*place != flight)
        place = &(*place)->next;
    *place = flight->next;
    (void)pthread_mutex_unlock(&client->flights.lock);
    atomic_store_explicit(&flight->landed, 1, memory_order_release);
    futex_wake(&flight->landed);
}

/* Wait for another thread's load. @return false: not in time */
static bool await(struct flight *flight, struct net_deadline *deadline)
{
    while (atomic_load_explicit(&flight->landed, memory_order_acquire) == 0)
        if (!futex_sleep(&flight->landed, 0, net_deadline_end(deadline)))
            return atomic_load_explicit(&flight->landed, memory_order_acquire) != 0;
    return true;
}

static enum crab_status finish(const struct flight *flight, struct crab_value *value)
{
    return flight->status == CRAB_OK ? crab_value_set(value, flight->value.data, flight->value.len) : flight->status;
}

/* Load, put, and let the others have it. */
static void load(struct crab_client *client, struct flight *flight, uint64_t ttl_ms,
                 enum crab_status (*loader)(void *, const void *, size_t, struct crab_value *), void *context,
                 const struct crab_call_options *options)
{
    flight->status = loader(context, flight->key, flight->key_len, &flight->value);
    if (flight->status != CRAB_OK && flight->status != CRAB_MISS)
        flight->status = CRAB_E_LOADER;
    if (flight->status == CRAB_OK) {
        union crab_request request;
        struct crab_result result;
        struct crab_put_options put = {.ttl_ms = ttl_ms};
        struct net_deadline deadline = client_deadline(client, options != NULL ? options->timeout_ms : 0);
        if (request_put(&request, slice_of(flight->key, flight->key_len), slice_of(flight->value.data, flight->value.len),
                        &put))
            (void)client_perform(client, &request, CLIENT_BY_KEY, NULL, options, &deadline, &result);
    }
    land(client, flight);
}

enum crab_status crab_fetch(struct crab_client *client, const void *key, size_t key_len, uint64_t ttl_ms,
                            enum crab_status (*loader)(void *context, const void *key, size_t key_len,
                                                       struct crab_value *value),
                            void *context, const struct crab_call_options *options, struct crab_value *value)
{
    if (client_is_forked(client))
        return client_fail(options, CRAB_E_FORKED, crab_status_text(CRAB_E_FORKED));
    union crab_request request;
    struct crab_result result;
    struct net_deadline deadline = client_deadline(client, options != NULL ? options->timeout_ms : 0);
    request_get(&request, slice_of(key, key_len), 0, false);
    enum crab_status status = client_perform(client, &request, CLIENT_BY_KEY, value, options, &deadline, &result);
    if (status == CRAB_OK || status == CRAB_E_INVALID)
        return status;

    bool is_mine;
    struct flight *flight = join(client, slice_of(key, key_len), &is_mine);
    if (flight == NULL)
        return client_fail(options, CRAB_E_NO_MEMORY, "no memory to load a value");
    if (is_mine)
        load(client, flight, ttl_ms, loader, context, options);
    if (is_mine || await(flight, &deadline))
        status = finish(flight, value);
    else
        status = client_fail(options, CRAB_E_TIMEOUT, "another thread's loader took too long");
    part(client, flight);
    return status;
}
