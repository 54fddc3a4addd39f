# SPDX-License-Identifier: MIT
"""Authentication: who may do what before and after AUTH."""
from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SANITIZED, TIMEOUT_S, Peer, Server, wait_until, wire

E = wire.ErrorCode
TAG, QUIET = wire.Flag.TAG, wire.Flag.QUIET
HASH = subprocess.run(["openssl", "passwd", "-6", "-salt", "saltsalt", "wonderland"], capture_output=True, text=True,
                      check=False).stdout.strip()

pytestmark = pytest.mark.skipif(not HASH, reason="openssl is not there to make a hash")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("auth") / "users"
    path.write_text(f"# users\nalice:{HASH}\n\nbob:{HASH}\n")
    server = Server("--memory", "64M", "--threads", "1", "--auth-file", str(path), "--auth-failures", "0")
    yield server
    server.stop()
    assert server.process.returncode == 0


@pytest.fixture
def stranger(guarded: Server) -> Iterator[Peer]:
    with guarded.connect() as peer:
        yield peer


def code(reply: object) -> int | None:
    return reply.code if isinstance(reply, wire.ErrorReply) else None


OTHERS = [wire.PutRequest(key=b"k", value=b"v"), wire.GetRequest(key=b"k"), wire.DelRequest(key=b"k"),
          wire.ExpireRequest(key=b"k", ttl_ms=1), wire.StatsRequest(), wire.FlushRequest(),
          wire.IncrRequest(key=b"k", delta=1), wire.DecrRequest(key=b"k", delta=1)]


@pytest.mark.parametrize("request_", OTHERS, ids=lambda r: r.OP.name)
def test_before_and_after(stranger: Peer, request_: object) -> None:
    """Every op is refused before, works after, and is refused again after a failed AUTH."""
    assert code(stranger.call(request_)) == E.AUTH_REQUIRED
    assert isinstance(stranger.call(wire.AuthRequest(key=b"alice", value=b"wonderland")), wire.OkReply)
    assert code(stranger.call(request_)) != E.AUTH_REQUIRED
    assert code(stranger.call(wire.AuthRequest(key=b"alice", value=b"wrong"))) == E.AUTH_FAILED
    assert code(stranger.call(request_)) == E.AUTH_REQUIRED


def test_open_ops(stranger: Peer) -> None:
    assert isinstance(stranger.hello(), wire.WelcomeReply)
    assert isinstance(stranger.call(wire.PingRequest()), wire.PongReply)


@pytest.mark.parametrize("user, secret", [
    (b"alice", b""), (b"alice", b"wonderlan"), (b"alice", b"wonderland\0"), (b"alice\0", b"wonderland"),
    (b"alic", b"wonderland"), (b"nobody", b"wonderland"), (b"x" * 255, b"y" * 1024), (b"alice", HASH.encode()),
])
def test_wrong_secrets(stranger: Peer, user: bytes, secret: bytes) -> None:
    assert code(stranger.call(wire.AuthRequest(key=user, value=secret))) == E.AUTH_FAILED
    assert code(stranger.call(wire.GetRequest(key=b"k"))) == E.AUTH_REQUIRED


def test_pipelined_behind_auth(stranger: Peer) -> None:
    replies = stranger.call(wire.AuthRequest(key=b"bob", value=b"wonderland"), wire.PutRequest(key=b"p", value=b"v"),
                            wire.GetRequest(key=b"p"))
    assert isinstance(replies[1], wire.OkReply) and replies[2].value == b"v"


def test_quiet_is_refused_late(stranger: Peer) -> None:
    stranger.hello()
    stranger.send(wire.PutRequest(key=b"k", value=b"v", flags=TAG | QUIET, tag=3), wire.PingRequest())
    late = stranger.receive()
    assert (late.late_tag, late.code) == (3, E.AUTH_REQUIRED)
    assert isinstance(stranger.receive(), wire.PongReply)


def test_checks_come_in_order(stranger: Peer) -> None:
    """The checks of the head come before AUTH_REQUIRED, those of the fields after."""
    stranger.send(struct.pack("<BBHI", wire.Op.GET, 0, 0, 0))
    assert code(stranger.receive()) == E.BAD_KEY
    stranger.send(struct.pack("<BBHIQ", wire.Op.EXPIRE, 0, 1, 9, 0) + b"k")
    assert code(stranger.receive()) == E.AUTH_REQUIRED
    stranger.send(struct.pack("<BBHI", 0x0E, 0, 0, 0))
    assert code(stranger.receive()) == E.UNKNOWN_OP


