# SPDX-License-Identifier: MIT
"""Sections 10, 13 and 1.1: limits, and that clients which misbehave do not disturb the others."""
from __future__ import annotations

import time

from ... import wire
from ..build import delete, expire, flush, get, hello, incr, ping, put, raw, stats
from ..case import Failed
from ..link import show
from .context import ServerContext, case
from .vectors import ANSWERS


@case("1.1.1", 1)
def every_request(context: ServerContext) -> None:
    """every request of version 1 is implemented"""
    key = context.key()
    requests = [hello(), ping(), put(key, b"1"), get(key), expire(key, 60_000), incr(key), incr(key, down=True), delete(key), stats()]
    link = context.connect()
    for request in requests + ([flush()] if context.options.flush else []):
        reply = link.call(request)
        if getattr(reply, "OP", None) not in ANSWERS[request.OP]:
            raise Failed(f"{request.OP.name} was answered {show(reply)}")


@case("10.1.1", 1)
def keys_of_every_length(context: ServerContext) -> None:
    """keys may have 1 to 65,535 bytes, and any bytes"""
    link = context.connect()
    keys = [bytes([number]) for number in (0, 10, 32, 255)]
    keys += [(context.key() + bytes(range(256)) * 256)[:size] for size in (63, 64, 255, 256, 4096, 65_534, 65_535)]
    for key in keys:
        link.ok(put(key, key[-40:]), f"a key of {len(key)} bytes")
        if link.value(key) != key[-40:]:
            raise Failed(f"a key of {len(key)} bytes is not found")
        link.ok(delete(key))
    link.ok(put(keys[-1], b"x"))
    if link.value(keys[-1][:-1]) is not None or link.value(keys[-1][:-1] + b"?") is not None:
        raise Failed("keys that differ in the last byte are taken for the same")


@case("10.2.3", 1, should=True)
def turns(context: ServerContext) -> None:
    """a long pipeline does not keep the others waiting"""
    key, busy, other = context.key(), context.connect(), context.connect()
    busy.ok(put(key, bytes(2000)))
    busy.send(*[get(key) for _ in range(3000)])
    began = time.monotonic()
    other.alive("PING of another connection")
    if time.monotonic() - began > 1:
        raise Failed(f"another connection waited {time.monotonic() - began:.1f} s")
    for _ in range(3000):
        busy.expect(wire.ValueReply)


@case("13.4.2", 1)
def announced_and_never_sent(context: ServerContext) -> None:
    """values that are announced and never sent cost the others nothing"""
    size, key = context.welcome().max_value, context.key()
    announce = raw(0x02, key, klen=len(key), blen=len(key) + size)
    for _ in range(64):
        context.connect().send(announce)
    other = context.connect()
    other.ok(put(key, b"v"), "PUT of another connection")
    if other.value(key) != b"v":
        raise Failed("another connection does not find its item")


@case("4.3.17", 1)
def first_rule_wins(context: ServerContext) -> None:
    """of several broken rules the first of the table decides"""
    for code, frame in ((wire.ErrorCode.QUIET_MISUSE, raw(0x03, b"k", flags=0x80, klen=9)),
                        (wire.ErrorCode.BAD_FRAME, raw(0x01, b"kvvvv", klen=1)),
                        (wire.ErrorCode.BAD_FRAME, raw(0x0B, bytes(15), flags=1, klen=0))):
        link = context.push()
        link.send(frame)
        link.expect_error(code)
        link.expect_end()
        context.drop(link)
    link = context.connect()
    for code, frame in ((wire.ErrorCode.BAD_KEY, raw(0x0B, bytes(16), flags=1)),
                        (wire.ErrorCode.VALUE_TOO_LARGE, raw(0x07, b"\0\0\0\0\0\0" + bytes(300))),
                        (wire.ErrorCode.BAD_FLAGS, raw(0x0B, bytes(16) + b"\1\0\0k", flags=0x21, klen=1)),
                        (wire.ErrorCode.BAD_EXTENSION, raw(0x05, bytes(8) + b"\1\0\0k", flags=0x20, klen=1))):
        link.send(frame)
        link.expect_error(code)
