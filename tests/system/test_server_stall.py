# SPDX-License-Identifier: MIT
"""Clients that stop, inside a frame or without reading: others are served, and memory and time are bounded."""
from __future__ import annotations

import random
import struct
import threading
import time
from pathlib import Path

import pytest
from conftest import SANITIZED, Peer, Server, wire, wait_until

E = wire.ErrorCode
MIB = 1 << 20
TAG = wire.Flag.TAG


def put(key: bytes, value: bytes, **fields: int) -> object:
    return wire.PutRequest(key=key, value=value, **fields)


def get(key: bytes) -> object:
    return wire.GetRequest(key=key)


def connections(peer: Peer, name: str) -> int:
    return int(peer.stats(b"connections")[f"connections.{name}"])


def put_header(size: int, tag: int | None = None) -> bytes:
    """The head of a PUT with a value of `size` bytes and the key k."""
    if tag is None:
        return struct.pack("<BBHI", wire.Op.PUT, 0, 1, 1 + size) + b"k"
    return struct.pack("<BBHII", wire.Op.PUT, TAG, 1, 5 + size, tag) + b"k"


def never_reader(server: Server, request: object, count: int) -> Peer:
    """A client that sends as many requests as it can, and reads nothing."""
    peer = server.connect(receive_buffer=4096)
    peer.socket.setblocking(False)
    try:
        peer.socket.send(wire.encode_request(request) * count)
    except (BlockingIOError, ConnectionError):
        pass
    return peer


def read_all(peer: Peer, request: object, count: int, value: bytes) -> None:
    """A pipeline that is read all the time."""
    sender = threading.Thread(target=peer.send, args=(wire.encode_request(request) * count,))
    sender.start()
    for _ in range(count):
        assert peer.receive().value == value
    sender.join()


def let_patience_end(watcher: Peer) -> None:
    """Wait until the server has taken in what was sent, and then until its peers have not moved for long."""
    seen = -1
    while (now := connections(watcher, "buffer_bytes")) != seen:
        seen = now
        time.sleep(0.3)
    time.sleep(1.2)


def is_over(peer: Peer) -> bool:
    """Whether the stream ends, whatever comes before."""
    peer.socket.settimeout(10)
    try:
        while peer.socket.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("threads", [1, 2])
def test_who_does_not_read_gives_way(start_server, threads: int) -> None:
    """Buffers full of unread output: who has not read for long is closed, not the client that reads."""
    server = start_server("--memory", "8M", "--threads", str(threads))
    value = bytes(16_000)
    with server.connect() as watcher:
        watcher.call(put(b"v", value))
        peers = [never_reader(server, get(b"v"), 2000) for _ in range(80)]
        let_patience_end(watcher)
        for _ in range(4):
            with server.connect() as healthy:
                read_all(healthy, get(b"v"), 2000, value)
        assert connections(watcher, "aborted") > 0 or threads > 1  # when each gives way depends on the machine
        assert connections(watcher, "timed_out") == 0
        if threads == 1:  # with more, another worker's clients may hold too much for a frame of this size for a while
            assert isinstance(watcher.call(put(b"l", bytes(300_000))), wire.OkReply)
        for peer in peers:
            peer.socket.close()


def test_pieces_find_room_among_never_readers(start_server) -> None:
    """A frame that comes in pieces is kept, though others have used the buffers up."""
    server = start_server("--memory", "8M", "--threads", "1")
    with server.connect() as healthy:
        healthy.call(put(b"v", bytes(16_000)))
        peers = [never_reader(server, get(b"v"), 2000) for _ in range(40)]
        let_patience_end(healthy)
        frame = wire.encode_request(put(b"k", bytes(30_000)))
        for _ in range(20):
            healthy.send(frame[:100])
            time.sleep(0.005)
            healthy.send(frame[100:])
            assert isinstance(healthy.receive(), wire.OkReply)
        for peer in peers:
            peer.socket.close()


