/* SPDX-License-Identifier: MIT */
/*
 * The parts of crabcache-bench: requests byte for byte, replies cut at every place, lengths of values, and a connection
 * over a socket that takes its requests in pieces.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/bench/choice.h"
#include "client/bench/cpu.h"
#include "client/bench/inbox.h"
#include "client/bench/link.h"
#include "client/bench/protocol.h"
#include "client/bench/request.h"
#include "client/bench/sizes.h"
#include "crabcache/wire.h"

static const struct protocol *const protocols[] = {&protocol_native, &protocol_resp, &protocol_memcached,
                                                   &protocol_memcached_classic};

/* ---- requests ------------------------------------------------------------------------------------------------- */

static size_t written(struct requests *requests, enum request_op op, uint64_t number, const char *value, uint8_t *out)
{
    const struct frame *frame = requests_write(requests, op, number, (uint32_t)strlen(value), out);
    size_t len = frame->len;
    memcpy(out + len, value, strlen(value));
    memcpy(out + len + strlen(value), frame->tail, frame->tail_len);
    len += strlen(value) + frame->tail_len;
    assert_int_equal(len, requests_size(requests, op, (uint32_t)strlen(value)));
    return len;
}

static void check_request(const struct protocol *protocol, const char *get, size_t get_len, const char *put,
                          size_t put_len)
{
    struct requests requests;
    uint8_t out[1024];
    requests_init(&requests, protocol, 16);
    assert_int_equal(written(&requests, REQUEST_PUT, 987654321012, "hello", out), put_len);
    assert_memory_equal(out, put, put_len);
    assert_int_equal(written(&requests, REQUEST_GET, 42, "", out), get_len);
    assert_memory_equal(out, get, get_len);
    assert_int_equal(written(&requests, REQUEST_PUT, 987654321012, "hello", out), put_len);
    assert_memory_equal(out, put, put_len);
}

#define CHECK_REQUEST(protocol, get, put) check_request(protocol, get, sizeof(get) - 1, put, sizeof(put) - 1)

static void requests_are_right_byte_for_byte(void **state)
{
    (void)state;
    CHECK_REQUEST(&protocol_native, "\x03\0\x10\0\x10\0\0\0key:000000000042",
                  "\x02\0\x10\0\x15\0\0\0key:987654321012hello");
    CHECK_REQUEST(&protocol_resp, "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n",
                  "*3\r\n$3\r\nSET\r\n$16\r\nkey:987654321012\r\n$5\r\nhello\r\n");
    CHECK_REQUEST(&protocol_memcached, "mg key:000000000042 v\r\n", "ms key:987654321012 5\r\nhello\r\n");
    CHECK_REQUEST(&protocol_memcached_classic, "get key:000000000042\r\n",
                  "set key:987654321012 0 0 5\r\nhello\r\n");
}

static void keys_of_every_length_and_number(void **state)
{
    (void)state;
    uint64_t numbers[] = {0, 9, 10, 99, 99999999, 100000000, 999999999999, 123456789, 10000, 9999};
    for (uint32_t key_len = REQUEST_DIGITS; key_len <= PROTOCOL_KEY_MAX; key_len++) {
        for (size_t i = 0; i < sizeof protocols / sizeof protocols[0]; i++) {
            struct requests requests;
            uint8_t out[sizeof(struct frame)];
            char expected[PROTOCOL_KEY_MAX + 1];
            uint64_t number = numbers[key_len % 10];
            uint32_t padding = key_len - REQUEST_DIGITS;
            memset(expected, '0', padding);
            memcpy(expected, "key:", padding < 4 ? padding : 4);
            (void)snprintf(expected + padding, REQUEST_DIGITS + 1, "%012llu", (unsigned long long)number);
            requests_init(&requests, protocols[i], key_len);
            const struct frame *frame = requests_write(&requests, REQUEST_PUT, number, 1073741824, out);
            assert_memory_equal(out + frame->key_at, expected, key_len);
            assert_true(frame->len <= sizeof frame->bytes);
        }
    }
    struct requests requests;
    uint8_t out[sizeof(struct frame)];
    requests_init(&requests, &protocol_native, REQUEST_DIGITS);
    for (uint64_t number = 0; number < REQUEST_KEYS_MAX; number += number / 7 + 1) {
        char expected[REQUEST_DIGITS + 1];
        (void)snprintf(expected, sizeof expected, "%012llu", (unsigned long long)number);
        const struct frame *frame = requests_write(&requests, REQUEST_GET, number, 0, out);
        assert_memory_equal(out + frame->key_at, expected, REQUEST_DIGITS);
    }
}

