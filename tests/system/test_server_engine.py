# SPDX-License-Identifier: MIT
"""What the engine does per request and per connection: nothing it could do without, whoever is connected."""
from __future__ import annotations

import random
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SANITIZED, Peer, Server, wait_until, wire

E = wire.ErrorCode
MIB = 1 << 20


def put(key: bytes, value: bytes, **fields: int) -> object:
    return wire.PutRequest(key=key, value=value, **fields)


def get(key: bytes) -> object:
    return wire.GetRequest(key=key)


def put_header(size: int, sent: int = 0) -> bytes:
    """The start of a PUT of a value of `size` bytes to the key k."""
    return struct.pack("<BBHI", wire.Op.PUT, 0, 1, size + 1) + b"k" + bytes(sent)


def exchange(peer: Peer, requests: bytes, reply_bytes: int) -> None:
    """Send a pipeline and read that many bytes of replies."""
    peer.socket.sendall(requests)
    while reply_bytes > 0:
        got = len(peer.socket.recv(min(reply_bytes, 1 << 20)))
        assert got > 0
        reply_bytes -= got


# ---- nothing is left behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("pings", [255, 256, 257, 512, 8191, 8192, 8193, 40_000])
def test_a_pipeline_that_just_fills_a_buffer(start_server, tmp_path: Path, family: str, pings: int) -> None:
    """Epoll tells of input once. What did not fit one receive, or just did, is executed all the same, and so is what comes
    together with the end of the stream: 256 PINGs fill what is received ahead, 8192 the buffer of a worker."""
    path = str(tmp_path / "socket")
    server = start_server("--threads", "1", *(("--unix", path) if family == "unix" else ()))
    with socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET) as s:
        s.connect(path if family == "unix" else ("127.0.0.1", server.port))
        s.settimeout(20)
        for last in (False, False, True):
            sender = threading.Thread(target=s.sendall, args=[wire.encode_request(wire.PingRequest()) * pings])
            sender.start()
            wanted = pings
            while wanted > 0:
                got = s.recv(wanted)
                assert got == bytes([wire.ReplyOp.PONG]) * len(got) and got
                wanted -= len(got)
            sender.join()
            if last:
                s.sendall(wire.encode_request(wire.PingRequest()))
                s.shutdown(socket.SHUT_WR)
                assert s.recv(10) == bytes([wire.ReplyOp.PONG])
                assert s.recv(10) == b""


# ---- nothing is allocated ------------------------------------------------------------------------------------------


