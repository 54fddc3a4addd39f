/* SPDX-License-Identifier: MIT */
/*
 * Cutting a stream into replies; see inbox.h.  At most one reply is under way: either its head is incomplete and kept
 * in `head`, or its head is known and `skip` bytes of it are awaited.
 */
#include "client/bench/inbox.h"

#include <string.h>

const uint8_t *inbox_begin(struct inbox *inbox, uint8_t *received)
{
    uint8_t *begin = received - inbox->kept;
    memcpy(begin, inbox->head, inbox->kept);
    inbox->kept = 0;
    return begin;
}

/* The rest of a reply whose head is known. */
static enum inbox_next finish_begun(struct inbox *inbox, struct bytes *bytes, struct reply *reply)
{
    uint64_t there = (uint64_t)(bytes->end - bytes->at);
    if (there < inbox->skip) {
        inbox->skip -= there;
        bytes->at = bytes->end;
        return INBOX_EMPTY;
    }
    bytes->at += inbox->skip;
    inbox->skip = 0;
    *reply = inbox->begun;
    return INBOX_REPLY;
}

enum inbox_next inbox_take(struct inbox *inbox, const struct protocol *protocol, struct bytes *bytes,
                           struct reply *reply)
{
    if (inbox->skip != 0)
        return finish_begun(inbox, bytes, reply);
    size_t there = (size_t)(bytes->end - bytes->at);
    if (there == 0)
        return INBOX_EMPTY;
    enum parsed parsed = protocol->parse(bytes->at, there, reply);
    if (parsed == PARSED_HEAD && reply->size <= there) {
        bytes->at += reply->size;
        return INBOX_REPLY;
    }
    if (parsed == PARSED_HEAD) {
        inbox->begun = *reply;
        inbox->begun.text = "";
        inbox->begun.text_len = 0;
        inbox->skip = reply->size - there;
    } else if (parsed == PARSED_MORE && there <= sizeof inbox->head) {
        memcpy(inbox->head, bytes->at, there);
        inbox->kept = (uint32_t)there;
    } else {
        return INBOX_BROKEN;
    }
    bytes->at = bytes->end;
    return INBOX_EMPTY;
}
