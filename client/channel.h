/* SPDX-License-Identifier: MIT */
/*
 * A channel: one connection that any number of threads share.  There is no thread behind it; those who wait do the work.
 *
 *     channel.c        calls enter the queue and the ring, wait, leave        <- channel_call(), channel_submit()
 *     channel_io.c     the two roles: the sender sends for all, the reader receives for all
 *     channel_reply.c  replies meet calls; how all calls end when the connection does
 *     channel_open.c   connect, HELLO, AUTH, under the circuit of the server
 *
 *      callers --> out ==> sending --> socket --> in --> ring[head] --> call --> its caller
 *       (lock)   (lock)   (sender)             (reader)   (lock)
 *
 * Invariants
 * - The ring holds one slot for each request in the order of their bytes.  A slot is given up by its reply or by the end of
 *   the connection, by nothing else; a caller who leaves early takes its call out of the slot (call = NULL).
 * - `lock` guards everything but what a role owns.  It is never held during a system call that can wait.
 * - `sending` and the order of bytes on the socket belong to the sender, `in` to the reader; each role has one holder.
 *   Who holds a role gives it back before it returns to its caller and before callbacks run.
 * - The socket is closed only when no role is held (`closing`), so that nobody waits on a descriptor that is another file.
 * - Whoever stops working while others sleep wakes some of them, if a role is free that they need (channel_hand_over()).
 * - When `done` of a call is set, the call is not touched any more: it may be gone.
 */
#ifndef CRABCACHE_CLIENT_CHANNEL_H
#define CRABCACHE_CLIENT_CHANNEL_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/buffer.h"
#include "client/circuit.h"
#include "client/internal.h"
#include "client/net.h"
#include "client/value.h"
#include "crabcache/client.h"

/** @brief Words on which those sleep whose calls are on their way; one for all calls of a batch of bytes. */
#define CHANNEL_BATCH_WORDS 16U
/** @brief The word for everything else that can be waited for: room, a role, a connection. */
#define CHANNEL_EVENT CHANNEL_BATCH_WORDS
#define CHANNEL_WORDS (CHANNEL_BATCH_WORDS + 1U)

/** @brief From this size on a reply's bytes are handed over with their block instead of being copied. */
#define CHANNEL_SWAP_LIMIT ((size_t)64 * 1024)

/** @brief Buffers that grew beyond this are given back when they are empty. */
#define CHANNEL_KEEP_BYTES ((size_t)1024 * 1024)

/** @brief Queued bytes from which on submitted requests are sent at once. */
#define CHANNEL_SEND_AT ((size_t)64 * 1024)

/** @brief Queued bytes from which on submitting is refused, unless the queue is empty. */
#define CHANNEL_QUEUE_LIMIT ((size_t)1024 * 1024)

/** @brief What all channels of a client have in common.  Never changes. */
struct channel_config {
    struct crab_allocator allocator;
    void (*log)(void *context, enum crab_log_level level, const char *line); /**< Or NULL. */
    void *log_context;
    enum crab_status (*credentials)(void *context, const char *server, struct crab_credentials *credentials);
    void *credentials_context;
    const char *user;        /**< NULL: no AUTH, unless `credentials` gives a user. */
    const char *secret_file; /**< NULL: the secret comes from `credentials`, or is empty. */
    const char *client_name; /**< NULL: the library's. */
    uint32_t timeout_ms;
    uint32_t connect_timeout_ms;
    uint32_t max_in_flight; /**< A power of two. */
    uint32_t max_reply;     /**< 0: what WELCOME says. */
    bool check_tags;
};

/** @brief A request on its way: in its caller's frame, or in a ticket. */
struct call {
    struct crab_value *value;     /**< Where the reply's bytes go; NULL: they are dropped. */
    struct crab_failure *failure; /**< Filled when the call fails; may be NULL. */
    void (*finished)(struct call *call); /**< Called once, without locks, instead of waking; may be NULL. */
    struct call *next;            /**< Among those whose `finished` is to be called. */
    struct channel *channel;
    uint64_t place;               /**< Its slot in the ring. */
    uint64_t end_ns;              /**< (Tickets) when it is to be given up; 0: never. */
    struct crab_result result;    /**< Valid when done. */
    uint32_t word;                /**< On which word its caller sleeps. */
    bool blocking;                /**< Its caller does nothing but wait for it. */
    bool asleep;                  /**< It does, and nobody has completed it. */
    bool not_executed;            /**< It failed, and the server has certainly not executed it. */
    _Atomic bool done;
};

/** @brief A place in the ring. */
struct slot {
    struct call *call; /**< NULL: nobody waits for it any more. */
    struct in_flight request;
};

