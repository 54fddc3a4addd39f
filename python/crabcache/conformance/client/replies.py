# SPDX-License-Identifier: MIT
"""Sections 4.5, 4.6, 6 and 8: how a client reads replies and errors."""
from __future__ import annotations

import struct
import time
from typing import Any

from ... import wire
from ...testing.model import error
from ...wire import ErrorCode
from ..case import Failed, Skipped
from .play import ClientContext, case


def frame(op: int, body: bytes) -> bytes:
    """Any frame with a header."""
    return struct.pack("<BI", op, len(body)) + body


@case("3.1.2", 1)
def replies_in_pieces(context: ClientContext) -> None:
    """replies that arrive byte by byte are read"""
    context.open()
    for reply, answer in ((wire.MetaReply(version=5, ttl_ms=9, app_flags=1, value=b"value"), "meta 5 9 1 76616c7565"),
                          (wire.NullReply(), "miss")):
        context.command("meta", b"k")
        request = context.request(wire.GetRequest)
        for byte in context.wrapped(request, reply):
            context.send(bytes([byte]))
            time.sleep(0.001)
        context.expect(answer)
    context.expect_same("after replies in pieces")


@case("3.1.2", 2)
def replies_at_once(context: ClientContext) -> None:
    """many replies that arrive at once are read, each for its request"""
    context.open()
    context.command("pipeline", 60)
    for number in range(60):
        context.command("get", b"%d" % number)
    requests = [context.request(wire.GetRequest) for _ in range(60)]
    context.send(*[context.wrapped(request, wire.ValueReply(value=request.key) if number % 3 else wire.NullReply())
                   for number, request in enumerate(requests)])
    for number in range(60):
        context.expect(f"value {(b'%d' % number).hex()}" if number % 3 else "miss")


@case("1.1.2", 1, covers=("4.5.2", "11.1.2"))
def steps_over_everything(context: ClientContext) -> None:
    """unknown replies and pushes of every op are stepped over"""
    context.open()
    for op in (0x1B, 0x1C, 0x1E, 0x20, 0x3F, 0x7F):
        context.command("incr", b"k", 1)
        request = context.request(wire.IncrRequest)
        context.send(frame(0xC2, b""), frame(0xFF, bytes(5000)), context.wrapped(request, frame(op, b"\x10\x11\x12" * 7)))
        context.expect("failed unknown")
    context.expect_same("after unknown replies")


@case("4.5.3", 1)
def unknown_reply(context: ClientContext) -> None:
    """an unknown reply fails the oldest request with unknown outcome, and the connection goes on"""
    requests = context.three_incrs()
    context.send(context.wrapped(requests[1], frame(0x44, b"from the future")))
    context.reply(requests[2], wire.NumberReply(value=3))
    context.expect("number 1")
    context.expect("failed unknown")
    context.expect("number 3")
    context.expect_same("after an unknown reply")


@case("4.5.4", 1, covers=("12.1.2", "12.1.3"))
def ops_of_requests(context: ClientContext) -> None:
    """an op that no server sends closes the connection, at its first byte"""
    for op in (0x00, 0x03, 0x0F, 0x80, 0xBF):
        context.violation(f"op {op:#04x}", bytes([op]))


@case("4.5.6", 1)
def reply_of_another_request(context: ClientContext) -> None:
    """a known reply that the request cannot have closes the connection"""
    for reply in (wire.OkReply(), wire.PongReply(), wire.ValueReply(value=b"1"), wire.StatsReply(text=b"1"), wire.StoredReply(version=1),
                  wire.ExistsReply(version=1), wire.MetaReply(version=1, ttl_ms=1, value=b"1"),
                  wire.WelcomeReply(version=1, max_in_flight=1)):
        context.violation(f"{reply.OP.name} to an INCR", reply, wrap=True)


@case("4.5.7", 1, should=True)
def checks_early(context: ClientContext) -> None:
    """a frame that is too short for its kind is refused by its header"""
    context.violation("NUMBER with a length of 7", struct.pack("<BI", wire.ReplyOp.NUMBER, 7))


# ------------------------------------------------------------------------------------------------------ tags


@case("4.6.1", 1)
def fatal_code_inside(context: ClientContext) -> None:
    """a fatal code inside TAGGED fails the request with it, and the client closes"""
    context.open("tags")
    context.command("incr", b"k", 1)
    context.reply(context.request(wire.IncrRequest), error(ErrorCode.BAD_FRAME))
    context.expect("failed permanent 0202")
    context.expect_closed("a fatal code inside TAGGED")


