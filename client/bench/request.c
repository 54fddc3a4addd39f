/* SPDX-License-Identifier: MIT */
/*
 * Requests from frames; see request.h.  A key is "key:", zeros, and its number in twelve digits: with the shortest keys
 * the number alone.
 */
#include "client/bench/request.h"

#include <endian.h>
#include <string.h>

#define SMALL_FRAME 64U

static void write_padding(struct frame *frame, uint32_t key_len)
{
    static const char name[] = "key:";
    uint32_t padding = key_len - REQUEST_DIGITS;
    for (uint32_t i = 0; i < padding; i++)
        frame->bytes[frame->key_at + i] = (uint8_t)(i < sizeof name - 1 ? name[i] : '0');
}

void requests_init(struct requests *requests, const struct protocol *protocol, uint32_t key_len)
{
    *requests = (struct requests){.protocol = protocol, .key_len = key_len};
    protocol->get(&requests->get, key_len);
    protocol->put(&requests->put, key_len, 0);
    write_padding(&requests->get, key_len);
    write_padding(&requests->put, key_len);
}

static struct frame *frame_of(struct requests *requests, enum request_op op, uint32_t value_len)
{
    if (op == REQUEST_GET)
        return &requests->get;
    if (requests->put.value_len != value_len) {
        requests->protocol->put(&requests->put, requests->key_len, value_len);
        write_padding(&requests->put, requests->key_len);
    }
    return &requests->put;
}

size_t requests_size(struct requests *requests, enum request_op op, uint32_t value_len)
{
    const struct frame *frame = frame_of(requests, op, value_len);
    return (size_t)frame->len + frame->value_len + frame->tail_len;
}

/* Eight digits of a number below 10^8 in the lanes of one word, halved three times: by 10^4, by 100, by 10. */
static inline void write_eight_digits(uint8_t *out, uint32_t number)
{
    uint64_t fours = number / 10000 | (uint64_t)(number % 10000) << 32;
    uint64_t upper = fours * 10486 >> 20 & UINT64_C(0x7f0000007f);
    uint64_t twos = upper | (fours - upper * 100) << 16;
    uint64_t tens = twos * 103 >> 10 & UINT64_C(0x000f000f000f000f);
    uint64_t digits = htole64((tens | (twos - tens * 10) << 8) + UINT64_C(0x3030303030303030));
    memcpy(out, &digits, sizeof digits);
}

static inline void write_number(uint8_t *out, uint64_t number)
{
    uint8_t upper[8] = "00000000";
    if (number >= 100000000) {
        write_eight_digits(upper, (uint32_t)(number / 100000000));
        number %= 100000000;
    }
    memcpy(out, upper + 4, 4);
    write_eight_digits(out + 4, (uint32_t)number);
}

const struct frame *requests_write(struct requests *requests, enum request_op op, uint64_t number, uint32_t value_len,
                                   uint8_t *out)
{
    const struct frame *frame = frame_of(requests, op, value_len);
    if (frame->len <= SMALL_FRAME)
        memcpy(out, frame->bytes, SMALL_FRAME); /* of fixed length, which the compiler makes a move or two */
    else
        memcpy(out, frame->bytes, frame->len);
    write_number(out + frame->key_at + requests->key_len - REQUEST_DIGITS, number);
    return frame;
}
