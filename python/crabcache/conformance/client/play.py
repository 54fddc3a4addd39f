# SPDX-License-Identifier: MIT
"""What a case for clients gets: the client under test at its lines, and the server's end of its connections.

Everything happens in one thread: a case gives the client a command, plays the server, and takes the client's answer.
"""
from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol, Union

from ... import wire
from ...testing.scripted import WELCOME, tag_of
from ...wire import Feature, Flag
from ..case import Case, Failed, Skipped, register
from ..link import Transcript
from .lines import Driver, serve

#: All cases for clients; the modules of this package fill it.
CASES: list[Case] = []

case = register(CASES)

LONGEST_LINE = 64 << 20


Stream = Union[socket.socket, "IO[bytes]"]


def ready(sources: Sequence[Stream], until: float, sinks: Sequence[Stream] = ()) -> list[Stream]:
    """Those of some files that can be read, or written; waits for the first of them, until a time of time.monotonic()."""
    poll = select.poll()  # select() takes no descriptors from 1024 on
    files = {file.fileno(): file for file in (*sources, *sinks)}
    for file in sources:
        poll.register(file, select.POLLIN)
    for file in sinks:
        poll.register(file, select.POLLOUT)
    return [files[fd] for fd, _ in poll.poll(max(0, until - time.monotonic()) * 1000)]


class Client(Protocol):
    """A client under test, at its line protocol."""

    source: IO[bytes]
    sink: IO[bytes]

    def end(self) -> None:
        """Be done with it."""


class ProcessClient:
    """A client that a command runs."""

    def __init__(self, command: str) -> None:
        self.process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                        start_new_session=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.sink: IO[bytes] = self.process.stdin
        self.source: IO[bytes] = self.process.stdout

    def end(self) -> None:
        """End the process: at the end of its input it should, and if not, it is killed."""
        try:
            self.sink.close()
        except OSError:
            pass
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # what it has started, too
            self.process.wait()
        self.source.close()


class ThreadClient:
    """A client in Python, in a thread of this process."""

    def __init__(self, driver: Driver) -> None:
        commands, answers = os.pipe(), os.pipe()
        self.sink: IO[bytes] = os.fdopen(commands[1], "wb", buffering=0)
        self.source: IO[bytes] = os.fdopen(answers[0], "rb", buffering=0)
        self._arguments = (driver, commands[0], answers[1])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        driver, source, sink = self._arguments
        try:
            with os.fdopen(source, "r") as lines, os.fdopen(sink, "wb", buffering=0) as out:
                serve(driver, lines, lambda line: out.write(line.encode()))
        except Exception:
            pass  # as if its process had crashed: the kit reads the end of its answers

    def end(self) -> None:
        """End it at the end of its input."""
        self.sink.close()
        self._thread.join(2)
        self.source.close()


@dataclass
class Options:
    """The client under test."""

    start: Callable[[], Client]
    timeout_s: float = 5.0
    silence_s: float = 0.1
    call_ms: int = 3000  # the deadline that the client is given for its calls
    client: Client | None = None  # runs now, and can be used again


