/* SPDX-License-Identifier: MIT */
/* Drives a policy over a stream, cache-aside: a GET that misses is followed by a PUT of the same key. */
#include "tests/bench/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct sim_policy *const policies[] = {
    &sim_fifo, &sim_lru, &sim_slru, &sim_s3fifo, &sim_tinylfu, &sim_redis_lru, &sim_redis_lfu, &sim_memcached,
    &sim_segment, &sim_store,
};

const struct sim_policy *sim_policy_find(const char *name)
{
    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++)
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    return NULL;
}

int sim_spec_parse(const char *text, struct sim_spec *out)
{
    char copy[sizeof(out->text)], *save = NULL;

    *out = (struct sim_spec){ 0 };
    if (strlen(text) >= sizeof(copy))
        return -1;
    strcpy(out->text, text);
    strcpy(copy, text);
    char *options = strchr(copy, ':');
    if (options)
        *options++ = '\0';
    if (strlen(copy) >= sizeof(out->name))
        return -1;
    strcpy(out->name, copy);
    for (char *o = options ? strtok_r(options, ",", &save) : NULL; o; o = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(o, '='), *end;
        if (!equals || out->count == SIM_MAX_OPTIONS || equals - o >= (long)sizeof(out->option[0]))
            return -1;
        *equals = '\0';
        strcpy(out->option[out->count], o);
        out->value[out->count++] = strtod(equals + 1, &end);
        if (*end || end == equals + 1)
            return -1;
    }
    return 0;
}

double sim_option(struct sim_spec *spec, const char *option, double otherwise)
{
    for (unsigned i = 0; i < spec->count; i++) {
        if (strcmp(spec->option[i], option) == 0) {
            spec->used[i] = true;
            otherwise = spec->value[i];
        }
    }
    return otherwise;
}

/* Keys by the millisecond at which they expire, for the policies that leave it to us: exact, and free for them. */
struct wheel {
    uint32_t *slot; /* first key of each millisecond */
    uint32_t *next;
    size_t slots;
};

static void wheel_init(struct wheel *wheel, const struct sim_stream *stream)
{
    wheel->slots = stream->count / SIM_REQUESTS_PER_MS + 2;
    wheel->slot = sim_alloc(wheel->slots, sizeof(*wheel->slot));
    wheel->next = sim_alloc(stream->keys, sizeof(*wheel->next));
    memset(wheel->slot, 0xff, wheel->slots * sizeof(*wheel->slot));
}

struct driver {
    const struct sim_policy *policy;
    void *cache;
    uint64_t *expiry; /* of each key's newest copy */
    uint64_t *filed;  /* the slot of the wheel that holds the key, 0: none */
    struct wheel wheel;
    bool has_ttl;
};

/* A key stands in one slot at most; when that comes and the key has been written since, it moves on. */
static void file_key(struct driver *d, uint32_t key)
{
    if (d->expiry[key] >= d->wheel.slots || d->filed[key])
        return;
    d->filed[key] = d->expiry[key];
    d->wheel.next[key] = d->wheel.slot[d->expiry[key]];
    d->wheel.slot[d->expiry[key]] = key;
}

static void expire(struct driver *d, uint64_t now_ms)
{
    uint32_t key = d->wheel.slot[now_ms], next;

    for (; key != SIM_NONE; key = next) {
        next = d->wheel.next[key];
        d->filed[key] = 0;
        if (d->expiry[key] <= now_ms)
            d->policy->remove(d->cache, key);
        else
            file_key(d, key);
    }
}

static void put(struct driver *d, const struct sim_request *request, uint64_t now_ms)
{
    uint64_t expiry = request->ttl_ms ? now_ms + request->ttl_ms : SIM_NEVER;

    d->policy->put(d->cache, request->key, request->size, expiry);
    if (!d->has_ttl)
        return;
    d->expiry[request->key] = expiry;
    if (!d->policy->finds_expired)
        file_key(d, request->key);
}

static void replay(struct driver *d, const struct sim_stream *stream, uint64_t memory, struct sim_result *out)
{
    unsigned samples = 0;

    for (size_t i = 0; i < stream->count; i++) {
        const struct sim_request *request = &stream->requests[i];
        uint64_t now_ms = 1 + i / SIM_REQUESTS_PER_MS;
        if (i % SIM_REQUESTS_PER_MS == 0) {
            if (d->has_ttl && !d->policy->finds_expired)
                expire(d, now_ms);
            if (d->policy->tick)
                d->policy->tick(d->cache, now_ms);
        }
        if (i >= stream->count / 2 && i % 4096 == 0) {
            d->policy->counters(d->cache, &out->counters);
            out->live_mean += (double)out->counters.live_bytes / (double)memory;
            samples++;
        }
        if (request->op == SIM_PUT) {
            put(d, request, now_ms);
            continue;
        }
        out->gets++;
        out->get_bytes += request->size;
        if (d->has_ttl && d->expiry[request->key] <= now_ms)
            d->policy->remove(d->cache, request->key);
        if (d->policy->get(d->cache, request->key))
            continue;
        out->misses++;
        out->miss_bytes += request->size;
        put(d, request, now_ms);
    }
    if (samples)
        out->live_mean /= samples;
}

/* 0, or -1: an unknown policy or option; or -2: the policy's books are wrong, which is a mistake in the simulator. */
int sim_run(const struct sim_stream *stream, struct sim_spec *spec, uint64_t memory, struct sim_result *out)
{
    struct driver d = { .policy = sim_policy_find(spec->name), .has_ttl = stream->has_ttl };
    struct sim_setup setup = { .spec = spec, .memory = memory, .keys = stream->keys, .has_ttl = stream->has_ttl };
    struct timespec start, end;
    int status = -1;

    if (!d.policy)
        return -1;
    setup.cost = (enum sim_cost_model)sim_option(spec, "cost", SIM_COST_IDEAL);
    *out = (struct sim_result){ 0 };
    d.expiry = sim_alloc(stream->keys, sizeof(*d.expiry));
    d.filed = sim_alloc(stream->keys, sizeof(*d.filed));
    wheel_init(&d.wheel, stream);
    d.cache = d.policy->create(&setup);
    for (unsigned i = 0; i < spec->count; i++)
        if (!spec->used[i])
            goto out;
    clock_gettime(CLOCK_MONOTONIC, &start);
    replay(&d, stream, memory, out);
    clock_gettime(CLOCK_MONOTONIC, &end);
    d.policy->counters(d.cache, &out->counters);
    status = out->counters.charged <= memory && d.policy->audit(d.cache) ? 0 : -2;
    out->ns_per_request = ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) /
                          (double)(stream->count ? stream->count : 1);
out:
    d.policy->destroy(d.cache);
    free(d.expiry);
    free(d.filed);
    free(d.wheel.slot);
    free(d.wheel.next);
    return status;
}
