# SPDX-License-Identifier: MIT
"""What system tests share: a real server on a free port, and a plain socket that speaks the protocol.

The programs under test come from the folder in CRABCACHE_BUILD (default build/release). The codec is the pure-Python
one of python/crabcache/wire.py, so that nothing of the C code checks itself.
"""
from __future__ import annotations

import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("CRABCACHE_BUILD", "build/release")).resolve()
SANITIZED = BUILD.name in ("asan", "tsan")
TIMEOUT_S = 60.0 if SANITIZED else 20.0


def load_wire() -> ModuleType:
    """The Python codec alone, without the package around it, which needs the C library."""
    if "crabcache_wire" not in sys.modules:
        spec = importlib.util.spec_from_file_location("crabcache_wire", ROOT / "python" / "crabcache" / "wire.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["crabcache_wire"] = module
        spec.loader.exec_module(module)
    return sys.modules["crabcache_wire"]


wire = load_wire()


class Peer:
    """A client's end of a connection: frames out, replies in, and nothing hidden."""

    def __init__(self, address: tuple[str, int] | str, receive_buffer: int | None = None) -> None:
        local = isinstance(address, str)  # the path of a unix socket
        family = socket.AF_UNIX if local else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_S)
        if not local:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(address)
        self.buffer = bytearray()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, *frames: object) -> None:
        """Send requests, or bytes as they are, at once."""
        self.socket.sendall(b"".join(f if isinstance(f, bytes) else wire.encode_request(f) for f in frames))

    def receive(self) -> object:
        """The next reply or push; None at the end of the stream."""
        while True:
            outcome = wire.decode_reply(bytes(self.buffer)) if self.buffer else None
            if isinstance(outcome, wire.Whole):
                del self.buffer[: outcome.used]
                return outcome.message
            assert not isinstance(outcome, wire.Malformed), f"the server sent {bytes(self.buffer[:64])!r}"
            wanted = outcome.size - len(self.buffer) if outcome is not None else 0
            data = self.socket.recv(max(65536, min(wanted, 1 << 22)))
            if not data:
                assert not self.buffer, f"the stream ends inside a frame: {bytes(self.buffer[:64])!r}"
                return None
            self.buffer += data

    def call(self, *requests: object) -> object:
        """Send requests and return the reply, or the list of replies if there are several."""
        self.send(*requests)
        replies = [self.receive() for _ in requests]
        return replies[0] if len(replies) == 1 else replies

    def hello(self, features: int = 1) -> object:
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


class Server:
    """A running crabcache-server."""

    def __init__(self, *flags: str, env: dict[str, str] | None = None, **popen: object) -> None:
        self.flags = flags
        self.process = subprocess.Popen(
            [str(BUILD / "crabcache-server"), "--port", "0", *flags], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, **popen)  # type: ignore[call-overload]
        os.set_blocking(self.process.stderr.fileno(), False)
        self.ready_line = self.process.stdout.readline().decode()
        if "ready on " not in self.ready_line:
            _, errors = self.process.communicate(timeout=TIMEOUT_S)
            raise RuntimeError(f"crabcache-server {flags} did not start: {errors.decode()}")
        self.places = self.ready_line.split("ready on ")[1].strip().split(", ")
        host, port = self.places[0].rsplit(":", 1)
        if host == "unix":
            self.host, self.port = port, 0
        else:
            self.host, self.port = host.strip("[]"), int(port)

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self, receive_buffer: int | None = None) -> Peer:
        """A new connection."""
        return Peer((self.host, self.port) if self.port else self.host, receive_buffer)

    def rss(self) -> int:
        """Resident memory in bytes, pages of its program file left out."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) * 1024

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """The exit status."""
        return self.process.wait(timeout_s)

    def errors(self) -> str:
        """What it has logged since the last call."""
        return (self.process.stderr.read() or b"").decode()

    def stop(self) -> None:
        """End it if it still runs; it must not have failed."""
        if self.process.poll() is None:
            self.signal()
            try:
                self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        log = self.errors()
        self.process.stdout.close()
        self.process.stderr.close()
        assert "Sanitizer" not in log and "runtime error" not in log, log


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers: start_server("--memory", "64M"). They are stopped, and must stop well, after the test."""
    servers: list[Server] = []

    def start(*flags: str, **options: object) -> Server:
        servers.append(Server(*flags, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


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
