/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the way of replies through a connection: whatever a hostile server sends, in whatever pieces.
 *
 * An input is a head of HEAD bytes (see read_head()) and a stream, which a socket pair brings in pieces.  Checked: what is
 * given out lies in memory that may be read; each request ends once; a broken connection stays broken; no memory is left.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/internal.h"
#include "tests/fuzz/check.h"

#define REQUESTS 8U
#define HEAD (3U + REQUESTS)

struct memory {
    struct crab_allocator allocator;
    size_t blocks;
};

struct run {
    struct memory memory;
    struct crab_conn *conn;
    int server;
    unsigned queued;
    unsigned ended;
    uint64_t sum; /* of all bytes that were given out: reading them is what finds bad slices */
    bool events, tags, into, hello, small;
    size_t piece;
};

static void *resize(void *context, void *block, size_t bytes)
{
    struct memory *memory = context;
    if (bytes == 0) {
        memory->blocks -= block != NULL;
        free(block);
        return NULL;
    }
    void *grown = realloc(block, bytes);
    memory->blocks += block == NULL && grown != NULL;
    return grown;
}

static void touch(struct run *run, struct crab_slice slice)
{
    for (size_t i = 0; i < slice.len && slice.data != NULL; i++)
        run->sum += slice.data[i];
}

static void pour(void *context, const struct crab_result *head, size_t offset, struct crab_slice piece)
{
    CHECK(piece.len != 0 && offset <= head->value.len && piece.len <= head->value.len - offset);
    touch(context, piece);
}

static void done(struct crab_conn *conn, const struct crab_result *result, void *context)
{
    struct run *run = context;
    (void)conn;
    run->ended++;
    touch(run, result->value);
}

static void queue(struct run *run, uint8_t choice)
{
    struct crab_conn *c = run->conn;
    struct crab_put_options options = {.want_version = (choice & 0x10) != 0,
                                       .condition = (enum crab_put_condition)(choice >> 6),
                                       .version = 5};
    enum crab_status status = CRAB_E_INVALID;
    switch (choice % 8) {
    case 0:
        status = crab_conn_queue_get(c, "k", 1);
        break;
    case 1:
        status = crab_conn_queue_get_meta(c, "k", 1, 0);
        break;
    case 2:
        status = crab_conn_queue_put(c, "k", 1, "v", 1, &options);
        break;
    case 3:
        status = crab_conn_queue_incr(c, "k", 1, 1, NULL);
        break;
    case 4:
        status = crab_conn_queue_stats(c, NULL);
        break;
    case 5:
        status = crab_conn_queue_ping(c);
        break;
    case 6:
        status = crab_conn_queue_del(c, "k", 1);
        break;
    default:
        status = crab_conn_quiet_del(c, "k", 1, NULL); /* refused without PUSH */
        CHECK((status == CRAB_OK) == run->hello || status == CRAB_E_FULL);
        return;
    }
    if (status != CRAB_OK)
        return;
    run->queued++;
    if (run->into && choice % 8 < 2)
        CHECK(crab_conn_into(c, pour, run) == CRAB_OK);
    if (run->events)
        CHECK(crab_conn_then(c, done, run) == CRAB_OK);
}

static void open_run(struct run *run, const uint8_t *head)
{
    int ends[2];
    run->tags = (head[0] & 1) != 0;
    run->events = (head[0] & 2) != 0;
    run->into = (head[0] & 4) != 0;
    run->hello = (head[0] & 8) != 0;
    run->small = (head[0] & 16) != 0;
    run->piece = head[1] != 0 ? head[1] : 100000;
    run->memory.allocator = (struct crab_allocator){.resize = resize, .context = &run->memory};
    struct crab_conn_options options = {.allocator = &run->memory.allocator,
                                        .check_tags = run->tags,
                                        .no_hello = true,
                                        .timeout_ms = CRAB_NO_TIMEOUT,
                                        .max_reply = run->small ? 64 : 0,
                                        .max_buffered = run->small ? 32 : 0};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    run->conn = conn_make(&options);
    CHECK(run->conn != NULL);
    run->conn->fd = ends[0];
    run->server = ends[1];
    if (run->hello) { /* as after a WELCOME with PUSH */
        run->conn->welcomed = true;
        run->conn->info.features = CRAB_FEATURE_PUSH;
    }
    if (run->events)
        CHECK(crab_conn_use_events(run->conn) == CRAB_OK);
    for (unsigned i = 0; i <= head[2] % REQUESTS; i++)
        queue(run, head[3 + i]);
}

static void feed(struct run *run, const uint8_t *data, size_t len)
{
    while (len != 0) {
        size_t step = len < run->piece ? len : run->piece;
        if (send(run->server, data, step, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)step)
            return;
        data += step;
        len -= step;
        if (run->events)
            (void)crab_conn_process(run->conn, CRAB_EVENT_READ | CRAB_EVENT_WRITE);
    }
}

static void take_all(struct run *run)
{
    struct crab_result result;
    struct crab_late_error late;
    if (run->events) {
        for (unsigned i = 0; i < 64 && crab_conn_state(run->conn) == CRAB_OK; i++)
            (void)crab_conn_process(run->conn, CRAB_EVENT_READ | CRAB_EVENT_WRITE);
    } else {
        while (crab_conn_next_reply(run->conn, &result) == CRAB_OK) {
            run->ended++;
            touch(run, result.value);
        }
        CHECK(run->ended <= run->queued);
    }
    while (crab_conn_late_error(run->conn, &late) == CRAB_OK)
        run->sum += strlen(late.text);
    run->sum += strlen(crab_conn_error_text(run->conn)) + crab_conn_outcome_unknown(run->conn);
    if (crab_conn_state(run->conn) != CRAB_OK) {
        CHECK(crab_conn_fd(run->conn) == -1);
        CHECK(crab_conn_queue_ping(run->conn) == CRAB_E_BROKEN);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct run run = {0};
    if (len < HEAD)
        return 0;
    open_run(&run, data);
    feed(&run, data + HEAD, len - HEAD);
    (void)shutdown(run.server, SHUT_WR);
    take_all(&run);
    crab_conn_close(run.conn);
    (void)close(run.server);
    CHECK(!run.events || run.ended == run.queued);
    CHECK(run.memory.blocks == 0);
    return 0;
}
