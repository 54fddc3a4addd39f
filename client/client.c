/* SPDX-License-Identifier: MIT */
/*
 * The handle that threads share: how it is made of a URI and options, how it notices that it is in a child, which channel a
 * request takes, and when a request is repeated.
 */
#include "client/handle.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_URI "crab://127.0.0.1"
#define DEFAULT_TIMEOUT_MS 5000U
#define DEFAULT_CONNECT_TIMEOUT_MS 2000U
#define DEFAULT_IN_FLIGHT 1024U
/* Pauses before a request is repeated: doubled each time, a random half taken off. */
#define RETRY_LEAST_MS 10U
#define RETRY_MOST_MS 1000U
#define NS_PER_MS 1000000U

/* ---- forks */

static bool mark_as_mine(struct crab_client *client)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    client->mine = page;
    client->mine[0] = 1;
    client->pid = madvise(page, size, MADV_WIPEONFORK) == 0 ? 0 : getpid();
    return true;
}

bool client_is_forked(const struct crab_client *client)
{
    return client->mine[0] == 0 || (client->pid != 0 && client->pid != getpid());
}

/* ---- picking */

struct channel *client_channel(const struct crab_client *client, size_t server)
{
    uint64_t thread = (uint64_t)(uintptr_t)pthread_self() * 0x9e3779b97f4a7c15U;
    return &client->servers[server].channels[(thread >> 32) % client->connections];
}

static uint64_t servers_out(struct crab_client *client)
{
    uint64_t out = 0;
    for (size_t i = 0; i < client->server_count; i++)
        if (circuit_is_out(&client->servers[i].circuit))
            out |= (uint64_t)1 << i;
    return out;
}

size_t client_pick(struct crab_client *client, struct crab_slice key)
{
    if (client->server_count == 1 || key.len == 0)
        return 0;
    return ring_find(&client->ring, key.data, key.len, client->eject ? servers_out(client) : 0);
}

/* ---- calls */

enum crab_status client_fail(const struct crab_call_options *options, enum crab_status status, const char *text)
{
    if (options != NULL && options->failure != NULL)
        (void)net_fail(options->failure, status, 0, "%s", text);
    return status;
}

struct net_deadline client_deadline(const struct crab_client *client, uint32_t timeout_ms)
{
    return (struct net_deadline){.timeout_ms = timeout_ms != 0 ? timeout_ms : client->config.timeout_ms};
}

/* By the specification: what has the same effect when it is executed twice. */
static bool is_idempotent(const union crab_request *request)
{
    switch (request->head.op) {
    case CRAB_OP_PUT:
        return (request->head.flags & CRAB_PUT_COND_MASK) == 0;
    case CRAB_OP_PING:
    case CRAB_OP_GET:
    case CRAB_OP_EXPIRE:
    case CRAB_OP_STATS:
    case CRAB_OP_FLUSH:
        return true;
    default:
        return false;
    }
}

static bool may_repeat(const union crab_request *request, const struct call *call)
{
    switch (call->result.status) {
    case CRAB_E_RESOLVE:
    case CRAB_E_REFUSED:
    case CRAB_E_TIMEOUT:
    case CRAB_E_CLOSED:
    case CRAB_E_SYSTEM:
    case CRAB_E_DOWN:
    case CRAB_E_OUTCOME_UNKNOWN:
        return call->not_executed || is_idempotent(request);
    case CRAB_E_SERVER:
        return call->not_executed;
    default:
        return false;
    }
}

/* Sleep before attempt `attempt` + 1, which only another server can answer at once. @return false: there is no time for that */
static bool pause_before_retry(const struct crab_client *client, size_t server, uint32_t attempt,
                               struct net_deadline *deadline)
{
    uint64_t now = net_now_ns();
    uint32_t pause_ms = attempt < 8 && RETRY_LEAST_MS << attempt < RETRY_MOST_MS ? RETRY_LEAST_MS << attempt : RETRY_MOST_MS;
    pause_ms -= (uint32_t)((now >> 10) * 0x9e3779b1U % (pause_ms / 2 + 1));
    struct circuit_view view = circuit_look(&client->servers[server].circuit, now);
    if (view.retry_in_ms > pause_ms && (!client->eject || client->server_count == 1))
        pause_ms = view.retry_in_ms;
    uint64_t end_ns = now + (uint64_t)pause_ms * NS_PER_MS;
    uint64_t latest_ns = net_deadline_end(deadline);
    if (latest_ns != 0 && end_ns >= latest_ns)
        return false;
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000U), .tv_nsec = (long)(end_ns % 1000000000U)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR)
        ;
    return true;
}

