/* SPDX-License-Identifier: MIT */
/*
 * The C client under the conformance kit: a shim that does what the lines on its standard input say, with crab_conn, and
 * answers on its standard output.  python/crabcache/conformance/README.md describes the lines.
 *
 *     crabcache-conformance --client ./conformance_client
 */
#include <crabcache/crabcache.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORDS 16
#define MAX_QUIET 4096

/* The connection, how to open it again, and the tags of the quiet requests since the last barrier. */
struct shim {
    struct crab_conn *conn;
    char host[64];
    struct crab_conn_options options;
    char user[256];
    uint8_t secret[1024];
    uint32_t quiet[MAX_QUIET];
    size_t quiet_count;
    bool goaway;
};

/* A command with its words, which point into `line`; hexadecimal ones are decoded where they stand. */
struct command {
    char *line;
    size_t capacity;
    char *words[MAX_WORDS];
    size_t count;
};

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode a word in place; "-" is no bytes. */
static struct crab_slice unhex(char *word)
{
    uint8_t *bytes = (uint8_t *)word;
    size_t len = 0;
    if (strcmp(word, "-") == 0)
        return (struct crab_slice){bytes, 0};
    for (size_t i = 0; digit(word[i]) >= 0 && digit(word[i + 1]) >= 0; i += 2)
        bytes[len++] = (uint8_t)(digit(word[i]) << 4 | digit(word[i + 1]));
    return (struct crab_slice){bytes, len};
}

static void print_hex(struct crab_slice bytes)
{
    static const char digits[] = "0123456789abcdef";
    if (bytes.len == 0)
        putchar('-');
    for (size_t i = 0; i < bytes.len; i++) {
        putchar(digits[bytes.data[i] >> 4]);
        putchar(digits[bytes.data[i] & 15]);
    }
}

static bool read_command(struct command *command)
{
    if (getline(&command->line, &command->capacity, stdin) < 0)
        return false;
    command->count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(command->line, " \n", &rest); word != NULL && command->count < MAX_WORDS;
         word = strtok_r(NULL, " \n", &rest))
        command->words[command->count++] = word;
    return command->count != 0;
}

/* The value of an option `name=value`, "" for `name` alone, NULL if it is not there. */
static char *option(const struct command *command, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 1; i < command->count; i++) {
        char *word = command->words[i];
        if (strncmp(word, name, len) == 0 && (word[len] == '=' || word[len] == '\0'))
            return word[len] == '=' ? word + len + 1 : word + len;
    }
    return NULL;
}

static uint64_t number(const char *word)
{
    return strcmp(word, "never") == 0 ? CRAB_TTL_NEVER : strtoull(word, NULL, 10);
}

/* ---- what came of a request */

static void print_error(uint16_t code)
{
    int class = crab_error_class(code);
    printf("failed %s %04x\n",
           class == CRAB_CLASS_RETRY ? "retry" : class == CRAB_CLASS_PERMANENT ? "permanent" : "unknown", code);
}

/* A request that got no reply. */
static void print_failure(const struct shim *shim, enum crab_status status)
{
    if (status == CRAB_E_INVALID)
        puts("refused");
    else
        puts(shim->conn != NULL && crab_conn_outcome_unknown(shim->conn) != 0 ? "failed unknown" : "failed retry");
}

static void print_result(const struct crab_result *result)
{
    if (result->status == CRAB_E_SERVER) {
        print_error(result->error);
        return;
    }
    switch (result->reply) {
    case CRAB_REP_OK:
    case CRAB_REP_PONG: puts("ok"); return;
    case CRAB_REP_NULL: puts("miss"); return;
    case CRAB_REP_STORED: printf("stored %" PRIu64 "\n", result->version); return;
    case CRAB_REP_EXISTS: printf("exists %" PRIu64 "\n", result->version); return;
    case CRAB_REP_NUMBER: printf("number %" PRId64 "\n", result->number); return;
    case CRAB_REP_META:
        printf("meta %" PRIu64 " ", result->version);
        if (result->ttl_ms == CRAB_TTL_NEVER)
            printf("never %" PRIu32 " ", result->app_flags);
        else
            printf("%" PRIu64 " %" PRIu32 " ", result->ttl_ms, result->app_flags);
        break;
    case CRAB_REP_VALUE: printf("value "); break;
    case CRAB_REP_STATS: printf("text "); break;
    default: puts("failed unknown"); return;
    }
    print_hex(result->value);
    putchar('\n');
}

/* ---- the connection */

static void close_conn(struct shim *shim)
{
    crab_conn_close(shim->conn);
    shim->conn = NULL;
}

