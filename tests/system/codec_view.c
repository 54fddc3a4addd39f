/* SPDX-License-Identifier: MIT */
/*
 * The C codec for test_properties.py, through ctypes: what the decoders say of some bytes, in one flat structure, and what
 * the encoders make of the message again.  Compiled by the test into a library of its own.
 */
#include <stdbool.h>
#include <string.h>

#include "crabcache/wire.h"

#define VIEW __attribute__((visibility("default")))
#define MAX_FIELDS 6

struct view {
    uint64_t size; /* used, needed, or to be skipped */
    uint64_t fields[MAX_FIELDS];
    uint64_t ext_at, ext_len, key_at, key_len, tail_at, tail_len;
    uint32_t tag;
    uint16_t error;
    uint8_t kind; /* enum crab_decode */
    uint8_t op;
    uint8_t flags;
    uint8_t tagged;
};

VIEW size_t view_size(void);
VIEW size_t view_request(const uint8_t *buf, size_t len, uint32_t max_value, struct view *view, uint8_t *again, size_t cap);
VIEW size_t view_reply(const uint8_t *buf, size_t len, uint32_t max_len, struct view *view, uint8_t *again, size_t cap);

size_t view_size(void)
{
    return sizeof(struct view);
}

static void place(const uint8_t *buf, struct crab_slice slice, uint64_t *at, uint64_t *len)
{
    *at = slice.len != 0 ? (uint64_t)(slice.data - buf) : 0;
    *len = slice.len;
}

static void request_fields(const union crab_request *message, uint64_t *fields)
{
    switch (message->head.op) {
    case CRAB_OP_PUT:
        fields[0] = message->put.ttl_ms;
        fields[1] = message->put.app_flags;
        fields[2] = message->put.version;
        break;
    case CRAB_OP_GET: fields[0] = message->get.ttl_ms; break;
    case CRAB_OP_EXPIRE: fields[0] = message->expire.ttl_ms; break;
    case CRAB_OP_HELLO:
        fields[0] = message->hello.version_min;
        fields[1] = message->hello.version_max;
        fields[2] = message->hello.features;
        break;
    case CRAB_OP_INCR:
        fields[0] = message->incr.delta;
        fields[1] = message->incr.ttl_ms;
        fields[2] = (uint64_t)message->incr.initial;
        break;
    case CRAB_OP_DECR:
        fields[0] = message->decr.delta;
        fields[1] = message->decr.ttl_ms;
        fields[2] = (uint64_t)message->decr.initial;
        break;
    default: break;
    }
}

size_t view_request(const uint8_t *buf, size_t len, uint32_t max_value, struct view *view, uint8_t *again, size_t cap)
{
    union crab_request message;
    struct crab_frame frame = {0};
    memset(view, 0, sizeof *view);
    memset(&message, 0, sizeof message);
    view->kind = (uint8_t)crab_request_decode(buf, len, max_value, &message, &frame);
    view->size = frame.size;
    view->error = frame.error;
    view->op = message.head.op;
    view->flags = message.head.flags;
    view->tag = message.head.tag;
    if (view->kind != CRAB_WHOLE)
        return 0;
    place(buf, message.head.ext, &view->ext_at, &view->ext_len);
    place(buf, message.head.key, &view->key_at, &view->key_len);
    place(buf, message.head.value, &view->tail_at, &view->tail_len);
    request_fields(&message, view->fields);
    return crab_request_encode(&message, again, cap);
}

static struct crab_slice reply_fields(const union crab_reply *message, uint64_t *fields)
{
    const struct crab_slice none = {NULL, 0};
    switch (message->head.op) {
    case CRAB_REP_OK:
    case CRAB_REP_PONG:
    case CRAB_REP_NULL: return none;
    case CRAB_REP_ERROR: fields[0] = message->error.code; return message->error.text;
    case CRAB_REP_VALUE: return message->value.value;
    case CRAB_REP_STATS: return message->stats.text;
    case CRAB_REP_META:
        fields[0] = message->meta.version;
        fields[1] = message->meta.ttl_ms;
        fields[2] = message->meta.app_flags;
        return message->meta.value;
    case CRAB_REP_EXISTS: fields[0] = message->exists.version; return none;
    case CRAB_REP_NUMBER: fields[0] = (uint64_t)message->number.value; return none;
    case CRAB_REP_STORED: fields[0] = message->stored.version; return none;
    case CRAB_REP_WELCOME:
        fields[0] = message->welcome.version;
        fields[1] = message->welcome.features;
        fields[2] = message->welcome.max_key;
        fields[3] = message->welcome.max_value;
        fields[4] = message->welcome.max_in_flight;
        return message->welcome.server_name;
    case CRAB_PUSH_LATE_ERROR:
        fields[0] = message->late_error.late_tag;
        fields[1] = message->late_error.code;
        return message->late_error.text;
    case CRAB_PUSH_GOAWAY: fields[0] = message->goaway.code; return message->goaway.text;
    default: return message->unknown.payload;
    }
}

size_t view_reply(const uint8_t *buf, size_t len, uint32_t max_len, struct view *view, uint8_t *again, size_t cap)
{
    union crab_reply message;
    struct crab_frame frame = {0};
    memset(view, 0, sizeof *view);
    memset(&message, 0, sizeof message);
    view->kind = (uint8_t)crab_reply_decode(buf, len, max_len, &message, &frame);
    view->size = frame.size;
    view->error = frame.error;
    if (view->kind != CRAB_WHOLE)
        return 0;
    view->op = message.head.op;
    view->tagged = message.head.tagged;
    view->tag = message.head.tag;
    place(buf, reply_fields(&message, view->fields), &view->tail_at, &view->tail_len);
    return crab_reply_encode(&message, again, cap);
}
