/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief A cache so simple that it is right: an array of items, and the rules of PROTOCOL.md read once more.
 *
 * Given a stream of requests and the bytes that the server answered, it says whether the answers are right. It shares
 * the codec with the server (which has fuzzers and vectors of its own) and nothing else. Versions are the server's
 * choice: the model learns them from answers and checks that they are used consistently.
 */
#ifndef CRABCACHE_TESTS_FUZZ_MODEL_H
#define CRABCACHE_TESTS_FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The model of a server with one connection. */
struct model;

/** @brief Make a model of an empty server. @param max_value  its limit for values. @ownership model_destroy(). */
struct model *model_create(uint32_t max_value);

/** @brief End a model. */
void model_destroy(struct model *model);

/**
 * @brief Check a whole conversation.
 * @param stream  what the client sent. @param len  in bytes.
 * @param answers  what the server sent. @param answers_len  in bytes.
 * @param closed  whether the server closes after its answers.
 * @return NULL if all is right, or what is wrong, for people.
 */
const char *model_check(struct model *model, const uint8_t *stream, size_t len, const uint8_t *answers,
                        size_t answers_len, bool closed);

#endif
