# SPDX-License-Identifier: MIT
"""A real server with little memory, under clients that write, read, delete and let expire values of all sizes."""
from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable

import pytest
from conftest import SANITIZED, Peer, Server, wait_until, wire

pytestmark = pytest.mark.threads

MEMORY = 8 << 20
FIXED = 2 << 20  # The program itself, its threads, malloc.
CLIENTS = 4
ROUNDS = 400
REFUSALS = (0x0101, 0x0102)  # OUT_OF_MEMORY; BUSY: out of buffers. Neither has done anything.


def value_of(key: bytes, serial: int, size: int) -> bytes:
    """Bytes that only this write of this key can have."""
    head = b"%s/%d/%d/" % (key, serial, size)
    return head + hashlib.shake_128(head).digest(size - len(head)) if size > len(head) else b""


def is_whole(key: bytes, value: bytes) -> bool:
    if value == b"":
        return True
    name, serial, size, _ = value.split(b"/", 3)
    return name == key and value == value_of(key, int(serial), int(size))


class Client(threading.Thread):
    """A client with keys of its own; it knows what may be there."""

    def __init__(self, server: Server, number: int, evicts: bool) -> None:
        super().__init__()
        self.peer = server.connect()
        self.most = min(1 << 20, self.peer.hello().max_value)
        self.random = random.Random(number)
        self.number = number
        self.evicts = evicts
        self.known: dict[bytes, tuple[bytes, float]] = {}  # value, and when it may be gone: to the ms
        self.serial = 0
        self.answers = {"ok": 0, "found": 0, "missed": 0, "out of memory": 0, "busy": 0}
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(ROUNDS):
                self.step()
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            self.failure = failure

    def key(self) -> bytes:
        return b"%d-%d" % (self.number, self.random.randrange(400))

    def size(self) -> int:
        large = self.random.randrange(self.most if self.random.random() < 0.2 else 100_000)
        return self.random.choice((0, 10, 60, 300, 300, 3000, 20_000, large))

    def put(self, key: bytes) -> tuple[object, Callable[[object], None]]:
        self.serial += 1
        value = value_of(key, self.serial, self.size())
        ttl_ms = self.random.choice((0, 0, 0, 5, 200, 60_000))
        request = wire.PutRequest(key=key, value=value)
        if ttl_ms:
            request = wire.PutRequest(key=key, value=value, flags=wire.PutRequest.TTL, ttl_ms=ttl_ms)

        def check(reply: object) -> None:
            assert isinstance(reply, wire.OkReply), reply
            self.answers["ok"] += 1
            self.known[key] = (value, sent + (ttl_ms - 1) / 1000 if ttl_ms else float("inf"))

        sent = time.monotonic()
        return request, check

    def get(self, key: bytes) -> tuple[object, Callable[[object], None]]:
        def check(reply: object) -> None:
            value, gone_from = self.known.get(key, (None, 0.0))
            if isinstance(reply, wire.NullReply):
                self.answers["missed"] += 1
                assert self.evicts or time.monotonic() >= gone_from, f"{key!r} was lost"
                self.known.pop(key, None)
                return
            self.answers["found"] += 1
            assert is_whole(key, reply.value), f"{key!r} has a torn value"
            assert reply.value == value, f"{key!r} has an old value, or one that was deleted"

        return wire.GetRequest(key=key), check

    def delete(self, key: bytes) -> tuple[object, Callable[[object], None]]:
        def check(reply: object) -> None:
            assert isinstance(reply, (wire.OkReply, wire.NullReply)), reply
            self.known.pop(key, None)

        return wire.DelRequest(key=key), check

    def step(self) -> None:
        """A pipeline of a few requests, and its answers."""
        pairs = []
        for _ in range(self.random.randrange(1, 12)):
            make = self.random.choice((self.put, self.put, self.put, self.get, self.get, self.get, self.get, self.delete))
            pairs.append(make(self.key()))
        sender = threading.Thread(target=self.peer.send, args=[request for request, _ in pairs])
        sender.start()
        for _, check in pairs:
            reply = self.peer.receive()
            if isinstance(reply, wire.ErrorReply):
                assert reply.code in REFUSALS, reply
                self.answers["out of memory" if reply.code == REFUSALS[0] else "busy"] += 1
            else:
                check(reply)
        sender.join()


def rss_limit() -> int:
    return MEMORY + MEMORY // 20 + FIXED


@pytest.mark.parametrize("eviction", ["evict", "none"])
@pytest.mark.parametrize("threads", ["1", "4"])
def test_little_memory(start_server: Callable[..., Server], threads: str, eviction: str) -> None:
    server = start_server("--memory", str(MEMORY), "--threads", threads, "--eviction", eviction)
    clients = [Client(server, number, eviction == "evict") for number in range(CLIENTS)]
    most = 0
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        most = max(most, server.rss())
        time.sleep(0.02)
    for client in clients:
        client.join()
        if client.failure is not None:
            raise client.failure
    if not SANITIZED:
        assert max(most, server.rss()) <= rss_limit(), f"{most} bytes resident"
    total = {name: sum(client.answers[name] for client in clients) for name in clients[0].answers}
    assert total["found"] > 0 and total["ok"] > total["out of memory"] + total["busy"], total
    if eviction == "none":
        assert total["out of memory"] > 0, total
    else:  # a worker that is kept from its processor in the middle of a request may hold memory up for too long
        assert total["out of memory"] * 20 <= total["ok"] if threads != "1" else total["out of memory"] == 0, total
    for client in clients:  # What is known must still be there, or be gone for a reason.
        for key in list(client.known):
            request, check = client.get(key)
            check(client.peer.call(request))
        client.peer.socket.close()
    with server.connect() as peer:
        check_statistics(peer, eviction)


def check_statistics(peer: Peer, eviction: str) -> None:
    """The sums are right; and after a flush the memory comes back by itself."""
    stats = peer.stats(b"store")
    number = {name.removeprefix("store."): int(value) for name, value in stats.items() if value.isdigit()}
    parts = ("live_bytes", "dead_bytes", "free_bytes", "index_bytes", "fixed_bytes")
    assert sum(number[name] for name in parts) == number["limit_bytes"]
    assert (number["evictions"] > 0) == (eviction == "evict"), stats
    assert isinstance(peer.call(wire.FlushRequest()), wire.OkReply)
    wait_until(lambda: int(peer.stats(b"store")["store.live_bytes"]) == 0)
    assert isinstance(peer.call(wire.PutRequest(key=b"k", value=b"v" * 100_000)), wire.OkReply)
