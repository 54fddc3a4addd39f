# SPDX-License-Identifier: MIT
"""The Wireshark dissector under real tshark: on a capture of a real session, and on every conformance vector.

The session is captured on the loopback device. Where that is not permitted, a capture file is written from the bytes
that went over the session's sockets, and the test says so.
"""
from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conftest import TIMEOUT_S, Server, wire as w
from spec_support import SPEC, vector_files

pytestmark = [pytest.mark.once, pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")]

DISSECTOR = SPEC / "crabcache.lua"
SEGMENT = 1400
LARGE = bytes(range(256)) * 400
TAGGED_WRITE = w.Flag.TAG | w.Flag.QUIET

# What the tests look at in the session's packets.
FIELDS = (
    "tcp.srcport", "tcp.dstport",
    "_ws.col.Info", "_ws.expert.message", "crabcache.decr.delta",
    "crabcache.ext.value", "crabcache.get.ttl_ms", "crabcache.incr.initial",
    "crabcache.key", "crabcache.malformed", "crabcache.op",
    "crabcache.push.goaway.code", "crabcache.push.late_error.code", "crabcache.push.late_error.late_tag",
    "crabcache.put.app_flags", "crabcache.put.flags.want_version", "crabcache.put.ttl_ms",
    "crabcache.put.version", "crabcache.reply", "crabcache.reply.error.code",
    "crabcache.reply.exists.version", "crabcache.reply.meta.app_flags", "crabcache.reply.meta.ttl_ms",
    "crabcache.reply.number.value", "crabcache.reply.stats.text", "crabcache.reply.stored.version",
    "crabcache.reply.value.value", "crabcache.tag", "crabcache.value",
)


def tshark(capture: Path, *arguments: str) -> str:
    """tshark with the dissector; any complaint of Lua fails the test."""
    command = ["tshark", "-n", "-X", f"lua_script:{DISSECTOR}", "-r", str(capture), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Lua" not in done.stderr and "Lua Error" not in done.stdout, done.stderr
    return done.stdout


def rows(capture: Path, *fields: str, options: tuple[str, ...] = ()) -> list[list[str]]:
    """The fields of each packet; several values of one packet are joined by a comma."""
    arguments = [a for name in fields for a in ("-e", name)]
    text = tshark(capture, *options, "-T", "fields", "-E", "separator=/t", *arguments)
    return [line.split("\t") for line in text.split("\n") if line]


# -------------------------------------------------------------------------------------- capture files by hand


class Pcap:
    """A capture file of bare IP packets."""

    RAW_IP = 101

    def __init__(self) -> None:
        self.records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, self.RAW_IP)]

    def add(self, client: tuple[str, int], port: int, up: bool, sequence: int, data: bytes) -> None:
        """Bytes of a TCP stream to or from a server's port, in segments, from a byte of it on."""
        ends = [(socket.inet_aton(client[0]), client[1]), (socket.inet_aton("127.0.0.1"), port)]
        (source, source_port), (target, target_port) = ends if up else reversed(ends)
        for at in range(0, len(data), SEGMENT):
            part = data[at:at + SEGMENT]
            tcp = struct.pack(">HHIIBBHHH", source_port, target_port, 1 + sequence + at, 1, 0x50, 0x18, 65535, 0, 0) + part
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, source, target)
            self.records.append(struct.pack("<IIII", len(self.records), 0, len(ip + tcp), len(ip + tcp)) + ip + tcp)

    def write(self, path: Path) -> Path:
        path.write_bytes(b"".join(self.records))
        return path


# ---------------------------------------------------------------------------------------------- a real session


@dataclass
class Client:
    """A plain socket that keeps what went over it."""

    server: Server
    log: list[tuple[bool, bytes]] = field(default_factory=list)
    buffer: bytes = b""

    def __post_init__(self) -> None:
        self.socket = socket.create_connection((self.server.host, self.server.port), TIMEOUT_S)
        self.port = self.socket.getsockname()[1]

    def send(self, *frames: Any) -> None:
        data = b"".join(f if isinstance(f, bytes) else w.encode_request(f) for f in frames)
        self.log.append((True, data))
        self.socket.sendall(data)

    def receive(self, count: int) -> list[Any]:
        """So many replies and pushes, or fewer if the stream ends."""
        out: list[Any] = []
        while len(out) < count:
            answer = w.decode_reply(self.buffer)
            if isinstance(answer, w.Whole):
                out.append(answer.message)
                self.buffer = self.buffer[answer.used:]
                continue
            assert isinstance(answer, w.NeedMore), answer
            data = self.socket.recv(65536)
            if not data:
                break
            self.log.append((False, data))
            self.buffer += data
        return out

    def call(self, *frames: Any) -> list[Any]:
        self.send(*frames)
        return self.receive(len(frames))


