/* SPDX-License-Identifier: MIT */
/*
 * Loading and asking the file of users. A user who does not exist is checked against the hash of the first one, and
 * then refused whatever comes out, so that the answer takes as long.
 */
#include "server/auth.h"

#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crabcache/wire.h"

#define MAX_USERS 10000U
#define HASH_BYTES ((size_t)CRYPT_OUTPUT_SIZE)

struct user {
    char name[CRAB_MAX_USER + 1];
    char hash[HASH_BYTES]; /* padded with zeros, so that all of it can be compared */
};

struct auth {
    size_t count;
    size_t cap;
    struct user *users;
};

static bool grow(struct auth *auth)
{
    if (auth->count < auth->cap)
        return true;
    size_t cap = auth->cap == 0 ? 8 : auth->cap * 2;
    struct user *users = reallocarray(auth->users, cap, sizeof *users);
    if (users == NULL)
        return false;
    auth->users = users;
    auth->cap = cap;
    return true;
}

static const struct user *find(const struct auth *auth, const char *name)
{
    for (size_t i = 0; i < auth->count; i++) {
        if (strcmp(auth->users[i].name, name) == 0)
            return &auth->users[i];
    }
    return NULL;
}

/* Returns what is wrong with a line, or NULL; a line without a user is right. */
static const char *add_line(struct auth *auth, char *line)
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
    if (find(auth, line) != NULL)
        return "this user has a line already";
    if (auth->count == MAX_USERS)
        return "there are more than 10000 users";
    if (!grow(auth))
        return "memory is short";
    struct user *user = &auth->users[auth->count++];
    memset(user, 0, sizeof *user);
    memcpy(user->name, line, strlen(line));
    memcpy(user->hash, hash, strlen(hash));
    return NULL;
}

bool auth_load(const char *path, struct auth **auth, char *why, size_t why_cap)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(why, why_cap, "%s", strerror(errno));
        return false;
    }
    struct auth *loaded = calloc(1, sizeof *loaded);
    const char *wrong = loaded == NULL ? "memory is short" : NULL;
    char line[1024];
    unsigned number = 0;
    while (wrong == NULL && fgets(line, sizeof line, file) != NULL) {
        number++;
        size_t len = strlen(line);
        wrong = len == sizeof line - 1 && line[len - 1] != '\n' ? "it is too long" : add_line(loaded, line);
    }
    if (wrong != NULL)
        snprintf(why, why_cap, "line %u: %s", number, wrong);
    else if (ferror(file))
        snprintf(why, why_cap, "%s", strerror(EIO));
    else if (loaded->count == 0)
        snprintf(why, why_cap, "it names no user");
    bool good = wrong == NULL && !ferror(file) && loaded->count != 0;
    fclose(file);
    explicit_bzero(line, sizeof line);
    if (good)
        *auth = loaded;
    else
        auth_destroy(loaded);
    return good;
}

void auth_destroy(struct auth *auth)
{
    if (auth == NULL)
        return;
    free(auth->users);
    free(auth);
}

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

/* As find(), in a time that does not depend on where the user stands or how much of a name is right. */
static const struct user *find_slowly(const struct auth *auth, const char name[CRAB_MAX_USER + 1])
{
    const struct user *found = NULL;
    for (size_t i = 0; i < auth->count; i++) {
        unsigned char difference = 0;
        for (size_t k = 0; k <= CRAB_MAX_USER; k++)
            difference |= (unsigned char)(auth->users[i].name[k] ^ name[k]);
        found = difference == 0 ? &auth->users[i] : found;
    }
    return found;
}

bool auth_check(const struct auth *auth, const uint8_t *user, size_t user_len, const uint8_t *secret,
                size_t secret_len, struct crypt_data *scratch)
{
    char name[CRAB_MAX_USER + 1] = {0};
    char phrase[CRAB_MAX_SECRET + 1] = {0};
    if (user_len > CRAB_MAX_USER || secret_len > CRAB_MAX_SECRET)
        return false;
    memcpy(name, user, user_len);
    if (secret_len != 0)
        memcpy(phrase, secret, secret_len);
    /* crypt() stops at a NUL; a secret or name that has one is nobody's, but takes as long. */
    bool plain = strlen(name) == user_len && strlen(phrase) == secret_len;

    const struct user *found = find_slowly(auth, name);
    const struct user *against = found != NULL ? found : &auth->users[0];
    char hash[HASH_BYTES] = {0};
    const char *made = crypt_r(phrase, against->hash, scratch);
    if (made != NULL)
        memcpy(hash, made, strnlen(made, HASH_BYTES - 1));
    bool good = same_hash(hash, against->hash);
    explicit_bzero(phrase, sizeof phrase);
    explicit_bzero(scratch, sizeof *scratch);
    return good && made != NULL && found != NULL && plain;
}
