# SPDX-License-Identifier: MIT
"""A client's end of a connection for tests: frames out, replies in, and nothing hidden, repeated or repaired."""
from __future__ import annotations

import select
import socket
from typing import Any, Union

from .. import wire
from .waiting import TIMEOUT_S

Address = Union["tuple[str, int]", str]


class StreamError(AssertionError):
    """The server sent what no server may send."""


def family_of(address: Address) -> socket.AddressFamily:
    """The kind of socket for an address: a path is a unix socket's."""
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


class Peer:
    """One connection to a server.

    Requests are messages of crabcache.wire, or bytes that go out as they are.
    """

    def __init__(self, address: Address, receive_buffer: int | None = None, timeout_s: float | None = None) -> None:
        family = family_of(address)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            if receive_buffer is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(TIMEOUT_S if timeout_s is None else timeout_s)
            if family != socket.AF_UNIX:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        self.buffer = bytearray()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, *frames: wire.Request | bytes) -> None:
        """Send requests, or bytes as they are, at once."""
        self.socket.sendall(b"".join(f if isinstance(f, bytes) else wire.encode_request(f) for f in frames))

    def receive(self) -> Any:
        """The next reply or push; None at the end of the stream."""
        while True:
            outcome = wire.decode_reply(bytes(self.buffer)) if self.buffer else None
            if isinstance(outcome, wire.Whole):
                del self.buffer[: outcome.used]
                return outcome.message
            if isinstance(outcome, wire.Malformed):
                raise StreamError(f"the server sent {bytes(self.buffer[:64])!r}")
            wanted = outcome.size - len(self.buffer) if outcome is not None else 0
            data = self.socket.recv(max(65536, min(wanted, 1 << 22)))
            if not data:
                if self.buffer:
                    raise StreamError(f"the stream ends inside a frame: {bytes(self.buffer[:64])!r}")
                return None
            self.buffer += data

    def call(self, *requests: wire.Request | bytes) -> Any:
        """Send requests and return the reply, or the list of replies if there are several."""
        self.send(*requests)
        replies = [self.receive() for _ in requests]
        return replies[0] if len(replies) == 1 else replies

    def hello(self, features: int = wire.Feature.PUSH) -> Any:
        """Say HELLO; by default with pushes."""
        return self.call(wire.HelloRequest(version_min=1, version_max=1, features=features))

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        poll = select.poll()  # select() takes no descriptors from 1024 on
        poll.register(self.socket, select.POLLIN)
        return not self.buffer and not poll.poll(seconds * 1000)

    def stats(self, section: bytes = b"") -> dict[str, str]:
        """The statistics, as names and values."""
        text = self.call(wire.StatsRequest(key=section)).text.decode()
        return dict(line.split(":", 1) for line in text.splitlines())
