# SPDX-License-Identifier: MIT
"""Sections 5.12, 7 and 8: QUIET writes, pushes, errors."""
from __future__ import annotations

from ... import wire
from ...wire import ErrorCode, Flag
from ..build import delete, expire, flush, get, incr, ping, put, raw
from ..case import Failed
from .checks import REFUSED
from .context import ServerContext, case


@case("5.12.1", 1)
def success_is_silent(context: ServerContext) -> None:
    """QUIET writes that are no ERROR get no reply, NULL and EXISTS included"""
    link, key, none = context.push(), context.key(), context.key("none")
    link.send(put(key, b"1", quiet=True, tag=1), put(key, absent=True, quiet=True, tag=2), put(none, present=True, quiet=True, tag=3),
              delete(none, quiet=True, tag=4), expire(none, 5, quiet=True, tag=5), incr(key, quiet=True, tag=6),
              incr(none, down=True, quiet=True, tag=7), put(key, want=True, version=1, quiet=True, tag=8), ping(tag=9), get(key))
    link.expect(wire.PongReply, "the first answer", tag=9)
    link.expect(wire.ValueReply, value=b"2")


@case("5.12.1", 2, covers=("7.1.1",))
def failure_is_told(context: ServerContext) -> None:
    """QUIET writes that fail get LATE_ERROR with their tag and the error's code"""
    link, key = context.push(), context.key()
    link.send(put(key, b"x"), incr(key, quiet=True, tag=0xFFFFFFFF), put(key, b"9223372036854775807", quiet=True, tag=2),
              incr(key, quiet=True, tag=0), ping())
    link.expect(wire.OkReply)
    link.expect(wire.LateErrorPush, late_tag=0xFFFFFFFF, code=ErrorCode.NOT_A_NUMBER)
    link.expect(wire.LateErrorPush, late_tag=0, code=ErrorCode.OVERFLOW)
    link.expect(wire.PongReply)


@case("5.12.2", 1, covers=("8.2.1",))
def fatal_is_no_late_error(context: ServerContext) -> None:
    """fatal errors of a QUIET request come as ERROR, behind earlier LATE_ERRORs"""
    link, key = context.push(), context.key()
    link.send(put(key, b"x"), incr(key, quiet=True, tag=1), raw(0x02, b"\2\0\0\0k", flags=0xC0, klen=2))
    link.expect(wire.OkReply)
    link.expect(wire.LateErrorPush, late_tag=1)
    link.expect_error(ErrorCode.BAD_FRAME)
    link.expect_end()


@case("5.12.3", 1)
def late_errors_in_order(context: ServerContext) -> None:
    """LATE_ERRORs come in the order of their requests and before any later reply"""
    link, key = context.push(), context.key()
    link.ok(put(key, b"x"))
    for answer, request in ((wire.PongReply, ping()), (wire.ValueReply, get(key)), (wire.OkReply, put(key, b"y")),
                            (wire.NullReply, delete(context.key("none")))):
        link.send(*[incr(key, quiet=True, tag=tag) for tag in (9, 3, 3, 7)], request)
        for tag in (9, 3, 3, 7):
            link.expect(wire.LateErrorPush, late_tag=tag)
        link.expect(answer)


@case("5.12.4", 1)
def late_errors_of_checks(context: ServerContext) -> None:
    """every error that is not fatal, found by whatever check, comes as LATE_ERROR"""
    link, tag = context.push(), b"\x11\0\0\0"
    for code, frame in ((ErrorCode.UNKNOWN_OP, raw(0x90, tag + b"more", flags=0xC0)),
                        (ErrorCode.BAD_KEY, raw(0x02, tag + b"v", flags=0xC0)),
                        (ErrorCode.BAD_KEY, raw(0x09, tag + b"k", flags=0xC0, klen=1)),
                        (ErrorCode.BAD_FLAGS, raw(0x0B, tag + bytes(16) + b"k", flags=0xC1, klen=1)),
                        (ErrorCode.BAD_FIELD, raw(0x05, tag + bytes(8) + b"k", flags=0xC0, klen=1)),
                        (ErrorCode.UNKNOWN_EXTENSION, raw(0x04, tag + b"\4\0\0\xff\0\0k", flags=0xE0, klen=1)),
                        (ErrorCode.BAD_EXTENSION, raw(0x04, tag + b"\1\0\0k", flags=0xE0, klen=1))):
        link.send(frame, ping())
        link.expect(wire.LateErrorPush, code.name, late_tag=0x11, code=code)
        link.expect(wire.PongReply)


@case("5.12.1", 3, needs=("flush",))
def quiet_flush(context: ServerContext) -> None:
    """FLUSH may be quiet"""
    link, key = context.push(), context.key()
    link.send(put(key), flush(quiet=True, tag=1), get(key))
    link.expect(wire.OkReply)
    link.expect(wire.NullReply)


@case("8.1.5", 1)
def errors_mean_not_done(context: ServerContext) -> None:
    """what was executed is not answered ERROR: each INCR that is answered has counted once"""
    link, key = context.connect(), context.key()
    counted = 0
    for number in range(200):
        reply = link.call(incr(key, initial=1))
        if isinstance(reply, wire.NumberReply):
            counted += 1
        elif not isinstance(reply, wire.ErrorReply):
            raise Failed(f"INCR was answered {reply}")
    if link.value(key) != b"%d" % counted:
        raise Failed(f"{counted} INCRs were answered NUMBER, and {link.value(key)!r} is stored")


@case("8.2.1", 1, covers=("4.6.4",))
def fatal_errors_are_unwrapped(context: ServerContext) -> None:
    """a fatal error comes unwrapped also for requests with TAG and QUIET"""
    for code, frame in ((ErrorCode.BAD_FRAME, raw(0x03, b"\1\0\0\0", flags=Flag.TAG, klen=1)),
                        (ErrorCode.BAD_FRAME, raw(0x90, b"\1\0\0", flags=Flag.TAG)),
                        (ErrorCode.QUIET_MISUSE, raw(0x01, b"\1\0\0\0", flags=0xC0)),
                        (ErrorCode.BAD_FRAME, raw(0x04, b"\1\0\0\0kv", flags=0xC0, klen=1))):
        link = context.push()
        link.send(frame)
        link.expect_error(code)
        link.expect_end()
        context.drop(link)


@case("8.2.3", 1, covers=("8.2.2",))
def after_errors(context: ServerContext) -> None:
    """after errors that are not fatal the connection goes on, as if their frames had not been"""
    link, key = context.connect(), context.key()
    link.send(*[request for _, request in REFUSED for _ in range(20)], put(key), ping())
    for code, _ in REFUSED:
        for _ in range(20):
            link.expect_error(code)
    link.expect(wire.OkReply)
    link.expect(wire.PongReply)


@case("10.3.1", 1)
def texts_are_short(context: ServerContext) -> None:
    """the texts of errors have at most 512 bytes, and are UTF-8"""
    link = context.connect()
    for code, request in REFUSED:
        link.send(request)
        text = link.expect_error(code).text
        if len(text) > wire.MAX_ERROR_TEXT:
            raise Failed(f"the text of {code.name} has {len(text)} bytes")
        try:
            text.decode()
        except UnicodeDecodeError:
            raise Failed(f"the text of {code.name} is no UTF-8: {text[:40]!r}") from None