static enum crab_status open_conn(struct shim *shim)
{
    struct crab_failure failure = {0};
    close_conn(shim);
    enum crab_status status = crab_conn_open(&shim->options, &shim->conn, &failure);
    if (status == CRAB_E_SERVER)
        print_error(failure.error);
    else if (status != CRAB_OK)
        puts(status == CRAB_E_REFUSED || status == CRAB_E_RESOLVE ? "failed retry" : "failed unknown");
    return status;
}

/* A connection that is broken, or is about to be closed by the server, is not used for new requests. */
static bool usable(struct shim *shim)
{
    if (shim->conn != NULL && crab_conn_state(shim->conn) == CRAB_OK && !crab_conn_goaway(shim->conn, NULL))
        return true;
    return open_conn(shim) == CRAB_OK;
}

static void do_open(struct shim *shim, struct command *command)
{
    char *user = option(command, "user"), *secret = option(command, "secret");
    (void)snprintf(shim->host, sizeof shim->host, "%s", command->words[1]);
    shim->options = (struct crab_conn_options){
        .host = shim->host,
        .port = (uint16_t)number(command->words[2]),
        .timeout_ms = (uint32_t)number(command->words[3]),
        .check_tags = option(command, "tags") != NULL,
    };
    if (user != NULL && secret != NULL) {
        struct crab_slice name = unhex(user), word = unhex(secret);
        (void)snprintf(shim->user, sizeof shim->user, "%.*s", (int)name.len, (const char *)name.data);
        memcpy(shim->secret, word.data, word.len < sizeof shim->secret ? word.len : sizeof shim->secret);
        shim->options.user = shim->user;
        shim->options.secret = shim->secret;
        shim->options.secret_len = word.len;
    }
    if (open_conn(shim) == CRAB_OK)
        puts("ok");
}

/* ---- requests */

static void parse_put(const struct command *command, union crab_request *request)
{
    char *ttl = option(command, "ttl"), *flags = option(command, "flags"), *version = option(command, "version");
    request->put.op = CRAB_OP_PUT;
    request->put.value = unhex(command->words[2]);
    request->put.flags |= (option(command, "absent") != NULL ? CRAB_PUT_IF_ABSENT : 0) |
                          (option(command, "present") != NULL ? CRAB_PUT_IF_PRESENT : 0) |
                          (option(command, "want") != NULL ? CRAB_PUT_WANT_VERSION : 0) |
                          (version != NULL ? CRAB_PUT_IF_VERSION : 0) | (ttl != NULL ? CRAB_PUT_TTL : 0) |
                          (flags != NULL ? CRAB_PUT_APP_FLAGS : 0);
    request->put.ttl_ms = ttl != NULL ? number(ttl) : 0;
    request->put.app_flags = flags != NULL ? (uint32_t)number(flags) : 0;
    request->put.version = version != NULL ? number(version) : 0;
}

static void parse_incr(const struct command *command, union crab_request *request, uint8_t op)
{
    char *ttl = option(command, "ttl"), *initial = option(command, "initial");
    request->incr.op = op;
    request->incr.delta = number(command->words[2]);
    request->incr.flags |= (ttl != NULL ? CRAB_INCR_TTL : 0) | (initial != NULL ? CRAB_INCR_INITIAL : 0);
    request->incr.ttl_ms = ttl != NULL ? number(ttl) : 0;
    request->incr.initial = initial != NULL ? strtoll(initial, NULL, 10) : 0;
}

/* The request that a command asks for; false if there is no such command. */
static bool parse(const struct command *command, union crab_request *request)
{
    const char *name = command->words[0];
    *request = (union crab_request){0};
    struct crab_req_head *head = &request->head;
    if (strcmp(name, "ping") == 0 || strcmp(name, "flush") == 0 || strcmp(name, "stats") == 0) {
        head->op = name[0] == 'p' ? CRAB_OP_PING : name[0] == 'f' ? CRAB_OP_FLUSH : CRAB_OP_STATS;
        if (command->count > 1)
            head->key = (struct crab_slice){(const uint8_t *)command->words[1], strlen(command->words[1])};
        return true;
    }
    if (command->count < 2)
        return false;
    head->key = unhex(command->words[1]);
    if (strcmp(name, "put") == 0)
        parse_put(command, request);
    else if (strcmp(name, "incr") == 0 || strcmp(name, "decr") == 0)
        parse_incr(command, request, name[0] == 'i' ? CRAB_OP_INCR : CRAB_OP_DECR);
    else if (strcmp(name, "expire") == 0)
        request->expire = (struct crab_req_expire){.op = CRAB_OP_EXPIRE, .key = head->key, .ttl_ms = number(command->words[2])};
    else if (strcmp(name, "touch") == 0)
        request->get = (struct crab_req_get){
            .op = CRAB_OP_GET, .flags = CRAB_GET_TTL, .key = head->key, .ttl_ms = number(command->words[2])};
    else if (strcmp(name, "get") == 0 || strcmp(name, "meta") == 0)
        request->get = (struct crab_req_get){
            .op = CRAB_OP_GET, .flags = name[0] == 'm' ? CRAB_GET_META : 0, .key = head->key};
    else if (strcmp(name, "del") == 0)
        head->op = CRAB_OP_DEL;
    else
        return false;
    return true;
}

