# SPDX-License-Identifier: MIT
"""What system tests share: crabcache.testing, which is what everyone gets who tests programs that use CrabCache.

The programs under test come from the folder in CRABCACHE_BUILD (default build/release). What speaks the protocol is the
pure-Python codec of python/crabcache/wire.py, so that nothing of the C code checks itself.
"""
from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("CRABCACHE_BUILD", "build/release")).resolve()
SANITIZED = BUILD.name in ("asan", "tsan")

# Before the first import of crabcache.testing, which reads them.
os.environ["CRABCACHE_BUILD"] = str(BUILD)
os.environ.setdefault("CRABCACHE_TEST_TIMEOUT", "60" if SANITIZED else "20")
sys.path.insert(0, str(ROOT / "python"))

from crabcache import wire  # noqa: E402
from crabcache.testing import TIMEOUT_S, Peer, Server, wait_until  # noqa: E402

__all__ = ["BUILD", "ROOT", "SANITIZED", "TIMEOUT_S", "Peer", "Server", "crypt", "wait_until", "wire"]


def crypt(secret: str) -> str:
    """What a file of users holds for a secret; Python's own crypt is on its way out."""
    function = ctypes.CDLL("libcrypt.so.1").crypt
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_char_p, ctypes.c_char_p]
    return str(function(secret.encode(), b"$6$rounds=1000$salt$").decode())


def pytest_configure(config: pytest.Config) -> None:
    """The fixtures, which pytest finds by itself only where the package is installed."""
    config.pluginmanager.import_plugin("crabcache.testing.plugin")


@pytest.fixture
def start_server(crabcache_start: Callable[..., Server]) -> Callable[..., Server]:
    """Starts servers: start_server("--memory", "64M"). They are stopped, and must stop well, after the test."""
    return crabcache_start


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    """One server for the tests of a module that do not mind each other's items."""
    server = Server("--memory", "256M", "--threads", "2")
    yield server
    assert server.process.poll() is None, f"the server died: {server.errors()}"
    server.stop()
    assert server.process.returncode == 0


@pytest.fixture
def peer(shared_server: Server) -> Iterator[Peer]:
    """A connection to the shared server, which is emptied first."""
    with shared_server.connect() as peer:
        with shared_server.connect() as other:
            assert isinstance(other.call(wire.FlushRequest()), wire.OkReply)
        yield peer
