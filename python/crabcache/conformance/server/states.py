# SPDX-License-Identifier: MIT
"""Sections 3.3 to 3.5 and 3.8: states, HELLO, AUTH, GOAWAY."""
from __future__ import annotations

import statistics
import time
from typing import Any

from ... import wire
from ...wire import ErrorCode, Feature
from ..build import auth, delete, expire, flush, get, hello, incr, ping, put, raw, stats
from ..case import Failed, Skipped
from ..link import Link, show
from .context import ServerContext, case

# ---------------------------------------------------------------------------------------------------- states


@case("3.3.1", 1, covers=("3.4.3",))
def hello_after_a_request(context: ServerContext) -> None:
    """any frame but HELLO, also a refused one, leads to READY"""
    firsts: dict[str, wire.Request | bytes] = {"PING": ping(), "GET": get(context.key()), "an unknown op": raw(0x90),
              "a BAD_KEY": raw(0x03), "a BAD_FIELD": raw(0x05, bytes(8) + b"k", klen=1), "AUTH": auth(b"nobody", b"wrong")}
    for name, first in firsts.items():
        link = context.connect()
        link.call(first)
        link.send(hello())
        link.expect_error(ErrorCode.BAD_STATE, what=f"HELLO after {name}")
        link.alive()
        context.drop(link)


@case("3.3.1", 2, covers=("3.4.2",))
def failed_hello_stays(context: ServerContext) -> None:
    """a HELLO that failed leaves the state at START"""
    link = context.connect()
    refused: list[tuple[ErrorCode, wire.Request | bytes]] = [
        (ErrorCode.UNSUPPORTED_VERSION, hello(2, 1)), (ErrorCode.BAD_KEY, raw(0x07, b"\1\1\0\0\0\0k", klen=1)),
        (ErrorCode.BAD_FIELD, raw(0x07, b"\0\1\0\0\0\0")),
        (ErrorCode.VALUE_TOO_LARGE, raw(0x07, b"\1\1\0\0\0\0" + bytes(256))),
    ]
    for code, request in refused:
        link.send(request)
        link.expect_error(code)
    link.send(hello(features=Feature.PUSH, tag=9))
    link.expect(wire.WelcomeReply, "the HELLO after those that failed", tag=9)


@case("3.3.3", 1)
def no_state_by_time(context: ServerContext) -> None:
    """a pause inside HELLO changes nothing"""
    link, frame = context.connect(), wire.encode_request(hello())
    for at in range(0, len(frame), 7):
        time.sleep(0.02)
        link.send(frame[at:at + 7])
    link.expect(wire.WelcomeReply)


# ----------------------------------------------------------------------------------------------------- HELLO


@case("3.4.2", 1)
def empty_range(context: ServerContext) -> None:
    """an empty range of versions is UNSUPPORTED_VERSION"""
    link = context.connect()
    for low, high in ((2, 1), (255, 1), (255, 254)):
        link.send(hello(low, high))
        link.expect_error(ErrorCode.UNSUPPORTED_VERSION, what=f"versions {low} to {high}")


@case("3.4.2", 2)
def strange_versions(context: ServerContext) -> None:
    """versions that the server does not speak are refused, a range that has one is welcome"""
    link = context.connect()
    link.send(hello(255, 255))
    link.expect_error(ErrorCode.UNSUPPORTED_VERSION, what="version 255")
    link.send(hello(1, 255))
    link.expect(wire.WelcomeReply, "versions 1 to 255")


@case("3.4.3", 1)
def second_hello(context: ServerContext) -> None:
    """HELLO after WELCOME is BAD_STATE, whatever its versions, and changes nothing"""
    link = context.push()
    for low, high, features in ((1, 1, 0), (2, 1, 0), (200, 255, 0xFFFFFFFF)):
        link.send(hello(low, high, features))
        link.expect_error(ErrorCode.BAD_STATE, what=f"versions {low} to {high}")
    link.send(put(context.key(), quiet=True, tag=1))
    link.alive("QUIET still works after the refused HELLOs")


@case("3.4.4", 1, covers=("6.11.1",))
def only_what_was_asked(context: ServerContext) -> None:
    """WELCOME switches on no feature that was not asked for, and names the highest common version"""
    for features in (0, Feature.PUSH, 0xFFFFFFFF):
        link = context.connect()
        link.send(hello(1, 1, features))
        welcome = link.expect(wire.WelcomeReply, version=1)
        if welcome.features & ~int(features):
            raise Failed(f"asked for features {features:#x}, got {welcome.features:#x}")
        context.drop(link)


