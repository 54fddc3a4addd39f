# SPDX-License-Identifier: MIT
"""Where the server listens: unix sockets and their files, addresses that others can reach, and the file of --config."""
from __future__ import annotations

import errno
import os
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BUILD, SANITIZED, TIMEOUT_S, Peer, Server, wait_until, wire

SERVER = str(BUILD / "crabcache-server")
SMALL = ("--memory", "16M", "--threads", "1")


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SERVER, *flags], capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)


def answers(address: tuple[str, int] | str) -> bool:
    with Peer(address) as peer:
        return isinstance(peer.call(wire.PingRequest()), wire.PongReply)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A path that is short enough, wherever pytest keeps its files."""
    folder = Path(f"/tmp/crabcache-listen-{os.getpid()}")
    folder.mkdir()
    yield folder / "socket"
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()


# ---- unix sockets ----------------------------------------------------------------------------------------------------


def test_unix_socket(start_server, path: Path) -> None:
    """It serves, pipelines and large values included, and its file is gone after the stop."""
    server = start_server("--memory", "64M", "--unix", str(path))
    assert server.places == [f"unix:{path}"], "without --bind nothing but the unix socket"
    with server.connect() as peer:
        value = os.urandom(3_000_000)
        frames = [wire.PutRequest(key=b"k", value=value)] + [wire.GetRequest(key=b"k")] * 20
        replies = peer.call(*frames)
        assert all(reply.value == value for reply in replies[1:])
        assert peer.stats(b"connections")["connections.current"] == "1"
    server.signal()
    assert server.wait() == 0 and not path.exists()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("flags, mode", [((), 0o600), (("--unix-mode", "0666"), 0o666), (("--unix-mode", "770"), 0o770),
                                         (("--unix-mode", "000"), 0)])
def test_mode(start_server, path: Path, flags: tuple[str, ...], mode: int, mask: int) -> None:
    """The permissions are those of --unix-mode, whatever the umask."""
    start_server(*SMALL, "--unix", str(path), *flags, preexec_fn=lambda: os.umask(mask))
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_mode_holds_before_listen(path: Path) -> None:
    """There is no moment at which the file has other permissions: they are set before bind, and never changed."""
    if SANITIZED or subprocess.run(["sh", "-c", "strace -o /dev/null true"], capture_output=True, check=False).returncode:
        pytest.skip("strace does not work here")
    trace = path.with_name("trace")
    child = subprocess.Popen(["strace", "-D", "-o", str(trace), "-e", "trace=umask,bind,listen,chmod,fchmod,fchmodat",
                              SERVER, *SMALL, "--unix", str(path)], stdout=subprocess.PIPE, text=True)
    assert "ready on" in child.stdout.readline()
    child.terminate()
    assert child.wait(TIMEOUT_S) == 0
    child.stdout.close()
    wait_until(lambda: "exited with 0" in trace.read_text())
    calls = re.findall(r"^(\w+)\(", trace.read_text(), re.M)
    at = calls.index("umask")
    assert calls[at:at + 4] == ["umask", "bind", "umask", "listen"]
    assert not {"chmod", "fchmod", "fchmodat"} & set(calls)


def test_several_places(start_server, path: Path) -> None:
    other = path.with_name("other")
    server = start_server(*SMALL, "--unix", str(path), "--unix", str(other), "--bind", "127.0.0.1")
    assert server.places == [f"127.0.0.1:{server.port}", f"unix:{path}", f"unix:{other}"]
    assert answers((server.host, server.port)) and answers(str(path)) and answers(str(other))


def test_stale_socket_is_replaced(start_server, path: Path) -> None:
    """A server that was killed leaves its file; the next one takes its place."""
    first = start_server(*SMALL, "--unix", str(path))
    first.process.kill()
    first.wait()
    assert path.is_socket()
    start_server(*SMALL, "--unix", str(path))
    assert answers(str(path))


def test_socket_in_use_is_left_alone(start_server, path: Path) -> None:
    server = start_server(*SMALL, "--unix", str(path))
    inode = path.stat().st_ino
    done = run(*SMALL, "--unix", str(path))
    assert done.returncode == 1 and str(path) in done.stderr and "somebody listens there" in done.stderr
    assert path.stat().st_ino == inode and answers(str(path))
    server.signal()
    assert server.wait() == 0 and not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to nothing", "datagram socket"])
def test_what_is_no_stale_socket_is_left_alone(path: Path, kind: str) -> None:
    target = path.with_name("target")
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "datagram socket":
        datagrams.bind(str(path))
    else:
        path.symlink_to(target)
        if kind == "link to a file":
            target.write_text("precious")
    before = path.lstat()
    done = run(*SMALL, "--unix", str(path))
    datagrams.close()
    after = path.lstat()
    assert done.returncode == 1 and f"unix:{path}" in done.stderr
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    if kind == "folder":
        path.rmdir()


def test_file_of_another_is_not_removed(start_server, path: Path) -> None:
    """Who has replaced the file meanwhile keeps it."""
    server = start_server(*SMALL, "--unix", str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.signal()
        assert server.wait() == 0
        assert path.is_socket()


def test_many_at_once_on_one_path(path: Path) -> None:
    """Servers that start together over a stale file: one of them gets the path, the others say so and leave it alone."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    children = [subprocess.Popen([SERVER, *SMALL, "--unix", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True) for _ in range(6)]
    try:
        ready = [child for child in children if "ready on" in child.stdout.readline()]
        assert len(ready) == 1 and answers(str(path))
        for child in children:
            if child is not ready[0]:
                assert child.wait(TIMEOUT_S) == 1 and "somebody listens there" in child.stderr.read()
        assert answers(str(path))
    finally:
        for child in children:
            child.terminate()
            child.wait(TIMEOUT_S)
            child.stdout.close()
            child.stderr.close()


