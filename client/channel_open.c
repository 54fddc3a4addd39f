/* SPDX-License-Identifier: MIT */
/*
 * How a channel comes to a connection: one caller makes it, with what is left of its own time, while the others wait for how
 * it ends.  HELLO and AUTH go through queue and ring like other requests; the channel is up when both are answered.
 */
#include "client/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_MS 1000000U

/* After so long without requests the socket is looked at before it is used: has the server gone meanwhile? */
#define IDLE_LOOK_MS 100U

/* Until WELCOME has come nothing longer than it can: so a peer of another protocol is soon found out. */
#define MAX_REPLY_TO_HELLO 65536U

bool channel_welcome(struct channel *channel, const struct crab_rep_welcome *welcome)
{
    if (welcome->version != 1 || (welcome->features & ~CRAB_FEATURE_PUSH) != 0 || welcome->max_in_flight == 0) {
        channel_break(channel, CRAB_E_PROTOCOL, 0, "the WELCOME of %s is impossible: version %u, features 0x%x, max_in_flight %u",
                      channel->target->name, (unsigned)welcome->version, (unsigned)welcome->features,
                      (unsigned)welcome->max_in_flight);
        return false;
    }
    if (channel->config->max_reply == 0)
        channel->max_reply = reply_limit(welcome->max_value);
    if (welcome->max_in_flight < channel->capacity)
        channel->max_in_flight = welcome->max_in_flight;
    return true;
}

/* ---- credentials */

/* The first line of the file. */
static enum crab_status read_secret(const char *path, struct crab_credentials *credentials, struct crab_failure *failure)
{
    uint8_t text[CRAB_MAX_SECRET + 2];
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return net_fail(failure, CRAB_E_SYSTEM, errno, "cannot open the secret's file %s", path);
    ssize_t got = 1;
    while (len < sizeof text && (got > 0 || (got < 0 && errno == EINTR))) {
        got = read(fd, text + len, sizeof text - len);
        len += got > 0 ? (size_t)got : 0;
    }
    int failed = got < 0 ? errno : 0;
    (void)close(fd);
    const uint8_t *end = memchr(text, '\n', len);
    size_t line = end != NULL ? (size_t)(end - text) : len;
    enum crab_status status = CRAB_OK;
    if (failed != 0) {
        status = net_fail(failure, CRAB_E_SYSTEM, failed, "cannot read the secret's file %s", path);
    } else if (line > sizeof credentials->secret) {
        status = net_fail(failure, CRAB_E_INVALID, 0, "the secret in %s has more than %u bytes", path,
                          (unsigned)CRAB_MAX_SECRET);
    } else {
        memcpy(credentials->secret, text, line);
        credentials->secret_len = line;
    }
    explicit_bzero(text, sizeof text);
    return status;
}

/* Who to be on this connection; `user` is "" for nobody.  Called without the lock. */
static enum crab_status ask_credentials(const struct channel *channel, struct crab_credentials *credentials,
                                        struct crab_failure *failure)
{
    const struct channel_config *config = channel->config;
    memset(credentials, 0, sizeof *credentials);
    if (config->user != NULL)
        (void)snprintf(credentials->user, sizeof credentials->user, "%s", config->user);
    enum crab_status status = CRAB_OK;
    if (config->secret_file != NULL)
        status = read_secret(config->secret_file, credentials, failure);
    if (status != CRAB_OK || config->credentials == NULL)
        return status;
    status = config->credentials(config->credentials_context, channel->target->name, credentials);
    if (status != CRAB_OK)
        return net_fail(failure, status, 0, "no credentials for %s", channel->target->name);
    if (credentials->secret_len > sizeof credentials->secret ||
        memchr(credentials->user, '\0', sizeof credentials->user) == NULL)
        return net_fail(failure, CRAB_E_INVALID, 0, "the credentials for %s are too long", channel->target->name);
    return CRAB_OK;
}

/* ---- HELLO and AUTH */

/* One request of the handshake.  The lock is held on entry and on return. */
static enum crab_status ask(struct channel *channel, const union crab_request *request, struct net_deadline *deadline,
                            struct crab_failure *failure)
{
    struct call call = {.failure = failure};
    enum crab_status status = channel_enter(channel, request, &call, NULL);
    if (status != CRAB_OK)
        return net_fail(failure, status, 0, "HELLO or AUTH cannot be queued");
    channel_leave(channel);
    channel_wait(&call, deadline);
    (void)pthread_mutex_lock(&channel->lock);
    return call.result.status == CRAB_OK ? CRAB_OK : failure->status;
}

static void wipe(struct buffer *buffer)
{
    if (buffer_used(buffer) == 0 && buffer->data != NULL)
        explicit_bzero(buffer->data, buffer->capacity);
}

static enum crab_status greet(struct channel *channel, const struct crab_credentials *credentials,
                              struct net_deadline *deadline, struct crab_failure *failure)
{
    union crab_request request;
    request_hello(&request, channel->config->client_name);
    enum crab_status status = ask(channel, &request, deadline, failure);
    if (status != CRAB_OK || credentials->user[0] == '\0')
        return status;
    request_plain(&request, CRAB_OP_AUTH, slice_of_string(credentials->user),
                  slice_of(credentials->secret, credentials->secret_len));
    status = ask(channel, &request, deadline, failure);
    if (!channel->sender) {
        wipe(&channel->out);
        wipe(&channel->sending);
    }
    return status;
}

