# SPDX-License-Identifier: MIT
"""crabcache-cli against a real server: every command, binary values, exit statuses, and a real terminal."""
from __future__ import annotations

import os
import pty
import re
import select
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import BUILD, TIMEOUT_S, Peer, Server, wire

CLI = BUILD / "crabcache-cli"
EVERY_BYTE = bytes(range(256)) * 3


def cli(server: Server | None, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None,
        options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """Run crabcache-cli against a server."""
    port = ("--port", str(server.port)) if server is not None else ()
    done = subprocess.run([str(CLI), *port, *options, *arguments], input=stdin, capture_output=True, timeout=TIMEOUT_S,
                          env={**os.environ, **(env or {})}, check=False)
    assert b"Sanitizer" not in done.stderr, done.stderr.decode()
    return done


def good(server: Server, *arguments: str, **more: object) -> bytes:
    """The output of a command that must succeed and complain of nothing."""
    done = cli(server, *arguments, **more)  # type: ignore[arg-type]
    assert (done.returncode, done.stderr) == (0, b""), (arguments, done)
    return done.stdout


def fails(server: Server | None, status: int, *arguments: str, **more: object) -> str:
    """What a command complains of that must fail with this exit status."""
    done = cli(server, *arguments, **more)  # type: ignore[arg-type]
    assert done.returncode == status, (arguments, done)
    assert done.stderr.startswith(b"crabcache-cli: "), done
    return done.stderr.decode()


def test_put_and_get(shared_server: Server, peer: Peer) -> None:
    assert good(shared_server, "put", "key", "value") == b"OK\n"
    assert good(shared_server, "get", "key") == b"value", "no line end in a pipe"
    assert peer.call(wire.GetRequest(key=b"key")).value == b"value"
    assert "no such key" in fails(shared_server, 1, "get", "other")


def test_values_are_binary_safe(shared_server: Server, peer: Peer, tmp_path: Path) -> None:
    source = tmp_path / "value"
    for value in (b"", b"\n", EVERY_BYTE, os.urandom(3_000_000)):
        source.write_bytes(value)
        good(shared_server, "put", "a", "--file", str(source))
        good(shared_server, "put", "b", "-", stdin=value)
        good(shared_server, "put", "c", "--file", "-", stdin=value)
        for key in "abc":
            assert good(shared_server, "get", key) == value
        assert good(shared_server, "get", "a", "--output", str(tmp_path / "out")) == b""
        assert (tmp_path / "out").read_bytes() == value


def test_escapes(shared_server: Server, peer: Peer) -> None:
    good(shared_server, "put", r"k\x00\xff", r"v\n\\", options=("--escapes",))
    assert peer.call(wire.GetRequest(key=b"k\x00\xff")).value == b"v\n\\"
    good(shared_server, "put", r"k\x00", r"v\n")
    assert peer.call(wire.GetRequest(key=rb"k\x00")).value == rb"v\n"
    assert "two hexadecimal digits" in fails(shared_server, 2, "get", r"\xq", options=("-e",))


def test_put_options(shared_server: Server, peer: Peer) -> None:
    good(shared_server, "put", "key", "1", "--ttl", "1h", "--flags", "0x10")
    meta = peer.call(wire.GetRequest(key=b"key", flags=wire.GetRequest.META))
    assert meta.app_flags == 16 and 3_590_000 < meta.ttl_ms <= 3_600_000
    assert str(meta.version) in fails(shared_server, 1, "put", "key", "2", "--if-absent")
    good(shared_server, "put", "key", "2", "--if-present")
    fails(shared_server, 1, "put", "none", "2", "--if-present")
    version = good(shared_server, "put", "key", "3", "--show-version").decode().strip()
    fails(shared_server, 1, "put", "key", "4", "--if-version", str(int(version) + 1))
    good(shared_server, "put", "key", "4", f"--if-version={version}")
    assert good(shared_server, "get", "key") == b"4"
    good(shared_server, "put", "--", "--key", "--value")
    assert good(shared_server, "get", "--", "--key") == b"--value"


def test_get_options(shared_server: Server, peer: Peer, tmp_path: Path) -> None:
    good(shared_server, "put", "key", "value", "--flags", "7")
    head, value = good(shared_server, "get", "key", "--meta").split(b"\n\n", 1)
    assert re.fullmatch(rb"version: \d+\nttl: never\nflags: 7\nbytes: 5", head) and value == b"value"
    assert good(shared_server, "get", "key", "--touch", "10s") == b"value"
    assert re.search(rb"ttl: (9\d\d\d|10000)ms\n", good(shared_server, "get", "key", "--meta"))
    assert b"ttl: never" in good(shared_server, "get", "key", "--meta", "--touch", "never")
    assert good(shared_server, "get", "key", "--meta", "--output", str(tmp_path / "o")).endswith(b"bytes: 5\n")


def test_del_and_expire(shared_server: Server, peer: Peer) -> None:
    for key in ("a", "b", "c"):
        good(shared_server, "put", key, key)
    assert good(shared_server, "del", "a") == b"1\n"
    done = cli(shared_server, "del", "a", "b", "c")
    assert (done.returncode, done.stdout) == (1, b"2\n")
    good(shared_server, "put", "a", "1")
    assert good(shared_server, "expire", "a", "1ms") == b"OK\n"
    time.sleep(0.05)
    fails(shared_server, 1, "expire", "a", "never")
    many = [f"key-{i}" for i in range(3000)]
    peer.call(*(wire.PutRequest(key=key.encode(), value=b"") for key in many))
    assert good(shared_server, "del", *many) == b"3000\n"


def test_counters(shared_server: Server, peer: Peer) -> None:
    fails(shared_server, 1, "incr", "n")
    assert good(shared_server, "incr", "n", "5", "--initial", "-3", "--ttl", "1h") == b"-3\n"
    assert good(shared_server, "incr", "n", "5") == b"2\n"
    assert good(shared_server, "decr", "n") == b"1\n"
    assert good(shared_server, "get", "n") == b"1"
    assert "OVERFLOW" in fails(shared_server, 4, "incr", "n", "18446744073709551615")
    good(shared_server, "put", "n", "one")
    assert "NOT_A_NUMBER" in fails(shared_server, 4, "incr", "n")
    assert "--initial" in fails(shared_server, 2, "incr", "n", "--ttl", "1s")


def test_server_commands(shared_server: Server, peer: Peer) -> None:
    assert good(shared_server, "ping") == b"PONG\n"
    assert b"max_key: 65535\n" in good(shared_server, "hello")
    everything = good(shared_server, "stats").decode()
    assert re.fullmatch(r"([a-z_]+\.[a-z_0-9]+:[^\n]*\n)+", everything)
    assert all(line.startswith("store.") for line in good(shared_server, "stats", "store").decode().splitlines())
    assert "UNKNOWN_SECTION" in fails(shared_server, 4, "stats", "weather")
    good(shared_server, "put", "key", "value")
    assert good(shared_server, "flush") == b"OK\n"
    fails(shared_server, 1, "get", "key")


BAD_LINES = [
    (("put", "k", "v", "--ttl", "10"), ["--ttl", "'10'", "ms, s, m, h or d"]),
    (("put", "k", "v", "--ttl", "0s"), ["--ttl", "'0s'"]),
    (("put", "k", "v", "--flags", "4294967296"), ["--flags", "'4294967296'", "0 to 4294967295"]),
    (("put", "k", "v", "--if-version", "0"), ["--if-version", "'0'", "from 1"]),
    (("put", "k", "v", "--if-absent", "--if-present"), ["only one of"]),
    (("put", "k", "v", "--meta"), ["--meta", "allowed are", "--ttl"]),
    (("put", "k", "v", "--ttl"), ["--ttl", "needs a value"]),
    (("put", "k", "v", "--if-absent=1"), ["--if-absent", "no value"]),
    (("put", "k"), ["one value"]),
    (("put", "k", "v", "--file", "f"), ["one value"]),
    (("put", "k", "--file", "/no/such"), ["--file", "/no/such", "No such file"]),
    (("put", "", "v"), ["1 to 65535 bytes"]),
    (("get",), ["usage: get KEY"]),
    (("get", "a", "b"), ["usage: get KEY"]),
    (("expire", "k", "soon"), ["'soon'"]),
    (("incr", "k", "-1"), ["'-1'", "0 to 18446744073709551615"]),
    (("incr", "k", "--initial", "9223372036854775808"), ["--initial", "9223372036854775807"]),
    (("stats", "x" * 65), ["1 to 64"]),
    (("fetch", "k"), ["unknown command 'fetch'"]),
]


@pytest.mark.parametrize(("arguments", "words"), BAD_LINES, ids=lambda value: " ".join(value)[:40])
def test_mistakes_are_named(shared_server: Server, arguments: tuple[str, ...], words: list[str]) -> None:
    complaint = fails(shared_server, 2, *arguments)
    assert all(word in complaint for word in words), complaint


@pytest.mark.parametrize(("options", "words"), [
    (("--port", "0"), ["--port", "'0'", "1 to 65535"]),
    (("--port", "65536"), ["--port", "'65536'"]),
    (("--timeout", "5"), ["--timeout", "'5'"]),
    (("--timeout", "2d"), ["--timeout", "'2d'"]),
    (("--user", "me"), ["--user", "CRABCACHE_SECRET"]),
    (("--user", "me", "--secret-file", "/no/such"), ["--secret-file", "/no/such"]),
], ids=lambda value: " ".join(value))
def test_bad_options_are_named(options: tuple[str, ...], words: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name != "CRABCACHE_SECRET"}
    done = subprocess.run([str(CLI), *options, "ping"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr


def test_help_and_version() -> None:
    assert cli(None, "--version").stdout.startswith(b"crabcache-cli 0.")
    assert b"Exit status" in cli(None, "--help").stdout
    assert cli(None, "--nonsense").returncode == 2


def test_no_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
        assert "refused" in fails(None, 3, "ping", options=("--port", port))
    assert "no.such.host" in fails(None, 3, "ping", options=("--host", "no.such.host.invalid"))


def test_a_silent_server_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        started = time.monotonic()
        fails(None, 3, "ping", options=("--port", port, "--timeout", "200ms"))
        assert 0.2 <= time.monotonic() - started < 10


def test_an_unknown_outcome_is_said() -> None:
    """The server takes a write and dies: that is neither done nor refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            conn, _ = listener.accept()
            with conn:
                conn.recv(1000)
                conn.sendall(wire.encode_reply(wire.WelcomeReply(
                    version=1, features=1, max_key=65535, max_value=1 << 20, max_in_flight=10, server_name=b"x")))
                conn.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        complaint = fails(None, 3, "del", "key", options=("--port", str(listener.getsockname()[1])))
        thread.join()
    assert "unknown" in complaint


def test_secrets(start_server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    hashed = subprocess.run(["openssl", "passwd", "-6", "pass word"], capture_output=True, text=True, check=True).stdout
    users = tmp_path / "users"
    users.write_text(f"me:{hashed.strip()}\n")
    users.chmod(0o600)
    secret = tmp_path / "secret"
    secret.write_text("pass word\n")
    server = start_server("--memory", "64M", "--auth-file", str(users))
    assert "AUTH_REQUIRED" in fails(server, 4, "get", "k")
    assert good(server, "put", "k", "v", options=("--user", "me", "--secret-file", str(secret))) == b"OK\n"
    assert good(server, "get", "k", options=("--user", "me"), env={"CRABCACHE_SECRET": "pass word"}) == b"v"
    assert "AUTH_FAILED" in fails(server, 4, "get", "k", options=("--user", "me"), env={"CRABCACHE_SECRET": "wrong"})


def test_a_secret_that_is_too_long(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 1025 + "\n")
    assert "at most 1024" in fails(None, 2, "ping", options=("--user", "me", "--secret-file", str(secret)))


def test_scripts(shared_server: Server, peer: Peer) -> None:
    script = b"put 'a b' \"x\\x00y\"\n\n get 'a b' \nget nothing\nget \"open\nquit\nput never reached\n"
    done = cli(shared_server, stdin=script)
    assert done.returncode == 1, "the first failure decides"
    assert done.stdout == b'OK\n"x\\x00y"\n'
    assert b"no such key" in done.stderr and b"quote is not closed" in done.stderr
    assert b"standard input" in cli(shared_server, stdin=b"put k -\n").stderr


def test_scripts_with_the_line_ends_of_windows(shared_server: Server, peer: Peer) -> None:
    done = cli(shared_server, stdin=b"put a 1\r\n\r\nget a\r\nput b '2\r'\r\nget a\r")
    assert (done.returncode, done.stdout, done.stderr) == (0, b'OK\n"1"\nOK\n"1"\n', b"")
    assert peer.call(wire.GetRequest(key=b"a")).value == b"1"
    assert peer.call(wire.GetRequest(key=b"b")).value == b"2\r", "only the one before the line end"


def test_a_full_disk_is_noticed(shared_server: Server, peer: Peer) -> None:
    peer.call(wire.PutRequest(key=b"k", value=b"v" * 100))
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(CLI), "--port", str(shared_server.port), "get", "k"], stdout=full,
                              stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2 and b"standard output" in done.stderr


class Terminal:
    """crabcache-cli on a terminal of its own."""

    def __init__(self, server: Server, home: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            env = {**os.environ, "HOME": str(home), "TERM": "xterm", "INPUTRC": "/dev/null"}
            env.pop("XDG_STATE_HOME", None)
            os.execve(CLI, [str(CLI), "--port", str(server.port)], env)
        self.seen = b""

    def read_until(self, text: bytes) -> bytes:
        """Everything up to a text, which must come."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], self.seen
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError:  # the other end has closed
                raise AssertionError(self.seen) from None
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def wait(self) -> int:
        """Its exit status; what it still prints is read, or it would block.

        It is told to quit by a line: a Ctrl-D that comes between libedit's prompt and its taking the terminal over is the
        terminal's own, and lost.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            ready = select.select([self.fd], [], [], 0.2)[0]
            assert time.monotonic() < deadline, "it does not end"
            if not ready:
                continue
            try:
                if not os.read(self.fd, 4096):
                    break
            except OSError:
                break
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal(shared_server: Server, peer: Peer, tmp_path: Path) -> None:
    prompt = f"127.0.0.1:{shared_server.port}> ".encode()
    terminal = Terminal(shared_server, tmp_path)
    terminal.read_until(prompt)
    terminal.type(b'put "my key" "a\\x00b"\n')
    terminal.read_until(b"\nOK")
    terminal.read_until(prompt)
    assert peer.call(wire.GetRequest(key=b"my key")).value == b"a\x00b"
    terminal.type(b"exp\t'my key' 1h\n")  # completed to "expire"
    terminal.read_until(b"\nOK")
    terminal.read_until(prompt)
    terminal.type(b"get 'my key' --me\t\n")  # to "--meta"
    terminal.read_until(b"ttl: ")
    terminal.read_until(b'"a\\x00b"')
    terminal.read_until(prompt)
    terminal.type(b"stats wo\t\n")
    terminal.read_until(b"workers.")
    terminal.read_until(prompt)
    terminal.type(b"quit\n")
    assert terminal.wait() == 0

    history = tmp_path / ".crabcache_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600, "keys and values are nobody else's business"
    terminal = Terminal(shared_server, tmp_path)
    terminal.read_until(prompt)
    terminal.type(b"\x1b[A\x1b[A")  # two lines up: the stats before quit
    terminal.read_until(b"stats workers")
    terminal.type(b"\n")
    terminal.read_until(b"workers.")
    terminal.read_until(prompt)
    terminal.type(b"quit\n")
    assert terminal.wait() == 0