enum channel_state {
    CHANNEL_DOWN,     /**< No connection. */
    CHANNEL_OPENING,  /**< A caller is making one; only its own calls enter. */
    CHANNEL_UP        /**< Calls may enter. */
};

/** @brief What happened on a channel, summed up over its connections. */
struct channel_counts {
    uint64_t requests;
    uint64_t errors;
    uint64_t timeouts;
    uint64_t unknown;
    uint64_t connects;
    uint64_t breaks;
    uint64_t sends;
    uint64_t receives;
    uint64_t sent_bytes;
    uint64_t received_bytes;
};

struct channel {
    const struct channel_config *config;
    struct circuit *circuit; /**< Of the server; shared with its other channels. */
    struct net_target *target; /**< Of the server: where to connect. */

    pthread_mutex_t lock;
    enum channel_state state;
    int fd;              /**< -1: none. */
    bool closing;        /**< The connection has failed; its socket is closed when both roles are free. */
    bool sender;         /**< The role is taken. */
    bool reader;         /**< The role is taken. */
    bool goaway;         /**< No more requests on this connection. */
    uint16_t goaway_code;
    bool ended;          /**< The server ended the stream in order. */
    bool fatal;          /**< The server ended it with an error: it executed nothing after that. */
    int send_failed;     /**< Why sending failed, while the reader looks for the reason. */
    uint32_t attempts;   /**< How often connecting has ended. */
    struct crab_failure attempt; /**< How it ended last. */
    bool attempt_cut;    /**< It ended because its caller had no more time, which says nothing about the server. */

    struct slot *ring;
    uint32_t capacity;   /**< A power of two. */
    uint32_t max_in_flight; /**< Of the connection, at most `capacity`. */
    uint64_t head;       /**< Slots before this one are answered, */
    uint64_t tail;       /**< those from here on are free. */
    uint64_t waiting_since; /**< When the last byte came, or the ring stopped being empty; ns. */
    uint32_t last_tag;
    uint32_t max_reply;
    uint64_t wanted;       /**< Bytes of the frame that has begun in `in`, as far as they are known; the reader's. */

    struct buffer out;     /**< What callers queue. */
    struct buffer sending; /**< What goes next; the sender's. */
    struct buffer in;      /**< The reader's. */
    uint64_t queued;       /**< Bytes ever queued on this connection, */
    uint64_t offered;      /**< of these given to a system call, whether it has taken them or not, */
    uint64_t sent;         /**< and taken. */
    uint32_t batch;        /**< The word of those who queue now. */
    uint32_t expected;     /**< Callers that were woken a moment ago and have not come back yet. */

    _Atomic uint32_t words[CHANNEL_WORDS];
    uint32_t asleep[CHANNEL_WORDS]; /**< Sleepers of a word whose calls are not done. */
    uint32_t wake;                  /**< Words to wake when the lock is left, as bits. */
    struct call *finished;          /**< Calls whose `finished` is to be called when the lock is left. */
    struct call **finished_end;
    char note[CRAB_FAILURE_TEXT];   /**< For the log, when the lock is left; "" if nothing. */
    enum crab_log_level note_level;

    struct channel_counts counts;
};

/* ---- channel.c */

/** @brief Prepare a channel. @return false: out of memory; nothing is to be undone */
bool channel_init(struct channel *channel, const struct channel_config *config, struct circuit *circuit,
                  struct net_target *target);
/** @brief Close the connection and free everything.  Nobody may be inside; calls that are left are not told. */
void channel_fini(struct channel *channel);
/** @brief In a child: close its copy of the socket and free nothing, as others may have been inside when it was forked. */
void channel_let_go(struct channel *channel);

/**
 * @brief One request and its reply.
 * @param channel the channel
 * @param request the request; its tag is chosen here
 * @param call `value`, `failure` set, the rest zero; in the caller's frame
 * @param deadline when to give up
 * @return how it ended, as in `call->result.status`
 */
enum crab_status channel_call(struct channel *channel, const union crab_request *request, struct call *call,
                              struct net_deadline *deadline);
/**
 * @brief Queue a request; connecting is waited for, nothing else.
 * @return CRAB_OK: the call is on its way, or done already; otherwise it is not
 */
enum crab_status channel_submit(struct channel *channel, const union crab_request *request, struct call *call,
                                struct net_deadline *deadline);