@case("3.4.5", 1)
def behind_hello(context: ServerContext) -> None:
    """requests behind HELLO need not wait for WELCOME"""
    key, link = context.key(), context.connect()
    link.send(hello(), put(key), get(key), ping())
    for kind in (wire.WelcomeReply, wire.OkReply, wire.ValueReply, wire.PongReply):
        link.expect(kind)


@case("5.7.1", 1, covers=("2.1.5",))
def names_do_not_matter(context: ServerContext) -> None:
    """any name of up to 255 bytes is welcome, and none changes anything"""
    answers = []
    for name in (b"", b"x" * 255, b"\xff\xfe\0\n\x1b[2J", "Größe".encode()):
        link = context.connect()
        link.send(hello(name=name, features=Feature.PUSH))
        welcome = link.expect(wire.WelcomeReply, f"name {name[:20]!r}")
        answers.append(welcome)
        link.alive()
        context.drop(link)
    if any(answer != answers[0] for answer in answers):
        raise Failed("WELCOME depends on the client's name")


@case("5.7.2", 1, covers=("11.1.2", "B.1.1", "11.1.4"))
def strange_features(context: ServerContext) -> None:
    """feature bits that are reserved or unknown are ignored and not set"""
    link = context.connect()
    link.send(hello(features=0xFFFFFFFF & ~int(Feature.PUSH)))
    welcome = link.expect(wire.WelcomeReply)
    if welcome.features:
        raise Failed(f"WELCOME sets the features {welcome.features:#x}, which version 1 does not define")


# ------------------------------------------------------------------------------------------------------ AUTH


def every_other_request(context: ServerContext) -> dict[str, Any]:
    """A request of each op that needs AUTH."""
    key = context.key()
    return {"PUT": put(key), "GET": get(key), "DEL": delete(key), "EXPIRE": expire(key, 1000), "STATS": stats(),
            "FLUSH": flush(), "INCR": incr(key), "DECR": incr(key, down=True)}


@case("3.5.1", 1, needs=("auth",), covers=("3.5.4", "13.3.3"))
def nothing_without_auth(context: ServerContext) -> None:
    """before AUTH only HELLO, AUTH and PING are executed"""
    link = context.connect(context.options.auth_server)
    link.send(hello(features=Feature.PUSH))
    link.expect(wire.WelcomeReply, "HELLO before AUTH")
    link.alive("PING before AUTH")
    for name, request in every_other_request(context).items():
        link.send(request)
        link.expect_error(ErrorCode.AUTH_REQUIRED, what=name)
    link.send(raw(0x90))
    link.expect_error(ErrorCode.UNKNOWN_OP, what="an unknown op")
    link.send(put(context.key(), tag=6, quiet=True))
    link.expect(wire.LateErrorPush, "a QUIET PUT", late_tag=6, code=ErrorCode.AUTH_REQUIRED)


@case("3.5.2", 1, needs=("auth",))
def right_and_wrong(context: ServerContext) -> None:
    """the right secret is OK, any other AUTH_FAILED, also after a right one, which it undoes"""
    options, key = context.options, context.key()
    link = context.authenticated()
    link.ok(put(key), "PUT after AUTH")
    link.send(auth(options.user, options.secret + b"?"))
    reply = link.expect_error(ErrorCode.AUTH_FAILED, ErrorCode.BUSY, what="AUTH with a wrong secret")
    if reply.code == ErrorCode.BUSY:
        raise Skipped("the server answers AUTH with BUSY now")
    link.send(get(key))
    link.expect_error(ErrorCode.AUTH_REQUIRED, what="after an AUTH that failed")


@case("3.5.2", 2)
def no_users(context: ServerContext) -> None:
    """a server that demands no AUTH refuses it all the same, and goes on"""
    link = context.connect()
    link.send(auth(b"nobody", b"nothing"))
    link.expect_error(ErrorCode.AUTH_FAILED, ErrorCode.BUSY)
    link.ok(put(context.key()))


@case("3.5.3", 1, needs=("auth",))
def behind_auth(context: ServerContext) -> None:
    """AUTH takes effect on the next request, and leads to READY"""
    options, key = context.options, context.key()
    link = context.connect(options.auth_server)
    link.send(get(key), auth(options.user, options.secret), get(key), hello())
    link.expect_error(ErrorCode.AUTH_REQUIRED)
    link.expect(wire.OkReply, "AUTH")
    link.expect(wire.NullReply, "the GET behind AUTH")
    link.expect_error(ErrorCode.BAD_STATE, what="HELLO behind AUTH")


