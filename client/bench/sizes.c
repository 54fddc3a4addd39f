/* SPDX-License-Identifier: MIT */
/*
 * Lengths of values; see sizes.h.  Two scrambled words of a key's number choose the range and the length within it.
 */
#include "client/bench/sizes.h"

#include <errno.h>
#include <stdlib.h>

#include "client/load/random.h"

#define WEIGHT_MAX 1000000U

static int read_number(const char **text, uint64_t limit, uint64_t *number)
{
    char *end;
    if (**text < '0' || **text > '9')
        return -1;
    errno = 0;
    *number = strtoull(*text, &end, 10);
    if (errno != 0 || *number > limit)
        return -1;
    *text = end;
    return 0;
}

static int read_length(const char **text, uint64_t limit, uint32_t *length)
{
    uint64_t number;
    if (read_number(text, limit, &number) != 0)
        return -1;
    unsigned shift = **text == 'K' ? 10 : **text == 'M' ? 20 : 0;
    if (shift != 0)
        (*text)++;
    if (number << shift > limit)
        return -1;
    *length = (uint32_t)(number << shift);
    return 0;
}

static int read_part(const char **text, uint64_t limit, struct sizes_part *part, uint64_t *weight)
{
    if (read_length(text, limit, &part->least) != 0)
        return -1;
    part->most = part->least;
    if (**text == '-') {
        (*text)++;
        if (read_length(text, limit, &part->most) != 0 || part->most < part->least)
            return -1;
    }
    *weight = 1;
    if (**text != ':')
        return 0;
    (*text)++;
    return read_number(text, WEIGHT_MAX, weight) == 0 && *weight != 0 ? 0 : -1;
}

int sizes_read(struct sizes *sizes, const char *text, uint64_t limit)
{
    uint64_t weights[SIZES_PARTS_MAX];
    uint64_t total = 0;
    *sizes = (struct sizes){.count = 0};
    for (;;) {
        if (sizes->count == SIZES_PARTS_MAX)
            return -1;
        struct sizes_part *part = &sizes->parts[sizes->count];
        if (read_part(&text, limit, part, &weights[sizes->count]) != 0)
            return -1;
        total += weights[sizes->count++];
        sizes->most = part->most > sizes->most ? part->most : sizes->most;
        if (*text == '\0')
            break;
        if (*text++ != ',')
            return -1;
    }
    uint64_t share = 0;
    for (uint32_t i = 0; i < sizes->count; i++) {
        share += UINT64_MAX / total * weights[i];
        sizes->parts[i].share_end = i + 1 < sizes->count ? share : UINT64_MAX;
    }
    return 0;
}

uint32_t sizes_of(const struct sizes *sizes, uint64_t number)
{
    const struct sizes_part *part = sizes->parts;
    if (sizes->count == 1 && part->least == part->most)
        return part->least;
    uint64_t state = random_mix(number);
    uint64_t choice = random_next(&state);
    while (choice > part->share_end)
        part++;
    return part->least + (uint32_t)random_below(random_next(&state), (uint64_t)part->most - part->least + 1);
}
