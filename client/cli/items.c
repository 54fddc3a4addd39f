/* SPDX-License-Identifier: MIT */
/*
 * The commands for items: put, get, del, expire, incr, decr.
 *
 * Arguments are checked before anything is sent.  Values go out of get as they are, byte for byte; only a terminal gets
 * a line end after them, and the interactive mode shows them quoted.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/command.h"

#define READ_STEP ((size_t)64 * 1024)

static bool key_is_good(struct crab_slice key)
{
    if (key.len >= 1 && key.len <= CRAB_MAX_KEY)
        return true;
    session_complain("a key has 1 to %u bytes, not %zu", (unsigned)CRAB_MAX_KEY, key.len);
    return false;
}

static int show(struct crab_slice word)
{
    return word.len < 60 ? (int)word.len : 60;
}

/* ---- values from and to files */

/* Read all of a file. The caller frees *bytes. */
static int read_all(int fd, const char *name, uint8_t **bytes, size_t *len)
{
    size_t capacity = 0;
    *bytes = NULL;
    *len = 0;
    for (;;) {
        if (capacity - *len < READ_STEP) {
            capacity = capacity == 0 ? READ_STEP * 2 : capacity * 2;
            uint8_t *grown = realloc(*bytes, capacity);
            if (grown == NULL) {
                session_complain("no memory for the value in %s", name);
                return CLI_USAGE;
            }
            *bytes = grown;
        }
        ssize_t got = read(fd, *bytes + *len, capacity - *len);
        if (got == 0)
            return CLI_OK;
        if (got < 0 && errno != EINTR) {
            session_complain("cannot read %s: %s", name, strerror(errno));
            return CLI_USAGE;
        }
        *len += got > 0 ? (size_t)got : 0;
        if (*len > CRAB_CEILING_MAX_VALUE) {
            session_complain("the value in %s has more than %u bytes", name, (unsigned)CRAB_CEILING_MAX_VALUE);
            return CLI_USAGE;
        }
    }
}

/* A word as a path: a copy that ends with a zero. */
static char *path_of(struct crab_slice word)
{
    char *path = malloc(word.len + 1);
    if (path != NULL && word.len != 0)
        memcpy(path, word.data, word.len);
    if (path != NULL)
        path[word.len] = '\0';
    return path;
}

static int read_file(struct crab_slice word, uint8_t **bytes, size_t *len)
{
    *bytes = NULL;
    if (word.len == 1 && word.data[0] == '-')
        return read_all(STDIN_FILENO, "the standard input", bytes, len);
    char *path = path_of(word);
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    int status = CLI_USAGE;
    if (fd < 0)
        session_complain("--file '%.*s': %s", show(word), (const char *)word.data, strerror(errno));
    else
        status = read_all(fd, path, bytes, len);
    if (fd >= 0)
        (void)close(fd);
    free(path);
    return status;
}

static int write_file(struct crab_slice word, struct crab_slice value)
{
    char *path = path_of(word);
    FILE *file = path != NULL ? fopen(path, "we") : NULL;
    bool good = file != NULL && (value.len == 0 || fwrite(value.data, 1, value.len, file) == value.len);
    int failed = errno;
    if (file != NULL && fclose(file) != 0 && good) {
        good = false;
        failed = errno;
    }
    if (!good)
        session_complain("--output '%.*s': %s", show(word), (const char *)word.data, strerror(failed));
    free(path);
    return good ? CLI_OK : CLI_USAGE;
}

/* ---- put */

static int put_condition(const struct arguments *arguments, struct crab_put_options *options)
{
    int conditions = arguments->given[OPTION_IF_ABSENT] + arguments->given[OPTION_IF_PRESENT] +
                     arguments->given[OPTION_IF_VERSION];
    if (conditions > 1) {
        session_complain("put: only one of --if-absent, --if-present and --if-version is allowed");
        return CLI_USAGE;
    }
    if (arguments->given[OPTION_IF_ABSENT])
        options->condition = CRAB_IF_ABSENT;
    if (arguments->given[OPTION_IF_PRESENT])
        options->condition = CRAB_IF_PRESENT;
    if (!arguments->given[OPTION_IF_VERSION])
        return CLI_OK;
    struct crab_slice value = arguments->values[OPTION_IF_VERSION];
    options->condition = CRAB_IF_VERSION;
    if (text_number(value, UINT64_MAX, &options->version) && options->version != 0)
        return CLI_OK;
    session_complain("--if-version '%.*s': must be a number from 1 to 18446744073709551615, as get --meta shows it",
                     show(value), (const char *)value.data);
    return CLI_USAGE;
}

