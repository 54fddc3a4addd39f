# SPDX-License-Identifier: MIT
"""The stream: pipelines, pieces, frames that are skipped, frames that end it."""
from __future__ import annotations

import socket
import struct
import threading
import time

import pytest
from conftest import SANITIZED, Peer, Server, wire, wait_until

E = wire.ErrorCode
TAG, QUIET, EXT = wire.Flag.TAG, wire.Flag.QUIET, wire.Flag.EXT
MAX_VALUE = 1 << 20


def header(op: int, flags: int = 0, klen: int = 0, blen: int = 0) -> bytes:
    """Eight bytes, whatever they say."""
    return struct.pack("<BBHI", op, flags, klen, blen)


def put(key: bytes, value: bytes, **fields: int) -> object:
    return wire.PutRequest(key=key, value=value, **fields)


def get(key: bytes, **fields: int) -> object:
    return wire.GetRequest(key=key, **fields)


def is_error(reply: object, code: int) -> bool:
    return isinstance(reply, wire.ErrorReply) and reply.code == code


def test_every_message(peer: Peer) -> None:
    """Each request of version 1, each kind of answer."""
    assert isinstance(peer.hello(), wire.WelcomeReply)
    assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
    assert isinstance(peer.call(get(b"k")), wire.NullReply)
    stored = peer.call(put(b"k", b"v", flags=wire.PutRequest.WANT_VERSION | wire.PutRequest.APP_FLAGS, app_flags=7))
    assert stored.version != 0
    assert peer.call(get(b"k")).value == b"v"
    meta = peer.call(get(b"k", flags=wire.GetRequest.META))
    assert (meta.version, meta.app_flags, meta.ttl_ms, meta.value) == (stored.version, 7, wire.TTL_NEVER, b"v")
    exists = peer.call(put(b"k", b"w", flags=wire.PutRequest.IF_ABSENT))
    assert isinstance(exists, wire.ExistsReply) and exists.version == stored.version
    assert isinstance(peer.call(put(b"x", b"w", flags=wire.PutRequest.IF_PRESENT)), wire.NullReply)
    ok = peer.call(put(b"k", b"w", flags=wire.PutRequest.IF_VERSION, version=stored.version))
    assert isinstance(ok, wire.OkReply)
    assert isinstance(peer.call(wire.ExpireRequest(key=b"k", ttl_ms=60_000)), wire.OkReply)
    assert 59_000 < peer.call(get(b"k", flags=wire.GetRequest.META)).ttl_ms <= 60_000
    touched = peer.call(get(b"k", flags=wire.GetRequest.META | wire.GetRequest.TTL, ttl_ms=90_000))
    assert 89_000 < touched.ttl_ms <= 90_000
    assert isinstance(peer.call(wire.DelRequest(key=b"k")), wire.OkReply)
    assert isinstance(peer.call(wire.DelRequest(key=b"k")), wire.NullReply)
    assert isinstance(peer.call(wire.IncrRequest(key=b"n", delta=1)), wire.NullReply)
    assert peer.call(wire.IncrRequest(key=b"n", delta=1, flags=wire.IncrRequest.INITIAL, initial=40)).value == 40
    assert peer.call(wire.IncrRequest(key=b"n", delta=2)).value == 42
    assert peer.call(wire.DecrRequest(key=b"n", delta=50)).value == -8
    peer.call(put(b"t", b"text"))
    assert is_error(peer.call(wire.IncrRequest(key=b"t", delta=1)), E.NOT_A_NUMBER)
    peer.call(put(b"m", b"9223372036854775807"))
    assert is_error(peer.call(wire.IncrRequest(key=b"m", delta=1)), E.OVERFLOW)
    assert set(name.split(".")[0] for name in peer.stats()) == {"server", "connections", "store", "workers", "ops"}
    assert set(name.split(".")[0] for name in peer.stats(b"ops")) == {"ops"}
    assert is_error(peer.call(wire.StatsRequest(key=b"nothing")), E.UNKNOWN_SECTION)
    assert is_error(peer.call(wire.AuthRequest(key=b"me", value=b"secret")), E.AUTH_FAILED)
    assert isinstance(peer.call(wire.FlushRequest()), wire.OkReply)
    assert isinstance(peer.call(get(b"t")), wire.NullReply)
    assert is_error(peer.hello(), E.BAD_STATE)


