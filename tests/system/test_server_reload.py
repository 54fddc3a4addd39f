# SPDX-License-Identifier: MIT
"""SIGHUP: the log file is opened anew and the users are read again; and what the log looks like."""
from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BUILD, TIMEOUT_S, Server, wait_until, wire

SERVER = str(BUILD / "crabcache-server")
SMALL = ("--memory", "16M", "--threads", "2")


def hash_of(secret: str) -> str:
    return subprocess.run(["openssl", "passwd", "-6", "-salt", "saltsalt", secret], capture_output=True, text=True,
                          check=True).stdout.strip()


ONE, TWO = hash_of("one"), hash_of("two")


def auth(server: Server, user: bytes, secret: bytes) -> bool:
    with server.connect() as peer:
        return isinstance(peer.call(wire.AuthRequest(key=user, value=secret)), wire.OkReply)


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_text_lines(start_server) -> None:
    server = start_server(*SMALL, "--log-level", "debug")
    server.signal()
    assert server.wait() == 0
    for line in server.errors().splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warning|info|debug) \S.*", line), line


def test_json_lines(start_server, tmp_path: Path) -> None:
    server = start_server(*SMALL, "--log-format", "json", "--log-level", "debug")
    server.signal(signal.SIGHUP)
    server.signal()
    assert server.wait() == 0
    lines = [json.loads(line) for line in server.errors().splitlines()]
    assert [line["message"] for line in lines][-1] == "stopped"
    for line in lines:
        assert list(line) == ["time", "level", "message"] and line["level"] in ("error", "warning", "info", "debug")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_log_file_is_opened_anew(start_server, tmp_path: Path) -> None:
    """As logrotate does it: rename, SIGHUP; nothing is lost, and standard error stays empty."""
    log, old = tmp_path / "log", tmp_path / "log.1"
    log.write_text("what is there stays\n")
    server = start_server(*SMALL, "--log-file", str(log), "--log-level", "debug")
    wait_until(lambda: len(log.read_text().splitlines()) > 1)
    log.rename(old)
    server.signal(signal.SIGHUP)
    wait_until(lambda: log.exists() and "goes on" in log.read_text())
    server.signal()
    assert server.wait() == 0 and server.errors() == ""
    assert old.read_text().startswith("what is there stays\n")
    assert "stopped" in log.read_text() and "stopped" not in old.read_text()
    assert oct(log.stat().st_mode & 0o777) in ("0o640", "0o600")


def test_log_file_that_cannot_be_opened_anew(start_server, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "log"
    server = start_server(*SMALL, "--log-file", str(log))
    folder.rename(tmp_path / "moved")
    server.signal(signal.SIGHUP)
    wait_until(lambda: "the old one stays" in (tmp_path / "moved" / "log").read_text())
    assert auth(server, b"x", b"y") is False, "it serves on"


def test_log_file_that_cannot_be_opened() -> None:
    done = subprocess.run([SERVER, "--port", "0", *SMALL, "--log-file", "/nonexistent/log"], capture_output=True, text=True,
                          timeout=TIMEOUT_S)
    assert done.returncode == 1 and done.stdout == "" and "--log-file" in done.stderr and "/nonexistent/log" in done.stderr


def test_a_log_that_nobody_reads_holds_nobody_up() -> None:
    """A pipe that is full loses lines; clients are served."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen([SERVER, "--port", "0", "--memory", "16M", "--threads", "1", "--log-level", "debug"],
                               stdout=subprocess.PIPE, stderr=write_end)
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, b"x" * 4096)
    except BlockingIOError:
        pass
    os.close(write_end)
    try:
        address = ("127.0.0.1", int(process.stdout.readline().rsplit(b":", 1)[1]))
        for _ in range(5):
            process.send_signal(signal.SIGHUP)
        with socket.create_connection(address, TIMEOUT_S) as peer:
            peer.sendall(wire.encode_request(wire.PingRequest()))
            assert peer.recv(1) == bytes([wire.ReplyOp.PONG])
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        process.stdout.close()
        os.close(read_end)


# ---- the users -------------------------------------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text(f"alice:{ONE}\n")
    return path


def replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def reload(server: Server, words: str) -> str:
    """Send SIGHUP and wait for the line of the log that has these words."""
    server.signal(signal.SIGHUP)
    log = ""
    deadline = time.monotonic() + TIMEOUT_S
    while words not in log:
        assert time.monotonic() < deadline, f"{words!r} is not in the log: {log}"
        time.sleep(0.01)
        log += server.errors()
    return log


def test_users_are_read_again(start_server, users: Path) -> None:
    server = start_server(*SMALL, "--auth-file", str(users))
    with server.connect() as before:
        assert isinstance(before.call(wire.AuthRequest(key=b"alice", value=b"one")), wire.OkReply)
        replace(users, f"bob:{TWO}\ncarol:{ONE}\n")
        assert auth(server, b"alice", b"one"), "not before the signal"
        assert "2 users" in reload(server, "users read")
        assert not auth(server, b"alice", b"one")
        assert auth(server, b"bob", b"two") and auth(server, b"carol", b"one")
        assert isinstance(before.call(wire.GetRequest(key=b"k")), wire.NullReply), "who is in stays in"


@pytest.mark.parametrize("content, complaint", [("", "names no user"), ("alice:plain\n", "line 1"), (None, "No such file")])
def test_a_bad_file_changes_nothing(start_server, users: Path, content: str | None, complaint: str) -> None:
    server = start_server(*SMALL, "--auth-file", str(users))
    if content is None:
        users.unlink()
    else:
        replace(users, content)
    log = reload(server, "the old users stay")
    assert complaint in log and str(users) in log and " error " in log
    assert auth(server, b"alice", b"one")


def test_reading_again_under_load(start_server, users: Path) -> None:
    """One of two secrets is always right, whenever the file changes; nobody else notices anything."""
    server = start_server(*SMALL, "--auth-file", str(users), "--auth-failures", "0")
    with server.connect() as peer:
        assert isinstance(peer.call(wire.AuthRequest(key=b"alice", value=b"one")), wire.OkReply)
        for i in range(15):
            replace(users, f"alice:{TWO if i % 2 == 0 else ONE}\n")
            server.signal(signal.SIGHUP)
            # Two changes may take place between these attempts, not more.
            assert any(auth(server, b"alice", secret) for secret in (b"one", b"two", b"one", b"two"))
            assert len(peer.call(*[wire.GetRequest(key=b"k")] * 200)) == 200
    assert server.process.poll() is None


def test_sighup_alone(start_server) -> None:
    """With nothing to read anew it changes nothing; and at the stop it is no second signal."""
    server = start_server("--memory", "64M", "--threads", "1")
    with server.connect(receive_buffer=4096) as peer:
        peer.call(wire.PutRequest(key=b"k", value=bytes(1_000_000)))
        server.signal(signal.SIGHUP)
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)
        peer.send(*[wire.GetRequest(key=b"k")] * 20)
        time.sleep(0.1)
        server.signal()
        time.sleep(0.3)
        assert server.process.poll() is None
        server.signal(signal.SIGHUP)
        while (reply := peer.receive()) is not None:
            assert len(reply.value) == 1_000_000
    assert server.wait() == 0
