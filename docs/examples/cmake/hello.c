/* SPDX-License-Identifier: MIT */
/* Stores a value and reads it back. */
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct crab_conn *conn;
    struct crab_failure failure;
    struct crab_slice value;
    if (argc != 3)
        return 2;
    struct crab_conn_options options = {.host = argv[1], .port = (uint16_t)atoi(argv[2]), .timeout_ms = 2000};
    if (crab_conn_open(&options, &conn, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    enum crab_status status = crab_conn_put(conn, "hello", 5, "from C", 6, NULL, NULL);
    if (status == CRAB_OK)
        status = crab_conn_get(conn, "hello", 5, &value);
    if (status == CRAB_OK)
        printf("hello %.*s\n", (int)value.len, (const char *)value.data);
    else
        fprintf(stderr, "%s\n", crab_conn_error_text(conn));
    crab_conn_close(conn);
    return status == CRAB_OK ? 0 : 1;
}