class ClientContext:
    """What one case gets."""

    def __init__(self, case: Case, options: Options) -> None:
        self.case, self.options = case, options
        self.listener: socket.socket | None = None
        self.socket: socket.socket | None = None
        self.connections = 0
        self.log = Transcript("the client under test")
        self._received = bytearray()
        self._answers = bytearray()
        self._owed = 0  # answers that the client has not given yet
        self._first = True  # no request of this connection has come yet
        self._welcomed = False
        self._silence_s = options.silence_s
        self.features = 0
        self.welcome: dict[str, Any] = {}
        self.last: Any = None

    def check_needs(self) -> None:
        """Nothing is needed but the client."""

    def transcript(self) -> list[str]:
        """Commands, answers and bytes: the first and the last of them."""
        lines = self.log.lines()
        return lines if len(lines) <= 60 else [*lines[:12], f"  ... {len(lines) - 52} lines ...", *lines[-40:]]

    def close(self) -> None:
        """Take the connection away from the client, and the client's answers, if it still owes some."""
        for one in (self.socket, self.listener):
            if one is not None:
                one.close()
        client = self.options.client
        if client is None:
            return
        try:
            if self._owed == 0:
                self.command("close")
                self.answer()
                return
        except Exception:
            pass
        client.end()
        self.options.client = None

    # ---- lines

    def command(self, *words: object) -> None:
        """Give the client a command; words may be bytes, which are written in hex."""
        if self.options.client is None:
            self.options.client = self.options.start()
        line = " ".join((word.hex() or "-") if isinstance(word, bytes) else str(word) for word in words)
        self.log.note(f"> {line[:160]}")
        self._write(line.encode() + b"\n")
        if words[0] != "pipeline":
            self._owed += 1

    def _write(self, data: bytes) -> None:
        """Write to the client, which may be busy with its answers."""
        client = self.options.client
        assert client is not None
        view = memoryview(data)
        deadline = time.monotonic() + self.options.timeout_s
        while view:
            found = ready([client.source], deadline, [client.sink])
            if client.source in found:
                self._read_answers()
            if client.sink in found:
                try:
                    view = view[os.write(client.sink.fileno(), view[:4096]):]
                except BrokenPipeError:
                    raise Failed("the client has ended") from None
            if not found:
                raise Failed("the client takes no commands")

    def _read_answers(self) -> None:
        client = self.options.client
        assert client is not None
        data = os.read(client.source.fileno(), 1 << 20)
        if not data:
            self.options.client = None
            client.end()
            raise Failed("the client has ended")
        self._answers += data
        if len(self._answers) > LONGEST_LINE:
            raise Failed("the client's answer has no end")

    def _line(self) -> list[str] | None:
        """An answer, if there is one."""
        line, end, rest = bytes(self._answers).partition(b"\n") if b"\n" in self._answers else (b"", b"", b"")
        if not end:
            return None
        self._answers = bytearray(rest)
        self._owed -= 1
        text = line.decode(errors="replace")
        self.log.note(f"< {text[:160]}")
        words = text.split()
        if words == ["unsupported"]:
            raise Skipped("the client does not support this")
        return words or [""]

    def answer(self, timeout_s: float | None = None) -> list[str]:
        """The client's next answer."""
        client = self.options.client
        deadline = time.monotonic() + (self.options.timeout_s if timeout_s is None else timeout_s)
        while (words := self._line()) is None:
            assert client is not None
            if not ready([client.source], deadline):
                raise Failed("the client does not answer its command")
            self._read_answers()
        return words

    def expect(self, *answers: str) -> list[str]:
        """The client's next answer must be one of some; a `*` at the end of one stands for anything."""
        words = self.answer()
        line = " ".join(words)
        for wanted in answers:
            if line == wanted or wanted.endswith("*") and line.startswith(wanted[:-1]):
                return words
        raise Failed(f"expected the answer {' or '.join(answers)!r}, got {line[:80]!r}")

    # ---- the server's end

    def open(self, *words: str, call_ms: int | None = None, receive_buffer: int | None = None, **welcome: Any) -> None:
        """Listen, let the client open a connection, and answer its HELLO and AUTH; `welcome` changes WELCOME."""
        self.start(*words, call_ms=call_ms, receive_buffer=receive_buffer, **welcome)
        deadline = time.monotonic() + self.options.timeout_s
        while True:
            answered = self._line()
            if answered is not None:
                if answered != ["ok"]:
                    raise Failed(f"open was answered {' '.join(answered)!r}")
                return
            client = self.options.client
            assert client is not None
            found = ready([client.source, *self._ends()], deadline)
            if not found:
                raise Failed("open was not answered")
            if client.source in found:
                self._read_answers()
            elif self.listener in found:
                self.accept()
            else:
                self._handshake_step()

    def start(self, *words: str, call_ms: int | None = None, receive_buffer: int | None = None, **welcome: Any) -> None:
        """Listen, and tell the client to open a connection; what comes is the case's own matter."""
        self.welcome = {**WELCOME, **welcome}
        self.listener = socket.socket()
        if receive_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        host, port = self.listener.getsockname()
        self.command("open", host, port, call_ms or self.options.call_ms, *words)

    def accept(self) -> None:
        """Take the client's next connection in place of the former one."""
        assert self.listener is not None
        self.listener.settimeout(self.options.timeout_s)
        try:
            accepted, _ = self.listener.accept()
        except socket.timeout:
            raise Failed("the client does not connect") from None
        if self.socket is not None:
            self.socket.close()
        self.socket, self._received, self._first, self.features = accepted, bytearray(), True, 0
        accepted.settimeout(self.options.timeout_s)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self.log.note(f"(connection {self.connections})")

    def _handshake_step(self) -> None:
        request = self.frame()
        if request is None:
            assert self.socket is not None
            self.socket.close()
            self.socket = None
        elif not self._shake_hands(request):
            raise Failed(f"open has sent {request.OP.name}")

    def _shake_hands(self, request: Any) -> bool:
        """Answer HELLO, AUTH and PING, which belong to opening a connection; False for anything else."""
        if isinstance(request, wire.HelloRequest):
            self.features = request.features & self.welcome["features"]
            self._welcomed = True
            welcome: dict[str, Any] = {**self.welcome, "features": self.features}
            self.reply(request, wire.WelcomeReply(**welcome))
        elif isinstance(request, wire.AuthRequest):
            self.reply(request, wire.OkReply())
        elif isinstance(request, wire.PingRequest):
            self.reply(request, wire.PongReply())
        else:
            return False
        return True

    def frame(self, timeout_s: float | None = None) -> Any:
        """The client's next request as it comes, HELLO included; None when the client closes."""
        assert self.socket is not None
        size = 1
        while True:
            found = wire.decode_request(bytes(self._received[:size]), 1 << 30)
            if isinstance(found, wire.Whole):
                del self._received[:found.used]
                self._check(found.message)
                return found.message
            if isinstance(found, wire.Malformed):
                raise Failed(f"the client sent a request with the error {found.error.name}")
            size = found.size
            while len(self._received) < size:
                if not self._receive(timeout_s):
                    if self._received:
                        raise Failed("the client has sent a part of a request and then closed")
                    return None

    def _receive(self, timeout_s: float | None = None) -> bool:
        assert self.socket is not None
        self.socket.settimeout(self.options.timeout_s if timeout_s is None else timeout_s)
        try:
            data = self.socket.recv(1 << 18)
        except socket.timeout:
            raise Failed("the client does not send what is expected") from None
        except ConnectionError:
            data = b""
        if data:
            self.log.add("C", data)
            self._received += data
        else:
            self.log.note("(the client closes)")
        return bool(data)

    def _check(self, request: Any) -> None:
        """What no client may do, whatever the case is about."""
        if isinstance(request, wire.HelloRequest) and not self._first:
            raise Failed("HELLO comes after another request")
        if request.flags & Flag.QUIET and not self.features & Feature.PUSH:
            raise Failed("a QUIET request without the feature PUSH")
        self._first = False

    def request(self, kind: type[wire.Request] | None = None) -> Any:
        """The client's next request, on a new connection if it makes one; HELLO and AUTH are answered on the way."""
        deadline = time.monotonic() + self.options.timeout_s
        while True:
            if self.socket is None:
                self.accept()
            if not self._received:
                client = self.options.client
                assert self.listener is not None and self.socket is not None and client is not None
                come = ready([self.listener, self.socket, client.source], deadline)
                if self.listener in come:
                    self.accept()
                    continue
                if client.source in come and self.socket not in come:
                    self._read_answers()
                    if b"unsupported" in self._answers:
                        raise Skipped("the client does not support this")
                    if self._answers.count(b"\n") >= self._owed:
                        raise Failed(f"the client answers {bytes(self._answers[:80])!r} and has sent nothing")
                    continue
            found = self.frame(max(0.01, deadline - time.monotonic()))
            if found is None:
                self.accept()
                continue
            if kind is not None and isinstance(found, kind):
                return found
            if self._shake_hands(found):
                continue
            if kind is None:
                return found
            raise Failed(f"expected {kind.__name__.removesuffix('Request').upper()}, the client sent {found.OP.name}")

    def send(self, *frames: wire.Reply | bytes) -> None:
        """Send replies, or bytes as they are, by one write."""
        assert self.socket is not None
        data = b"".join(f if isinstance(f, bytes) else wire.encode_reply(f) for f in frames)
        self.log.add("S", data)
        self.socket.settimeout(self.options.timeout_s)
        try:
            self.socket.sendall(data)
        except socket.timeout:
            raise Failed("the client does not read") from None
        except ConnectionError:
            self.log.note("(the client has closed)")

    def reply(self, request: Any, reply: wire.Reply) -> None:
        """Answer a request, wrapped if it has a tag."""
        self.send(self.wrapped(request, reply))

    @staticmethod
    def wrapped(request: Any, reply: wire.Reply | bytes) -> bytes:
        """A reply's bytes as the request wants them."""
        frame = reply if isinstance(reply, bytes) else wire.encode_reply(reply)
        tag = tag_of(request)
        return frame if tag is None else struct.pack("<BII", wire.ReplyOp.TAGGED, 4 + len(frame), tag) + frame

    def end_stream(self) -> None:
        """End the server's stream in order."""
        assert self.socket is not None
        self.log.note("(the server ends its stream)")
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection."""
        assert self.socket is not None
        self.log.note("(the server resets)")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.socket = None

    # ---- what the client does

    def expect_closed(self, what: str) -> None:
        """The client must close the connection, and send nothing more on it."""
        assert self.socket is not None
        if self._received or self._receive():
            raise Failed(f"{what}: the client goes on with the connection")
        self.socket.close()
        self.socket = None

    def expect_quiet(self, what: str) -> None:
        """The client must not send anything, nor connect again, for a while; a short one after the first time."""
        if self._received or ready(self._ends(), time.monotonic() + self._silence_s):
            raise Failed(f"{what}: the client goes on")
        self._silence_s = min(self._silence_s, 0.01)

    def expect_same(self, what: str) -> None:
        """The next call must come over the same connection, and be answered."""
        before = self.connections
        self.command("get", b"after")
        request = self.request(wire.GetRequest)
        if self.connections != before:
            raise Failed(f"{what}: the client has made a new connection")
        self.reply(request, wire.ValueReply(value=b"alive"))
        self.expect("value 616c697665")

    def three_incrs(self) -> list[Any]:
        """Let the client send three INCRs in one pipeline, and answer the first."""
        self.open()
        self.command("pipeline", 3)
        for key in (b"a", b"b", b"c"):
            self.command("incr", key, 1)
        requests = [self.request(wire.IncrRequest) for _ in range(3)]
        self.reply(requests[0], wire.NumberReply(value=1))
        return requests

    def violation(self, what: str, frame: bytes | wire.Reply, *, wrap: bool = False, open_words: tuple[str, ...] = ()) -> None:
        """Answer an INCR by what is a violation: its outcome is unknown, the connection is closed, INCR is not repeated."""
        if self.listener is None:
            self.open(*open_words)
        self.command("incr", b"counter", 1)
        request = self.request(wire.IncrRequest)
        data = frame if isinstance(frame, bytes) else wire.encode_reply(frame)
        self.send(self.wrapped(request, data) if wrap else data)
        began = time.monotonic()
        words = self.answer()
        if words[:2] != ["failed", "unknown"]:
            raise Failed(f"{what}: the client says {' '.join(words)!r} of a request whose outcome is unknown")
        if time.monotonic() - began > self.options.call_ms / 2000:
            raise Failed(f"{what}: the client notices nothing, and waits for its deadline")
        self.expect_closed(what)
        self.expect_quiet(what)

    # ---- finer looks

    @property
    def welcomed(self) -> bool:
        """Whether this connection has had a HELLO."""
        return self._welcomed

    def pending(self) -> bool:
        """Whether some of a request is there already."""
        assert self.socket is not None
        return bool(self._received) or bool(ready([self.socket], 0))

    def peek(self, size: int) -> bytes:
        """The first bytes of the next request, which stay where they are; not the rest of it."""
        if self.socket is None:
            self.accept()
        while len(self._received) < size:
            if not self._receive():
                raise Failed("the client has closed")
            found = wire.decode_request(bytes(self._received), 1 << 30)
            if isinstance(found, wire.Whole) and self._shake_hands(found.message):
                del self._received[:found.used]
        return bytes(self._received[:size])

    def request_of(self, *kinds: type[wire.Request]) -> Any:
        """The next request, which must be of one of some kinds; nothing is answered on the way."""
        client = self.options.client
        assert self.socket is not None and client is not None
        while not self._received:
            found = ready([self.socket, client.source], time.monotonic() + self.options.timeout_s)
            if self.socket in found or not found:
                break
            self._read_answers()
            if b"unsupported" in self._answers:
                raise Skipped("the client does not support this")
        request = self.frame()
        if not isinstance(request, kinds):
            raise Failed(f"the client sent {'nothing more' if request is None else request.OP.name}")
        return request

    def expect_nothing_quiet(self, what: str) -> None:
        """No QUIET request may come for a while."""
        assert self.socket is not None
        end = time.monotonic() + self.options.silence_s
        while ready([self.socket], end):
            request = self.frame()
            if request is None or request.flags & Flag.QUIET:
                raise Failed(f"{what}: {'the client has closed' if request is None else 'a QUIET request'}")

    def _ends(self) -> list[Stream]:
        """What the client may come by: the listener, and the connection if there is one."""
        assert self.listener is not None
        return [self.listener] if self.socket is None else [self.listener, self.socket]

    def stop_listening(self) -> None:
        """Be ready for another open()."""
        for one in (self.socket, self.listener):
            if one is not None:
                one.close()
        self.socket = self.listener = None

    @contextmanager
    def meanwhile_answering(self, gets: int, value: bytes) -> Iterator[None]:
        """A server that writes each reply out before it reads on, in a thread: GETs with a value, all else with OK."""
        failures: list[BaseException] = []

        def answer() -> None:
            try:
                for _ in range(gets + 64):
                    request = self.request()
                    wants = request.flags & wire.PutRequest.WANT_VERSION
                    ok = wire.StoredReply(version=9) if wants else wire.OkReply()
                    self.reply(request, wire.ValueReply(value=value) if isinstance(request, wire.GetRequest) else ok)
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(self.options.timeout_s * 2)
        if failures:
            raise failures[0]
        if thread.is_alive():
            raise Failed("the pipeline got stuck")

    def answer_or_request(self, kind: type[wire.Request]) -> list[str] | None:
        """The client's answer, or None if a request came first, on this or a new connection: it is in `last`."""
        deadline = time.monotonic() + self.options.timeout_s
        while True:
            words = self._line()
            if words is not None:
                return words
            client = self.options.client
            assert client is not None
            held = [self.socket] if self._received and self.socket else None
            found = held or ready([client.source, *self._ends()], deadline)
            if not found:
                raise Failed("the client neither answers nor sends")
            if client.source in found:
                self._read_answers()
            elif self.socket is not None and self.socket in found:
                request = self.frame()
                if request is None:
                    self.lost()
                elif isinstance(request, kind):
                    self.last = request
                    return None
                elif not self._shake_hands(request):
                    raise Failed(f"the client sent {request.OP.name}")
            else:
                self.accept()

    def lost(self) -> None:
        """The connection is over."""
        if self.socket is not None:
            self.socket.close()
        self.socket, self._received = None, bytearray()

    def expect_no_repetition(self, what: str) -> None:
        """For a while the client may at most connect again, but not send a write."""
        end = time.monotonic() + self.options.silence_s
        self.lost()
        while True:
            found = ready(self._ends(), end)
            if not found:
                return
            if self.listener in found:
                self.accept()
            elif (request := self.frame()) is None:
                self.lost()
            elif not self._shake_hands(request):
                raise Failed(f"{what}: the client has sent {request.OP.name} again")
