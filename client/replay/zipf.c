/* SPDX-License-Identifier: MIT */
/*
 * A stream of keys by Zipf's law.  Rank k is the key "zipf:k"; its value's size depends on the key and the seed alone.
 */
#include "client/replay/zipf.h"

#include <stdio.h>
#include <stdlib.h>

#include "client/load/random.h"
#include "client/load/zipf_law.h"

struct zipf {
    struct zipf_options options;
    struct zipf_law law;
    uint64_t made;
    uint64_t state;
    char key[32];
};

struct zipf *zipf_create(const struct zipf_options *options)
{
    struct zipf *zipf = calloc(1, sizeof *zipf);
    if (zipf == NULL)
        return NULL;
    zipf->options = *options;
    zipf->state = random_mix(options->seed);
    zipf_law_init(&zipf->law, options->exponent, options->keys);
    return zipf;
}

int zipf_next(struct zipf *zipf, struct request *request)
{
    if (zipf->made == zipf->options.requests)
        return 0;
    zipf->made++;
    uint64_t rank = zipf_law_draw(&zipf->law, &zipf->state);
    int len = snprintf(zipf->key, sizeof zipf->key, "zipf:%llu", (unsigned long long)rank);
    uint64_t sizes = (uint64_t)zipf->options.most - zipf->options.least + 1;
    request->key = (const uint8_t *)zipf->key;
    request->key_len = (size_t)len;
    request->value_bytes = zipf->options.least + (uint32_t)(random_mix(rank ^ zipf->options.seed) % sizes);
    return 1;
}

void zipf_destroy(struct zipf *zipf)
{
    free(zipf);
}
