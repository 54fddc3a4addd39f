/* SPDX-License-Identifier: MIT */
/*
 * The HTTP server. A request is answered as soon as its head is there; a body is thrown away. Each answer to /metrics
 * is rendered into memory of its own, which libmicrohttpd frees when it was sent: at most METRICS_CONNECTIONS times
 * METRICS_TEXT_BYTES.
 *
 * The library is loaded only where metrics are wanted. It brings a dozen others along (for TLS, which is not used here),
 * whose memory and whose work at the start a cache without metrics need not bear.
 */
#include "server/metrics.h"

#include <dlfcn.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/listen.h"
#include "server/log.h"
#include "server/metrics_text.h"

#define STACK_BYTES ((size_t)256 << 10)
#define LIBRARY "libmicrohttpd.so.12"

/* What is used of the library, each by its name there. */
#define FOR_EACH_FUNCTION(X)                                                                                   \
    X(MHD_start_daemon)                                                                                        \
    X(MHD_stop_daemon)                                                                                         \
    X(MHD_create_response_from_buffer)                                                                         \
    X(MHD_add_response_header)                                                                                 \
    X(MHD_queue_response)                                                                                      \
    X(MHD_destroy_response)

struct library {
#define MEMBER(name) __typeof__(name) *(name);
    FOR_EACH_FUNCTION(MEMBER)
#undef MEMBER
};

struct metrics {
    struct metrics_config config;
    struct library http;
    struct MHD_Daemon *daemon;
};

/* ---------------------------------------------------------------------------------------------- library */

/* It stays loaded until the process ends. Returns NULL, or what is missing. */
static const char *load(struct library *http)
{
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return dlerror();
#define LOAD(name)                                                                                             \
    http->name = (__typeof__(name) *)dlsym(handle, #name);                                                     \
    if (http->name == NULL)                                                                                    \
        return LIBRARY " has no " #name;
    FOR_EACH_FUNCTION(LOAD)
#undef LOAD
    return NULL;
}

/* --------------------------------------------------------------------------------------------- answers */

/* Takes `body` over if it is to be freed. */
static enum MHD_Result answer(const struct library *http, struct MHD_Connection *connection, unsigned status,
                              const char *type, void *body, size_t len, enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *response = http->MHD_create_response_from_buffer(len, body, mode);
    if (response == NULL) {
        if (mode == MHD_RESPMEM_MUST_FREE)
            free(body);
        return MHD_NO;
    }
    bool good = http->MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
                http->MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") == MHD_YES;
    if (good && status == MHD_HTTP_METHOD_NOT_ALLOWED)
        good = http->MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES;
    enum MHD_Result result = good ? http->MHD_queue_response(connection, status, response) : MHD_NO;
    http->MHD_destroy_response(response);
    return result;
}

static enum MHD_Result say(const struct metrics *m, struct MHD_Connection *connection, unsigned status, char *sentence)
{
    return answer(&m->http, connection, status, "text/plain; charset=utf-8", sentence, strlen(sentence),
                  MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result answer_metrics(const struct metrics *m, struct MHD_Connection *connection)
{
    static char short_of[] = "memory is short\n";
    char *text = malloc(METRICS_TEXT_BYTES);
    if (text == NULL)
        return say(m, connection, MHD_HTTP_SERVICE_UNAVAILABLE, short_of);
    size_t len = metrics_render(m->config.stats, text);
    return answer(&m->http, connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, len,
                  MHD_RESPMEM_MUST_FREE);
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *body, size_t *body_len, void **state)
{
    static char ok[] = "ok\n";
    static char sick[] = "the server stops, or a worker is stuck\n";
    static char unknown[] = "there is /metrics and /healthz\n";
    static char only_get[] = "only GET and HEAD\n";
    const struct metrics *m = context;
    (void)version;
    (void)body;
    if (*state == NULL) { /* the head is there; now the library would take a body */
        *state = context;
        return MHD_YES;
    }
    if (*body_len != 0) {
        *body_len = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return say(m, connection, MHD_HTTP_METHOD_NOT_ALLOWED, only_get);
    if (strcmp(url, "/metrics") == 0)
        return answer_metrics(m, connection);
    if (strcmp(url, "/healthz") != 0)
        return say(m, connection, MHD_HTTP_NOT_FOUND, unknown);
    bool healthy = atomic_load_explicit(m->config.healthy, memory_order_relaxed);
    return healthy ? say(m, connection, MHD_HTTP_OK, ok) : say(m, connection, MHD_HTTP_SERVICE_UNAVAILABLE, sick);
}

/* -------------------------------------------------------------------------------------------- lifetime */

static void log_message(void *context, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

static void log_message(void *context, const char *format, va_list args)
{
    const struct metrics *m = context;
    char text[300];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    log_line(m->config.log, LOG_LEVEL_DEBUG, "metrics: %s", text);
}

static struct MHD_Daemon *start_daemon(struct metrics *m, int fd)
{
    return m->http.MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle, m, MHD_OPTION_EXTERNAL_LOGGER,
        log_message, m, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, METRICS_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, METRICS_CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, METRICS_TIMEOUT_S,
        MHD_OPTION_THREAD_STACK_SIZE, STACK_BYTES, MHD_OPTION_END);
}

bool metrics_start(const struct metrics_config *config, struct metrics **metrics)
{
    char name[LISTEN_NAME_BYTES];
    int fd = listen_open_tcp(config->address, config->port, name);
    if (fd < 0) {
        log_line(config->log, LOG_LEVEL_ERROR, "--metrics-port: cannot listen on %s: %m", name);
        return false;
    }
    const char *wrong = "memory is short";
    struct metrics *m = calloc(1, sizeof *m);
    if (m != NULL) {
        m->config = *config;
        wrong = load(&m->http);
        if (wrong == NULL && (m->daemon = start_daemon(m, fd)) == NULL)
            wrong = "it does not start";
    }
    if (wrong != NULL) {
        log_line(config->log, LOG_LEVEL_ERROR, "--metrics-port: no HTTP server: %s", wrong);
        close(fd);
        free(m);
        return false;
    }
    log_line(config->log, LOG_LEVEL_INFO, "metrics are at http://%s/metrics", name);
    *metrics = m;
    return true;
}

void metrics_stop(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    metrics->http.MHD_stop_daemon(metrics->daemon);
    free(metrics);
}
