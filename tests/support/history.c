/* SPDX-License-Identifier: MIT */
/*
 * The check of a history. It goes through calls and returns in the order of their stamps and keeps all states that the
 * map may be in: which of the operations under way have taken place, and what the key holds then. When an operation
 * returns, operations under way take place in any order until it has; states in which its answer would be wrong are left
 * out. If none remains, there is no order that explains the answer. (G. Lowe, "Testing for linearizability", 2017: the
 * "just-in-time" search. With few threads there are few states at any time, however long the history is.)
 *
 * What a key holds is never guessed: an answer says whether the item was there, so that the only choice is the order.
 */
#include "tests/support/history.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define STATES_MAX 16384U

/* What a key holds. */
struct content {
    bool present;
    uint64_t value;
    uint64_t expires_from, expires_to; /* Its expiry lies in between; both STORE_NEVER: it has none. */
};

struct state {
    uint32_t done; /* A bit for each thread whose operation under way has taken place. */
    struct content content;
};

struct states {
    size_t count;
    bool overflow;
    struct state at[STATES_MAX];
};

struct event {
    uint64_t stamp;
    size_t op;
    bool is_return;
};

/* ---- the plain map ---- */

static uint64_t later(uint64_t now, uint64_t ttl)
{
    return ttl >= STORE_NEVER - now ? STORE_NEVER : now + ttl;
}

static void hold(struct content *content, uint64_t value, uint64_t ttl, const struct history_op *op)
{
    content->present = true;
    content->value = value;
    content->expires_from = later(op->clock_before, ttl);
    content->expires_to = later(op->clock_after, ttl);
}

/* Is the time to live in a GET's answer that of the content? */
static bool left_fits(const struct content *content, const struct history_op *op)
{
    if (op->left == STORE_NEVER || content->expires_to == STORE_NEVER)
        return op->left == STORE_NEVER && content->expires_to == STORE_NEVER;
    return op->left > 0 && later(op->clock_before, op->left) <= content->expires_to &&
           later(op->clock_after, op->left) >= content->expires_from;
}

/* The operation takes place and finds an item. Answers whether its answer is right. */
static bool finds_item(struct content *content, const struct history_op *op)
{
    switch (op->kind) {
    case HISTORY_GET:
        return op->result == STORE_OK && op->seen == content->value && left_fits(content, op);
    case HISTORY_TOUCH:
        if (op->result != STORE_OK || op->seen != content->value)
            return false;
        hold(content, content->value, op->ttl, op);
        return true;
    case HISTORY_EXPIRE:
        hold(content, content->value, op->ttl, op);
        return op->result == STORE_OK;
    case HISTORY_PUT:
    case HISTORY_REPLACE:
        hold(content, op->written, op->ttl, op);
        return op->result == STORE_OK;
    case HISTORY_ADD:
        return op->result == STORE_EXISTS;
    case HISTORY_CAS:
        if (content->value != op->expected)
            return op->result == STORE_EXISTS;
        hold(content, op->written, op->ttl, op);
        return op->result == STORE_OK;
    case HISTORY_INCR:
        if (content->value % 2 != 0)
            return op->result == STORE_NOT_A_NUMBER;
        content->value += op->delta;
        return op->result == STORE_OK && op->seen == content->value;
    case HISTORY_DELETE:
        content->present = false;
        return op->result == STORE_OK;
    case HISTORY_FLUSH:
        content->present = false;
        return true;
    }
    return false;
}

/* The operation takes place and finds nothing. */
static bool finds_nothing(struct content *content, const struct history_op *op)
{
    content->present = false;
    switch (op->kind) {
    case HISTORY_PUT:
    case HISTORY_ADD:
        hold(content, op->written, op->ttl, op);
        return op->result == STORE_OK;
    case HISTORY_INCR:
        if (op->written == 0)
            return op->result == STORE_ABSENT;
        hold(content, op->written, op->ttl, op);
        return op->result == STORE_OK && op->seen == op->written;
    case HISTORY_FLUSH:
        return true;
    case HISTORY_GET:
    case HISTORY_TOUCH:
    case HISTORY_EXPIRE:
    case HISTORY_REPLACE:
    case HISTORY_CAS:
    case HISTORY_DELETE:
        break;
    }
    return op->result == STORE_ABSENT;
}

