/* SPDX-License-Identifier: MIT */
/*
 * Pipelining on a connection of one's own: many requests on their way at once, quiet writes, many keys in one call.
 *
 *     cc pipelining.c $(pkg-config --cflags --libs crabcache) -o pipelining && ./pipelining 127.0.0.1 2722
 */
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <stdlib.h>

#define KEYS 10000

struct tally {
    unsigned stored;
    unsigned refused;
};

//! [take]
static enum crab_status take(struct crab_conn *conn, struct tally *tally)
{
    struct crab_result result;
    enum crab_status status = crab_conn_next_reply(conn, &result);
    if (status != CRAB_OK)
        return status; /* CRAB_EMPTY: all replies were taken; otherwise the connection broke */
    if (result.status == CRAB_OK)
        tally->stored++;
    else
        tally->refused++; /* an error of the server is one request's, the connection goes on */
    return CRAB_OK;
}
//! [take]

//! [queue]
static enum crab_status queue_number(struct crab_conn *conn, int number, struct tally *tally)
{
    char key[16], value[16];
    size_t key_len = (size_t)snprintf(key, sizeof key, "number:%d", number);
    size_t value_len = (size_t)snprintf(value, sizeof value, "%d", number * number);
    for (;;) {
        enum crab_status status = crab_conn_queue_put(conn, key, key_len, value, value_len, NULL);
        if (status != CRAB_E_FULL)
            return status;
        if ((status = take(conn, tally)) != CRAB_OK)
            return status;
    }
}
//! [queue]

static enum crab_status store(struct crab_conn *conn)
{
    struct tally tally = {0, 0};
    //! [pipeline]
    enum crab_status status = CRAB_OK;
    for (int i = 0; status == CRAB_OK && i < KEYS; i++)
        status = queue_number(conn, i, &tally);
    while (status == CRAB_OK)
        status = take(conn, &tally);
    //! [pipeline]
    printf("stored: %u, refused: %u\n", tally.stored, tally.refused);
    return status == CRAB_EMPTY ? CRAB_OK : status;
}

static enum crab_status quiet(struct crab_conn *conn)
{
    //! [quiet]
    struct crab_late_error late;
    uint32_t good, bad;
    enum crab_status status = crab_conn_quiet_put(conn, "word", 4, "twelve", 6, NULL, &good);
    if (status == CRAB_OK)
        status = crab_conn_quiet_incr(conn, "word", 4, 1, NULL, &bad);
    if (status == CRAB_OK)
        status = crab_conn_ping(conn); /* the barrier: whatever failed is known afterwards */
    while (status == CRAB_OK && crab_conn_late_error(conn, &late) == CRAB_OK)
        printf("the %s one failed: %s\n", late.tag == bad ? "second" : "first", crab_error_name(late.code));
    //! [quiet]
    return status;
}

//! [each]
static void add(void *context, size_t index, const struct crab_result *result)
{
    long *sum = context;
    (void)index;
    if (result->status == CRAB_OK)
        for (size_t i = 0; i < result->value.len; i++)
            *sum += result->value.data[i] - '0';
}
//! [each]

static enum crab_status read_back(struct crab_conn *conn)
{
    //! [many]
    struct crab_slice keys[] = {crab_slice_str("number:10"), crab_slice_str("number:11"), crab_slice_str("number:-1")};
    long digits = 0;
    enum crab_status status = crab_conn_get_many(conn, keys, 3, add, &digits);
    //! [many]
    printf("sum of digits: %ld\n", digits);
    return status;
}

int main(int argc, char **argv)
{
    struct crab_conn *conn;
    struct crab_failure failure;
    if (argc != 3)
        return 2;
    //! [open]
    struct crab_conn_options options = {.host = argv[1], .port = (uint16_t)atoi(argv[2]), .timeout_ms = 5000};
    if (crab_conn_open(&options, &conn, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    //! [open]
    enum crab_status status = store(conn);
    if (status == CRAB_OK)
        status = quiet(conn);
    if (status == CRAB_OK)
        status = read_back(conn);
    if (status != CRAB_OK)
        fprintf(stderr, "%s: %s\n", crab_status_text(status), crab_conn_error_text(conn));
    crab_conn_close(conn);
    return status == CRAB_OK ? 0 : 1;
}
