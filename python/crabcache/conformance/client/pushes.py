# SPDX-License-Identifier: MIT
"""Sections 3.8, 4.7 and 7: pushes."""
from __future__ import annotations

import struct

from ... import wire
from ...wire import ErrorCode
from ..case import Failed, Skipped
from .play import ClientContext, case


@case("4.7.3", 1, covers=("4.5.2",))
def unknown_pushes(context: ClientContext) -> None:
    """unknown pushes are stepped over, between replies, before one, and while nothing is asked"""
    context.open("push")
    push = struct.pack("<BI", 0xD7, 5) + b"\x10\x11\x12\x14\x18"
    context.send(push)
    context.command("pipeline", 3)
    for key in (b"a", b"b", b"c"):
        context.command("incr", key, 1)
    requests = [context.request(wire.IncrRequest) for _ in range(3)]
    for number, request in enumerate(requests):
        context.send(push, push, context.wrapped(request, wire.NumberReply(value=number)), push)
    for number in range(3):
        context.expect(f"number {number}")
    context.expect_same("after unknown pushes")


@case("4.7.3", 2)
def pushes_unasked(context: ClientContext) -> None:
    """pushes that were not asked for disturb nothing"""
    context.open()
    context.command("incr", b"k", 1)
    request = context.request(wire.IncrRequest)
    context.send(wire.LateErrorPush(late_tag=77, code=ErrorCode.BUSY), struct.pack("<BI", 0xC2, 3) + b"abc",
                 context.wrapped(request, wire.NumberReply(value=4)))
    context.expect("number 4")
    context.expect_same("after pushes that were not asked for")


@case("3.8.2", 1)
def goaway(context: ClientContext) -> None:
    """after GOAWAY the replies to requests in flight are still read"""
    context.open("push")
    context.command("pipeline", 3)
    for key in (b"a", b"b", b"c"):
        context.command("incr", key, 1)
    requests = [context.request(wire.IncrRequest) for _ in range(3)]
    context.reply(requests[0], wire.NumberReply(value=1))
    context.send(wire.GoawayPush(code=ErrorCode.SHUTTING_DOWN, text=b"bye"), wire.GoawayPush(code=ErrorCode.SHUTTING_DOWN))
    for number, request in enumerate(requests[1:], 2):
        context.reply(request, wire.NumberReply(value=number))
    for number in range(1, 4):
        context.expect(f"number {number}")
    context.end_stream()


@case("9.5.2", 1)
def goaway_and_end(context: ClientContext) -> None:
    """what GOAWAY and the end of the stream leave unanswered was not executed, or is unknown; it is no success"""
    context.open("push")
    context.command("pipeline", 2)
    context.command("incr", b"a", 1)
    context.command("incr", b"b", 1)
    first = context.request(wire.IncrRequest)
    context.request(wire.IncrRequest)
    context.reply(first, wire.NumberReply(value=1))
    context.send(wire.GoawayPush(code=ErrorCode.SHUTTING_DOWN))
    context.end_stream()
    context.expect("number 1")
    context.expect("failed retry*", "failed unknown*")


@case("3.8.2", 2, should=True)
def nothing_after_goaway(context: ClientContext) -> None:
    """after GOAWAY no new requests are sent on the connection"""
    context.open("push")
    context.command("incr", b"k", 1)
    request = context.request(wire.IncrRequest)
    context.send(wire.GoawayPush(code=ErrorCode.SHUTTING_DOWN), context.wrapped(request, wire.NumberReply(value=1)))
    context.expect("number 1")
    before = context.connections
    context.command("incr", b"k", 1)
    words = context.answer_or_request(wire.IncrRequest)
    if words is not None:
        if words[0] != "failed":
            raise Failed(f"the client says {' '.join(words)!r}")
        return
    context.reply(context.last, wire.NumberReply(value=2))
    context.expect("number 2")
    if context.connections == before:
        raise Failed("a request was sent on a connection that has had GOAWAY")


@case("7.1.1", 1)
def late_error_of_nobody(context: ClientContext) -> None:
    """a LATE_ERROR that names no request of the client disturbs nothing"""
    context.open("push")
    context.command("quiet", "put", b"k", b"v")
    context.command("barrier")
    put = context.request(wire.PutRequest)
    if not put.flags & wire.Flag.QUIET:
        raise Skipped("the client sends no QUIET requests")
    last = context.request_of(wire.PingRequest)
    context.send(wire.LateErrorPush(late_tag=put.tag ^ 0x5555, code=ErrorCode.BUSY))
    context.reply(last, wire.PongReply())
    context.expect("ok")
    context.answer()
    context.expect_same("after a LATE_ERROR of nobody")
