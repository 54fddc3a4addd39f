/* SPDX-License-Identifier: MIT */
/*
 * Lists of connections; see roster.h. Moving one is a few stores, and most turns move none: a connection without debts
 * is put in order once in ROSTER_GRAIN_MS only.
 */
#include "server/roster.h"

#include <stddef.h>

/* Lists behind those of the debts. */
#define LIST_ENDING CONN_DEBTS
#define LIST_GONE (CONN_DEBTS + 1U)

/* ---- links ---- */

static void init(struct conn_link *head)
{
    head->prev = head;
    head->next = head;
}

static bool is_empty(const struct conn_link *head)
{
    return head->next == head;
}

static void append(struct conn_link *head, struct conn_link *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static void take_out(struct conn_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    init(link);
}

static struct conn *of_link(struct conn_link *link)
{
    return (struct conn *)(void *)((char *)link - offsetof(struct conn, link));
}

static struct conn *of_fresh(struct conn_link *link)
{
    return (struct conn *)(void *)((char *)link - offsetof(struct conn, fresh));
}

/* ---- coming, going, moving ---- */

void roster_init(struct roster *roster, const struct roster_times *times)
{
    for (unsigned i = 0; i < CONN_DEBTS + 2; i++)
        init(&roster->lists[i]);
    init(&roster->fresh);
    roster->times = *times;
}

bool roster_is_empty(const struct roster *roster)
{
    for (unsigned i = 0; i < CONN_DEBTS + 2; i++) {
        if (!is_empty(&roster->lists[i]))
            return false;
    }
    return true;
}

void roster_add(struct roster *roster, struct conn *c, uint64_t now_ms)
{
    c->moved_ms = now_ms;
    c->placed_ms = now_ms;
    c->list = CONN_OWES_NOTHING;
    append(&roster->lists[c->list], &c->link);
    append(&roster->fresh, &c->fresh);
}

void roster_remove(struct conn *c)
{
    take_out(&c->link);
    take_out(&c->fresh);
}

static void put(struct roster *roster, struct conn *c, unsigned list, uint64_t now_ms)
{
    c->list = (uint8_t)list;
    c->placed_ms = now_ms;
    take_out(&c->link);
    append(&roster->lists[list], &c->link);
}

void roster_place(struct roster *roster, struct conn *c, bool settled, uint64_t now_ms)
{
    if (c->state != CONN_OPEN) {
        unsigned list = c->state == CONN_GONE ? LIST_GONE : LIST_ENDING;
        take_out(&c->fresh);
        if (list != c->list)
            put(roster, c, list, now_ms);
        return;
    }
    if (settled)
        take_out(&c->fresh);
    unsigned debt = conn_debt(c);
    if (debt == CONN_OWES_NOTHING) {
        if (c->list != debt || now_ms - c->placed_ms >= ROSTER_GRAIN_MS)
            put(roster, c, debt, now_ms);
    } else if (c->list != debt || c->moved_ms == now_ms) {
        c->unread = debt == CONN_OWES_READING ? conn_unread(c) : 0;
        put(roster, c, debt, now_ms);
    }
}

/* ---- who is late ---- */

/* A list's first connection, if it has been there for so long. */
static struct conn *late_one(struct conn_link *head, uint32_t time_ms, uint64_t now_ms)
{
    if (time_ms == 0 || is_empty(head))
        return NULL;
    struct conn *c = of_link(head->next);
    return now_ms - c->placed_ms >= time_ms ? c : NULL;
}

/* Reading only a little is reading, though too little for the kernel to say that there is room. */
static bool has_read(struct roster *roster, struct conn *c, uint64_t now_ms)
{
    size_t unread = conn_unread(c);
    if (unread >= c->unread)
        return false;
    c->unread = unread;
    c->moved_ms = now_ms;
    put(roster, c, CONN_OWES_READING, now_ms);
    return true;
}

static struct conn *late_idler(struct roster *roster, uint64_t now_ms)
{
    struct conn *c = late_one(&roster->lists[CONN_OWES_NOTHING], roster->times.idle_ms, now_ms);
    return c != NULL && now_ms - c->moved_ms >= roster->times.idle_ms ? c : NULL;
}

static struct conn *late_newcomer(struct roster *roster, uint64_t now_ms)
{
    if (roster->times.first_ms == 0 || is_empty(&roster->fresh))
        return NULL;
    struct conn *c = of_fresh(roster->fresh.next);
    return now_ms - c->opened_ms >= roster->times.first_ms ? c : NULL;
}

struct conn *roster_late(struct roster *roster, uint64_t now_ms, enum roster_reason *reason)
{
    struct conn_link *lists = roster->lists;
    uint32_t stall_ms = roster->times.stall_ms;
    struct conn *c;
    while ((c = late_one(&lists[CONN_OWES_READING], stall_ms, now_ms)) != NULL) {
        if (has_read(roster, c, now_ms))
            continue;
        *reason = ROSTER_NOT_READING;
        return c;
    }
    if ((c = late_one(&lists[CONN_OWES_INPUT], stall_ms, now_ms)) != NULL ||
        (c = late_one(&lists[CONN_OWES_REST], stall_ms, now_ms)) != NULL)
        *reason = ROSTER_HALF_FRAME;
    else if ((c = late_newcomer(roster, now_ms)) != NULL)
        *reason = ROSTER_NO_REQUEST;
    else if ((c = late_idler(roster, now_ms)) != NULL)
        *reason = ROSTER_IDLE;
    else if ((c = late_one(&lists[LIST_ENDING], CONN_CLOSE_MS, now_ms)) != NULL)
        *reason = ROSTER_ENDING;
    return c;
}

uint32_t roster_wait_ms(const struct roster *roster, uint64_t now_ms, uint32_t most_ms)
{
    const struct conn_link *ending = &roster->lists[LIST_ENDING];
    if (is_empty(ending))
        return most_ms;
    uint64_t deadline = of_link(ending->next)->placed_ms + CONN_CLOSE_MS;
    uint64_t left = deadline > now_ms ? deadline - now_ms : 0;
    return left < most_ms ? (uint32_t)left : most_ms;
}

/* ---- who gives way ---- */

struct conn *roster_offender(const struct roster *roster, const struct conn *but, uint64_t now_ms)
{
    static const unsigned debts[] = {CONN_OWES_READING, CONN_OWES_INPUT};
    struct conn *worst = NULL;
    size_t most = 0;
    for (unsigned i = 0; i < sizeof debts / sizeof debts[0]; i++) {
        const struct conn_link *head = &roster->lists[debts[i]];
        struct conn_link *link = head->next;
        for (unsigned looked = 0; link != head && looked < ROSTER_LOOK; looked++, link = link->next) {
            struct conn *c = of_link(link);
            if (c == but) /* it moves just now, and is not placed yet */
                continue;
            if (now_ms - c->moved_ms < ROSTER_PATIENCE_MS)
                break;
            size_t held = conn_held_bytes(c);
            if (held > most) {
                worst = c;
                most = held;
            }
        }
    }
    return worst;
}

struct conn *roster_slowest(const struct roster *roster, bool streamed, uint64_t now_ms)
{
    const struct conn_link *head = &roster->lists[CONN_OWES_INPUT];
    struct conn_link *link = head->next;
    struct conn *slowest = NULL;
    uint64_t least = ROSTER_LEAST_RATE;
    for (unsigned looked = 0; link != head && looked < ROSTER_LOOK; looked++, link = link->next) {
        struct conn *c = of_link(link);
        uint64_t since_ms = now_ms - c->frame_ms;
        if (c->frame == 0 || (c->stream.value != NULL) != streamed || since_ms < ROSTER_RATE_MS)
            continue;
        uint64_t rate = (uint64_t)(c->held - c->frame_from) * 1000 / since_ms;
        if (rate < least) {
            least = rate;
            slowest = c;
        }
    }
    return slowest;
}

/* ---- looking through them ---- */

static struct conn *first_of(const struct roster *roster, unsigned list)
{
    const struct conn_link *head = &roster->lists[list];
    return is_empty(head) ? NULL : of_link(head->next);
}

struct conn *roster_gone(const struct roster *roster)
{
    return first_of(roster, LIST_GONE);
}

struct conn *roster_ending(const struct roster *roster)
{
    return first_of(roster, LIST_ENDING);
}

void roster_visit(struct roster *roster, void (*visit)(void *context, struct conn *c), void *context)
{
    struct conn_link todo;
    init(&todo);
    for (unsigned debt = 0; debt < CONN_DEBTS; debt++) {
        struct conn_link *head = &roster->lists[debt];
        while (!is_empty(head)) {
            struct conn_link *link = head->next;
            take_out(link);
            append(&todo, link);
        }
    }
    while (!is_empty(&todo)) {
        struct conn *c = of_link(todo.next);
        take_out(&c->link);
        append(&roster->lists[c->list], &c->link);
        visit(context, c);
    }
}
