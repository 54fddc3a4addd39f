# SPDX-License-Identifier: MIT
"""Sections 4, 11 and 12: headers, lengths, the order of checks, what is ignored, tags.  Most of it the vectors show."""
from __future__ import annotations

import struct

from ... import wire
from ...wire import ErrorCode, Flag
from ..build import delete, expire, get, hello, incr, ping, put, raw, stats
from ..case import Failed, Skipped
from ..link import show
from .context import ServerContext, case

REFUSED: list[tuple[ErrorCode, wire.Request | bytes]] = [
    (ErrorCode.UNKNOWN_OP, raw(0x9F, b"whatever it is")), (ErrorCode.BAD_KEY, raw(0x03)),
    (ErrorCode.BAD_KEY, raw(0x01, b"k", klen=1)), (ErrorCode.VALUE_TOO_LARGE, raw(0x08, b"u" + bytes(1025), klen=1)),
    (ErrorCode.BAD_FLAGS, raw(0x0B, struct.pack("<QQ", 1, 5) + b"k", flags=1, klen=1)),
    (ErrorCode.BAD_EXTENSION, raw(0x03, b"\3\0\0\x7f\1k", flags=0x20, klen=1)),
    (ErrorCode.UNKNOWN_EXTENSION, raw(0x03, b"\4\0\1\xff\0\0k", flags=0x20, klen=1)),
    (ErrorCode.BAD_FIELD, raw(0x05, bytes(8) + b"k", klen=1)), (ErrorCode.UNKNOWN_SECTION, stats(b"no_such_section")),
]


@case("4.1.1", 1, covers=("8.2.3", "12.1.1"))
def next_frame(context: ServerContext) -> None:
    """the frame behind a refused one is found and served"""
    link, key = context.connect(), context.key()
    for code, request in REFUSED:
        link.send(request, put(key, code.name.encode()), get(key))
        link.expect_error(code)
        link.expect(wire.OkReply, f"the PUT behind {code.name}")
        link.expect(wire.ValueReply, value=code.name.encode())


@case("4.1.2", 1, covers=("4.6.1",))
def tag_of_unknown_ops(context: ServerContext) -> None:
    """TAG means the same for unknown ops"""
    link = context.connect()
    link.send(raw(0xBF, b"\x2a\0\0\0and more", flags=Flag.TAG), raw(0x0E, b"\x2b\0\0\0", flags=Flag.TAG | Flag.EXT))
    link.expect_error(ErrorCode.UNKNOWN_OP, tag=42)
    link.expect_error(ErrorCode.UNKNOWN_OP, tag=43)


@case("4.1.3", 1, covers=("11.1.2",))
def reserved_flags(context: ServerContext) -> None:
    """flags that version 1 does not define are ignored"""
    key = context.key()
    link = context.connect()
    link.send(put(key, b"v"), raw(0x01, flags=0x1F), raw(0x03, key, flags=0x1C, klen=len(key)), raw(0x06, b"ops", flags=0x1F, klen=3),
              raw(0x05, struct.pack("<Q", 60_000) + key, flags=0x1F, klen=len(key)), raw(0x04, key, flags=0x1F, klen=len(key)))
    for kind in (wire.OkReply, wire.PongReply, wire.ValueReply, wire.StatsReply, wire.OkReply, wire.OkReply):
        link.expect(kind)


@case("4.2.2", 1)
def empty_value(context: ServerContext) -> None:
    """an empty value is a value"""
    link, key = context.connect(), context.key()
    link.ok(put(key, b""))
    if link.value(key) != b"":
        raise Failed("an empty value does not come back as one")


@case("4.2.3", 1, covers=("10.1.3",))
def sums_do_not_wrap(context: ServerContext) -> None:
    """lengths near the end of their ranges do not wrap"""
    for name, frame in {"PING": raw(0x01, blen=0xFFFFFFFF), "GET": raw(0x03, b"k", klen=1, blen=0xFFFFFFFF),
                        "PUT with blen 0": raw(0x02, klen=0xFFFF, blen=0), "EXPIRE": raw(0x05, klen=0xFFFF, blen=7),
                        "PUT of extensions": raw(0x02, b"\xff\xff", flags=0x20, klen=0xFFFF, blen=0x10000),
                        "tag and nothing": raw(0x02, flags=0x40, klen=0, blen=3)}.items():
        link = context.connect()
        link.send(frame, bytes(64))
        link.expect_error(ErrorCode.BAD_FRAME, what=name)
        link.expect_end(name)
        context.drop(link)


@case("4.2.4", 1)
def any_tag(context: ServerContext) -> None:
    """tags may be any number, and the same again"""
    link = context.connect()
    for tag in (0, 0xFFFFFFFF, 7, 7, 0x1F, 0):
        link.send(ping(tag=tag))
        link.expect(wire.PongReply, tag=tag)


