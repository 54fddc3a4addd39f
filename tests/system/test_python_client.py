# SPDX-License-Identifier: MIT
"""The Python client against a real server: every operation, pipelines, threads, forks, signals, servers that die."""
from __future__ import annotations

import array
import ctypes
import doctest
import gc
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import pytest
from conftest import crypt
from hypothesis import HealthCheck, given, settings, strategies

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

import crabcache  # noqa: E402
import crabcache.client  # noqa: E402
import crabcache.pipeline  # noqa: E402
from crabcache import Client, InvalidArgument, Outcome, PipelineFull, PutResult, errors  # noqa: E402

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def client(shared_server: Any) -> Iterator[Client]:
    with Client(port=shared_server.port, timeout=20) as connected:
        connected.flush()
        yield connected


# ---- reading and writing


def test_put_and_get(client: Client) -> None:
    assert client.get("key") is None
    assert client.get("key", b"default") == b"default"
    result = client.put("key", b"value")
    assert result and result.stored and result.outcome is Outcome.STORED and result.version
    assert client.get("key") == b"value"
    assert client.put("key", b"").stored
    assert client.get("key", b"default") == b""


@pytest.mark.parametrize("key", [b"\0", EVERY_BYTE, b"x" * 65_535, "schlüssel", "\0", "鍵", b"\r\n", bytearray(b"ab\0c"),
                                 memoryview(b"abc")[1:]], ids=lambda key: f"{type(key).__name__}-{len(key)}")
def test_keys(client: Client, key: Any) -> None:
    client.put(key, b"1")
    same = key.encode() if isinstance(key, str) else bytes(key)
    assert client.get(same) == b"1"
    assert client.get(same[:-1] + b"?") is None
    assert client.get_with_meta(key).value == b"1"
    assert client.delete(key) and client.get(key) is None


VALUES = {
    "bytes": (EVERY_BYTE, EVERY_BYTE),
    "empty": (b"", b""),
    "str": ("größe\0", "größe\0".encode()),
    "bytearray": (bytearray(EVERY_BYTE), EVERY_BYTE),
    "empty bytearray": (bytearray(), b""),
    "memoryview": (memoryview(EVERY_BYTE)[3:9], EVERY_BYTE[3:9]),
    "writable memoryview": (memoryview(bytearray(EVERY_BYTE))[3:9], EVERY_BYTE[3:9]),
    "every second byte": (memoryview(bytearray(EVERY_BYTE))[::2], EVERY_BYTE[::2]),
    "array": (array.array("I", [1, 2, 3]), array.array("I", [1, 2, 3]).tobytes()),
    "ctypes": ((ctypes.c_uint16 * 3)(1, 2, 3), bytes((ctypes.c_uint16 * 3)(1, 2, 3))),
    "matrix": (memoryview(bytearray(12)).cast("B", (3, 4)), bytes(12)),
    "large bytearray": (bytearray(EVERY_BYTE * 5000), EVERY_BYTE * 5000),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(client: Client, name: str) -> None:
    value, expected = VALUES[name]
    client.put("key", value)
    assert client.get("key") == expected
    with client.pipeline() as pipeline:
        pipeline.put("other", value)
    assert client.get("other") == expected


def test_mapped_file_as_value(client: Client) -> None:
    with mmap.mmap(-1, 8192) as mapped:
        mapped[:5] = b"hello"
        client.put("key", mapped)
    assert client.get("key") == b"hello" + bytes(8187)


def test_buffer_is_held_while_it_is_sent() -> None:
    value = bytearray(b"before")
    request = crabcache._requests.put("key", value)
    with pytest.raises(BufferError):
        value += b"more"
    request._finish()
    value += b"more"


def test_pipeline_copies_what_may_change(client: Client) -> None:
    value = bytearray(b"before")
    with client.pipeline() as pipeline:
        pipeline.put("key", value)
        value[:] = b"after"
        value += b"more"  # and nothing holds the buffer
    assert client.get("key") == b"before"


@pytest.mark.parametrize("size", [32 * 1024 - 1, 32 * 1024, 1 << 20, None], ids=lambda size: str(size or "longest"))
def test_large_values(client: Client, size: Optional[int]) -> None:
    size = size or client.server_info.max_value
    value = random.Random(size).randbytes(size)
    client.put("key", value)
    assert client.get("key") == value
    assert client.get_with_meta("key").value == value


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=strategies.binary(min_size=1, max_size=300), value=strategies.binary(max_size=2000),
       flags=strategies.integers(0, 2**32 - 1), ttl=strategies.none() | strategies.floats(1000, 10**9))