static void our_requests_are_what_the_codec_reads(void **state)
{
    struct requests requests;
    uint8_t out[1024];
    union crab_request request = {0};
    struct crab_frame frame;
    (void)state;
    requests_init(&requests, &protocol_native, 20);
    size_t len = written(&requests, REQUEST_PUT, 7, "value", out);
    assert_int_equal(crab_request_decode(out, len, CRAB_DEFAULT_MAX_VALUE, &request, &frame), CRAB_WHOLE);
    assert_int_equal(frame.size, len);
    assert_int_equal(request.head.op, CRAB_OP_PUT);
    assert_int_equal(request.head.key.len, 20);
    assert_memory_equal(request.head.key.data, "key:0000000000000007", 20);
    assert_memory_equal(request.head.value.data, "value", 5);
}

/* ---- replies -------------------------------------------------------------------------------------------------- */

struct expected {
    enum reply_kind kind;
    uint64_t value_len;
    const char *text;
};

#define STREAM_REPLIES 8U

struct stream {
    const struct protocol *protocol;
    const char *bytes;
    size_t len;
    struct expected replies[STREAM_REPLIES];
};

#define STREAM(of, text) .protocol = (of), .bytes = (text), .len = sizeof(text) - 1

static const struct stream streams[] = {
    {STREAM(&protocol_native, "\x14\x05\0\0\0hello" "\x12" "\x10" "\x14\0\0\0\0" "\x13\x07\0\0\0\x05\x02" "large"
                              "\x11" "\x10" "\x18\x08\0\0\0" "12345678"),
     {{REPLY_VALUE, 5, ""}, {REPLY_MISS, 0, ""}, {REPLY_STORED, 0, ""}, {REPLY_VALUE, 0, ""},
      {REPLY_ERROR, 0, "large"}, {REPLY_OTHER, 0, ""}, {REPLY_STORED, 0, ""}, {REPLY_OTHER, 0, ""}}},
    {STREAM(&protocol_resp, "$5\r\nhello\r\n" "$-1\r\n" "+OK\r\n" "$0\r\n\r\n" "-OOM too much\r\n" "_\r\n"
                            ":7\r\n" "+QUEUED\r\n"),
     {{REPLY_VALUE, 5, ""}, {REPLY_MISS, 0, ""}, {REPLY_STORED, 0, ""}, {REPLY_VALUE, 0, ""},
      {REPLY_ERROR, 0, "OOM too much"}, {REPLY_MISS, 0, ""}, {REPLY_OTHER, 0, ""}, {REPLY_OTHER, 0, ""}}},
    {STREAM(&protocol_memcached, "VA 5\r\nhello\r\n" "EN\r\n" "HD\r\n" "VA 0\r\n\r\n" "SERVER_ERROR out of memory\r\n"
                                 "VA 12\r\nEND\r\nVA 5\r\nx\r\n" "NS\r\n" "MN\r\n"),
     {{REPLY_VALUE, 5, ""}, {REPLY_MISS, 0, ""}, {REPLY_STORED, 0, ""}, {REPLY_VALUE, 0, ""},
      {REPLY_ERROR, 0, "SERVER_ERROR out of memory"}, {REPLY_VALUE, 12, ""}, {REPLY_ERROR, 0, "NS"},
      {REPLY_OTHER, 0, ""}}},
    {STREAM(&protocol_memcached_classic, "VALUE key:1 0 5\r\nhello\r\nEND\r\n" "END\r\n" "STORED\r\n"
                                         "VALUE key:1 99 0\r\n\r\nEND\r\n" "ERROR\r\n" "NOT_STORED\r\n"
                                         "VALUE 12345 0 10\r\n0123456789\r\nEND\r\n" "DELETED\r\n"),
     {{REPLY_VALUE, 5, ""}, {REPLY_MISS, 0, ""}, {REPLY_STORED, 0, ""}, {REPLY_VALUE, 0, ""},
      {REPLY_ERROR, 0, "ERROR"}, {REPLY_ERROR, 0, "NOT_STORED"}, {REPLY_VALUE, 10, ""}, {REPLY_OTHER, 0, ""}}},
};

