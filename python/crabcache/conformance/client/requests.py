# SPDX-License-Identifier: MIT
"""Sections 3 to 5: what a client sends."""
from __future__ import annotations

import time
from typing import Any

from ... import wire
from ...testing.model import error
from ...wire import ErrorCode, Feature, Flag
from ..build import delete, expire, flush, get, incr, ping, put, stats
from ..case import Failed, Skipped
from .play import ClientContext, case

KEY = bytes([0, 255, 10, 13, 32]) + "schlüssel".encode()

#: Commands, the requests that they must become, a reply to each, and the client's answer.
COMMANDS: list[tuple[tuple[object, ...], Any, wire.Reply, str]] = [
    (("ping",), ping(), wire.PongReply(), "ok"),
    (("get", KEY), get(KEY), wire.ValueReply(value=KEY), f"value {KEY.hex()}"),
    (("get", b"k"), get(b"k"), wire.NullReply(), "miss"),
    (("touch", b"k", 1500), get(b"k", ttl=1500), wire.ValueReply(value=b"v"), "value 76"),
    (("touch", b"k", "never"), get(b"k", ttl=wire.TTL_NEVER), wire.NullReply(), "miss"),
    (("meta", b"k"), get(b"k", meta=True), wire.MetaReply(version=2**64 - 1, ttl_ms=5000, app_flags=2**32 - 1, value=b"v"),
     f"meta {2**64 - 1} 5000 {2**32 - 1} 76"),
    (("meta", b"k"), get(b"k", meta=True), wire.MetaReply(version=1, ttl_ms=wire.TTL_NEVER, value=b""), "meta 1 never 0 -"),
    (("put", b"k", b"v"), put(b"k", b"v"), wire.OkReply(), "ok"),
    (("put", KEY, b""), put(KEY, b""), wire.OkReply(), "ok"),
    (("put", b"k", b"v", "ttl=2500", "flags=4294967295"), put(b"k", b"v", ttl=2500, app_flags=2**32 - 1), wire.OkReply(), "ok"),
    (("put", b"k", b"v", "absent"), put(b"k", b"v", absent=True), wire.ExistsReply(version=7), "exists 7"),
    (("put", b"k", b"v", "present"), put(b"k", b"v", present=True), wire.NullReply(), "miss"),
    (("put", b"k", b"v", f"version={2**63 + 1}"), put(b"k", b"v", version=2**63 + 1), wire.OkReply(), "ok"),
    (("put", b"k", b"v", "want"), put(b"k", b"v", want=True), wire.StoredReply(version=2**64 - 1), f"stored {2**64 - 1}"),
    (("del", b"k"), delete(b"k"), wire.OkReply(), "ok"),
    (("del", b"k"), delete(b"k"), wire.NullReply(), "miss"),
    (("expire", b"k", 1000), expire(b"k", 1000), wire.OkReply(), "ok"),
    (("incr", b"k", 2**63), incr(b"k", 2**63), wire.NumberReply(value=-(2**63)), f"number {-(2**63)}"),
    (("incr", b"k", 1, "initial=-5", "ttl=1000"), incr(b"k", 1, initial=-5, ttl=1000), wire.NumberReply(value=-5), "number -5"),
    (("decr", b"k", 3), incr(b"k", 3, down=True), wire.NullReply(), "miss"),
    (("stats",), stats(), wire.StatsReply(text=b"server.name:x\n"), "text *"),
    (("flush",), flush(), wire.OkReply(), "ok"),
]


def sent(context: ClientContext) -> list[tuple[Any, Any]]:
    """Let the client send each request that it knows; what it was to send, and what it sent."""
    context.open()
    pairs = []
    for words, wanted, reply, _ in COMMANDS:
        context.command(*words)
        try:
            got = context.request(type(wanted))
        except Failed:
            try:
                context.answer(0.01)  # `unsupported` raises Skipped
            except Skipped:
                continue
            raise
        pairs.append((wanted, got))
        context.reply(got, reply)
        try:
            context.answer()
        except Skipped:
            pass
    return pairs


@case("4.1.1", 1, covers=("2.1.3", "3.2.1", "4.1.2", "4.2.1", "4.2.2", "4.2.4"))
def every_request(context: ClientContext) -> None:
    """every request says what was asked for, in well-formed frames"""
    context.open()
    for words, wanted, reply, answer in COMMANDS:
        context.command(*words)
        got = context.request(type(wanted))
        different = [name for name in ("key", "value", *(part.name for part in wanted.LAYOUT if part.present(wanted.flags)))
                     if getattr(got, name) != getattr(wanted, name)]
        # A client may ask for the version although nobody wants it, and then says what a plain OK would have said.
        flags = (got.flags ^ wanted.flags) & wanted.OWN_FLAGS
        asked = isinstance(wanted, wire.PutRequest) and flags == wire.PutRequest.WANT_VERSION and got.flags & flags
        stored = isinstance(reply, wire.OkReply) and asked
        if different or flags and not asked:
            raise Failed(f"{' '.join(map(str, words))!r} became {got.OP.name} with flags {got.flags:#04x}, other {different}")
        context.reply(got, wire.StoredReply(version=9) if stored else reply)
        context.expect(answer, *(["stored 9"] if stored else []))


