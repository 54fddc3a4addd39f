/* SPDX-License-Identifier: MIT */
/*
 * Log lines: their form in text and JSON, what becomes of bytes that do not belong there, what is too long, and of a
 * descriptor that takes no more.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/log.h"

#define TIME_LEN (sizeof "2026-01-01T00:00:00.000Z" - 1)

/* What a line of this message looks like, behind its time; `*len` is that of the whole line. */
static const char *line_of(enum log_format format, const char *message, size_t *len)
{
    static char line[8192];
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct log log = {.fd = fds[1], .level = LOG_LEVEL_INFO, .format = format};
    log_line(&log, LOG_LEVEL_WARNING, "%s", message);
    log_line(&log, LOG_LEVEL_DEBUG, "left out");
    close(fds[1]);
    ssize_t got = read(fds[0], line, sizeof line - 1);
    close(fds[0]);
    assert_true(got > 0);
    line[got] = '\0';
    *len = (size_t)got;
    return line + TIME_LEN + (format == LOG_FORMAT_JSON ? strlen("{\"time\":\"") : 0);
}

static void test_text(void **state)
{
    (void)state;
    size_t len;
    assert_string_equal(line_of(LOG_FORMAT_TEXT, "it is so", &len), " warning it is so\n");
    assert_string_equal(line_of(LOG_FORMAT_TEXT, "a\nb\x1b[0m\x7f\t\xc3\xa4", &len), " warning a?b?[0m??\xc3\xa4\n");
}

static void test_json(void **state)
{
    (void)state;
    const struct {
        const char *message, *json;
    } cases[] = {
        {"it is so", "it is so"},
        {"a \"b\" \\c", "a \\\"b\\\" \\\\c"},
        {"1\n2\t3\x01\x7f", "1\\u000a2\\u00093\\u0001\\u007f"},
        {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\xa6\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\xa6\x80"},
        {"\xc3", "\\ufffd"},                      /* cut off */
        {"\x80z", "\\ufffdz"},                    /* no beginning */
        {"\xc0\xaf", "\\ufffd\\ufffd"},           /* overlong */
        {"\xe0\x80\x80", "\\ufffd\\ufffd\\ufffd"},
        {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"}, /* half of a pair */
        {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"},
        {"\xff", "\\ufffd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[200];
        size_t len;
        snprintf(expected, sizeof expected, "\",\"level\":\"warning\",\"message\":\"%s\"}\n", cases[i].json);
        assert_string_equal(line_of(LOG_FORMAT_JSON, cases[i].message, &len), expected);
    }
}

/* Too long a message is cut, and its line is whole all the same. */
static void test_long_messages(void **state)
{
    (void)state;
    static char message[5000];
    const char bytes[] = {'x', '\n', '"', '\xff'};
    for (size_t i = 0; i < sizeof bytes; i++) {
        memset(message, bytes[i], sizeof message - 1);
        size_t len;
        const char *text = line_of(LOG_FORMAT_TEXT, message, &len);
        assert_true(len <= 4096 && text[strlen(text) - 1] == '\n');
        const char *json = line_of(LOG_FORMAT_JSON, message, &len);
        assert_true(len <= 4096);
        assert_string_equal(json + strlen(json) - 3, "\"}\n");
        assert_ptr_equal(strchr(json, '\n'), json + strlen(json) - 1);
    }
}

static void test_errno(void **state)
{
    (void)state;
    int fds[2];
    char line[200] = {0};
    assert_int_equal(pipe(fds), 0);
    struct log log = {.fd = fds[1], .level = LOG_LEVEL_INFO};
    errno = ENOENT;
    log_line(&log, LOG_LEVEL_ERROR, "it failed: %m");
    assert_int_equal(errno, ENOENT);
    assert_true(read(fds[0], line, sizeof line - 1) > 0);
    assert_non_null(strstr(line, "error it failed: No such file or directory\n"));
    close(fds[0]);
    close(fds[1]);
    log_line(&log, LOG_LEVEL_ERROR, "to nobody");
    assert_int_equal(errno, ENOENT);
}

/* A pipe that nobody reads loses lines; it does not stop who writes them. */
static void test_full_pipe(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct log log = {.fd = fds[1], .level = LOG_LEVEL_INFO};
    alarm(20);
    for (int i = 0; i < 5000; i++)
        log_line(&log, LOG_LEVEL_INFO, "line %d of many that nobody reads, each of them long enough to fill the pipe", i);
    alarm(0);
    close(fds[0]);
    close(fds[1]);
}

static size_t size_of(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    fclose(file);
    return (size_t)size;
}

static void test_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/crabcache-log-XXXXXX";
    char path[100], old[100];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/log", folder);
    snprintf(old, sizeof old, "%s/log.1", folder);
    struct log log = {.fd = STDERR_FILENO, .level = LOG_LEVEL_INFO};
    assert_int_equal(log_open(&log, "/nonexistent/log"), ENOENT);
    assert_int_equal(log.fd, STDERR_FILENO);
    assert_int_equal(log_open(&log, path), 0);
    log_line(&log, LOG_LEVEL_INFO, "one");
    size_t one = size_of(path);
    assert_int_equal(rename(path, old), 0);
    log_line(&log, LOG_LEVEL_INFO, "two");
    assert_int_equal(size_of(old), 2 * one);
    int fd = log.fd;
    assert_int_equal(log_reopen(&log, "/nonexistent/log"), ENOENT);
    log_line(&log, LOG_LEVEL_INFO, "six");
    assert_int_equal(size_of(old), 3 * one);
    assert_int_equal(log_reopen(&log, path), 0);
    assert_int_equal(log.fd, fd);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    log_line(&log, LOG_LEVEL_INFO, "ten");
    assert_int_equal(size_of(path), one);
    log_close(&log);
    assert_int_equal(log_open(&log, path), 0); /* what is there stays */
    log_line(&log, LOG_LEVEL_INFO, "two");
    assert_int_equal(size_of(path), 2 * one);
    log_close(&log);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unlink(old), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),  cmocka_unit_test(test_json),      cmocka_unit_test(test_long_messages),
        cmocka_unit_test(test_errno), cmocka_unit_test(test_full_pipe), cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