static bool may_be_refused(enum history_kind kind)
{
    return kind != HISTORY_GET && kind != HISTORY_DELETE && kind != HISTORY_FLUSH;
}

static bool takes_place(struct content *content, const struct history_op *op, const struct history_rules *rules)
{
    struct content before = *content;
    if (op->result == STORE_NO_MEMORY)
        return rules->refuses && may_be_refused(op->kind);
    if (before.present && op->clock_before < before.expires_to && finds_item(content, op))
        return true;
    *content = before;
    return (!before.present || rules->evicts || op->clock_after >= before.expires_from) && finds_nothing(content, op);
}

/* ---- the search ---- */

static bool same(const struct state *a, const struct state *b)
{
    if (a->done != b->done || a->content.present != b->content.present)
        return false;
    return !a->content.present ||
           (a->content.value == b->content.value && a->content.expires_from == b->content.expires_from &&
            a->content.expires_to == b->content.expires_to);
}

static void keep(struct states *states, const struct state *state)
{
    for (size_t i = 0; i < states->count; i++) {
        if (same(&states->at[i], state))
            return;
    }
    if (states->count == STATES_MAX)
        states->overflow = true;
    else
        states->at[states->count++] = *state;
}

struct search {
    const struct history_op *ops;
    const struct history_rules *rules;
    const struct history_op *under_way[HISTORY_THREADS];
    struct states now, open, next;
};

/* Lets operations under way take place until that of `thread` has. Answers false if it can't have. */
static bool finish(struct search *s, unsigned thread)
{
    s->open.count = s->next.count = 0;
    for (size_t i = 0; i < s->now.count; i++)
        keep(&s->open, &s->now.at[i]);
    for (size_t i = 0; i < s->open.count; i++) { /* Grows meanwhile. */
        struct state state = s->open.at[i];
        if ((state.done >> thread & 1) != 0) {
            state.done &= ~((uint32_t)1 << thread);
            keep(&s->next, &state);
            continue;
        }
        for (unsigned t = 0; t < HISTORY_THREADS; t++) {
            struct state after = s->open.at[i];
            if (s->under_way[t] == NULL || (after.done >> t & 1) != 0 ||
                !takes_place(&after.content, s->under_way[t], s->rules))
                continue;
            after.done |= (uint32_t)1 << t;
            keep(&s->open, &after);
        }
    }
    s->under_way[thread] = NULL;
    s->now.count = 0;
    for (size_t i = 0; i < s->next.count; i++)
        keep(&s->now, &s->next.at[i]);
    return s->now.count != 0;
}

static int by_call(const void *a, const void *b)
{
    uint64_t x = ((const struct history_op *)a)->called, y = ((const struct history_op *)b)->called;
    return x < y ? -1 : x > y;
}

static int by_stamp(const void *a, const void *b)
{
    uint64_t x = ((const struct event *)a)->stamp, y = ((const struct event *)b)->stamp;
    return x < y ? -1 : x > y;
}

static const char *search(struct search *s, const struct event *events, size_t count, size_t *at)
{
    s->now.count = 1;
    s->now.at[0] = (struct state){.done = 0};
    for (size_t i = 0; i < count; i++) {
        const struct history_op *op = &s->ops[events[i].op];
        *at = events[i].op;
        if (op->thread >= HISTORY_THREADS || op->called >= op->returned)
            return "the history is none";
        if (!events[i].is_return) {
            if (s->under_way[op->thread] != NULL)
                return "a thread's operations overlap";
            s->under_way[op->thread] = op;
        } else if (!finish(s, op->thread)) {
            return s->open.overflow ? "the search has become too large" : "no order of the operations explains an answer";
        }
    }
    return NULL;
}

/* ---- versions ---- */

