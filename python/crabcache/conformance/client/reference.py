# SPDX-License-Identifier: MIT
"""A client in plain Python, as close to the words of spec/PROTOCOL.md as code can be; each rule is a method of its own.

It is what the kit's broken clients are made from, and an example to read: one connection, pipelining, tags, QUIET.
"""
from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ... import wire
from ...wire import ErrorClass, Feature, Flag
from ..server.vectors import ANSWERS
from .lines import Failure, Late, Outcome

MAX_LEN = wire.CEILING_MAX_VALUE + 29


class Lost(Exception):
    """The connection is of no use any more; `why` is a word: deadline, closed, violation, fatal, refused."""

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.why, self.code = why, code


class Pending:
    """A request and what became of it."""

    def __init__(self, request: wire.Request) -> None:
        self.request = request
        self.outcome: Outcome | None = None
        self.end = 0  # where its last byte stands in all that was queued
        self.quiet_before = 0  # QUIET requests that its reply ends


class ReferenceClient:
    """A Driver that speaks the protocol by itself."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.late: list[tuple[int, int]] = []
        self.quiet_queue: list[wire.Request] = []

    # ---- the connection

    def open(self, host: str, port: int, timeout_ms: int, words: dict[str, str]) -> Failure | None:
        """Remember where the server is, and connect."""
        self.address, self.timeout_s, self.words = (host, port), timeout_ms / 1000, words
        try:
            self.connect()
        except Lost as lost:
            self.close()
            return Failure("retry" if lost.why == "refused" else "unknown", lost.code)
        return None

    def connect(self) -> None:
        """Connect, and say HELLO and AUTH if asked to [P-3.4.1]."""
        self.buffer, self.out, self.sent, self.queued = bytearray(), bytearray(), 0, 0
        self.waiting: deque[Pending] = deque()
        self.next_tag, self.quiet_in_flight, self.quiet_open, self.goaway = 0, 0, 0, False
        self.features, self.max_in_flight, self.max_len = 0, wire.MAX_IN_FLIGHT, MAX_LEN
        try:
            self.socket = socket.create_connection(self.address, self.timeout_s)
        except OSError:
            raise Lost("refused") from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        if "push" in self.words:
            (hello,) = self.exchange([self.hello()])
            if not isinstance(hello, wire.WelcomeReply):
                raise Lost("fatal", hello.code if isinstance(hello, Failure) else None)
            self.check_welcome(hello)
            self.features, self.max_in_flight = hello.features, hello.max_in_flight
            self.max_len = max(hello.max_value + 29, wire.MAX_STATS_TEXT + 9)
        if "user" in self.words:
            (reply,) = self.exchange([wire.AuthRequest(key=bytes.fromhex(self.words["user"]),
                                                       value=bytes.fromhex(self.words["secret"]))])
            if isinstance(reply, Failure):
                raise Lost("fatal", reply.code)

    def hello(self) -> wire.HelloRequest:
        """[P-5.7.3]"""
        return wire.HelloRequest(version_min=1, version_max=1, features=Feature.PUSH, value=b"reference client")

    def check_welcome(self, welcome: wire.WelcomeReply) -> None:
        """[P-12.1.2]"""
        if welcome.version != 1 or welcome.features & ~int(Feature.PUSH) or welcome.max_in_flight == 0:
            raise Lost("violation")

    def close(self) -> None:
        """Close; nothing of this connection is used again [P-3.7.4]."""
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    # ---- requests

    def execute(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        """Send requests and give their outcomes."""
        try:
            for request in requests:
                wire.encode_request(request)
        except wire.EncodeError:
            return [Failure("refused") for _ in requests]
        try:
            self.settle()
            if self.socket is None:
                self.connect()
        except Lost as lost:
            self.close()
            return [Failure("retry" if lost.why == "refused" else "unknown", lost.code) for _ in requests]
        return self.exchange(requests)

    def settle(self) -> None:
        """What came while nothing was asked for: pushes, or a reason to close [P-12.1.2]."""
        if self.socket is None:
            return
        try:
            self.transport()
            while (message := self.take()) is not None:
                self.receive(message)
        except Lost:
            self.close()
        if self.goaway:
            self.close()

    def quiet(self, request: wire.Request) -> Failure | None:
        """QUIET requests wait for the barrier [P-5.12.5]."""
        if not self.features & Feature.PUSH:
            return Failure("refused")
        request.flags |= Flag.QUIET | Flag.TAG
        request.tag = len(self.quiet_queue)
        self.quiet_queue.append(request)
        return None

    def barrier(self) -> Outcome:
        """All QUIET requests, and a PING behind them."""
        requests, self.quiet_queue, self.late = [*self.quiet_queue, wire.PingRequest()], [], []
        outcome = self.execute(requests)[-1]
        return outcome if isinstance(outcome, Failure) else Late(tuple(self.late))

    def exchange(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        """Send and receive until each request has its outcome, or the connection is lost."""
        pending = [Pending(request) for request in requests]
        later = deque(pending)
        deadline = time.monotonic() + self.timeout_s
        try:
            while later or self.waiting or self.out:
                while later and len(self.waiting) + self.quiet_in_flight < self.window(later[0].request):
                    self.queue(later.popleft())
                if later and not self.waiting:
                    self.queue(Pending(wire.PingRequest()))  # only a reply ends the QUIET requests
                self.wait(deadline)
                self.transport()
                while (reply := self.take()) is not None:
                    self.receive(reply)
                    deadline = time.monotonic() + self.timeout_s
        except Lost as lost:
            self.close()
            self.give_up(pending, lost)
        return [one.outcome for one in pending]

    def window(self, request: wire.Request) -> int:
        """How many requests may be in flight before this one is sent [P-6.11.2]."""
        return self.max_in_flight - (1 if request.flags & Flag.QUIET else 0)

    def queue(self, one: Pending) -> None:
        """Put a request's bytes into the output."""
        if "tags" in self.words and not one.request.flags & Flag.QUIET:
            one.request.flags |= Flag.TAG
            one.request.tag = self.next_tag
            self.next_tag = (self.next_tag + 1) & 0xFFFFFFFF
        frame = self.encode(one.request)
        self.out += frame
        self.queued += len(frame)
        one.end = self.queued
        if one.request.flags & Flag.QUIET:
            self.quiet_in_flight += 1
            self.quiet_open += 1
            one.outcome = wire.OkReply()
        else:
            one.quiet_before, self.quiet_open = self.quiet_open, 0
            self.waiting.append(one)

    def encode(self, request: wire.Request) -> bytes:
        """A request's bytes."""
        return wire.encode_request(request)

    def wait(self, deadline: float) -> None:
        """Wait until something can be read or written [P-3.6.2]."""
        if self.take_possible():
            return
        assert self.socket is not None
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | (select.POLLOUT if self.out else 0))
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            self.on_deadline()

    def on_deadline(self) -> None:
        """[P-3.7.4]"""
        raise Lost("deadline")

    def take_possible(self) -> bool:
        """Whether a whole frame is there already."""
        return bool(self.buffer) and isinstance(self.decode(), wire.Whole)

    def transport(self) -> None:
        """Write what can be written and read what can be read."""
        assert self.socket is not None
        try:
            if self.out:
                size = self.socket.send(self.out)
                self.sent += size
                del self.out[:size]
        except BlockingIOError:
            pass
        except OSError:
            self.out.clear()  # what the server said before it closed can still be read
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            raise Lost("reset") from None
        if not data:
            self.on_end()
        self.buffer += data

    def on_end(self) -> None:
        """The server has ended its stream."""
        if not self.take_possible():
            raise Lost("closed")

    # ---- replies

    def decode(self) -> wire.Whole | wire.NeedMore | wire.Malformed:
        """What stands at the start of the buffer [P-4.5.7]."""
        size = 1
        while True:
            found = wire.decode_reply(bytes(self.buffer[:size]), self.max_len)
            if not isinstance(found, wire.NeedMore) or len(self.buffer) < found.size:
                return found
            size = found.size

    def take(self) -> Any:
        """The next frame, if it is whole."""
        if not self.buffer:
            return None
        found = self.decode()
        if isinstance(found, wire.Malformed):
            raise Lost("violation")
        if isinstance(found, wire.NeedMore):
            return None
        del self.buffer[:found.used]
        return found.message

    def receive(self, reply: Any) -> None:
        """A frame from the server: a push, or the reply to the oldest request."""
        op = reply.op if isinstance(reply, wire.UnknownReply) else reply.OP
        if wire.in_ranges(op, wire.PUSH_OPS):
            self.on_push(reply)
            return
        if not self.waiting:
            raise Lost("fatal" if isinstance(reply, wire.ErrorReply) else "violation")
        if self.unwrapped_fatal(reply):
            raise Lost("fatal", reply.code)
        self.check_tag(self.waiting[0].request, reply)
        self.check_kind(self.waiting[0].request, reply)
        one = self.waiting.popleft()
        self.quiet_in_flight -= one.quiet_before
        one.outcome = self.outcome_of(reply)
        if isinstance(reply, wire.ErrorReply) and reply.code in wire.CLOSING_ERRORS:
            raise Lost("fatal")

    def on_push(self, push: Any) -> None:
        """[P-4.7.3] [P-7.1.1] [P-3.8.2]"""
        if isinstance(push, wire.LateErrorPush):
            self.late.append((push.late_tag, push.code))
        elif isinstance(push, wire.GoawayPush):
            self.goaway = True

    def unwrapped_fatal(self, reply: Any) -> bool:
        """An unwrapped ERROR in place of a TAGGED is fatal [P-4.6.4]; so is one of the fatal codes."""
        if not isinstance(reply, wire.ErrorReply) or reply.tag is not None:
            return False
        return bool(self.waiting[0].request.flags & Flag.TAG) or reply.code in wire.CLOSING_ERRORS

    def check_tag(self, request: wire.Request, reply: Any) -> None:
        """[P-4.6.3]"""
        if reply.tag != (request.tag if request.flags & Flag.TAG else None):
            raise Lost("violation")

    def check_kind(self, request: wire.Request, reply: Any) -> None:
        """[P-4.5.6]"""
        known = not isinstance(reply, wire.UnknownReply)
        if known and not isinstance(reply, wire.ErrorReply) and reply.OP not in ANSWERS[request.OP]:
            raise Lost("violation")

    def outcome_of(self, reply: Any) -> Outcome:
        """[P-9.5.5]"""
        if isinstance(reply, wire.UnknownReply):
            return Failure("unknown")
        return Failure(self.class_of(reply.code), reply.code) if isinstance(reply, wire.ErrorReply) else reply

    def class_of(self, code: int) -> str:
        """[P-8.1.1]"""
        return {int(ErrorClass.RETRY): "retry", int(ErrorClass.PERMANENT): "permanent"}.get(code >> 8, "unknown")

    def give_up(self, pending: Sequence[Pending], lost: Lost) -> None:
        """The outcomes of what is left when the connection is lost [P-9.5.5]."""
        oldest = self.waiting[0] if self.waiting else None
        for one in pending:
            if one.outcome is not None:
                continue
            if one.end == 0 or one.end > self.sent:
                one.outcome = Failure("retry")  # its last byte was never sent
            elif lost.why == "fatal" and one is oldest and lost.code is not None:
                one.outcome = Failure(self.class_of(lost.code), lost.code)
            elif lost.why == "fatal" and lost.code is not None or lost.why == "closed" and self.goaway and not self.buffer:
                one.outcome = Failure("retry")
            else:
                one.outcome = Failure("unknown")
        self.waiting.clear()


def main() -> None:
    """The line protocol on standard input and output."""
    import sys

    from .lines import serve

    def sink(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    serve(ReferenceClient(), sys.stdin, sink)


if __name__ == "__main__":
    main()
