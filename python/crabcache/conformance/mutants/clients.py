# SPDX-License-Identifier: MIT
"""Broken clients: each is the reference client with one method that is wrong."""
from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any

from ... import wire
from ...wire import Feature, Flag
from ..case import Result, choose, run_one
from ..client import CASES, ClientContext, Options
from ..client.lines import Failure, Outcome
from ..client.play import ThreadClient
from ..client.reference import Lost, Pending, ReferenceClient
from . import Mutant, register

MUTANTS: list[Mutant] = []
mutant = register(MUTANTS)


# ------------------------------------------------------------------------------------------------ what it sends


@mutant("4.1.1/1", "it counts characters instead of bytes")
class CountsCharacters(ReferenceClient):
    def encode(self, request: wire.Request) -> bytes:
        frame = super().encode(request)
        characters = len(request.key.decode("utf-8", "ignore")) if request.key else 0
        return frame[:2] + struct.pack("<H", characters) + frame[4:]


@mutant("4.1.1/1", "it forgets the time to live")
class ForgetsTtl(ReferenceClient):
    def encode(self, request: wire.Request) -> bytes:
        if isinstance(request, wire.PutRequest):
            request.flags &= ~wire.PutRequest.TTL
        return super().encode(request)


@mutant("4.1.3/1", "it sends a flag that does not exist")
class StrangeFlag(ReferenceClient):
    def encode(self, request: wire.Request) -> bytes:
        frame = super().encode(request)
        return frame[:1] + bytes([frame[1] | 0x10]) + frame[2:] if isinstance(request, wire.GetRequest) else frame


@mutant("4.4.4/1", "it sends an extension of its own invention")
class StrangeExtension(ReferenceClient):
    def encode(self, request: wire.Request) -> bytes:
        if not request.flags & Flag.EXT:
            request.flags |= Flag.EXT
            request.ext = wire.pack_extensions((0x0123, b"mine"))
        return super().encode(request)