def test_who_never_reads_is_closed_in_the_end(start_server) -> None:
    """Nothing was read for the time of --stall-timeout: closed, also without any shortage. A slow reader is not."""
    server = start_server("--memory", "64M", "--threads", "1", "--stall-timeout", "3")
    value = bytes(300_000)
    with server.connect() as watcher, server.connect(receive_buffer=4096) as slow:
        watcher.call(put(b"v", value))
        idle = connections(watcher, "buffer_bytes")
        slow.send(*[get(b"v")] * 8)
        silent = never_reader(server, get(b"v"), 50)
        data = bytearray()
        while connections(watcher, "timed_out") == 0:
            assert len(data) < 2_300_000, "it was not closed in 11 s"
            time.sleep(0.1)
            data += slow.socket.recv(20_000)
        assert connections(watcher, "timed_out") == 1
        silent.socket.setblocking(True)
        assert is_over(silent)
        slow.buffer = data
        assert all(slow.receive().value == value for _ in range(8))
        wait_until(lambda: connections(watcher, "buffer_bytes") <= idle + 70_000)
        assert connections(watcher, "current") == 2 and connections(watcher, "aborted") == 0


def test_half_a_frame_has_a_deadline(start_server) -> None:
    """A frame that does not go on: GOAWAY with PUSH, and the end. One that does, and an idle client, stay."""
    server = start_server("--memory", "64M", "--threads", "1", "--stall-timeout", "4")
    halves = {"small": put_header(1000) + bytes(500), "large": put_header(MIB) + bytes(200_000),
              "head": put_header(1000)[:5], "skipped": put_header(100 * MIB) + bytes(500)}
    ends = []
    with server.connect() as idle, server.connect() as slow:
        for kind, half in halves.items():
            pushes, plain = server.connect(), server.connect()
            pushes.hello()
            for peer in (pushes, plain):
                peer.send(half)
            ends.append((kind, pushes, plain))
        frame = wire.encode_request(put(b"s", bytes(100_000)))
        for at in range(0, len(frame), 2_000):
            slow.send(frame[at:at + 2_000])
            time.sleep(0.1)
        assert isinstance(slow.receive(), wire.OkReply)
        for kind, pushes, plain in ends:
            if kind == "skipped":
                assert pushes.receive().code == E.VALUE_TOO_LARGE and plain.receive().code == E.VALUE_TOO_LARGE
            goaway = pushes.receive()
            assert isinstance(goaway, wire.GoawayPush) and goaway.code == E.IDLE_TIMEOUT, kind
            assert pushes.receive() is None and plain.receive() is None, kind
            pushes.socket.close()
            plain.socket.close()
        assert isinstance(idle.call(wire.PingRequest()), wire.PongReply)
        assert connections(idle, "timed_out") == 2 * len(halves)


def test_promises_cost_no_memory(start_server) -> None:
    """Headers of large frames without the frames: what others send finds room."""
    server = start_server("--threads", "2")
    peers = []
    with server.connect() as healthy:
        for mib in (63.9, 32, 15, 8, 4, 2, 1, 0.5, 0.25, 0.12, 0.12, 0.07):
            for _ in range(2):
                peers.append(server.connect())
                peers[-1].send(put_header(int(mib * MIB)) + bytes(60))
        time.sleep(0.3)
        assert connections(healthy, "buffer_bytes") < MIB
        for size in (1000, 60_000, 70_000, 100_000, 200_000, MIB, 60 * MIB):
            assert isinstance(healthy.call(put(b"h", bytes(size))), wire.OkReply), size
        assert all(peer.is_silent(0) for peer in peers)
    for peer in peers:
        peer.socket.close()


