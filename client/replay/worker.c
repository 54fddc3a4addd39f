/* SPDX-License-Identifier: MIT */
/*
 * Cache-aside through a pipeline, with the exact meaning of one request after the other for each key.
 *
 * Each request of the stream takes a slot of the window: GET, and after a miss PUT of the key's value.  A request for a
 * key that is not known to be stored owns the key until it is resolved, since it may have to put.  A further request
 * for an owned key waits in a list behind the owner; so it finds what the owner put, and a miss is never counted
 * twice.  Requests for keys that are known to be stored, and other keys, go on meanwhile: waiting for the hottest key
 * would drain the pipeline.  If such a request misses, the item was evicted: it becomes the owner, or gets again behind
 * the one that already puts.  Hence with enough memory in the server the number of misses is the number of different
 * keys, at any depth; and with any number of workers, because each key always goes to the same one.
 *
 * Slots are in one of four places: the free list; the list of a key's waiters; the ready list (the next request of the
 * slot is to be queued); the flying ring (queued or sent, in the order in which replies will come).
 */
#include "client/replay/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/replay/value.h"

#define NO_SLOT UINT32_MAX

enum phase { PHASE_GET, PHASE_PUT };

struct slot {
    uint64_t hash;
    uint64_t started_ns;
    uint8_t *key;
    uint32_t key_len;
    uint32_t key_capacity;
    uint32_t value_bytes;
    enum phase phase;
    uint32_t next;       /* in whatever list the slot is in */
    uint32_t wait_first; /* of an owner: requests for the same key, oldest first */
    uint32_t wait_last;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Note why the worker can't go on. */
static int give_up(struct worker *worker, enum crab_status status, const char *text)
{
    if (worker->status != CRAB_OK)
        return -1;
    worker->status = status;
    worker->failure.status = status;
    worker->failure.error = worker->conn != NULL ? crab_conn_error(worker->conn) : 0;
    (void)snprintf(worker->failure.text, sizeof worker->failure.text, "%s", text);
    return -1;
}

static int give_up_conn(struct worker *worker, enum crab_status status)
{
    const char *text = crab_conn_error_text(worker->conn);
    return give_up(worker, status, text[0] != '\0' ? text : crab_status_text(status));
}

/* ---- slots */

static void make_ready(struct worker *worker, uint32_t index)
{
    worker->slots[index].next = NO_SLOT;
    if (worker->ready_first == NO_SLOT)
        worker->ready_first = index;
    else
        worker->slots[worker->ready_last].next = index;
    worker->ready_last = index;
}

/* Wait until the owner of the key is resolved. */
static void wait_for_owner(struct worker *worker, uint32_t index, const struct key_entry *entry)
{
    struct slot *owner = &worker->slots[entry->owner];
    worker->slots[index].next = NO_SLOT;
    if (owner->wait_first == NO_SLOT)
        owner->wait_first = index;
    else
        worker->slots[owner->wait_last].next = index;
    owner->wait_last = index;
}

/* The owner of a key is resolved: if the key is stored all waiters may start, otherwise the first of them owns it. */
static void give_up_key(struct worker *worker, struct slot *owner, struct key_entry *entry)
{
    uint32_t heir = owner->wait_first;
    entry->owner = entry->stored || heir == NO_SLOT ? KEYS_NO_OWNER : heir;
    if (entry->owner != KEYS_NO_OWNER) {
        worker->slots[heir].wait_first = worker->slots[heir].next;
        worker->slots[heir].wait_last = owner->wait_last;
        make_ready(worker, heir);
    } else {
        while (heir != NO_SLOT) {
            uint32_t next = worker->slots[heir].next;
            make_ready(worker, heir);
            heir = next;
        }
    }
    owner->wait_first = owner->wait_last = NO_SLOT;
}

/* A slot's request is resolved: the slot is free, and its key if it owned it. */
static void release(struct worker *worker, uint32_t index, struct key_entry *entry)
{
    struct slot *slot = &worker->slots[index];
    if (entry->owner == index)
        give_up_key(worker, slot, entry);
    slot->next = worker->free_slots;
    worker->free_slots = index;
    worker->used--;
}

static int copy_key(struct slot *slot, const uint8_t *key, uint32_t key_len)
{
    if (key_len > slot->key_capacity) {
        uint32_t capacity = key_len < 64 ? 64 : key_len;
        uint8_t *grown = realloc(slot->key, capacity);
        if (grown == NULL)
            return -1;
        slot->key = grown;
        slot->key_capacity = capacity;
    }
    memcpy(slot->key, key, key_len);
    slot->key_len = key_len;
    return 0;
}

/* Give a request of the stream a slot. There is a free one. */
static int admit(struct worker *worker, const struct batch *batch, const struct fed_request *request)
{
    struct key_entry *entry = keys_find(&worker->keys, request->hash);
    uint32_t index = worker->free_slots;
    struct slot *slot = &worker->slots[index];
    if (entry == NULL || copy_key(slot, batch->key_bytes + request->key_start, request->key_len) != 0)
        return give_up(worker, CRAB_E_NO_MEMORY, "no memory for the keys of the stream");
    worker->free_slots = slot->next;
    worker->used++;
    slot->hash = request->hash;
    slot->value_bytes = request->value_bytes;
    slot->phase = PHASE_GET;
    slot->next = slot->wait_first = slot->wait_last = NO_SLOT;
    if (entry->owner != KEYS_NO_OWNER) {
        wait_for_owner(worker, index, entry);
        return 0;
    }
    if (!entry->stored)
        entry->owner = index;
    make_ready(worker, index);
    return 0;
}

/* ---- requests */

/* Fill the window from the feed; waits for it only if there is nothing else to do. */
static int fill_window(struct worker *worker)
{
    while (worker->used < worker->depth && !worker->ended) {
        if (worker->batch == NULL) {
            worker->batch = feed_take(&worker->feed, worker->used == 0, &worker->ended);
            worker->batch_next = 0;
            if (worker->batch == NULL)
                return 0;
        }
        if (worker->batch_next == worker->batch->count) {
            worker->batch = NULL;
            feed_release(&worker->feed);
            continue;
        }
        if (admit(worker, worker->batch, &worker->batch->requests[worker->batch_next++]) != 0)
            return -1;
    }
    return 0;
}

static enum crab_status queue_put(struct worker *worker, const struct slot *slot)
{
    if (slot->value_bytes > worker->value_capacity) {
        uint8_t *grown = realloc(worker->value, slot->value_bytes);
        if (grown == NULL)
            return CRAB_E_NO_MEMORY;
        worker->value = grown;
        worker->value_capacity = slot->value_bytes;
    }
    value_fill(slot->hash, slot->value_bytes, worker->value);
    return crab_conn_queue_put(worker->conn, slot->key, slot->key_len, worker->value, slot->value_bytes, NULL);
}

/* Queue what is ready, as far as the connection takes it. */
static int issue(struct worker *worker)
{
    while (worker->ready_first != NO_SLOT) {
        uint32_t index = worker->ready_first;
        struct slot *slot = &worker->slots[index];
        slot->started_ns = now_ns();
        enum crab_status status = slot->phase == PHASE_GET
                                      ? crab_conn_queue_get(worker->conn, slot->key, slot->key_len)
                                      : queue_put(worker, slot);
        if (status == CRAB_E_FULL && worker->flying_count != 0)
            return 0; /* replies first */
        if (status != CRAB_OK)
            return give_up_conn(worker, status);
        worker->ready_first = slot->next;
        worker->flying[(worker->flying_first + worker->flying_count) % worker->depth] = index;
        worker->flying_count++;
    }
    return 0;
}

/* ---- replies */

static void count_resolved(struct worker *worker)
{
    worker->tally.requests++;
    atomic_store_explicit(&worker->progress, worker->tally.requests, memory_order_relaxed);
    atomic_store_explicit(&worker->progress_hits, worker->tally.hits, memory_order_relaxed);
}

static void verify(struct worker *worker, const struct slot *slot, const struct key_entry *entry,
                   struct crab_slice value)
{
    bool length_known = entry->length != KEYS_NEVER_PUT;
    bool right = value_is_right(slot->hash, value.data, value.len);
    worker->tally.earlier_hits += length_known ? 0 : 1;
    if (right && (!length_known || value.len == entry->length)) {
        worker->tally.verified_bytes += value.len;
        return;
    }
    if (worker->tally.wrong_values++ != 0)
        return;
    int shown = slot->key_len < 40 ? (int)slot->key_len : 40;
    if (right)
        (void)snprintf(worker->wrong, sizeof worker->wrong, "key '%.*s': a value of %zu bytes, but %llu bytes were put",
                       shown, (const char *)slot->key, value.len, (unsigned long long)entry->length);
    else
        (void)snprintf(worker->wrong, sizeof worker->wrong, "key '%.*s': the %zu bytes are not those that were put",
                       shown, (const char *)slot->key, value.len);
}

static void got_reply(struct worker *worker, uint32_t index, struct key_entry *entry, const struct crab_result *result)
{
    struct slot *slot = &worker->slots[index];
    switch (result->status) {
    case CRAB_OK:
        worker->tally.hits++;
        entry->stored = true;
        verify(worker, slot, entry, result->value);
        break;
    case CRAB_MISS:
        entry->stored = false;
        if (entry->owner != KEYS_NO_OWNER && entry->owner != index) {
            wait_for_owner(worker, index, entry); /* it puts what this request will then find */
            return;
        }
        entry->owner = index;
        worker->tally.misses++;
        slot->phase = PHASE_PUT;
        make_ready(worker, index);
        return;
    default:
        worker->tally.failed_gets++;
        break;
    }
    count_resolved(worker);
    release(worker, index, entry);
}

static void put_reply(struct worker *worker, uint32_t index, struct key_entry *entry, const struct crab_result *result)
{
    struct slot *slot = &worker->slots[index];
    if (result->status == CRAB_OK) {
        worker->tally.puts++;
        worker->tally.put_bytes += slot->value_bytes;
        entry->length = slot->value_bytes;
        entry->stored = true;
    } else if (result->error == CRAB_ERR_OUT_OF_MEMORY) {
        worker->tally.refused_memory++;
    } else if (result->error == CRAB_ERR_VALUE_TOO_LARGE) {
        worker->tally.refused_size++;
    } else if (result->error == CRAB_ERR_BUSY) {
        worker->tally.refused_busy++;
    } else {
        worker->tally.failed_puts++;
        entry->length = KEYS_NEVER_PUT; /* it may have been stored or not */
    }
    count_resolved(worker);
    release(worker, index, entry);
}

/* Take one reply. */
static int collect(struct worker *worker)
{
    struct crab_result result;
    enum crab_status status = crab_conn_next_reply(worker->conn, &result);
    if (status != CRAB_OK)
        return give_up_conn(worker, status);
    uint32_t index = worker->flying[worker->flying_first];
    worker->flying_first = (worker->flying_first + 1) % worker->depth;
    worker->flying_count--;
    const struct slot *slot = &worker->slots[index];
    histogram_add(&worker->latency, now_ns() - slot->started_ns);
    struct key_entry *entry = keys_find(&worker->keys, slot->hash);
    if (entry == NULL)
        return give_up(worker, CRAB_E_NO_MEMORY, "no memory for the keys of the stream");
    if (slot->phase == PHASE_GET)
        got_reply(worker, index, entry, &result);
    else
        put_reply(worker, index, entry, &result);
    return 0;
}

void *worker_run(void *argument)
{
    struct worker *worker = argument;
    while (fill_window(worker) == 0 && worker->used != 0) {
        if (issue(worker) != 0 || collect(worker) != 0)
            break;
    }
    worker->tally.keys = worker->keys.count;
    feed_abandon(&worker->feed);
    return NULL;
}

/* ---- life */

int worker_init(struct worker *worker)
{
    worker->free_slots = worker->ready_first = worker->ready_last = NO_SLOT;
    if (crab_conn_open(worker->options, &worker->conn, &worker->failure) != CRAB_OK) {
        worker->status = worker->failure.status;
        return -1;
    }
    if (worker->depth > crab_conn_max_in_flight(worker->conn))
        worker->depth = (uint32_t)crab_conn_max_in_flight(worker->conn);
    worker->slots = calloc(worker->depth, sizeof *worker->slots);
    worker->flying = calloc(worker->depth, sizeof *worker->flying);
    if (worker->slots == NULL || worker->flying == NULL || feed_init(&worker->feed) != 0)
        return give_up(worker, CRAB_E_NO_MEMORY, "no memory for a worker");
    for (uint32_t i = worker->depth; i-- > 0;) {
        worker->slots[i].next = worker->free_slots;
        worker->free_slots = i;
    }
    return 0;
}

void worker_fini(struct worker *worker)
{
    for (uint32_t i = 0; worker->slots != NULL && i < worker->depth; i++)
        free(worker->slots[i].key);
    free(worker->slots);
    free(worker->flying);
    free(worker->value);
    keys_fini(&worker->keys);
    feed_fini(&worker->feed);
    crab_conn_close(worker->conn);
    worker->slots = NULL;
    worker->flying = NULL;
    worker->value = NULL;
    worker->conn = NULL;
}
