# SPDX-License-Identifier: MIT
"""Statistics: STATS and docs/STATS.md name the same numbers, /metrics is what Prometheus reads, /healthz tells the truth."""
from __future__ import annotations

import http.client
import re
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from conftest import ROOT, SANITIZED, TIMEOUT_S, Server, wait_until, wire

parser = pytest.importorskip("prometheus_client.parser", reason="python3-prometheus-client is not installed")

OPS = [op.name.lower() for op in wire.Op]
TIMES = ("timed", "p50_ns", "p99_ns", "p999_ns")


class Watched(Server):
    """A server with metrics, on a free port."""

    def __init__(self, *flags: str) -> None:
        super().__init__("--memory", "64M", "--threads", "2", "--metrics-port", "0", *flags)
        wait_until(lambda: "metrics are at" in self.log())
        address = re.search(r"http://(.*)/metrics", self.log())[1]
        self.http_host, port = address.rsplit(":", 1)
        self.http_port = int(port)

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection(self.http_host.strip("[]"), self.http_port, timeout=TIMEOUT_S)
        connection.request(method, path, body)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text, dict(reply.getheaders())

    def samples(self) -> dict[tuple[str, frozenset], float]:
        """What Prometheus' own parser makes of /metrics."""
        families = parser.text_string_to_metric_families(self.get("/metrics")[1])
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    server = Watched()
    yield server
    server.stop()
    assert server.process.returncode == 0


def documented() -> dict[str, tuple[str, str]]:
    """Kind and meaning of the names in docs/STATS.md."""
    rows = re.findall(r"^\| `([a-z]+\.\S+)` \| (counter|gauge) \| (.*) \|$", (ROOT / "docs" / "STATS.md").read_text(), re.M)
    assert len(rows) == len({name for name, _, _ in rows})
    return {name: (kind, meaning) for name, kind, meaning in rows}


# ---- STATS -----------------------------------------------------------------------------------------------------------


def test_stats_are_as_documented(watched: Watched) -> None:
    expected = {"server.version", "server.eviction", "ops.unknown"} | {f"ops.{op}" for op in OPS}
    for name in documented():
        if ".N_" in name:
            expected |= {name.replace("N", worker) for worker in "01"}
        elif ".OP_" in name:
            expected |= {name.replace("OP", op) for op in OPS}
        else:
            expected.add(name)
    with watched.connect() as peer:
        assert set(peer.stats()) == expected


def test_sections(watched: Watched) -> None:
    with watched.connect() as peer:
        whole = peer.stats()
        parts: dict[str, str] = {}
        for section in (b"server", b"connections", b"store", b"workers", b"ops"):
            part = peer.stats(section)
            assert part and all(name.startswith(section.decode() + ".") for name in part)
            parts |= part
        assert set(parts) == set(whole)
        for section in (b"serve", b"servers", b"latency", b"SERVER"):
            assert peer.call(wire.StatsRequest(key=section)).code == wire.ErrorCode.UNKNOWN_SECTION


def test_requests_are_timed(watched: Watched) -> None:
    """A sample of all requests, wherever they stand in a pipeline; the times are in order and sensible."""
    with watched.connect() as peer:
        before = peer.stats(b"ops")
        for _ in range(160):
            peer.call(*[wire.PutRequest(key=b"k", value=bytes(100)), *[wire.GetRequest(key=b"k")] * 63])
        after = peer.stats(b"ops")
    assert int(after["ops.get"]) - int(before["ops.get"]) == 160 * 63
    assert 10 < int(after["ops.get_timed"]) - int(before["ops.get_timed"]) < 100
    times = [int(after[f"ops.get_{name}"]) for name in TIMES[1:]]
    assert times == sorted(times) and 64 <= times[0] < (10_000_000 if SANITIZED else 100_000)


def test_most_workers_fit(start_server) -> None:
    server = start_server("--memory", "256M", "--threads", "64")
    with server.connect() as peer:
        stats = peer.stats()
        assert stats["workers.63_wakeups"].isdigit() and stats["ops.decr_p999_ns"] == "0"


# ---- /metrics --------------------------------------------------------------------------------------------------------