@case("4.3.8", 1, covers=("4.3.13", "10.1.1"))
def longest_value(context: ServerContext) -> None:
    """a value of one byte over the limit is refused and skipped, the connection goes on"""
    limit, key = context.welcome().max_value, context.key()
    if limit > 1 << 28:
        raise Skipped(f"a value of {limit} bytes takes too long")
    link = context.connect()
    link.ok(put(key, b"former"))
    link.send(put(key, bytes(limit + 1), tag=8))
    link.expect_error(ErrorCode.VALUE_TOO_LARGE, tag=8)
    link.alive()
    if link.value(key) != b"former":
        raise Failed("the former item is gone")


@case("4.3.13", 1)
def long_frames_are_skipped(context: ServerContext) -> None:
    """refused frames of some megabytes are skipped"""
    link, body = context.connect(), bytes(5_000_000)
    for code, frame in ((ErrorCode.UNKNOWN_OP, raw(0x90, body)), (ErrorCode.BAD_KEY, raw(0x02, body)),
                        (ErrorCode.VALUE_TOO_LARGE, raw(0x07, b"\1\1\0\0\0\0" + body))):
        link.send(frame)
        link.expect_error(code)
        link.alive(f"after {code.name}")


@case("4.3.14", 1)
def quiet_without_push(context: ServerContext) -> None:
    """QUIET without the feature PUSH is refused before anything is done"""
    key = context.key()
    frames: dict[str, wire.Request | bytes] = {
        "PUT": put(key, quiet=True, tag=1), "a BAD_KEY": raw(0x02, b"\1\0\0\0v", flags=0xC0),
        "an unknown op": raw(0x90, b"\1\0\0\0", flags=0xC0),
    }
    for name, frame in frames.items():
        link = context.connect()
        link.send(frame)
        link.expect_error(ErrorCode.QUIET_MISUSE, what=name)
        link.expect_end(name)
        context.drop(link)
    if context.connect().value(key) is not None:
        raise Failed("the refused PUT was executed")


@case("4.3.15", 1)
def item_errors_last(context: ServerContext) -> None:
    """what a request finds in the items comes after all checks of the frame"""
    link, key = context.connect(), context.key()
    link.ok(put(key, b"no number"))
    link.send(incr(key, ext=wire.pack_extensions((0xFF00, b""))))
    link.expect_error(ErrorCode.UNKNOWN_EXTENSION)
    link.send(raw(0x0B, struct.pack("<QQq", 1, 0, 5) + key, flags=3, klen=len(key)))
    link.expect_error(ErrorCode.BAD_FIELD)
    link.send(incr(key))
    link.expect_error(ErrorCode.NOT_A_NUMBER)


@case("4.3.16", 1, covers=("8.1.5", "2.4.1"))
def refused_means_unchanged(context: ServerContext) -> None:
    """a request that fails a check changes nothing"""
    link, key = context.connect(), context.key()
    link.ok(put(key, b"12", app_flags=3, ttl=600_000))
    before = link.meta(key)
    frames: list[wire.Request | bytes] = [
        raw(0x02, bytes(8) + key + b"x", flags=1, klen=len(key)), raw(0x02, bytes(8) + key + b"x", flags=0x0C, klen=len(key)),
        raw(0x05, bytes(8) + key, klen=len(key)), raw(0x05, struct.pack("<Q", 1 << 53) + key, klen=len(key)),
        raw(0x03, bytes(8) + key, flags=1, klen=len(key)),
        raw(0x0B, struct.pack("<QQ", 1, 5) + key, flags=1, klen=len(key)), delete(key, ext=b"\0\xff\0\0"),
        raw(0x0C, b"\0" * 8 + b"\1\0\0" + key, klen=len(key), flags=0x20),
    ]
    for frame in frames:
        reply = link.call(frame)
        if not isinstance(reply, wire.ErrorReply):
            raise Failed(f"{(frame if isinstance(frame, bytes) else wire.encode_request(frame)).hex(' ')} was answered {show(reply)}")
    after = link.meta(key)
    if (after.value, after.version, after.app_flags) != (before.value, before.version, before.app_flags) \
            or after.ttl_ms < before.ttl_ms - 60_000:
        raise Failed(f"the item was {show(before)} and is {show(after)}")


@case("4.4.3", 1, covers=("4.4.1", "4.4.5", "11.1.2"))
def unknown_extensions(context: ServerContext) -> None:
    """unknown extensions are ignored, in any order and number, but for critical ones"""
    link, key = context.connect(), context.key()
    many = wire.pack_extensions((0x7F02, b"b"), (0x7F01, b""), (0x0003, b"x" * 300), (0x7F02, b"b"), (0x7FFF, b""))
    link.ok(put(key, b"v", ext=many))
    link.ok(put(key, b"v", ext=b""))
    link.send(get(key, ext=many, tag=4))
    link.expect(wire.ValueReply, value=b"v", tag=4)
    link.send(put(key, b"changed", ext=wire.pack_extensions((0x7F02, b"b"), (0xFF01, b""))))
    link.expect_error(ErrorCode.UNKNOWN_EXTENSION)
    if link.value(key) != b"v":
        raise Failed("a request with a critical extension was executed")


