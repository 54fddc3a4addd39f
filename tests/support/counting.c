/* SPDX-License-Identifier: MIT */
/*
 * See counting.h.
 */
#include "tests/support/counting.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* More than anything does that each_allocation_fails() is asked for. */
#define MOST_ALLOCATIONS 200U

static void *counting_resize(void *context, void *memory, size_t bytes)
{
    struct counting *counting = context;
    if (bytes == 0) {
        counting->blocks -= memory != NULL;
        free(memory);
        return NULL;
    }
    counting->calls++;
    if (counting->fail_at != 0 &&
        (counting->calls == counting->fail_at || (counting->fail_after && counting->calls > counting->fail_at)))
        return NULL;
    void *grown = realloc(memory, bytes);
    counting->blocks += memory == NULL && grown != NULL;
    if (bytes > counting->largest)
        counting->largest = bytes;
    return grown;
}

void counting_init(struct counting *counting)
{
    *counting = (struct counting){.allocator = {.resize = counting_resize, .context = counting}};
}

void each_allocation_fails(enum crab_status (*use)(struct counting *counting, void *context), void *context)
{
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        enum crab_status status = CRAB_E_NO_MEMORY;
        for (size_t n = 1; status != CRAB_OK && n < MOST_ALLOCATIONS; n++) {
            struct counting counting;
            counting_init(&counting);
            counting.fail_at = n;
            counting.fail_after = for_ever;
            status = use(&counting, context);
            assert_int_equal(counting.blocks, 0);
        }
        assert_int_equal(status, CRAB_OK);
    }
}

size_t open_files(void)
{
    size_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    (void)closedir(folder);
    return count;
}