def session(server: Server) -> list[Client]:
    """Every request, reply and push once, over a few connections."""
    put, get, incr = w.PutRequest, w.GetRequest, w.IncrRequest
    main = Client(server)
    welcome, = main.call(w.HelloRequest(version_min=1, version_max=1, features=w.Feature.PUSH, value=b"dissected"))
    assert welcome.features & w.Feature.PUSH
    stored, = main.call(put(flags=put.TTL | put.APP_FLAGS | put.WANT_VERSION, key=b"one", value=b"first", ttl_ms=60_000, app_flags=7))
    main.call(
        w.PingRequest(), get(key=b"one"), get(key=b"none"), get(key=b"one", flags=get.META | get.TTL, ttl_ms=w.TTL_NEVER),
        put(flags=put.IF_ABSENT, key=b"one", value=b"no"), put(flags=put.IF_VERSION, key=b"one", value=b"two", version=stored.version),
        w.ExpireRequest(key=b"one", ttl_ms=1000), incr(flags=incr.INITIAL, key=b"n", delta=2, initial=-5),
        incr(key=b"n", delta=2), w.DecrRequest(key=b"n", delta=10), incr(key=b"one", delta=1), w.StatsRequest(key=b"server"),
        w.DelRequest(key=b"one", flags=w.Flag.TAG, tag=0xABCDEF01), get(key=b"n", flags=w.Flag.TAG, tag=5),
        get(key=b"n", flags=w.Flag.EXT, ext=w.pack_extensions((0x7F01, b"ext"))), w.AuthRequest(key=b"user", value=b"secret"),
        struct.pack("<BBHI", 0x0E, 0, 0, 3) + b"???", put(key=b"\x00\xff", value=b""),
    )
    main.call(incr(flags=TAGGED_WRITE, tag=99, key=b"\x00\xff", delta=1), w.PingRequest())
    main.call(put(key=b"large", value=LARGE))
    main.call(get(key=b"large"), w.FlushRequest())

    pieces = Client(server)
    for byte in w.encode_request(get(key=b"in pieces")):
        pieces.send(bytes([byte]))
        time.sleep(0.002)
    pieces.receive(1)

    stranger = Client(server)
    stranger.send(b"GET / HTTP/1.1\r\n\r\n")
    stranger.receive(2)

    leaving = Client(server)
    leaving.call(w.HelloRequest(version_min=1, version_max=1, features=w.Feature.PUSH))
    server.signal()
    for client in (main, leaving):
        goaway, *_ = client.receive(2)
        assert isinstance(goaway, w.GoawayPush)
    clients = [main, pieces, stranger, leaving]
    for client in clients:
        client.socket.close()
    assert server.wait() == 0
    return clients


