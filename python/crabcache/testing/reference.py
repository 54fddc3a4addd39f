# SPDX-License-Identifier: MIT
"""A server of the protocol in plain Python: small, slow, and as close to the words of spec/PROTOCOL.md as code can be.

It is for reading beside the specification, for tests of clients where no crabcache-server is at hand, and for tests of tests:
each of its rules is a method of its own, so that a subclass breaks exactly one.

    with ReferenceServer() as server:
        Peer(server.address).call(wire.PingRequest())

Session turns bytes into bytes and knows no sockets; ReferenceServer has a thread for each connection.
"""
from __future__ import annotations

import re
import socket
import threading
import time
from typing import Any

from .. import wire
from ..wire import ErrorCode, Feature, Flag
from .accepting import Acceptor
from .model import Store, error
from .peer import Address
from .scripted import tag_of

#: Requests that are executed before AUTH [P-3.5.4].
BEFORE_AUTH = (wire.HelloRequest, wire.AuthRequest, wire.PingRequest)
#: Found by the checks 11 and 12, for which the frame must be whole [P-4.3.11] [P-4.3.12].
WHOLE_FRAME_ERRORS = (ErrorCode.BAD_EXTENSION, ErrorCode.UNKNOWN_EXTENSION, ErrorCode.BAD_FIELD)
LONGEST_FRONT = 38
ITEM_OVERHEAD = 64
SECTIONS = ("server", "connections", "store", "workers", "ops")


