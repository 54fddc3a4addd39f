/* SPDX-License-Identifier: MIT */
/*
 * The bytes of requests: a frame that was made once, and the digits of a key.
 */
#ifndef CRABCACHE_BENCH_REQUEST_H
#define CRABCACHE_BENCH_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "client/bench/protocol.h"

#define REQUEST_DIGITS 12U
#define REQUEST_KEYS_MAX UINT64_C(1000000000000)

enum request_op { REQUEST_GET, REQUEST_PUT };

/** @brief Makes requests of one protocol with keys of one length. */
struct requests {
    const struct protocol *protocol;
    uint32_t key_len;
    struct frame get;
    struct frame put; /**< For the last value length that was asked for. */
};

/**
 * @brief Prepare.
 * @param[out] requests what is prepared
 * @param protocol the protocol
 * @param key_len #REQUEST_DIGITS to #PROTOCOL_KEY_MAX
 */
void requests_init(struct requests *requests, const struct protocol *protocol, uint32_t key_len);

/** @brief How long a request is, with its value. */
size_t requests_size(struct requests *requests, enum request_op op, uint32_t value_len);

/**
 * @brief Write a request up to its value.
 * @param requests see requests_init()
 * @param op what to ask for
 * @param number the key's number, below #REQUEST_KEYS_MAX
 * @param value_len the length of a put's value
 * @param[out] out room for sizeof(struct frame) bytes
 * @return the frame: `len` bytes were written; its value and its tail follow
 */
const struct frame *requests_write(struct requests *requests, enum request_op op, uint64_t number, uint32_t value_len,
                                   uint8_t *out);

#endif