def start_capture(port: int, path: Path) -> subprocess.Popen[str] | None:
    """dumpcap on the loopback device, running; None if that is not permitted here."""
    dumpcap = shutil.which("dumpcap")
    if dumpcap is None:
        return None
    process = subprocess.Popen([dumpcap, "-q", "-i", "lo", "-f", f"tcp port {port}", "-s", "0", "-w", str(path)],
                               stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("File:"):
            return process
    process.wait()
    process.stderr.close()
    return None


def stop_capture(process: subprocess.Popen[str], path: Path) -> None:
    """Wait until the capture does not grow any more, then end it."""
    assert process.stderr is not None
    size = -1
    for _ in range(50):
        time.sleep(0.2)
        if path.stat().st_size == size and size > len(LARGE) * 2:
            break
        size = path.stat().st_size
    process.send_signal(signal.SIGINT)
    process.wait(TIMEOUT_S)
    process.stderr.close()


def recorded(clients: list[Client], port: int, path: Path) -> Path:
    """A capture file of what went over the sockets."""
    pcap = Pcap()
    for client in clients:
        sent = {True: 0, False: 0}
        for up, data in client.log:
            pcap.add(("127.0.0.1", client.port), port, up, sent[up], data)
            sent[up] += len(data)
    return pcap.write(path)


@dataclass
class Captured:
    """A capture of the session."""

    path: Path
    port: int
    ports: list[int]
    by_hand: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("-o", f"crabcache.port:{self.port}")

    @cached_property
    def packets(self) -> list[dict[str, str]]:
        """All packets with all fields that the tests look at."""
        return [dict(zip(FIELDS, row)) for row in rows(self.path, *FIELDS, options=self.options)]

    def fields(self, *names: str, of: int | None = None) -> list[list[str]]:
        """Fields of the packets (of one connection) that have any of them."""
        port = str(self.ports[of]) if of is not None else None
        found = [
            [packet.get(name, "") for name in names] for packet in self.packets
            if port is None or port in (packet["tcp.srcport"], packet["tcp.dstport"])
        ]
        return [row for row in found if any(row)]

    def values(self, name: str) -> list[str]:
        """All values of a field."""
        return [value for (joined,) in self.fields(name) for value in joined.split(",")]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    path = tmp_path_factory.mktemp("capture") / "session.pcapng"
    server = Server("--memory", "64M")
    process = start_capture(server.port, path)
    clients = session(server)
    server.stop()
    by_hand = recorded(clients, server.port, path.with_name("by-hand.pcap"))
    if process is not None:
        stop_capture(process, path)
    else:
        print("capturing on the loopback device is not permitted here: the capture is made from the sockets' bytes")
        path = by_hand
    return Captured(path, server.port, [c.port for c in clients], by_hand)


def number_of(kind: Any) -> list[str]:
    return [f"{op:#04x}" for op in kind]


def test_session_has_every_message(captured: Captured) -> None:
    assert set(captured.values("crabcache.op")) == {*number_of(w.Op), "0x0e"}
    replies = set(captured.values("crabcache.reply"))
    assert replies == set(number_of(w.ReplyOp)) | set(number_of(w.PushOp))


def test_session_requests(captured: Captured) -> None:
    keys = {bytes.fromhex(k) for k in captured.values("crabcache.key")}
    assert keys == {b"one", b"none", b"n", b"server", b"user", b"\x00\xff", b"large", b"in pieces"}
    values = {bytes.fromhex(v) for v in captured.values("crabcache.value")}
    assert values == {b"dissected", b"first", b"no", b"two", b"secret", LARGE}
    assert captured.values("crabcache.put.ttl_ms") == ["60000"]
    assert captured.values("crabcache.put.app_flags") == ["7"]
    assert captured.values("crabcache.get.ttl_ms") == [str(w.TTL_NEVER)]
    assert captured.values("crabcache.incr.initial") == ["-5"]
    assert captured.values("crabcache.decr.delta") == ["10"]
    assert captured.values("crabcache.ext.value") == [b"ext".hex()]
    assert "1" in captured.values("crabcache.put.flags.want_version")


def test_session_replies(captured: Captured) -> None:
    assert captured.values("crabcache.reply.number.value") == ["-5", "-3", "-13"]
    assert captured.values("crabcache.reply.meta.ttl_ms") == [str(w.TTL_NEVER)]
    assert captured.values("crabcache.reply.meta.app_flags") == ["7"]
    stored, = captured.values("crabcache.reply.stored.version")
    assert captured.values("crabcache.put.version") == [stored] == captured.values("crabcache.reply.exists.version")
    values = [bytes.fromhex(v) for v in captured.values("crabcache.reply.value.value")]
    assert values == [b"first", b"-13", b"-13", LARGE]
    codes = [int(c, 0) for c in captured.values("crabcache.reply.error.code")]
    assert codes == [w.ErrorCode.NOT_A_NUMBER, w.ErrorCode.AUTH_FAILED, w.ErrorCode.UNKNOWN_OP, w.ErrorCode.NOT_CRABCACHE]
    tags = [int(t, 0) for t in captured.values("crabcache.tag")]
    assert sorted(tags) == sorted([0xABCDEF01, 5, 99, 0xABCDEF01, 5])
    text = ",".join(value for (value,) in captured.fields("crabcache.reply.stats.text"))
    assert "server." in text and ":" in text


def test_session_pushes(captured: Captured) -> None:
    assert captured.values("crabcache.push.late_error.late_tag") == ["99"]
    assert [int(c, 0) for c in captured.values("crabcache.push.late_error.code")] == [w.ErrorCode.NOT_A_NUMBER]
    assert [int(c, 0) for c in captured.values("crabcache.push.goaway.code")] == [w.ErrorCode.SHUTTING_DOWN] * 2


def test_session_summaries_and_experts(captured: Captured) -> None:
    info = [line for (line,) in captured.fields("_ws.col.Info", of=0)]
    assert any(line.startswith("HELLO") for line in info)
    assert any(line.startswith("PING, GET one, GET none") for line in info)
    assert any("PONG, VALUE, NULL, META, EXISTS, OK" in line for line in info)
    assert any("LATE_ERROR NOT_A_NUMBER" in line for line in info)
    for of in (0, 1, 3):
        assert captured.fields("crabcache.malformed", of=of) == [], "nothing that these connections sent is malformed"
    pieces = captured.fields("crabcache.op", "crabcache.key", of=1)
    assert pieces == [["0x03", b"in pieces".hex()]], "a frame in single bytes is put together, and shown once"
    assert any("NOT_CRABCACHE" in line for (line,) in captured.fields("_ws.expert.message", of=2))


def test_session_as_json(captured: Captured) -> None:
    packets = json.loads(tshark(captured.path, *captured.options, "-Y", "crabcache.reply == 0x1f", "-T", "json"))
    assert packets
    for packet in packets:
        assert "crabcache" in packet["_source"]["layers"], "tagged replies are dissected"


def test_capture_by_hand_is_the_same(captured: Captured) -> None:
    """What stands in for a capture where none is permitted shows the same messages, connection by connection."""
    other = Captured(captured.by_hand, captured.port, captured.ports, captured.by_hand)
    for of in range(len(captured.ports)):
        for name in ("crabcache.op", "crabcache.reply", "crabcache.key"):
            real, made = (",".join(v for (v,) in c.fields(name, of=of)) for c in (captured, other))
            assert real == made, (of, name)


def test_other_port_goes_by_the_first_byte(captured: Captured) -> None:
    """Decode as: the preference names another port, and the first bytes tell requests from replies."""
    ours = ("-Y", f"tcp.port != {captured.ports[2]}")
    fields = ("crabcache.op", "crabcache.reply")
    named = rows(captured.path, *fields, options=(*captured.options, *ours))
    guessed = rows(captured.path, *fields, options=("-d", f"tcp.port=={captured.port},crabcache", *ours))
    assert [r for r in guessed if any(r)] == [r for r in named if any(r)]


# ------------------------------------------------------------------------------------------------ the vectors

# What a vector supposes of the receiver's own limits, the dissector does not know.
RECEIVERS_OWN = "VALUE_TOO_LARGE"


def test_vectors(tmp_path: Path) -> None:
    """Each malformed vector shows its error, and no other is called malformed."""
    pcap, vectors = Pcap(), {}
    for file in vector_files().values():
        for vector in file["vectors"]:
            if vector["hex"]:
                client = f"10.0.{len(vectors) >> 8}.{len(vectors) & 255}"
                vectors[client] = vector
                pcap.add((client, 50000), w.DEFAULT_PORT, file["direction"] == "request", 0, bytes.fromhex(vector["hex"]))
    path = pcap.write(tmp_path / "vectors.pcap")
    shown: dict[str, list[str]] = {client: [] for client in vectors}
    names = ("ip.src", "ip.dst", "crabcache.malformed", "_ws.expert.message", "crabcache.op", "crabcache.reply", "crabcache.key")
    for source, target, *found in rows(path, *names):
        if any(found):
            shown[source if source in shown else target] = found
    for client, vector in vectors.items():
        expect = vector["expect"]
        error = expect.get("error")
        if error == RECEIVERS_OWN:
            continue
        assert shown[client], f"{vector['id']} is not dissected"
        malformed, message, op, reply, key = (shown[client] + [""] * 5)[:5]
        if error == "UNKNOWN_OP":
            assert not malformed and "UNKNOWN_OP" in message, vector["id"]
        elif error is not None:
            assert malformed and message.startswith(error), (vector["id"], message)
        else:
            assert not malformed, (vector["id"], message)
            heads = (op + "," + reply).split(",")
            assert f"{expect['message']['op']:#04x}" in heads, vector["id"]
            assert key == expect["message"].get("key", ""), vector["id"]


def test_dissector_knows_every_name() -> None:
    text = DISSECTOR.read_text()
    for name in [*w.Op.__members__, *w.ReplyOp.__members__, *w.PushOp.__members__, *w.ErrorCode.__members__]:
        assert re.search(rf'"{name}"', text), name


def test_no_bytes_upset_it(tmp_path: Path) -> None:
    """Frames with bytes changed, cut and run together, in both directions: Lua never fails."""
    random = Random(2722)
    frames = [bytes.fromhex(v["hex"]) for f in vector_files().values() for v in f["vectors"] if 0 < len(v["hex"]) < 600]
    pcap = Pcap()
    for number in range(3000):
        data = bytearray(b"".join(random.choices(frames, k=random.randint(1, 4))))
        for _ in range(random.randint(0, 4)):
            data[random.randrange(len(data))] = random.choice([0, 1, 2, 0x10, 0x1F, 0x7F, 0x80, 0xFF, random.randrange(256)])
        if random.random() < 0.3:
            data = data[:random.randint(1, len(data))]
        client = (f"10.1.{number >> 8}.{number & 255}", 50000)
        pcap.add(client, w.DEFAULT_PORT, random.random() < 0.5, 0, bytes(data))
    path = pcap.write(tmp_path / "hostile.pcap")
    for options in ((), ("-2",), ("-o", "tcp.desegment_tcp_streams:FALSE")):
        assert len(rows(path, "frame.number", "_ws.col.Info", "_ws.expert.message", options=options)) == 3000
    assert "_ws.lua" not in tshark(path, "-V")