struct reader {
    const struct stream *stream;
    struct inbox inbox;
    size_t seen;
};

/* Receive some bytes, as link_receive() does, and compare the replies. */
static void feed(struct reader *reader, const char *bytes, size_t len)
{
    uint8_t buffer[PROTOCOL_HEAD_MAX + 512];
    uint8_t *in = buffer + PROTOCOL_HEAD_MAX;
    struct reply reply;
    memcpy(in, bytes, len);
    struct bytes left = {.at = inbox_begin(&reader->inbox, in), .end = in + len};
    enum inbox_next next;
    while ((next = inbox_take(&reader->inbox, reader->stream->protocol, &left, &reply)) == INBOX_REPLY) {
        const struct expected *expected = &reader->stream->replies[reader->seen++];
        assert_int_equal(reply.kind, expected->kind);
        if (reply.kind == REPLY_VALUE)
            assert_int_equal(reply.value_len, expected->value_len);
        if (reply.kind == REPLY_ERROR) {
            assert_int_equal(reply.text_len, strlen(expected->text));
            assert_memory_equal(reply.text, expected->text, reply.text_len);
        }
    }
    assert_int_equal(next, INBOX_EMPTY);
    assert_ptr_equal(left.at, left.end);
}

static void replies_cut_at_every_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        const struct stream *stream = &streams[i];
        for (size_t first = 0; first <= stream->len; first++) {
            for (size_t second = first; second <= stream->len; second++) {
                struct reader reader = {.stream = stream};
                feed(&reader, stream->bytes, first);
                feed(&reader, stream->bytes + first, second - first);
                feed(&reader, stream->bytes + second, stream->len - second);
                assert_int_equal(reader.seen, STREAM_REPLIES);
            }
        }
        struct reader reader = {.stream = stream};
        for (size_t at = 0; at < stream->len; at++)
            feed(&reader, stream->bytes + at, 1);
        assert_int_equal(reader.seen, STREAM_REPLIES);
    }
}