enum crab_status client_perform(struct crab_client *client, const union crab_request *request, size_t server,
                                struct crab_value *value, const struct crab_call_options *options,
                                struct net_deadline *deadline, struct crab_result *result)
{
    uint32_t retries = options != NULL && options->retries != 0 ? options->retries : client->retries;
    for (uint32_t attempt = 0;; attempt++) {
        struct call call = {.value = value, .failure = options != NULL ? options->failure : NULL};
        size_t chosen = server != CLIENT_BY_KEY ? server : client_pick(client, request->head.key);
        enum crab_status status = channel_call(client_channel(client, chosen), request, &call, deadline);
        if (attempt >= retries || !may_repeat(request, &call) ||
            !pause_before_retry(client, chosen, attempt, deadline)) {
            *result = call.result;
            return status;
        }
    }
}

/* ---- life */

static char *copy_string(char **at, const char *string)
{
    if (string == NULL)
        return NULL;
    char *copy = *at;
    size_t size = strlen(string) + 1;
    memcpy(copy, string, size);
    *at += size;
    return copy;
}

static size_t string_size(const char *string)
{
    return string != NULL ? strlen(string) + 1 : 0;
}

static uint32_t first_of(uint32_t given, uint32_t option, uint32_t standard)
{
    if (given != 0)
        return given;
    return option != 0 ? option : standard;
}

static uint32_t power_of_two(uint32_t least)
{
    uint32_t power = 1;
    while (power < least)
        power *= 2;
    return power;
}

/* Options and URI, the latter counting more. @return NULL, or what is wrong */
static const char *configure(struct crab_client *client, const struct crab_client_options *options)
{
    const struct uri *uri = client->uri;
    struct channel_config *config = &client->config;
    char *at = client->strings;
    const char *user = copy_string(&at, options->user);
    const char *secret_file = copy_string(&at, options->secret_file);
    const char *client_name = copy_string(&at, options->client_name);
    *config = (struct channel_config){
        .allocator = client->allocator,
        .log = options->log,
        .log_context = options->log_context,
        .credentials = options->credentials,
        .credentials_context = options->credentials_context,
        .user = uri->user != NULL ? uri->user : user,
        .secret_file = uri->secret_file != NULL ? uri->secret_file : secret_file,
        .client_name = uri->client_name != NULL ? uri->client_name : client_name,
        .timeout_ms = first_of(uri->timeout_ms, options->timeout_ms, DEFAULT_TIMEOUT_MS),
        .connect_timeout_ms =
            first_of(uri->connect_timeout_ms, options->connect_timeout_ms, DEFAULT_CONNECT_TIMEOUT_MS),
        .max_in_flight = first_of(uri->max_in_flight, options->max_in_flight, DEFAULT_IN_FLIGHT),
        .max_reply = options->max_reply,
        .check_tags = uri_gives(uri, URI_TAGS) ? uri->tags : options->check_tags,
    };
    client->connections = first_of(uri->connections, options->connections, 1);
    client->retries = uri_gives(uri, URI_RETRIES) ? uri->retries : options->retries;
    client->eject = uri_gives(uri, URI_EJECT) ? uri->eject : options->eject;
    if (config->connect_timeout_ms > INT32_MAX)
        config->connect_timeout_ms = INT32_MAX;
    if (config->user != NULL && (config->user[0] == '\0' || strlen(config->user) > CRAB_MAX_USER))
        return "the user name does not have 1 to 255 bytes";
    if (config->client_name != NULL && strlen(config->client_name) > CRAB_MAX_CLIENT_NAME)
        return "the client name has more than 255 bytes";
    if (client->connections > CRAB_MAX_CONNECTIONS)
        return "more than 16 connections to a server";
    if (config->max_in_flight > CRAB_MAX_IN_FLIGHT)
        return "max_in_flight is more than 65,536";
    if (options->distribution != CRAB_KETAMA && options->distribution != CRAB_RENDEZVOUS)
        return "unknown distribution";
    config->max_in_flight = power_of_two(config->max_in_flight);
    return NULL;
}

