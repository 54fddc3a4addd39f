# SPDX-License-Identifier: MIT
"""Memory, time and many clients: what holds while some of them misbehave."""
from __future__ import annotations

import random
import struct
import threading
import time

import pytest
from conftest import SANITIZED, Peer, Server, wait_until, wire

E = wire.ErrorCode
MIB = 1 << 20
needs_true_rss = pytest.mark.skipif(SANITIZED, reason="a sanitizer's own memory hides the server's")


def put(key: bytes, value: bytes, **fields: int) -> object:
    return wire.PutRequest(key=key, value=value, **fields)


def get(key: bytes) -> object:
    return wire.GetRequest(key=key)


def value_of(key: bytes, size: int) -> bytes:
    """A value that tells its key and length."""
    return random.Random(key + b"%d" % size).randbytes(size)


def fill(peer: Peer, count: int, size: int) -> list[object]:
    """PUT `count` items in pipelines of 50; the replies."""
    replies: list[object] = []
    filler = bytes(size - 16)
    for first in range(0, count, 50):
        peer.send(b"".join(wire.encode_request(put(b"fill%d" % i, b"%016d" % i + filler))
                           for i in range(first, min(first + 50, count))))
        replies += [peer.receive() for _ in range(first, min(first + 50, count))]
    return replies


