# SPDX-License-Identifier: MIT
"""The pytest fixtures of crabcache.testing.

    crabcache_server    a fresh server on a free port; @pytest.mark.crabcache("--memory", "8M", clock=True) says how
    crabcache_start     starts servers: crabcache_start("--memory", "64M"); any number of them
    crabcache_peer      a plain connection to crabcache_server
    crabcache_scripted  starts peers that play a server by a script: crabcache_scripted(script, ...)
    crabcache_proxy     starts proxies that harm: crabcache_proxy(server, down=Chaos(cut_at=5))

All that they start ends with the test, and must end well: a server that crashed, hangs or has a sanitizer's report in its
log fails the test.  A server that the test itself has killed does not.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .peer import Peer
from .proxy import ChaosProxy
from .scripted import Script, ScriptedPeer
from .server import Server, StoppedClock

DEFAULT_FLAGS = ("--memory", "64M", "--threads", "1")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "crabcache(*flags, clock=False): how the fixture crabcache_server is started")


@pytest.fixture
def crabcache_start() -> Iterator[Callable[..., Server]]:
    """Starts servers: crabcache_start("--memory", "64M"). They are stopped, and must stop well, after the test."""
    servers: list[Server] = []

    def start(*flags: str, **options: Any) -> Server:
        servers.append(Server(*flags, **options))
        return servers[-1]

    yield start
    _end_all([server.stop for server in servers])


@pytest.fixture
def crabcache_server(request: pytest.FixtureRequest, crabcache_start: Callable[..., Server]) -> Iterator[Server]:
    """A fresh server; the mark `crabcache` gives its flags."""
    mark = request.node.get_closest_marker("crabcache")
    flags = mark.args if mark else ()
    clock = StoppedClock() if mark and mark.kwargs.get("clock") else None
    try:
        server = crabcache_start(*(() if "--config" in flags else DEFAULT_FLAGS), *flags, clock=clock)
        yield server
        server.stop()
    finally:
        if clock:
            clock.close()


@pytest.fixture
def crabcache_peer(crabcache_server: Server) -> Iterator[Peer]:
    """A connection to the server."""
    with crabcache_server.connect() as peer:
        yield peer


@pytest.fixture
def crabcache_scripted() -> Iterator[Callable[..., ScriptedPeer]]:
    """Starts scripted peers: crabcache_scripted(script, welcome=False). What fails in a script fails the test."""
    peers: list[ScriptedPeer] = []

    def start(*scripts: Script, **options: Any) -> ScriptedPeer:
        peers.append(ScriptedPeer(*scripts, **options))
        return peers[-1]

    yield start
    _end_all([peer.end for peer in peers])


@pytest.fixture
def crabcache_proxy() -> Iterator[Callable[..., ChaosProxy]]:
    """Starts proxies before a server: crabcache_proxy(server, up=Chaos(...), down=Chaos(...))."""
    proxies: list[ChaosProxy] = []

    def start(server: Server, **options: Any) -> ChaosProxy:
        proxies.append(ChaosProxy(server.address, **options))
        return proxies[-1]

    yield start
    _end_all([proxy.end for proxy in proxies])


def _end_all(ends: list[Callable[[], None]]) -> None:
    """Call all, also if some of them fail; then raise the first failure."""
    failures = []
    for end in ends:
        try:
            end()
        except Exception as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