@case("4.6.2", 1)
def malformed_inside(context: ClientContext) -> None:
    """TAGGED must be filled exactly by one reply, neither a push nor TAGGED"""
    number = wire.encode_reply(wire.NumberReply(value=5))
    insides = {"nothing": b"", "a byte too many": number + b"\0", "a byte too few": number[:-1], "two replies": b"\x10\x10",
               "a push": wire.encode_reply(wire.GoawayPush(code=1)), "an unknown push": frame(0xF0, b""),
               "TAGGED": frame(0x1F, bytes(4) + b"\x10"), "a request": b"\x01", "half a header": b"\x18\x08\0"}
    for name, inside in insides.items():
        context.violation(f"TAGGED with {name}", inside, wrap=True, open_words=("tags",))


@case("4.6.2", 2)
def unknown_inside(context: ClientContext) -> None:
    """an unknown reply inside TAGGED is allowed"""
    context.open("tags")
    context.command("incr", b"k", 1)
    context.send(context.wrapped(context.request(wire.IncrRequest), frame(0x55, b"abc")))
    context.expect("failed unknown")
    context.expect_same("after an unknown reply inside TAGGED")


@case("4.6.3", 1)
def another_tag(context: ClientContext) -> None:
    """a reply with another tag closes the connection, and is handed to nobody"""
    context.open("tags")
    for difference in (1, 0x80000000):
        context.command("incr", b"k", 1)
        request = context.request(wire.IncrRequest)
        context.send(wire.NumberReply(value=5, tag=request.tag ^ difference))
        context.expect("failed unknown")
        context.expect_closed("another tag")


@case("4.6.3", 2)
def bare_reply(context: ClientContext) -> None:
    """an unwrapped reply to a request with a tag closes the connection"""
    context.violation("an unwrapped reply", wire.NumberReply(value=5), open_words=("tags",))


@case("4.6.3", 3)
def tag_unasked(context: ClientContext) -> None:
    """TAGGED to a request without a tag closes the connection"""
    context.open()
    context.command("incr", b"k", 1)
    request = context.request(wire.IncrRequest)
    if request.flags & wire.Flag.TAG:
        raise Skipped("the client has a tag on every request")
    context.send(wire.NumberReply(value=5, tag=0))
    context.expect("failed unknown")
    context.expect_closed("TAGGED for an untagged request")


@case("4.6.3", 4)
def swapped_replies(context: ClientContext) -> None:
    """two replies in the wrong order are noticed by their tags"""
    context.open("tags")
    context.command("pipeline", 2)
    context.command("incr", b"a", 1)
    context.command("incr", b"b", 1)
    first, second = context.request(wire.IncrRequest), context.request(wire.IncrRequest)
    if first.tag == second.tag:
        raise Failed("both requests have the same tag")
    context.send(context.wrapped(second, wire.NumberReply(value=2)), context.wrapped(first, wire.NumberReply(value=1)))
    for _ in range(2):
        context.expect("failed unknown")
    context.expect_closed("replies in the wrong order")


# --------------------------------------------------------------------------------------------- what is ignored


@case("6.0.1", 1)
def longer_replies(context: ClientContext) -> None:
    """bytes behind the fields of EXISTS, NUMBER and STORED are ignored"""
    context.open()
    for words, op, answer in ((("incr", b"k", 1), wire.ReplyOp.NUMBER, "number 5"),
                              (("put", b"k", b"v", "absent"), wire.ReplyOp.EXISTS, "exists 5"),
                              (("put", b"k", b"v", "want"), wire.ReplyOp.STORED, "stored 5")):
        context.command(*words)
        context.send(context.wrapped(context.request(), frame(op, struct.pack("<Q", 5) + b"something new")))
        context.expect(answer)
    context.expect_same("after longer replies")


@case("12.1.2", 2)
def strange_numbers(context: ClientContext) -> None:
    """version 0, a time left of 0 are taken as they are"""
    context.open()
    context.command("meta", b"k")
    context.reply(context.request(wire.GetRequest), wire.MetaReply(version=0, ttl_ms=0, value=b"v"))
    context.expect("meta 0 0 0 76")
    context.command("put", b"k", b"v", "absent")
    context.reply(context.request(wire.PutRequest), wire.ExistsReply(version=0))
    context.expect("exists 0")


def after_surplus(context: ClientContext, *words: str, together: bool) -> None:
    """An INCR with a reply too many, with the right one or later; the next INCR must not get it."""
    context.open(*words)
    context.command("incr", b"k", 1)
    request = context.request(wire.IncrRequest)
    right, surplus = (context.wrapped(request, wire.NumberReply(value=value)) for value in (1, 666))
    context.send(right + surplus if together else right)
    context.expect("number 1")
    if not together:
        context.send(surplus)
    time.sleep(0.05)
    before = context.connections
    context.command("incr", b"k", 1)
    answer = context.answer_or_request(wire.IncrRequest)
    if answer is None and context.connections == before:
        if not words:
            raise Failed("the client goes on with the connection")
        answer = context.answer()  # the surplus reply has another tag, and that comes to light now
    if answer is None:
        context.reply(context.last, wire.NumberReply(value=2))
        answer = context.answer()
    if answer[0] != "failed" and answer != ["number", "2"]:
        raise Failed(f"the client says {' '.join(answer)!r}, which nobody has asked for")


