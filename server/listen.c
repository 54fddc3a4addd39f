/* SPDX-License-Identifier: MIT */
/*
 * Opening sockets to listen on. TCP: all addresses share one port, also if it is chosen freely. Unix sockets, under a
 * lock on their folder: bind; if the path is taken, see whether anybody listens there, and if not, remove it and bind
 * again. The permissions come from the umask, so that there is no moment at which the file has other ones.
 * Accepting from them, and telling where a connection comes from.
 */
#include "server/listen.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "server/log.h"

#define BACKLOG 1024

/* Free ports that are tried before --port 0 fails because each was in use at one of several addresses. */
#define PORT_ATTEMPTS 16

/* How long another process may hold the lock of a folder, in steps. */
#define LOCK_STEP_MS 10
#define LOCK_STEPS 200

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

/* ------------------------------------------------------------------------------------------------- TCP */

static socklen_t make_address(const char *text, uint16_t port, union address *address)
{
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons(port);
        return sizeof address->v4;
    }
    inet_pton(AF_INET6, text, &address->v6.sin6_addr);
    address->v6.sin6_family = AF_INET6;
    address->v6.sin6_port = htons(port);
    return sizeof address->v6;
}

static uint16_t port_of(int fd)
{
    union address address;
    socklen_t len = sizeof address;
    if (getsockname(fd, &address.any, &len) != 0)
        return 0;
    return ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
}

/* Close a descriptor and keep errno. Returns -1. */
static int close_failed(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int open_tcp(const char *text, uint16_t port)
{
    union address address;
    socklen_t len = make_address(text, port, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address.any.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, &address.any, len) != 0 || listen(fd, BACKLOG) != 0)
        return close_failed(fd);
    return fd;
}

static void name_tcp(char *name, const char *text, uint16_t port)
{
    bool v6 = strchr(text, ':') != NULL;
    snprintf(name, LISTEN_NAME_BYTES, "%s%s%s:%u", v6 ? "[" : "", text, v6 ? "]" : "", (unsigned)port);
}

int listen_open_tcp(const char *address, uint16_t port, char *name)
{
    name_tcp(name, address, port);
    int fd = open_tcp(address, port);
    if (fd >= 0)
        name_tcp(name, address, port_of(fd));
    return fd;
}

/* All of them or none; with port 0 the first address finds a free port, and the others take the same. */
static bool open_addresses(struct listen_set *set, const char *const *binds, unsigned count, uint16_t port)
{
    for (unsigned i = 0; i < count; i++) {
        struct listener *listener = &set->at[set->count + i];
        listener->fd = listen_open_tcp(binds[i], port, listener->name);
        if (listener->fd < 0) {
            int error = errno;
            memcpy(set->at[set->count].name, listener->name, sizeof listener->name); /* the one to tell of */
            while (i-- > 0)
                close(set->at[set->count + i].fd);
            errno = error;
            return false;
        }
        port = port_of(listener->fd);
    }
    set->count += count;
    return true;
}

static bool listen_on_addresses(struct listen_set *set, const char *const *binds, unsigned count, uint16_t port,
                                const struct log *log)
{
    /* A port that is free at the first address may be in use at another one. */
    for (int attempt = 0; attempt < PORT_ATTEMPTS; attempt++) {
        if (open_addresses(set, binds, count, port))
            return true;
        if (port != 0 || errno != EADDRINUSE)
            break;
    }
    log_line(log, LOG_LEVEL_ERROR, "cannot listen on %s: %m%s", set->at[set->count].name,
             errno == EADDRINUSE ? "; choose another --port, or 0 for a free one" : "");
    return false;
}

/* ---------------------------------------------------------------------------------------- unix sockets */

/*
 * Lock the folder of a path. Returns a descriptor that holds the lock; -1 where it cannot be locked (a folder that may
 * not be read, a file system without locks): then it goes without; -2 with errno if somebody else keeps the lock.
 */
static int lock_folder(const char *path)
{
    char copy[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    snprintf(copy, sizeof copy, "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (int step = 0; step < LOCK_STEPS; step++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return close_failed(fd);
        nanosleep(&(struct timespec){.tv_nsec = LOCK_STEP_MS * 1000000L}, NULL);
    }
    close(fd);
    errno = EWOULDBLOCK;
    return -2;
}

static void unlock_folder(int lock)
{
    if (lock >= 0)
        close(lock);
}

static int bind_with_mode(int fd, const struct sockaddr_un *address, unsigned mode)
{
    mode_t before = umask(0777 & ~(mode_t)mode);
    int result = bind(fd, (const struct sockaddr *)address, sizeof *address);
    umask(before);
    return result;
}

/* Remove a socket that nobody listens on. Returns false, with errno, if the path must stay. */
static bool remove_stale(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) != 0)
        return errno == ENOENT;
    if (!S_ISSOCK(status.st_mode)) {
        errno = EEXIST;
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool dead = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    close(fd);
    errno = EADDRINUSE;
    return dead && unlink(address->sun_path) == 0;
}

/* Under the folder's lock. */
static int open_unix(const char *path, unsigned mode, struct listener *listener)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    bool bound = bind_with_mode(fd, &address, mode) == 0;
    if (!bound && errno == EADDRINUSE && remove_stale(&address))
        bound = bind_with_mode(fd, &address, mode) == 0;
    if (!bound)
        return close_failed(fd);
    struct stat status;
    if (listen(fd, BACKLOG) != 0 || lstat(path, &status) != 0) {
        close_failed(fd);
        int error = errno;
        unlink(path);
        errno = error;
        return -1;
    }
    listener->path = path;
    listener->device = status.st_dev;
    listener->inode = status.st_ino;
    return fd;
}