static void what_is_no_reply_is_seen(void **state)
{
    static const struct {
        const struct protocol *protocol;
        const char *bytes;
    } broken[] = {
        {&protocol_native, "\x0f"},      {&protocol_native, "\x80"},         {&protocol_native, "\xc0"},
        {&protocol_native, "HTTP/"},     {&protocol_resp, "HTTP/1.1"},       {&protocol_resp, "$x\r\n"},
        {&protocol_resp, "$-2\r\n"},     {&protocol_resp, "$99999999999\r\n"}, {&protocol_resp, "$\r\n"},
        {&protocol_resp, "+OK\n"},       {&protocol_memcached, "\x14"},      {&protocol_memcached, "VA x\r\n"},
        {&protocol_memcached, "VA \r\n"}, {&protocol_memcached, "HD\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        struct inbox inbox = {0};
        struct reply reply;
        struct bytes bytes = {.at = (const uint8_t *)broken[i].bytes};
        bytes.end = bytes.at + strlen(broken[i].bytes);
        if (inbox_take(&inbox, broken[i].protocol, &bytes, &reply) != INBOX_BROKEN)
            fail_msg("%s: %s", broken[i].protocol->name, broken[i].bytes);
    }
}

/* A line without end must not be kept for ever. */
static void a_head_has_a_limit(void **state)
{
    (void)state;
    for (size_t i = 1; i < sizeof protocols / sizeof protocols[0]; i++) {
        uint8_t buffer[2 * PROTOCOL_HEAD_MAX];
        struct inbox inbox = {0};
        struct reply reply;
        enum inbox_next next = INBOX_EMPTY;
        size_t fed = 0;
        for (; next == INBOX_EMPTY && fed < 2 * PROTOCOL_HEAD_MAX; fed++) {
            uint8_t *in = buffer + PROTOCOL_HEAD_MAX;
            *in = fed == 0 && protocols[i] == &protocol_resp ? '-' : 'E';
            struct bytes bytes = {.at = inbox_begin(&inbox, in), .end = in + 1};
            next = inbox_take(&inbox, protocols[i], &bytes, &reply);
        }
        assert_int_equal(next, INBOX_BROKEN);
        assert_int_equal(fed, PROTOCOL_HEAD_MAX);
    }
}

/* ---- lengths and choices -------------------------------------------------------------------------------------- */

static void lengths_are_read_and_followed(void **state)
{
    static struct sizes sizes;
    (void)state;
    static const char *const bad[] = {"", "x", "5-", "-5", "5-4", "1:0", "1:", "1,", ",1", "1 ", "1025", "2K", "1-2K",
                                      "1:1000001", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sizes_read(&sizes, bad[i], 1024), -1);
    assert_int_equal(sizes_read(&sizes, "1K", 1024), 0);
    assert_int_equal(sizes_of(&sizes, 5), 1024);
    assert_int_equal(sizes_read(&sizes, "1M", 1048576), 0);
    assert_int_equal(sizes_of(&sizes, 5), 1048576);
    assert_int_equal(sizes_read(&sizes, "0", 1024), 0);
    assert_int_equal(sizes_of(&sizes, 5), 0);
    assert_int_equal(sizes_read(&sizes, "64:70,100-200:25,1K:5", 1024), 0);
    assert_int_equal(sizes.most, 1024);
    uint64_t counts[3] = {0};
    uint32_t least = UINT32_MAX;
    uint32_t most = 0;
    for (uint64_t number = 0; number < 100000; number++) {
        uint32_t length = sizes_of(&sizes, number);
        assert_int_equal(length, sizes_of(&sizes, number));
        assert_true(length == 64 || length == 1024 || (length >= 100 && length <= 200));
        counts[length == 64 ? 0 : length == 1024 ? 2 : 1]++;
        if (length != 64 && length != 1024) {
            least = length < least ? length : least;
            most = length > most ? length : most;
        }
    }
    assert_in_range(counts[0], 69000, 71000);
    assert_in_range(counts[1], 24000, 26000);
    assert_in_range(counts[2], 4500, 5500);
    assert_true(least == 100 && most == 200);
}

static void choices_follow_ratio_seed_and_distribution(void **state)
{
    static uint64_t seen[100];
    struct plan plan = {.get_weight = 9, .put_weight = 1, .keys = 100, .seed = 3};
    struct choice choice;
    struct choice same;
    (void)state;
    choice_init(&choice, &plan, 0);
    choice_init(&same, &plan, 0);
    uint64_t puts = 0;
    for (int i = 0; i < 100000; i++) {
        puts += choice_op(&choice) == REQUEST_PUT;
        uint64_t key = choice_key(&choice);
        (void)choice_op(&same);
        assert_int_equal(key, choice_key(&same));
        assert_true(key < 100);
        seen[key]++;
    }
    assert_in_range(puts, 9500, 10500);
    for (int i = 0; i < 100; i++)
        assert_in_range(seen[i], 800, 1200);
    choice_init(&same, &plan, 1);
    assert_int_not_equal(choice.state, same.state);

    plan = (struct plan){.get_weight = 0, .put_weight = 1, .keys = 100, .zipf = true, .exponent = 1.0};
    choice_init(&choice, &plan, 0);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(choice_op(&choice), REQUEST_PUT);
        seen[choice_key(&choice)]++;
    }
    assert_in_range(seen[0], 18500, 20000); /* 1 / H(100) = 0.1928 */
    assert_in_range(seen[99], 130, 260);
}

