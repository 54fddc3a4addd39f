/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief Users and their secrets: who may use the server.
 *
 * The file has one user per line, `name:hash`, where hash is what crypt(3) makes of the secret (`$6$...`, `$y$...`;
 * `mkpasswd -m sha-512` prints one). Empty lines and lines that begin with '#' are left out. The secrets themselves
 * are never kept. The file can be read again at any time: a check sees the old users or the new ones.
 *
 * Invariants: to tell an unknown user takes as long as to tell a wrong secret, and comparing hashes takes the same time
 * wherever they differ. No lock is held while a hash is made.
 */
#ifndef CRABCACHE_SERVER_AUTH_H
#define CRABCACHE_SERVER_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct auth;       /**< The users and how often they failed; shared by all workers. */
struct crypt_data; /**< Of <crypt.h>: what crypt_r() works in, one per worker. */

/** What became of an attempt. */
enum auth_result {
    AUTH_GOOD,  /**< The secret is the user's. */
    AUTH_WRONG, /**< It is not, or there is no such user. */
    AUTH_LATER  /**< Nobody looked: too many attempts from there have failed. */
};

/** An attempt to authenticate; all borrowed. */
struct auth_attempt {
    const uint8_t *user;   /**< 1 to 255 bytes. */
    size_t user_len;       /**< How many. */
    const uint8_t *secret; /**< 0 to 1024 bytes. */
    size_t secret_len;     /**< How many. */
    uint64_t source;       /**< Where the client comes from: see throttle.h. */
};

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

/**
 * @brief Load the file again. On failure the old users stay.
 * @param path  of the file. @param[out] why  as of auth_load(). @param why_cap  room in why, in bytes.
 * @return whether the new users hold from now on.
 * @threads any
 */
bool auth_reload(struct auth *auth, const char *path, char *why, size_t why_cap);

/** @brief How many users there are. @threads any */
size_t auth_count(struct auth *auth);

/**
 * @brief Bound the attempts that fail; without this call there is no bound.
 * @param per_minute  of one source, as of throttle_init().
 * @return false if there is no random number to be had.
 * @threads before any check
 */
bool auth_limit(struct auth *auth, unsigned per_minute);

/** @brief End what auth_load() made. NULL is accepted. */
void auth_destroy(struct auth *auth);

/** @brief What auth_check() works in. @return NULL if memory is short. @ownership free() it. */
struct crypt_data *auth_scratch(void);

/**
 * @brief Tell whether a secret is that of a user. Takes milliseconds, by intent: that is what the hash is for.
 * @param attempt  user, secret and source.
 * @param scratch  of auth_scratch(); overwritten.
 * @return what became of it.
 * @threads any
 */
enum auth_result auth_check(struct auth *auth, const struct auth_attempt *attempt, struct crypt_data *scratch);

#endif
