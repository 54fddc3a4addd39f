# SPDX-License-Identifier: MIT
"""A worker that is stopped in the middle of a request holds up memory: STATS and the log say so, and nothing breaks."""
from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Peer, Server, wait_until, wire

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17  # of ptrace(2)
WALL = 0x40000000  # of waitpid(2): threads, too
TRIES = 50
ROUNDS = 30  # Of 200 writes.
VALUE = b"v" * 2000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request: int, thread: int) -> None:
    if libc.ptrace(request, thread, None, None) != 0:
        pytest.skip(f"no tracing here: {os.strerror(ctypes.get_errno())}")


def thread_of(server: Server, name: str) -> int:
    tasks = Path(f"/proc/{server.pid}/task")
    return next(int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == name)


@contextmanager
def stopped(thread: int) -> Iterator[None]:
    """One thread stands still, the others of its process go on."""
    ptrace(SEIZE, thread)
    try:
        ptrace(INTERRUPT, thread)
        os.waitpid(thread, WALL)
        yield
    finally:
        ptrace(DETACH, thread)


class Busy:
    """Keeps one worker in the middle of requests, nearly always."""

    def __init__(self, peer: Peer) -> None:
        self.over = False
        self.socket = peer.socket
        self.frames = wire.encode_request(wire.GetRequest(key=b"nothing")) * 20000
        self.threads = [threading.Thread(target=self.send), threading.Thread(target=self.receive)]

    def send(self) -> None:
        while not self.over:
            self.socket.sendall(self.frames)
        self.socket.shutdown(socket.SHUT_WR)

    def receive(self) -> None:
        while self.socket.recv(1 << 20):
            pass

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *exc: object) -> None:
        self.over = True
        for thread in self.threads:
            thread.join()


def overwrite(peer: Peer, rounds: int) -> None:
    """Writes of which each makes an earlier one dead."""
    for _ in range(rounds):
        replies = peer.call(*[wire.PutRequest(key=b"key%d" % (i % 100), value=VALUE) for i in range(200)])
        assert all(isinstance(r, wire.OkReply) or r.code == wire.ErrorCode.OUT_OF_MEMORY for r in replies)


def worker_of(peer: Peer) -> int:
    """The number of the worker that serves a connection: the one whose count of requests grows."""
    before = peer.stats(b"workers")
    peer.call(*[wire.PingRequest()] * 100)
    after = peer.stats(b"workers")
    grown = [int(after[f"workers.{i}_requests"]) - int(before[f"workers.{i}_requests"]) for i in range(2)]
    return grown.index(max(grown))


def store_stat(peer: Peer, name: str) -> int:
    return int(peer.stats(b"store")[f"store.{name}"])


def see_it_stopped(server: Server, writer: Peer, number: int) -> bool:
    """Whether the worker was stopped inside a request; then all that is to be seen of it was."""
    overwrite(writer, ROUNDS)
    if store_stat(writer, "grace_lag") == 0:
        return False
    wait_until(lambda: store_stat(writer, "grace_lag_ms") > 1500)
    assert store_stat(writer, "grace_worker") == number
    assert store_stat(writer, "retired_bytes") > 0
    wait_until(lambda: f"worker {number} has been stalled for" in server.errors())
    return True


def test_a_stopped_worker_is_seen_and_does_no_harm(start_server) -> None:
    server = start_server("--memory", "8M", "--threads", "2")
    with server.connect() as writer, server.connect() as reader:
        number = worker_of(reader)
        assert worker_of(writer) != number
        thread = thread_of(server, f"worker-{number}")
        overwrite(writer, 2 * ROUNDS)  # Until memory is full: from here on writes retire what others left.
        with Busy(reader):
            for _ in range(TRIES):
                with stopped(thread):
                    if see_it_stopped(server, writer, number):
                        break
            else:
                pytest.fail(f"in {TRIES} tries it was never inside a request")
            wait_until(lambda: f"worker {number} goes on" in server.errors())
            wait_until(lambda: store_stat(writer, "grace_lag_ms") < 1000)
            assert isinstance(writer.call(wire.PutRequest(key=b"after", value=VALUE)), wire.OkReply)
