# SPDX-License-Identifier: MIT
"""Clients in numbers: how they are spread over workers, how many get in, and how long they may do nothing."""
from __future__ import annotations

import os
import struct
import time

import pytest
from conftest import SANITIZED, TIMEOUT_S, Peer, Server, wait_until, wire

E = wire.ErrorCode
MIB = 1 << 20


def per_worker(peer: Peer, key: str = "connections") -> list[int]:
    """A number of each worker."""
    stats = peer.stats(b"workers")
    return [int(stats[f"workers.{i}_{key}"]) for i in range(int(stats["workers.count"]))]


def count(peer: Peer, name: str) -> int:
    return int(peer.stats(b"connections")[f"connections.{name}"])


def half_frame(size: int, sent: int) -> bytes:
    """The start of a PUT of a value of `size` bytes, with an empty block of extensions: it is collected in a buffer."""
    return struct.pack("<BBHIH", wire.Op.PUT, 0x20, 1, size + 3, 0) + b"k" + bytes(sent)


def ends(peer: Peer) -> bool:
    """Whether the stream ends, after whatever still comes."""
    try:
        while peer.receive() is not None:
            pass
    except ConnectionError:
        pass
    return True


def test_as_many_connections_as_workers(start_server) -> None:
    """Each worker gets one, whatever came and went before."""
    server = start_server("--memory", "64M", "--threads", "4")
    for _ in range(5):
        with server.connect() as gone:
            gone.call(wire.PingRequest())
    with server.connect() as watcher:
        wait_until(lambda: sum(per_worker(watcher)) == 1)
        peers = [server.connect() for _ in range(3)]
        wait_until(lambda: per_worker(watcher) == [1, 1, 1, 1])
        for peer in peers:
            peer.socket.close()


def test_new_connections_go_where_old_ones_left(start_server) -> None:
    """All connections of one worker end: the next ones fill it up again."""
    server = start_server("--memory", "64M", "--threads", "3")
    with server.connect() as watcher:
        peers: list[Peer] = []
        by_worker: dict[int, list[Peer]] = {}
        for _ in range(8):
            before = per_worker(watcher)
            peers.append(server.connect())
            peers[-1].call(wire.PingRequest())
            after = per_worker(watcher)
            by_worker.setdefault(next(i for i in range(3) if after[i] > before[i]), []).append(peers[-1])
        assert per_worker(watcher) == [3, 3, 3]
        emptied = next(i for i, group in by_worker.items() if len(group) == 3)
        for peer in by_worker[emptied]:
            peer.socket.close()
        wait_until(lambda: per_worker(watcher)[emptied] == 0)
        fresh = [server.connect() for _ in range(3)]
        wait_until(lambda: per_worker(watcher) == [3, 3, 3])
        for peer in [*peers, *fresh]:
            peer.socket.close()


def test_most_connections(start_server) -> None:
    """One more than --max-connections is closed without a word; when one goes, the next gets in."""
    server = start_server("--memory", "64M", "--threads", "2", "--max-connections", "5")
    peers = [server.connect() for _ in range(5)]
    assert all(isinstance(peer.call(wire.PingRequest()), wire.PongReply) for peer in peers)
    for _ in range(3):
        with server.connect() as extra:
            assert ends(extra)
    assert count(peers[0], "refused") == 3 and count(peers[0], "current") == 5
    assert server.errors().count("--max-connections") == 1
    peers.pop().socket.close()
    wait_until(lambda: count(peers[0], "current") == 4)
    with server.connect() as next_one:
        assert isinstance(next_one.call(wire.PingRequest()), wire.PongReply)
    for peer in peers:
        peer.socket.close()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU only")
def test_workers_are_pinned_when_asked(start_server) -> None:
    """Each worker's thread may run on one CPU, all on different ones; without --pin on any."""

    def allowed(server: Server) -> list[set[int]]:
        tasks = f"/proc/{server.pid}/task"
        names = {}
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/comm") as file:
                names[file.read().strip()] = int(task)
        return [os.sched_getaffinity(names[f"worker-{i}"]) for i in range(2)]

    pinned = allowed(start_server("--memory", "16M", "--threads", "2", "--pin", "yes"))
    assert all(len(cpus) == 1 for cpus in pinned) and pinned[0] != pinned[1]
    assert allowed(start_server("--memory", "16M", "--threads", "2"))[0] == os.sched_getaffinity(0)


