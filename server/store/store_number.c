/* SPDX-License-Identifier: MIT */
/*
 * Decimal int64 numbers, as INCR and DECR keep them: an optional '-', digits, no leading zeros, no "-0".
 * There is one text for each number, so that what is written parses back to the same bytes.
 */
#include "server/store/store_impl.h"

bool store_number_parse(const uint8_t *text, size_t len, int64_t *number)
{
    if (len == 0 || len > STORE_NUMBER_MAX_LEN)
        return false;
    bool negative = text[0] == '-';
    size_t at = negative ? 1 : 0;
    if (at == len)
        return false;
    if (text[at] == '0' && len != 1)
        return false;

    /* Downwards, as the least int64 has no positive counterpart. */
    int64_t value = 0;
    for (; at < len; at++) {
        if (text[at] < '0' || text[at] > '9')
            return false;
        int64_t digit = text[at] - '0';
        if (__builtin_mul_overflow(value, (int64_t)10, &value) ||
            __builtin_sub_overflow(value, digit, &value))
            return false;
    }
    if (!negative && value == INT64_MIN)
        return false;
    *number = negative ? value : -value;
    return true;
}

size_t store_number_format(int64_t number, uint8_t text[STORE_NUMBER_MAX_LEN])
{
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
    uint8_t reversed[STORE_NUMBER_MAX_LEN];
    size_t digits = 0;
    do {
        reversed[digits++] = (uint8_t)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);

    size_t len = 0;
    if (number < 0)
        text[len++] = '-';
    while (digits > 0)
        text[len++] = reversed[--digits];
    return len;
}
