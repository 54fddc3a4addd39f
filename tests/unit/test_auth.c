/* SPDX-License-Identifier: MIT */
/*
 * Users and secrets: what a file may hold, who is let in, and what happens while the file is read again.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <crypt.h>

#include <cmocka.h>

#include "server/auth.h"

struct loaded {
    struct auth *auth; /* NULL: it was refused */
    char why[200];
};

static struct loaded load(const char *content, size_t len)
{
    char path[] = "/tmp/crabcache-users-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, len), len);
    close(fd);
    struct loaded loaded = {.auth = NULL};
    if (!auth_load(path, &loaded.auth, loaded.why, sizeof loaded.why))
        assert_null(loaded.auth);
    unlink(path);
    return loaded;
}

static void expect_refused(const char *content, const char *why)
{
    struct loaded loaded = load(content, strlen(content));
    assert_null(loaded.auth);
    assert_non_null(strstr(loaded.why, why));
}

static char *hash_of(const char *secret, const char *setting)
{
    struct crypt_data *data = calloc(1, sizeof *data);
    const char *hash = crypt_r(secret, setting, data);
    assert_non_null(hash);
    assert_true(hash[0] == '$');
    char *copy = strdup(hash);
    free(data);
    return copy;
}

static enum auth_result ask(struct auth *auth, struct crypt_data *scratch, const void *user, size_t user_len,
                            const void *secret, size_t secret_len, uint64_t source)
{
    return auth_check(auth, &(struct auth_attempt){user, user_len, secret, secret_len, source}, scratch);
}

static bool check(struct auth *auth, struct crypt_data *scratch, const char *user, const char *secret)
{
    return ask(auth, scratch, user, strlen(user), secret, strlen(secret), 0) == AUTH_GOOD;
}

static void test_secrets(void **state)
{
    (void)state;
    char *sha = hash_of("wonderland", "$6$rounds=1000$saltsalt$");
    char *other = hash_of("", "$5$rounds=1000$othersalt$");
    char *yescrypt = hash_of("yes", "$y$j75$saltsaltsalt$");
    char content[1500];
    int len = snprintf(content, sizeof content, "# users\n\nalice:%s\r\nbob:%s\ncarol:%s", sha, other, yescrypt);
    struct loaded loaded = load(content, (size_t)len);
    assert_non_null(loaded.auth);
    struct crypt_data *scratch = auth_scratch();
    assert_non_null(scratch);
    assert_true(check(loaded.auth, scratch, "alice", "wonderland"));
    assert_true(check(loaded.auth, scratch, "bob", ""));
    assert_true(check(loaded.auth, scratch, "carol", "yes"));
    assert_false(check(loaded.auth, scratch, "alice", "wonderlan"));
    assert_false(check(loaded.auth, scratch, "alice", "wonderland "));
    assert_false(check(loaded.auth, scratch, "alice", ""));
    assert_false(check(loaded.auth, scratch, "alice", sha));
    assert_false(check(loaded.auth, scratch, "bob", "wonderland"));
    assert_false(check(loaded.auth, scratch, "alic", "wonderland"));
    assert_false(check(loaded.auth, scratch, "alicee", "wonderland"));
    assert_false(check(loaded.auth, scratch, "nobody", "wonderland"));
    assert_false(check(loaded.auth, scratch, "# users", "wonderland"));
    /* A NUL ends neither the name nor the secret. */
    assert_int_equal(ask(loaded.auth, scratch, "alice\0x", 7, "wonderland", 10, 0), AUTH_WRONG);
    assert_int_equal(ask(loaded.auth, scratch, "alice", 5, "wonderland\0", 11, 0), AUTH_WRONG);
    uint8_t longest[1024];
    memset(longest, 'x', sizeof longest);
    assert_int_equal(ask(loaded.auth, scratch, longest, 255, longest, 1024, 0), AUTH_WRONG);
    assert_true(check(loaded.auth, scratch, "alice", "wonderland"));
    free(scratch);
    auth_destroy(loaded.auth);
    auth_destroy(NULL);
    free(sha);
    free(other);
    free(yescrypt);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct loaded loaded = {.auth = NULL};
    assert_false(auth_load("/nonexistent/users", &loaded.auth, loaded.why, sizeof loaded.why));
    assert_non_null(strstr(loaded.why, "No such file"));
    assert_false(auth_load("/", &loaded.auth, loaded.why, sizeof loaded.why));
    expect_refused("", "names no user");
    expect_refused("\n# alice:$6$salt$x\n", "names no user");
    expect_refused("alice\n", "line 1");
    expect_refused("alice:\n", "line 1");
    expect_refused("a:$6$salt$x\n\nalice:secret\n", "line 3");
    expect_refused("alice:*\n", "line 1");
    expect_refused("alice:!\n", "line 1");
    expect_refused("alice:$\n", "line 1");
    expect_refused("alice:$nothing$salt$x\n", "line 1");
    expect_refused(":$6$salt$x\n", "line 1");
    expect_refused("a:$6$salt$x\na:$6$salt$x\n", "line 2");
    char content[3000];
    memset(content, 'a', sizeof content);
    snprintf(content + 256, sizeof content - 256, ":$6$salt$x\n");
    expect_refused(content, "line 1");
    memset(content, 'a', sizeof content);
    content[sizeof content - 1] = '\0';
    memcpy(content, "a:$6$salt$", 10);
    expect_refused(content, "line 1");
}