static void *allocate(const struct crab_client *client, size_t bytes)
{
    void *memory = client->allocator.resize(client->allocator.context, NULL, bytes);
    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

static void release(const struct crab_client *client, void *memory)
{
    if (memory != NULL)
        (void)client->allocator.resize(client->allocator.context, memory, 0);
}

/* The name for people: an IPv6 address gets its brackets back. */
static char *make_name(const struct crab_client *client, const struct uri_server *from)
{
    size_t size = strlen(from->host) + sizeof "[]:65535";
    char *name = allocate(client, size);
    if (name == NULL)
        return NULL;
    if (from->port == 0)
        (void)snprintf(name, size, "%s", from->host);
    else
        (void)snprintf(name, size, strchr(from->host, ':') != NULL ? "[%s]:%u" : "%s:%u", from->host,
                       (unsigned)from->port);
    return name;
}

static bool make_server(struct crab_client *client, struct server *server, const struct uri_server *from)
{
    uint64_t seed = net_now_ns() ^ (uint64_t)(uintptr_t)server * 0x9e3779b97f4a7c15U;
    if (!circuit_init(&server->circuit, seed))
        return false;
    server->weight = from->weight;
    server->name = make_name(client, from);
    server->channels = allocate(client, client->connections * sizeof *server->channels);
    if (server->name == NULL || server->channels == NULL)
        return false;
    net_target_init(&server->target, from->host, from->port, server->name);
    for (; server->ready < client->connections; server->ready++)
        if (!channel_init(&server->channels[server->ready], &client->config, &server->circuit, &server->target))
            return false;
    return true;
}

static bool make_servers(struct crab_client *client)
{
    client->servers = allocate(client, client->uri->count * sizeof *client->servers);
    if (client->servers == NULL)
        return false;
    client->server_count = client->uri->count;
    for (size_t i = 0; i < client->server_count; i++)
        if (!make_server(client, &client->servers[i], &client->uri->servers[i]))
            return false;
    return true;
}

static enum crab_status build(struct crab_client *client, const char *text, const struct crab_client_options *options,
                              struct crab_failure *failure)
{
    char why[CRAB_FAILURE_TEXT];
    client->uri = allocate(client, sizeof *client->uri);
    client->strings = allocate(client, 1 + string_size(options->user) + string_size(options->secret_file) +
                                           string_size(options->client_name));
    if (client->uri == NULL || client->strings == NULL)
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory for a client");
    if (!uri_parse(text, client->uri, why, sizeof why))
        return net_fail(failure, CRAB_E_INVALID, 0, "%s", why);
    const char *wrong = configure(client, options);
    if (wrong != NULL)
        return net_fail(failure, CRAB_E_INVALID, 0, "%s", wrong);
    enum crab_distribution distribution =
        uri_gives(client->uri, URI_DISTRIBUTION) ? client->uri->distribution : options->distribution;
    if (!make_servers(client) || !ring_init(&client->ring, client->uri, distribution, &client->allocator))
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory for a client");
    if (!mark_as_mine(client))
        return net_fail(failure, CRAB_E_SYSTEM, errno, "no page to notice forks by");
    return CRAB_OK;
}

enum crab_status crab_client_open(const char *uri, const struct crab_client_options *options,
                                  struct crab_client **client, struct crab_failure *failure)
{
    static const struct crab_client_options defaults = {0};
    struct crab_failure unwanted;
    if (failure == NULL)
        failure = &unwanted;
    if (options == NULL)
        options = &defaults;
    struct crab_allocator allocator = {.resize = value_resize_by_libc};
    if (options->allocator != NULL)
        allocator = *options->allocator;
    struct crab_client *made = allocator.resize(allocator.context, NULL, sizeof *made);
    if (made == NULL)
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory for a client");
    *made = (struct crab_client){.allocator = allocator,
                                  .tickets.lock = PTHREAD_MUTEX_INITIALIZER,
                                  .flights.lock = PTHREAD_MUTEX_INITIALIZER};
    enum crab_status status = build(made, uri != NULL ? uri : DEFAULT_URI, options, failure);
    if (status == CRAB_OK)
        *client = made;
    else
        crab_client_close(made);
    return status;
}

static void end_server(struct crab_client *client, struct server *server)
{
    for (uint32_t i = 0; i < server->ready; i++)
        channel_fini(&server->channels[i]);
    net_target_fini(&server->target);
    release(client, server->channels);
    release(client, server->name);
}

/* In a child: no thread of the parent is here to finish what it was at, so what it may have been changing stays as it is. */
static void let_go(struct crab_client *client)
{
    for (size_t i = 0; i < client->server_count; i++)
        for (uint32_t j = 0; j < client->servers[i].ready; j++)
            channel_let_go(&client->servers[i].channels[j]);
}

void crab_client_close(struct crab_client *client)
{
    if (client == NULL)
        return;
    if (client->mine != NULL && client_is_forked(client)) {
        let_go(client);
        return;
    }
    for (size_t i = 0; i < client->server_count; i++)
        end_server(client, &client->servers[i]);
    release(client, client->servers);
    tickets_fini(client);
    ring_fini(&client->ring, &client->allocator);
    release(client, client->strings);
    release(client, client->uri);
    if (client->mine != NULL)
        (void)munmap((void *)(uintptr_t)client->mine, (size_t)sysconf(_SC_PAGESIZE));
    release(client, client);
}