@pytest.mark.parametrize("whole", [False, True])
def test_large_bodies_are_not_kept(guarded: Server, whole: bool) -> None:
    """Without AUTH a body over 4,096 bytes is refused from its head and skipped."""
    with guarded.connect() as peer:
        size = 60_000
        frame = struct.pack("<BBHI", wire.Op.PUT, TAG, 1, size) + struct.pack("<I", 8) + bytes(size - 4)
        if whole:
            peer.send(frame)
            reply = peer.receive()
        else:
            peer.send(frame[:20])
            reply = peer.receive()
            peer.send(frame[20:])
        assert code(reply) == E.AUTH_REQUIRED and reply.tag == 8
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)


def test_strangers_hold_no_memory(guarded: Server) -> None:
    """Many strangers with half frames: no more than a body of 4,096 bytes each."""
    with guarded.connect() as probe:
        probe.call(wire.PingRequest())
        before = guarded.rss()
        peers = [guarded.connect() for _ in range(200)]
        for peer in peers:
            peer.send(struct.pack("<BBHI", wire.Op.PUT, 0, 1, 5_000_000) + bytes(50_000))
        for peer in peers:
            assert code(peer.receive()) == E.AUTH_REQUIRED
        assert guarded.rss() - before < 4 << 20
        for peer in peers:
            peer.socket.close()


def test_unknown_user_takes_as_long(guarded: Server) -> None:
    """The shortest times that a known and an unknown user take, measured by turns."""
    shortest = {b"alice": 1e9, b"mallory": 1e9}
    for _ in range(25):
        with guarded.connect() as peer:
            for user in shortest:
                began = time.perf_counter()
                assert code(peer.call(wire.AuthRequest(key=user, value=b"wrong"))) == E.AUTH_FAILED
                shortest[user] = min(shortest[user], time.perf_counter() - began)
    assert 0.5 < shortest[b"mallory"] / shortest[b"alice"] < 2


@pytest.mark.parametrize("pushes", [False, True])
def test_three_failures_are_the_end(stranger: Peer, pushes: bool) -> None:
    """Each is answered, then the stream ends, with GOAWAY to those who take pushes; nothing after it is executed."""
    if pushes:
        stranger.hello()
    wrong = wire.AuthRequest(key=b"alice", value=b"wrong")
    right = wire.AuthRequest(key=b"alice", value=b"wonderland")
    stranger.send(wrong, wrong, right, wrong, wrong, wrong, right, wire.PingRequest())
    assert [code(stranger.receive()) for _ in range(6)] == [E.AUTH_FAILED] * 2 + [None] + [E.AUTH_FAILED] * 3
    if pushes:
        goaway = stranger.receive()
        assert isinstance(goaway, wire.GoawayPush) and goaway.code == E.AUTH_FAILED
    assert stranger.receive() is None


def test_without_users_failures_are_no_end(start_server) -> None:
    """Where nobody needs to authenticate, AUTH fails as often as it is tried."""
    server = start_server("--memory", "16M", "--threads", "1")
    with server.connect() as peer:
        replies = peer.call(*[wire.AuthRequest(key=b"alice", value=b"x")] * 20)
        assert [code(reply) for reply in replies] == [E.AUTH_FAILED] * 20
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)


def test_many_auths_do_not_stop_the_others(guarded: Server) -> None:
    """One connection with thousands of AUTHs in a row: the others on its worker are served in between."""
    with guarded.connect() as greedy, guarded.connect() as other:
        greedy.call(wire.AuthRequest(key=b"alice", value=b"wonderland"))
        greedy.send(wire.encode_request(wire.AuthRequest(key=b"alice", value=b"wonderland")) * 2500)
        assert isinstance(greedy.receive(), wire.OkReply)
        for _ in range(20):
            assert isinstance(other.call(wire.PingRequest()), wire.PongReply)
        answered = 1 + len(greedy.buffer)
        greedy.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            answered += len(greedy.socket.recv(2500))
        assert answered < 2500, "the others were served after all of them"


def test_many_auths_do_not_hold_the_stop_up(start_server, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"alice:{HASH}\n")
    server = start_server("--memory", "64M", "--threads", "1", "--auth-file", str(path))
    peers = [server.connect() for _ in range(4)]
    for peer in peers:
        peer.send(wire.encode_request(wire.AuthRequest(key=b"alice", value=b"wonderland")) * 5000)
    time.sleep(0.1)
    server.signal()
    assert server.wait() == 0, "all of them would take a minute"
    for peer in peers:
        peer.socket.close()


# ---- guessing --------------------------------------------------------------------------------------------------------


def guess(server: Server, source: str, user: bytes, secret: bytes, times: int) -> list[int | None]:
    """The answers to attempts from a source address, one connection each."""
    codes = []
    for _ in range(times):
        with socket.create_connection((server.host, server.port), TIMEOUT_S, (source, 0)) as raw:
            raw.sendall(wire.encode_request(wire.AuthRequest(key=user, value=secret)))
            codes.append(code(wire.decode_reply(raw.recv(1000)).message))
    return codes


