/* SPDX-License-Identifier: MIT */
/*
 * The simulator's self-check: policies against short sequences worked out by hand, and the books of every policy
 * under random requests: never more charged than there is memory, and a recount that agrees.
 */
#include "tests/bench/sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static unsigned failures;

static void expect(bool ok, const char *what, const char *detail)
{
    if (!ok) {
        failures++;
        printf("FAIL %s %s\n", what, detail);
    }
}

struct subject {
    struct sim_spec spec;
    const struct sim_policy *policy;
    void *cache;
};

static bool open_subject(struct subject *s, const char *spec, uint64_t memory, uint32_t keys, bool has_ttl)
{
    if (sim_spec_parse(spec, &s->spec) || !(s->policy = sim_policy_find(s->spec.name))) {
        expect(false, "unknown policy", spec);
        return false;
    }
    struct sim_setup setup = { .spec = &s->spec, .memory = memory, .keys = keys, .has_ttl = has_ttl };
    setup.cost = (enum sim_cost_model)sim_option(&s->spec, "cost", SIM_COST_IDEAL);
    s->cache = s->policy->create(&setup);
    return true;
}

static bool ask(struct subject *s, uint32_t key, uint32_t size)
{
    if (s->policy->get(s->cache, key))
        return true;
    s->policy->put(s->cache, key, size, SIM_NEVER);
    return false;
}

/* Keys are letters, each item costs 36 bytes: 6 + 16 + 2, and 12 of index.  `want` has h and m for hit and miss. */
static void sequence(const char *spec, uint64_t memory, const char *keys, const char *want)
{
    struct subject s;
    char got[128] = "", detail[400];

    if (!open_subject(&s, spec, memory, 128, false))
        return;
    for (size_t i = 0; keys[i] && i < sizeof(got) - 1; i++)
        got[i] = ask(&s, (uint32_t)keys[i], 2) ? 'h' : 'm';
    snprintf(detail, sizeof(detail), "%s: %s gives %s, not %s", spec, keys, got, want);
    expect(strcmp(got, want) == 0 && s.policy->audit(s.cache), "sequence", detail);
    s.policy->destroy(s.cache);
}

static void check_sequences(void)
{
    /* Room for three.  FIFO does not care that A was asked for again; LRU does. */
    sequence("fifo", 108, "ABCADAB", "mmmhmmm");
    sequence("lru", 108, "ABCADAB", "mmmhmhm");
    /* One item of three may be protected: A survives what is asked for once; with LRU it does not. */
    sequence("slru:protected=34", 108, "AABCDEA", "mhmmmmh");
    sequence("lru", 108, "AABCDEA", "mhmmmmm");
    /* Room for ten and a ghost of 64 bytes.  A goes to main when B falls out; B comes back from the ghost into main,
     * and survives ten others. */
    sequence("s3fifo:threshold=1", 424, "AABCDEFGHIJKAB", "mhmmmmmmmmmmhm");
    sequence("s3fifo:threshold=1", 424, "AABCDEFGHIJKABLMNOPQRSTUVAB", "mhmmmmmmmmmmhmmmmmmmmmmmmhh");
    sequence("s3fifo:threshold=1,ghost=0", 388, "AABCDEFGHIJKABLMNOPQRSTUVAB", "mhmmmmmmmmmmhmmmmmmmmmmmmhm");
}

/* Hot keys asked for between the keys of a scan ten times the memory: how many of the hot requests hit at the end. */
static double hot_hits(const char *spec, uint32_t every)
{
    enum { HOT = 100, KEYS = 40000 };
    struct subject s;
    uint32_t hits = 0, asked = 0;

    if (!open_subject(&s, spec, 400000, KEYS, false))
        return 0;
    for (uint32_t round = 0; round < 5; round++)
        for (uint32_t key = 0; key < HOT; key++)
            ask(&s, key, 64);
    for (uint32_t i = HOT; i < KEYS; i++) {
        ask(&s, i, 64);
        if (i % every == 0) {
            uint32_t key = i / every % HOT;
            bool hit = ask(&s, key, 64);
            asked += i > KEYS / 2;
            hits += i > KEYS / 2 && hit;
        }
    }
    s.policy->destroy(s.cache);
    return (double)hits / asked;
}

static void check_scans(void)
{
    /* 400,000 bytes hold 4,000 items; a hot key comes back after 5,000 others. */
    expect(hot_hits("lru", 50) < 0.01, "a scan", "LRU should lose what returns after more than its size");
    expect(hot_hits("segment", 50) > 0.95, "a scan", "segments should keep what was hot");
    expect(hot_hits("segment:relink=0,ghost=0,fill=100", 50) > 0.95, "a scan", "copying forward alone should keep what was hot");
    expect(hot_hits("s3fifo", 50) > 0.95, "a scan", "S3-FIFO should keep what was hot");
}