@case("12.1.2", 3)
def surplus_reply(context: ClientContext) -> None:
    """a reply too many, behind the right one, closes the connection, and is no answer to the next request"""
    after_surplus(context, together=True)


@case("12.1.4", 1, should=True)
def late_surplus_reply(context: ClientContext) -> None:
    """a reply that arrives while nothing is asked is found before the next request is sent"""
    after_surplus(context, together=False)


@case("12.1.2", 4, covers=("13.7.1",))
def late_surplus_with_tags(context: ClientContext) -> None:
    """with tags a reply that arrives while nothing is asked never answers the next request"""
    after_surplus(context, "tags", together=False)


# -------------------------------------------------------------------------------------------- NULL and errors


@case("6.3.1", 1, covers=("5.0.3",))
def null_is_a_miss(context: ClientContext) -> None:
    """NULL, an empty value and an error are three different answers"""
    context.open()
    context.command("put", b"k", b"v")
    request = context.request(wire.PutRequest)
    context.reply(request, wire.StoredReply(version=9) if request.flags & wire.PutRequest.WANT_VERSION else wire.OkReply())
    context.expect("ok", "stored 9")
    for reply, answer in ((wire.NullReply(), "miss"), (wire.ValueReply(value=b""), "value -"),
                          (error(ErrorCode.BUSY), "failed retry 0101")):
        context.command("get", b"k")
        if isinstance(reply, wire.ErrorReply):
            reply.code = ErrorCode.OUT_OF_MEMORY
        context.reply(context.request(wire.GetRequest), reply)
        context.expect(answer)


def expect_failure(context: ClientContext, code: int, how: str, text: bytes = b"") -> None:
    """An INCR that is answered ERROR must fail in a way; a RETRY may be repeated after a pause, some times."""
    context.command("incr", b"k", 1)
    times: list[float] = []
    while True:
        words: Any = context.answer_or_request(wire.IncrRequest)
        if words is not None:
            break
        times.append(time.monotonic())
        if len(times) > 1 and how != "retry":
            raise Failed(f"INCR was sent again after the error {code:#06x}")
        if len(times) > 50:
            raise Failed("INCR was sent more than 50 times")
        context.send(context.wrapped(context.last, frame(wire.ReplyOp.ERROR, struct.pack("<H", code) + text)))
    if " ".join(words) != f"failed {how} {code:04x}":
        raise Failed(f"the error {code:#06x} is answered {' '.join(words)!r}")
    if any(later - earlier < 0.001 for earlier, later in zip(times, times[1:])) and len(times) > 5:
        raise Failed("INCR was sent again without a pause")


@case("6.4.1", 1, covers=("2.1.5", "10.3.1", "13.8.1"))
def text_does_not_matter(context: ClientContext) -> None:
    """the code decides, whatever the text says: none, a lie, a long one, or what is no UTF-8"""
    context.open()
    for text in (b"", b"OK", b"busy, retry later", b"\xff\xfe\0\x1b[31m", bytes(range(256)) * 40):
        expect_failure(context, 0x0209, "permanent", text)
    context.expect_same("after strange texts")


@case("8.1.1", 2)
def unknown_codes(context: ClientContext) -> None:
    """unknown codes are taken by their class, unknown classes as unknown outcome"""
    context.open()
    for code, how in ((0x01EE, "retry"), (0x02EE, "permanent"), (0x03EE, "unknown"), (0x04EE, "unknown"), (0x0001, "unknown"),
                      (0xFFFF, "unknown")):
        expect_failure(context, code, how)
    context.expect_same("after unknown codes")


@case("8.1.2", 1)
def retries_are_bounded(context: ClientContext) -> None:
    """a request that is refused with RETRY is sent again only some times, and after pauses"""
    context.open()
    expect_failure(context, ErrorCode.BUSY, "retry")
    expect_failure(context, ErrorCode.OUT_OF_MEMORY, "retry")


@case("5.6.2", 1)
def strange_statistics(context: ClientContext) -> None:
    """unknown sections and lines of statistics are no failure"""
    context.open()
    context.command("stats")
    text = b"weather.rain:yes\nserver.new.name:a:b:c\nserver.empty:\nserver.version:0.1.0\n"
    context.reply(context.request(wire.StatsRequest), wire.StatsReply(text=text))
    context.expect("text *")
    context.expect_same("after strange statistics")
