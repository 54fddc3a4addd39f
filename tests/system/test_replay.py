# SPDX-License-Identifier: MIT
"""crabcache-replay against a real server: exact numbers of hits, every value verified, and mistakes that are named."""
from __future__ import annotations

import json
import lzma
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import BUILD, ROOT, SANITIZED, TIMEOUT_S, Peer, Server, wire

REPLAY = BUILD / "crabcache-replay"
TRACES = Path(os.environ.get("CRABCACHE_TRACES", ROOT.parent / "shared" / "traces"))
KNOWN = {"webcdn": (66_987, 36_815), "cloudphysics": (113_872, 48_974)}


def replay(server: Server | None, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run crabcache-replay."""
    port = ("--port", str(server.port)) if server is not None else ()
    done = subprocess.run([str(REPLAY), *port, *arguments], input=stdin, capture_output=True, timeout=TIMEOUT_S * 15,
                          check=False)
    assert b"Sanitizer" not in done.stderr, done.stderr.decode()
    return done


def result(server: Server, *arguments: str, stdin: bytes = b"") -> dict[str, float]:
    """The numbers of a replay that must succeed."""
    done = replay(server, "--json", *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b""), done
    return json.loads(done.stdout)


def check_exact(numbers: dict[str, float], requests: int, keys: int) -> None:
    """With room for everything each key misses once, and everything that came back was right."""
    assert numbers["requests"] == requests and numbers["keys"] == keys
    assert numbers["misses"] == numbers["puts"] == keys
    assert numbers["hits"] == requests - keys
    for name in ("earlier_hits", "failed_gets", "failed_puts", "wrong_values", "refused_out_of_memory", "refused_busy",
                 "refused_value_too_large"):
        assert numbers[name] == 0, name


@pytest.mark.threads
@pytest.mark.parametrize("server_threads", ["1", "3"])
def test_zipf_is_exact_at_any_depth_and_with_any_threads(start_server, server_threads: str) -> None:  # type: ignore[no-untyped-def]
    server = start_server("--memory", "256M", "--threads", server_threads)
    stream = ("--zipf", "0.9", "--keys", "5000", "--requests", "20000", "--seed", "11", "--value-bytes", "0-3000")
    keys = None
    for depth, threads in ((1, 1), (7, 1), (64, 1), (1000, 1), (65536, 1), (1, 4), (64, 3), (5000, 2)):
        with server.connect() as peer:
            assert isinstance(peer.call(wire.FlushRequest()), wire.OkReply)
        numbers = result(server, *stream, "--depth", str(depth), "--threads", str(threads))
        keys = keys or numbers["keys"]
        check_exact(numbers, 20_000, keys)


def test_one_key_in_a_deep_pipeline_misses_once(shared_server: Server, peer: Peer) -> None:
    """The worst case for a pipeline: every request is for the same key, whose put is on its way."""
    trace = b"key,value_bytes\n" + b"same,5\n" * 5000
    numbers = result(shared_server, "--depth", "1024", "-", stdin=trace)
    check_exact(numbers, 5000, 1)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_real_traces_are_exact(start_server, name: str) -> None:  # type: ignore[no-untyped-def]
    path = TRACES / f"{name}.csv.xz"
    if not path.exists():
        pytest.skip(f"no trace {path.name} in $CRABCACHE_TRACES; the Zipf streams take its place")
    if SANITIZED and name == "cloudphysics":
        pytest.skip("2 GB of values: with the release build only")
    server = start_server("--memory", "4G")
    for depth, threads in ((16, 1), (256, 2)) if not SANITIZED else ((64, 2),):
        with server.connect() as peer:
            assert isinstance(peer.call(wire.FlushRequest()), wire.OkReply)
        check_exact(result(server, "--depth", str(depth), "--threads", str(threads), str(path)), *KNOWN[name])


def test_forms_of_traces(shared_server: Server, peer: Peer, tmp_path: Path) -> None:
    lines = b"".join(b"key-%d,%d\n" % (i % 100, i % 7) for i in range(1000))
    plain = tmp_path / "plain.csv"
    plain.write_bytes(b"key,value_bytes\n" + lines)
    packed = tmp_path / "packed.csv.xz"
    packed.write_bytes(lzma.compress(lines))
    for number, (path, stdin) in enumerate(((plain, b""), (packed, b""), ("-", lines), ("-", packed.read_bytes()))):
        numbers = result(shared_server, "--prefix", f"run {number}:", str(path), stdin=stdin)
        check_exact(numbers, 1000, 100)
    again = result(shared_server, "--prefix", "run 0:", str(plain))
    assert again["hits"] == again["earlier_hits"] == 1000, "what an earlier run left is verified, too"
    assert result(shared_server, "--limit", "10", "--prefix", "x", str(plain))["requests"] == 10
    check_exact(result(shared_server, "--check-tags", "--prefix", "tags:", str(plain)), 1000, 100)


def test_wrong_bytes_and_lengths_are_found(shared_server: Server, peer: Peer, tmp_path: Path) -> None:
    """The checker must be able to fail: somebody else overwrites a value."""
    trace = tmp_path / "trace.csv"
    trace.write_bytes(b"a,100\nb,100\n")
    result(shared_server, str(trace))
    value = bytearray(peer.call(wire.GetRequest(key=b"a")).value)
    assert len(value) == 100
    value[57] ^= 4
    peer.call(wire.PutRequest(key=b"a", value=bytes(value)))
    done = replay(shared_server, "--json", str(trace))
    assert done.returncode == 1 and json.loads(done.stdout)["wrong_values"] == 1
    assert b"key 'a': the 100 bytes are not those that were put" in done.stderr
    right = peer.call(wire.GetRequest(key=b"b")).value
    peer.call(wire.PutRequest(key=b"a", value=right))
    assert replay(shared_server, str(trace)).returncode == 1, "another key's value"


@pytest.mark.parametrize("eviction", ["evict", "none"])
def test_a_small_memory_gives_misses_but_never_a_wrong_value(start_server, eviction: str) -> None:  # type: ignore[no-untyped-def]
    server = start_server("--memory", "16M", "--eviction", eviction, "--threads", "2")
    numbers = result(server, "--zipf", "0.8", "--keys", "20000", "--requests", "40000", "--value-bytes", "100-4000",
                     "--threads", "2", "--depth", "32")
    assert numbers["hits"] + numbers["misses"] == 40_000 and numbers["wrong_values"] == 0
    assert 0 < numbers["hits"] < 40_000 - numbers["keys"]
    assert (numbers["refused_out_of_memory"] > 0) == (eviction == "none")
    assert numbers["failed_gets"] == numbers["failed_puts"] == 0


def test_values_over_the_limit_are_counted(start_server) -> None:  # type: ignore[no-untyped-def]
    server = start_server("--memory", "64M", "--max-value", "1000")
    numbers = result(server, "-", stdin=b"a,1000\na,1000\nb,1001\nb,1001\nc,5000000\n")
    assert numbers["refused_value_too_large"] == 3 and numbers["hits"] == 1 and numbers["puts"] == 1


@pytest.mark.parametrize(("trace", "complaint"), [
    (b"key,value_bytes\na,1\nb;2\n", b"standard input:3: 'b;2' is not of the form key,value_bytes"),
    (b"a,1\n,1\n", b"standard input:2: the key is empty"),
    (b"a,x\n", b"standard input:1: value_bytes is 'x', not a number from 0 to 4294967295"),
    (lzma.compress(b"a,1\n" * 1000)[:-8], b"standard input:1001: the xz file is cut off"),
], ids=["no comma", "no key", "no number", "cut off"])
def test_bad_traces_name_the_line(shared_server: Server, trace: bytes, complaint: bytes) -> None:
    done = replay(shared_server, "-", stdin=trace)
    assert done.returncode == 2 and complaint in done.stderr, done


@pytest.mark.parametrize(("arguments", "words"), [
    ((), ["one TRACE, or --zipf"]),
    (("a", "b"), ["one TRACE"]),
    (("--zipf", "1", "trace"), ["no TRACE"]),
    (("--depth", "0", "t"), ["--depth", "'0'", "1 to 65536"]),
    (("--depth", "65537", "t"), ["--depth", "'65537'"]),
    (("--threads", "257", "t"), ["--threads", "1 to 256"]),
    (("--limit", "-1", "t"), ["--limit", "'-1'"]),
    (("--port", "65536", "t"), ["--port", "1 to 65535"]),
    (("--timeout", "5", "t"), ["--timeout", "'5'", "ms, s or m"]),
    (("--zipf", "x"), ["--zipf", "'x'", "0 to 10"]),
    (("--zipf", "nan"), ["--zipf", "'nan'"]),
    (("--zipf", "1", "--keys", "0"), ["--keys", "'0'"]),
    (("--zipf", "1", "--value-bytes", "9-1"), ["--value-bytes", "'9-1'", "A <= B"]),
    (("--prefix", "x" * 257, "t"), ["--prefix", "256"]),
    (("/no/such/trace",), ["/no/such/trace", "No such file"]),
], ids=lambda value: " ".join(value)[:30])
def test_mistakes_are_named(arguments: tuple[str, ...], words: list[str]) -> None:
    done = replay(None, *arguments)
    assert done.returncode == 2
    assert all(word in done.stderr.decode() for word in words), done.stderr


def test_help_and_version() -> None:
    assert replay(None, "--version").stdout.startswith(b"crabcache-replay 0.")
    assert b"Exit status" in replay(None, "--help").stdout


def test_no_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = replay(None, "--port", str(unused.getsockname()[1]), "--zipf", "1", "--requests", "10")
    assert done.returncode == 3 and b"refused" in done.stderr


def test_a_server_that_dies_in_the_middle(start_server) -> None:  # type: ignore[no-untyped-def]
    """Not a hang, not a success: the connection broke, and that is what is said."""
    server = start_server("--memory", "64M")
    timer = threading.Timer(0.7, server.process.kill)
    timer.start()
    done = replay(server, "--zipf", "1", "--requests", "1000000000", "--threads", "3", "--depth", "8")
    timer.join()
    assert done.returncode == 3 and (b"closed" in done.stderr or b"reset" in done.stderr), done


def test_progress_and_report(shared_server: Server, peer: Peer) -> None:
    done = replay(shared_server, "--progress", "--zipf", "1", "--keys", "10", "--requests", "1000")
    assert b"1000 requests, hit ratio 0.99" in done.stderr
    names = [line[:22].strip() for line in done.stdout.decode().splitlines()]
    for name in ("requests", "different keys", "hits", "misses", "hit ratio", "operations", "bytes verified",
                 "latency p50", "latency p90", "latency p99", "latency p99.9", "latency max"):
        assert name in names
