# SPDX-License-Identifier: MIT
"""A server's end of connections that does what a script says, right or wrong, to the byte."""
from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from .. import wire
from .accepting import Acceptor
from .waiting import TIMEOUT_S

#: What a scripted peer says in WELCOME.
WELCOME: dict[str, Any] = {"version": 1, "features": wire.Feature.PUSH, "max_key": wire.MAX_KEY, "max_value": 1 << 20,
                           "max_in_flight": 1000, "server_name": b"peer 1"}


def tag_of(request: wire.Request) -> int | None:
    """The tag that the reply to a request must bear."""
    return request.tag if request.flags & wire.Flag.TAG else None


class Conversation:
    """One connection at the peer's end."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = bytearray()  # all bytes so far
        self._taken = 0

    def next(self) -> Any:
        """The next request; EOFError when the client closed."""
        while True:
            decoded = wire.decode_request(bytes(self.received[self._taken:]))
            if isinstance(decoded, wire.Whole):
                self._taken += decoded.used
                return decoded.message
            assert isinstance(decoded, wire.NeedMore), decoded
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self.received += data

    def say(self, *replies: wire.Reply | bytes) -> None:
        """Send replies, or bytes as they are, at once."""
        self.socket.sendall(b"".join(r if isinstance(r, bytes) else wire.encode_reply(r) for r in replies))

    def welcome(self, **changes: Any) -> None:
        """Take HELLO and answer it."""
        hello = self.next()
        assert isinstance(hello, wire.HelloRequest), hello
        self.say(wire.WelcomeReply(tag=tag_of(hello), **{**WELCOME, **changes}))

    def serve(self) -> None:
        """Answer each GET with its own key, and all else with OK, until the client closes."""
        while True:
            request = self.next()
            echo = isinstance(request, wire.GetRequest)
            self.say(wire.ValueReply(tag=tag_of(request), value=request.key) if echo else wire.OkReply(tag=tag_of(request)))

    def wait_for_end(self) -> None:
        """Throw away what comes, until the client closes."""
        self.socket.settimeout(TIMEOUT_S)
        while self.socket.recv(1 << 16):
            pass

    def reset(self) -> None:
        """End the connection by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Script = Callable[[Conversation], Any]


class ScriptedPeer:
    """Plays one script for each connection, in the order of the scripts; the last one again and again.

    With `welcome` it takes HELLO first, and answers.  What a script raises, but for the client's going away, end() raises.
    """

    def __init__(self, *scripts: Script, welcome: bool = True) -> None:
        self.scripts = list(scripts)
        self.welcome = welcome
        self.accepted = 0
        self.failures: list[BaseException] = []
        self._acceptor = Acceptor(self._begin)
        self.host, self.port = self._acceptor.host, self._acceptor.port

    def _begin(self, connection: socket.socket) -> None:
        script = self.scripts[min(self.accepted, len(self.scripts) - 1)]
        self.accepted += 1
        self._acceptor.run(self._play, script, connection)

    def _play(self, script: Script, connection: socket.socket) -> None:
        with connection:
            conversation = Conversation(connection)
            try:
                if self.welcome:
                    conversation.welcome()
                script(conversation)
            except (EOFError, ConnectionError):
                pass
            except BaseException as failure:
                self.failures.append(failure)

    def end(self) -> None:
        """Take no more connections, wait for the scripts, and raise what failed in them."""
        if not self._acceptor.close():
            return
        assert self._acceptor.join(), "the client did not close"
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> "ScriptedPeer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()