@case("4.1.3", 1, covers=("B.1.1", "11.1.4"))
def no_undefined_flags(context: ClientContext) -> None:
    """flags that version 1 does not define are sent as 0"""
    for _, got in sent(context):
        if got.flags & ~int(got.OWN_FLAGS | Flag.TAG | Flag.EXT | Flag.QUIET):
            raise Failed(f"{got.OP.name} has the flags {got.flags:#04x}")


@case("4.4.4", 1)
def no_undefined_extensions(context: ClientContext) -> None:
    """no extensions are sent but experimental ones"""
    for _, got in sent(context):
        for kind, _ in wire.extensions(got.ext):
            if not wire.EXT_EXPERIMENTAL_FIRST <= kind & ~wire.EXT_CRITICAL <= wire.EXT_EXPERIMENTAL_LAST:
                raise Failed(f"{got.OP.name} has the extension {kind:#06x}")


@case("3.1.3", 1, should=True)
def batches_travel_together(context: ClientContext) -> None:
    """a pipeline is sent without waiting for replies, by few writes"""
    context.open()
    context.command("pipeline", 20)
    for number in range(20):
        context.command("get", b"%d" % number)
    requests = [context.request(wire.GetRequest)]
    time.sleep(0.02)
    reads = 0
    while len(requests) < 20:
        if not context.pending():
            reads += 1
        requests.append(context.request(wire.GetRequest))
        if context.connections > 1:
            raise Failed(f"{len(requests) - 1} of 20 requests were sent, and then nothing until the deadline")
    for request in requests:
        context.reply(request, wire.NullReply())
    for _ in requests:
        context.expect("miss")
    if reads > 3:
        raise Failed(f"20 small requests came in {reads} pieces")


# ----------------------------------------------------------------------------------------------- HELLO, AUTH


@case("3.4.1", 1, covers=("5.7.3",))
def hello_first(context: ClientContext) -> None:
    """who wants features says HELLO first and once, for the range of versions that it speaks"""
    context.start("push")
    context.accept()
    hello = context.frame()
    if not isinstance(hello, wire.HelloRequest):
        raise Failed(f"asked to have PUSH, the client sent {'nothing' if hello is None else hello.OP.name} first")
    if hello.version_min != 1 or hello.version_max < 1 or not hello.features & Feature.PUSH:
        raise Failed(f"HELLO asks for versions {hello.version_min} to {hello.version_max}, features {hello.features:#x}")
    context.features = Feature.PUSH
    context.reply(hello, wire.WelcomeReply(**context.welcome))
    context.expect("ok")
    context.expect_same("after HELLO")


@case("3.4.5", 1)
def nothing_before_welcome(context: ClientContext) -> None:
    """what needs PUSH is not sent before WELCOME has granted it"""
    context.start("push")
    context.accept()
    hello = context.frame()
    context.command("quiet", "put", b"k", b"v")
    context.command("barrier")
    context.expect_nothing_quiet("before WELCOME")
    context.features = Feature.PUSH
    context.reply(hello, wire.WelcomeReply(**context.welcome))
    context.expect("ok")
    context.expect("ok")
    if not context.request_of(wire.PutRequest).flags & Flag.QUIET:
        raise Failed("a quiet put was sent without QUIET")
    context.reply(context.request_of(wire.PingRequest), wire.PongReply())
    context.expect("ok")


@case("3.4.5", 2)
def no_push_granted(context: ClientContext) -> None:
    """where PUSH was not granted, no QUIET request is sent"""
    context.open("push", features=0)
    context.command("quiet", "put", b"k", b"v")
    words = context.answer()
    if words[0] not in ("refused", "failed"):
        raise Failed(f"a quiet put without PUSH was answered {' '.join(words)!r}")
    context.expect_quiet("a quiet put without PUSH")


@case("12.1.2", 1)
def bad_welcome(context: ClientContext) -> None:
    """a WELCOME with another version, features not asked for, or no request in flight is refused"""
    for changes in ({"version": 2}, {"version": 0}, {"features": 0x80000001}, {"max_in_flight": 0}):
        context.start("push")
        context.accept()
        hello = context.frame()
        context.reply(hello, wire.WelcomeReply(**{**context.welcome, **changes}))
        words = context.answer()
        if words[0] != "failed":
            raise Failed(f"WELCOME with {changes} was taken: {' '.join(words)!r}")
        context.expect_closed(f"WELCOME with {changes}")
        context.command("close")
        context.expect("ok")
        context.stop_listening()


