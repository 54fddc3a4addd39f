# SPDX-License-Identifier: MIT
"""The vectors, sent to a server: for each clause that has some, the case 0.

What a server answers to a frame is known from the vector, but for what depends on the server: the limit of values, and what
stands under the keys.  So of a whole frame the answer must be one that the request's table lists, or an error that is found
when a request is executed; a malformed one must get exactly the error that the vector names, and the connection must go on
or end as the specification says.
"""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import wire
from ...wire import ErrorCode, Flag, Op, ReplyOp
from ..case import Failed, Skipped
from ..clauses import order
from ..link import Link
from .context import ServerContext, case

FOLDER = Path(__file__).resolve().parents[1] / "vectors"

#: The replies to each request, besides ERROR [P-5].
ANSWERS = {
    Op.PING: {ReplyOp.PONG}, Op.PUT: {ReplyOp.OK, ReplyOp.STORED, ReplyOp.NULL, ReplyOp.EXISTS},
    Op.GET: {ReplyOp.VALUE, ReplyOp.META, ReplyOp.NULL}, Op.DEL: {ReplyOp.OK, ReplyOp.NULL},
    Op.EXPIRE: {ReplyOp.OK, ReplyOp.NULL}, Op.STATS: {ReplyOp.STATS}, Op.HELLO: {ReplyOp.WELCOME}, Op.AUTH: {ReplyOp.OK},
    Op.FLUSH: {ReplyOp.OK}, Op.INCR: {ReplyOp.NUMBER, ReplyOp.NULL}, Op.DECR: {ReplyOp.NUMBER, ReplyOp.NULL},
}

#: Errors that a well-formed request may get when it is executed [P-4.3.15].
WHEN_EXECUTED = {
    Op.PUT: {ErrorCode.OUT_OF_MEMORY, ErrorCode.BUSY, ErrorCode.VALUE_TOO_LARGE},
    Op.GET: {ErrorCode.BUSY}, Op.STATS: {ErrorCode.UNKNOWN_SECTION}, Op.HELLO: {ErrorCode.UNSUPPORTED_VERSION},
    Op.AUTH: {ErrorCode.AUTH_FAILED, ErrorCode.BUSY},
    Op.INCR: {ErrorCode.NOT_A_NUMBER, ErrorCode.OVERFLOW, ErrorCode.OUT_OF_MEMORY},
    Op.DECR: {ErrorCode.NOT_A_NUMBER, ErrorCode.OVERFLOW, ErrorCode.OUT_OF_MEMORY},
}


def load() -> dict[str, list[dict[str, Any]]]:
    """The vectors of requests by their clauses."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(FOLDER.glob("request-*.json")):
        for vector in json.loads(path.read_text())["vectors"]:
            found.setdefault(vector["clause"].removeprefix("P-"), []).append(vector)
    return found


def connect(context: ServerContext, data: bytes) -> Link:
    """A connection for a frame: with PUSH if it has QUIET."""
    return context.push() if len(data) > 1 and data[1] & Flag.QUIET else context.connect()


def send_malformed(context: ServerContext, data: bytes, found: wire.Malformed) -> None:
    """A frame that breaks a rule: its error, and then the end of the stream or the next frame."""
    link = connect(context, data)
    link.send(data)
    if found.skip == 0:
        link.expect_error(found.error)
        link.expect_end("after a fatal error")
    else:
        quiet = found.flags & Flag.QUIET
        if quiet:
            link.expect(wire.LateErrorPush, late_tag=found.tag, code=found.error)
        else:
            link.expect_error(found.error, tag=found.tag if found.flags & Flag.TAG else None)
        link.send(bytes(found.skip - len(data)))
        link.alive("after the refused frame")
    context.drop(link)


def send_whole(context: ServerContext, data: bytes, request: Any) -> None:
    """A frame that is allowed: an answer of its kind, and the next frame is found where it must be."""
    quiet = request.flags & Flag.QUIET
    link = connect(context, data)
    link.send(data)
    if not quiet:
        reply = link.receive()
        tag = request.tag if request.flags & Flag.TAG else None
        op = getattr(reply, "OP", None)
        executed = isinstance(reply, wire.ErrorReply) and reply.code in WHEN_EXECUTED.get(request.OP, set())
        if not executed and op not in ANSWERS[request.OP]:
            raise Failed(f"{request.OP.name} was answered {reply}")
        if reply.tag != tag:
            raise Failed(f"the reply bears the tag {reply.tag}, not {tag}")
    link.send(wire.PingRequest())
    reply = link.receive()
    if quiet and isinstance(reply, wire.LateErrorPush) and reply.code in WHEN_EXECUTED.get(request.OP, set()):
        reply = link.receive()
    if not isinstance(reply, wire.PongReply):
        raise Failed(f"PING behind the frame was answered {reply}")
    context.drop(link)


def send_truncated(context: ServerContext, data: bytes, limit: int) -> None:
    """A frame cut at each byte: no answer, and the stream ends as the client's does."""
    for cut in range(1, len(data)):
        if isinstance(wire.decode_request(data[:cut], limit), wire.NeedMore):
            link = connect(context, data)
            link.send(data[:cut])
            link.half_close()
            link.expect_end(f"cut after {cut} of {len(data)} bytes")
            context.drop(link)


def send_vector(context: ServerContext, vector: dict[str, Any], limit: int) -> bool:
    """Send one vector; whether it could be judged with this server's limit of values."""
    data = bytes.fromhex(vector["hex"])
    found = wire.decode_request(data, limit)
    expect = vector["expect"]
    if isinstance(found, wire.NeedMore):
        send_truncated(context, data, limit)
    elif isinstance(found, wire.Malformed):
        if expect["result"] != "malformed" or found.error != expect["code"] or found.skip - len(data) > 1 << 26:
            return False  # with this limit another rule is broken; or it takes too long to skip
        send_malformed(context, data, found)
    else:
        if expect["result"] != "whole":
            return False
        if isinstance(found.message, wire.FlushRequest) and not context.options.flush:
            return False
        send_whole(context, data, found.message)
        if vector["kind"] == "truncated":
            send_truncated(context, data, limit)
    return True


def add(clause: str, vectors: list[dict[str, Any]]) -> None:
    """The case of a clause's vectors."""

    def run(context: ServerContext) -> None:
        limit, judged, wrong = context.welcome().max_value, 0, []
        for vector in vectors:
            try:
                judged += send_vector(context, vector, limit)
            except Failed as reason:
                wrong.append(f"{vector['id']}: {reason}")
                if len(wrong) == 5:
                    break
        if wrong:
            raise Failed("; ".join(wrong))
        if judged == 0:
            raise Skipped(f"no vector can be judged where values may have {limit} bytes")

    run.__doc__ = f"the vectors of requests ({len(vectors)})"
    register_case: Callable[..., Any] = case(clause, 0)
    register_case(run)


for _clause, _vectors in sorted(load().items(), key=lambda item: order(item[0])):
    add(_clause, _vectors)
