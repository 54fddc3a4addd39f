# SPDX-License-Identifier: MIT
"""System calls that fail: interrupted, short, out of resources. No answer may differ, and no connection be lost."""
from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable

import pytest
from conftest import ROOT, SANITIZED, Server, wire

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's runtime must be loaded first")


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that makes system calls fail."""
    library = tmp_path_factory.mktemp("faults") / "preload.so"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-Wall", "-Werror", "-shared", "-fPIC", "-O1", "-o", str(library),
                    str(ROOT / "tests" / "system" / "faults" / "preload.c"), "-ldl"], check=True)
    return str(library)


def converse(server: Server, seed: int, rounds: int) -> None:
    """Pipelines with keys of this client's own, so that every answer is known."""
    rng = random.Random(seed)
    known: dict[bytes, bytes] = {}
    with server.connect() as peer:
        for _ in range(rounds):
            requests: list[object] = []
            wanted: list[bytes | None] = []
            for _ in range(rng.randrange(1, 30)):
                key = b"%d-%d" % (seed, rng.randrange(10))
                if rng.random() < 0.5:
                    known[key] = rng.randbytes(rng.choice((0, 10, 300, 5000, 20_000)))
                    requests.append(wire.PutRequest(key=key, value=known[key]))
                    wanted.append(None)
                else:
                    requests.append(wire.GetRequest(key=key))
                    wanted.append(known.get(key))
            sender = threading.Thread(target=peer.send, args=requests)
            sender.start()
            for request, value in zip(requests, wanted, strict=True):
                reply = peer.receive()
                if isinstance(request, wire.PutRequest):
                    assert isinstance(reply, wire.OkReply)
                elif value is None:
                    assert isinstance(reply, wire.NullReply)
                else:
                    assert reply.value == value
            sender.join()


@pytest.mark.parametrize("percent, most", [(30, 0), (0, 1000), (20, 333), (60, 5000)])
def test_interrupted_and_short_calls(start_server: Callable[..., Server], preload: str, percent: int, most: int) -> None:
    server = start_server("--memory", "64M", "--threads", "2",
                          env={"LD_PRELOAD": preload, "FAULT_PERCENT": str(percent), "FAULT_BYTES": str(most)})
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            converse(server, seed, 15)
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    with server.connect() as peer:
        assert int(peer.stats(b"connections")["connections.output_stalls"]) > 0, "no call failed: the test tests nothing"
    server.signal()
    assert server.wait() == 0


def test_one_byte_per_call(start_server: Callable[..., Server], preload: str) -> None:
    """Every receive and every send moves a single byte."""
    server = start_server("--memory", "64M", "--threads", "1", env={"LD_PRELOAD": preload, "FAULT_BYTES": "1"})
    with server.connect() as peer:
        value = bytes(range(256)) * 4
        replies = peer.call(wire.PutRequest(key=b"k", value=value, flags=wire.Flag.TAG, tag=5), wire.GetRequest(key=b"k"),
                            wire.StatsRequest(key=b"server"), wire.PingRequest())
        assert replies[0].tag == 5 and replies[1].value == value
        assert isinstance(replies[2], wire.StatsReply) and isinstance(replies[3], wire.PongReply)


def test_accept_fails_now_and_then(start_server: Callable[..., Server], preload: str) -> None:
    server = start_server("--memory", "64M", "--threads", "2",
                          env={"LD_PRELOAD": preload, "FAULT_PERCENT": "40", "FAULT_ACCEPT": "1"})
    for _ in range(30):
        with server.connect() as peer:
            assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
    assert "accepting pauses" in server.errors()
