/* SPDX-License-Identifier: MIT */
/*
 * Which request comes next: --dist, --ratio and --seed.
 */
#ifndef CRABCACHE_BENCH_CHOICE_H
#define CRABCACHE_BENCH_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/bench/plan.h"
#include "client/bench/request.h"
#include "client/load/random.h"
#include "client/load/zipf_law.h"

/** @brief A sequence of requests. */
struct choice {
    uint64_t state;
    uint64_t keys;
    uint64_t put_below; /**< Of 32 random bits: below it is a put. */
    bool zipf;
    struct zipf_law law;
};

/** @brief Begin the sequence that belongs to a plan and a thread of it. */
static inline void choice_init(struct choice *choice, const struct plan *plan, uint32_t thread)
{
    uint64_t weights = (uint64_t)plan->get_weight + plan->put_weight;
    *choice = (struct choice){.state = random_mix(plan->seed ^ (uint64_t)thread << 48), .keys = plan->keys};
    choice->put_below = (UINT64_C(1) << 32) * plan->put_weight / weights;
    choice->zipf = plan->zipf;
    if (plan->zipf)
        zipf_law_init(&choice->law, plan->exponent, plan->keys);
}

/** @brief The op of the next request. */
static inline enum request_op choice_op(struct choice *choice)
{
    if (choice->put_below == 0)
        return REQUEST_GET;
    return random_next(&choice->state) >> 32 < choice->put_below ? REQUEST_PUT : REQUEST_GET;
}

/** @brief The key of the next request, below `keys`; by Zipf's law 0 is the most frequent. */
static inline uint64_t choice_key(struct choice *choice)
{
    if (choice->zipf)
        return zipf_law_draw(&choice->law, &choice->state) - 1;
    return random_below(random_next(&choice->state), choice->keys);
}

#endif