/* Random GETs, PUTs and removals of random sizes, with the books looked at after each. */
static void check_books(const char *spec, bool has_ttl)
{
    enum { KEYS = 3000, STEPS = 60000, MEMORY = 300000 };
    struct subject s;
    uint64_t random = 7, now_ms = 1;
    uint64_t *expiry = sim_alloc(KEYS, sizeof(*expiry));
    struct sim_counters counters = { 0 };
    bool within = true, agree = true;

    if (!open_subject(&s, spec, MEMORY, KEYS, has_ttl)) {
        free(expiry);
        return;
    }
    for (uint32_t i = 0; i < STEPS && within && agree; i++) {
        uint64_t draw = sim_random(&random);
        uint32_t key = (uint32_t)((draw >> 8) % KEYS * ((draw >> 40) % KEYS) / KEYS);
        uint32_t size = draw % 500 == 0 ? 20000 : (uint32_t)((draw >> 20) % (i < STEPS / 2 ? 100 : 1500));
        if (has_ttl && expiry[key] && expiry[key] <= now_ms)
            s.policy->remove(s.cache, key);
        if (draw % 16 == 0) {
            s.policy->remove(s.cache, key);
            expect(!s.policy->get(s.cache, key), "removed item found", spec);
        } else if (draw % 16 < 6 || !s.policy->get(s.cache, key)) {
            expiry[key] = has_ttl && (draw >> 33) % 4 ? now_ms + 1 + (draw >> 36) % 20000 : SIM_NEVER;
            s.policy->put(s.cache, key, size, expiry[key]);
        }
        if (i % 8 == 0 && s.policy->tick)
            s.policy->tick(s.cache, ++now_ms);
        s.policy->counters(s.cache, &counters);
        within = counters.charged <= MEMORY && counters.live_bytes <= counters.charged;
        agree = i % 512 || s.policy->audit(s.cache);
    }
    expect(within, "more charged than there is memory:", spec);
    expect(agree, "a recount disagrees:", spec);
    expect(counters.charged > MEMORY / 2, "the memory stays unused:", spec);
    s.policy->destroy(s.cache);
    free(expiry);
}

static void check_expiry(void)
{
    struct subject s;
    struct sim_counters before, after;

    if (!open_subject(&s, "segment", 1 << 20, 4000, true))
        return;
    s.policy->tick(s.cache, 16);
    for (uint32_t key = 0; key < 4000; key++)
        s.policy->put(s.cache, key, 100, 2000);
    s.policy->counters(s.cache, &before);
    s.policy->tick(s.cache, 1984);
    expect(s.policy->get(s.cache, 1), "expiry", "an item died early");
    s.policy->tick(s.cache, 2000);
    s.policy->counters(s.cache, &after);
    expect(after.charged < before.charged / 10, "expiry", "expired segments were not given back");
    s.policy->destroy(s.cache);
}

static void check_large_items(void)
{
    struct subject s;
    struct sim_counters counters;
    bool kept = true;

    if (!open_subject(&s, "segment", 1 << 20, 1000, false))
        return;
    for (uint32_t i = 0; i < 3000; i++) {
        ask(&s, i % 3 ? 10 + i % 990 : i / 3 % 5, 30000);
        kept = kept && (i < 300 || i % 3 || s.policy->get(s.cache, i / 3 % 5));
    }
    s.policy->counters(s.cache, &counters);
    expect(kept && counters.copied_bytes == 0, "large items", "those asked for stay, and none is ever copied");
    s.policy->destroy(s.cache);
}

static void check_parts(void)
{
    struct sim_ghost *ghost = sim_ghost_create(1);
    struct sim_stream stream;
    struct sim_spec spec;
    uint32_t found = 0, first = 0;

    sim_ghost_resize(ghost, 1000);
    for (uint32_t key = 0; key < 500; key++)
        sim_ghost_add(ghost, key);
    sim_ghost_resize(ghost, 2000); /* twice the buckets: what is in it stays */
    for (uint32_t key = 0; key < 500; key++)
        found += sim_ghost_take(ghost, key);
    expect(found > 490 && sim_ghost_bytes(ghost) >= 4000 && sim_ghost_bytes(ghost) <= 10000, "ghost", "size or recall");
    found = 0;
    for (uint32_t key = 1000; key < 2000; key++)
        found += sim_ghost_take(ghost, key);
    expect(found < 10, "ghost", "false positives");
    sim_ghost_destroy(ghost);

    expect(sim_cost(SIM_COST_IDEAL, 64, false) == 100, "cost", "ours: 64 + 16 + 20");
    expect(sim_cost(SIM_COST_REDIS, 64, false) == 64 + 16 + 98, "cost", "Redis: 64 + 16 + 98");
    expect(sim_spec_parse("lru:x", &spec) && sim_spec_parse("lru:x=1y", &spec), "options", "nonsense is refused");

    expect(sim_stream_make("zipf:alpha=1,keys=1000,requests=200000", &stream) == 0, "zipf", "made");
    for (size_t i = 0; i < stream.count; i++)
        first += stream.requests[i].key == 0;
    /* 1 / (1 + 1/2 + ... + 1/1000) = 0.1336 */
    expect(fabs(first / 200000.0 - 0.1336) < 0.004, "zipf", "share of the first key");
    sim_stream_fini(&stream);
}

int sim_self_check(void)
{
    static const char *const specs[] = {
        "fifo", "lru", "slru", "s3fifo", "s3fifo:cost=1", "tinylfu", "redis-lru:cost=2", "redis-lru:resolution=1",
        "redis-lfu:cost=2,decay=1000", "memcached", "segment", "segment:workers=1,reserve=1,div=32",
        "segment:kept=0,credit=0,sizebias=0,mainbias=0,fill=100,relink=0,inplace=0,copy=0", "segment:sketch=1,copy=1",
        "segment:workers=8,ttl=6,div=512", "segment:solo=0,dead=10,relink=50", "segment:solo=0,copy=0,div=16,dead=10",
    };

    check_sequences();
    check_parts();
    check_scans();
    check_expiry();
    check_large_items();
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        check_books(specs[i], false);
        check_books(specs[i], true);
    }
    printf("%s: %u failed\n", failures ? "FAIL" : "ok", failures);
    return failures ? 1 : 0;
}