/* Take the next reply and print it; false if there is none left, or none will come. */
static bool take_reply(struct shim *shim)
{
    struct crab_result result;
    if (crab_conn_next_reply(shim->conn, &result) != CRAB_OK)
        return false;
    print_result(&result);
    return true;
}

/* `count` requests from as many lines, and as many answers. */
static void do_requests(struct shim *shim, struct command *command, size_t count, bool read_first)
{
    size_t answered = 0, queued = 0;
    enum crab_status status = CRAB_OK;
    bool connected = true;
    for (size_t i = 0; i < count; i++) {
        union crab_request request;
        if ((read_first && !read_command(command)) || !parse(command, &request)) {
            status = CRAB_E_INVALID;
            continue;
        }
        if (i == 0)
            connected = usable(shim); /* which has answered the first request if it failed */
        if (!connected || status != CRAB_OK)
            continue;
        while ((status = crab_conn_queue(shim->conn, &request, NULL)) == CRAB_E_FULL && take_reply(shim))
            answered++;
        queued += status == CRAB_OK;
    }
    if (!connected) {
        for (answered = 1; answered < count; answered++)
            puts("failed retry");
        return;
    }
    while (answered < queued && take_reply(shim))
        answered++;
    for (; answered < count; answered++)
        print_failure(shim, status != CRAB_OK ? status : crab_conn_state(shim->conn));
}

/* ---- quiet requests */

static bool settle(struct shim *shim)
{
    struct crab_result result;
    return crab_conn_queue_ping(shim->conn) == CRAB_OK && crab_conn_next_reply(shim->conn, &result) == CRAB_OK &&
           result.reply == CRAB_REP_PONG;
}

static void do_quiet(struct shim *shim, struct command *command)
{
    union crab_request request;
    struct command inner = {.count = command->count - 1};
    memcpy(inner.words, command->words + 1, inner.count * sizeof inner.words[0]);
    if (shim->quiet_count == MAX_QUIET || !parse(&inner, &request) || !usable(shim)) {
        puts("refused");
        return;
    }
    uint32_t *tag = &shim->quiet[shim->quiet_count];
    request.head.flags |= CRAB_FLAG_QUIET;
    enum crab_status status = crab_conn_queue(shim->conn, &request, tag);
    if (status == CRAB_E_FULL && settle(shim)) /* the last place is kept for a ping */
        status = crab_conn_queue(shim->conn, &request, tag);
    if (status == CRAB_OK) {
        shim->quiet_count++;
        puts("ok");
    } else {
        print_failure(shim, status);
    }
}

static void do_barrier(struct shim *shim)
{
    struct crab_late_error late;
    if (shim->conn == NULL || !settle(shim)) {
        puts("failed unknown");
        return;
    }
    bool any = false;
    while (crab_conn_late_error(shim->conn, &late) == CRAB_OK) {
        for (size_t i = 0; i < shim->quiet_count; i++) {
            if (shim->quiet[i] == late.tag) {
                printf("%s %zu:%04x", any ? "" : "late", i, late.code);
                any = true;
            }
        }
    }
    puts(any ? "" : "ok");
    shim->quiet_count = 0;
}

int main(void)
{
    static struct shim shim;
    struct command command = {0};
    while (read_command(&command)) {
        const char *name = command.words[0];
        if (strcmp(name, "open") == 0 && command.count >= 4) {
            do_open(&shim, &command);
        } else if (strcmp(name, "close") == 0) {
            close_conn(&shim);
            puts("ok");
        } else if (strcmp(name, "quiet") == 0 && command.count >= 2) {
            do_quiet(&shim, &command);
        } else if (strcmp(name, "barrier") == 0) {
            do_barrier(&shim);
        } else if (strcmp(name, "pipeline") == 0 && command.count >= 2) {
            do_requests(&shim, &command, (size_t)number(command.words[1]), true);
        } else {
            do_requests(&shim, &command, 1, false);
        }
        (void)fflush(stdout);
    }
    close_conn(&shim);
    free(command.line);
    return 0;
}