@pytest.mark.parametrize("sends", ["nothing", "trickle", "failed hellos"])
def test_first_request_has_a_deadline(start_server, sends: str) -> None:
    """A client that never makes a request is closed, though it sends bytes; one that has made one may rest."""
    server = start_server("--memory", "16M", "--threads", "1", "--first-request-timeout", "1")
    bad_hello = wire.encode_request(wire.HelloRequest(version_min=9, version_max=9, features=0))
    with server.connect() as resting, server.connect() as late:
        resting.call(wire.PingRequest())
        frame = half_frame(100, 99)
        try:
            for at in range(30):
                if sends == "trickle":
                    late.send(frame[at:at + 1])
                elif sends == "failed hellos":
                    late.send(bad_hello)
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert ends(late)
        assert count(resting, "timed_out") == 1


def test_authentication_has_a_deadline(start_server, tmp_path) -> None:
    """On a server with users requests that need no login do not count as the first one."""
    users = tmp_path / "users"
    users.write_text("ann:$6$rounds=1000$saltsalt$x\n")
    users.chmod(0o600)
    server = start_server("--memory", "16M", "--threads", "1", "--first-request-timeout", "1",
                          "--auth-file", str(users))
    began = time.monotonic()
    with server.connect() as stranger:
        stranger.hello()
        last: object = wire.PongReply()
        while isinstance(last, wire.PongReply):
            assert time.monotonic() - began < TIMEOUT_S
            stranger.send(wire.PingRequest())
            last = stranger.receive()
            time.sleep(0.1)
        assert isinstance(last, wire.GoawayPush) and last.code == E.IDLE_TIMEOUT
        assert time.monotonic() - began > 0.9


def test_idle_clients_are_closed_when_asked(start_server) -> None:
    """With --idle-timeout a client that asks nothing gets GOAWAY and the end; one that asks now and then stays."""
    server = start_server("--memory", "16M", "--threads", "1", "--idle-timeout", "4")
    with server.connect() as idle, server.connect() as plain, server.connect() as busy:
        idle.hello()
        plain.call(wire.PingRequest())
        began = time.monotonic()
        while idle.is_silent(0) or plain.is_silent(0):
            assert time.monotonic() - began < TIMEOUT_S
            assert isinstance(busy.call(wire.PingRequest()), wire.PongReply)
            time.sleep(0.1)
        goaway = idle.receive()
        assert isinstance(goaway, wire.GoawayPush) and goaway.code == E.IDLE_TIMEOUT
        assert idle.receive() is None and plain.receive() is None
        assert count(busy, "timed_out") == 2


@pytest.mark.skipif(SANITIZED, reason="a sanitizer makes everything slow")
def test_the_worst_offender_gives_way(start_server) -> None:
    """Halves of frames use the buffers up: the largest is told to go, with GOAWAY BUSY, and others find room."""
    server = start_server("--memory", "64M", "--threads", "1")
    offenders = []
    size = 4_500_000
    for sent in (MIB // 2, 3 * MIB, MIB):
        peer = server.connect()
        peer.hello()
        peer.send(half_frame(size, sent))
        offenders.append(peer)
    with server.connect() as healthy:
        wait_until(lambda: count(healthy, "bytes_received") > 9 * MIB // 2)
        time.sleep(1.3)
        for _ in range(3):
            assert isinstance(healthy.call(half_frame(2 * MIB, 2 * MIB)), wire.OkReply)
        goaway = offenders[1].receive()
        assert isinstance(goaway, wire.GoawayPush) and goaway.code == E.BUSY
        assert offenders[1].receive() is None
        assert all(peer.is_silent(0) for peer in (offenders[0], offenders[2]))
        assert count(healthy, "aborted") == 1
        offenders[0].send(bytes(size - MIB // 2))
        assert isinstance(offenders[0].receive(), wire.OkReply)
    for peer in offenders:
        peer.socket.close()