/* ------------------------------------------------------------------------------------ reading it again */

/* Write a file of one user, whose secret is `secret`. */
static void write_user(const char *path, const char *name, const char *secret)
{
    char *hash = hash_of(secret, "$5$rounds=1000$saltsalt$");
    char fresh[200];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    assert_non_null(file);
    assert_true(fprintf(file, "%s:%s\n", name, hash) > 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(fresh, path), 0);
    free(hash);
}

static void test_reload(void **state)
{
    (void)state;
    char path[] = "/tmp/crabcache-users-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_user(path, "alice", "old");
    struct auth *auth = NULL;
    char why[200];
    assert_true(auth_load(path, &auth, why, sizeof why));
    struct crypt_data *scratch = auth_scratch();
    assert_true(check(auth, scratch, "alice", "old"));
    write_user(path, "bob", "new");
    assert_true(check(auth, scratch, "alice", "old")); /* nobody has read it yet */
    assert_true(auth_reload(auth, path, why, sizeof why));
    assert_int_equal(auth_count(auth), 1);
    assert_false(check(auth, scratch, "alice", "old"));
    assert_true(check(auth, scratch, "bob", "new"));
    assert_int_equal(truncate(path, 0), 0);
    assert_false(auth_reload(auth, path, why, sizeof why)); /* what is wrong changes nothing */
    assert_non_null(strstr(why, "names no user"));
    unlink(path);
    assert_false(auth_reload(auth, path, why, sizeof why));
    assert_true(check(auth, scratch, "bob", "new"));
    free(scratch);
    auth_destroy(auth);
}

struct asker {
    struct auth *auth;
    atomic_bool *stop;
    unsigned checks, wrong;
};

/* Whichever users hold, one of the two secrets is right. */
static void *keep_asking(void *argument)
{
    struct asker *asker = argument;
    struct crypt_data *scratch = auth_scratch();
    while (!atomic_load(asker->stop) || asker->checks < 5) {
        bool first = check(asker->auth, scratch, "alice", "one");
        bool second = check(asker->auth, scratch, "alice", "two");
        asker->wrong += check(asker->auth, scratch, "alice", "three");
        asker->checks += first || second;
    }
    free(scratch);
    return NULL;
}

static void test_reload_beside_checks(void **state)
{
    (void)state;
    char path[] = "/tmp/crabcache-users-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_user(path, "alice", "one");
    struct auth *auth = NULL;
    char why[200];
    assert_true(auth_load(path, &auth, why, sizeof why));
    atomic_bool stop = false;
    struct asker askers[3];
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++) {
        askers[i] = (struct asker){.auth = auth, .stop = &stop};
        assert_int_equal(pthread_create(&threads[i], NULL, keep_asking, &askers[i]), 0);
    }
    for (unsigned i = 0; i < 60; i++) {
        write_user(path, "alice", i % 2 == 0 ? "two" : "one");
        assert_true(auth_reload(auth, path, why, sizeof why));
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_true(askers[i].checks != 0);
        assert_int_equal(askers[i].wrong, 0);
    }
    unlink(path);
    auth_destroy(auth);
}

/* test_throttle.c has the rules; here they are applied. */
static void test_limit(void **state)
{
    (void)state;
    char content[300];
    char *hash = hash_of("right", "$5$rounds=1000$saltsalt$");
    int len = snprintf(content, sizeof content, "alice:%s\nbob:%s\n", hash, hash);
    struct loaded loaded = load(content, (size_t)len);
    assert_non_null(loaded.auth);
    assert_true(auth_limit(loaded.auth, 3));
    struct crypt_data *scratch = auth_scratch();
    assert_int_equal(ask(loaded.auth, scratch, "alice", 5, "right", 5, 7), AUTH_GOOD);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(loaded.auth, scratch, "bob", 3, "wrong", 5, 7), AUTH_WRONG);
    assert_int_equal(ask(loaded.auth, scratch, "bob", 3, "right", 5, 7), AUTH_LATER);
    assert_int_equal(ask(loaded.auth, scratch, "nobody", 6, "right", 5, 7), AUTH_LATER);
    for (int i = 0; i < 20; i++) /* known from there: success costs nothing */
        assert_int_equal(ask(loaded.auth, scratch, "alice", 5, "right", 5, 7), AUTH_GOOD);
    assert_int_equal(ask(loaded.auth, scratch, "bob", 3, "right", 5, 8), AUTH_GOOD);
    free(scratch);
    free(hash);
    auth_destroy(loaded.auth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_reload_beside_checks),
        cmocka_unit_test(test_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