struct pair {
    uint64_t version, value;
    size_t op;
};

static int by_version(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return x->version < y->version ? -1 : x->version > y->version;
}

static int by_value(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return x->value < y->value ? -1 : x->value > y->value;
}

/* As every value is written once, each has one version, and each version one value. */
static const char *check_versions(const struct history_op *ops, size_t count, struct pair *pairs, size_t *at)
{
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        if (ops[i].version == 0 || ops[i].result != STORE_OK)
            continue;
        bool reads = ops[i].kind == HISTORY_GET || ops[i].kind == HISTORY_TOUCH;
        pairs[known++] = (struct pair){ops[i].version, reads ? ops[i].seen : ops[i].written, i};
    }
    qsort(pairs, known, sizeof(*pairs), by_version);
    for (size_t i = 1; i < known; i++) {
        *at = pairs[i].op;
        if (pairs[i].version == pairs[i - 1].version && pairs[i].value != pairs[i - 1].value)
            return "two values have one version";
    }
    qsort(pairs, known, sizeof(*pairs), by_value);
    for (size_t i = 1; i < known; i++) {
        *at = pairs[i].op;
        if (pairs[i].value == pairs[i - 1].value && pairs[i].version != pairs[i - 1].version)
            return "a value has two versions";
    }
    return NULL;
}

const char *history_check(struct history_op *ops, size_t count, const struct history_rules *rules, size_t *at)
{
    const char *wrong = "the test has no memory";
    struct search *s = calloc(1, sizeof(*s));
    struct event *events = calloc(2 * count + 1, sizeof(*events));
    struct pair *pairs = calloc(count + 1, sizeof(*pairs));
    if (s != NULL && events != NULL && pairs != NULL) {
        s->ops = ops;
        s->rules = rules;
        qsort(ops, count, sizeof(*ops), by_call);
        for (size_t i = 0; i < count; i++) {
            events[2 * i] = (struct event){.stamp = ops[i].called, .op = i};
            events[2 * i + 1] = (struct event){.stamp = ops[i].returned, .op = i, .is_return = true};
        }
        qsort(events, 2 * count, sizeof(*events), by_stamp);
        wrong = search(s, events, 2 * count, at);
        if (wrong == NULL)
            wrong = check_versions(ops, count, pairs, at);
    }
    free(pairs);
    free(events);
    free(s);
    return wrong;
}

/* ---- printing ---- */

static void print_op(FILE *to, const struct history_op *op, char mark)
{
    static const char *const kinds[] = {"get", "touch", "expire",  "put",    "add",
                                        "replace", "cas", "incr", "delete", "flush"};
    static const char *const results[] = {"ok", "absent", "exists", "no memory", "too large", "not a number", "overflow"};
    fprintf(to, "%c %10" PRIu64 " - %-10" PRIu64 " thread %-2u clock %" PRIu64 "-%" PRIu64 " %s", mark, op->called,
            op->returned, op->thread, op->clock_before, op->clock_after, kinds[op->kind]);
    if (op->written != 0)
        fprintf(to, " value %" PRIx64, op->written);
    if (op->delta != 0)
        fprintf(to, " delta %" PRIx64, op->delta);
    if (op->expected != 0)
        fprintf(to, " expecting %" PRIx64, op->expected);
    if (op->ttl != 0)
        fprintf(to, " ttl %" PRId64, (int64_t)op->ttl);
    fprintf(to, ": %s", results[op->result]);
    if (op->seen != 0)
        fprintf(to, " %" PRIx64, op->seen);
    if (op->left != 0)
        fprintf(to, " left %" PRId64, (int64_t)op->left);
    fprintf(to, " version %" PRIx64 "\n", op->version);
}

void history_print(FILE *to, const struct history_op *ops, size_t count, size_t at)
{
    size_t from = at < 20 ? 0 : at - 20;
    for (size_t i = from; i < count && ops[i].called < ops[at].returned; i++)
        print_op(to, &ops[i], i == at ? '>' : ' ');
}
