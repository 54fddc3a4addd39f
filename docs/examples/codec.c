/* SPDX-License-Identifier: MIT */
/*
 * The codec by itself: bytes that go to a server, and bytes that came from one.  It has no sockets and allocates nothing, so that it
 * fits under whatever moves the bytes; nothing is linked.
 *
 *     cc codec.c $(pkg-config --cflags crabcache) -o codec && ./codec
 */
#include <crabcache/wire.h>
#include <stdio.h>

static void dump(const char *what, const uint8_t *bytes, size_t len)
{
    printf("%s:", what);
    for (size_t i = 0; i < len; i++)
        printf(" %02x", bytes[i]);
    printf("\n");
}

//! [encode]
static size_t put_with_ttl(uint8_t *buf, size_t cap)
{
    struct crab_req_put put = {
        .flags = CRAB_PUT_TTL, .ttl_ms = 60000, .key = crab_slice_str("colour"), .value = crab_slice_str("blue"),
    };
    return crab_req_put_encode(&put, buf, cap); /* 0: it breaks a rule, or has no room */
}
//! [encode]

//! [decode]
/* Takes what replies the bytes hold; gives back how many bytes of them were used. */
static size_t take_replies(const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    for (;;) {
        union crab_reply reply;
        struct crab_frame frame;
        switch (crab_reply_decode(bytes + used, len - used, CRAB_DEFAULT_MAX_VALUE, &reply, &frame)) {
        case CRAB_NEED_MORE:
            printf("the next reply has %zu bytes of at least %llu\n", len - used, (unsigned long long)frame.size);
            return used;
        case CRAB_MALFORMED:
            printf("not to be trusted: %s\n", crab_error_name(frame.error));
            return used;
        case CRAB_WHOLE:
            break;
        }
        used += (size_t)frame.size;
        if (reply.head.op == CRAB_REP_VALUE)
            printf("VALUE %.*s\n", (int)reply.value.value.len, (const char *)reply.value.value.data);
        else
            printf("%s\n", crab_reply_name(reply.head.op));
    }
}
//! [decode]

int main(void)
{
    static const uint8_t replies[] = {0x10, 0x14, 4, 0, 0, 0, 'b', 'l', 'u', 'e', 0x12, 0x14, 9, 0};
    uint8_t buf[64];
    dump("PUT", buf, put_with_ttl(buf, sizeof buf));
    printf("used %zu of %zu bytes\n", take_replies(replies, sizeof replies), sizeof replies);
    return 0;
}
