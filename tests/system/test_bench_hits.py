# SPDX-License-Identifier: MIT
"""The comparison of hit ratios: its replay counts exactly, its memory limits converge, and the whole runs once, tiny."""
from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT, wire

sys.path.insert(0, str(ROOT / "tests" / "bench" / "hit_ratio"))
import run_hits  # noqa: E402
from servers import MIB, CrabCache, Memcached, Redis, Run, Stream, start, stop  # noqa: E402

pytestmark = pytest.mark.once

BUILD = ROOT / "build" / "release"
DRIVER = ROOT / "tests" / "bench" / "hit_ratio" / "run_hits.py"
PROTOCOLS = ("native", "resp", "memcached")


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    targets = [f"build/release/{name}" for name in ("crabcache-server", "hit-ratio-replay", "fast_clock.so")]
    done = subprocess.run(["make", "--no-print-directory", "MODE=release", *targets], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": ""})
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the replay, against a server of a few lines -----------------------------------------------------------------------


class Fake:
    """Speaks one of the three protocols, has room for the last `room` keys put, and answers in pieces of `piece` bytes."""

    def __init__(self, protocol: str, room: int = 1 << 30, piece: int = 1 << 30, spoil: bytes | None = None,
                 refuse: bool = False) -> None:
        self.protocol, self.room, self.piece, self.spoil, self.refuse = protocol, room, piece, spoil, refuse
        self.items: dict[bytes, bytes] = {}
        self.log: list[tuple[str, bytes]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def get(self, key: bytes) -> bytes:
        value = self.items.get(key)
        self.log.append(("hit" if value is not None else "miss", key))
        if value is not None and self.spoil is not None:
            value = self.spoil
        if self.protocol == "native":
            return b"\x12" if value is None else b"\x14" + len(value).to_bytes(4, "little") + value
        if self.protocol == "resp":
            return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)
        return b"EN\r\n" if value is None else b"VA %d\r\n%s\r\n" % (len(value), value)

    def put(self, key: bytes, value: bytes) -> bytes:
        self.log.append(("put", key))
        if self.refuse:
            refusal = wire.encode_reply(wire.ErrorReply(code=0x0101, text=b"the item does not fit into the memory limit now"))
            return {"native": refusal, "resp": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
                    "memcached": b"SERVER_ERROR out of memory storing object\r\n"}[self.protocol]
        self.items[key] = value
        while len(self.items) > self.room:
            del self.items[next(iter(self.items))]
        return {"native": b"\x10", "resp": b"+OK\r\n", "memcached": b"HD\r\n"}[self.protocol]

    def answer(self, stream) -> bytes | None:  # type: ignore[no-untyped-def]
        """The answer to the next request; None at the end."""
        if self.protocol == "native":
            head = stream.read(8)
            if not head:
                return None
            body = stream.read(int.from_bytes(head[4:], "little"))
            klen = int.from_bytes(head[2:4], "little")
            return self.put(body[:klen], body[klen:]) if head[0] == 2 else self.get(body[:klen])
        words = stream.readline().split()
        if not words:
            return None
        if self.protocol == "memcached":
            if words[0] == b"mg":
                assert words[2:] == [b"v"]
                return self.get(words[1])
            assert words[0] == b"ms"
            value = stream.read(int(words[2]) + 2)
            return self.put(words[1], value[:-2])
        parts = []
        for _ in range(int(words[0][1:])):
            parts.append(stream.read(int(stream.readline()[1:]) + 2)[:-2])
        return self.get(parts[1]) if parts[0] == b"GET" else self.put(parts[1], parts[2])

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream:
            try:
                while (answer := self.answer(stream)) is not None:
                    for first in range(0, len(answer), self.piece):
                        connection.sendall(answer[first:first + self.piece])
            except ConnectionError:  # the replay has seen enough
                return


@contextmanager
def fake(protocol: str, **options: object) -> Iterator[Fake]:
    server = Fake(protocol, **options)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    with server.listener:
        yield server
        thread.join(10)
    assert not thread.is_alive()


def replay(server: Fake | None, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    target = ("--server", server.protocol, "--port", str(server.port)) if server is not None else ()
    return subprocess.run([str(BUILD / "hit-ratio-replay"), *target, *arguments], input=stdin, capture_output=True,
                          text=True, timeout=60)


def counted(done: subprocess.CompletedProcess[str]) -> dict:
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


SMALL = ("--zipf", "0.9", "--keys", "300", "--requests", "3000", "--seed", "7", "--value-bytes", "0-200")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_with_room_for_all_each_key_misses_once(protocol: str, piece: int) -> None:
    """Whatever pieces the answers come in."""
    known = counted(replay(None, *SMALL))
    with fake(protocol, piece=piece) as server:
        numbers = counted(replay(server, *SMALL))
    assert numbers["misses"] == numbers["keys"] == known["keys"] == len(server.items)
    assert numbers["requests"] == 3000 and numbers["refused"] == 0
    assert numbers["footprint"] == sum(16 + len(value) for value in server.items.values()) == known["footprint"]
    assert all(len(key) == 16 for key in server.items)


def test_every_server_gets_the_same_requests_in_the_same_order() -> None:
    logs = []
    for protocol in PROTOCOLS:
        with fake(protocol, room=100) as server:
            counted(replay(server, *SMALL, "--batch", "32"))
        logs.append(server.log)
    assert logs[0] == logs[1] == logs[2] and len(logs[0]) > 3000


@pytest.mark.parametrize("batch", ["1", "7", "64", "1024"])
def test_each_miss_is_followed_by_one_put(batch: str) -> None:
    with fake("resp", room=50) as server:
        numbers = counted(replay(server, *SMALL, "--batch", batch))
    waiting: set[bytes] = set()
    for kind, key in server.log:
        if kind == "miss":
            waiting.add(key)
        elif kind == "put":
            assert key in waiting, "a put without a miss before it"
            waiting.discard(key)
    assert not waiting, "a miss without a put after it"
    kinds = [kind for kind, _ in server.log]
    assert kinds.count("put") == numbers["misses"]
    assert numbers["requests"] == 3000 == numbers["misses"] + kinds.count("hit")


def test_one_by_one_the_misses_are_those_of_the_policy() -> None:
    """The fake server drops its oldest key; so does the model here."""
    with fake("memcached", room=50) as server:
        numbers = counted(replay(server, *SMALL, "--batch", "1"))
    requests = [key for kind, key in server.log if kind != "put"]
    model: dict[bytes, None] = {}
    misses = 0
    for key in requests:
        if key not in model:
            misses += 1
            model[key] = None
            if len(model) > 50:
                del model[next(iter(model))]
    assert (len(requests), misses) == (3000, numbers["misses"])


def test_one_key_in_one_flight_misses_once() -> None:
    with fake("memcached") as server:
        assert counted(replay(server, "-", stdin="same,5\n" * 200))["misses"] == 1
    assert [kind for kind, _ in server.log].count("put") == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_long_values_and_scale(protocol: str) -> None:
    trace = "".join(f"key{i % 5},{1000 * (i % 5)}\n" for i in range(40))
    with fake(protocol) as server:
        numbers = counted(replay(server, "--scale", "500", "-", stdin=trace))
    assert sorted(len(value) for value in server.items.values()) == [0, 500_000, 1_000_000, 1_500_000, 2_000_000]
    assert (numbers["misses"], numbers["longest"], numbers["footprint"]) == (5, 2_000_000, 5_000_080)


def test_copies_are_further_keys() -> None:
    once = counted(replay(None, *SMALL))
    with fake("native") as server:
        numbers = counted(replay(server, *SMALL, "--copies", "3"))
    assert numbers == numbers | {"requests": 9000, "keys": 3 * once["keys"], "misses": 3 * once["keys"],
                                 "footprint": 3 * once["footprint"]}
    assert len(server.items) == 3 * once["keys"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refused_puts_are_counted(protocol: str) -> None:
    with fake(protocol, refuse=True) as server:
        numbers = counted(replay(server, *SMALL))
    assert numbers["misses"] == numbers["refused"] == 3000


@pytest.mark.parametrize("protocol, answer", [("resp", b"-ERR no\r\n"), ("memcached", b"ERROR\r\n"), ("native", b"\x12"),
                                              ("native", b"\x13\4\0\0\0\3\2no"), ("resp", b"$1\r\nx\r\n")])
def test_a_put_that_fails_otherwise_stops_the_replay(protocol: str, answer: bytes) -> None:
    with fake(protocol) as server:
        server.put = lambda key, value: answer  # type: ignore[method-assign]
        done = replay(server, "-", stdin="a,1\n")
    assert done.returncode == 1 and "answered something unexpected" in done.stderr, done


@pytest.mark.parametrize("protocol, answer", [("resp", b"$1\r\nxyz"), ("memcached", b"VA 1\r\nxyz")])
def test_a_value_that_does_not_end_stops_the_replay(protocol: str, answer: bytes) -> None:
    with fake(protocol) as server:
        server.get = lambda key: answer if server.items else Fake.get(server, key)  # type: ignore[method-assign]
        done = replay(server, "--batch", "1", "-", stdin="a,1\na,1\n")
    assert done.returncode == 1 and "returned a wrong value of 1 bytes" in done.stderr, done


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("spoil", [b"", b"x", b"x" * 90])
def test_a_wrong_value_stops_the_replay(protocol: str, spoil: bytes) -> None:
    trace = "a,80\nb,80\n" * 100
    with fake(protocol, spoil=spoil) as server:
        done = replay(server, "-", stdin=trace)
    assert done.returncode == 1 and f"{protocol} returned a wrong value of {len(spoil)} bytes" in done.stderr


UNEXPECTED = [
    ("native", b"\x00"), ("native", b"\x10"), ("native", b"\x14\xff\xff\xff\xff"), ("native", b"\x7e\1\0\0\0x"),
    ("resp", b"-ERR no\r\n"), ("resp", b"$12x\r\n"), ("resp", b"+OK\r\n"), ("resp", b"\n"),
    ("resp", b"$4294967295\r\n"), ("resp", b"$99999999999\r\n"), ("resp", b"$-2\r\n"), ("resp", b"$\r\n"),
    ("resp", b"x" * 5000), ("memcached", b"ERROR\r\n"), ("memcached", b"VA -3\r\n"),
    ("memcached", b"STORED\r\n"), ("memcached", b"VA 1\n"), ("memcached", b"x" * 5000)]


@pytest.mark.parametrize("protocol, answer", UNEXPECTED)
def test_an_unexpected_answer_stops_the_replay(protocol: str, answer: bytes) -> None:
    with fake(protocol) as server:
        server.get = lambda key: answer  # type: ignore[method-assign]
        done = replay(server, "-", stdin="a,1\n")
    assert done.returncode == 1 and "answered something unexpected" in done.stderr, done


def test_a_server_that_hangs_up_is_named() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
    done = subprocess.run([str(BUILD / "hit-ratio-replay"), "--server", "resp", "--port",
                           str(listener.getsockname()[1]), "-"], input="a,1\n", capture_output=True, text=True, timeout=30)
    listener.close()
    assert done.returncode == 1 and ("closed the connection" in done.stderr or "reset" in done.stderr)


@pytest.mark.parametrize("arguments", [
    (), ("--server", "resp", "-"), ("--port", "1", "-"), ("--server", "mongo", "--port", "1", "-"), ("--batch", "0", "-"),
    ("--batch", "1025", "-"), ("--scale", "0", "-"), ("--scale", "1025", "-"), ("--limit", "0", "-"), ("--copies", "0", "-"),
    ("--copies", "257", "-"), ("--zipf", "x"),
    ("--zipf", "11"), ("--zipf", "1", "-"), ("--zipf", "1", "--value-bytes", "5-4"), ("--zipf", "1", "--keys", "0"),
    ("--nonsense",), ("/nonexistent/trace",)])
def test_bad_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    done = replay(None, *arguments)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_a_broken_trace_is_refused() -> None:
    done = replay(None, "-", stdin="a,1\nb\n")
    assert done.returncode == 1 and "2:" in done.stderr


# ---- the same memory --------------------------------------------------------------------------------------------------------


class Model(Redis):
    """A server whose resident memory follows from its limit by a formula."""

    def __init__(self, formula, step: int = 1) -> None:  # type: ignore[no-untyped-def]
        super().__init__(BUILD, "lru", 1)
        self.formula, self.step = formula, step


STREAM = Stream("model", (), requests=1000, keys=100, footprint=1 << 40)


@pytest.fixture
def modelled(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Replays are not run but computed: more memory, fewer misses."""
    runs: list[Run] = []

    def replay(peer: Model, stream: Stream, limit: int, with_files: bool) -> Run:
        rss = int(peer.formula(limit, len(runs)))
        runs.append(Run(peer.name, limit, rss, rss, 0, 10_000_000_000 // limit, 0, 0.0))
        return runs[-1]

    monkeypatch.setattr(run_hits, "replay", replay)
    return runs


@pytest.mark.parametrize("formula", [lambda limit, _: limit, lambda limit, _: 1.3 * limit + 9 * MIB,
                                     lambda limit, _: 0.7 * limit + 20 * MIB, lambda limit, _: 2 * limit])
@pytest.mark.parametrize("target", [40 * MIB, 64 * MIB + 1, 3000 * MIB])
def test_limits_converge(modelled: list[Run], formula, target: int) -> None:  # type: ignore[no-untyped-def]
    run = run_hits.calibrated(Model(formula), STREAM, target, target)
    assert target <= run.rss <= target * 1.02 and run is modelled[-1]


@pytest.mark.parametrize("step", [MIB, 4 * MIB])
def test_limits_that_are_coarse_end_above_the_target(modelled: list[Run], step: int) -> None:
    run = run_hits.calibrated(Model(lambda limit, _: limit + 5 * MIB, step), STREAM, 41 * MIB + 12345, 20 * MIB)
    assert 41 * MIB + 12345 <= run.rss <= 41 * MIB + 12345 + step and run.limit % step == 0


def test_noisy_memory_counts_in_favour_of_the_others(modelled: list[Run]) -> None:
    """Fragmentation that jumps: never more than six runs, and of those that are allowed the one with fewest misses."""
    target = 100 * MIB
    run = run_hits.calibrated(Model(lambda limit, n: limit * (1.25 if n % 2 else 0.8)), STREAM, target, target)
    assert len(modelled) <= run_hits.MAX_RUNS
    above = [other for other in modelled if other.rss >= target]
    allowed = [other for other in modelled if other.rss <= target * 1.02]
    assert run.misses == min(other.misses for other in [*allowed, *sorted(above, key=lambda o: o.rss)[:1]])


def test_a_server_that_holds_everything_needs_no_more(modelled: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_hits, "replay", lambda peer, stream, limit, _: modelled.append(
        Run(peer.name, limit, 30 * MIB, 30 * MIB, 0, 100, 0, 0.0)) or modelled[-1])
    assert run_hits.calibrated(Model(None), STREAM, 100 * MIB, 90 * MIB).misses == 100
    assert len(modelled) == 1


def test_a_server_that_takes_much_more_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def replay(peer, stream: Stream, limit: int, with_files: bool) -> Run:  # type: ignore[no-untyped-def]
        size, misses = {"crabcache": (20, 300), "memcached": (40, 200), "redis-lru": (21, 400)}[peer.name]
        return Run(peer.name, limit, size * MIB, size * MIB, 0, misses, 0, 0.0)

    monkeypatch.setattr(run_hits, "replay", replay)
    peers = [Redis(BUILD, "lru", 1), Memcached(BUILD)]
    result = run_hits.measure_cell(CrabCache(BUILD), peers, STREAM, 10, run_hits.Calibration(False))
    assert (result["best"], result["ratio"]) == ("memcached", 1.5)
    rows = run_hits.table([result], ["crabcache", "redis-lru", "memcached"])
    assert rows[-1] == ("| model | 10 % | 30.00 % | 20.0 | 40.00 % | 21.0 | 20.00 % | 40.0 (more) | memcached | "
                        "+50.0 % | +100.0 % |")


def test_an_earlier_measurement_saves_replays(modelled: list[Run]) -> None:
    peer = Model(lambda limit, _: 1.5 * limit + 9 * MIB)
    target = 100 * MIB
    first = run_hits.Calibration(False).run(peer, STREAM, 10.0, target)
    replays = len(modelled)
    earlier = {"stream": "model", "percent": 10.0, "servers": {peer.name: {"limit": first.limit, "rss": first.rss}}}
    calibration = run_hits.Calibration(False, (earlier,))
    assert calibration.guess(peer, STREAM, 10.0, target) == first.limit
    assert calibration.run(peer, STREAM, 10.0, target) == first and len(modelled) == replays + 1
    assert calibration.guess(peer, STREAM, 20.0, 2 * target) != first.limit


def cell(stream: str, ratio: float) -> dict:
    return {"stream": stream, "percent": 10.0, "ratio": ratio}


def test_the_verdict_says_where_we_lose() -> None:
    lines, summary = run_hits.verdict([cell("a", 0.8), cell("b", 0.9), cell(run_hits.ZIPF_NAME, 3.0)])
    assert summary["reached"] and math.isclose(summary["mean"], math.sqrt(0.72)) and lines[-1] == "Verdict: reached."
    lines, summary = run_hits.verdict([cell("a", 0.5), cell("b", 1.0)])
    assert not summary["reached"] and summary["lost"] == ["b at 10 %"] and "b at 10 %" in lines[1]
    assert not run_hits.verdict([cell("a", 0.95), cell("b", 0.93)])[1]["reached"]
    assert run_hits.verdict([cell(run_hits.ZIPF_NAME, 0.7)])[1]["reached"]


def test_memcached_gets_limits_that_it_takes() -> None:
    command = Memcached(BUILD).command(1, 21 * MIB, 8_000_000)
    assert command[command.index("-m") + 1] == "21" and command[command.index("-I") + 1] == "8m"
    command = Memcached(BUILD).command(1, 10 * MIB, 8_000_000)
    assert command[command.index("-I") + 1] == "5m"


# ---- the whole ------------------------------------------------------------------------------------------------------------


TINY = "--zipf 0.8 --keys 15000 --requests 60000 --seed 3 --value-bytes 2000-6000"


def drive(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(DRIVER), *arguments], capture_output=True, text=True, timeout=120,
                          **more)  # type: ignore[call-overload]


def test_the_whole_on_a_tiny_stream(tmp_path: Path) -> None:
    """With whatever other servers are installed."""
    done = drive("--zipf", TINY, "--sizes", "50", "--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md"))
    assert done.returncode == 0, done.stderr
    assert "No traces: only the synthetic stream" in done.stderr
    assert (tmp_path / "out.md").read_text() == done.stdout
    result = json.loads((tmp_path / "out.json").read_text())
    (only,) = result["cells"]
    installed = [peer.name for peer in (Redis(BUILD, "lru", 1), Redis(BUILD, "lfu", 1), Memcached(BUILD)) if peer.executable()]
    assert list(only["servers"]) == ["crabcache", *installed]
    assert only["requests"] == 60_000
    for name, run in only["servers"].items():
        assert only["keys"] < run["misses"] < only["requests"], name
        assert run["rss"] <= run["peak"]
        if name != "crabcache":
            assert only["target_rss"] * 0.8 < run["rss"] < only["target_rss"] * 1.2
    own = only["servers"]["crabcache"]
    assert own["limit"] == only["footprint"] // 2 and own["peak"] == only["target_rss"] <= own["limit"] * 1.05 + 4 * MIB
    if installed:
        assert math.isclose(only["ratio"], own["misses"] / min(only["servers"][name]["misses"] for name in installed))
        assert re.search(r"^Verdict: (not )?reached\.$", done.stdout, re.M)
    else:
        assert "No other server to compare with" in done.stdout


def test_missing_servers_are_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("".join(f"{i % 50},1000\n" for i in range(400)))
    done = drive("--traces", str(tmp_path), "--only", "t", "--sizes", "100", env={"PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "memcached is not installed" in done.stderr and "redis-server is not installed" in done.stderr
    assert "| t | 100 % | 12.50 % |" in done.stdout and "No other server to compare with" in done.stdout


@pytest.mark.parametrize("arguments, said", [
    (("--sizes", "ten"), "--sizes"), (("--sizes", "0"), "--sizes"), (("--only", "nothing"), "no such stream: nothing"),
    (("--traces", "/nonexistent"), "no traces"), (("--build", "/nonexistent"), "not built")])
def test_mistakes_are_named(arguments: tuple[str, ...], said: str) -> None:
    done = drive(*arguments)
    assert done.returncode != 0 and said in done.stderr


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")
def test_the_fast_clock_is_fast(tmp_path: Path) -> None:
    child, port = start(Redis(BUILD, "lru", 300), 8 * MIB, 1, str(tmp_path))
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as connection, connection.makefile("rb") as stream:
            def seconds() -> int:
                connection.sendall(b"*1\r\n$4\r\nTIME\r\n")
                return int([stream.readline() for _ in range(5)][2])

            before, first, after = time.monotonic(), seconds(), time.monotonic()
            time.sleep(0.3)
            least = time.monotonic() - after
            fast = seconds() - first
            most = time.monotonic() - before
        assert 300 * least - 2 <= fast <= 300 * most + 2
    finally:
        stop(child)


def test_ours_is_found_where_it_was_built(tmp_path: Path) -> None:
    assert CrabCache(BUILD).executable() == str(BUILD / "crabcache-server")
    assert CrabCache(tmp_path).executable() is None
