# SPDX-License-Identifier: MIT
"""The program: its flags, its start, its end."""
from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BUILD, TIMEOUT_S, wire, wait_until

E = wire.ErrorCode
SERVER = str(BUILD / "crabcache-server")


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SERVER, *flags], capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)


def test_help_and_version() -> None:
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    for flag in ("--bind", "--port", "--memory", "--threads", "--eviction", "--max-value", "--auth-file", "--stall-timeout",
                 "--log-level"):
        assert flag in done.stdout
    done = run("--version")
    assert done.returncode == 0 and re.fullmatch(r"crabcache-server \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("flag, value, allowed", [
    ("--port", "65536", "0 to 65535"), ("--port", "-1", "0 to 65535"), ("--port", "http", "0 to 65535"),
    ("--memory", "7M", "8M"), ("--memory", "1X", "8M"), ("--memory", "", "8M"), ("--threads", "0", "1 to 64"),
    ("--threads", "65", "1 to 64"), ("--eviction", "lru", "evict or none"), ("--max-value", "0", "1 to 1G"),
    ("--max-value", "2G", "1 to 1G"), ("--bind", "nowhere", "IPv4 or IPv6"), ("--log-level", "loud", "warning"),
    ("--stall-timeout", "0", "1 to 86400"), ("--stall-timeout", "1m", "1 to 86400"),
])
def test_bad_values_are_named(flag: str, value: str, allowed: str) -> None:
    done = run(flag, value)
    assert done.returncode == 2 and done.stdout == ""
    assert flag in done.stderr and f'"{value}"' in done.stderr and allowed in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("flags", [("--nothing",), ("--nothing=1",), ("-x",), ("-xyz",), ("word",), ("--port",), ("--help=1",)])
def test_unknown_flags(flags: tuple[str, ...]) -> None:
    done = run(*flags)
    assert done.returncode == 2 and done.stdout == ""
    assert flags[0].split("=")[0][:2] in done.stderr and "--help" in done.stderr


def test_ready_line(start_server) -> None:
    server = start_server("--memory", "16M")
    assert re.fullmatch(r"crabcache-server \d+\.\d+\.\d+ ready on 127\.0\.0\.1:[1-9]\d*\n", server.ready_line)


def test_several_addresses(start_server) -> None:
    """Several --bind share one port, also one that was chosen freely."""
    server = start_server("--memory", "16M", "--bind", "127.0.0.1", "--bind", "127.0.0.2")
    assert re.search(rf"ready on 127\.0\.0\.1:{server.port}, 127\.0\.0\.2:{server.port}$", server.ready_line.strip())
    with socket.create_connection(("127.0.0.2", server.port)) as peer:
        peer.sendall(wire.encode_request(wire.PingRequest()))
        assert peer.recv(1) == bytes([wire.ReplyOp.PONG])