@pytest.fixture
def counting(start_server: Callable[..., Server], tmp_path: Path) -> tuple[Server, Callable[[], tuple[int, ...]]]:
    """A server whose allocations, mappings and locks are counted, and the function that reads the counts."""
    library, counts = tmp_path / "count.so", tmp_path / "counts"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-Wall", "-Werror", "-shared", "-fPIC", "-O1", "-o", str(library),
                    str(ROOT / "tests" / "system" / "faults" / "count.c"), "-ldl"], check=True)
    counts.write_bytes(bytes(4096))
    server = start_server("--memory", "256M", "--threads", "2",
                          env={"LD_PRELOAD": str(library), "COUNT_FILE": str(counts)})
    return server, lambda: struct.unpack("<3Q", counts.read_bytes()[:24])


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's runtime must be loaded first")
@pytest.mark.parametrize("depth", [1, 16, 64, 500])
def test_a_get_allocates_and_locks_nothing(counting, depth: int) -> None:
    """Thousands of GETs, hits and misses, at any depth of pipelining: not one allocation or mapping, and no locks but
    those of the store's housekeeping, which come by time and not by requests."""
    server, counts = counting
    assert counts()[0] > 0, "the counters work"
    hit, miss = wire.encode_request(get(b"present")), wire.encode_request(get(b"absent!"))
    pipeline = (hit + miss) * (depth // 2) if depth > 1 else hit
    replies = (5 + 100 + 1) * (depth // 2) if depth > 1 else 105
    peers = [server.connect() for _ in range(4)]
    peers[0].call(put(b"present", bytes(100)))
    for peer in peers:
        exchange(peer, pipeline, replies)
    time.sleep(0.05)
    before, rounds = counts(), 3000 // depth + 1
    for _ in range(rounds):
        for peer in peers:
            exchange(peer, pipeline, replies)
    after = counts()
    assert after[:2] == before[:2]
    assert after[2] - before[2] < rounds * depth * len(peers) / 8
    for peer in peers:
        peer.socket.close()


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's runtime must be loaded first")
def test_a_put_allocates_nothing(counting) -> None:
    """PUTs allocate and map nothing; a lock is taken once in a hundred of them, for a new segment."""
    server, counts = counting
    pipeline = b"".join(wire.encode_request(put(b"key%d" % i, bytes(64))) for i in range(100))
    with server.connect() as peer:
        for _ in range(20):
            exchange(peer, pipeline, 100)
        before = counts()
        for _ in range(200):
            exchange(peer, pipeline, 100)
        after = counts()
        assert after[:2] == before[:2]
        assert after[2] - before[2] < 20_000 / 50


# ---- thousands of connections --------------------------------------------------------------------------------------


@pytest.mark.skipif(SANITIZED, reason="a sanitizer makes everything slow")
def test_twenty_thousand_connections(start_server) -> None:
    """20,000 idle clients, or as many as descriptors allow, hold less than 1 KiB each, get their answers, and a busy
    one costs the server no more beside them. (How long it waits is measured by make bench, on an idle machine.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(20_000, hard - 200)
    if wanted < 5000:
        pytest.skip(f"only {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        server = start_server("--memory", "256M", "--threads", "2")
        with server.connect() as busy:
            busy.call(put(b"k", bytes(64)))

            def cost_s() -> float:
                """The server's processor time for 10,000 round trips."""
                began = server.cpu_s()
                for _ in range(10_000):
                    busy.socket.sendall(request)
                    busy.socket.recv(1000)
                return server.cpu_s() - began

            request = wire.encode_request(get(b"k"))
            before, rss = cost_s(), server.rss()
            ping = wire.encode_request(wire.PingRequest())
            idle = []
            for _ in range(wanted):
                idle.append(socket.create_connection((server.host, server.port)))
                idle[-1].send(ping)
            assert all(one.recv(1) == b"\x11" for one in idle)
            assert int(busy.stats(b"connections")["connections.current"]) == wanted + 1
            assert (server.rss() - rss) / wanted < 1024
            assert cost_s() < 2 * before + 0.05
            for one in idle:
                one.close()
            wait_until(lambda: busy.stats(b"connections")["connections.current"] == "1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- ends in every state -------------------------------------------------------------------------------------------

STATES = ["new", "idle", "head", "half", "large", "skipping", "unread", "unread and asking", "pinned", "fatal", "goodbye"]


def bring_to(server: Server, state: str) -> Peer:
    """A connection in a state."""
    peer = server.connect(receive_buffer=4096)
    peer.socket.setblocking(False)
    try:
        if state not in ("new", "goodbye"):
            peer.socket.send(wire.encode_request(wire.PingRequest()))
        match state:
            case "head":
                peer.socket.send(put_header(100)[:5])
            case "half":
                peer.socket.send(put_header(50_000, 30_000))
            case "large":
                peer.socket.send(put_header(2 * MIB, 300_000))
            case "skipping":
                peer.socket.send(put_header(900 * MIB, 100_000))
            case "unread":
                peer.socket.send(wire.encode_request(get(b"small")) * 1000)
            case "unread and asking":
                while True:
                    peer.socket.send(wire.encode_request(get(b"small")) * 1000)
            case "pinned":
                peer.socket.send(wire.encode_request(get(b"large")) * 20)
            case "fatal":
                peer.socket.send(wire.encode_request(get(b"large")) * 3 + b"GET / HTTP/1.1\r\n\r\n")
            case "goodbye":
                peer.socket.send(b"GET / HTTP/1.1\r\n\r\n")
    except BlockingIOError:
        pass
    return peer


@pytest.mark.threads
@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
def test_ends_in_every_state(start_server, how: str) -> None:
    """Clients end in every state, at once and after a while: nothing of them stays, and a healthy one is served."""
    server = start_server("--memory", "64M", "--threads", "2")
    with server.connect() as healthy:
        healthy.call(put(b"small", bytes(8000)), put(b"large", bytes(MIB)))
        buffers = int(healthy.stats(b"connections")["connections.buffer_bytes"])
        for pause in (0, 0.1):
            peers = [bring_to(server, state) for state in STATES * 3]
            time.sleep(pause)
            for peer in peers:
                if how == "reset":
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if how == "half-close":
                    peer.socket.shutdown(socket.SHUT_WR)
                else:
                    peer.socket.close()
            assert healthy.call(get(b"small")).value == bytes(8000)
            for peer in peers:
                peer.socket.close()
        wait_until(lambda: healthy.stats(b"connections")["connections.current"] == "1")
        stats = healthy.stats()
        assert stats["store.pinned"] == "0"
        assert int(stats["connections.buffer_bytes"]) <= buffers + 2 * MIB, "no more than free buffers that are kept"
        assert isinstance(healthy.call(put(b"k", bytes(4 * MIB))), wire.OkReply)


def test_byte_by_byte_senders_harm_nobody(start_server) -> None:
    """Fifty clients that send a byte now and then hold next to nothing; others are served meanwhile."""
    server = start_server("--memory", "16M", "--threads", "1")
    frame = wire.encode_request(put(b"slow", bytes(200)))
    slow = [server.connect() for _ in range(50)]
    with server.connect() as healthy:
        healthy.call(put(b"h", bytes(1000)))
        before = int(healthy.stats(b"connections")["connections.buffer_bytes"])
        for at in range(60):
            for peer in slow:
                peer.socket.send(frame[at:at + 1])
            assert healthy.call(get(b"h")).value == bytes(1000)
        assert int(healthy.stats(b"connections")["connections.buffer_bytes"]) - before <= 50 * 1024
        for peer in slow:
            peer.send(frame[60:])
            assert isinstance(peer.receive(), wire.OkReply)
            peer.socket.close()


# ---- large values go right into the store --------------------------------------------------------------------------


def streamed(peer: Peer) -> int:
    return int(peer.stats(b"connections")["connections.values_streamed"])


@pytest.mark.parametrize("size", [60_000, 65_535, 65_536, 65_600, 131_072, 700_001, 2 * MIB, 4_900_000])
def test_large_values_are_received_into_their_place(start_server, size: int) -> None:
    """However it is cut, a large value arrives whole, with its flags, tag and version; small ones go the usual way."""
    server = start_server("--memory", "64M", "--threads", "1")
    flags = wire.PutRequest
    rng = random.Random(size)
    with server.connect() as peer:
        for most in (size, 60_000, 20_000):
            value = rng.randbytes(size)
            before = streamed(peer)
            frame = wire.encode_request(put(b"key", value, flags=flags.TTL | flags.APP_FLAGS | flags.WANT_VERSION | 0x40,
                                            ttl_ms=60_000, app_flags=77, tag=9))
            frame += wire.encode_request(wire.GetRequest(key=b"key", flags=wire.GetRequest.META))
            at = 0
            while at < len(frame):
                piece = rng.randrange(1, most)
                peer.send(frame[at:at + piece])
                at += piece
                time.sleep(0.0005)
            stored, meta = peer.receive(), peer.receive()
            assert isinstance(stored, wire.StoredReply) and stored.tag == 9
            assert meta.value == value and meta.app_flags == 77 and meta.version == stored.version
            assert 50_000 < meta.ttl_ms <= 60_000
            if size >= 65_600:
                assert streamed(peer) == before + 1
            elif size <= 60_000:
                assert streamed(peer) == before
        exists = peer.call(put(b"key", bytes(size), flags=flags.IF_ABSENT))
        assert isinstance(exists, wire.ExistsReply) and exists.version == meta.version
        assert peer.call(get(b"key")).value == value


def test_half_a_large_value_leaves_nothing(start_server) -> None:
    """Clients that end in the middle of large values, often: their room is free again, and items stand."""
    server = start_server("--memory", "64M", "--threads", "2")
    with server.connect() as healthy:
        healthy.call(put(b"large", bytes(MIB)), put(b"small", bytes(100)))
        idle = healthy.stats()
        for i in range(40):
            with server.connect() as peer:
                peer.send(put_header(2 * MIB, 300_000 + i * 20_000))
                time.sleep(0.005)
        wait_until(lambda: healthy.stats(b"connections")["connections.current"] == "1")
        stats = healthy.stats()
        assert int(stats["connections.values_streamed"]) >= 20 and stats["connections.stream_bytes"] == "0"
        assert int(stats["store.live_bytes"]) <= int(idle["store.live_bytes"])
        assert int(stats["connections.buffer_bytes"]) <= int(idle["connections.buffer_bytes"]) + 2 * MIB
        assert healthy.call(get(b"large")).value == bytes(MIB)


def test_promises_of_large_values_evict_little(start_server) -> None:
    """Many clients begin large values and do not go on: what they make room for is bounded, too."""
    server = start_server("--memory", "64M", "--threads", "1")
    with server.connect() as healthy:
        for i in range(40):
            healthy.call(put(b"item%d" % i, bytes(MIB)))
        present = [i for i in range(40) if isinstance(healthy.call(get(b"item%d" % i)), wire.ValueReply)]
        peers = [server.connect() for _ in range(60)]
        for peer in peers:
            peer.send(put_header(4_800_000, 400_000))
        wait_until(lambda: int(healthy.stats(b"connections")["connections.stream_bytes"]) > 0)
        time.sleep(0.3)
        left = [i for i in present if isinstance(healthy.call(get(b"item%d" % i)), wire.ValueReply)]
        assert len(present) - len(left) <= 12
        stats = healthy.stats(b"connections")
        assert 0 < int(stats["connections.stream_bytes"]) <= int(stats["connections.buffer_limit_bytes"])
        assert int(stats["connections.buffer_bytes"]) <= int(stats["connections.buffer_limit_bytes"])
        for peer in peers:
            peer.socket.close()
