# SPDX-License-Identifier: MIT
"""Under a service manager: what it is told, sockets that it hands over, and the files in packaging/."""
from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BUILD, ROOT, TIMEOUT_S, Peer, wire

SERVER = str(BUILD / "crabcache-server")
SMALL = ("--memory", "16M", "--threads", "1")


# ---- sd_notify -------------------------------------------------------------------------------------------------------


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.bind(str(path))

    def receive(self) -> dict[str, str]:
        """The next message, as names and values."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def until(self, name: str) -> dict[str, str]:
        while name not in (message := self.receive()):
            assert message == {"WATCHDOG": "1"}, message
        return message


@pytest.fixture
def manager() -> Iterator[Manager]:
    path = Path(f"/tmp/crabcache-notify-{os.getpid()}")
    manager = Manager(path)
    yield manager
    manager.socket.close()
    path.unlink()


def test_ready_reloading_stopping(start_server, manager: Manager) -> None:
    server = start_server(*SMALL, env={"NOTIFY_SOCKET": str(manager.path)})
    assert manager.receive()["READY"] == "1"
    with server.connect() as peer:
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    server.signal(signal.SIGHUP)
    message = manager.receive()
    assert message["RELOADING"] == "1" and int(message["MONOTONIC_USEC"]) >= before * 1e6
    assert manager.receive()["READY"] == "1"
    server.signal()
    assert manager.receive()["STOPPING"] == "1"
    assert server.wait() == 0


def test_not_ready_if_it_cannot_start(manager: Manager) -> None:
    done = subprocess.run([SERVER, *SMALL, "--unix", "/nonexistent/socket"], capture_output=True, timeout=TIMEOUT_S,
                          env={**os.environ, "NOTIFY_SOCKET": str(manager.path)}, check=False)
    assert done.returncode == 1
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.receive()


def test_watchdog(start_server, manager: Manager) -> None:
    """Signs of life come twice as often as they are waited for, idle or busy; without a watchdog there are none."""
    server = start_server(*SMALL, env={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "400000"})
    assert manager.receive()["READY"] == "1"
    times = []
    with server.connect() as peer:
        while len(times) < 12:
            assert manager.receive() == {"WATCHDOG": "1"}
            times.append(time.monotonic())
            assert len(peer.call(*[wire.PingRequest()] * 100)) == 100
    gaps = sorted(b - a for a, b in zip(times, times[1:]))
    assert gaps[len(gaps) // 2] < 0.4, "most of them: the machine may have paused"
    server.signal()
    assert "STOPPING" in manager.until("STOPPING")
    assert server.wait() == 0


def test_no_watchdog_for_others(start_server, manager: Manager) -> None:
    """WATCHDOG_PID names another process."""
    server = start_server(*SMALL, env={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    assert manager.receive()["READY"] == "1"
    time.sleep(0.7)
    server.signal()
    assert "STOPPING" in manager.receive()


# ---- socket activation -----------------------------------------------------------------------------------------------


def start_with(sockets: list[socket.socket], *flags: str) -> subprocess.Popen[bytes]:
    """Start a server that inherits sockets as descriptors 3, 4, ..."""
    moves = " ".join(f"{3 + i}<&{s.fileno()}" for i, s in enumerate(sockets))
    script = f'export LISTEN_PID=$$ LISTEN_FDS={len(sockets)}; exec "$@" {moves}'
    return subprocess.Popen(["bash", "-c", script, "bash", SERVER, *SMALL, *flags], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, pass_fds=[s.fileno() for s in sockets])


def high(made: socket.socket) -> socket.socket:
    """The same socket with a descriptor that is in nobody's way."""
    import fcntl
    copy = socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, 50))
    made.close()
    return copy


def listening(address: tuple[str, int] | str, family: int = socket.AF_INET) -> socket.socket:
    made = high(socket.socket(family))
    made.bind(address)
    made.listen(16)
    return made


def finish(child: subprocess.Popen[bytes], status: int) -> str:
    if status == 0:
        child.terminate()
    _, errors = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == status, errors
    return errors.decode()