static void cpu_time_of_a_process(void **state)
{
    struct cpu_time time;
    (void)state;
    assert_int_equal(cpu_of(0, &time), 0);
    assert_int_equal(cpu_of(getpid(), &time), 0);
    assert_int_equal(cpu_of(INT32_MAX, &time), -1);

    struct cpu_time begin = {.user_ns = 100, .system_ns = 100, .exact_ns = 1000};
    struct cpu_time end = {.user_ns = 400, .system_ns = 200, .exact_ns = 1500};
    struct cpu_time used = cpu_between(&begin, &end);
    assert_int_equal(used.user_ns, 375);
    assert_int_equal(used.system_ns, 125);
    end.exact_ns = 900; /* a thread has ended */
    used = cpu_between(&begin, &end);
    assert_int_equal(used.user_ns, 300);
    assert_int_equal(used.system_ns, 100);
}

/* ---- a connection --------------------------------------------------------------------------------------------- */

#define DEPTH 40U

struct wire_test {
    struct link_kit kit;
    struct link link;
    struct sizes sizes;
    struct tally tally;
    uint8_t *payload;
    int peer;
};

static void open_wire(struct wire_test *test, const struct protocol *protocol, const char *sizes)
{
    int ends[2];
    *test = (struct wire_test){.peer = -1};
    assert_int_equal(sizes_read(&test->sizes, sizes, 1 << 20), 0);
    test->payload = malloc(test->sizes.most + 1);
    assert_non_null(test->payload);
    for (uint32_t i = 0; i < test->sizes.most; i++)
        test->payload[i] = (uint8_t)(i * 31 + i / 251);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    int small = 4096;
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    assert_int_equal(link_kit_init(&test->kit, protocol, 16, &test->sizes, test->payload, &test->tally), 0);
    assert_int_equal(link_init(&test->link, ends[0], DEPTH), 0);
    test->peer = ends[1];
    test->kit.counting = test->link.measured = true;
}

static void close_wire(struct wire_test *test)
{
    link_fini(&test->link);
    link_kit_fini(&test->kit);
    free(test->payload);
    (void)close(test->peer);
}

/* Whatever the socket takes at a time, the stream is that of the requests, one after the other. */
static void a_stream_sent_in_pieces_is_whole(void **state)
{
    static struct wire_test test;
    (void)state;
    for (size_t i = 0; i < sizeof protocols / sizeof protocols[0]; i++) {
        open_wire(&test, protocols[i], "0-300:3,5000-50000:1");
        uint8_t *expected = malloc(DEPTH * 51000);
        uint8_t *received = malloc(DEPTH * 51000);
        assert_non_null(expected);
        assert_non_null(received);
        size_t expected_len = 0;
        struct requests requests;
        requests_init(&requests, protocols[i], 16);
        for (uint64_t number = 0; number < DEPTH; number++) {
            enum request_op op = number % 4 == 0 ? REQUEST_GET : REQUEST_PUT;
            link_issue(&test.link, op, number);
            uint32_t value_len = op == REQUEST_PUT ? sizes_of(&test.sizes, number) : 0;
            const struct frame *frame = requests_write(&requests, op, number, value_len, expected + expected_len);
            expected_len += frame->len;
            memcpy(expected + expected_len, test.payload, value_len);
            memcpy(expected + expected_len + value_len, frame->tail, frame->tail_len);
            expected_len += value_len + frame->tail_len;
        }
        size_t received_len = 0;
        size_t step = 1;
        while (received_len < expected_len) {
            assert_int_equal(link_send(&test.link, &test.kit), 0);
            ssize_t got = read(test.peer, received + received_len, step);
            received_len += got > 0 ? (size_t)got : 0;
            step = step % 5003 * 3 + 7;
        }
        assert_int_equal(link_send(&test.link, &test.kit), 0);
        assert_false(test.link.blocked);
        assert_int_equal(test.link.sent, DEPTH);
        assert_int_equal(received_len, expected_len);
        assert_memory_equal(received, expected, expected_len);
        assert_int_equal(test.tally.bytes_sent, expected_len);
        free(expected);
        free(received);
        close_wire(&test);
    }
}

static int64_t answered(struct wire_test *test, const char *bytes, size_t len)
{
    assert_int_equal(write(test->peer, bytes, len), len);
    return link_receive(&test->link, &test->kit);
}

