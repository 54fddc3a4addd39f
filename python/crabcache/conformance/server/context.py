# SPDX-License-Identifier: MIT
"""What a case for servers gets: connections to the server under test, and names for keys that nobody else uses."""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ... import wire
from ...testing.peer import Address
from ..build import auth, hello
from ..case import Case, Failed, Skipped, register
from ..link import Link

#: All cases for servers; the modules of this package fill it.
CASES: list[Case] = []

case = register(CASES)


@dataclass
class Options:
    """How to reach the server under test, and what the kit may do to it."""

    server: Address
    auth_server: Address | None = None  # one that demands authentication
    user: bytes = b""
    secret: bytes = b""
    small_server: Address | None = None  # one that does not evict and has little memory
    stop: Callable[[], object] | None = None  # ends `server` in order
    deadline_s: float | None = None  # by when `server` closes a connection that stops in the middle of a frame
    flush: bool = True
    timeout_s: float = 5.0
    silence_s: float = 0.1
    run: str = field(default_factory=lambda: os.urandom(4).hex())


NEEDS: dict[str, tuple[Callable[[Options], object], str]] = {
    "auth": (lambda o: o.auth_server, "needs --auth-server, --user and --secret-file"),
    "small": (lambda o: o.small_server, "needs --small-server"),
    "stop": (lambda o: o.stop, "needs --stop-command"),
    "deadline": (lambda o: o.deadline_s, "needs --deadline"),
    "flush": (lambda o: o.flush, "would empty the server, which --no-flush forbids"),
}


class ServerContext:
    """What one case gets."""

    #: What servers said in WELCOME, by their addresses.
    welcomes: dict[Address, wire.WelcomeReply] = {}

    def __init__(self, case: Case, options: Options) -> None:
        self.case, self.options = case, options
        self._links: list[Link] = []

    def check_needs(self) -> None:
        """Skipped if something is not given that the case needs."""
        for need in self.case.needs:
            given, reason = NEEDS[need]
            if not given(self.options):
                raise Skipped(reason)

    def close(self) -> None:
        """End all connections."""
        for link in self._links:
            link.close()

    def transcript(self) -> list[str]:
        """Of the last two connections, which the case looked at when it failed."""
        return [line for link in self._links[-2:] for line in link.log.lines()]

    def key(self, name: str = "k") -> bytes:
        """A key of this case alone."""
        return f"conformance/{self.options.run}/{self.case.address}/{name}".encode()

    # ---- connections

    def connect(self, address: Address | None = None) -> Link:
        """A new connection in START."""
        link = Link(address or self.options.server, f"connection {len(self._links) + 1}", self.options.timeout_s,
                    self.options.silence_s)
        self._links.append(link)
        return link

    def drop(self, link: Link) -> None:
        """Close a connection before the end of the case; its bytes are shown only if it was the last."""
        link.close()
        if len(self._links) > 3:
            self._links.remove(link)

    def push(self, address: Address | None = None) -> Link:
        """A new connection with the feature PUSH; Skipped if the server does not grant it."""
        link = self.connect(address)
        link.send(hello(features=wire.Feature.PUSH))
        welcome = link.expect(wire.WelcomeReply, "HELLO")
        if not welcome.features & wire.Feature.PUSH:
            raise Skipped("the server does not grant PUSH")
        return link

    def authenticated(self) -> Link:
        """A new connection to the server that demands authentication, with AUTH done."""
        link = self.connect(self.options.auth_server)
        link.send(auth(self.options.user, self.options.secret))
        link.expect(wire.OkReply, "AUTH with the user and secret given")
        return link

    def welcome(self, address: Address | None = None) -> wire.WelcomeReply:
        """What the server says in WELCOME."""
        address = address or self.options.server
        if address not in self.welcomes:
            link = self.connect(address)
            link.send(hello())
            self.welcomes[address] = link.expect(wire.WelcomeReply, "HELLO")
            self.drop(link)
        return self.welcomes[address]

    # ---- time and threads

    def sleep_ms(self, milliseconds: float) -> None:
        """Wait."""
        time.sleep(milliseconds / 1000)

    @contextmanager
    def meanwhile(self, work: Callable[[threading.Event], Any]) -> Iterator[None]:
        """Run `work` in a thread while the block runs; what it raises is raised at the end."""
        over, failures = threading.Event(), []

        def run() -> None:
            try:
                work(over)
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(self.options.timeout_s * 4)
        if failures:
            raise failures[0]
        if thread.is_alive():
            raise Failed("a second connection got stuck")