/** @brief Wait until a submitted call is done, or give it up at the deadline. */
void channel_wait(struct call *call, struct net_deadline *deadline);
/** @brief Send and receive what can be without waiting. */
void channel_nudge(struct channel *channel);
/** @brief Give a call up now, for this reason; nothing happens if it is done. */
void channel_abandon(struct call *call, enum crab_status why);
/** @brief Take what happened and how much is on its way. */
void channel_look(struct channel *channel, struct channel_counts *counts, uint64_t *in_flight, bool *up);
/** @brief Make sure that there is a connection. @return CRAB_OK, or why there is none */
enum crab_status channel_reach(struct channel *channel, struct net_deadline *deadline, struct crab_failure *failure);

/* ---- shared by the files of the channel; the lock is held on entry and on return */

static inline uint64_t channel_unsent(const struct channel *channel)
{
    return channel->queued - channel->sent;
}

/** @brief Leave the lock and wake whoever is due, but call nobody back: for those who hold a role. */
void channel_pause(struct channel *channel);
/** @brief Leave the lock, then wake, log and call back whoever is due. */
void channel_leave(struct channel *channel);
/** @brief Mark a word: its sleepers are woken when the lock is left. */
void channel_mark(struct channel *channel, uint32_t word);
/** @brief If a role is free that sleepers need, mark a word of some. */
void channel_hand_over(struct channel *channel);
/** @brief Sleep on a word until it is marked. The lock is left meanwhile. @return false: the deadline has passed */
bool channel_sleep(struct channel *channel, struct call *call, uint32_t word, struct net_deadline *deadline);
/** @brief Whether a call of this size may enter: room in the ring. */
bool channel_has_room(const struct channel *channel);
/** @brief Put a request into ring and queue. @return CRAB_OK, CRAB_E_INVALID, CRAB_E_NO_MEMORY: nothing has changed */
enum crab_status channel_enter(struct channel *channel, const union crab_request *request, struct call *call,
                               struct crab_slice *tail);
/** @brief Give up a call that is not done, and complete it with this status. */
void channel_give_up(struct channel *channel, struct call *call, enum crab_status why);

/* ---- channel_io.c */

/**
 * @brief Take the roles that are free, send, receive, give them back; or sleep if there is none.
 * @param channel a channel, its lock held on entry, not on return: callbacks may have run
 * @param call the caller's; NULL: the caller waits on #CHANNEL_EVENT
 * @param deadline when to stop
 * @return false: the deadline has passed
 */
bool channel_step(struct channel *channel, struct call *call, struct net_deadline *deadline);
/** @brief Send the queue and then `tail`, which follows it, reading meanwhile.  The sender's role must be free. */
void channel_send_value(struct channel *channel, struct crab_slice tail, struct net_deadline *deadline);
/** @brief Send and receive without waiting, with the roles that are free. */
void channel_turn(struct channel *channel);
/** @brief What channel_watch() found. */
enum channel_watched {
    CHANNEL_IDLE,    /**< Nothing is on its way. */
    CHANNEL_BUSY,    /**< Something is, and somebody else reads. */
    CHANNEL_WATCHED  /**< Something is; the entry is filled, and channel_unwatch() must follow. */
};

/**
 * @brief Give up overdue calls that have callbacks, send and receive without waiting; callbacks run.
 * @param channel a channel; its lock is not held
 * @param[in,out] earliest_ns brought forward to the next deadline of a call with a callback; 0: none
 */
void channel_tend(struct channel *channel, uint64_t *earliest_ns);
/**
 * @brief Take the reader's role to poll; no callback runs.
 * @param channel a channel; its lock is not held
 * @param[out] entry what to poll
 */
enum channel_watched channel_watch(struct channel *channel, struct pollfd *entry);
/** @brief Give the role back; no callback runs. */
void channel_unwatch(struct channel *channel);
/** @brief Look whether the server has said or ended something while nothing was on its way. */
void channel_peek(struct channel *channel);

/* ---- channel_reply.c */

/** @brief Give the whole replies in `in` to their calls.  For the reader. */
void channel_dispatch(struct channel *channel);
/** @brief End the connection and all its calls. The first reason counts. */
__attribute__((format(printf, 4, 5))) void channel_break(struct channel *channel, enum crab_status status,
                                                         int system_error, const char *format, ...);
/** @brief Close the socket of a connection that has failed, if no role is held. */
void channel_settle(struct channel *channel);
/** @brief Complete a call: fill in the result first. */
void channel_complete(struct channel *channel, struct call *call);

/* ---- channel_open.c */

/** @brief Wait for, or make, a connection that calls may enter. @return CRAB_OK, or why there is none */
enum crab_status channel_ready(struct channel *channel, struct net_deadline *deadline, struct crab_failure *failure);
/** @brief Take over what WELCOME says. @return false: it is impossible, and the connection is broken */
bool channel_welcome(struct channel *channel, const struct crab_rep_welcome *welcome);

#endif