@pytest.fixture
def limited(start_server, tmp_path: Path) -> Server:
    path = tmp_path / "users"
    path.write_text(f"alice:{HASH}\nbob:{HASH}\n")
    return start_server("--memory", "64M", "--threads", "2", "--auth-file", str(path), "--auth-failures", "6")


def test_guessing_is_limited(limited: Server) -> None:
    """A source has so many failures, on all of its connections together and whatever the names; then it is BUSY."""
    assert guess(limited, "127.0.0.2", b"alice", b"wrong", 3) == [E.AUTH_FAILED] * 3
    assert guess(limited, "127.0.0.2", b"nobody", b"wrong", 3) == [E.AUTH_FAILED] * 3
    assert guess(limited, "127.0.0.2", b"bob", b"wrong", 3) == [E.BUSY] * 3
    assert guess(limited, "127.0.0.2", b"bob", b"wonderland", 1) == [E.BUSY], "not even the right one is looked at"
    with limited.connect() as peer:
        assert isinstance(peer.call(wire.AuthRequest(key=b"alice", value=b"wonderland")), wire.OkReply)
        stats = peer.stats(b"ops")
        assert (stats["ops.auth_failures"], stats["ops.auth_throttled"]) == ("6", "4")


def test_guessing_locks_out_nobody_else(limited: Server) -> None:
    """Neither users from other addresses, nor those who have authenticated from there before."""
    assert guess(limited, "127.0.0.2", b"alice", b"wonderland", 1) == [None]
    assert guess(limited, "127.0.0.2", b"bob", b"wrong", 8) == [E.AUTH_FAILED] * 6 + [E.BUSY] * 2
    assert guess(limited, "127.0.0.2", b"alice", b"wonderland", 20) == [None] * 20
    assert guess(limited, "127.0.0.3", b"bob", b"wonderland", 20) == [None] * 20


def test_the_budget_comes_back(start_server, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"alice:{HASH}\n")
    server = start_server("--memory", "16M", "--auth-file", str(path), "--auth-failures", "60")
    codes = guess(server, "127.0.0.2", b"alice", b"wrong", 60)
    assert codes == [E.AUTH_FAILED] * 60
    wait_until(lambda: guess(server, "127.0.0.2", b"alice", b"wrong", 1) == [E.BUSY])
    time.sleep(1.1)
    assert guess(server, "127.0.0.2", b"alice", b"wonderland", 1) == [None]


def test_busy_changes_nothing(limited: Server) -> None:
    """Who is turned away stays what he was: AUTHENTICATED, and not a failure nearer to the end of the connection."""
    with limited.connect() as peer:
        auth = wire.AuthRequest(key=b"bob", value=b"wonderland")
        assert isinstance(peer.call(auth), wire.OkReply)
        assert guess(limited, "127.0.0.1", b"alice", b"wrong", 6) == [E.AUTH_FAILED] * 6
        for _ in range(10):
            assert code(peer.call(wire.AuthRequest(key=b"alice", value=b"wrong"))) == E.BUSY
        assert isinstance(peer.call(wire.GetRequest(key=b"k")), wire.NullReply)


def test_turning_away_is_cheap(limited: Server) -> None:
    """What is turned away makes no hash: thousands of attempts cost less than a few hashes."""
    guess(limited, "127.0.0.1", b"alice", b"wrong", 6)
    with limited.connect() as peer:
        before = limited.cpu_s()
        for _ in range(20):
            peer.send(*[wire.AuthRequest(key=b"alice", value=b"wrong")] * 100)
            assert {code(peer.receive()) for _ in range(100)} == {E.BUSY}
        assert limited.cpu_s() - before < (8 if SANITIZED else 0.8)


def test_users_of_a_unix_socket_are_a_source(start_server, tmp_path: Path) -> None:
    """Those of the same user share a budget, and leave others theirs."""
    users, path = tmp_path / "users", Path(f"/tmp/crabcache-auth-{os.getpid()}")
    users.write_text(f"alice:{HASH}\n")
    server = start_server("--memory", "16M", "--auth-file", str(users), "--auth-failures", "3", "--unix", str(path),
                          "--bind", "127.0.0.1")
    wrong = wire.AuthRequest(key=b"alice", value=b"wrong")
    codes = []
    for _ in range(5):
        with Peer(str(path)) as peer:
            codes.append(code(peer.call(wrong)))
    assert codes == [E.AUTH_FAILED] * 3 + [E.BUSY] * 2
    with server.connect() as peer:
        assert isinstance(peer.call(wire.AuthRequest(key=b"alice", value=b"wonderland")), wire.OkReply)