def test_sockets_are_taken_over() -> None:
    path = Path(f"/tmp/crabcache-activation-{os.getpid()}")
    tcp, local = listening(("127.0.0.1", 0)), listening(str(path), socket.AF_UNIX)
    early = socket.create_connection(tcp.getsockname())  # who comes before the server does is served
    early.sendall(wire.encode_request(wire.PingRequest()))
    child = start_with([tcp, local])
    try:
        ready = child.stdout.readline().decode().strip()
        port = tcp.getsockname()[1]
        assert ready.endswith(f"ready on 127.0.0.1:{port}, unix:{path}"), "and nothing by default"
        early.settimeout(TIMEOUT_S)
        assert early.recv(1) == bytes([wire.ReplyOp.PONG])
        for address in (("127.0.0.1", port), str(path)):
            with Peer(address) as peer:
                assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
        finish(child, 0)
        assert path.is_socket(), "the file is the manager's"
    finally:
        child.kill()
        child.wait()
        early.close()
        tcp.close()
        local.close()
        path.unlink()


def test_sockets_beside_those_of_the_configuration() -> None:
    tcp = listening(("127.0.0.1", 0))
    child = start_with([tcp], "--bind", "127.0.0.2", "--port", "0")
    ready = child.stdout.readline().decode()
    assert re.search(r"ready on 127\.0\.0\.1:\d+, 127\.0\.0\.2:\d+$", ready.strip())
    finish(child, 0)
    tcp.close()


def test_open_sockets_need_users_too() -> None:
    tcp = listening(("0.0.0.0", 0))
    assert "--insecure" in finish(start_with([tcp]), 1)
    child = start_with([tcp], "--insecure")
    assert "ready on 0.0.0.0:" in child.stdout.readline().decode()
    finish(child, 0)
    tcp.close()


def test_descriptors_that_do_not_fit() -> None:
    datagrams = high(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    assert "descriptor 3" in finish(start_with([datagrams]), 1)
    silent = high(socket.socket())
    assert "descriptor 3" in finish(start_with([silent]), 1)
    many = [listening(("127.0.0.1", 0)) for _ in range(17)]
    assert "more than 16" in finish(start_with(many), 1)
    for made in (datagrams, silent, *many):
        made.close()


def test_sockets_for_somebody_else(start_server) -> None:
    """LISTEN_PID names another process: the descriptors are not ours."""
    server = start_server(*SMALL, env={"LISTEN_PID": "1", "LISTEN_FDS": "3"})
    assert server.places == [f"127.0.0.1:{server.port}"]


# ---- packaging/ ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The service as it is installed, but with the program of this build."""
    text = (ROOT / "packaging" / "crabcache-server.service.in").read_text()
    path = tmp_path / "crabcache-server.service"
    path.write_text(text.replace("@BINDIR@", str(BUILD)).replace("@SYSCONFDIR@", "/etc")
                    .replace("Documentation=man:crabcache-server(1)\n", ""))
    shutil.copy(ROOT / "packaging" / "crabcache-server.socket", tmp_path)
    return path


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@needs_systemd
@pytest.mark.once
def test_the_service_is_hardened(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
                          capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level and float(level[1]) <= 2.0 and done.returncode == 0, done.stdout + done.stderr


@needs_systemd
@pytest.mark.once
def test_the_units_are_right(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit), str(unit.with_suffix(".socket"))],
                          capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.once
def test_the_configuration_names_every_flag(tmp_path: Path) -> None:
    """As it is, and with everything that is commented out."""
    text = (ROOT / "packaging" / "crabcache.conf").read_text()
    help_text = subprocess.run([SERVER, "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"^  --([a-z-]+)", help_text, re.M)) - {"config", "check-config", "help", "version"}
    assert set(re.findall(r"^#([a-z-]+) = ", text, re.M)) == flags
    users, config = tmp_path / "users", tmp_path / "config"
    users.write_text("a:$6$saltsalt$x\n")
    for content in (text, re.sub(r"^#([a-z-]+ = )", r"\1", text, flags=re.M).replace("/etc/crabcache/users", str(users))):
        config.write_text(content)
        done = subprocess.run([SERVER, "--config", str(config), "--check-config"], capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False)
        assert (done.returncode, done.stderr) == (0, "")