@pytest.mark.parametrize("size", [65_528, 65_529, 262_144, 400_000, 5_000_000])
def test_large_frames_in_pieces(start_server, size: int) -> None:
    """However a large frame is cut, its value arrives as it was, and its buffer is given back."""
    server = start_server("--memory", "256M", "--threads", "1")
    rng = random.Random(size)
    value = rng.randbytes(size)
    with server.connect() as peer:
        idle = connections(peer, "buffer_bytes")
        for most in (size // 2, 100_000, 20_000):
            frame = wire.encode_request(put(b"k", value)) + wire.encode_request(wire.PingRequest())
            at = 0
            while at < len(frame):
                piece = rng.randrange(1, most)
                peer.send(frame[at:at + piece])
                at += piece
                if rng.random() < 0.1:
                    time.sleep(0.001)
            assert isinstance(peer.receive(), wire.OkReply) and isinstance(peer.receive(), wire.PongReply)
            assert peer.call(get(b"k")).value == value
        assert connections(peer, "buffer_bytes") <= idle + 200_000


def test_busy_in_the_middle_of_a_frame(start_server) -> None:
    """Buffers run out while a frame comes: BUSY with its tag, the rest is skipped, and the stream goes on."""
    server = start_server("--memory", "64M", "--threads", "1")
    size = 4_000_000
    peers = [server.connect() for _ in range(4)]
    with server.connect() as watcher:
        for number, peer in enumerate(peers):
            # A block of extensions, though an empty one: such frames are collected, not received into their places.
            before = connections(watcher, "bytes_received")
            peer.send(struct.pack("<BBHIIH", wire.Op.PUT, 0x60, 1, size + 7, number, 0) + b"k" + bytes(size - 400_000))
            wait_until(lambda: connections(watcher, "bytes_received") > before + size - 400_000)
    refused = [number for number, peer in enumerate(peers) if not peer.is_silent(0)]
    assert refused and 0 not in refused
    for number, peer in enumerate(peers):
        peer.send(bytes(400_000))
        reply = peer.receive()
        if number in refused:
            assert reply.code == E.BUSY and reply.tag == number
        else:
            assert isinstance(reply, wire.OkReply) and reply.tag == number
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
        peer.socket.close()


def test_kernel_holds_little_for_who_does_not_read(start_server) -> None:
    """What the server hands to the kernel for a peer that reads nothing is bounded, too."""
    server = start_server("--memory", "64M", "--threads", "1")
    with server.connect() as watcher:
        watcher.call(put(b"v", bytes(3 * MIB)))
        before = connections(watcher, "bytes_sent")
        peers = [never_reader(server, get(b"v"), 3) for _ in range(10)]
        time.sleep(0.5)
        assert connections(watcher, "bytes_sent") - before < 10 * (MIB // 2)
        for peer in peers:
            peer.socket.close()


def test_silent_peers_are_asked_whether_they_live(start_server) -> None:
    """The kernel's timer of keep-alives runs on the server's side of a connection."""
    server = start_server("--memory", "16M", "--threads", "1")
    with server.connect() as peer:
        peer.call(wire.PingRequest())
        ours = f":{server.port:04X}"
        theirs = f":{peer.socket.getsockname()[1]:04X}"

        def timer() -> int:
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(ours) and fields[2].endswith(theirs):
                    return int(fields[5].split(":")[0], 16)
            return 0

        wait_until(lambda: timer() == 2, timeout_s=5)


@pytest.mark.skipif(SANITIZED, reason="a sanitizer makes everything slow")
def test_many_stalls_cost_no_time(start_server) -> None:
    """Connections that wait for their peers cost no processor time."""
    server = start_server("--memory", "256M", "--threads", "1")
    with server.connect() as peer:
        peer.call(put(b"v", bytes(MIB)))
        peers = [never_reader(server, get(b"v"), 3) for _ in range(100)]
        for _ in range(100):
            peers.append(server.connect())
            peers[-1].send(put_header(100_000) + bytes(5000))
        let_patience_end(peer)
        before = server.cpu_s()
        time.sleep(1)
        assert server.cpu_s() - before < 0.1
        for other in peers:
            other.socket.close()
