/* SPDX-License-Identifier: MIT */
/*
 * What every fuzzer begins with.  CHECK() holds in every build: NDEBUG does not switch it off.
 */
#ifndef TESTS_FUZZ_CHECK_H
#define TESTS_FUZZ_CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CHECK(condition)                                                                                       \
    do {                                                                                                       \
        if (!(condition))                                                                                      \
            abort();                                                                                           \
    } while (0)

#endif