def test_locked_folder(path: Path) -> None:
    """Another process that keeps the folder's lock cannot hold the start up without end."""
    import fcntl
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    done = run(*SMALL, "--unix", str(path))
    os.close(folder)
    assert done.returncode == 1 and "lock" in done.stderr and not path.exists()


def test_failures_name_the_path() -> None:
    done = run(*SMALL, "--unix", "/nonexistent/socket")
    assert done.returncode == 1 and "unix:/nonexistent/socket" in done.stderr and "No such file" in done.stderr


def test_nothing_stays_if_a_later_place_fails(start_server, path: Path) -> None:
    done = run(*SMALL, "--unix", str(path), "--unix", "/nonexistent/socket")
    assert done.returncode == 1 and not path.exists()


def test_tools_and_library(start_server, path: Path) -> None:
    """crabcache-cli takes the path as its host."""
    start_server(*SMALL, "--unix", str(path))
    cli = [str(BUILD / "crabcache-cli"), "--host", str(path)]
    assert subprocess.run([*cli, "put", "k", "v"], capture_output=True, text=True, check=True).stdout == "OK\n"
    assert subprocess.run([*cli, "get", "k"], capture_output=True, text=True, check=True).stdout == "v"


# ---- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7"])
def test_open_addresses_are_refused(address: str) -> None:
    done = run(*SMALL, "--bind", address)
    assert done.returncode == 2 and done.stdout == ""
    assert address in done.stderr and "--auth-file" in done.stderr and "--insecure" in done.stderr


def test_open_addresses_on_demand(start_server) -> None:
    server = start_server(*SMALL, "--bind", "0.0.0.0", "--insecure")
    assert answers(("127.0.0.1", server.port))


def test_both_families_on_one_port(start_server) -> None:
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError as error:
        assert error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        pytest.skip("this machine has no IPv6")
    server = start_server(*SMALL, "--bind", "0.0.0.0", "--bind", "::", "--insecure")
    assert server.places == [f"0.0.0.0:{server.port}", f"[::]:{server.port}"]
    assert answers(("127.0.0.1", server.port)) and answers(("::1", server.port))


# ---- the file of --config --------------------------------------------------------------------------------------------


def test_config_file(start_server, path: Path) -> None:
    config = path.with_name("config")
    config.write_text(f"# a cache\nport = 1\nmemory = 16M\nthreads = 1\nunix = {path}\nbind = 127.0.0.1\nmax-value = 1K\n")
    server = Server("--config", str(config))  # with --port 0, which wins
    try:
        assert server.port > 1 and server.places[1] == f"unix:{path}"
        with server.connect() as peer:
            assert peer.stats(b"server")["server.max_value_bytes"] == "1024"
    finally:
        server.stop()


def test_every_flag_can_stand_in_the_file(path: Path) -> None:
    """What --help names, but for the flags that are about the command line itself."""
    told = set(re.findall(r"^  --([a-z-]+)", run("--help").stdout, re.M)) - {"config", "check-config", "help", "version"}
    for flag in told:
        path.write_text(f"{flag} = \n")
        done = run("--config", str(path))
        assert done.returncode == 2 and f"{path}:1: {flag}: \"\" is not allowed" in done.stderr


def test_mistakes_are_named_with_their_line(path: Path) -> None:
    path.write_text("port = 0\nmemory = 16M\nthread = 1\n")
    done = run("--config", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"crabcache-server: {path}:3: \"thread\": there is no such setting; see --help\n"


def test_check_config(path: Path) -> None:
    """Nothing is started, and all that can be known beforehand is looked at."""
    path.write_text("memory = 16M\n")
    done = run("--config", str(path), "--check-config")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the configuration is right\n", "")
    path.write_text("memory = 16M\nauth-file = /nonexistent/users\n")
    done = run("--config", str(path), "--check-config")
    assert done.returncode == 1 and "/nonexistent/users" in done.stderr
    path.write_text("memory = 1M\n")
    assert run("--config", str(path), "--check-config").returncode == 2