static void replies_are_judged(void **state)
{
    static struct wire_test test;
    (void)state;
    open_wire(&test, &protocol_resp, "5");
    assert_int_equal(link_receive(&test.link, &test.kit), 0);
    for (uint64_t i = 0; i < 8; i++)
        link_issue(&test.link, i < 4 ? REQUEST_GET : REQUEST_PUT, i);
    assert_int_equal(link_send(&test.link, &test.kit), 0);
    static const char one[] = "$5\r\nhello\r\n$-1\r\n$4\r\nhell\r\n+OK\r\n+OK\r\n$-1\r\n";
    assert_int_equal(answered(&test, one, sizeof one - 1), 6);
    assert_int_equal(test.tally.gets, 4);
    assert_int_equal(test.tally.hits, 1);
    assert_int_equal(test.tally.misses, 1);
    assert_int_equal(test.tally.puts, 2);
    assert_int_equal(test.tally.stored, 1);
    assert_int_equal(test.tally.wrong, 3);
    assert_string_equal(test.tally.first_wrong,
                        "a get of key 2, whose value has 5 bytes, was answered by a value of 4 bytes");
    assert_int_equal(test.tally.get_ns.count, 4);
    assert_int_equal(test.tally.put_ns.count, 2);
    static const char two[] = "-OOM no\r\n-ERR other\r\n";
    assert_int_equal(answered(&test, two, sizeof two - 1), 2);
    assert_int_equal(test.tally.errors, 2);
    assert_string_equal(test.tally.first_error, "OOM no");
    assert_int_equal(link_in_flight(&test.link), 0);
    assert_int_equal(answered(&test, "+OK\r\n", 5), -1); /* nobody has asked */
    assert_non_null(strstr(test.kit.failure, "no reply of a resp server"));
    close_wire(&test);

    open_wire(&test, &protocol_native, "5");
    (void)close(test.peer);
    assert_int_equal(link_receive(&test.link, &test.kit), -1);
    assert_string_equal(test.kit.failure, "the server closed the connection");
    link_issue(&test.link, REQUEST_GET, 1);
    assert_int_equal(link_send(&test.link, &test.kit), -1);
    assert_non_null(strstr(test.kit.failure, "cannot send"));
    test.peer = -1;
    close_wire(&test);
}

/* In the open loop latency begins when a request was due, whenever it was issued. */
static void open_loop_counts_from_the_due_time(void **state)
{
    static struct wire_test test;
    (void)state;
    open_wire(&test, &protocol_resp, "5");
    test.kit.interval_ns = 1e6;
    test.kit.origin_ns = link_now_ns() - 100000000;
    test.kit.measure_ns = test.kit.origin_ns + 15000000;
    test.link.slot = 2;
    test.link.stride = 10;
    for (uint64_t i = 0; i < 4; i++) /* due 2, 12, 22 and 32 ms after the origin: 98 to 68 ms ago */
        link_issue(&test.link, REQUEST_GET, i);
    assert_int_equal(link_send(&test.link, &test.kit), 0);
    assert_int_equal(answered(&test, "$-1\r\n$-1\r\n$-1\r\n$-1\r\n", 20), 4);
    assert_int_equal(test.tally.get_ns.count, 2); /* two were due before the measurement */
    assert_in_range(histogram_percentile(&test.tally.get_ns, 0.5), 68000000, 1000000000);
    assert_true(test.tally.get_ns.most >= 78000000);
    close_wire(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_right_byte_for_byte),
        cmocka_unit_test(keys_of_every_length_and_number),
        cmocka_unit_test(our_requests_are_what_the_codec_reads),
        cmocka_unit_test(replies_cut_at_every_place),
        cmocka_unit_test(what_is_no_reply_is_seen),
        cmocka_unit_test(a_head_has_a_limit),
        cmocka_unit_test(lengths_are_read_and_followed),
        cmocka_unit_test(choices_follow_ratio_seed_and_distribution),
        cmocka_unit_test(cpu_time_of_a_process),
        cmocka_unit_test(a_stream_sent_in_pieces_is_whole),
        cmocka_unit_test(replies_are_judged),
        cmocka_unit_test(open_loop_counts_from_the_due_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
