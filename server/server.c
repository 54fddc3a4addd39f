/* SPDX-License-Identifier: MIT */
/*
 * The main thread. It makes everything, then accepts connections and hands them to the workers in turn until a signal
 * comes; then it stops the workers and takes everything down in reverse order.
 *
 * Memory: --memory is cut once, here. Buffers of clients get config_buffer_bytes(), the store all the rest.
 */
#include "server/server.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "crabcache/version.h"
#include "crabcache/wire.h"
#include "server/ahead.h"
#include "server/auth.h"
#include "server/buf.h"
#include "server/conn.h"
#include "server/grace.h"
#include "server/health.h"
#include "server/listen.h"
#include "server/metrics.h"
#include "server/notify.h"
#include "server/stats.h"
#include "server/worker.h"

/* Connections accepted from one socket before the others, and signals, have their turn. */
#define ACCEPT_BATCH 64

/* How long accepting pauses when descriptors or memory are used up. */
#define PAUSE_MS 100

/* One wish to stop can come twice: from timeout(1) to the process group, and from make to its child. */
#define SIGNAL_ECHO_MS 50

/* What the kernel takes of a connection beyond what the peer has room for; without it, up to 4 MiB of each. */
#define UNSENT_BYTES (128 << 10)

/* A peer that was silent for so long is asked whether it still lives, and given up after as long without an answer. */
#define KEEPALIVE_S 300

/* At most this much of the buffers' budget goes to caches of free buffers. */
#define CACHE_SHARE 16U

struct server {
    const struct config *config;
    const struct log *log;
    struct listen_set listening;
    struct auth *auth;
    struct buf_budget budget;
    struct buf_budget streams; /* of values that are received into their places in the store */
    struct store *store;
    struct ahead ahead;
    struct stats stats;
    struct worker *workers[STATS_MAX_WORKERS];
    unsigned worker_count;
    unsigned last_worker; /* the one that got the last connection */
    uint32_t max_value;
    int signal_fd;
    int done_fd;
    bool pausing; /* accepting pauses: descriptors or memory ran out */
    struct grace grace;
    bool full;    /* --max-connections is reached, and the log says so */
    struct health health;
    struct metrics *metrics; /* NULL: nobody wants any */
    uint64_t alive_ms;       /* when the service manager had the last sign of life */
    uint64_t alive_every_ms; /* how often it wants one; 0: never */
};

/* ------------------------------------------------------------------------------------------- accepting */

/* None of this can fail but by a kernel that does not know an option; then the connection works without it. */
static void set_up_socket(int fd)
{
    const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S / 5},
        {IPPROTO_TCP, TCP_KEEPCNT, 5},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

/* The worker with the fewest connections; among equals the next in turn. */
static struct worker *least_loaded(struct server *s, unsigned *all)
{
    unsigned best = 0, least = UINT_MAX;
    *all = 0;
    for (unsigned i = 1; i <= s->worker_count; i++) {
        unsigned at = (s->last_worker + i) % s->worker_count;
        unsigned load = worker_load(s->workers[at]);
        *all += load;
        if (load < least) {
            least = load;
            best = at;
        }
    }
    s->last_worker = best;
    return s->workers[best];
}

/* Whether one more is too many. */
static bool is_full(struct server *s, unsigned connections)
{
    unsigned most = s->config->max_connections;
    bool full = most != 0 && connections >= most;
    if (full && !s->full)
        log_line(s->log, LOG_LEVEL_WARNING, "%u connections are all that --max-connections allows: more are closed",
                 connections);
    if (full || connections < most - most / 8) /* not a line for each that comes and goes */
        s->full = full;
    return full;
}

static void accepted(struct server *s, int fd, uint64_t source)
{
    unsigned connections;
    struct worker *worker = least_loaded(s, &connections);
    struct conn *c = is_full(s, connections) ? NULL : conn_create(fd, &s->budget);
    if (c == NULL) { /* nothing may be said to a client that has not said anything [P-3.1.4] */
        atomic_fetch_add_explicit(&s->stats.refused_connections, 1, memory_order_relaxed);
        close(fd);
        return;
    }
    c->session.source = source;
    set_up_socket(fd);
    worker_adopt(worker, c);
}