@pytest.mark.parametrize("size", [100, 3000, 100_000])
@needs_true_rss
def test_memory_limit_holds_with_eviction(start_server, size: int) -> None:
    """Three times the memory is written; all writes succeed, no value is wrong, RSS stays within the limit."""
    memory = 32 * MIB if size == 100 else 64 * MIB
    server = start_server("--memory", str(memory), "--threads", "2")
    count = 3 * memory // (size + 100) if size > 100 else memory // 200
    with server.connect() as peer:
        assert all(isinstance(reply, wire.OkReply) for reply in fill(peer, count, size))
        assert server.rss() <= memory * 1.05 + 4 * MIB
        hits = 0
        for i in range(0, count, max(1, count // 2000)):
            reply = peer.call(get(b"fill%d" % i))
            if isinstance(reply, wire.ValueReply):
                hits += 1
                assert reply.value == b"%016d" % i + bytes(size - 16)
        assert isinstance(peer.call(get(b"fill%d" % (count - 1))), wire.ValueReply)
        stats = peer.stats()
        assert hits > 0 and (size == 100 or int(stats["store.evictions"]) > 0)
        assert int(stats["store.refusals"]) == 0


@needs_true_rss
def test_memory_limit_holds_without_eviction(start_server) -> None:
    """What does not fit is refused, and nothing that was accepted is lost."""
    memory = 64 * MIB
    server = start_server("--memory", str(memory), "--eviction", "none", "--threads", "1")
    with server.connect() as peer:
        replies = fill(peer, 3 * memory // 3000, 3000)
        accepted = [i for i, reply in enumerate(replies) if isinstance(reply, wire.OkReply)]
        assert all(isinstance(r, wire.OkReply) or r.code == E.OUT_OF_MEMORY for r in replies)
        assert 0.7 * memory < len(accepted) * 3000 < memory
        assert server.rss() <= memory * 1.05 + 4 * MIB
        for first in range(0, len(accepted), 100):
            group = accepted[first:first + 100]
            found = peer.call(*[get(b"fill%d" % i) for i in group])
            found = found if isinstance(found, list) else [found]
            assert all(reply.value[:16] == b"%016d" % i for i, reply in zip(group, found, strict=True))
        assert peer.stats()["store.evictions"] == "0"


@pytest.mark.parametrize("eviction", ["evict", "none"])
@needs_true_rss
def test_overwriting_large_values_holds_the_limit(start_server, eviction: str) -> None:
    """A dozen values of 70 KB to 4 MB, received right into the store, are overwritten over and over: RSS stays within the limit."""
    memory = 64 * MIB
    server = start_server("--memory", str(memory), "--eviction", eviction, "--threads", "2")
    rng, block = random.Random(1), random.Random(2).randbytes(4_000_000)
    with server.connect() as peer:
        written = worst = 0
        while written < 8 * memory:
            size = rng.randrange(70_000, 4_000_000)
            reply = peer.call(put(b"large%d" % rng.randrange(12), block[:size]))
            assert isinstance(reply, wire.OkReply) or (eviction == "none" and reply.code == E.OUT_OF_MEMORY)
            written += size
            worst = max(worst, server.rss())
        assert worst <= memory * 1.05 + 4 * MIB
        stats = peer.stats()
        assert int(stats["store.puts"]) > 100 and int(stats["connections.values_streamed"]) > 0


@needs_true_rss
def test_never_readers_hold_bounded_memory(start_server) -> None:
    """Clients that ask for much and read nothing are bounded by the budget, and a healthy one is served."""
    memory = 64 * MIB
    server = start_server("--memory", str(memory), "--threads", "2")
    with server.connect() as healthy:
        healthy.call(put(b"large", bytes(100_000)), put(b"small", bytes(8_000)))
        peers = []
        for i in range(150):
            peer = server.connect(receive_buffer=4096)
            peer.socket.setblocking(False)
            frames = wire.encode_request(get(b"large" if i % 2 else b"small")) * 4000
            try:
                while frames:
                    frames = frames[peer.socket.send(frames):]
            except (BlockingIOError, ConnectionError):
                pass
            peers.append(peer)
        for i in range(200):
            key = b"h%d" % i
            assert isinstance(healthy.call(put(key, value_of(key, 500))), wire.OkReply)
            assert healthy.call(get(key)).value == value_of(key, 500)
        stats = healthy.stats()
        assert int(stats["connections.buffer_bytes"]) <= int(stats["connections.buffer_limit_bytes"])
        assert server.rss() <= memory * 1.05 + 4 * MIB
        for peer in peers:
            peer.socket.close()


@needs_true_rss
def test_budget_used_up_by_never_readers(start_server) -> None:
    """When output fits no buffer any more its connection is given up; a client that reads is served on."""
    server = start_server("--memory", "8M", "--threads", "1")
    with server.connect() as healthy:
        value = bytes(10_000)
        healthy.call(put(b"v", value))
        peers = []
        for _ in range(80):
            peer = server.connect(receive_buffer=4096)
            peer.socket.setblocking(False)
            try:
                for _ in range(20):
                    peer.socket.send(wire.encode_request(get(b"v")) * 500)
            except (BlockingIOError, ConnectionError):
                pass
            peers.append(peer)
            assert healthy.call(get(b"v")).value == value
        stats = healthy.stats(b"connections")
        assert int(stats["connections.aborted"]) > 0
        assert int(stats["connections.buffer_bytes"]) <= int(stats["connections.buffer_limit_bytes"])
        assert server.rss() < 14 * MIB
        for peer in peers:
            peer.socket.close()


@needs_true_rss
def test_half_frames_hold_bounded_memory(start_server) -> None:
    """A thousand connections that never finish a frame: beyond the budget they are told BUSY."""
    memory = 64 * MIB
    server = start_server("--memory", str(memory), "--threads", "2")
    size = 1_000_000
    frame = struct.pack("<BBHI", wire.Op.PUT, 0, 1, size) + bytes(100_000)
    peers = [server.connect() for _ in range(900)]
    for peer in peers:
        peer.send(frame)
    busy: list[Peer] = []

    def most_are_busy() -> bool:
        busy[:] = [peer for peer in peers if not peer.is_silent(0)]
        return len(busy) > 800

    wait_until(most_are_busy)
    assert server.rss() <= memory * 1.05 + 4 * MIB
    for peer in busy:
        assert peer.receive().code == E.BUSY
    last = busy[-1]
    last.send(bytes(size + 8 - len(frame)))
    assert isinstance(last.call(wire.PingRequest()), wire.PongReply)
    with server.connect() as healthy:
        assert isinstance(healthy.call(put(b"k", bytes(50_000))), wire.OkReply)
        assert healthy.call(get(b"k")).value == bytes(50_000)
    for peer in peers:
        peer.socket.close()
    with server.connect() as late:
        assert isinstance(late.call(put(b"k", bytes(size))), wire.OkReply)


@needs_true_rss
def test_idle_connections_are_cheap(start_server) -> None:
    """An idle connection, once used, holds less than 1 KiB."""
    server = start_server("--memory", "64M", "--threads", "2")
    warm = [server.connect() for _ in range(50)]
    for peer in warm:
        peer.call(put(b"k", bytes(100)), get(b"k"))
    before = server.rss()
    peers = [server.connect() for _ in range(800)]
    for peer in peers:
        peer.call(put(b"k", bytes(100)), get(b"k"))
    assert (server.rss() - before) / len(peers) < 1024
    for peer in [*warm, *peers]:
        peer.socket.close()


def test_slow_reader_gets_everything(start_server) -> None:
    """A reader that takes small sips, with pauses, of small and large values gets all of them in order."""
    server = start_server("--memory", "64M", "--threads", "1")
    with server.connect(receive_buffer=4096) as slow, server.connect() as other:
        small, large = value_of(b"s", 300), value_of(b"l", 70_000)
        slow.call(put(b"s", small), put(b"l", large))
        wanted = 60
        sender = threading.Thread(target=slow.send, args=[*[get(b"s"), get(b"l"), wire.PingRequest()] * wanted])
        sender.start()
        time.sleep(0.2)
        assert isinstance(other.call(wire.PingRequest()), wire.PongReply)
        data = bytearray()
        rng = random.Random(1)
        total = wanted * (5 + len(small) + 5 + len(large) + 1)
        while len(data) < total:
            if rng.random() < 0.02:
                time.sleep(0.01)
            data += slow.socket.recv(rng.choice((1, 100, 5000, 20000)))
        sender.join()
        slow.buffer = data
        for _ in range(wanted):
            assert slow.receive().value == small
            assert slow.receive().value == large
            assert isinstance(slow.receive(), wire.PongReply)
        assert slow.is_silent()


def test_requests_behind_a_stall_wait_their_turn(start_server) -> None:
    """While a client does not read, its later writes are not executed; when it reads, they are."""
    server = start_server("--memory", "64M", "--threads", "1")
    with server.connect(receive_buffer=4096) as stalled, server.connect() as other:
        value = value_of(b"v", 1_000_000)
        stalled.call(put(b"v", value))
        stalled.send(*[get(b"v")] * 30, put(b"behind", b"x"))
        time.sleep(0.3)
        assert isinstance(other.call(get(b"behind")), wire.NullReply)
        assert all(stalled.receive().value == value for _ in range(30))
        assert isinstance(stalled.receive(), wire.OkReply)
        assert other.call(get(b"behind")).value == b"x"


@pytest.mark.once  # the clock is preloaded, which a sanitizer's runtime does not like
@pytest.mark.crabcache(clock=True)
def test_ttl(crabcache_server: Server) -> None:
    """Items end when their time is over, not before; EXPIRE and touching GETs move it; NEVER is never."""
    ttl = wire.PutRequest.TTL
    clock = crabcache_server.clock
    assert clock is not None
    with crabcache_server.connect() as peer:
        peer.call(put(b"short", b"x", flags=ttl, ttl_ms=300), put(b"long", b"x", flags=ttl, ttl_ms=60_000),
                  put(b"never", b"x", flags=ttl, ttl_ms=wire.TTL_NEVER), put(b"moved", b"x", flags=ttl, ttl_ms=300),
                  put(b"touched", b"x", flags=ttl, ttl_ms=300))
        clock.advance(0.299)
        found = peer.call(get(b"short"), get(b"moved"))
        assert all(isinstance(reply, wire.ValueReply) for reply in found)
        peer.call(wire.ExpireRequest(key=b"moved", ttl_ms=wire.TTL_NEVER),
                  wire.GetRequest(key=b"touched", flags=wire.GetRequest.TTL, ttl_ms=60_000))
        clock.advance(0.001)
        assert isinstance(peer.call(get(b"short")), wire.NullReply)
        assert isinstance(peer.call(wire.ExpireRequest(key=b"short", ttl_ms=1000)), wire.NullReply)
        assert isinstance(peer.call(put(b"short", b"y", flags=wire.PutRequest.IF_ABSENT)), wire.OkReply)
        for key in (b"long", b"never", b"moved", b"touched"):
            assert isinstance(peer.call(get(key)), wire.ValueReply), key


def test_ttl_by_the_true_clock(peer: Peer) -> None:
    peer.call(put(b"k", b"x", flags=wire.PutRequest.TTL, ttl_ms=50))
    wait_until(lambda: isinstance(peer.call(get(b"k")), wire.NullReply))


@pytest.mark.threads
def test_cas_increments_add_up(start_server) -> None:
    """Many connections on several threads add to one value by conditional PUTs, and to another by INCR."""
    server = start_server("--memory", "64M", "--threads", "4")
    clients, rounds = 12, 25
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with server.connect() as peer:
                for _ in range(rounds):
                    peer.call(wire.IncrRequest(key=b"incr", delta=1, flags=wire.IncrRequest.INITIAL, initial=1))
                    while True:
                        meta = peer.call(wire.GetRequest(key=b"cas", flags=wire.GetRequest.META))
                        value = b"%d" % (int(meta.value) + 1)
                        reply = peer.call(put(b"cas", value, flags=wire.PutRequest.IF_VERSION, version=meta.version))
                        if isinstance(reply, wire.OkReply):
                            break
                        assert isinstance(reply, wire.ExistsReply)
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            failures.append(failure)

    with server.connect() as peer:
        peer.call(put(b"cas", b"0"))
        threads = [threading.Thread(target=work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert peer.call(get(b"cas")).value == peer.call(get(b"incr")).value == b"%d" % (clients * rounds)
        workers = peer.stats(b"workers")
        requests = [int(workers[f"workers.{i}_requests"]) for i in range(4)]
        assert min(requests) > 0, "connections are spread over all workers"


@pytest.mark.threads
def test_mixed_load_never_gives_a_wrong_value(start_server) -> None:
    """Pipelines of many connections over a store that evicts: a miss is allowed, a wrong value never. A put may find no room
    while another worker is kept from its processor in the middle of a request; that is rare."""
    server = start_server("--memory", "16M", "--threads", "4")
    failures: list[BaseException] = []
    answers, refused = [0] * 6, [0] * 6
    deadline = time.monotonic() + 3

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            with server.connect() as peer:
                while time.monotonic() < deadline:
                    batch: list[tuple[bytes, object]] = []
                    for _ in range(40):
                        key = b"mix%d" % rng.randrange(600)
                        size = rng.choice((10, 1000, 20_000, 60_000))
                        kind = rng.random()
                        if kind < 0.5:
                            batch.append((key, get(key)))
                        elif kind < 0.9:
                            batch.append((key, put(key, value_of(key, size))))
                        elif kind < 0.99:
                            batch.append((key, wire.DelRequest(key=key)))
                        else:
                            batch.append((key, wire.FlushRequest()))
                    replies = peer.call(*[request for _, request in batch])
                    for (key, _), reply in zip(batch, replies, strict=True):
                        if isinstance(reply, wire.ValueReply):
                            assert reply.value == value_of(key, len(reply.value)), key
                        assert not isinstance(reply, wire.ErrorReply) or reply.code == E.OUT_OF_MEMORY, reply
                        refused[seed] += isinstance(reply, wire.ErrorReply)
                        answers[seed] += 1
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert sum(refused) * 20 <= sum(answers)


@pytest.mark.threads
def test_connections_come_and_go(start_server) -> None:
    """Connections opened and closed in every state, by several threads; all are gone in the end."""
    server = start_server("--memory", "32M", "--threads", "3")

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            with server.connect() as peer:
                if rng.random() < 0.8:
                    peer.send(put(b"c", bytes(rng.choice((10, 30_000)))))
                    peer.send(wire.encode_request(get(b"c"))[: rng.randrange(10)])
                    if rng.random() < 0.3:
                        peer.receive()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.connect() as peer:
        wait_until(lambda: peer.stats(b"connections")["connections.current"] == "1")
        assert peer.stats(b"store")["store.pinned"] == "0"