class Session:
    """One connection: feed() takes what came and gives what goes out."""

    def __init__(self, server: "ReferenceServer") -> None:
        self.server = server
        self.buffer = bytearray()
        self.output = bytearray()
        self.ready = False  # START or READY [P-3.3.1]
        self.features = 0
        self.authenticated = False
        self.closing = False
        self.skipping = 0  # bytes of a refused frame that are still to come

    def feed(self, data: bytes) -> bytes:
        """Take bytes off the stream; what is to be sent."""
        self.buffer += data
        while not self.closing and self.take():
            pass
        output, self.output = bytes(self.output), bytearray()
        return output

    def take(self) -> bool:
        """Take one frame off the buffer, or what is there of one that is skipped; whether to try again."""
        if self.skipping:
            size = min(self.skipping, len(self.buffer))
            del self.buffer[:size]
            self.skipping -= size
            return self.skipping == 0 and bool(self.buffer)
        if not self.buffer:
            return False
        found = self.look(bytes(self.buffer))
        if isinstance(found, wire.NeedMore):
            return False
        if isinstance(found, wire.Whole):
            del self.buffer[:found.used]
            request: Any = found.message
            self.ready = self.ready or not isinstance(request, wire.HelloRequest)
            self.answer(request.flags, tag_of(request), self.execute(request))
            return True
        self.refuse(found)
        return not self.closing

    # ---- the checks of a frame [P-4.3]

    def look(self, data: bytes) -> wire.Whole | wire.NeedMore | wire.Malformed:
        """What stands at the start of the buffer, by the checks that need no items."""
        found = self.decode(data)
        if len(data) < wire.REQUEST_HEADER or not wire.in_ranges(data[0], wire.REQUEST_OPS):
            return found
        if data[1] & Flag.QUIET and not self.quiet_allowed():
            return wire.Malformed(ErrorCode.QUIET_MISUSE)
        if self.must_authenticate(data) and self.front_passed(data, found):
            tag = int.from_bytes(data[8:12], "little") if data[1] & Flag.TAG else None
            total = wire.REQUEST_HEADER + int.from_bytes(data[4:8], "little")
            return wire.Malformed(ErrorCode.AUTH_REQUIRED, total, data[0], data[1], tag)
        return found

    def decode(self, data: bytes) -> wire.Whole | wire.NeedMore | wire.Malformed:
        """The checks that any decoder makes."""
        return wire.decode_request(data, self.server.max_value)

    def quiet_allowed(self) -> bool:
        """[P-4.3.14]"""
        return bool(self.features & Feature.PUSH)

    def must_authenticate(self, data: bytes) -> bool:
        """Whether the frame needs AUTH, which has not been [P-3.5.4] [P-3.5.5]."""
        if self.server.users is None or self.authenticated or data[0] not in wire.REQUESTS:
            return False
        longest = int.from_bytes(data[4:8], "little")
        return wire.REQUESTS[data[0]] not in BEFORE_AUTH or longest > wire.MAX_BODY_BEFORE_AUTH

    def front_passed(self, data: bytes, found: wire.Whole | wire.NeedMore | wire.Malformed) -> bool:
        """Whether the checks 1 to 9 have been made, and passed."""
        if isinstance(found, wire.Malformed):
            return found.error in WHOLE_FRAME_ERRORS
        total = wire.REQUEST_HEADER + int.from_bytes(data[4:8], "little")
        return isinstance(found, wire.Whole) or len(data) >= min(total, LONGEST_FRONT)

    def refuse(self, found: wire.Malformed) -> None:
        """Answer a frame that breaks a rule."""
        if found.error in wire.CLOSING_ERRORS:
            self.fatal(found.error)
            return
        if found.op != wire.Op.HELLO:
            self.ready = True
        self.skip(found.skip)
        self.answer(found.flags, found.tag, error(found.error))

    def skip(self, size: int) -> None:
        """Throw away a frame that begins where the buffer does [P-4.3.13]."""
        have = min(size, len(self.buffer))
        del self.buffer[:have]
        self.skipping = size - have

    def fatal(self, code: ErrorCode) -> None:
        """The last frame of the stream [P-8.2.1]."""
        self.say(error(code))
        self.closing = True

    # ---- answers

    def say(self, reply: wire.Reply) -> None:
        """Put a reply or push into the stream."""
        self.output += wire.encode_reply(reply)

    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        """The reply to a request: wrapped if it has a tag [P-4.6.1], and none but LATE_ERROR if it is quiet [P-5.12.1]."""
        if flags & Flag.QUIET:
            if isinstance(reply, wire.ErrorReply):
                self.say(wire.LateErrorPush(late_tag=tag or 0, code=reply.code, text=reply.text))
            return
        reply.tag = tag if flags & Flag.TAG else None
        self.say(reply)

    # ---- requests

    def execute(self, request: Any) -> wire.Reply:
        """Execute a request that passed the checks of its frame."""
        if isinstance(request, wire.PingRequest):
            return wire.PongReply()
        if isinstance(request, wire.HelloRequest):
            return self.hello(request)
        if isinstance(request, wire.AuthRequest):
            return self.auth(request)
        if isinstance(request, wire.StatsRequest):
            return self.stats(request)
        with self.server.lock:
            return self.server.on_items(request)

    def hello(self, request: wire.HelloRequest) -> wire.Reply:
        """[P-3.4]"""
        if self.ready:
            return error(ErrorCode.BAD_STATE)
        if not request.version_min <= wire.PROTOCOL_VERSION <= request.version_max:
            return error(ErrorCode.UNSUPPORTED_VERSION)
        self.ready = True
        self.features = request.features & Feature.PUSH
        return wire.WelcomeReply(version=wire.PROTOCOL_VERSION, features=self.features, max_key=wire.MAX_KEY,
                                 max_value=self.server.max_value, max_in_flight=wire.MAX_IN_FLIGHT, server_name=b"reference")

    def auth(self, request: wire.AuthRequest) -> wire.Reply:
        """[P-3.5.2]"""
        self.authenticated = (self.server.users or {}).get(request.key) == request.value
        return wire.OkReply() if self.authenticated else error(ErrorCode.AUTH_FAILED)

    def stats(self, request: wire.StatsRequest) -> wire.Reply:
        """[P-5.6.1]"""
        wanted = [name for name in SECTIONS if not request.key or request.key == name.encode()]
        if not wanted:
            return error(ErrorCode.UNKNOWN_SECTION)
        return wire.StatsReply(text="".join(f"{name}.{key}:{value}\n" for name in wanted
                                            for key, value in self.server.numbers(name)).encode())


