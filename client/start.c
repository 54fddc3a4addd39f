/* SPDX-License-Identifier: MIT */
/*
 * Connecting without waiting, for event loops: a numeric address or a unix socket, then HELLO and AUTH in the queue.
 */
#include "client/internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A socket that connects: 0 and *fd, or an errno. */
static int begin(const struct sockaddr *address, socklen_t len, int *fd)
{
    int one = 1;
    int made = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0)
        return errno;
    int failed = connect(made, address, len) == 0 ? 0 : errno;
    if (failed == EINPROGRESS || failed == EINTR)
        failed = 0;
    if (failed == 0 && address->sa_family != AF_UNIX &&
        setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        failed = errno;
    if (failed != 0) {
        (void)close(made);
        return failed;
    }
    *fd = made;
    return 0;
}

static enum crab_status begin_failed(int failed, const char *host, struct crab_failure *failure)
{
    bool ours = failed == EMFILE || failed == ENFILE || failed == ENOBUFS || failed == ENOMEM;
    return net_fail(failure, ours ? CRAB_E_SYSTEM : CRAB_E_REFUSED, failed, "cannot connect to %s", host);
}

static enum crab_status begin_unix(const char *path, int *fd, struct crab_failure *failure)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return begin_failed(ENAMETOOLONG, path, failure);
    memcpy(address.sun_path, path, strlen(path));
    int failed = begin((const struct sockaddr *)&address, sizeof address, fd);
    return failed == 0 ? CRAB_OK : begin_failed(failed, path, failure);
}

static enum crab_status begin_tcp(const char *host, uint16_t port, int *fd, struct crab_failure *failure)
{
    char service[8];
    struct addrinfo *list = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    (void)snprintf(service, sizeof service, "%u", (unsigned)port);
    int code = getaddrinfo(host, service, &hints, &list);
    if (code == EAI_MEMORY)
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory to read the address %s", host);
    if (code != 0)
        return net_fail(failure, CRAB_E_RESOLVE, 0, "%s is no numeric address, and names are not resolved here", host);
    int failed = begin(list->ai_addr, list->ai_addrlen, fd);
    freeaddrinfo(list);
    return failed == 0 ? CRAB_OK : begin_failed(failed, host, failure);
}

enum crab_status crab_conn_start(const struct crab_conn_options *options, struct crab_conn **conn,
                                 struct crab_failure *failure)
{
    struct crab_failure unwanted;
    if (failure == NULL)
        failure = &unwanted;
    enum crab_status status = conn_check_options(options, failure);
    if (status != CRAB_OK)
        return status;
    struct crab_conn *made = conn_make(options);
    if (made == NULL)
        return net_fail(failure, CRAB_E_NO_MEMORY, 0, "no memory for a connection");
    made->events = true;
    made->phase = CONN_CONNECTING;
    made->connect_end_ns = event_deadline(made);

    const char *host = options->host != NULL ? options->host : "127.0.0.1";
    uint16_t port = options->port != 0 ? options->port : CRAB_DEFAULT_PORT;
    status = host[0] == '/' ? begin_unix(host, &made->fd, failure) : begin_tcp(host, port, &made->fd, failure);
    if (status == CRAB_OK) {
        status = conn_shake_hands(made, options, NULL);
        if (status != CRAB_OK)
            (void)net_fail(failure, status, 0, "%s", made->text);
    }
    if (status != CRAB_OK) {
        conn_log(made, CRAB_LOG_WARNING, "no connection: %s", failure->text);
        conn_destroy(made);
        return status;
    }
    *conn = made;
    return CRAB_OK;
}