def test_metrics_are_as_documented(watched: Watched) -> None:
    """The same names, kinds and sentences as in docs/STATS.md."""
    status, text, headers = watched.get("/metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    expected = {"crabcache_server_info", "crabcache_ops_requests", "crabcache_ops_timed_seconds"}
    for name, (kind, meaning) in documented().items():
        if ".OP_" in name or name == "workers.count":
            continue
        metric = "crabcache_" + name.replace("workers.N", "worker").replace(".", "_")
        expected.add(metric)
        assert (families[metric].type, families[metric].documentation) == (kind, meaning), name
    assert set(families) == expected
    assert families["crabcache_ops_timed_seconds"].type == "histogram"


def test_metrics_have_the_numbers_of_stats(watched: Watched) -> None:
    with watched.connect() as peer:
        assert isinstance(peer.call(wire.PutRequest(key=b"m", value=b"v")), wire.OkReply)
        wait_until(lambda: peer.stats(b"connections")["connections.current"] == "1")  # those of other tests are gone
        stats, samples = peer.stats(), watched.samples()
    for name in ("store_items", "server_memory_bytes", "connections_current", "server_max_value_bytes"):
        assert samples[f"crabcache_{name}", frozenset()] == int(stats[name.replace("_", ".", 1)])
    assert samples["crabcache_ops_requests_total", frozenset({("op", "put")})] == int(stats["ops.put"])
    for worker in "01":
        assert samples["crabcache_worker_requests_total", frozenset({("worker", worker)})] == int(
            stats[f"workers.{worker}_requests"])
    info = frozenset({("version", stats["server.version"]), ("eviction", "evict")})
    assert samples["crabcache_server_info", info] == 1


def test_histograms_are_whole(watched: Watched) -> None:
    """For each op the buckets grow, and the last one is the count."""
    with watched.connect() as peer:
        peer.call(*[wire.PingRequest()] * 3000)
    samples = watched.samples()
    for op in OPS:
        buckets = sorted((float(dict(labels)["le"]), value) for (name, labels), value in samples.items()
                         if name == "crabcache_ops_timed_seconds_bucket" and ("op", op) in labels)
        counts = [count for _, count in buckets]
        assert len(buckets) == 13 and counts == sorted(counts) and buckets[0][0] == 2.56e-07 and buckets[-1][0] == float("inf")
        assert counts[-1] == samples["crabcache_ops_timed_seconds_count", frozenset({("op", op)})]
    assert samples["crabcache_ops_timed_seconds_sum", frozenset({("op", "ping")})] > 0


# ---- HTTP ------------------------------------------------------------------------------------------------------------


def test_health(watched: Watched) -> None:
    assert watched.get("/healthz")[:2] == (200, "ok\n")
    assert watched.get("/healthz", "HEAD")[:2] == (200, "")


def test_other_requests(watched: Watched) -> None:
    assert watched.get("/")[0] == 404 and watched.get("/metrics/")[0] == 404 and watched.get("/healthz?x=1")[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, _, headers = watched.get("/metrics", method, bytes(100_000) if method == "POST" else None)
        assert status == 405 and headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("junk", [b"\0" * 1000, b"GET", b"GET / HTTP/9.9\r\n\r\n", b"x" * 100_000, b"GET /" + b"a" * 50_000,
                                  b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
                                  b"POST /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                                  b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
                         ids=("zeros", "cut", "version", "line", "path", "fields", "length", "chunk"))
def test_junk(watched: Watched, junk: bytes) -> None:
    with socket.create_connection((watched.http_host, watched.http_port), TIMEOUT_S) as raw:
        try:
            raw.sendall(junk)
            raw.settimeout(0.3)
            while raw.recv(65536):
                pass
        except OSError:  # it was closed, or more is waited for
            pass
    assert watched.get("/healthz")[0] == 200


def test_watchers_disturb_nobody(watched: Watched) -> None:
    """More idle watchers than there is room for: they shut each other out, and no client of the cache."""
    idle = [socket.create_connection((watched.http_host, watched.http_port), TIMEOUT_S) for _ in range(40)]
    with watched.connect() as peer:
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
    for raw in idle:
        raw.close()

    def answers() -> bool:
        try:
            return watched.get("/healthz")[0] == 200
        except (ConnectionError, http.client.HTTPException):
            return False

    wait_until(answers)


def test_health_at_the_stop() -> None:
    """Who balances load sees that the server stops, while it still answers what it has received."""
    server = Watched("--threads", "1")
    try:
        with server.connect(receive_buffer=4096) as peer:
            peer.call(wire.PutRequest(key=b"k", value=bytes(1_000_000)))
            peer.send(*[wire.GetRequest(key=b"k")] * 40)
            time.sleep(0.1)
            server.signal()
            status = 200
            while status == 200:
                status = server.get("/healthz")[0]
            assert status == 503
            server.signal(signal.SIGHUP)
            while peer.receive() is not None:
                pass
        assert server.wait() == 0
    finally:
        server.stop()


def test_metrics_port_in_use(watched: Watched) -> None:
    with pytest.raises(RuntimeError, match=f"--metrics-port: cannot listen on 127.0.0.1:{watched.http_port}"):
        Server("--memory", "16M", "--metrics-port", str(watched.http_port))


def test_no_metrics_by_default(start_server) -> None:
    server = start_server("--memory", "16M")
    assert "metrics" not in server.errors()


def test_metrics_elsewhere() -> None:
    server = Watched("--metrics-bind", "127.0.0.2")
    assert server.http_host == "127.0.0.2" and server.get("/healthz")[0] == 200
    server.stop()