class ReferenceServer:
    """Listens on a free port of the loopback; `users` makes it demand authentication, `memory` makes it refuse what does not fit."""

    session_type = Session
    store_type = Store

    def __init__(self, users: dict[bytes, bytes] | None = None, max_value: int = 1 << 20, memory: int = 1 << 28,
                 stall_s: float | None = None) -> None:
        self.users, self.max_value, self.memory, self.stall_s = users, max_value, memory, stall_s
        self.lock = threading.Lock()
        self.store = self.store_type(self.clock_ms, time.time_ns())
        self._sessions: dict[socket.socket, Session] = {}
        self._acceptor = Acceptor(self._begin)
        self.host, self.port = self._acceptor.host, self._acceptor.port

    @property
    def address(self) -> Address:
        """Where it listens."""
        return (self.host, self.port)

    def clock_ms(self) -> int:
        """The clock by which items expire [P-5.0.2]."""
        return time.monotonic_ns() // 1_000_000

    # ---- items

    def on_items(self, request: Any) -> wire.Reply:
        """A request on items; under the lock, so that each is one step [P-9.2.1]."""
        if isinstance(request, wire.PutRequest) and not self.fits(request):
            return error(ErrorCode.OUT_OF_MEMORY)
        return self.store.execute(request)

    def fits(self, request: wire.PutRequest) -> bool:
        """Whether there is room for an item [P-5.2.5]."""
        used = sum(len(key) + len(item.value) + ITEM_OVERHEAD for key, item in self.store.items.items() if key != request.key) \
            if self.memory < 1 << 26 else 0
        return used + len(request.key) + len(request.value) + ITEM_OVERHEAD <= self.memory

    def numbers(self, section: str) -> list[tuple[str, str]]:
        """The statistics of a section."""
        return [("name", "reference"), ("items", str(len(self.store.items)))] if section == "store" else [("name", re.escape(section))]

    # ---- connections

    def _begin(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = self._sessions[connection] = self.session_type(self)
        self._acceptor.run(self._serve, connection, session)

    def greeting(self) -> bytes:
        """What is said before anything was received: nothing [P-3.1.4]."""
        return b""

    def _serve(self, connection: socket.socket, session: Session) -> None:
        try:
            connection.sendall(self.greeting())
            while not session.closing:
                connection.settimeout(self.stall_s if session.buffer else None)
                data = connection.recv(1 << 16)
                if not data:
                    break
                connection.sendall(session.feed(data))
        except socket.timeout:
            self.goaway(connection, session, ErrorCode.IDLE_TIMEOUT)
        except OSError:
            pass
        self.finish(connection)
        self._sessions.pop(connection, None)
        connection.close()

    def goaway(self, connection: socket.socket, session: Session, code: ErrorCode) -> None:
        """Say why a connection ends [P-3.8.1]."""
        if session.features & Feature.PUSH:
            connection.sendall(wire.encode_reply(wire.GoawayPush(code=int(code), text=wire.ERROR_TEXTS[code].encode())))

    def finish(self, connection: socket.socket) -> None:
        """End the stream, and read on for a while, so that no reset destroys what was sent [P-3.7.3]."""
        try:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.5)
            while connection.recv(1 << 16):
                pass
        except OSError:
            pass

    def stop(self) -> None:
        """Stop in order."""
        if not self._acceptor.close():
            return
        for connection, session in list(self._sessions.items()):
            try:
                self.goaway(connection, session, ErrorCode.SHUTTING_DOWN)
                connection.shutdown(socket.SHUT_RDWR)  # wakes its thread
            except OSError:
                pass
        self._acceptor.join(1.0)

    def __enter__(self) -> "ReferenceServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
