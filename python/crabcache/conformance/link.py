# SPDX-License-Identifier: MIT
"""A connection that remembers every byte, and says what is wrong with what it gets."""
from __future__ import annotations

import select
import socket
import time
from typing import Any

from .. import wire
from ..testing.peer import Address, family_of
from ..wire import ErrorCode
from .case import Failed

SHOWN = 256  # bytes of one write or read that a transcript shows


def show(message: object) -> str:
    """A message in a few words."""
    if isinstance(message, wire.Reply):
        op = getattr(message, "OP", None)
        name = str(op.name) if op is not None else f"unknown op {getattr(message, 'op'):#04x}"
        parts = [] if message.tag is None else [f"tag {message.tag}"]
        for field, value in vars(message).items():
            if field in ("tag", "op"):
                continue
            if field == "code":
                known = value in ErrorCode._value2member_map_
                parts.append(ErrorCode(value).name if known else f"code {value:#06x}")
            else:
                parts.append(f"{field} {value[:40]!r}" if isinstance(value, bytes) else f"{field} {value}")
        return f"{name}({', '.join(parts)})" if parts else name
    return "the end of the stream" if message is None else repr(message)


class Transcript:
    """Bytes in the order of their crossing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._events: list[tuple[str, bytearray, int]] = []

    def add(self, who: str, data: bytes) -> None:
        """Note some bytes; `who` is C or S."""
        if not self._events or self._events[-1][0] != who:
            self._events.append((who, bytearray(), 0))
        kind, kept, size = self._events[-1]
        kept += data[:max(0, SHOWN - len(kept))]
        self._events[-1] = (kind, kept, size + len(data))

    def note(self, what: str) -> None:
        """Note an event that is no bytes."""
        self._events.append((what, bytearray(), 0))

    def lines(self) -> list[str]:
        """For people."""
        lines = [self.name]
        for who, data, size in self._events:
            if not data:
                lines.append(f"  {who}")
                continue
            for at in range(0, len(data), 16):
                lines.append(f"  {who if at == 0 else ' '}  {data[at:at + 16].hex(' ').upper()}")
            if size > len(data):
                lines.append(f"     ... {size} bytes in all")
        return lines


class Link:
    """The client's end of a connection to the server under test."""

    def __init__(self, address: Address, name: str, timeout_s: float, silence_s: float) -> None:
        self.log = Transcript(name)
        self.timeout_s, self.silence_s = timeout_s, silence_s
        self.buffer = bytearray()
        self.socket = socket.socket(family_of(address), socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(address)
            if self.socket.family != socket.AF_UNIX:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        """End it."""
        self.socket.close()

    # ---- out

    def send(self, *frames: wire.Request | bytes) -> None:
        """Send requests, or bytes as they are, by one write."""
        data = b"".join(f if isinstance(f, bytes) else wire.encode_request(f) for f in frames)
        self.log.add("C", data)
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.log.note("(the server has closed)")

    def half_close(self) -> None:
        """End our stream; the server's goes on."""
        self.log.note("(the client ends its stream)")
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    # ---- in

    def receive(self, timeout_s: float | None = None) -> Any:
        """The next reply or push; None at the end of the stream."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        size = 1
        while True:
            outcome = wire.decode_reply(bytes(self.buffer[:size]))  # no more than it takes: a pipeline's replies are many
            if isinstance(outcome, wire.NeedMore) and len(self.buffer) >= outcome.size:
                size = outcome.size
                continue
            if isinstance(outcome, wire.Whole):
                del self.buffer[:outcome.used]
                return outcome.message
            if isinstance(outcome, wire.Malformed):
                raise Failed(f"the server sent what is no reply: {bytes(self.buffer[:32]).hex(' ')}")
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.socket.recv(max(65536, min(outcome.size - len(self.buffer), 1 << 22)))
            except socket.timeout:
                raise Failed("no answer came in time") from None
            except ConnectionResetError:
                self.log.note("(reset by the server)")
                raise Failed("the server reset the connection") from None
            if not data:
                self.log.note("(the server ends its stream)")
                if self.buffer:
                    raise Failed("the stream ends inside a frame")
                return None
            self.log.add("S", data)
            self.buffer += data

    def expect(self, kind: type[wire.Reply], what: str = "", **fields: Any) -> Any:
        """The next reply must be of a kind, and have these fields; an unwrapped one unless `tag` is given."""
        fields.setdefault("tag", None)
        message = self.receive()
        wanted = kind.__name__.removesuffix("Reply").removesuffix("Push").upper()
        if not isinstance(message, kind) or any(getattr(message, name) != value for name, value in fields.items()):
            parts = ", ".join(f"{name} {value!r}" for name, value in fields.items() if value is not None)
            wanted += f"({parts})" if parts else ""
            raise Failed(f"{what + ': ' if what else ''}expected {wanted}, got {show(message)}")
        return message

    def expect_error(self, *codes: ErrorCode, tag: int | None = None, what: str = "") -> wire.ErrorReply:
        """The next reply must be ERROR with one of some codes."""
        message = self.receive()
        names = " or ".join(code.name for code in codes)
        if not isinstance(message, wire.ErrorReply) or message.code not in codes or message.tag != tag:
            wrapped = "" if tag is None else f" in TAGGED {tag}"
            raise Failed(f"{what + ': ' if what else ''}expected ERROR {names}{wrapped}, got {show(message)}")
        return message

    def expect_end(self, what: str = "") -> None:
        """The server must end its stream now."""
        message = self.receive()
        if message is not None:
            raise Failed(f"{what + ': ' if what else ''}expected the end of the stream, got {show(message)}")

    def expect_silence(self, what: str = "") -> None:
        """Nothing may come for a while."""
        if not self.buffer:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            if not poll.poll(self.silence_s * 1000):
                return
        raise Failed(f"{what + ': ' if what else ''}expected nothing yet, got {show(self.receive())}")

    def call(self, request: wire.Request | bytes) -> Any:
        """Send one request and return its reply, which may be ERROR."""
        self.send(request)
        message = self.receive()
        if message is None:
            raise Failed("the server closed instead of answering")
        return message

    def ok(self, request: wire.Request, what: str = "") -> None:
        """A request that must be answered OK."""
        self.send(request)
        self.expect(wire.OkReply, what, tag=request.tag if request.flags & wire.Flag.TAG else None)

    def alive(self, what: str = "the connection goes on") -> None:
        """PING must be answered."""
        self.send(wire.PingRequest())
        self.expect(wire.PongReply, what)

    def value(self, key: bytes) -> bytes | None:
        """The value under a key, or None."""
        message = self.call(wire.GetRequest(key=key))
        if isinstance(message, wire.ValueReply):
            return message.value
        if isinstance(message, wire.NullReply):
            return None
        raise Failed(f"GET was answered {show(message)}")

    def meta(self, key: bytes) -> wire.MetaReply:
        """META of a key, which must be present."""
        self.send(wire.GetRequest(key=key, flags=wire.GetRequest.META))
        meta: wire.MetaReply = self.expect(wire.MetaReply, "GET with META")
        return meta
