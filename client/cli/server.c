/* SPDX-License-Identifier: MIT */
/*
 * The commands for the server as a whole: stats, flush, ping, hello.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/command.h"

/* Print text for people: control characters other than line ends must not reach a terminal. */
static void print_text(struct crab_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        (void)putchar(c == '\n' || (c >= 0x20 && c < 0x7f) ? c : '?');
    }
}

int command_stats(struct session *session, const struct arguments *arguments)
{
    char section[CRAB_MAX_SECTION + 1];
    struct crab_slice name = arguments->count != 0 ? arguments->words[0] : crab_slice_of(NULL, 0);
    if (arguments->count != 0 && (name.len == 0 || name.len > CRAB_MAX_SECTION)) {
        session_complain("stats: a section's name has 1 to %u bytes", (unsigned)CRAB_MAX_SECTION);
        return CLI_USAGE;
    }
    if (name.len != 0)
        memcpy(section, name.data, name.len);
    section[name.len] = '\0';
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    struct crab_slice text;
    enum crab_status status = crab_conn_stats(session->conn, name.len != 0 ? section : NULL, &text);
    if (status != CRAB_OK)
        return session_failed(session, status);
    print_text(text);
    return output_done();
}

/* A command whose only answer is that it was done. */
static int simple(struct session *session, enum crab_status (*call)(struct crab_conn *), const char *answer)
{
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    enum crab_status status = call(session->conn);
    if (status != CRAB_OK)
        return session_failed(session, status);
    (void)puts(answer);
    return output_done();
}

int command_flush(struct session *session, const struct arguments *arguments)
{
    (void)arguments;
    return simple(session, crab_conn_flush_all, "OK");
}

int command_ping(struct session *session, const struct arguments *arguments)
{
    (void)arguments;
    return simple(session, crab_conn_ping, "PONG");
}

int command_hello(struct session *session, const struct arguments *arguments)
{
    (void)arguments;
    struct crab_server_info info;
    int connected = session_connect(session);
    if (connected != CLI_OK)
        return connected;
    if (crab_conn_server_info(session->conn, &info) != CRAB_OK)
        return session_failed(session, CRAB_E_PROTOCOL);
    (void)fputs("server: ", stdout);
    print_text(info.name);
    (void)printf("\nversion: %u\nfeatures:%s\nmax_key: %" PRIu32 "\nmax_value: %" PRIu32
                 "\nmax_in_flight: %" PRIu32 "\n",
                 (unsigned)info.version, (info.features & CRAB_FEATURE_PUSH) != 0 ? " PUSH" : "", info.max_key,
                 info.max_value, info.max_in_flight);
    return output_done();
}
