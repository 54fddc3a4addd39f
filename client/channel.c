/* SPDX-License-Identifier: MIT */
/*
 * Calls and their callers: entering queue and ring, sleeping and waking, giving up; see channel.h for the whole.
 *
 * Why nobody sleeps for ever: a call in the ring is completed by its reply or by the end of the connection.  For either
 * somebody has to hold the reader's role.  A sleeper found it taken, under the lock; whoever gives it back without
 * taking it again marks a word of other sleepers under the same lock, and a sleeper has read its word there.
 * Who wakes looks at the roles again before it leaves, and hands over in turn.  `asleep` counts only sleepers whose calls
 * are not done, so that the wake-up is never spent on one who leaves without looking.
 */
#include "client/channel.h"

#include <assert.h>
#include <sched.h>
#include <string.h>

#include "client/futex.h"

/* How often a caller whose reply somebody else will read gives up the processor before it sleeps; see channel_io.c. */
#define FOLLOWER_TURNS 6

/* ---- waking and sleeping */

void channel_mark(struct channel *channel, uint32_t word)
{
    channel->wake |= 1U << word;
}

/* Leave the lock and wake, but call nobody back: for those who hold a role. */
void channel_pause(struct channel *channel)
{
    uint32_t wake = channel->wake;
    channel->wake = 0;
    for (uint32_t left = wake; left != 0; left &= left - 1) {
        uint32_t word = (uint32_t)__builtin_ctz(left);
        (void)atomic_fetch_add_explicit(&channel->words[word], 1, memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&channel->lock);
    for (; wake != 0; wake &= wake - 1)
        futex_wake(&channel->words[__builtin_ctz(wake)]);
}

void channel_leave(struct channel *channel)
{
    struct call *finished = channel->finished;
    channel->finished = NULL;
    channel->finished_end = &channel->finished;
    const struct channel_config *config = channel->config;
    if (channel->note[0] != '\0') {
        char note[CRAB_FAILURE_TEXT];
        enum crab_log_level level = channel->note_level;
        memcpy(note, channel->note, sizeof note);
        channel->note[0] = '\0';
        channel_pause(channel);
        if (config->log != NULL)
            config->log(config->log_context, level, note);
    } else {
        channel_pause(channel);
    }
    while (finished != NULL) {
        struct call *call = finished;
        finished = call->next;
        call->finished(call);
    }
}

static bool roles_are_wanted(const struct channel *channel)
{
    return channel->fd >= 0 && !channel->closing &&
           ((!channel->reader && channel->head != channel->tail) || (!channel->sender && channel_unsent(channel) != 0));
}

void channel_hand_over(struct channel *channel)
{
    if (!roles_are_wanted(channel))
        return;
    const struct call *first = channel->ring[channel->head & (channel->capacity - 1)].call;
    if (first != NULL && first->asleep) {
        channel_mark(channel, first->word);
        return;
    }
    for (uint32_t word = 0; word < CHANNEL_WORDS; word++) {
        if (channel->asleep[word] != 0) {
            channel_mark(channel, word);
            return;
        }
    }
}

/*
 * Replies of those who share a batch are often here before a futex has put anybody to sleep, and switching to a thread that is
 * ready costs less than waking one. @return true: there is something new
 */
static bool watch(const struct channel *channel, const struct call *call, uint32_t word, uint32_t seen)
{
    for (int turn = 0; turn < FOLLOWER_TURNS; turn++) {
        if (atomic_load_explicit(&call->done, memory_order_acquire) ||
            atomic_load_explicit(&channel->words[word], memory_order_relaxed) != seen)
            return true;
        (void)sched_yield();
    }
    return false;
}

bool channel_sleep(struct channel *channel, struct call *call, uint32_t word, struct net_deadline *deadline)
{
    uint32_t seen = atomic_load_explicit(&channel->words[word], memory_order_relaxed);
    channel->asleep[word]++;
    if (call != NULL)
        call->asleep = true;
    channel_leave(channel);
    bool in_time = (call != NULL && watch(channel, call, word, seen)) ||
                   futex_sleep(&channel->words[word], seen, net_deadline_end(deadline));
    if (call != NULL && atomic_load_explicit(&call->done, memory_order_acquire))
        return true;
    (void)pthread_mutex_lock(&channel->lock);
    if (call == NULL || call->asleep) {
        channel->asleep[word]--;
        if (call != NULL)
            call->asleep = false;
    }
    (void)pthread_mutex_unlock(&channel->lock);
    return in_time;
}

/* ---- entering */

bool channel_has_room(const struct channel *channel)
{
    return channel->tail - channel->head < channel->max_in_flight;
}

/* Choose flags and tag. */
static bool prepare(struct channel *channel, struct crab_req_head *head)
{
    if ((head->flags & CRAB_FLAG_QUIET) != 0)
        return false;
    head->flags &= (uint8_t)~CRAB_FLAG_TAG;
    head->tag = 0;
    if (channel->config->check_tags) {
        head->flags |= CRAB_FLAG_TAG;
        head->tag = channel->last_tag == UINT32_MAX ? 1 : channel->last_tag + 1; /* never 0, which means none */
    }
    return true;
}

static void ring_push(struct channel *channel, const struct crab_req_head *head, struct call *call)
{
    if (channel->head == channel->tail)
        channel->waiting_since = net_now_ns();
    call->channel = channel;
    call->place = channel->tail;
    call->word = channel->batch;
    channel->ring[channel->tail & (channel->capacity - 1)] = (struct slot){
        .call = call,
        .request = {.end = channel->queued, .tag = head->tag, .op = head->op, .flags = head->flags},
    };
    channel->tail++;
    channel->expected -= call->blocking && channel->expected != 0;
    channel->counts.requests++;
}

enum crab_status channel_enter(struct channel *channel, const union crab_request *request, struct call *call,
                               struct crab_slice *tail)
{
    union crab_request message = *request;
    struct crab_req_head *head = &message.head;
    if (!prepare(channel, head))
        return CRAB_E_INVALID;
    size_t size = crab_request_size(&message);
    if (size == 0)
        return CRAB_E_INVALID;
    size_t bytes = tail != NULL ? size - head->value.len : size;
    if (!buffer_reserve(&channel->out, &channel->config->allocator, bytes))
        return CRAB_E_NO_MEMORY;
    uint8_t *end = channel->out.data + channel->out.end;
    size_t written = tail != NULL ? crab_request_encode_head(&message, end, bytes)
                                  : crab_request_encode(&message, end, bytes);
    assert(written == bytes); /* the codec sized it a moment ago */
    channel->out.end += written;
    channel->queued += size;
    if ((head->flags & CRAB_FLAG_TAG) != 0)
        channel->last_tag = head->tag;
    ring_push(channel, head, call);
    if (tail != NULL)
        *tail = head->value;
    return CRAB_OK;
}

/* A call that did not enter. */
static enum crab_status refuse(struct call *call, enum crab_status status, const char *text)
{
    call->result = (struct crab_result){.status = status};
    call->not_executed = true;
    if (call->failure != NULL && text != NULL)
        (void)net_fail(call->failure, status, 0, "%s", text);
    return status;
}

static enum crab_status refuse_enter(struct call *call, enum crab_status status)
{
    return refuse(call, status,
                  status == CRAB_E_INVALID ? "the request breaks a rule of the protocol (length, field or flag)"
                                           : "no memory to queue a request");
}

/*
 * Wait until the call may enter; `large`: its value is sent from where it lies, so nothing may be under way.
 * The lock is held on entry, and on return as well.
 */
static enum crab_status wait_to_enter(struct channel *channel, struct call *call, bool large,
                                      struct net_deadline *deadline)
{
    for (;;) {
        enum crab_status status = channel_ready(channel, deadline, call->failure);
        if (status != CRAB_OK)
            return refuse(call, status, NULL);
        if (channel_has_room(channel) && (!large || (!channel->sender && buffer_used(&channel->sending) == 0)))
            return CRAB_OK;
        bool in_time = channel_step(channel, NULL, deadline);
        (void)pthread_mutex_lock(&channel->lock);
        if (!in_time)
            return refuse(call, CRAB_E_TIMEOUT, "the deadline passed before the request could be sent");
    }
}

/* ---- calls */

/* Wait for a call that has entered.  The lock is held on entry, not on return. */
static void wait_for(struct channel *channel, struct call *call, struct net_deadline *deadline)
{
    for (;;) {
        bool in_time = channel_step(channel, call, deadline);
        if (atomic_load_explicit(&call->done, memory_order_acquire))
            return;
        (void)pthread_mutex_lock(&channel->lock);
        bool done = atomic_load_explicit(&call->done, memory_order_relaxed);
        if (!done && !in_time) {
            channel_give_up(channel, call, CRAB_E_TIMEOUT);
            done = true;
        }
        if (done) {
            channel_hand_over(channel);
            channel_leave(channel);
            return;
        }
    }
}

enum crab_status channel_call(struct channel *channel, const union crab_request *request, struct call *call,
                              struct net_deadline *deadline)
{
    call->blocking = true;
    bool large = request->head.value.len >= CONN_COPY_LIMIT;
    struct crab_slice tail = {0};
    (void)pthread_mutex_lock(&channel->lock);
    enum crab_status status = wait_to_enter(channel, call, large, deadline);
    if (status == CRAB_OK) {
        status = channel_enter(channel, request, call, large ? &tail : NULL);
        if (status != CRAB_OK)
            (void)refuse_enter(call, status);
    }
    if (status != CRAB_OK) {
        channel_hand_over(channel);
        channel_leave(channel);
        return status;
    }
    if (large)
        channel_send_value(channel, tail, deadline);
    wait_for(channel, call, deadline);
    return call->result.status;
}

enum crab_status channel_submit(struct channel *channel, const union crab_request *request, struct call *call,
                                struct net_deadline *deadline)
{
    (void)pthread_mutex_lock(&channel->lock);
    enum crab_status status = channel_ready(channel, deadline, call->failure);
    if (status != CRAB_OK) {
        (void)refuse(call, status, NULL);
    } else if (!channel_has_room(channel) ||
               (buffer_used(&channel->out) != 0 &&
                buffer_used(&channel->out) + request->head.value.len > CHANNEL_QUEUE_LIMIT)) {
        status = refuse(call, CRAB_E_FULL, "as many requests are unanswered as may be");
    } else {
        status = channel_enter(channel, request, call, NULL);
        if (status != CRAB_OK)
            (void)refuse_enter(call, status);
    }
    if (buffer_used(&channel->out) >= CHANNEL_SEND_AT)
        channel_turn(channel);
    channel_hand_over(channel);
    channel_leave(channel);
    return status;
}

void channel_wait(struct call *call, struct net_deadline *deadline)
{
    if (atomic_load_explicit(&call->done, memory_order_acquire))
        return;
    struct channel *channel = call->channel;
    (void)pthread_mutex_lock(&channel->lock);
    if (atomic_load_explicit(&call->done, memory_order_relaxed))
        channel_leave(channel);
    else
        wait_for(channel, call, deadline);
}

void channel_nudge(struct channel *channel)
{
    (void)pthread_mutex_lock(&channel->lock);
    channel_turn(channel);
    channel_hand_over(channel);
    channel_leave(channel);
}

/* ---- giving up */

void channel_give_up(struct channel *channel, struct call *call, enum crab_status why)
{
    struct slot *slot = &channel->ring[call->place & (channel->capacity - 1)];
    bool write = crab_op_is_write(slot->request.op);
    slot->call = NULL;
    call->result = (struct crab_result){.status = write ? CRAB_E_OUTCOME_UNKNOWN : why, .request = slot->request.op};
    if (call->failure != NULL)
        (void)net_fail(call->failure, why, 0, "no answer from %s within the deadline", channel->target->name);
    channel->counts.timeouts += why == CRAB_E_TIMEOUT;
    channel->counts.unknown += write;
    channel_complete(channel, call);
    uint64_t patience_ns = (uint64_t)channel->config->timeout_ms * 1000000U;
    if (why == CRAB_E_TIMEOUT && channel->config->timeout_ms != CRAB_NO_TIMEOUT && !channel->closing &&
        net_now_ns() - channel->waiting_since >= patience_ns)
        channel_break(channel, CRAB_E_TIMEOUT, 0, "nothing came within %u ms", (unsigned)channel->config->timeout_ms);
}

void channel_abandon(struct call *call, enum crab_status why)
{
    struct channel *channel = call->channel;
    (void)pthread_mutex_lock(&channel->lock);
    if (!atomic_load_explicit(&call->done, memory_order_relaxed))
        channel_give_up(channel, call, why);
    channel_hand_over(channel);
    channel_leave(channel);
}

/* ---- life */

bool channel_init(struct channel *channel, const struct channel_config *config, struct circuit *circuit,
                  struct net_target *target)
{
    *channel = (struct channel){.config = config, .circuit = circuit, .target = target, .fd = -1};
    channel->finished_end = &channel->finished;
    channel->capacity = config->max_in_flight;
    channel->ring = config->allocator.resize(config->allocator.context, NULL, channel->capacity * sizeof *channel->ring);
    if (channel->ring == NULL)
        return false;
    if (pthread_mutex_init(&channel->lock, NULL) == 0)
        return true;
    (void)config->allocator.resize(config->allocator.context, channel->ring, 0);
    return false;
}

void channel_fini(struct channel *channel)
{
    const struct crab_allocator *allocator = &channel->config->allocator;
    if (channel->fd >= 0)
        (void)close(channel->fd);
    buffer_fini(&channel->out, allocator);
    buffer_fini(&channel->sending, allocator);
    buffer_fini(&channel->in, allocator);
    (void)allocator->resize(allocator->context, channel->ring, 0);
}

void channel_let_go(struct channel *channel)
{
    int fd = channel->fd;
    channel->fd = -1;
    if (fd >= 0)
        (void)close(fd);
}

enum crab_status channel_reach(struct channel *channel, struct net_deadline *deadline, struct crab_failure *failure)
{
    (void)pthread_mutex_lock(&channel->lock);
    enum crab_status status = channel_ready(channel, deadline, failure);
    channel_leave(channel);
    return status;
}

void channel_look(struct channel *channel, struct channel_counts *counts, uint64_t *in_flight, bool *up)
{
    (void)pthread_mutex_lock(&channel->lock);
    *counts = channel->counts;
    *in_flight = channel->tail - channel->head;
    *up = channel->state == CHANNEL_UP;
    channel_leave(channel);
}