@case("8.1.1", 1)
def refused_hello(context: ClientContext) -> None:
    """an ERROR to HELLO fails what needed it"""
    context.start("push")
    context.accept()
    context.reply(context.frame(), error(ErrorCode.UNSUPPORTED_VERSION))
    words = context.answer()
    if words[0] == "ok":
        context.command("quiet", "put", b"k", b"v")
        if context.answer()[0] not in ("refused", "failed"):
            raise Failed("a quiet put was taken although HELLO had failed")


# ------------------------------------------------------------------------------------------------- in flight


@case("3.6.2", 1)
def reads_while_it_writes(context: ClientContext) -> None:
    """a long pipeline does not block for ever while replies wait to be read"""
    context.open(receive_buffer=8192, max_value=1 << 20)
    value, large = bytes(65_536), bytes(1 << 20)
    context.command("pipeline", 72)
    with context.meanwhile_answering(8, large):
        for number in range(8):
            context.command("get", b"%d" % number)
        for number in range(64):
            context.command("put", b"%d" % number, value)
    for _ in range(8):
        context.expect("value " + large.hex())
    for _ in range(64):
        context.expect("ok", "stored 9")


@case("4.3.13", 1)
def sends_to_the_end(context: ClientContext) -> None:
    """a request whose ERROR has already come is sent to its end, and the connection goes on"""
    value = bytes(7_000_000)  # more than the buffers of the transport hold
    context.open("push", receive_buffer=65_536, max_value=8_000_000)
    context.command("put", b"k", value)
    data = context.peek(64)
    tag = int.from_bytes(data[8:12], "little") if data[1] & Flag.TAG else None
    refusal = error(ErrorCode.VALUE_TOO_LARGE)
    refusal.tag = tag
    context.send(refusal)
    time.sleep(0.05)
    context.request(wire.PutRequest)
    context.expect("failed permanent 0205")
    context.expect_same("after the refused PUT")


@case("6.11.2", 1, covers=("1.1.2",))
def places_in_flight(context: ClientContext) -> None:
    """no more requests are in flight than WELCOME allows"""
    context.open("push", max_in_flight=3)
    if not context.welcomed:
        raise Skipped("the client does not say HELLO")
    context.command("pipeline", 10)
    for number in range(10):
        context.command("get", b"%d" % number)
    waiting: list[Any] = []
    for _ in range(10):
        if not waiting:
            waiting.append(context.request(wire.GetRequest))
        time.sleep(0.01)
        while context.pending():
            waiting.append(context.request(wire.GetRequest))
        if len(waiting) > 3:
            raise Failed(f"{len(waiting)} requests are in flight, 3 are allowed")
        context.reply(waiting.pop(0), wire.NullReply())
    for _ in range(10):
        context.expect("miss", "failed retry*")


@case("6.11.2", 2)
def the_last_place(context: ClientContext) -> None:
    """QUIET requests keep the last place for one with a reply"""
    context.open("push", max_in_flight=3)
    for _ in range(7):
        context.command("quiet", "put", b"k", b"v")
    context.command("barrier")
    quiet, count = 0, 0
    while count < 7:
        request = context.request_of(wire.PutRequest, wire.PingRequest)
        if request.flags & Flag.QUIET:
            quiet, count = quiet + 1, count + 1
            if quiet > 2:
                raise Failed(f"{quiet} QUIET requests take all of 3 places")
        else:
            context.reply(request, wire.PongReply())
            quiet = 0
    while isinstance(request := context.request_of(wire.PutRequest, wire.PingRequest), wire.PutRequest):
        pass
    context.reply(request, wire.PongReply())
    for _ in range(8):
        context.expect("ok")


@case("5.12.5", 1, should=True)
def barrier_behind_quiet(context: ClientContext) -> None:
    """QUIET writes are ended by a request with a reply, usually PING, and their failures are told"""
    context.open("push")
    tags = []
    for number in range(3):
        context.command("quiet", "put", b"%d" % number, b"v")
    context.command("barrier")
    for _ in range(3):
        request = context.request(wire.PutRequest)
        if not request.flags & Flag.QUIET:
            raise Failed("a quiet put was sent without QUIET")
        tags.append(request.tag)
    last = context.request_of(wire.PingRequest)
    context.send(wire.LateErrorPush(late_tag=tags[1], code=ErrorCode.OUT_OF_MEMORY), wire.LateErrorPush(late_tag=tags[2], code=0x02FF))
    context.reply(last, wire.PongReply())
    for _ in range(3):
        context.expect("ok")
    context.expect("late 1:0101 2:02ff")
