# SPDX-License-Identifier: MIT
"""Sections 4.5.5, 6.0 and 10: lengths that a client must not believe, and those that it must take."""
from __future__ import annotations

import struct
from typing import Any

from ... import wire
from ..case import Failed
from .play import ClientContext, case
from .requests import COMMANDS


@case("4.5.5", 1, covers=("12.1.2",))
def too_short(context: ClientContext) -> None:
    """a reply or push that is shorter than its fields closes the connection"""
    for op, least in ((wire.ReplyOp.NUMBER, 8), (wire.ReplyOp.ERROR, 2), (wire.ReplyOp.META, 20), (wire.ReplyOp.STORED, 8),
                      (wire.ReplyOp.WELCOME, 17), (wire.ReplyOp.TAGGED, 5), (wire.PushOp.LATE_ERROR, 6), (wire.PushOp.GOAWAY, 2)):
        for size in {0, least - 1}:
            context.violation(f"{op.name} with a length of {size}", struct.pack("<BI", op, size) + bytes(size))


@case("4.5.5", 2, covers=("6.0.2", "13.8.1"))
def too_long(context: ClientContext) -> None:
    """a length beyond every limit closes the connection by itself, without memory for it"""
    for op in (wire.ReplyOp.VALUE, wire.ReplyOp.NUMBER, wire.ReplyOp.ERROR, wire.ReplyOp.TAGGED, 0x55, 0xC0, 0xEE):
        for size in (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF):
            context.violation(f"op {int(op):#04x} with a length of {size:#x}", struct.pack("<BI", op, size))


@case("10.3.1", 1)
def long_but_right(context: ClientContext) -> None:
    """what a server may rightly send is taken: values up to max_value, texts longer than today's"""
    context.open("push", max_value=3_000_000, server_name=b"n" * 200)
    value = bytes(range(250)) * 12_000
    for words, reply, answer in ((("get", b"k"), wire.ValueReply(value=value), "value " + value.hex()),
                                 (("meta", b"k"), wire.MetaReply(version=1, ttl_ms=1, value=value), "meta 1 1 0 " + value.hex()),
                                 (("stats",), wire.StatsReply(text=b"server.a:b\n" * 90_000), "text *")):
        context.command(*words)
        context.reply(context.request(), reply)
        context.expect(answer)
    context.expect_same("after long replies")


@case("10.3.1", 2)
def long_names(context: ClientContext) -> None:
    """a name of the server that is longer than today's is no violation"""
    context.start("push")
    context.accept()
    hello = context.frame()
    if not isinstance(hello, wire.HelloRequest):
        raise Failed("the client did not say HELLO")
    welcome: dict[str, Any] = {**context.welcome, "server_name": b""}
    body = wire.encode_reply(wire.WelcomeReply(**welcome))[5:] + b"n" * 1000
    context.send(context.wrapped(hello, struct.pack("<BI", wire.ReplyOp.WELCOME, len(body)) + body))
    context.features = hello.features
    context.expect("ok")
    context.expect_same("after a long name")


@case("3.1.2", 3, covers=("4.5.7",))
def every_reply_cut_anywhere(context: ClientContext) -> None:
    """every reply, cut at any byte, is read when its rest comes"""
    context.open()
    for words, wanted, reply, answer in COMMANDS:
        context.command(*words)
        try:
            request = context.request(type(wanted))
        except Failed:
            context.answer(0.01)  # `unsupported` raises Skipped
            raise
        if isinstance(reply, wire.OkReply) and isinstance(request, wire.PutRequest) and request.flags & wire.PutRequest.WANT_VERSION:
            reply, answer = wire.StoredReply(version=9), "stored 9"
        data = context.wrapped(request, reply)
        for at in range(0, len(data), 3):
            context.send(data[at:at + 3])
        context.expect(answer, "ok")
