# SPDX-License-Identifier: MIT
"""crabcache.testing, what users test their programs with: each fixture does what it says."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TIMEOUT_S, wire

from crabcache.testing import Chaos, Conversation, Peer, Server, ServerFailed, StoppedClock, Store, stats_delta

pytestmark = pytest.mark.once  # it is the harness that is under test


def put(key: bytes, value: bytes = b"value", ttl_ms: int = 0) -> wire.PutRequest:
    return wire.PutRequest(key=key, value=value, flags=wire.PutRequest.TTL if ttl_ms else 0, ttl_ms=ttl_ms)


def get(key: bytes) -> wire.GetRequest:
    return wire.GetRequest(key=key)


# ---- servers


def test_a_server_of_its_own(crabcache_server: Server, crabcache_peer: Peer) -> None:
    assert crabcache_peer.call(put(b"k"), get(b"k")) == [wire.OkReply(), wire.ValueReply(value=b"value")]
    assert crabcache_server.port > 0 and crabcache_server.rss() > 0 and crabcache_server.cpu_s() >= 0


@pytest.mark.crabcache("--memory", "8M", "--eviction", "none", "--max-value", "1000")
def test_the_mark_gives_flags(crabcache_peer: Peer) -> None:
    assert crabcache_peer.hello().max_value == 1000


def test_several_servers_share_nothing(crabcache_start) -> None:
    servers = [crabcache_start("--memory", "16M", "--threads", "1") for _ in range(3)]
    assert len({server.port for server in servers}) == 3
    with servers[0].connect() as first, servers[2].connect() as last:
        assert first.call(put(b"k")) == wire.OkReply()
        assert last.call(get(b"k")) == wire.NullReply()


def test_kill_and_restart(crabcache_server: Server) -> None:
    port = crabcache_server.port
    with crabcache_server.connect() as peer:
        assert peer.call(put(b"k")) == wire.OkReply()
        crabcache_server.kill()
        assert peer.receive() is None
    with pytest.raises(ConnectionRefusedError):
        crabcache_server.connect()
    crabcache_server.restart()
    assert crabcache_server.port == port
    with crabcache_server.connect() as peer:
        assert peer.call(get(b"k")) == wire.NullReply()
    crabcache_server.restart()
    crabcache_server.stop()
    crabcache_server.stop()


def test_the_log_is_captured(crabcache_start) -> None:
    server = crabcache_start("--memory", "16M", "--log-level", "debug")
    with server.connect() as peer:
        peer.call(wire.PingRequest())
    server.signal()
    assert server.wait() == 0
    assert server.errors() == server.log() != ""
    assert server.errors() == ""


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(ServerFailed, match="--memory"):
        Server("--memory", "1")


def test_stats_delta(crabcache_server: Server) -> None:
    with crabcache_server.connect() as peer:
        with stats_delta(crabcache_server, "ops") as delta:
            peer.call(put(b"a"), put(b"b"), get(b"a"))
    assert delta["ops.put"] == 2 and delta["ops.get"] == 1
    with stats_delta(crabcache_server) as delta:
        pass
    assert {name.split(".")[0] for name in delta} >= {"server", "connections", "store", "ops"}


# ---- time


@pytest.mark.crabcache(clock=True)
def test_time_stands_still_until_it_is_moved(crabcache_server: Server, crabcache_peer: Peer) -> None:
    clock = crabcache_server.clock
    assert crabcache_peer.call(put(b"k", ttl_ms=1)) == wire.OkReply()
    assert crabcache_peer.call(put(b"year", ttl_ms=365 * 86_400_000)) == wire.OkReply()
    assert crabcache_peer.is_silent(0.02)
    assert crabcache_peer.call(get(b"k")) == wire.ValueReply(value=b"value")
    clock.advance(0.001)
    assert crabcache_peer.call(get(b"k"), get(b"year")) == [wire.NullReply(), wire.ValueReply(value=b"value")]
    clock.advance(365 * 86_400)
    assert crabcache_peer.call(get(b"year")) == wire.NullReply()


def test_the_model_agrees_about_time() -> None:
    clock = StoppedClock()
    try:
        store = Store(lambda: clock.now_ms)
        assert store.execute(put(b"k", ttl_ms=1000)) == wire.OkReply()
        clock.advance(0.999)
        assert store.execute(get(b"k")) == wire.ValueReply(value=b"value")
        clock.advance(0.001)
        assert store.execute(get(b"k")) == wire.NullReply()
    finally:
        clock.close()


# ---- peers and proxies that do harm


def test_scripted_peer(crabcache_scripted) -> None:
    seen = []

    def script(conversation: Conversation) -> None:
        seen.append(conversation.next())
        conversation.say(wire.ValueReply(value=b"scripted"), b"\x12")
        conversation.wait_for_end()

    peer = crabcache_scripted(script)
    with Peer(("127.0.0.1", peer.port)) as client:
        assert client.hello().server_name == b"peer 1"
        assert client.call(get(b"k")) == wire.ValueReply(value=b"scripted")
        assert client.receive() == wire.NullReply()
    peer.end()
    assert seen == [get(b"k")] and peer.accepted == 1


def test_what_fails_in_a_script_is_raised(crabcache_scripted) -> None:
    def script(conversation: Conversation) -> None:
        assert conversation.next() == get(b"another")

    peer = crabcache_scripted(script, welcome=False)
    with Peer(("127.0.0.1", peer.port)) as client:
        client.send(get(b"k"))
        assert client.receive() is None
    with pytest.raises(AssertionError):
        peer.end()


@pytest.mark.parametrize("piece", [1, 3])
def test_proxy_in_pieces(crabcache_server: Server, crabcache_proxy, piece: int) -> None:
    proxy = crabcache_proxy(crabcache_server, up=Chaos(piece=piece), down=Chaos(piece=piece))
    with Peer(("127.0.0.1", proxy.port)) as client:
        assert client.call(put(b"k", b"x" * 500), get(b"k")) == [wire.OkReply(), wire.ValueReply(value=b"x" * 500)]


def test_proxy_cuts(crabcache_server: Server, crabcache_proxy) -> None:
    proxy = crabcache_proxy(crabcache_server, down=Chaos(cut_at=3))
    with Peer(("127.0.0.1", proxy.port)) as client:
        client.send(put(b"k"), get(b"k"))
        assert client.receive() == wire.OkReply()
        with pytest.raises(AssertionError, match="ends inside a frame"):
            client.receive()
    proxy.down = Chaos(cut_at=1, reset=True)
    with Peer(("127.0.0.1", proxy.port)) as client:
        client.send(put(b"k"), get(b"k"))
        with pytest.raises(ConnectionResetError):
            while client.receive() is not None:
                pass


def test_proxy_stalls_delays_and_corrupts(crabcache_server: Server, crabcache_proxy) -> None:
    proxy = crabcache_proxy(crabcache_server, down=Chaos(stall_at=1))
    with Peer(("127.0.0.1", proxy.port), timeout_s=0.5) as client:
        client.send(put(b"k"), get(b"k"))
        assert client.receive() == wire.OkReply()
        with pytest.raises(socket.timeout):
            client.receive()
    proxy.down = Chaos(corrupt={6: 0x20})
    with Peer(("127.0.0.1", proxy.port)) as client:
        assert client.call(get(b"k")) == wire.ValueReply(value=b"vAlue")
    proxy.down = Chaos(delay_s=0.4)
    with Peer(("127.0.0.1", proxy.port)) as client:
        client.send(get(b"k"))
        assert client.is_silent(0.02)
        assert client.receive() == wire.ValueReply(value=b"value")
    assert proxy.accepted == 3


def test_proxy_before_a_server_that_is_gone(crabcache_server: Server, crabcache_proxy) -> None:
    proxy = crabcache_proxy(crabcache_server)
    crabcache_server.kill()
    with Peer(("127.0.0.1", proxy.port)) as client:
        assert client.receive() is None


# ---- the package


def test_the_package_names_all_its_parts() -> None:
    """pyproject.toml lists each package, and patterns for all that is no module."""
    import tomllib

    tree = ROOT / "python"
    project = tomllib.loads((tree / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in (tree / "crabcache").rglob("__init__.py")}
    assert set(project["packages"]) == {str(folder.relative_to(tree)).replace("/", ".") for folder in folders}
    shipped = {path for package, patterns in project["package-data"].items() for pattern in patterns
               for path in (tree / package.replace(".", "/")).glob(pattern)}
    others = {path for path in (tree / "crabcache").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    others |= set((tree / "crabcache/conformance/vectors").glob("*.json"))
    assert others - shipped <= {tree / "crabcache/conformance/vectors/README.md"} and shipped - others == set()


# ---- in somebody else's project


def test_in_another_project(tmp_path: Path) -> None:
    """What pytest does where the package is installed: it loads the plugin by its entry point."""
    (tmp_path / "test_mine.py").write_text(
        "import pytest\n"
        "from crabcache.testing import stats_delta\n"
        "from crabcache.wire import PingRequest, PongReply\n"
        "@pytest.mark.crabcache('--memory', '16M')\n"
        "def test_ping(crabcache_server, crabcache_peer):\n"
        "    with stats_delta(crabcache_server, 'ops') as delta:\n"
        "        assert crabcache_peer.call(PingRequest()) == PongReply()\n"
        "    assert delta['ops.ping'] == 1\n"
        "def test_crash(crabcache_server):\n"
        "    crabcache_server.process.kill()\n")
    metadata = tmp_path / "site" / "crabcache-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: crabcache\nVersion: 0\n")
    points = (ROOT / "python" / "pyproject.toml").read_text().split("[project.entry-points.pytest11]\n")[1].split("\n\n")[0]
    (metadata / "entry_points.txt").write_text("[pytest11]\n" + points.replace('"', "") + "\n")
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"], cwd=tmp_path,
                         capture_output=True, text=True, timeout=TIMEOUT_S * 3,
                         env={**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT / 'python'}", "PYTHONDONTWRITEBYTECODE": "1"})
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
