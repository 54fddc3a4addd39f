/* SPDX-License-Identifier: MIT */
/*
 * Users and secrets: what a file may hold, and who is let in.
 */
#include <setjmp.h>
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

static bool check(const struct auth *auth, struct crypt_data *scratch, const char *user, const char *secret)
{
    return auth_check(auth, (const uint8_t *)user, strlen(user), (const uint8_t *)secret, strlen(secret), scratch);
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
    assert_false(auth_check(loaded.auth, (const uint8_t *)"alice\0x", 7, (const uint8_t *)"wonderland", 10, scratch));
    assert_false(auth_check(loaded.auth, (const uint8_t *)"alice", 5, (const uint8_t *)"wonderland\0", 11, scratch));
    uint8_t longest[1024];
    memset(longest, 'x', sizeof longest);
    assert_false(auth_check(loaded.auth, longest, 255, longest, 1024, scratch));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
