/* SPDX-License-Identifier: MIT */
/*
 * Whose bytes are whose: borrowed slices, copies, values that are used again, and an allocator of one's own, which shows that
 * requests allocate nothing once the buffers have grown.
 *
 *     cc ownership.c $(pkg-config --cflags --libs crabcache) -o ownership && ./ownership 127.0.0.1 2722
 */
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//! [allocator]
/* As realloc(), but 0 bytes free. It counts what it is asked for. */
static void *counted(void *context, void *memory, size_t bytes)
{
    size_t *calls = context;
    ++*calls;
    if (bytes == 0) {
        free(memory);
        return NULL;
    }
    return realloc(memory, bytes);
}
//! [allocator]

static enum crab_status borrow_and_copy(struct crab_conn *conn)
{
    //! [borrow]
    struct crab_slice borrowed;
    struct crab_value copy = {0};
    enum crab_status status = crab_conn_get(conn, "poem", 4, &borrowed);
    if (status == CRAB_OK)
        status = crab_value_set(&copy, borrowed.data, borrowed.len);
    if (status == CRAB_OK)
        status = crab_conn_ping(conn); /* from here on `borrowed` points to bytes that may be others, `copy` does not */
    if (status == CRAB_OK)
        printf("%.*s\n", (int)copy.len, (const char *)copy.data);
    crab_value_fini(&copy);
    //! [borrow]
    return status;
}

static enum crab_status read_again(struct crab_conn *conn, unsigned rounds)
{
    struct crab_slice value;
    enum crab_status status = CRAB_OK;
    for (unsigned i = 0; status == CRAB_OK && i < rounds; i++)
        status = crab_conn_get(conn, "poem", 4, &value);
    return status;
}

static enum crab_status use(struct crab_conn *conn, const size_t *calls)
{
    static const char poem[] = "the tide takes what nobody holds";
    enum crab_status status = crab_conn_put(conn, "poem", 4, poem, strlen(poem), NULL, NULL);
    if (status == CRAB_OK)
        status = borrow_and_copy(conn);
    //! [steady]
    if (status == CRAB_OK)
        status = read_again(conn, 10);
    size_t before = *calls;
    if (status == CRAB_OK)
        status = read_again(conn, 1000);
    printf("allocations of 1000 reads: %zu\n", *calls - before);
    //! [steady]
    return status;
}

int main(int argc, char **argv)
{
    struct crab_conn *conn;
    struct crab_failure failure;
    if (argc != 3)
        return 2;
    //! [options]
    size_t calls = 0;
    struct crab_allocator allocator = {.resize = counted, .context = &calls};
    struct crab_conn_options options = {
        .host = argv[1], .port = (uint16_t)atoi(argv[2]), .timeout_ms = 5000, .allocator = &allocator,
    };
    //! [options]
    if (crab_conn_open(&options, &conn, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    enum crab_status status = use(conn, &calls);
    if (status != CRAB_OK)
        fprintf(stderr, "%s: %s\n", crab_status_text(status), crab_conn_error_text(conn));
    crab_conn_close(conn);
    return status == CRAB_OK ? 0 : 1;
}