@case("3.5.4", 1, needs=("auth",))
def order_of_auth_required(context: ServerContext) -> None:
    """AUTH_REQUIRED comes after the checks 1 to 9 and before 10 to 12"""
    link, key = context.connect(context.options.auth_server), context.key()
    for code, request in (
            (ErrorCode.BAD_KEY, raw(0x03)), (ErrorCode.BAD_FLAGS, raw(0x0B, bytes(16) + b"k", flags=1, klen=1)),
            (ErrorCode.AUTH_REQUIRED, raw(0x05, bytes(8) + key, klen=len(key))),
            (ErrorCode.AUTH_REQUIRED, raw(0x03, b"\4\0\1\x80\0\0k", flags=0x20, klen=1))):
        link.send(request)
        link.expect_error(code)
    link.send(raw(0x01, b"x"))
    link.expect_error(ErrorCode.BAD_FRAME)
    link.expect_end()


@case("3.5.5", 1, needs=("auth",), covers=("13.4.1",))
def long_bodies_before_auth(context: ServerContext) -> None:
    """before AUTH a body of more than 4,096 bytes is refused and skipped, of HELLO, AUTH and PING, too"""
    link = context.connect(context.options.auth_server)
    long_ext = wire.pack_extensions((0x7F00, bytes(4090)))
    link.send(ping(ext=long_ext[:4094]))
    link.expect(wire.PongReply, "PING with a body of 4,096 bytes")
    for name, request in {"PING": ping(ext=long_ext + b"\0\x7f\0\0"), "HELLO": hello(ext=long_ext),
                          "AUTH": auth(b"u", b"s", ext=long_ext), "PUT": put(b"k", bytes(100_000))}.items():
        link.send(request)
        link.expect_error(ErrorCode.AUTH_REQUIRED, what=f"{name} with a long body")
    link.alive()


@case("5.8.1", 1, should=True, needs=("auth",))
def byte_by_byte(context: ServerContext) -> None:
    """user and secret are compared byte by byte"""
    user, secret = context.options.user, context.options.secret
    tries = [(user, secret + b"\0"), (user, secret + b"\n"), (user, b" " + secret), (user, secret[:-1]), (user + b"\0", secret),
             (user.swapcase(), secret)]
    for name, word in tries:
        if (name, word) == (user, secret):
            continue
        link = context.connect(context.options.auth_server)
        reply = link.call(auth(name, word))
        if isinstance(reply, wire.OkReply):
            raise Failed(f"user {name!r} with a changed secret of {len(word)} bytes was let in")
        context.drop(link)


@case("5.8.2", 1, should=True, needs=("auth",))
def time_of_auth(context: ServerContext) -> None:
    """AUTH takes as long for an unknown user as for a wrong secret"""
    times: dict[bytes, list[float]] = {context.options.user: [], b"no such user": []}
    for _ in range(3):
        for user, found in times.items():
            link = context.connect(context.options.auth_server)
            began = time.monotonic()
            link.send(auth(user, b"wrong"))
            reply = link.expect_error(ErrorCode.AUTH_FAILED, ErrorCode.BUSY)
            if reply.code == ErrorCode.BUSY:
                raise Skipped("the server answers AUTH with BUSY now")
            found.append(time.monotonic() - began)
            context.drop(link)
    known, unknown = (statistics.median(found) for found in times.values())
    if not 0.3 < known / unknown < 3 and abs(known - unknown) > 0.002:
        raise Failed(f"{known * 1000:.1f} ms for a known user, {unknown * 1000:.1f} ms for an unknown one")


# ---------------------------------------------------------------------------------------------------- GOAWAY


def remaining(link: Link) -> list[Any]:
    """Everything up to the end of the stream."""
    messages = []
    while (message := link.receive()) is not None:
        messages.append(message)
    return messages


@case("3.8.1", 1, needs=("stop",), last=True, covers=("3.8.3", "4.7.2", "7.2.1", "8.2.2"))
def stopping(context: ServerContext) -> None:
    """a server that stops says GOAWAY once where PUSH is on, answers what it executed, and ends its streams in order"""
    key = context.key()
    silent, asked, plain = context.connect(), context.push(), context.connect()
    asked.ok(put(key))
    plain.ok(put(key))
    stop = context.options.stop
    assert stop is not None  # as the case needs it
    stop()
    pushes = remaining(asked)
    if len(pushes) != 1 or not isinstance(pushes[0], wire.GoawayPush) or pushes[0].code != ErrorCode.SHUTTING_DOWN:
        raise Failed(f"expected GOAWAY SHUTTING_DOWN and nothing else, got {[show(push) for push in pushes]}")
    for link, name in ((plain, "a connection without PUSH"), (silent, "a connection that never spoke")):
        rest = remaining(link)
        if rest:
            raise Failed(f"{name} got {[show(message) for message in rest]}")