static int put_options(const struct arguments *arguments, struct crab_put_options *options)
{
    uint64_t flags = 0;
    struct crab_slice value = arguments->values[OPTION_FLAGS];
    if (argument_time(arguments, OPTION_TTL, &options->ttl_ms) != CLI_OK)
        return CLI_USAGE;
    if (arguments->given[OPTION_FLAGS] && !text_number(value, UINT32_MAX, &flags)) {
        session_complain("--flags '%.*s': must be a number from 0 to 4294967295", show(value),
                         (const char *)value.data);
        return CLI_USAGE;
    }
    options->app_flags = (uint32_t)flags;
    return put_condition(arguments, options);
}

static int put_value(struct session *session, const struct arguments *arguments,
                     const struct crab_put_options *options, struct crab_slice value)
{
    struct crab_slice key = arguments->words[0];
    uint64_t version = 0;
    bool wanted = arguments->given[OPTION_SHOW_VERSION] || options->condition != CRAB_ALWAYS;
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    enum crab_status status =
        crab_conn_put(session->conn, key.data, key.len, value.data, value.len, options, wanted ? &version : NULL);
    switch (status) {
    case CRAB_OK:
        if (arguments->given[OPTION_SHOW_VERSION])
            (void)printf("%" PRIu64 "\n", version);
        else
            (void)puts("OK");
        return output_done();
    case CRAB_MISS:
        session_complain("not stored: the key is absent");
        return CLI_NO;
    case CRAB_EXISTS:
        session_complain("not stored: the key exists with version %" PRIu64, version);
        return CLI_NO;
    default:
        return session_failed(session, status);
    }
}

int command_put(struct session *session, const struct arguments *arguments)
{
    struct crab_put_options options = {0};
    bool from_file = arguments->given[OPTION_FILE];
    if (!key_is_good(arguments->words[0]) || put_options(arguments, &options) != CLI_OK)
        return CLI_USAGE;
    if (from_file ? arguments->count != 1 : arguments->count != 2) {
        session_complain("put: give one value: VALUE, - for the standard input, or --file FILE");
        return CLI_USAGE;
    }
    struct crab_slice word = from_file ? arguments->values[OPTION_FILE] : arguments->words[1];
    if (!from_file && !(word.len == 1 && word.data[0] == '-'))
        return put_value(session, arguments, &options, word);
    if (session->interactive && word.len == 1 && word.data[0] == '-') {
        session_complain("put: the standard input is where the commands come from");
        return CLI_USAGE;
    }
    uint8_t *bytes;
    size_t len = 0;
    int status = read_file(word, &bytes, &len);
    if (status == CLI_OK)
        status = put_value(session, arguments, &options, crab_slice_of(bytes, len));
    free(bytes);
    return status;
}

/* ---- get */

static int show_value(const struct session *session, struct crab_slice value)
{
    if (session->interactive) {
        text_print_quoted(stdout, value);
        (void)putchar('\n');
        return output_done();
    }
    if (value.len != 0)
        (void)fwrite(value.data, 1, value.len, stdout); /* output_done() sees a failure */
    if (isatty(STDOUT_FILENO))
        (void)putchar('\n');
    return output_done();
}

static void show_meta(const struct crab_item *item)
{
    (void)printf("version: %" PRIu64 "\n", item->version);
    if (item->ttl_ms == CRAB_TTL_NEVER)
        (void)puts("ttl: never");
    else
        (void)printf("ttl: %" PRIu64 "ms\n", item->ttl_ms);
    (void)printf("flags: %" PRIu32 "\nbytes: %zu\n", item->app_flags, item->value.len);
}

int command_get(struct session *session, const struct arguments *arguments)
{
    struct crab_slice key = arguments->words[0];
    uint64_t touch_ms = 0;
    bool meta = arguments->given[OPTION_META];
    if (!key_is_good(key) || argument_time(arguments, OPTION_TOUCH, &touch_ms) != CLI_OK)
        return CLI_USAGE;
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    struct crab_item item = {0};
    enum crab_status status;
    if (meta)
        status = crab_conn_get_meta(session->conn, key.data, key.len, touch_ms, &item);
    else if (touch_ms != 0)
        status = crab_conn_get_touch(session->conn, key.data, key.len, touch_ms, &item.value);
    else
        status = crab_conn_get(session->conn, key.data, key.len, &item.value);
    if (status == CRAB_MISS) {
        session_complain("no such key");
        return CLI_NO;
    }
    if (status != CRAB_OK)
        return session_failed(session, status);
    if (meta)
        show_meta(&item);
    if (arguments->given[OPTION_OUTPUT]) {
        int written = write_file(arguments->values[OPTION_OUTPUT], item.value);
        return written != CLI_OK ? written : output_done();
    }
    if (meta && !session->interactive)
        (void)putchar('\n'); /* an empty line, as in HTTP, parts what is known of the value from the value */
    return show_value(session, item.value);
}

