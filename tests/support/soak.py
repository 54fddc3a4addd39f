#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Hours in minutes: a server under mixed load while clients misbehave in every way; nothing may grow, nobody else suffer.

    soak.py [SECONDS]          default 600; the server of CRABCACHE_BUILD (default build/release)

Healthy clients check each value that they read. Beside them others come and go: never-readers, halves of frames, bytes one
by one, resets, other protocols, promises of large values, floods of connections beyond the limit of descriptors. After a
warm-up of a fifth of the time resident memory and descriptors are noted; at the end, when all clients but one are gone,
they must be what they were. Prints a line every ten seconds; the exit status is 1 if anything was wrong.
"""
from __future__ import annotations

import os
import random
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from conftest import Peer, Server, wire  # noqa: E402 - found by the line above

MEMORY = 64 << 20
DESCRIPTORS = 400
SIZES = (0, 10, 100, 3000, 20_000, 150_000, 1_500_000)
stop = threading.Event()
wrong: list[str] = []
counts = {"answers": 0, "hits": 0, "misbehaved": 0}
worst_s = [0.0]


def value_of(key: bytes, size: int) -> bytes:
    """A value that tells its key and length."""
    return (key + b"%d;" % size) * (size // (len(key) + 2) + 1)


def check(key: bytes, reply: object) -> None:
    """A hit must be what was put under the key in some size; refusals for want of room are answers, too."""
    counts["answers"] += 1
    if isinstance(reply, wire.ValueReply):
        counts["hits"] += 1
        size = len(reply.value)
        if reply.value != value_of(key, size)[:size]:
            wrong.append(f"a wrong value of {key!r}")
    elif isinstance(reply, wire.ErrorReply) and reply.code not in (wire.ErrorCode.BUSY, wire.ErrorCode.OUT_OF_MEMORY):
        wrong.append(f"unexpected: {reply}")


def healthy(server: Server, seed: int) -> None:
    """Pipelines of reads and writes on one connection; its answers must come, and be right."""
    rng = random.Random(seed)
    with server.connect() as peer:
        while not stop.is_set():
            batch = []
            for _ in range(rng.choice((1, 5, 20))):
                key, size = b"key%d" % rng.randrange(500), rng.choice(SIZES)
                batch.append((key, wire.GetRequest(key=key) if rng.random() < 0.7 else
                              wire.PutRequest(key=key, value=value_of(key, size)[:size])))
            began = time.monotonic()
            sender = threading.Thread(target=peer.send, args=[request for _, request in batch])
            sender.start()
            for key, _ in batch:
                check(key, peer.receive())
            sender.join()
            worst_s[0] = max(worst_s[0], time.monotonic() - began)
            time.sleep(0.005)


def misbehave(peer: Peer, rng: random.Random) -> None:
    """One of the ways."""
    kind = rng.randrange(8)
    key = b"key%d" % rng.randrange(500)
    peer.socket.setblocking(False)
    if kind == 0:  # reads nothing
        while True:
            peer.socket.send(wire.encode_request(wire.GetRequest(key=key)) * 200)
    elif kind == 1:  # half a frame
        peer.socket.send(struct.pack("<BBHI", wire.Op.PUT, 0, 1, rng.randrange(2, 3 << 20)) + bytes(rng.randrange(200_000)))
    elif kind == 2:  # byte by byte
        for byte in wire.encode_request(wire.GetRequest(key=key)):
            peer.socket.send(bytes([byte]))
            time.sleep(0.001)
    elif kind == 3:  # another protocol
        peer.socket.send(b"GET / HTTP/1.1\r\n\r\n" * rng.randrange(1, 100))
    elif kind == 4:  # anything
        peer.socket.send(rng.randbytes(rng.randrange(1, 5000)))
    elif kind == 5:  # more than is allowed
        peer.socket.send(struct.pack("<BBHI", wire.Op.PUT, 0, 1, 1 << 31) + bytes(100_000))
    elif kind == 6:  # only the end of its stream
        peer.socket.send(wire.encode_request(wire.GetRequest(key=key)) * 50)
        peer.socket.shutdown(socket.SHUT_WR)
    # kind 7: nothing at all


def unhealthy(server: Server, seed: int) -> None:
    """Clients that misbehave, stay for a while or not, and are gone by a reset or in order."""
    rng = random.Random(seed)
    staying: list[Peer] = []
    while not stop.is_set():
        try:
            peer = server.connect(receive_buffer=rng.choice((None, 4096)))
            staying.append(peer)
            misbehave(peer, rng)
        except OSError:
            pass
        counts["misbehaved"] += 1
        while len(staying) > 90 or (staying and rng.random() < 0.2):
            gone = staying.pop(rng.randrange(len(staying)))
            if rng.random() < 0.5:
                gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.socket.close()
        time.sleep(0.002)
    for peer in staying:
        peer.socket.close()


def flood(server: Server) -> None:
    """Now and then more connections than the server has descriptors for."""
    while not stop.wait(15):
        peers = []
        try:
            for _ in range(DESCRIPTORS + 50):
                peers.append(socket.create_connection((server.host, server.port), timeout=5))
        except OSError:
            pass
        time.sleep(0.5)
        for peer in peers:
            peer.close()


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def guarded(target, *args: object) -> threading.Thread:
    """A thread whose exceptions are findings."""

    def run() -> None:
        try:
            target(*args)
        except BaseException as failure:  # noqa: BLE001 - reported at the end
            wrong.append(f"{target.__name__}: {failure!r}")

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def soak(server: Server, seconds: float) -> None:
    """The whole run."""
    watcher = server.connect()
    watcher.call(wire.PingRequest())
    at_rest = descriptors(server)
    threads = [guarded(healthy, server, seed) for seed in range(3)]
    threads += [guarded(unhealthy, server, 100 + seed) for seed in range(3)] + [guarded(flood, server)]
    began = time.monotonic()
    warm_rss, most_rss = 0, 0
    next_line = began + 10
    while time.monotonic() - began < seconds and not wrong:
        time.sleep(0.5)
        now = time.monotonic()
        watcher.call(wire.PingRequest())  # it must not be closed as idle
        if now - began < seconds / 5:
            warm_rss = max(warm_rss, server.rss())
        most_rss = max(most_rss, server.rss())
        if now >= next_line:
            next_line += 10
            print(f"{now - began:5.0f} s  RSS {server.rss() >> 10} KiB  descriptors {descriptors(server)}  {counts}  "
                  f"worst batch {worst_s[0]:.3f} s", flush=True)
    stop.set()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 10
    while descriptors(server) > at_rest and time.monotonic() < deadline:
        time.sleep(0.1)
    if descriptors(server) != at_rest:
        wrong.append(f"{descriptors(server)} descriptors are open at the end, {at_rest} at the beginning")
    if most_rss > MEMORY * 1.05 + (4 << 20):
        wrong.append(f"RSS rose to {most_rss >> 10} KiB with --memory {MEMORY >> 10} KiB")
    if most_rss > warm_rss * 1.05 + (1 << 20):
        wrong.append(f"RSS rose to {most_rss >> 10} KiB after a warm-up with {warm_rss >> 10} KiB")
    if worst_s[0] > 5:
        wrong.append(f"a healthy client waited {worst_s[0]:.1f} s")
    stats = watcher.stats()
    for name in ("store.pinned", "connections.stream_bytes"):
        if stats[name] != "0":
            wrong.append(f"{name} is {stats[name]} at the end")
    watcher.socket.close()
    print(f"RSS {warm_rss >> 10} KiB after the warm-up, {most_rss >> 10} KiB at the most; {counts}; "
          f"timed out {stats['connections.timed_out']}, aborted {stats['connections.aborted']}, "
          f"accepting paused {stats['connections.accept_pauses']} times; worst batch {worst_s[0]:.3f} s")


def main() -> int:
    """Run, and say what was wrong."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0

    def few_descriptors() -> None:
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    server = Server("--memory", str(MEMORY), "--threads", "2", "--stall-timeout", "1", "--first-request-timeout", "2",
                    "--idle-timeout", "60", preexec_fn=few_descriptors)
    try:
        soak(server, seconds)
    finally:
        server.stop()
    if server.process.returncode != 0:
        wrong.append(f"the server ended with {server.process.returncode}")
    for line in wrong[:20]:
        print("wrong:", line)
    print("soak:", "failed" if wrong else "passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