@case("4.4.2", 1)
def critical_is_a_bit(context: ServerContext) -> None:
    """an unknown type is ignored or refused by its bit 0x8000 alone"""
    link = context.connect()
    for number in (0x0001, 0x0002, 0x0003, 0x1234, 0x7F00, 0x7FFF):
        link.send(ping(ext=wire.pack_extensions((number, b"abc"))))
        link.expect(wire.PongReply, f"extension {number:#06x}")
        link.send(ping(ext=wire.pack_extensions((number | wire.EXT_CRITICAL, b"abc"))))
        link.expect_error(ErrorCode.UNKNOWN_EXTENSION, what=f"extension {number | wire.EXT_CRITICAL:#06x}")


@case("4.5.1", 1)
def replies_of_one_byte(context: ServerContext) -> None:
    """OK, PONG and NULL are one byte"""
    link, key = context.connect(), context.key()
    link.send(put(key), ping(), delete(key), delete(key))
    for kind in (wire.OkReply, wire.PongReply, wire.OkReply, wire.NullReply):
        link.expect(kind)
    link.expect_silence("after the four replies")


@case("4.6.1", 1, covers=("4.6.2",))
def wrapped_if_tagged(context: ServerContext) -> None:
    """each kind of reply is wrapped if its request has a tag, and not otherwise"""
    key = context.key()
    requests = [(wire.NullReply, get(key)), (wire.OkReply, put(key, b"1")), (wire.StoredReply, put(key, b"1", want=True)),
                (wire.ExistsReply, put(key, b"2", absent=True)), (wire.ValueReply, get(key)), (wire.MetaReply, get(key, meta=True)),
                (wire.NumberReply, incr(key)), (wire.OkReply, expire(key, 60_000)), (wire.StatsReply, stats(b"server")),
                (wire.PongReply, ping()), (wire.ErrorReply, stats(b"none")), (wire.OkReply, delete(key)),
                (wire.WelcomeReply, hello())]
    link = context.connect()
    for tag in (None, 0xDEADBEEF):
        for kind, request in requests:
            used = context.connect() if kind is wire.WelcomeReply else link  # HELLO comes first or not at all
            if tag is not None:
                request.flags |= Flag.TAG
                request.tag = tag
            used.send(request)
            used.expect(kind, tag=tag)


@case("4.7.1", 1, covers=("4.7.2",))
def pushes_between_replies(context: ServerContext) -> None:
    """a push stands between two whole replies and answers nothing"""
    link, key = context.push(), context.key()
    big = bytes(200_000)
    link.send(put(key, big), get(key), incr(key, quiet=True, tag=1), get(key), incr(key, quiet=True, tag=2), ping())
    link.expect(wire.OkReply)
    link.expect(wire.ValueReply, value=big)
    link.expect(wire.LateErrorPush, late_tag=1)
    link.expect(wire.ValueReply, value=big)
    link.expect(wire.LateErrorPush, late_tag=2)
    link.expect(wire.PongReply)


@case("4.7.2", 1)
def no_push_unasked(context: ServerContext) -> None:
    """without PUSH nothing but replies comes, also after failures"""
    link = context.connect()
    link.send(hello())
    link.expect(wire.WelcomeReply)
    for code, request in REFUSED:
        link.send(request)
        link.expect_error(code)
    link.expect_silence("after the replies")


@case("12.1.1", 1)
def violations(context: ServerContext) -> None:
    """each violation of the table is answered as the table says"""
    fatal = [(ErrorCode.NOT_CRABCACHE, b"\x16\3\1"), (ErrorCode.BAD_FRAME, raw(0x03, b"k", klen=2)),
             (ErrorCode.BAD_FRAME, raw(0x03, b"kv", klen=1)), (ErrorCode.QUIET_MISUSE, raw(0x02, b"kv", flags=0x80, klen=1)),
             (ErrorCode.QUIET_MISUSE, raw(0x03, b"\0\0\0\0k", flags=0xC0, klen=1))]
    for code, frame in fatal:
        link = context.push()
        link.send(frame)
        link.expect_error(code)
        link.expect_end(code.name)
        context.drop(link)


@case("B.1.1", 1, covers=("11.1.4",))
def reserved_numbers(context: ServerContext) -> None:
    """reserved ops are unknown ones, the reserved flag of GET is ignored"""
    link, key = context.connect(), context.key()
    for op in (0x0A, 0x0D, 0x0E, 0x0F, 0x80):
        link.send(raw(op, b"anything"))
        link.expect_error(ErrorCode.UNKNOWN_OP, what=f"op {op:#04x}")
    link.send(raw(0x03, key, flags=0x04, klen=len(key)))
    link.expect(wire.NullReply, "GET with the flag LEASE")
