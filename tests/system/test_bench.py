# SPDX-License-Identifier: MIT
"""crabcache-bench against real servers: exact counts, replies that are checked, the open loop's honesty, clear errors."""
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import BUILD, SANITIZED, TIMEOUT_S, Server

pytestmark = pytest.mark.once

BENCH = BUILD / "crabcache-bench"
PERCENTILES = ("p50", "p90", "p99", "p99_9", "p99_99", "max")
BRIEF = ("--warm-up", "50ms", "--duration", "200ms")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run crabcache-bench."""
    done = subprocess.run([str(BENCH), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=TIMEOUT_S * 5, check=False)
    assert "Sanitizer" not in done.stderr, done.stderr
    return done


def measured(*arguments: str) -> dict:
    """The result of a run in which nothing may go wrong."""
    done = bench("--json", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


# ---- the servers ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(port: int, *command: str) -> Iterator[subprocess.Popen]:
    """A program that listens on a port."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                assert child.poll() is None and time.monotonic() < deadline, command
                time.sleep(0.01)
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture(scope="module", params=["native", "resp", "memcached", "memcached-classic"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The flags that lead to a server of each kind, its pid among them."""
    kind, port = request.param, free_port()
    if kind == "native":
        server = Server("--memory", "256M", "--threads", "2")
        yield "--server", kind, "-p", str(server.port), "--pid", str(server.pid)
        server.stop()
        return
    if SANITIZED:
        pytest.skip("the release build has met it")
    program = {"resp": "redis-server"}.get(kind, "memcached")
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    command = {
        "redis-server": (program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                         "--dir", str(tmp_path_factory.mktemp("redis"))),
        "memcached": (program, "-l", "127.0.0.1", "-p", str(port), "-m", "256", "-t", "2",
                      *(("-u", "nobody") if os.geteuid() == 0 else ())),
    }[program]
    with running(port, *command) as child:
        yield "--server", kind, "-p", str(port), "--pid", str(child.pid)


# ---- the same load for all -----------------------------------------------------------------------------------------


@pytest.mark.threads
@pytest.mark.parametrize("shape", [
    "-c 1 -P 1 -n 2000", "-c 7 -t 3 -P 5 -n 20001", "-c 3 -P 300 -n 20000 --key-bytes 250",
    "-c 4 -t 2 -P 16 -n 4000 -d 0-20K", "-c 2 -P 8 -n 200 -d 300K,500K --keys 50", "-c 5 -P 64 -n 20000 --dist zipf:1.1",
    "-c 5 -P 16 -n 3000 --rate 20000", "-c 4 -t 2 -P 4 -n 3000 --rate 30000 --ratio 1:1",
])
def test_counts_are_exact(target: tuple[str, ...], shape: str) -> None:
    asked = shape.split()
    keys = () if "--keys" in asked else ("--keys", "3000")
    result = measured(*target, "--preload", "--warm-up", "20ms", *keys, *asked)
    requests = int(asked[asked.index("-n") + 1])
    assert result["requests"] == requests == result["gets"] + result["puts"]
    assert result["hits"] == result["gets"] and result["misses"] == 0
    assert result["stored"] == result["puts"]
    assert result["errors"] == result["wrong"] == 0
    latency = result["latency_us"]
    assert latency["all"]["count"] == requests
    assert (latency["get"]["count"], latency["put"]["count"]) == (result["gets"], result["puts"])
    share = 0.5 if "1:1" in asked else 0.1
    assert abs(result["puts"] / requests - share) < 5 * (share * (1 - share) / requests) ** 0.5
    assert result["bytes_received"] > 0 and result["bytes_sent"] > 0


def test_by_time_and_without_preload(target: tuple[str, ...]) -> None:
    """Keys of a length that no other test uses: nobody has put them."""
    before = measured(*target, *BRIEF, "--ratio", "1:0", "--key-bytes", "33", "--keys", "1000")
    assert before["misses"] == before["gets"] == before["requests"] > 0
    assert before["latency_us"]["put"]["count"] == 0 and before["latency_us"]["put"]["max"] == 0
    puts = measured(*target, *BRIEF, "--ratio", "0:1", "--key-bytes", "33", "--keys", "1000", "-P", "32")
    assert puts["stored"] == puts["puts"] == puts["requests"] > 0
    assert 0.19 < puts["seconds"] < 5


def test_a_value_of_another_length_is_wrong(target: tuple[str, ...]) -> None:
    keys = ("--keys", "100", "--key-bytes", "34")
    measured(*target, "--preload", "-n", "100", "--warm-up", "0", *keys)
    done = bench(*target, "-n", "100", "--warm-up", "0", "-d", "65", "--ratio", "1:0", *keys)
    assert done.returncode == 1
    assert re.search(r"100 wrong replies, the first one: a get of key \d+, whose value has 65 bytes, was answered by a "
                     r"value of 64 bytes", done.stderr), done.stderr


def test_json_says_everything(target: tuple[str, ...]) -> None:
    result = measured(*target, *BRIEF, "--keys", "500", "-d", "10-20", "--dist", "zipf:0.5", "-c", "3", "-P", "4",
                      "--ratio", "3:1", "--seed", "9", "--key-bytes", "35")
    asked = {"server": target[1], "address": "127.0.0.1", "port": int(target[3]), "connections": 3, "pipeline": 4,
             "threads": 1, "keys": 500, "key_bytes": 35, "value_bytes": "10-20", "zipf": 0.5, "ratio": [3, 1],
             "preload": False, "rate": None, "seed": 9}
    assert {name: result[name] for name in asked} == asked
    assert re.fullmatch(r"crabcache-bench \d+\.\d+\.\d+", result["program"])
    assert set(result) == set(asked) | {
        "program", "seconds", "requests", "requests_per_second", "gets", "hits", "misses", "puts", "stored", "errors",
        "wrong", "bytes_sent", "bytes_received", "latency_us", "cpu_ns_per_request"}
    assert result["requests_per_second"] == pytest.approx(result["requests"] / result["seconds"], rel=1e-4)
    for op in ("all", "get", "put"):
        latency = result["latency_us"][op]
        assert set(latency) == {"count", "mean", *PERCENTILES}
        values = [latency[name] for name in PERCENTILES]
        assert values == sorted(values) and 0 < values[0] and 0 < latency["mean"] <= latency["max"]
    for side in ("server", "client"):
        cpu = result["cpu_ns_per_request"][side]
        assert cpu["total"] == pytest.approx(cpu["user"] + cpu["system"], abs=0.2)
    assert result["cpu_ns_per_request"]["client"]["total"] > 0


def test_output_for_people(shared_server: Server) -> None:
    done = bench("-p", str(shared_server.port), *BRIEF, "--keys", "100", "--preload", "--progress", "--pid",
                 str(shared_server.pid))
    assert done.returncode == 0
    for line in ("requests ", "gets ", "puts ", "errors  .* 0, wrong replies 0", "traffic ", "CPU, server ",
                 "CPU, client ", "latency, us ", "  get ", "  put ", "  all "):
        assert re.search(f"^{line}", done.stdout, re.M), line
    assert "measurement: " in done.stderr


def test_unix_socket_and_every_key(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server("--memory", "64M", "--unix", str(tmp_path / "s"), "--bind", "127.0.0.1")
    measured("-s", str(tmp_path / "s"), "--preload", "--keys", "1234", "-n", "10", "-c", "3", "--warm-up", "0")
    with server.connect() as peer:
        assert int(peer.stats(b"store")["store.items"]) == 1234


def test_by_name(shared_server: Server) -> None:
    measured("-h", "localhost", "-p", str(shared_server.port), "-n", "10", "-c", "1", "--warm-up", "0")


# ---- the open loop -------------------------------------------------------------------------------------------------


def stalled(server: Server, *arguments: str) -> dict:
    """A run during which the server does nothing for 400 ms."""
    child = subprocess.Popen([str(BENCH), "--json", "-p", str(server.port), "-c", "4", "--keys", "1000", "--warm-up",
                              "100ms", "--duration", "1600ms", *arguments], stdout=subprocess.PIPE, text=True)
    time.sleep(0.6)
    server.signal(signal.SIGSTOP)
    time.sleep(0.4)
    server.signal(signal.SIGCONT)
    output, _ = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 0
    return json.loads(output)


def test_a_stall_is_charged_to_all_that_had_to_wait(start_server: Callable[..., Server]) -> None:
    """400 of 1600 ms: a fifth of all requests waits long. The closed loop sees only those that were on their way."""
    server = start_server("--memory", "64M", "--threads", "1")
    open_loop = stalled(server, "--rate", "2000")
    assert open_loop["rate"] == 2000
    assert 2000 <= open_loop["requests"] <= 3300
    assert open_loop["latency_us"]["all"]["p90"] > 100_000
    assert open_loop["latency_us"]["all"]["max"] > 300_000
    closed = stalled(server)
    assert closed["latency_us"]["all"]["max"] > 300_000
    assert closed["latency_us"]["all"]["p90"] < 100_000


# ---- when it goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, complaint", [
    ("--server http", "--server 'http': must be native, resp, memcached or memcached-classic"),
    ("-p 0", "--port '0': must be a number from 1 to 65535"),
    ("-p 65536", "--port '65536': must be a number from 1 to 65535"),
    ("-p x", "--port 'x': must be a number from 1 to 65535"),
    ("-c 0", "--connections '0': must be a number from 1 to 60000"),
    ("-c 60001", "--connections '60001': must be a number from 1 to 60000"),
    ("-P 0", "--pipeline '0': must be a number from 1 to 65536"),
    ("-P 65537", "--pipeline '65537': must be a number from 1 to 65536"),
    ("-t 65", "--threads '65': must be a number from 1 to 64"),
    ("-c 2 -t 3", "--threads 3: each needs a connection, and there are 2"),
    ("--keys 0", "--keys '0': must be a number from 1 to 999999999999"),
    ("--keys 1000000000000", "--keys '1000000000000': must be a number from 1 to 999999999999"),
    ("--key-bytes 11", "--key-bytes '11': must be a number from 12 to 250"),
    ("--key-bytes 251", "--key-bytes '251': must be a number from 12 to 250"),
    ("-d 5-3", "--value-bytes '5-3': must be a length, a range A-B, or up to 32 of them with weights"),
    ("-d 1025M", "--value-bytes '1025M': must be a length"),
    ("--server resp -d 513M", "at most 536870912 bytes"),
    ("--dist gauss", "--dist 'gauss': must be uniform or zipf:S"),
    ("--dist zipf:", "--dist 'zipf:': the S of zipf:S must be a number from 0 to 10"),
    ("--dist zipf:11", "the S of zipf:S must be a number from 0 to 10"),
    ("--dist zipf:nan", "the S of zipf:S must be a number from 0 to 10"),
    ("--ratio 1", "--ratio '1': must be GET:PUT, two weights from 0 to 1000000, not both 0"),
    ("--ratio 0:0", "must be GET:PUT"),
    ("--ratio 1:1000001", "must be GET:PUT"),
    ("-n 0", "--requests '0': must be a number from 1 to"),
    ("--duration 0s", "--duration '0s': must be a time from 1ms to 24 hours, with the unit ms, s or m"),
    ("--duration 5", "--duration '5': must be a time"),
    ("--duration 25h", "--duration '25h': must be a time"),
    ("--duration 1441m", "--duration '1441m': must be a time"),
    ("--warm-up -1s", "--warm-up '-1s': must be 0, or a time"),
    ("--timeout 0s", "--timeout '0s': must be a time"),
    ("--rate 0", "--rate '0': must be a number from 1 to 1000000000"),
    ("--seed -1", "--seed '-1': must be a number from 0"),
    ("-n 5 --duration 5s", "give --requests or --duration, not both"),
    ("--pid 0", "--pid '0': must be a number from 1 to 2147483647"),
    ("--pid 2147483647", "--pid '2147483647': there is no such process"),
    ("-s " + "x" * 108, "must be a path of 1 to 107 bytes"),
    ("extra", "'extra': there are only options"),
    ("--unknown", "unrecognized option '--unknown'"),
])
def test_bad_options_are_named(arguments: str, complaint: str) -> None:
    done = bench(*arguments.split())
    assert done.returncode == 2 and done.stdout == ""
    assert complaint in done.stderr and done.stderr.endswith("Try crabcache-bench --help\n")


def test_help_names_every_flag_and_so_does_the_manual() -> None:
    text = bench("--help").stdout
    manual = (Path(__file__).resolve().parents[2] / "docs/crabcache-bench.1").read_text().replace("\\-", "-")
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert len(flags) >= 24
    for flag in flags:
        assert flag in manual, flag
        assert "unrecognized option" not in bench(flag, *(() if flag in ("--help", "--version") else ("x",))).stderr
    assert bench("--version").stdout.startswith("crabcache-bench ")


def test_no_server() -> None:
    port = free_port()
    done = bench("-p", str(port))
    assert done.returncode == 3 and done.stdout == ""
    assert f"cannot connect to 127.0.0.1 port {port}: Connection refused" in done.stderr
    done = bench("-s", "/nonexistent/socket")
    assert done.returncode == 3 and "cannot connect to /nonexistent/socket: No such file" in done.stderr
    assert bench("-h", "no.such.host.invalid").returncode == 3


@contextmanager
def stranger(answer: bytes | None) -> Iterator[int]:
    """Something that accepts, and answers the first bytes with this; None: closes instead."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peers = []

        def serve() -> None:
            try:
                while True:
                    peer, _ = listener.accept()
                    peers.append(peer)
                    peer.recv(10)
                    if answer is None:
                        peer.shutdown(socket.SHUT_RDWR)
                    else:
                        peer.sendall(answer)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT_S)
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("kind, answer, complaint", [
    ("native", b"HTTP/1.1 400 Bad Request\r\n", "what came is no reply of a native server to what was asked"),
    ("resp", b"\x14\x05\0\0\0hello", "what came is no reply of a resp server to what was asked"),
    ("memcached", b"+OK\r\n", "what came is no reply of a memcached server to what was asked"),
    ("resp", b"$-1\r\n$-1\r\n", "what came is no reply of a resp server to what was asked"),
    ("native", b"", r"no reply for 0\.3 s with \d+ requests on their way"),
    ("native", b"\x14\x05\0\0\0hel", r"no reply for 0\.3 s with \d+ requests on their way"),
    ("native", None, "the server closed the connection"),
])
def test_strange_servers(kind: str, answer: bytes | None, complaint: str) -> None:
    with stranger(answer) as port:
        for phase in ("--preload", "--warm-up=20ms", "--rate=50"):
            if phase == "--preload" and b"$-1" in (answer or b""):
                continue  # one reply too many for a GET, but not for all that a preload sends
            done = bench("--server", kind, "-p", str(port), "-c", "1", "--timeout", "300ms", "--ratio", "1:0", phase)
            assert done.returncode == 3 and done.stdout == "", done
            assert re.search(complaint, done.stderr), done.stderr


def test_refusals_are_counted_and_quoted(start_server: Callable[..., Server]) -> None:
    server = start_server("--memory", "64M", "--max-value", "100")
    done = bench("-p", str(server.port), "-n", "100", "--warm-up", "0", "-d", "101", "--ratio", "0:1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"] == 100
    assert re.search(r"100 errors, the first one: \w+", done.stderr)


@pytest.mark.threads
def test_a_server_that_dies(start_server: Callable[..., Server]) -> None:
    server = start_server("--memory", "64M")
    child = subprocess.Popen([str(BENCH), "-p", str(server.port), "-t", "2", "--duration", "60s"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    server.process.kill()
    server.process.wait()
    output, errors = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 3 and output == ""
    assert re.search("closed the connection|reset by peer|Broken pipe", errors), errors


def test_more_connections_than_the_soft_limit(shared_server: Server) -> None:
    done = subprocess.run(["bash", "-c", f"ulimit -S -n 64; exec {BENCH} -p {shared_server.port} -c 200 -n 1000 --warm-up 0"],
                          capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr


# ---- the null server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value_bytes", ["0", "64", "16384", "16385", "1048576"])
def test_null_server(value_bytes: str) -> None:
    program = BUILD / "tests" / "bench" / "null_server"
    child = subprocess.Popen([str(program), "0", value_bytes], stdout=subprocess.PIPE, text=True)
    try:
        port = child.stdout.readline().rsplit(":", 1)[1].strip()
        load = ("-p", port, "-d", value_bytes, "-c", "5", "-P", "30", "-n", "500" if int(value_bytes) > 99999 else "20000",
                "--ratio", "1:1", "--warm-up", "20ms")
        result = measured(*load)
        assert result["hits"] == result["gets"] > 0 and result["stored"] == result["puts"] > 0
        assert bench(*load[:3], "1", *load[4:]).returncode == 1 or value_bytes == "1"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