/* ---- del, expire */

int command_del(struct session *session, const struct arguments *arguments)
{
    for (size_t i = 0; i < arguments->count; i++) {
        if (!key_is_good(arguments->words[i]))
            return CLI_USAGE;
    }
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    size_t deleted = 0;
    size_t queued = 0;
    size_t failed = 0;
    struct crab_result result;
    enum crab_status status = CRAB_OK;
    while (status == CRAB_OK) {
        while (status == CRAB_OK && queued < arguments->count) {
            struct crab_slice key = arguments->words[queued];
            status = crab_conn_queue_del(session->conn, key.data, key.len);
            queued += status == CRAB_OK ? 1 : 0;
        }
        if (status != CRAB_OK && status != CRAB_E_FULL)
            break;
        status = crab_conn_next_reply(session->conn, &result);
        if (status == CRAB_OK) {
            deleted += result.status == CRAB_OK ? 1 : 0;
            failed += crab_status_failed(result.status) ? 1 : 0;
        }
    }
    (void)printf("%zu\n", deleted);
    if (status != CRAB_EMPTY || failed != 0) {
        (void)fflush(stdout);
        return session_failed(session, status != CRAB_EMPTY ? status : CRAB_E_SERVER);
    }
    int done = output_done();
    return done != CLI_OK || deleted == arguments->count ? done : CLI_NO;
}

int command_expire(struct session *session, const struct arguments *arguments)
{
    struct crab_slice key = arguments->words[0];
    struct crab_slice time = arguments->words[1];
    uint64_t ttl_ms;
    if (!key_is_good(key))
        return CLI_USAGE;
    if (!text_time(time, &ttl_ms)) {
        session_complain("expire: '%.*s' must be a time from 1ms on with the unit ms, s, m, h or d, or never",
                         show(time), (const char *)time.data);
        return CLI_USAGE;
    }
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    enum crab_status status = crab_conn_expire(session->conn, key.data, key.len, ttl_ms);
    if (status == CRAB_MISS) {
        session_complain("no such key");
        return CLI_NO;
    }
    if (status != CRAB_OK)
        return session_failed(session, status);
    (void)puts("OK");
    return output_done();
}

/* ---- incr, decr */

static int count(struct session *session, const struct arguments *arguments, bool up)
{
    struct crab_slice key = arguments->words[0];
    struct crab_incr_options options = {.create = arguments->given[OPTION_INITIAL]};
    struct crab_slice initial = arguments->values[OPTION_INITIAL];
    uint64_t delta = 1;
    if (!key_is_good(key) || argument_time(arguments, OPTION_TTL, &options.ttl_ms) != CLI_OK)
        return CLI_USAGE;
    if (arguments->count == 2 && !text_number(arguments->words[1], UINT64_MAX, &delta)) {
        session_complain("'%.*s' must be a number from 0 to 18446744073709551615", show(arguments->words[1]),
                         (const char *)arguments->words[1].data);
        return CLI_USAGE;
    }
    if (options.create && !text_signed(initial, &options.initial)) {
        session_complain("--initial '%.*s': must be a number from -9223372036854775808 to 9223372036854775807",
                         show(initial), (const char *)initial.data);
        return CLI_USAGE;
    }
    if (arguments->given[OPTION_TTL] && !options.create) {
        session_complain("--ttl is for an item that is created: it needs --initial");
        return CLI_USAGE;
    }
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    int64_t number = 0;
    enum crab_status status = up ? crab_conn_incr(session->conn, key.data, key.len, delta, &options, &number)
                                 : crab_conn_decr(session->conn, key.data, key.len, delta, &options, &number);
    if (status == CRAB_MISS) {
        session_complain("no such key; --initial would create it");
        return CLI_NO;
    }
    if (status != CRAB_OK)
        return session_failed(session, status);
    (void)printf("%" PRId64 "\n", number);
    return output_done();
}

int command_incr(struct session *session, const struct arguments *arguments)
{
    return count(session, arguments, true);
}

int command_decr(struct session *session, const struct arguments *arguments)
{
    return count(session, arguments, false);
}