def test_a_port_that_is_free_everywhere(start_server) -> None:
    """With --port 0 and several addresses, a port that is taken at the second one is not the end."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    taken = []
    try:
        for port in range(low, high + 1):
            if port // 2 % 2 == 0 and len(taken) < 12_000:
                sock = socket.socket()
                taken.append(sock)
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.2", port))
        for _ in range(8):
            server = start_server("--memory", "16M", "--bind", "127.0.0.1", "--bind", "127.0.0.2")
            assert f"127.0.0.2:{server.port}" in server.ready_line
            server.stop()
    finally:
        for sock in taken:
            sock.close()


def test_ipv6(start_server) -> None:
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = start_server("--memory", "16M", "--bind", "::1")
    assert f"ready on [::1]:{server.port}\n" in server.ready_line
    with server.connect() as peer:
        assert isinstance(peer.call(wire.PingRequest()), wire.PongReply)


def test_port_in_use(start_server) -> None:
    server = start_server("--memory", "16M")
    done = run("--memory", "16M", "--port", str(server.port))
    assert done.returncode == 1 and done.stdout == ""
    assert f"127.0.0.1:{server.port}" in done.stderr and "in use" in done.stderr and "--port" in done.stderr


def test_memory_that_cannot_be_had() -> None:
    """Too little address space is an error message, not a crash."""
    if BUILD.name in ("asan", "tsan"):
        pytest.skip("a sanitizer needs the address space itself")
    done = subprocess.run(["/bin/sh", "-c", f"ulimit -v 200000; exec {SERVER} --port 0 --memory 4G"], capture_output=True,
                          text=True, timeout=TIMEOUT_S)
    assert done.returncode == 1 and "--memory" in done.stderr


@pytest.mark.parametrize("content, complaint", [
    (None, "No such file"), ("", "names no user"), ("# nobody\n\n", "names no user"), ("joe\n", "line 1"),
    ("joe:plain\n", "line 1"), (":$6$salt$hash\n", "line 1"), ("a:$6$salt$x\na:$6$salt$x\n", "line 2"),
    ("x" * 300 + ":$6$salt$x\n", "line 1"), ("a:$6$" + "x" * 2000 + "\n", "line 1"),
])
def test_bad_auth_file(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "users"
    if content is not None:
        path.write_text(content)
    done = run("--port", "0", "--memory", "16M", "--auth-file", str(path))
    assert done.returncode == 1 and done.stdout == ""
    assert "--auth-file" in done.stderr and str(path) in done.stderr and complaint in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_answers_what_was_received(start_server, number: int) -> None:
    """A pipeline in flight is answered before the end, and a client that takes pushes is told. (Its replies fit what the kernel
    takes: a client that reads slowly has only a while.)"""
    server = start_server("--memory", "64M", "--threads", "2")
    with server.connect() as pushes, server.connect() as plain, server.connect() as idle:
        assert pushes.hello().features == 1
        value = bytes(30)
        frames = [wire.PutRequest(key=b"k", value=value)] + [wire.GetRequest(key=b"k")] * 1500
        for peer in (pushes, plain):
            peer.send(*frames[:1])
        assert isinstance(plain.receive(), wire.OkReply) and isinstance(pushes.receive(), wire.OkReply)
        for peer in (pushes, plain):
            peer.send(*frames[1:])
        time.sleep(0.05)
        server.signal(number)
        for peer in (pushes, plain):
            for i in range(1500):
                reply = peer.receive()
                assert isinstance(reply, wire.ValueReply) and reply.value == value, f"reply {i}: {type(reply)}"
        goaway = pushes.receive()
        assert isinstance(goaway, wire.GoawayPush) and goaway.code == E.SHUTTING_DOWN
        assert pushes.receive() is None and plain.receive() is None and idle.receive() is None
    assert server.wait() == 0


def test_stop_drops_half_frames(start_server) -> None:
    """A frame that is not whole at the stop is not executed, and does not hold the stop up."""
    server = start_server("--memory", "64M")
    with server.connect() as peer:
        peer.send(wire.encode_request(wire.PutRequest(key=b"k", value=bytes(1_000_000)))[:-1])
        time.sleep(0.1)
        server.signal()
        assert peer.receive() is None
    assert server.wait() == 0


def test_stop_has_a_deadline(start_server) -> None:
    """Clients that never read, never stop sending or never hang up do not keep the server from ending."""
    server = start_server("--memory", "64M", "--threads", "1")
    with server.connect(receive_buffer=4096) as never_reads, server.connect() as never_ends:
        never_reads.call(wire.PutRequest(key=b"k", value=bytes(1_000_000)))
        never_reads.send(*[wire.GetRequest(key=b"k")] * 100)
        never_ends.call(wire.PingRequest())
        server.signal()
        assert server.wait() == 0


def test_second_signal_ends_at_once(start_server) -> None:
    server = start_server("--memory", "64M", "--threads", "1")
    with server.connect(receive_buffer=4096) as peer:
        peer.call(wire.PutRequest(key=b"k", value=bytes(1_000_000)))
        peer.send(*[wire.GetRequest(key=b"k")] * 100)
        time.sleep(0.1)
        server.signal()
        time.sleep(0.3)
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert server.wait() == 1, "0 would be the end by its own deadline"


def test_one_stop_that_arrives_twice(start_server) -> None:
    """timeout(1) signals its process group, and make its child: the server in it is told twice, and stops in order."""
    server = start_server("--memory", "64M", "--threads", "2")
    with server.connect() as peer:
        peer.hello()
        server.signal(signal.SIGTERM)
        time.sleep(0.005)
        server.signal(signal.SIGTERM)
        assert isinstance(peer.receive(), wire.GoawayPush)
    assert server.wait() == 0


def test_no_sigpipe_without_a_reader() -> None:
    """Nobody reads the ready line: the server runs all the same."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen([SERVER, "--port", "0", "--memory", "16M"], stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 0
    process.stderr.close()


def test_descriptors_run_out(start_server) -> None:
    """Without a descriptor for the next client accepting pauses; who is connected is served, and later ones too."""
    server = start_server("--memory", "64M", "--threads", "1",
                          preexec_fn=lambda: __import__("resource").setrlimit(7, (40, 40)))
    peers = [server.connect() for _ in range(60)]
    for peer in peers:
        peer.send(wire.PingRequest())
    assert isinstance(peers[0].receive(), wire.PongReply)
    time.sleep(0.5)
    cpu = server.cpu_s()
    time.sleep(1)
    assert server.cpu_s() - cpu < 0.3, "it spins while it pauses"
    assert isinstance(peers[0].call(wire.PingRequest()), wire.PongReply)
    assert int(peers[0].stats(b"connections")["connections.accept_pauses"]) > 0
    for peer in peers[1:40]:
        peer.socket.close()
    assert isinstance(peers[59].receive(), wire.PongReply)
    assert "accepting pauses" in server.errors()
    for peer in peers:
        peer.socket.close()
    with server.connect() as fresh:
        assert isinstance(fresh.call(wire.PingRequest()), wire.PongReply)


def test_reset_before_accept(start_server) -> None:
    """Clients that are gone before they are accepted cost nothing."""
    server = start_server("--memory", "16M")
    for _ in range(300):
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.connect((server.host, server.port))
    with server.connect() as peer:
        wait_until(lambda: peer.stats(b"connections")["connections.current"] == "1")
