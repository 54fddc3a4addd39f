/* SPDX-License-Identifier: MIT */
/*
 * Deadlines, and how a connected socket comes about.  Below everything else of the library: it knows neither
 * connections nor the protocol.
 */
#ifndef CRABCACHE_CLIENT_NET_H
#define CRABCACHE_CLIENT_NET_H

#include <pthread.h>
#include <stdint.h>

#include "crabcache/conn.h"

/**
 * @brief The point in time by which a call must end, on CLOCK_MONOTONIC.
 *
 * It starts when it is first asked for, so that a call which needs not wait never reads the clock.
 */
struct net_deadline {
    uint32_t timeout_ms; /**< From the start; #CRAB_NO_TIMEOUT: never. */
    uint64_t end_ns;     /**< When, 0 before the start. */
};

/**
 * @brief Start a deadline, if it has not started yet.
 * @param deadline the deadline, `timeout_ms` set
 */
void net_deadline_start(struct net_deadline *deadline);

/** @brief The time on CLOCK_MONOTONIC in nanoseconds. */
uint64_t net_now_ns(void);

/**
 * @brief When a deadline is; started if it was not.
 * @param deadline the deadline
 * @return nanoseconds on CLOCK_MONOTONIC; 0: never
 */
uint64_t net_deadline_end(struct net_deadline *deadline);

/**
 * @brief As net_wait(), but no longer than a slice of time.
 * @param fd a socket
 * @param events POLLIN, POLLOUT or both
 * @param deadline when to stop; started if it was not
 * @param slice_ms the slice in ms; -1: none
 * @param[out] revents what poll() said
 * @return as net_wait(); #CRAB_EMPTY: the slice is over
 */
enum crab_status net_wait_slice(int fd, short events, struct net_deadline *deadline, int slice_ms, short *revents);

/**
 * @brief Wait until a socket is ready, through signals, no longer than to the deadline.
 *
 * After the deadline it is never ready, so that a loop around this ends even if the peer never stops sending.
 * @param fd a socket
 * @param events POLLIN, POLLOUT or both
 * @param deadline when to stop; started if it was not
 * @param[out] revents what poll() said
 * @return #CRAB_OK; #CRAB_E_TIMEOUT; #CRAB_E_SYSTEM with errno set
 */
enum crab_status net_wait(int fd, short events, struct net_deadline *deadline, short *revents);

/**
 * @brief Resolve a host and connect to the first of its addresses that answers.
 *
 * Numeric addresses are tried without asking a name server, and without a thread.
 * @param host name or numeric address; one that begins with a slash is the path of a unix socket
 * @param port TCP port; not looked at for a unix socket
 * @param deadline for everything together
 * @param[out] fd the connected socket: non-blocking, close-on-exec, without Nagle's delay
 * @param[out] failure filled on failure
 * @return #CRAB_OK; #CRAB_E_RESOLVE; #CRAB_E_REFUSED; #CRAB_E_TIMEOUT; #CRAB_E_NO_MEMORY; #CRAB_E_SYSTEM
 * @ownership The caller closes `*fd`.
 */
enum crab_status net_connect(const char *host, uint16_t port, struct net_deadline *deadline, int *fd,
                             struct crab_failure *failure);

struct resolution;

/** @brief Where a server is. */
struct net_target {
    const char *host; /**< As of net_connect(). */
    const char *name; /**< "host:port" or the path, for people. */
    uint16_t port;
    pthread_mutex_t lock;       /**< Of what follows. */
    struct resolution *pending; /**< One that took too long: the next call goes on with it. */
};

/** @brief Prepare a target. The strings are borrowed. */
void net_target_init(struct net_target *target, const char *host, uint16_t port, const char *name);
/** @brief End it. */
void net_target_fini(struct net_target *target);

/** @brief As net_connect(), to a target. */
enum crab_status net_connect_target(struct net_target *target, struct net_deadline *deadline, int *fd,
                                    struct crab_failure *failure);

/**
 * @brief Fill a failure.
 * @param failure what to fill
 * @param status the status
 * @param system_error an `errno`, or 0; its text is appended
 * @param format as for printf()
 * @return `status`
 */
__attribute__((format(printf, 4, 5))) enum crab_status net_fail(struct crab_failure *failure,
                                                                enum crab_status status, int system_error,
                                                                const char *format, ...);

#endif