def test_pipeline_keeps_order(peer: Peer) -> None:
    """Ten thousand requests in one go, tagged, answered in order."""
    count = 10_000
    frames = b"".join(
        wire.encode_request(put(b"p%d" % i, b"v%d" % i)) + wire.encode_request(get(b"p%d" % i, flags=TAG, tag=i))
        for i in range(count))
    sender = threading.Thread(target=peer.send, args=(frames,))
    sender.start()
    for i in range(count):
        assert isinstance(peer.receive(), wire.OkReply)
        reply = peer.receive()
        assert (reply.tag, reply.value) == (i, b"v%d" % i)
    sender.join()


def test_one_byte_at_a_time(peer: Peer) -> None:
    """Pieces of one byte give the same answers."""
    frames = b"".join(map(wire.encode_request, (
        put(b"key", b"value", flags=TAG, tag=1), get(b"key"), wire.PingRequest(flags=EXT, ext=b""), get(b"none"))))
    for i in range(len(frames)):
        peer.send(frames[i:i + 1])
        time.sleep(0.001)
    replies = [peer.receive() for _ in range(4)]
    assert isinstance(replies[0], wire.OkReply) and replies[0].tag == 1
    assert replies[1].value == b"value"
    assert isinstance(replies[2], wire.PongReply) and isinstance(replies[3], wire.NullReply)


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_500, 65_536, 1_000_003, 20_000_000])
def test_values_of_every_size(peer: Peer, size: int) -> None:
    """Copied, by reference, in one piece and in many: what comes back is what went in."""
    value = (b"%08d" % size + bytes(range(251))) * (size // 250 + 1)
    value = value[:size]
    stored, found, meta = peer.call(put(b"big", value), get(b"big"), get(b"big", flags=wire.GetRequest.META))
    assert isinstance(stored, wire.OkReply)
    assert found.value == value and meta.value == value


def test_value_of_64_mib(start_server) -> None:
    """The default limit can be used, to the byte, with 1 GiB of memory."""
    server = start_server("--memory", "1G", "--threads", "1")
    with server.connect() as peer:
        assert peer.hello().max_value == 64 << 20
        value = bytes(64 << 20)
        peer.socket.settimeout(120)
        assert isinstance(peer.call(put(b"big", value)), wire.OkReply)
        assert peer.call(get(b"big")).value == value
        peer.send(header(wire.Op.PUT, 0, 1, (64 << 20) + 2))
        assert is_error(peer.receive(), E.VALUE_TOO_LARGE)


def test_unknown_op_is_skipped(peer: Peer) -> None:
    """An op of a later version is answered and stepped over, tagged or not, short or long."""
    peer.send(header(0x0F, 0, 3, 10) + b"0123456789", header(0xBF, TAG, 0, 4) + struct.pack("<I", 77),
              header(0x0A, 0, 0, 300_000) + bytes(300_000), wire.PingRequest())
    first, second, third, pong = (peer.receive() for _ in range(4))
    assert is_error(first, E.UNKNOWN_OP) and first.tag is None
    assert is_error(second, E.UNKNOWN_OP) and second.tag == 77
    assert is_error(third, E.UNKNOWN_OP) and isinstance(pong, wire.PongReply)


def test_extensions(peer: Peer) -> None:
    """Unknown extensions are ignored, critical ones refused, malformed ones too; the stream goes on."""
    ignored = wire.pack_extensions((1, b"abc"), (0x7FFF, b""))
    critical = wire.pack_extensions((1, b"abc"), (0x8001, b""))
    peer.send(wire.PingRequest(flags=EXT, ext=ignored), wire.PingRequest(flags=EXT, ext=critical),
              header(wire.Op.PING, EXT, 0, 5) + struct.pack("<H", 3) + b"\1\0\1", wire.PingRequest())
    assert isinstance(peer.receive(), wire.PongReply)
    assert is_error(peer.receive(), E.UNKNOWN_EXTENSION)
    assert is_error(peer.receive(), E.BAD_EXTENSION)
    assert isinstance(peer.receive(), wire.PongReply)


def test_oversized_frames_are_skipped_without_buffering(start_server) -> None:
    """A value over the limit is answered from its head; its bytes pass through without staying."""
    server = start_server("--memory", "64M", "--max-value", str(MAX_VALUE), "--threads", "1")
    with server.connect() as peer:
        assert peer.hello().max_value == MAX_VALUE
        peer.call(wire.PingRequest())
        before = server.rss()
        size = 200 << 20
        peer.send(header(wire.Op.PUT, TAG, 1, 4 + 1 + size) + struct.pack("<I", 9) + b"k")
        reply = peer.receive()
        assert is_error(reply, E.VALUE_TOO_LARGE) and reply.tag == 9
        chunk = bytes(4 << 20)
        for _ in range(size // len(chunk)):
            peer.send(chunk)
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
        assert SANITIZED or server.rss() - before < 2 << 20
        assert isinstance(peer.call(get(b"k")), wire.NullReply)
        assert int(peer.stats(b"connections")["connections.bytes_skipped"]) >= size


LENGTHS = (0, 1, MAX_VALUE - 1, MAX_VALUE, MAX_VALUE + 1, 2**31 - 1, 2**31, 2**32 - 1)


@pytest.mark.parametrize("op", [*wire.Op, 0x0F, 0x80])
@pytest.mark.parametrize("klen", (0, 1, 65_534, 65_535))
def test_every_length(start_server_once: Server, op: int, klen: int) -> None:
    """Every length of key and body with every op: answered or waited for, nothing allocated, the server lives."""
    server = start_server_once
    for flags in (0, EXT, TAG):
        for blen in LENGTHS:
            with server.connect() as peer:
                peer.send(header(op, flags, klen, blen) + bytes(64))
                peer.socket.shutdown(socket.SHUT_WR)
                while peer.receive() is not None:
                    pass
    with server.connect() as peer:
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
    assert SANITIZED or server.rss() < 60 << 20


@pytest.fixture(scope="module")
def start_server_once():
    """A small server for the tests of lengths."""
    server = Server("--memory", "32M", "--max-value", str(MAX_VALUE), "--threads", "1")
    yield server
    server.stop()
    assert server.process.returncode == 0


FATAL = {
    "not the protocol": (b"GET / HTTP/1.1\r\n\r\n", E.NOT_CRABCACHE),
    "RESP": (b"*1\r\n$4\r\nPING\r\n", E.NOT_CRABCACHE),
    "TLS": (b"\x16\x03\x01", E.NOT_CRABCACHE),
    "a reply": (b"\x10", E.NOT_CRABCACHE),
    "lengths": (header(wire.Op.GET, 0, 5, 4) + b"abcd", E.BAD_FRAME),
    "a value where none belongs": (header(wire.Op.GET, 0, 1, 4) + b"abcd", E.BAD_FRAME),
    "tag without room": (header(0x0F, TAG, 0, 3) + b"abc", E.BAD_FRAME),
    "quiet without tag": (header(wire.Op.DEL, QUIET, 1, 1) + b"k", E.QUIET_MISUSE),
    "quiet read": (header(wire.Op.GET, QUIET | TAG, 1, 5) + b"tagsk", E.QUIET_MISUSE),
    "quiet without PUSH": (header(wire.Op.DEL, QUIET | TAG, 1, 5) + b"tagsk", E.QUIET_MISUSE),
}


@pytest.mark.parametrize("name", FATAL)
def test_fatal_errors_arrive(peer: Peer, name: str) -> None:
    """All earlier requests are answered, then comes the error, untagged, then the end; nothing after it is executed."""
    garbage, code = FATAL[name]
    count = 500
    peer.send(b"".join(wire.encode_request(put(b"f%d" % i, b"x" * 100)) for i in range(count)), garbage,
              put(b"after", b"x"), bytes(100_000))
    for _ in range(count):
        assert isinstance(peer.receive(), wire.OkReply)
    error = peer.receive()
    assert is_error(error, code) and error.tag is None
    assert peer.receive() is None


def test_nothing_is_executed_after_a_fatal_error(shared_server: Server, peer: Peer) -> None:
    peer.send(b"\xff", put(b"after fatal", b"x"))
    assert is_error(peer.receive(), E.NOT_CRABCACHE)
    assert peer.receive() is None
    with shared_server.connect() as other:
        assert isinstance(other.call(get(b"after fatal")), wire.NullReply)


def test_quiet_writes(peer: Peer) -> None:
    """Silence is success; failures come as LATE_ERROR before the PONG, in order."""
    peer.hello()
    quiet = QUIET | TAG
    peer.send(put(b"q", b"text", flags=quiet, tag=1), wire.IncrRequest(key=b"q", delta=1, flags=quiet, tag=2),
              wire.DelRequest(key=b"none", flags=quiet, tag=3),
              put(b"q", b"x", flags=quiet | wire.PutRequest.IF_ABSENT, tag=4),
              header(0x0E, quiet, 0, 4) + struct.pack("<I", 5), get(b"q"), wire.PingRequest())
    late, unknown, value, pong = (peer.receive() for _ in range(4))
    assert isinstance(late, wire.LateErrorPush) and (late.late_tag, late.code) == (2, E.NOT_A_NUMBER)
    assert isinstance(unknown, wire.LateErrorPush) and (unknown.late_tag, unknown.code) == (5, E.UNKNOWN_OP)
    assert value.value == b"text" and isinstance(pong, wire.PongReply)
    assert peer.is_silent()


def test_half_closed_client_is_answered(peer: Peer) -> None:
    """A client that ends its stream gets the answers to all whole requests; a cut one is dropped."""
    value = bytes(3_000_000)
    peer.send(put(b"h", value), get(b"h"), wire.PingRequest(), wire.encode_request(put(b"cut", b"value"))[:-1])
    peer.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    assert isinstance(peer.receive(), wire.OkReply)
    assert peer.receive().value == value
    assert isinstance(peer.receive(), wire.PongReply)
    assert peer.receive() is None


def test_reset_by_peer(shared_server: Server) -> None:
    """A client that resets with replies on their way leaves nothing behind."""
    with shared_server.connect() as watcher:
        before = int(watcher.stats(b"connections")["connections.current"])
        watcher.call(put(b"r", bytes(2_000_000)))
        for _ in range(20):
            with shared_server.connect(receive_buffer=4096) as peer:
                peer.send(*[get(b"r")] * 20)
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: int(watcher.stats(b"connections")["connections.current"]) == before)
        wait_until(lambda: int(watcher.stats(b"store")["store.pinned"]) == 0)


def test_tricklers_give_way(start_server) -> None:
    """Large values that come byte by byte hold the room for values on their way only until others need it: the slowest of
    their connections is closed, one that goes on at a modest pace is not."""
    server = start_server("--memory", "64M", "--threads", "1")  # 8 MiB for values on their way, of which 6 are "used up"
    large, modest = 3_200_000, 1_200_000
    with server.connect() as steady, server.connect() as other, server.connect() as watcher:
        frame = wire.encode_request(put(b"steady", bytes(modest)))
        sent = 400_000
        steady.send(frame[:sent])
        tricklers = [server.connect() for _ in range(2)]
        for peer in tricklers:
            peer.send(header(wire.Op.PUT, 0, 1, large + 1) + b"k" + bytes(700_000))
        wait_until(lambda: int(watcher.stats()["connections.values_streamed"]) == 3)
        began, closed = time.monotonic(), 0
        while not closed or sent < len(frame):
            assert time.monotonic() - began < 60
            for peer in tricklers:
                try:
                    peer.send(b"x")
                except ConnectionError:
                    pass
            if time.monotonic() - began > sent / 150_000:
                steady.send(frame[sent:sent + 150_000])
                sent += 150_000
            closed = int(watcher.stats()["connections.aborted"])
            time.sleep(0.1)
        assert isinstance(steady.receive(), wire.OkReply)
        assert closed == 1 and time.monotonic() - began >= 5
        assert isinstance(other.call(put(b"other", bytes(large))), wire.OkReply)
        assert int(watcher.stats()["connections.values_streamed"]) == 4
        for peer in tricklers:
            peer.socket.close()