def test_what_is_put_is_got(client: Client, key: bytes, value: bytes, flags: int, ttl: Optional[float]) -> None:
    stored = client.put(key, value, ttl, flags=flags)
    item = client.get_with_meta(key)
    assert item is not None
    assert (item.value, item.version, item.flags) == (value, stored.version, flags)
    assert item.ttl is None if ttl is None else 0 < ttl - item.ttl + 0.002 < 30
    assert client.get(key) == value


def test_value_over_the_servers_limit(client: Client) -> None:
    with pytest.raises(errors.ValueTooLargeError):
        client.put("key", bytes(client.server_info.max_value + 1))
    assert client.get("key") is None
    client.put("key", b"still in step")
    assert client.get("key") == b"still in step"


def test_conditions(client: Client) -> None:
    absent = PutResult(Outcome.ABSENT)
    assert client.put("key", b"1", only_if_present=True) == absent
    assert client.put("key", b"1", version=77) == absent
    first = client.put("key", b"1", only_if_absent=True)
    assert first.stored
    assert client.put("key", b"2", only_if_absent=True) == (Outcome.EXISTS, first.version)
    assert client.put("key", b"2", version=first.version + 1) == (Outcome.EXISTS, first.version)
    assert client.get("key") == b"1"
    second = client.put("key", b"2", version=first.version)
    assert second.stored and second.version != first.version
    assert not client.put("key", b"3", version=first.version)
    assert client.put("key", b"3", only_if_present=True)
    assert client.get("key") == b"3"


def test_meta(client: Client) -> None:
    assert client.get_with_meta("key") is None
    assert client.get_with_meta("key", "nothing") == "nothing"
    stored = client.put("key", b"1", flags=0xFFFFFFFF)
    item = client.get_with_meta("key")
    assert item == (b"1", stored.version, None, 0xFFFFFFFF)
    item = client.get_with_meta("key", ttl=100)
    assert item is not None and item.version == stored.version
    item = client.get_with_meta("key")
    assert item is not None and item.ttl is not None and 90 < item.ttl <= 100
    client.get_with_meta("key", ttl=None)
    item = client.get_with_meta("key")
    assert item is not None and item.ttl is None


def test_delete(client: Client) -> None:
    assert client.delete("key") is False
    client.put("key", b"1")
    assert client.delete("key") is True
    assert client.get("key") is None


def test_counting(client: Client) -> None:
    assert client.incr("n") is None
    assert client.decr("n", initial=-5) == -5
    assert client.incr("n") == -4
    assert client.incr("n", 10) == 6
    assert client.incr("n", -6) == 0
    assert client.decr("n", -3) == 3
    assert client.decr("n", 4) == -1
    assert client.get("n") == b"-1"
    client.put("n", str(2**63 - 1))
    with pytest.raises(errors.OverflowError):
        client.incr("n")
    assert client.decr("n", 2**64 - 1) == -(2**63)
    client.put("n", b"12 monkeys")
    with pytest.raises(errors.NotANumberError):
        client.incr("n")


def test_counter_that_expires(client: Client) -> None:
    assert client.incr("n", initial=1, ttl=100) == 1
    item = client.get_with_meta("n")
    assert item is not None and item.ttl is not None and 90 < item.ttl <= 100


# ---- time to live


def test_items_expire(client: Client) -> None:
    client.put("short", b"1", ttl=1.5)
    client.put("delta", b"1", timedelta(milliseconds=1500))
    client.put("long", b"1", ttl=60)
    client.put("never", b"1")
    client.put("touched", b"1", ttl=1.5)
    assert client.touch("touched", 60) and client.expire("never", 1.5)
    assert client.touch("nothing", 1) is False
    keys = ["short", "delta", "long", "never", "touched"]
    assert sorted(client.get_many(keys)) == sorted(keys)
    time.sleep(1.55)
    assert client.get_many(keys) == {"long": b"1", "touched": b"1"}