@mutant("3.1.3/1", "it waits for each reply before it sends the next request")
class OneByOne(ReferenceClient):
    def execute(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        return [outcome for request in requests for outcome in super(OneByOne, self).execute([request])]


@mutant("3.4.1/1", "it says PING before HELLO")
class PingFirst(ReferenceClient):
    def exchange(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        if isinstance(requests[0], wire.HelloRequest):
            super().exchange([wire.PingRequest()])
        return super().exchange(requests)


@mutant("3.4.5/1", "it sends QUIET requests before WELCOME")
class Impatient(ReferenceClient):
    def hello(self) -> Any:
        hello = super().hello()
        self.out += wire.encode_request(hello)
        self.out += wire.encode_request(wire.DelRequest(flags=Flag.QUIET | Flag.TAG, key=b"k"))
        hello.flags |= Flag.TAG
        return hello


@mutant("3.4.5/2", "it sends QUIET requests although PUSH was not granted")
class QuietAnyway(ReferenceClient):
    def connect(self) -> None:
        super().connect()
        self.features |= Feature.PUSH

    def quiet(self, request: wire.Request) -> Failure | None:
        failure = super().quiet(request)
        self.barrier()
        return failure


@mutant("12.1.2/1", "it believes every WELCOME")
class BelievesWelcome(ReferenceClient):
    def check_welcome(self, welcome: wire.WelcomeReply) -> None:
        welcome.max_in_flight = max(1, welcome.max_in_flight)


@mutant("6.11.2/1", "it does not care how many requests are in flight")
class Floods(ReferenceClient):
    def window(self, request: wire.Request) -> int:
        return wire.MAX_IN_FLIGHT


@mutant("6.11.2/2", "its QUIET requests take the last place")
class NoPlaceLeft(ReferenceClient):
    def window(self, request: wire.Request) -> int:
        return self.max_in_flight + 1


@mutant("5.12.5/1", "it does not look for failures of QUIET requests")
class ForgetsLate(ReferenceClient):
    def on_push(self, push: Any) -> None:
        pass


@mutant("3.6.2/1", "it writes everything before it reads")
class WritesFirst(ReferenceClient):
    def transport(self) -> None:
        if self.out and self.socket is not None:
            self.socket.settimeout(self.timeout_s)
            try:
                self.socket.sendall(self.out)
            except OSError:
                raise Lost("deadline") from None
            self.sent += len(self.out)
            self.out.clear()
            self.socket.setblocking(False)
        super().transport()


@mutant("4.3.13/1", "it stops sending a request that was refused")
class StopsSending(ReferenceClient):
    def receive(self, reply: Any) -> None:
        super().receive(reply)
        if isinstance(reply, wire.ErrorReply):
            self.out.clear()


# ------------------------------------------------------------------------------------------------- how it reads


@mutant("3.1.2/1", "it takes every read for a whole reply")
class WholeReads(ReferenceClient):
    def take(self) -> Any:
        if self.buffer and isinstance(self.decode(), wire.NeedMore):
            raise Lost("violation")
        return super().take()


@mutant("4.5.3/1", "an unknown reply answers nothing")
class SkipsReplies(ReferenceClient):
    def receive(self, reply: Any) -> None:
        if not isinstance(reply, wire.UnknownReply):
            super().receive(reply)


@mutant("4.5.3/1", "it closes at an unknown reply")
class ClosesAtUnknown(ReferenceClient):
    def receive(self, reply: Any) -> None:
        if isinstance(reply, wire.UnknownReply) and reply.op < 0x80:
            raise Lost("violation")
        super().receive(reply)


@mutant("4.7.3/1", "it takes an unknown push for a reply")
class PushIsReply(ReferenceClient):
    def receive(self, reply: Any) -> None:
        if isinstance(reply, wire.UnknownReply) and reply.op >= 0xC0 and self.waiting:
            self.waiting.popleft().outcome = Failure("unknown")
        else:
            super().receive(reply)


@mutant("4.5.4/1", "it skips what is no reply")
class SkipsGarbage(ReferenceClient):
    def decode(self) -> Any:
        found = super().decode()
        if isinstance(found, wire.Malformed) and found.error == wire.ErrorCode.NOT_CRABCACHE:
            del self.buffer[0]
            return wire.NeedMore(1) if not self.buffer else self.decode()
        return found


@mutant("4.5.5/2", "it believes every length")
class BelievesLengths(ReferenceClient):
    def connect(self) -> None:
        super().connect()
        self.max_len = 0xFFFFFFFF


@mutant("4.5.5/1", "it reads fields that are not there as 0")
class ShortFields(ReferenceClient):
    def decode(self) -> Any:
        found = super().decode()
        if isinstance(found, wire.Malformed) and len(self.buffer) >= 5 and self.buffer[0] == wire.ReplyOp.NUMBER:
            return wire.Whole(wire.NumberReply(value=0), 5 + int.from_bytes(self.buffer[1:5], "little"))
        return found


@mutant("4.5.6/1", "it takes any reply")
class TakesAnyReply(ReferenceClient):
    def check_kind(self, request: wire.Request, reply: Any) -> None:
        pass


@mutant("4.6.3/1", "it does not compare tags")
class IgnoresTags(ReferenceClient):
    def check_tag(self, request: wire.Request, reply: Any) -> None:
        pass


@mutant("4.6.3/2", "it takes unwrapped replies to tagged requests")
class TakesBare(ReferenceClient):
    def check_tag(self, request: wire.Request, reply: Any) -> None:
        if reply.tag is not None:
            super().check_tag(request, reply)


@mutant("4.6.2/1", "it reads the first reply inside TAGGED and forgets the rest")
class LaxInside(ReferenceClient):
    def decode(self) -> Any:
        found = super().decode()
        if isinstance(found, wire.Malformed) and len(self.buffer) > 9 and self.buffer[0] == wire.ReplyOp.TAGGED:
            size = int.from_bytes(self.buffer[1:5], "little")
            inner = wire.decode_reply(bytes(self.buffer[9:5 + size]))
            if isinstance(inner, wire.Whole):
                inner.message.tag = int.from_bytes(self.buffer[5:9], "little")
                return wire.Whole(inner.message, 5 + size)
        return found


@mutant("4.6.1/1", "it goes on after a fatal code inside TAGGED")
class FatalInside(ReferenceClient):
    def receive(self, reply: Any) -> None:
        try:
            super().receive(reply)
        except Lost:
            if not isinstance(reply, wire.ErrorReply) or reply.tag is None:
                raise


@mutant("6.0.1/1", "it wants NUMBER to have 8 bytes")
class ExactLengths(ReferenceClient):
    def take(self) -> Any:
        before = bytes(self.buffer[:5])
        reply = super().take()
        if isinstance(reply, wire.NumberReply) and reply.tag is None and int.from_bytes(before[1:5], "little") != 8:
            raise Lost("violation")
        return reply


@mutant("6.3.1/1", "it takes an empty value for a miss")
class EmptyIsMiss(ReferenceClient):
    def outcome_of(self, reply: Any) -> Outcome:
        return wire.NullReply() if isinstance(reply, wire.ValueReply) and not reply.value else super().outcome_of(reply)


@mutant("6.4.1/1", "it reads the error's text instead of its code")
class ReadsTexts(ReferenceClient):
    def outcome_of(self, reply: Any) -> Outcome:
        if isinstance(reply, wire.ErrorReply) and b"retry" in reply.text:
            return Failure("retry", reply.code)
        return super().outcome_of(reply)


@mutant("8.1.1/2", "it takes unknown codes for permanent ones")
class UnknownIsPermanent(ReferenceClient):
    def class_of(self, code: int) -> str:
        return super().class_of(code) if code in wire.ERROR_TEXTS else "permanent"


@mutant("8.1.2/1", "it repeats a refused request at once and without end")
class Hammers(ReferenceClient):
    def execute(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        while True:
            outcomes = super().execute(requests)
            if not any(isinstance(outcome, Failure) and outcome.how == "retry" and outcome.code for outcome in outcomes):
                return outcomes


@mutant("10.3.1/1", "it takes no value over 1 MiB")
class SmallLimit(ReferenceClient):
    def connect(self) -> None:
        super().connect()
        self.max_len = 1 << 20


# ----------------------------------------------------------------------------------- when the answer does not come


@mutant("3.7.4/1", "it goes on with a connection after a deadline")
class ReusesAfterDeadline(ReferenceClient):
    def exchange(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        kept, self.keep = self.socket, False
        outcomes = super().exchange(requests)
        if self.keep:
            self.socket = kept
        return outcomes

    def on_deadline(self) -> None:
        self.keep = True
        super().on_deadline()

    def close(self) -> None:
        if getattr(self, "keep", False):
            self.socket = None
        else:
            super().close()


@mutant("3.7.4/1", "it waits for ever")
class WaitsForEver(ReferenceClient):
    def on_deadline(self) -> None:
        time.sleep(0.02)


@mutant("9.5.1/1", "it says that what was not answered was not executed")
class SaysNotExecuted(ReferenceClient):
    def give_up(self, pending: Sequence[Pending], lost: Lost) -> None:
        super().give_up(pending, lost)
        for one in pending:
            if isinstance(one.outcome, Failure) and one.outcome.how == "unknown":
                one.outcome = Failure("retry")


@mutant("9.5.4/1", "it repeats what was not answered")
class Repeats(ReferenceClient):
    def execute(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        outcomes = super().execute(requests)
        again = [request for request, outcome in zip(requests, outcomes) if isinstance(outcome, Failure) and outcome.how == "unknown"]
        if again:
            super().execute(again)
        return outcomes


@mutant("9.5.1/3", "it takes the beginning of a reply for the whole")
class TakesPieces(ReferenceClient):
    def on_end(self) -> None:
        if len(self.buffer) > 5:
            self.buffer += bytes(8)
        super().on_end()


@mutant("3.8.2/1", "it gives up at GOAWAY")
class GivesUpAtGoaway(ReferenceClient):
    def on_push(self, push: Any) -> None:
        if isinstance(push, wire.GoawayPush):
            raise Lost("closed")
        super().on_push(push)


@mutant("3.8.2/2", "it goes on after GOAWAY")
class IgnoresGoaway(ReferenceClient):
    def on_push(self, push: Any) -> None:
        if not isinstance(push, wire.GoawayPush):
            super().on_push(push)


@mutant("9.5.3/1", "it goes on after a fatal error")
class GoesOnAfterFatal(ReferenceClient):
    def unwrapped_fatal(self, reply: Any) -> bool:
        return False

    def receive(self, reply: Any) -> None:
        try:
            super().receive(reply)
        except Lost:
            if not isinstance(reply, wire.ErrorReply):
                raise

    def close(self) -> None:
        self.former = getattr(self, "former", [])
        if self.socket is not None:
            self.former.append(self.socket)
        self.socket = None


@mutant("12.1.4/1", "it takes a reply that nobody asked for as the next one's")
class KeepsStale(ReferenceClient):
    def settle(self) -> None:
        pass


@mutant("12.1.2/3", "it takes a reply too many as the next one's")
class TakesSurplus(ReferenceClient):
    def receive(self, reply: Any) -> None:
        if self.waiting or isinstance(reply, wire.ErrorReply):
            super().receive(reply)
        else:
            self.buffer[:0] = wire.encode_reply(reply)
            raise BlockingIOError

    def settle(self) -> None:
        pass

    def exchange(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        try:
            return super().exchange(requests)
        except BlockingIOError:
            return [wire.NumberReply(value=1)]


def judge(mutant: Mutant) -> Result:
    """What the case that must catch a mutant says of it."""
    (case,) = choose(CASES, [mutant.case])
    options = Options(start=lambda: ThreadClient(mutant.broken()), timeout_s=1.0, silence_s=0.05, call_ms=400)
    result = run_one(case, ClientContext(case, options))
    if options.client is not None:
        options.client.end()
    return result
