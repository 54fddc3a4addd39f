/* SPDX-License-Identifier: MIT */
/*
 * Loading and asking the file of users. A user who does not exist is checked against the hash of the first one, and
 * then refused whatever comes out, so that the answer takes as long.
 *
 * The users of one reading of the file never change; a check holds a reference to them while it hashes, and who lets go
 * of the last one frees them. So a new reading takes their place at once and waits for nobody.
 */
#include "server/auth.h"

#include <crypt.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "crabcache/wire.h"
#include "server/throttle.h"

#define MAX_USERS 10000U
#define HASH_BYTES ((size_t)CRYPT_OUTPUT_SIZE)

struct user {
    char name[CRAB_MAX_USER + 1];
    char hash[HASH_BYTES]; /* padded with zeros, so that all of it can be compared */
};

/* One reading of the file. */
struct users {
    size_t count;
    size_t cap;
    struct user *list;
    unsigned references; /* under the lock of struct auth */
};

struct auth {
    pthread_mutex_t lock; /* for all that follows */
    struct users *users;
    struct throttle throttle;
};

/* ----------------------------------------------------------------------------------------- the file of users */

static bool grow(struct users *users)
{
    if (users->count < users->cap)
        return true;
    size_t cap = users->cap == 0 ? 8 : users->cap * 2;
    struct user *list = reallocarray(users->list, cap, sizeof *list);
    if (list == NULL)
        return false;
    users->list = list;
    users->cap = cap;
    return true;
}

static void free_users(struct users *users)
{
    if (users == NULL)
        return;
    free(users->list);
    free(users);
}