/* ---- connecting */

static void start_connection(struct channel *channel, int fd)
{
    channel->fd = fd;
    channel->max_reply = channel->config->max_reply != 0 ? channel->config->max_reply : MAX_REPLY_TO_HELLO;
    channel->max_in_flight = channel->capacity;
    channel->waiting_since = net_now_ns();
}

/* Tell everybody how the attempt ended.  The lock is held. */
static void conclude(struct channel *channel, enum crab_status status, const struct crab_failure *failure, bool cut)
{
    channel->attempts++;
    channel->attempt_cut = cut;
    channel->attempt = *failure;
    channel->attempt.status = status;
    if (status == CRAB_OK) {
        channel->state = CHANNEL_UP;
        channel->counts.connects++;
        (void)circuit_succeed(channel->circuit);
        channel->note_level = CRAB_LOG_INFO;
        (void)snprintf(channel->note, sizeof channel->note, "connected to %s", channel->target->name);
    } else {
        channel_break(channel, status, 0, "%s", failure->text); /* if it came as far as a socket */
        channel->state = CHANNEL_DOWN;
        if (cut)
            circuit_forget(channel->circuit);
        else
            (void)circuit_fail(channel->circuit, net_now_ns());
        channel->note_level = CRAB_LOG_WARNING;
        memcpy(channel->note, failure->text, sizeof channel->note);
    }
    channel_mark(channel, CHANNEL_EVENT);
}

/* Make a connection.  The lock is held on entry and on return, the state is CHANNEL_OPENING. */
static void open_connection(struct channel *channel, struct net_deadline *deadline)
{
    struct crab_credentials credentials;
    struct crab_failure failure = {.status = CRAB_OK};
    struct net_deadline limit = {.timeout_ms = channel->config->connect_timeout_ms};
    uint64_t end_ns = net_deadline_end(deadline);
    net_deadline_start(&limit);
    bool short_of_time = end_ns != 0 && end_ns < limit.end_ns;
    if (short_of_time)
        limit.end_ns = end_ns;
    channel_leave(channel);
    int fd = -1;
    enum crab_status status = ask_credentials(channel, &credentials, &failure);
    if (status == CRAB_OK)
        status = net_connect_target(channel->target, &limit, &fd, &failure);
    (void)pthread_mutex_lock(&channel->lock);
    if (status == CRAB_OK) {
        start_connection(channel, fd);
        status = greet(channel, &credentials, &limit, &failure);
    }
    explicit_bzero(&credentials, sizeof credentials);
    if (status == CRAB_OK && (channel->closing || channel->fd < 0)) /* it went right after the handshake */
        status = net_fail(&failure, CRAB_E_CLOSED, 0, "%s closed the connection", channel->target->name);
    conclude(channel, status, &failure, status == CRAB_E_TIMEOUT && short_of_time);
}

/* ---- what callers want */

static enum crab_status tell(struct crab_failure *failure, const struct crab_failure *what)
{
    if (failure != NULL)
        *failure = *what;
    return what->status;
}

static enum crab_status tell_down(const struct channel *channel, struct crab_failure *failure)
{
    if (failure != NULL)
        (void)net_fail(failure, CRAB_E_DOWN, 0, "%s could not be reached a moment ago", channel->target->name);
    return CRAB_E_DOWN;
}

static bool has_idled(const struct channel *channel)
{
    return channel->head == channel->tail && !channel->reader && !channel->sender &&
           net_now_ns() - channel->waiting_since > (uint64_t)IDLE_LOOK_MS * NS_PER_MS;
}

enum crab_status channel_ready(struct channel *channel, struct net_deadline *deadline, struct crab_failure *failure)
{
    for (;;) {
        if (channel->state == CHANNEL_UP && !channel->closing && !channel->goaway) {
            if (!has_idled(channel))
                return CRAB_OK;
            channel->waiting_since = net_now_ns();
            channel_peek(channel);
            continue;
        }
        if (channel->state == CHANNEL_UP && channel->goaway && !channel->closing && channel->head == channel->tail) {
            channel_break(channel, CRAB_E_CLOSED, 0, "%s asked to leave", channel->target->name);
            continue;
        }
        if (channel->state == CHANNEL_DOWN && !channel->closing) {
            if (!circuit_admit(channel->circuit, net_now_ns(), channel->config->connect_timeout_ms))
                return tell_down(channel, failure);
            channel->state = CHANNEL_OPENING;
            open_connection(channel, deadline);
            if (channel->attempt.status != CRAB_OK)
                return tell(failure, &channel->attempt);
            continue;
        }
        uint32_t attempts = channel->attempts;
        bool in_time = channel_step(channel, NULL, deadline);
        (void)pthread_mutex_lock(&channel->lock);
        if (channel->attempts != attempts && channel->attempt.status != CRAB_OK && !channel->attempt_cut)
            return tell(failure, &channel->attempt);
        if (!in_time && channel->state != CHANNEL_UP) {
            struct crab_failure late;
            (void)net_fail(&late, CRAB_E_TIMEOUT, 0, "no connection to %s within the deadline", channel->target->name);
            return tell(failure, &late);
        }
    }
}