def test_get_and_touch(client: Client) -> None:
    assert client.get_and_touch("key", 5) is None and client.get_and_touch("key", 5, b"?") == b"?"
    client.put("key", b"1", ttl=60)
    assert client.get_and_touch("key", 0.2) == b"1"
    time.sleep(0.25)
    assert client.get("key") is None
    client.put("key", b"1", ttl=2)
    assert client.get_and_touch("key", None) == b"1"
    time.sleep(2.05)
    assert client.get("key") == b"1"


@pytest.mark.parametrize("ttl, milliseconds", [
    (1, 1000), (0.001, 1), (0.0001, 1), (1.5, 1500), (0.29, 290), (1.0014, 1001), (timedelta(seconds=2), 2000),
    (timedelta(microseconds=1), 1), (timedelta(days=3), 259_200_000), ((2**53 - 1) // 1000, (2**53 - 1) // 1000 * 1000),
])
def test_ttl_in_milliseconds(ttl: Any, milliseconds: int) -> None:
    assert crabcache._requests.ttl_ms(ttl) == milliseconds


@pytest.mark.parametrize("ttl", [0, 0.0, -1, -0.5, float("nan"), float("inf"), timedelta(0), timedelta(seconds=-1), 2**53])
def test_ttl_out_of_range(client: Client, ttl: Any) -> None:
    for call in (lambda: client.put("key", b"", ttl), lambda: client.touch("key", ttl), lambda: client.get_and_touch("key", ttl),
                 lambda: client.get_with_meta("key", ttl=ttl), lambda: client.incr("key", initial=0, ttl=ttl)):
        with pytest.raises(InvalidArgument, match="time to live"):
            call()


# ---- bad arguments


@pytest.mark.parametrize("kind, call", [
    (InvalidArgument, lambda client: client.get("")),
    (InvalidArgument, lambda client: client.get(b"x" * 65_536)),
    (TypeError, lambda client: client.get(5)),
    (TypeError, lambda client: client.get(None)),
    (TypeError, lambda client: client.put("key", 5)),
    (TypeError, lambda client: client.put("key", None)),
    (TypeError, lambda client: client.put("key", b"", ttl="1")),
    (TypeError, lambda client: client.put("key", b"", ttl=True)),
    (InvalidArgument, lambda client: client.put("key", b"", flags=-1)),
    (InvalidArgument, lambda client: client.put("key", b"", flags=2**32)),
    (InvalidArgument, lambda client: client.put("key", b"", version=0)),
    (InvalidArgument, lambda client: client.put("key", b"", version=2**64)),
    (InvalidArgument, lambda client: client.put("key", b"", version=1, only_if_absent=True)),
    (InvalidArgument, lambda client: client.put("key", b"", only_if_present=True, only_if_absent=True)),
    (InvalidArgument, lambda client: client.incr("key", 2**64)),
    (TypeError, lambda client: client.incr("key", 1.5)),
    (InvalidArgument, lambda client: client.incr("key", initial=2**63)),
    (InvalidArgument, lambda client: client.incr("key", ttl=5)),
    (InvalidArgument, lambda client: client.stats("")),
    (InvalidArgument, lambda client: client.stats("x" * 65)),
    (InvalidArgument, lambda client: client.stats("store\0")),
    (InvalidArgument, lambda client: client.auth("", "secret")),
    (InvalidArgument, lambda client: client.auth("user", b"x" * 1025)),
    (TypeError, lambda client: client.auth("user", 5)),
    (InvalidArgument, lambda client: client.pipeline(max_requests=0)),
    (InvalidArgument, lambda client: Client(port=0)),
    (InvalidArgument, lambda client: Client(port=65_536)),
    (InvalidArgument, lambda client: Client("")),
    (InvalidArgument, lambda client: Client("local\0host")),
    (InvalidArgument, lambda client: Client(timeout=0)),
    (InvalidArgument, lambda client: Client(timeout=float("inf"))),
    (TypeError, lambda client: Client(timeout="5")),
    (InvalidArgument, lambda client: Client(client_name="x" * 256)),
    (InvalidArgument, lambda client: Client(max_in_flight=-1)),
])
def test_bad_arguments(client: Client, kind: type[Exception], call: Any) -> None:
    connection = client._connection
    with pytest.raises(kind):
        call(client)
    assert client.get("key") is None
    assert client._connection is connection, "nothing was sent, so the connection goes on"


def test_invalid_argument_is_a_value_error() -> None:
    assert issubclass(InvalidArgument, ValueError)


# ---- the server


def test_ping_and_info(client: Client, shared_server: Any) -> None:
    assert client.ping() is True
    info = client.server_info
    assert info.name.startswith("crabcache-server ") and info.version == 1
    assert info.max_key == 65_535 and info.max_value > 0 and info.max_in_flight > 0
    assert repr(client) == f"<crabcache.Client 127.0.0.1:{shared_server.port}>"


def test_stats(client: Client) -> None:
    client.put("key", b"1")
    every = client.stats()
    assert {name.split(".")[0] for name in every} >= {"server", "connections", "store", "workers", "ops"}
    store = client.stats("store")
    assert store and all(name.startswith("store.") for name in store)
    assert store["store.items"] == 1
    with pytest.raises(errors.UnknownSectionError):
        client.stats("nonsense")


def test_stats_text() -> None:
    text = "a.x:5\na.y:-7\na.z:1.50\nb.name:crab:cache 0.1\nb.empty:\nno colon\nb.v:0.1.0\n"
    assert crabcache._requests.parse_stats(text) == {
        "a.x": 5, "a.y": -7, "a.z": 1.5, "b.name": "crab:cache 0.1", "b.empty": "", "b.v": "0.1.0"}


def test_flush(client: Client) -> None:
    client.put_many({f"key{i}": b"1" for i in range(100)})
    assert client.flush() is None
    assert client.get_many([f"key{i}" for i in range(100)]) == {}


def test_memory_is_full(start_server: Any) -> None:
    with Client(port=start_server("--memory", "8M", "--eviction", "none").port, timeout=20) as client:
        with pytest.raises(errors.OutOfMemoryError) as caught:
            for number in range(1000):
                client.put(f"key{number}", bytes(100_000))
        assert isinstance(caught.value, crabcache.RetryError) and caught.value.code == 0x0101
        assert client.get("key0") == bytes(100_000)
        with pytest.raises(errors.OutOfMemoryError):
            client.put_many((f"other{number}", bytes(100_000)) for number in range(100))


def test_users(start_server: Any, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"ada:{crypt('engine')}\nbob:{crypt('')}\n")
    users.chmod(0o600)
    port = start_server("--memory", "64M", "--auth-file", str(users)).port
    with Client(port=port, timeout=20) as client:
        assert client.ping()
        with pytest.raises(errors.AuthRequiredError):
            client.get("key")
        with pytest.raises(errors.AuthFailedError):
            client.auth("ada", "wrong")
        client.auth("ada", "engine")
        client.put("key", b"1")
        client._drop()  # what a failure does
        assert client.get("key") == b"1", "the next connection authenticates by itself"
    with Client(port=port, user="ada", secret=b"engine") as client:
        assert client.get("key") == b"1"
        assert "engine" not in repr(client._settings)
    with Client(port=port, user="bob") as client:
        assert client.get("key") == b"1"
    with pytest.raises(errors.AuthFailedError):
        Client(port=port, user="ada", secret="motor")


# ---- many at once


def test_get_many_and_put_many(client: Client) -> None:
    client.put_many({"a": b"1", "b": "2"}, ttl=100, flags=3)
    client.put_many([(b"c", b"3"), ("d", bytearray(b"4"))])
    assert client.get_many(["a", "x", "b", "c", "d", "a"]) == {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}
    assert client.get_many([b"c"]) == {b"c": b"3"}
    item = client.get_with_meta("a")
    assert item is not None and item.flags == 3 and item.ttl is not None
    assert client.get_many([]) == {} and client.put_many({}) is None


def test_every_operation_in_a_pipeline(client: Client) -> None:
    with client.pipeline() as p:
        futures = [p.ping(), p.put("a", b"1"), p.put("a", b"2", want_version=True, flags=9), p.get("a"), p.get("x"),
                   p.get("x", 0), p.put("a", b"3", only_if_absent=True), p.put("x", b"", only_if_present=True),
                   p.get_and_touch("a", 100), p.get_with_meta("a"), p.get_with_meta("x", "none"), p.touch("a", None),
                   p.touch("x", 1), p.incr("n", initial=5), p.decr("n", 2), p.incr("x"), p.incr("a", 2**63), p.delete("a"),
                   p.delete("a"), p.stats("ops"), p.flush(), p.get("n")]
        assert len(p) == len(futures) and not futures[0].done()
        with pytest.raises(crabcache.NotExecuted):
            futures[3].result()
        with pytest.raises(crabcache.NotExecuted):
            futures[3].exception()
    assert all(future.done() for future in futures)
    overflow = futures.pop(16)
    assert isinstance(overflow.exception(), errors.OverflowError)
    with pytest.raises(errors.OverflowError):
        overflow.result()
    results = [future.result() for future in futures]
    version, meta, stats = results[2].version, results[9], results[18]
    assert version and meta.version == version and meta.flags == 9 and 90 < meta.ttl <= 100
    assert stats and all(name.startswith("ops.") for name in stats)
    assert results == [
        True, (Outcome.STORED, None), (Outcome.STORED, version), b"2", None, 0, (Outcome.EXISTS, version),
        (Outcome.ABSENT, None), b"2", meta, "none", True, False, 5, 3, None, True, False, stats, True, None]
    assert repr(futures[3]) == "<Future get: b'2'>" and "OVERFLOW" in repr(overflow)


def test_ten_thousand_requests(client: Client) -> None:
    with client.pipeline() as p:
        puts = [p.put(f"key{i}", str(i)) for i in range(10_000)]
        gets = [p.get(f"key{i}") for i in range(10_000)]
        bad = [p.incr(f"key{i}", 2**64 - 1) for i in range(10_000)]
    assert all(future.result().stored for future in puts)
    assert [future.result() for future in gets] == [str(i).encode() for i in range(10_000)]
    assert all(isinstance(future.exception(), errors.OverflowError) for future in bad)


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_pipeline_longer_than_may_be_in_flight(shared_server: Any, client: Client, limit: int) -> None:
    with Client(port=shared_server.port, timeout=20, max_in_flight=limit, check_tags=True) as limited, limited.pipeline() as p:
        futures = [(p.put(f"key{i}", bytes([i % 256]) * i), p.get(f"key{i}")) for i in range(1000)]
    for number, (_, value) in enumerate(futures):
        assert value.result() == bytes([number % 256]) * number


def test_both_directions_full(client: Client) -> None:
    """Requests and answers of many megabytes, more than all buffers between hold, must not wait for each other."""
    value = random.Random(5).randbytes(100_000)
    client.put("key", value)
    for _ in range(3):
        with client.pipeline() as p:
            gets = [p.get("key") for _ in range(200)]
            both = [(p.put("other", value), p.get("key")) for _ in range(200)]
        assert all(future.result() == value for future in gets)
        assert all(put.result() and get.result() == value for put, get in both)


def test_a_bad_request_fails_alone(client: Client) -> None:
    limit = client.server_info.max_value
    with client.pipeline() as p:
        before, bad, after = p.put("a", b"1"), p.put("b", bytes(limit + 1)), p.get("a")
    assert before.result() and after.result() == b"1"
    assert isinstance(bad.exception(), errors.ValueTooLargeError)


def test_pipeline_is_bounded(client: Client) -> None:
    p = client.pipeline(max_requests=3)
    for _ in range(3):
        p.get("a")
    with pytest.raises(PipelineFull, match="3 requests"):
        p.get("a")
    assert len(p.execute()) == 3 and len(p) == 0 and p
    p = client.pipeline(max_bytes=100)
    p.put("a", bytes(1000))  # one always fits
    with pytest.raises(PipelineFull, match="bytes"):
        p.get("a")
    assert [future.result() for future in p.execute()] == [(Outcome.STORED, None)]
    assert p.execute() == []


def test_pipeline_whose_block_fails_sends_nothing(client: Client) -> None:
    with pytest.raises(KeyError):
        with client.pipeline() as p:
            future = p.put("a", b"1")
            raise KeyError
    assert not future.done() and client.get("a") is None and len(p) == 0


# ---- life


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closing(shared_server: Any) -> None:
    with Client(port=shared_server.port) as client:
        assert client.ping()
    client.close()
    assert repr(client).endswith("closed>")
    for call in (client.ping, lambda: client.get_many(["a"]), lambda: client.server_info):
        with pytest.raises(crabcache.ConnectionBroken, match="closed"):
            call()


def test_no_descriptor_is_left(shared_server: Any) -> None:
    gc.collect()
    before = descriptors()
    for number in range(20):
        client = Client(port=shared_server.port)
        client.ping()
        if number % 2:
            client.close()
    del client
    gc.collect()
    assert descriptors() == before


@pytest.mark.threads
def test_threads_share_a_client(client: Client) -> None:
    wrong: list[object] = []

    def work(name: int) -> None:
        try:
            for turn in range(100):
                value = f"{name}-{turn}".encode()
                client.put(f"thread{name}", value)
                if client.get(f"thread{name}") != value:
                    wrong.append(value)
                with client.pipeline() as p:
                    futures = [(p.put(f"{name}-{i}", value + b"%d" % i), p.get(f"{name}-{i}")) for i in range(5)]
                wrong.extend(i for i, (_, get) in enumerate(futures) if get.result() != value + b"%d" % i)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.threads
def test_compare_and_set_loses_nothing(shared_server: Any, client: Client) -> None:
    client.put("n", b"0")
    failures: list[Exception] = []

    def add() -> None:
        try:
            with Client(port=shared_server.port, timeout=20) as mine:
                for _ in range(50):
                    while True:
                        item = mine.get_with_meta("n")
                        assert item is not None
                        if mine.put("n", b"%d" % (int(item.value) + 1), version=item.version):
                            break
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and client.get("n") == b"200"


# ---- forks


def in_child(action: Any) -> str:
    """What an action prints in a child process; the child ends without unwinding the tests."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(action())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


def test_fork(shared_server: Any, client: Client) -> None:
    client.put("key", b"parent")
    for call in (lambda: client.get("key"), lambda: client.put("key", b"child"), lambda: client.get_many(["key"])):
        assert in_child(call).startswith("ForkedError: this client belongs to the parent process")
        assert client.get("key") == b"parent"

    def new_one() -> Optional[bytes]:
        client.close()
        with Client(port=shared_server.port) as mine:
            return mine.get("key")

    connection = client._connection
    assert in_child(new_one) == "b'parent'"
    assert client.get("key") == b"parent" and client._connection is connection


def test_fork_while_a_call_is_under_way(shared_server: Any, client: Client) -> None:
    """The lock and the connection are in the middle of something in the child: it must neither hang nor use them."""
    client.put("key", bytes(1_000_000))
    stop = threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        try:
            while not stop.is_set():
                assert client.get("key") == bytes(1_000_000)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def child() -> object:
        client.close()
        with Client(port=shared_server.port) as mine:
            return mine.ping()

    for _ in range(10):
        assert in_child(child) == "True"
        time.sleep(0.005)
    stop.set()
    thread.join()
    assert failures == []


def test_close_in_a_child_leaves_the_parent_alone(client: Client) -> None:
    """A child that closes while the parent is between calls, or in the middle of one, touches nothing of the parent."""
    client.put_many({f"key{i}": bytes([i]) * 50_000 for i in range(100)})
    connection = client._connection
    assert connection is not None
    descriptor = connection._library.crab_conn_fd(connection._pointer)

    def close() -> str:
        closed: list[object] = []

        class Watched:
            def __getattr__(self, name: str) -> object:
                if name == "crab_conn_close":
                    closed.append(name)
                return getattr(crabcache._connection.the_library(), name)

        vars(connection)["_library"] = Watched()
        client.close()
        connection.close()
        connection.__del__()
        try:
            open_still = os.fstat(descriptor) is not None
        except OSError:
            open_still = False
        return f"closed {len(closed)} times, {'open' if open_still else 'not open'}"

    assert in_child(close) == "closed 1 times, not open", "an idle one is the child's copy, whole: its memory is freed"
    assert client.get_many([f"key{i}" for i in range(100)]) == {f"key{i}": bytes([i]) * 50_000 for i in range(100)}

    # In the middle of a call: the child's copy may be half changed, so the library must not be let at it.
    inside: list[str] = []
    take = crabcache._connection._Run.take

    def take_and_fork(run: Any, until: int) -> None:
        take(run, until // 2)
        inside.append(in_child(close))
        take(run, until)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crabcache._connection._Run, "take", take_and_fork)
        got = client.get_many([f"key{i}" for i in range(100)])
    assert got == {f"key{i}": bytes([i]) * 50_000 for i in range(100)}
    assert inside and set(inside) == {"closed 0 times, open"}
    assert client._connection is connection, "no reconnecting behind our back"
    assert connection._library.crab_conn_fd(connection._pointer) == descriptor
    client.put("key", b"parent")
    assert client.get("key") == b"parent"


# ---- signals


class Interruption(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


@pytest.mark.parametrize("many", [False, True], ids=["one by one", "pipelined"])
def test_interrupted_anywhere_never_out_of_step(client: Client, many: bool) -> None:
    """Interrupt calls at random moments; every answer that comes is the answer to its own question."""
    client.put_many({f"key{i}": f"value{i}" for i in range(300)})
    rng = random.Random(11)
    armed = False

    def interrupt(_number: int, _frame: Optional[FrameType]) -> None:
        nonlocal armed
        if armed:
            armed = False  # once
            raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    interruptions = answers = 0
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                armed = True  # a signal before this is ignored, and so it comes again
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00002, 0.004), 0.001)
                while armed:
                    first = rng.randrange(200)
                    if many:
                        keys = [f"key{i}" for i in range(first, first + 100)]
                        assert client.get_many(keys) == {key: key.replace("key", "value").encode() for key in keys}
                    else:
                        assert client.get(f"key{first}") == f"value{first}".encode()
                    answers += 1
            except Interruption:
                interruptions += 1
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interruptions > 50 and answers > 50
    assert client.get("key7") == b"value7"


# ---- servers that go


def test_server_stops_and_comes_back(start_server: Any) -> None:
    first = start_server("--memory", "64M")
    with Client(port=first.port, timeout=20) as client:
        client.put("key", b"1")
        first.signal(signal.SIGTERM)
        first.wait()
        with pytest.raises((crabcache.ConnectionClosed, crabcache.ConnectionBroken)):
            client.put("key", b"2")
        with pytest.raises(crabcache.ConnectionRefused, match=f"127.0.0.1 port {first.port}") as caught:
            client.get("key")
        assert isinstance(caught.value, crabcache.RetryError)
        with pytest.raises(crabcache.ConnectionRefused):
            Client(port=first.port)
        start_server("--memory", "64M", "--port", str(first.port))
        assert client.get("key") is None
        assert client.put("key", b"3")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_server_ends_in_the_middle_of_a_pipeline(start_server: Any, how: int) -> None:
    """Each request was answered, or failed with what is known about it; answers are a prefix, and right."""
    dying = start_server("--memory", "64M")
    value = bytes(50_000)
    killer = threading.Timer(0.15, lambda: dying.signal(how))
    failed = None
    with Client(port=dying.port, timeout=20) as client:
        killer.start()
        for _ in range(2000):
            p = client.pipeline()
            futures = [future for i in range(300) for future in (p.put(f"key{i % 10}", value), p.get(f"key{i % 10}"))]
            try:
                p.execute()
            except crabcache.CrabError as error:
                failed = error
                break
        killer.join()
    assert isinstance(failed, (crabcache.UnknownOutcomeError, crabcache.RetryError)), "the server did not end in time"
    states = [future.exception() for future in futures]
    answered = states.index(next(state for state in states if state is not None))
    assert all(state is None for state in states[:answered])
    assert all(isinstance(state, (crabcache.UnknownOutcomeError, crabcache.RetryError)) for state in states[answered:])
    assert all(future.result() in (value, (Outcome.STORED, None)) for future in futures[:answered])


def test_no_such_host() -> None:
    with pytest.raises((crabcache.HostNotFound, crabcache.Timeout), match="no-such-host.invalid"):
        Client("no-such-host.invalid")


# ---- examples


@pytest.mark.parametrize("module", [crabcache, crabcache.client, crabcache.pipeline], ids=lambda module: module.__name__)
def test_examples_in_docstrings(client: Client, shared_server: Any, module: Any) -> None:
    result = doctest.testmod(module, extraglobs={"client": client, "port": shared_server.port})
    assert result.failed == 0 and result.attempted > 0


def test_examples_in_the_readme(client: Client, shared_server: Any) -> None:
    text = (ROOT / "python" / "README.md").read_text().replace("2722", str(shared_server.port))
    test = doctest.DocTestParser().get_doctest(text.replace("```", ""), {}, "README.md", "README.md", 0)
    result = doctest.DocTestRunner().run(test)
    assert result.failed == 0 and result.attempted > 10