static bool is_there(const struct users *users, const char *name)
{
    for (size_t i = 0; i < users->count; i++) {
        if (strcmp(users->list[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Returns what is wrong with a line, or NULL; a line without a user is right. */
static const char *add_line(struct users *users, char *line)
{
    line[strcspn(line, "\r\n")] = '\0';
    if (line[0] == '\0' || line[0] == '#')
        return NULL;
    char *hash = strchr(line, ':');
    if (hash == NULL)
        return "it has no ':' between name and hash";
    *hash++ = '\0';
    if (line[0] == '\0' || strlen(line) > CRAB_MAX_USER)
        return "a user's name has 1 to 255 bytes";
    if (hash[0] != '$' || strlen(hash) >= HASH_BYTES || strchr(hash + 1, '$') == NULL ||
        crypt_checksalt(hash) == CRYPT_SALT_INVALID || crypt_checksalt(hash) == CRYPT_SALT_METHOD_DISABLED)
        return "what follows ':' is no hash of crypt(3), such as `mkpasswd -m sha-512` prints";
    if (is_there(users, line))
        return "this user has a line already";
    if (users->count == MAX_USERS)
        return "there are more than 10000 users";
    if (!grow(users))
        return "memory is short";
    struct user *user = &users->list[users->count++];
    memset(user, 0, sizeof *user);
    memcpy(user->name, line, strlen(line));
    memcpy(user->hash, hash, strlen(hash));
    return NULL;
}

/* Returns NULL, with what is wrong in `why`, if the file is not all right. */
static struct users *read_users(const char *path, char *why, size_t why_cap)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(why, why_cap, "%s", strerror(errno));
        return NULL;
    }
    struct users *users = calloc(1, sizeof *users);
    const char *wrong = users == NULL ? "memory is short" : NULL;
    char line[1024];
    unsigned number = 0;
    while (wrong == NULL && fgets(line, sizeof line, file) != NULL) {
        number++;
        size_t len = strlen(line);
        wrong = len == sizeof line - 1 && line[len - 1] != '\n' ? "it is too long" : add_line(users, line);
    }
    if (wrong != NULL)
        snprintf(why, why_cap, "line %u: %s", number, wrong);
    else if (ferror(file))
        snprintf(why, why_cap, "%s", strerror(EIO));
    else if (users->count == 0)
        snprintf(why, why_cap, "it names no user");
    bool good = wrong == NULL && !ferror(file) && users->count != 0;
    fclose(file);
    explicit_bzero(line, sizeof line);
    if (good)
        return users;
    free_users(users);
    return NULL;
}

/* --------------------------------------------------------------------------------------------- lifetime */

bool auth_load(const char *path, struct auth **auth, char *why, size_t why_cap)
{
    struct users *users = read_users(path, why, why_cap);
    if (users == NULL)
        return false;
    struct auth *made = calloc(1, sizeof *made);
    if (made == NULL) {
        snprintf(why, why_cap, "memory is short");
        free_users(users);
        return false;
    }
    pthread_mutex_init(&made->lock, NULL);
    users->references = 1;
    made->users = users;
    *auth = made;
    return true;
}

static struct users *hold_users(struct auth *auth)
{
    pthread_mutex_lock(&auth->lock);
    struct users *users = auth->users;
    users->references++;
    pthread_mutex_unlock(&auth->lock);
    return users;
}

static void let_go(struct auth *auth, struct users *users)
{
    pthread_mutex_lock(&auth->lock);
    bool last = --users->references == 0;
    pthread_mutex_unlock(&auth->lock);
    if (last)
        free_users(users);
}

bool auth_reload(struct auth *auth, const char *path, char *why, size_t why_cap)
{
    struct users *fresh = read_users(path, why, why_cap);
    if (fresh == NULL)
        return false;
    fresh->references = 1;
    pthread_mutex_lock(&auth->lock);
    struct users *old = auth->users;
    auth->users = fresh;
    pthread_mutex_unlock(&auth->lock);
    let_go(auth, old);
    return true;
}

size_t auth_count(struct auth *auth)
{
    struct users *users = hold_users(auth);
    size_t count = users->count;
    let_go(auth, users);
    return count;
}

bool auth_limit(struct auth *auth, unsigned per_minute)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return false;
    throttle_init(&auth->throttle, seed, per_minute);
    return true;
}

void auth_destroy(struct auth *auth)
{
    if (auth == NULL)
        return;
    free_users(auth->users);
    pthread_mutex_destroy(&auth->lock);
    free(auth);
}

/* --------------------------------------------------------------------------------------------- checking */

struct crypt_data *auth_scratch(void)
{
    return calloc(1, sizeof(struct crypt_data));
}

/* Compares all of both, whatever they hold. */
static bool same_hash(const char *a, const char *b)
{
    unsigned char difference = 0;
    for (size_t i = 0; i < HASH_BYTES; i++)
        difference |= (unsigned char)(a[i] ^ b[i]);
    return difference == 0;
}

/* In a time that does not depend on where the user stands or how much of a name is right. */
static const struct user *find_slowly(const struct users *users, const char name[CRAB_MAX_USER + 1])
{
    const struct user *found = NULL;
    for (size_t i = 0; i < users->count; i++) {
        unsigned char difference = 0;
        for (size_t k = 0; k <= CRAB_MAX_USER; k++)
            difference |= (unsigned char)(users->list[i].name[k] ^ name[k]);
        found = difference == 0 ? &users->list[i] : found;
    }
    return found;
}

static bool is_right(const struct users *users, const struct auth_attempt *attempt, struct crypt_data *scratch)
{
    char name[CRAB_MAX_USER + 1] = {0};
    char phrase[CRAB_MAX_SECRET + 1] = {0};
    memcpy(name, attempt->user, attempt->user_len);
    if (attempt->secret_len != 0)
        memcpy(phrase, attempt->secret, attempt->secret_len);
    /* crypt() stops at a NUL; a secret or name that has one is nobody's, but takes as long. */
    bool plain = strlen(name) == attempt->user_len && strlen(phrase) == attempt->secret_len;

    const struct user *found = find_slowly(users, name);
    const struct user *against = found != NULL ? found : &users->list[0];
    char hash[HASH_BYTES] = {0};
    const char *made = crypt_r(phrase, against->hash, scratch);
    if (made != NULL)
        memcpy(hash, made, strnlen(made, HASH_BYTES - 1));
    bool good = same_hash(hash, against->hash);
    explicit_bzero(phrase, sizeof phrase);
    explicit_bzero(scratch, sizeof *scratch);
    return good && made != NULL && found != NULL && plain;
}

static uint64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

enum auth_result auth_check(struct auth *auth, const struct auth_attempt *attempt, struct crypt_data *scratch)
{
    if (attempt->user_len > CRAB_MAX_USER || attempt->secret_len > CRAB_MAX_SECRET)
        return AUTH_WRONG;
    uint64_t now_ms = monotonic_ms();
    struct throttle_attempt charge;
    pthread_mutex_lock(&auth->lock);
    bool may = throttle_enter(&auth->throttle, attempt->source, attempt->user, attempt->user_len, now_ms, &charge);
    pthread_mutex_unlock(&auth->lock);
    if (!may)
        return AUTH_LATER;
    struct users *users = hold_users(auth);
    bool good = is_right(users, attempt, scratch);
    let_go(auth, users);
    if (!good)
        return AUTH_WRONG;
    pthread_mutex_lock(&auth->lock);
    throttle_succeeded(&auth->throttle, &charge, now_ms);
    pthread_mutex_unlock(&auth->lock);
    return AUTH_GOOD;
}
