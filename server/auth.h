/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Users and their secrets: who may use the server.
 *
 * The file has one user per line, `name:hash`, where hash is what crypt(3) makes of the secret (`$6$...`, `$y$...`;
 * `mkpasswd -m sha-512` prints one). Empty lines and lines that begin with '#' are left out. The secrets themselves
 * are never kept.
 *
 * Invariant: to tell an unknown user takes as long as to tell a wrong secret, and comparing hashes takes the
 * same time wherever they differ.
 */
#ifndef CRABCACHE_SERVER_AUTH_H
#define CRABCACHE_SERVER_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct auth;       /**< The users; read-only once loaded, shared by all workers. */
struct crypt_data; /**< Of <crypt.h>: what crypt_r() works in, one per worker. */

/**
 * @brief Load a file of users.
 * @param path  of the file.
 * @param[out] auth  the users; untouched on failure.
 * @param[out] why  on failure: what is wrong, for people, with the line's number; NUL-terminated.
 * @param why_cap  room in why, in bytes.
 * @return whether it was loaded: it must have at least one user, and every line must be right.
 * @ownership The caller ends it with auth_destroy().
 */
bool auth_load(const char *path, struct auth **auth, char *why, size_t why_cap);

/** @brief End what auth_load() made. NULL is accepted. */
void auth_destroy(struct auth *auth);

/** @brief What auth_check() works in. @return NULL if memory is short. @ownership free() it. */
struct crypt_data *auth_scratch(void);

/**
 * @brief Tell whether a secret is that of a user. Takes milliseconds, by intent: that is what the hash is for.
 * @param user  1 to 255 bytes. @param user_len  how many.
 * @param secret  0 to 1024 bytes. @param secret_len  how many.
 * @param scratch  of auth_scratch(); overwritten.
 * @return whether it is.
 */
bool auth_check(const struct auth *auth, const uint8_t *user, size_t user_len, const uint8_t *secret,
                size_t secret_len, struct crypt_data *scratch);

#endif
