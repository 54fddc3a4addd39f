# SPDX-License-Identifier: MIT
"""Sections 3.7, 8.2, 9.5 and 13.7: when the answer does not come."""
from __future__ import annotations

import time

from ... import wire
from ...testing.model import error
from ...wire import ErrorCode
from ..case import Failed
from .play import ClientContext, case


@case("3.7.4", 1, covers=("13.7.1", "9.5.1"))
def late_reply(context: ClientContext) -> None:
    """after a deadline the connection is not used again, so that a late reply reaches nobody"""
    context.open(call_ms=250)
    context.command("incr", b"first", 1)
    request = context.request(wire.IncrRequest)
    began = time.monotonic()
    context.expect("failed unknown")
    if time.monotonic() - began > 2:
        raise Failed(f"the call ended {time.monotonic() - began:.1f} s after the request, its deadline is 0.25 s")
    context.reply(request, wire.NumberReply(value=666))
    context.expect_closed("after the deadline")
    context.expect_quiet("after the deadline")
    context.command("get", b"second")
    words = context.answer_or_request(wire.GetRequest)
    if words is None:
        context.reply(context.last, wire.ValueReply(value=b"second"))
        words = context.answer()
    if words[0] != "failed" and words != ["value", b"second".hex()]:
        raise Failed(f"the next call is answered {' '.join(words)!r}")


@case("3.7.4", 2)
def deadline_inside_a_reply(context: ClientContext) -> None:
    """a reply that stops in the middle ends at the deadline, too, and its rest is no new reply"""
    context.open(call_ms=250)
    context.command("incr", b"k", 1)
    request = context.request(wire.IncrRequest)
    data = context.wrapped(request, wire.NumberReply(value=5))
    context.send(data[:7])
    context.expect("failed unknown")
    context.send(data[7:])
    context.expect_closed("after the deadline")


def unanswered(context: ClientContext, how: str) -> None:
    """Two INCRs, one of them answered, and then the connection ends in some way."""
    requests = context.three_incrs()
    if how == "inside a frame":
        context.send(context.wrapped(requests[1], wire.NumberReply(value=2))[:-2])
    if how == "reset":
        time.sleep(0.05)
        context.reset()
    else:
        context.end_stream()
    context.expect("number 1", *(["failed unknown"] if how == "reset" else []))
    context.expect("failed unknown")
    context.expect("failed unknown")
    context.expect_no_repetition(how)


@case("9.5.1", 1, covers=("9.5.5", "9.5.4"))
def end_of_the_stream(context: ClientContext) -> None:
    """what an end of the stream leaves unanswered has an unknown outcome, and is not repeated"""
    unanswered(context, "end")


@case("9.5.1", 2, covers=("9.5.5",))
def reset(context: ClientContext) -> None:
    """what a reset leaves unanswered has an unknown outcome, and is not repeated"""
    unanswered(context, "reset")


@case("9.5.1", 3, covers=("12.1.2",))
def end_inside_a_frame(context: ClientContext) -> None:
    """a stream that ends inside a frame gives no reply"""
    unanswered(context, "inside a frame")


@case("9.5.4", 1)
def conditional_put(context: ClientContext) -> None:
    """a PUT with a condition, DECR, INCR are not repeated by the client after an unknown outcome"""
    context.open()
    for words in (("put", b"k", b"v", "absent"), ("put", b"k", b"v", "version=5"), ("decr", b"k", 1), ("incr", b"k", 1, "initial=0")):
        context.command(*words)
        context.request()
        context.end_stream()
        context.expect("failed unknown")
        context.expect_no_repetition(str(words[0]))
        context.lost()


@case("9.5.3", 1, covers=("8.2.4", "9.5.5"))
def fatal_error(context: ClientContext) -> None:
    """a fatal ERROR fails the oldest request with its code; later ones are not executed, or unknown; the client closes"""
    context.three_incrs()
    context.send(error(ErrorCode.BAD_FRAME))
    context.end_stream()
    context.expect("number 1")
    context.expect("failed permanent 0202", "failed unknown")
    context.expect("failed retry*", "failed unknown*")
    context.expect_closed("after a fatal error")


@case("8.2.4", 1, should=True)
def closes_after_fatal(context: ClientContext) -> None:
    """after a fatal ERROR the client closes its side without waiting for the server's end"""
    context.open()
    context.command("incr", b"k", 1)
    context.request(wire.IncrRequest)
    context.send(error(ErrorCode.QUIET_MISUSE))
    context.expect("failed permanent 0210")
    context.expect_closed("after a fatal error")


@case("8.2.4", 2)
def unwrapped_error_is_fatal(context: ClientContext) -> None:
    """an unwrapped ERROR to a request with a tag is fatal, whatever its code"""
    context.open("tags")
    context.command("incr", b"k", 1)
    context.request(wire.IncrRequest)
    context.send(error(ErrorCode.BAD_FRAME))
    context.end_stream()
    context.expect("failed permanent 0202", "failed unknown")
    context.expect_closed("after an unwrapped ERROR")


@case("3.7.4", 3)
def server_gone(context: ClientContext) -> None:
    """where no server listens any more, a request fails and was not executed"""
    context.open()
    context.command("get", b"k")
    context.reply(context.request(wire.GetRequest), wire.NullReply())
    context.expect("miss")
    context.stop_listening()
    time.sleep(0.02)
    context.command("incr", b"k", 1)
    context.expect("failed retry*", "failed unknown*")
    context.command("incr", b"k", 1)
    context.expect("failed retry*")
