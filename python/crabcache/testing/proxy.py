# SPDX-License-Identifier: MIT
"""A proxy that stands between clients and a server and does to the bytes what bad networks and dying machines do."""
from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from .accepting import Acceptor
from .peer import Address, family_of


@dataclass(frozen=True)
class Chaos:
    """What happens to the bytes of one direction of each connection.  Offsets count from the connection's beginning."""

    piece: int = 1 << 16  #: the most bytes that are passed on at once
    delay_s: float = 0.0  #: how long each piece waits
    corrupt: Mapping[int, int] = field(default_factory=dict)  #: bytes, by their offsets, and what they are xor-ed with
    cut_at: int | None = None  #: so many bytes pass, then both directions end
    stall_at: int | None = None  #: so many bytes pass, then nothing more does, and nothing ends
    reset: bool = False  #: with cut_at: end by a reset, so that bytes on their way may be lost, too

    def apply(self, data: bytes, offset: int) -> bytes:
        """The bytes as they go out; `offset` is where the first of them stands."""
        if not self.corrupt:
            return data
        changed = bytearray(data)
        for at, mask in self.corrupt.items():
            if offset <= at < offset + len(data):
                changed[at - offset] ^= mask
        return bytes(changed)

    def allowed(self, offset: int) -> int:
        """How many bytes may pass now."""
        ends = [end for end in (self.cut_at, self.stall_at) if end is not None]
        return max(0, min([self.piece, *(end - offset for end in ends)]))


class _Link:
    """One connection of a client, and the one to the server.  The direction that ends last closes both sockets."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = (client, server)
        self.over = threading.Event()
        self._running = 2
        self._lock = threading.Lock()

    def pump(self, source: socket.socket, sink: socket.socket, chaos: Chaos) -> None:
        """Pass on what one direction brings, until it ends."""
        try:
            if self._pass_on(source, sink, chaos):
                sink.shutdown(socket.SHUT_WR)
            else:
                self.finish(chaos.reset)
        except OSError:
            self.finish(False)
        with self._lock:
            self._running -= 1
            if self._running == 0:
                for end in self.ends:
                    end.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, chaos: Chaos) -> bool:
        """True at the end of the stream, False where the connection is to be cut."""
        offset = 0
        while not self.over.is_set():
            if chaos.stall_at is not None and offset >= chaos.stall_at:
                self.over.wait()
                break
            if chaos.cut_at is not None and offset >= chaos.cut_at:
                break
            data = source.recv(chaos.allowed(offset))
            if not data:
                return not self.over.is_set()
            if chaos.delay_s:
                self.over.wait(chaos.delay_s)
            sink.sendall(chaos.apply(data, offset))
            offset += len(data)
        return False

    def finish(self, reset: bool) -> None:
        """End both connections: in order, or by a reset, which close() sends when no thread is in a call any more."""
        if self.over.is_set():
            return
        self.over.set()
        for end in self.ends:
            try:
                if reset and end.family != socket.AF_UNIX:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)  # wakes the other direction, and sends nothing
                else:
                    end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already


class ChaosProxy:
    """Listens on a free port and passes connections on to `target`; `up` is what clients send, `down` what they receive.

    `up` and `down` may be changed at any time; a connection takes those that stand when it begins.
    """

    def __init__(self, target: Address, up: Chaos = Chaos(), down: Chaos = Chaos()) -> None:
        self.target, self.up, self.down = target, up, down
        self.accepted = 0
        self._links: list[_Link] = []
        self._acceptor = Acceptor(self._connect)
        self.host, self.port = self._acceptor.host, self._acceptor.port

    def _connect(self, client: socket.socket) -> None:
        self.accepted += 1
        server = socket.socket(family_of(self.target), socket.SOCK_STREAM)
        try:
            server.connect(self.target)
        except OSError:
            client.close()
            server.close()
            return
        for end in (client, server):
            if end.family != socket.AF_UNIX:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        self._links.append(link)
        self._acceptor.run(link.pump, client, server, self.up)
        self._acceptor.run(link.pump, server, client, self.down)

    def end(self) -> None:
        """End all connections and listen no more."""
        if not self._acceptor.close():
            return
        for link in self._links:
            link.finish(False)
        self._acceptor.join()

    def __enter__(self) -> "ChaosProxy":
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()