static const char *advice(int error)
{
    switch (error) {
    case EEXIST:
        return "; what is there is no socket, so it was left alone";
    case EADDRINUSE:
        return "; somebody listens there";
    case EWOULDBLOCK:
        return "; another process keeps a lock on the folder";
    default:
        return "";
    }
}

static bool listen_on_path(struct listen_set *set, const char *path, unsigned mode, const struct log *log)
{
    struct listener *listener = &set->at[set->count];
    int lock = lock_folder(path);
    listener->local = true;
    listener->fd = lock == -2 ? -1 : open_unix(path, mode, listener);
    int error = errno;
    unlock_folder(lock);
    if (listener->fd < 0) {
        errno = error;
        log_line(log, LOG_LEVEL_ERROR, "cannot listen on unix:%s: %m%s", path, advice(error));
        return false;
    }
    snprintf(listener->name, sizeof listener->name, "unix:%s", path);
    set->count++;
    return true;
}

static void remove_own(const struct listener *listener)
{
    int lock = lock_folder(listener->path);
    struct stat status;
    if (lstat(listener->path, &status) == 0 && status.st_dev == listener->device && status.st_ino == listener->inode)
        unlink(listener->path);
    unlock_folder(lock);
}

/* -------------------------------------------------------------------------- from the service manager */

/* Tell what a socket is bound to. Returns whether others than this machine can reach it. */
static bool name_inherited(struct listener *listener)
{
    union address address = {.any.sa_family = AF_UNSPEC};
    socklen_t len = sizeof address;
    char text[INET6_ADDRSTRLEN] = "?";
    (void)getsockname(listener->fd, &address.any, &len);
    listener->local = address.any.sa_family == AF_UNIX;
    if (listener->local) { /* an abstract name begins with a NUL and has none at its end */
        const char *path = address.local.sun_path;
        int path_len = (int)len - (int)offsetof(struct sockaddr_un, sun_path);
        if (path_len > 0 && path[0] == '\0')
            snprintf(listener->name, sizeof listener->name, "unix:@%.*s", path_len - 1, path + 1);
        else
            snprintf(listener->name, sizeof listener->name, "unix:%.*s", path_len > 0 ? path_len : 0, path);
        return false;
    }
    bool v6 = address.any.sa_family == AF_INET6;
    const void *bytes = v6 ? (const void *)&address.v6.sin6_addr : (const void *)&address.v4.sin_addr;
    (void)inet_ntop(address.any.sa_family, bytes, text, sizeof text);
    name_tcp(listener->name, text, port_of(listener->fd));
    return !config_is_loopback(text);
}

static bool take_inherited(struct listen_set *set, const struct config *config, const struct log *log)
{
    int count = sd_listen_fds(true);
    if (count < 0 || count > (int)LISTEN_MAX_INHERITED) {
        log_line(log, LOG_LEVEL_ERROR, "cannot take sockets from the service manager: %s",
                 count < 0 ? strerror(-count) : "there are more than 16");
        return false;
    }
    for (int i = 0; i < count; i++) {
        struct listener *listener = &set->at[set->count];
        *listener = (struct listener){.fd = SD_LISTEN_FDS_START + i};
        if (sd_is_socket(listener->fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0 ||
            fcntl(listener->fd, F_SETFL, fcntl(listener->fd, F_GETFL) | O_NONBLOCK) != 0) {
            log_line(log, LOG_LEVEL_ERROR, "descriptor %d of the service manager is no stream socket that listens",
                     listener->fd);
            return false;
        }
        set->count++;
        if (name_inherited(listener) && config->auth_file == NULL && !config->insecure) {
            log_line(log, LOG_LEVEL_ERROR, "%s, from the service manager, would be open to everyone who can reach it: "
                     "give --auth-file, or --insecure if that is meant", listener->name);
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------------- accepting */

/* Kinds of sources that have the same number of another kind must differ; no IPv6 network begins like this. */
#define SOURCE_LOCAL ((uint64_t)1 << 32)
#define SOURCE_V4 ((uint64_t)4 << 32)

static uint64_t source_of(int fd, const union address *address)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    uint64_t network;
    switch (address->any.sa_family) {
    case AF_INET:
        return SOURCE_V4 | ntohl(address->v4.sin_addr.s_addr);
    case AF_INET6:
        memcpy(&network, address->v6.sin6_addr.s6_addr, sizeof network);
        return be64toh(network);
    default:
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? SOURCE_LOCAL | peer.uid : SOURCE_LOCAL;
    }
}

int listen_accept(const struct listener *listener, uint64_t *source)
{
    union address address = {.any.sa_family = AF_UNSPEC};
    socklen_t len = sizeof address;
    int fd = accept4(listener->fd, &address.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        *source = source_of(fd, &address);
    return fd;
}

/* ------------------------------------------------------------------------------------------------- all */

bool listen_open(struct listen_set *set, const struct config *config, const struct log *log)
{
    static const char *const usual[] = {CONFIG_DEFAULT_BIND};
    if (!take_inherited(set, config, log))
        return false;
    bool nothing = set->count == 0 && config->bind_count == 0 && config->unix_count == 0;
    if (!listen_on_addresses(set, nothing ? usual : config->binds, nothing ? 1 : config->bind_count, config->port, log))
        return false;
    for (unsigned i = 0; i < config->unix_count; i++) {
        if (!listen_on_path(set, config->unix_paths[i], config->unix_mode, log))
            return false;
    }
    return true;
}

void listen_close(struct listen_set *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        if (set->at[i].path != NULL)
            remove_own(&set->at[i]);
        close(set->at[i].fd);
    }
    set->count = 0;
}