static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* Returns false if descriptors or memory ran out. */
static bool accept_from(struct server *s, const struct listener *listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        uint64_t source;
        int fd = listen_accept(listener, &source);
        if (fd >= 0) {
            accepted(s, fd, source);
        } else if (is_shortage(errno)) {
            if (!s->pausing)
                log_line(s->log, LOG_LEVEL_WARNING, "accepting pauses: %m");
            atomic_fetch_add_explicit(&s->stats.accept_pauses, 1, memory_order_relaxed);
            return false;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return true;
        } /* anything else is an error of that one connection */
    }
    return true;
}

/* ---------------------------------------------------------------------------------------------- signals */

static bool take_signals(struct server *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return false;
    signal(SIGPIPE, SIG_IGN); /* standard output may be a pipe; sockets use MSG_NOSIGNAL */
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    s->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return s->signal_fd >= 0 && s->done_fd >= 0;
}

/* Returns the signal that came, or 0. */
static int read_signal(const struct server *s)
{
    struct signalfd_siginfo info;
    return read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

/* What can be read anew while the server runs; what cannot be read stays as it was. */
static void read_again(struct server *s)
{
    const char *path = s->config->log_file;
    int error = path != NULL ? log_reopen(s->log, path) : 0;
    if (error != 0)
        log_line(s->log, LOG_LEVEL_ERROR, "--log-file: cannot open \"%s\" anew, so the old one stays: %s", path,
                 strerror(error));
    else if (path != NULL)
        log_line(s->log, LOG_LEVEL_INFO, "the log goes on in \"%s\"", path);
    path = s->config->auth_file;
    if (path == NULL)
        return;
    char why[200];
    if (auth_reload(s->auth, path, why, sizeof why))
        log_line(s->log, LOG_LEVEL_INFO, "--auth-file: %zu users read from \"%s\"", auth_count(s->auth), path);
    else
        log_line(s->log, LOG_LEVEL_ERROR, "--auth-file: cannot use \"%s\", so the old users stay: %s", path, why);
}

static void reload(struct server *s)
{
    notify_reloading();
    read_again(s);
    notify_ready();
}

static uint64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* How long the main thread sleeps if nothing happens. */
static int pause_ms(const struct server *s)
{
    uint64_t wait = s->pausing ? PAUSE_MS : HEALTH_LOOK_MS;
    return (int)(s->alive_every_ms != 0 && s->alive_every_ms < wait ? s->alive_every_ms : wait);
}

static_assert(HEALTH_LOOK_MS <= GRACE_LOOK_MS, "one look for both");

/* See whether the workers live, and say so. */
static void look_after_workers(struct server *s)
{
    uint64_t now_ms = monotonic_ms();
    if (now_ms - s->health.looked_ms < (uint64_t)pause_ms(s) / 2)
        return;
    grace_look(&s->grace, s->store, s->log);
    if (health_look(&s->health, &s->stats, s->log, now_ms) && s->alive_every_ms != 0 &&
        now_ms - s->alive_ms >= s->alive_every_ms) {
        notify_alive();
        s->alive_ms = now_ms;
    }
}

/* Accept until a signal asks to stop. */
static void serve(struct server *s)
{
    struct pollfd fds[LISTEN_MAX + 1];
    fds[0] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    for (unsigned i = 0; i < s->listening.count; i++)
        fds[i + 1] = (struct pollfd){.fd = s->listening.at[i].fd, .events = POLLIN};
    for (;;) {
        look_after_workers(s);
        if (poll(fds, s->pausing ? 1 : s->listening.count + 1, pause_ms(s)) < 0)
            continue; /* EINTR, or a shortage that passes */
        int signal_number = fds[0].revents != 0 ? read_signal(s) : 0;
        if (signal_number == SIGHUP) {
            reload(s);
        } else if (signal_number != 0) {
            log_line(s->log, LOG_LEVEL_INFO, "stopping: %s", strsignal(signal_number));
            return;
        }
        bool short_of = false;
        for (unsigned i = 0; i < s->listening.count; i++) {
            if (s->pausing || fds[i + 1].revents != 0)
                short_of |= !accept_from(s, &s->listening.at[i]);
        }
        s->pausing = short_of;
    }
}

/* Stop the workers; a second signal ends the process at once. */
static void stop_workers(struct server *s)
{
    uint64_t began_ms = monotonic_ms();
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_stop(s->workers[i]);
    uint64_t done = 0;
    while (done < s->worker_count) {
        struct pollfd fds[2] = {{.fd = s->signal_fd, .events = POLLIN}, {.fd = s->done_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0)
            continue;
        int signal_number = fds[0].revents != 0 ? read_signal(s) : 0;
        if (signal_number != 0 && signal_number != SIGHUP && monotonic_ms() - began_ms >= SIGNAL_ECHO_MS) {
            log_line(s->log, LOG_LEVEL_WARNING, "stopped at once by a second signal");
            for (unsigned i = 0; i < s->worker_count; i++)
                worker_abandon(s->workers[i]);
            _exit(EXIT_FAILURE);
        }
        uint64_t count;
        if (fds[1].revents != 0 && read(s->done_fd, &count, sizeof count) == (ssize_t)sizeof count)
            done += count;
    }
}

/* -------------------------------------------------------------------------------------------- lifetime */

/* More descriptors than the usual 1024: as many as are allowed. */
static void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The limit in force: as configured, but no more than the store takes and than a frame's buffer may be. */
static uint32_t limit_value(const struct server *s)
{
    size_t shared = s->config->threads * WORKER_BUFFER_BYTES;
    size_t frame = (s->budget.limit - shared) / 8 * 5 - DISPATCH_FRAME_EXTRA;
    size_t stored = store_max_value(s->store, CRAB_MAX_KEY);
    size_t limit = s->config->max_value;
    limit = limit < frame ? limit : frame;
    return (uint32_t)(limit < stored ? limit : stored);
}

static bool make_store(struct server *s)
{
    size_t buffers = config_buffer_bytes(s->config->memory_bytes);
    buf_budget_init(&s->budget, buffers);
    buf_budget_init(&s->streams, buffers);
    struct store_config store = {
        .memory_bytes = s->config->memory_bytes - buffers,
        .eviction = s->config->eviction,
        .max_workers = s->config->threads,
    };
    int error = store_create(&store, &s->store);
    if (error == 0)
        error = stats_init(&s->stats, s->config->threads);
    if (error != 0) {
        log_line(s->log, LOG_LEVEL_ERROR, "cannot reserve the memory of --memory: %s", strerror(error));
        return false;
    }
    s->max_value = limit_value(s);
    if (s->max_value < s->config->max_value)
        log_line(s->log, LOG_LEVEL_INFO, "values are limited to %u bytes by the memory", (unsigned)s->max_value);
    s->stats.memory_bytes = s->config->memory_bytes;
    s->stats.eviction = s->config->eviction == STORE_EVICT ? "evict" : "none";
    s->stats.max_value = s->max_value;
    s->stats.store = s->store;
    s->stats.budget = &s->budget;
    s->stats.streams = &s->streams;
    return true;
}

static bool load_users(struct server *s)
{
    if (s->config->auth_file == NULL)
        return true;
    char why[200];
    if (auth_load(s->config->auth_file, &s->auth, why, sizeof why)) {
        if (auth_limit(s->auth, s->config->auth_failures))
            return true;
        snprintf(why, sizeof why, "there are no random numbers: %s", strerror(errno));
    }
    log_line(s->log, LOG_LEVEL_ERROR, "--auth-file: cannot use \"%s\": %s", s->config->auth_file, why);
    return false;
}

/* Of the CPUs that the process may run on, in turn. */
static int nth_cpu(unsigned n)
{
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0 || CPU_COUNT(&cpus) == 0)
        return -1;
    n %= (unsigned)CPU_COUNT(&cpus);
    int cpu = 0;
    while (!CPU_ISSET((size_t)cpu, &cpus) || n-- != 0)
        cpu++;
    return cpu;
}

static bool make_workers(struct server *s)
{
    for (unsigned i = 0; i < s->config->threads; i++) {
        struct worker_config config = {
            .dispatch = {.store = s->store,
                         .auth = s->auth,
                         .stats = &s->stats,
                         .counters = &s->stats.workers[i],
                         .streams = &s->streams,
                         .max_value = s->max_value},
            .budget = &s->budget,
            .cache_bytes = s->budget.limit / CACHE_SHARE / s->config->threads,
            .log = s->log,
            .times = {.stall_ms = s->config->stall_ms,
                      .first_ms = s->config->first_ms,
                      .idle_ms = s->config->idle_ms},
            .cpu = s->config->pin ? nth_cpu(i) : -1,
            .done_fd = s->done_fd,
            .number = i,
        };
        int error = worker_create(&config, &s->workers[i]);
        if (error != 0) {
            log_line(s->log, LOG_LEVEL_ERROR, "cannot start worker %u: %s", i, strerror(error));
            return false;
        }
        s->worker_count++;
    }
    return true;
}

/* Without, requests wait for the kernel to find memory now and then; that is no reason not to start. */
static void touch_ahead(struct server *s)
{
    int error = ahead_start(&s->ahead, s->store);
    if (error != 0)
        log_line(s->log, LOG_LEVEL_WARNING, "memory is not touched ahead of its use, no thread: %s", strerror(error));
}

static bool make_metrics(struct server *s)
{
    if (s->config->metrics_port < 0)
        return true;
    const struct metrics_config config = {
        .address = s->config->metrics_bind,
        .port = (uint16_t)s->config->metrics_port,
        .stats = &s->stats,
        .healthy = &s->health.good,
        .log = s->log,
    };
    atomic_store(&s->health.good, true);
    return metrics_start(&config, &s->metrics);
}

static void say_ready(const struct server *s)
{
    printf("crabcache-server %s ready on ", CRAB_VERSION_STRING);
    for (unsigned i = 0; i < s->listening.count; i++)
        printf("%s%s", i == 0 ? "" : ", ", s->listening.at[i].name);
    printf("\n");
    fflush(stdout);
}

int server_check(const struct config *config, const struct log *log)
{
    struct server s = {.config = config, .log = log};
    bool good = load_users(&s);
    auth_destroy(s.auth);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int server_run(const struct config *config, const struct log *log)
{
    struct server s = {.config = config, .log = log, .signal_fd = -1, .done_fd = -1};
    int status = EXIT_FAILURE;
    raise_fd_limit();
    if (!take_signals(&s)) {
        log_line(log, LOG_LEVEL_ERROR, "cannot take signals: %m");
    } else if (load_users(&s) && listen_open(&s.listening, config, log) && make_store(&s) && make_workers(&s) &&
               make_metrics(&s)) {
        touch_ahead(&s);
        say_ready(&s);
        s.alive_every_ms = notify_interval_ms();
        notify_ready();
        serve(&s);
        notify_stopping();
        atomic_store(&s.health.good, false);
        status = EXIT_SUCCESS;
    }
    listen_close(&s.listening);
    stop_workers(&s);
    metrics_stop(s.metrics);
    for (unsigned i = 0; i < s.worker_count; i++)
        worker_destroy(s.workers[i]);
    ahead_stop(&s.ahead);
    stats_fini(&s.stats);
    store_destroy(s.store);
    auth_destroy(s.auth);
    if (s.done_fd >= 0)
        close(s.done_fd);
    if (s.signal_fd >= 0)
        close(s.signal_fd);
    if (status == EXIT_SUCCESS)
        log_line(log, LOG_LEVEL_INFO, "stopped");
    return status;
}
