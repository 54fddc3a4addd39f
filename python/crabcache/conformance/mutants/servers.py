# SPDX-License-Identifier: MIT
"""Broken servers: each is the reference server with one method that is wrong."""
from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ... import wire
from ...testing.model import Store, error
from ...testing.reference import ReferenceServer, Session
from ...wire import ErrorCode, Feature, Flag
from ..case import Result, choose, run_one
from ..server import CASES, Options, ServerContext
from . import Mutant, register

MUTANTS: list[Mutant] = []
mutant = register(MUTANTS)

USERS = {b"Ada": b"secret word"}
SMALL = 1 << 20


# ------------------------------------------------------------------------------------- transport and frames


@mutant("3.1.4/1", "it greets")
class Greets(ReferenceServer):
    def greeting(self) -> bytes:
        return b"\x11"


@mutant("3.1.2/1", "it takes every read for a whole frame")
class WholeReads(Session):
    def look(self, data: bytes) -> Any:
        found = super().look(data)
        return wire.Malformed(ErrorCode.BAD_FRAME) if isinstance(found, wire.NeedMore) else found


@mutant("3.2.2/1", "it waits for a header before it refuses a foreign protocol")
class WaitsForHeader(Session):
    def decode(self, data: bytes) -> Any:
        return super().decode(data) if len(data) >= wire.REQUEST_HEADER else wire.NeedMore(wire.REQUEST_HEADER)


@mutant("3.2.2/3", "it looks for requests in what a foreign protocol says")
class LooksForRequests(Session):
    def fatal(self, code: ErrorCode) -> None:
        at = self.buffer.find(b"\x02\0")
        if code == ErrorCode.NOT_CRABCACHE and at > 0:
            rest = bytes(self.buffer[at:])
            self.buffer.clear()
            self.feed(rest)
        super().fatal(code)


@mutant("3.2.4/1", "it takes CR LF for a foreign protocol")
class RefusesLineEnds(Session):
    def decode(self, data: bytes) -> Any:
        return wire.Malformed(ErrorCode.NOT_CRABCACHE) if data[:2] == b"\r\n" else super().decode(data)


@mutant("3.7.1/2", "it executes what the end of the stream has cut")
class ExecutesPieces(ReferenceServer):
    def finish(self, connection: socket.socket) -> None:
        session = self._sessions[connection]
        if len(session.buffer) > 8:
            session.feed(bytes(1))
        super().finish(connection)


@mutant("3.7.3/1", "it closes with unread bytes, which resets the connection")
class Resets(ReferenceServer):
    def finish(self, connection: socket.socket) -> None:
        time.sleep(0.01)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


@mutant("3.6.3/1", "it closes slow connections without a word")
class NoGoaway(ReferenceServer):
    def goaway(self, connection: socket.socket, session: Session, code: ErrorCode) -> None:
        pass


@mutant("3.8.1/1", "it says GOAWAY twice")
class TwoGoaways(ReferenceServer):
    def goaway(self, connection: socket.socket, session: Session, code: ErrorCode) -> None:
        super().goaway(connection, session, code)
        super().goaway(connection, session, code)


@mutant("4.1.3/1", "it refuses flags that it does not know")
class RefusesFlags(Session):
    def execute(self, request: Any) -> Any:
        unknown = request.flags & ~int(request.OWN_FLAGS | Flag.TAG | Flag.EXT | Flag.QUIET)
        return error(ErrorCode.BAD_FLAGS) if unknown else super().execute(request)


@mutant("4.3.13/1", "it forgets a byte of long frames that it skips")
class SkipsTooLittle(Session):
    def skip(self, size: int) -> None:
        super().skip(size - (size > 1_000_000))


@mutant("4.3.7/0", "it takes a missing key for a broken frame")
class FatalKeys(Session):
    def refuse(self, found: wire.Malformed) -> None:
        super().refuse(wire.Malformed(ErrorCode.BAD_FRAME) if found.error == ErrorCode.BAD_KEY else found)


@mutant("4.3.8/1", "its limit of values is one byte off")
class LimitOffByOne(Session):
    def decode(self, data: bytes) -> Any:
        return wire.decode_request(data, self.server.max_value + 1)


@mutant("4.3.14/1", "it takes QUIET from those who did not ask for PUSH")
class QuietForAll(Session):
    def quiet_allowed(self) -> bool:
        return True


@mutant("4.3.16/1", "it takes an expiry of 0 for a deletion")
class ZeroDeletes(Session):
    def refuse(self, found: wire.Malformed) -> None:
        if found.error == ErrorCode.BAD_FIELD and found.op == wire.Op.EXPIRE:
            size = int.from_bytes(self.buffer[2:4], "little")
            self.server.store.items.pop(bytes(self.buffer[found.skip - size:found.skip]), None)
        super().refuse(found)


@mutant("4.4.3/1", "it ignores critical extensions")
class IgnoresCritical(Session):
    def decode(self, data: bytes) -> Any:
        found = super().decode(data)
        if isinstance(found, wire.Malformed) and found.error == ErrorCode.UNKNOWN_EXTENSION:
            front = 8 + (4 if data[1] & Flag.TAG else 0)
            if data[0] in (wire.Op.PUT, wire.Op.GET, wire.Op.PING) and not data[1] & 0x1F:
                changed = bytearray(data)
                at = front + 2
                while at < front + 2 + int.from_bytes(data[front:front + 2], "little"):
                    changed[at + 1] &= 0x7F
                    at += 4 + int.from_bytes(data[at + 2:at + 4], "little")
                return super().decode(bytes(changed))
        return found


@mutant("4.4.2/1", "it refuses every extension")
class RefusesExtensions(Session):
    def execute(self, request: Any) -> Any:
        return error(ErrorCode.UNKNOWN_EXTENSION) if request.ext else super().execute(request)


@mutant("4.5.1/1", "its NULL has a header")
class LongNull(Session):
    def say(self, reply: wire.Reply) -> None:
        super().say(reply)
        if isinstance(reply, wire.NullReply):
            self.output += bytes(4)


@mutant("4.6.1/1", "its errors never come wrapped")
class BareErrors(Session):
    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        super().answer(flags & ~int(Flag.TAG) if isinstance(reply, wire.ErrorReply) and not flags & Flag.QUIET else flags, tag, reply)


@mutant("4.6.1/1", "it wraps by the wrong tag")
class WrongTag(Session):
    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        super().answer(flags, None if tag is None else tag ^ 1 if not flags & Flag.QUIET else tag, reply)


@mutant("4.7.2/1", "it pushes to those who did not ask")
class PushesUnasked(Session):
    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        super().answer(flags, tag, reply)
        if isinstance(reply, wire.ErrorReply):
            self.say(wire.LateErrorPush(late_tag=0, code=reply.code))


@mutant("8.2.1/1", "it wraps fatal errors")
class WrappedFatal(Session):
    def fatal(self, code: ErrorCode) -> None:
        tagged = len(self.buffer) >= 8 and self.buffer[1] & Flag.TAG
        reply = error(code)
        reply.tag = 1 if tagged else None
        self.say(reply)
        self.closing = True


@mutant("12.1.1/1", "it goes on after a broken frame")
class GoesOn(Session):
    def fatal(self, code: ErrorCode) -> None:
        super().fatal(code)
        self.buffer.clear()
        self.closing = False


@mutant("10.3.1/1", "it explains errors at length")
class LongTexts(Session):
    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        if isinstance(reply, wire.ErrorReply) and not flags & (Flag.QUIET | Flag.TAG):
            text = b"there is much to be said about this. " * 20
            self.output += struct.pack("<BIH", 0x13, 2 + len(text), reply.code) + text
        else:
            super().answer(flags, tag, reply)


# ------------------------------------------------------------------------------------------ HELLO and AUTH


@mutant("3.4.3/1", "it takes HELLO at any time")
class HelloAnytime(Session):
    def hello(self, request: wire.HelloRequest) -> Any:
        self.ready = False
        return super().hello(request)


@mutant("3.3.1/2", "a HELLO that failed leads to READY")
class FailedHelloCounts(Session):
    def hello(self, request: wire.HelloRequest) -> Any:
        reply = super().hello(request)
        self.ready = True
        return reply


@mutant("3.4.2/2", "it wants exactly its version")
class OneVersion(Session):
    def hello(self, request: wire.HelloRequest) -> Any:
        return error(ErrorCode.UNSUPPORTED_VERSION) if request.version_max != 1 and not self.ready else super().hello(request)


@mutant("3.4.4/1", "it switches on PUSH unasked")
class PushForAll(Session):
    def hello(self, request: wire.HelloRequest) -> Any:
        request.features |= Feature.PUSH
        return super().hello(request)


@mutant("5.7.2/1", "it grants features that do not exist")
class GrantsAll(Session):
    def hello(self, request: wire.HelloRequest) -> Any:
        reply = super().hello(request)
        if isinstance(reply, wire.WelcomeReply):
            reply.features = request.features
        return reply


@mutant("6.11.1/1", "it allows no request in flight")
class NoneInFlight(Session):
    def hello(self, request: wire.HelloRequest) -> Any:
        reply = super().hello(request)
        if isinstance(reply, wire.WelcomeReply):
            reply.max_in_flight = 0
        return reply


@mutant("3.5.2/1", "an AUTH that failed does not undo the one before")
class AuthSticks(Session):
    def auth(self, request: wire.AuthRequest) -> Any:
        before = self.authenticated
        reply = super().auth(request)
        self.authenticated = self.authenticated or before
        return reply


@mutant("3.5.1/1", "it forgets to ask for AUTH before DECR")
class OpenDoor(Session):
    def must_authenticate(self, data: bytes) -> bool:
        return data[0] != wire.Op.DECR and super().must_authenticate(data)


@mutant("3.5.4/1", "it asks for AUTH before it checks the frame")
class AuthFirst(Session):
    def front_passed(self, data: bytes, found: Any) -> bool:
        return len(data) >= wire.REQUEST_HEADER


@mutant("3.5.5/1", "it takes long bodies before AUTH")
class LongBodies(Session):
    def must_authenticate(self, data: bytes) -> bool:
        return super().must_authenticate(data[:4] + bytes(4))


@mutant("5.8.1/1", "it trims secrets")
class TrimsSecrets(Session):
    def auth(self, request: wire.AuthRequest) -> Any:
        request.value = request.value.strip()
        return super().auth(request)


# ------------------------------------------------------------------------------------------------- requests


@mutant("1.1.1/1", "it has no FLUSH")
class NoFlush(Session):
    def execute(self, request: Any) -> Any:
        return error(ErrorCode.UNKNOWN_OP) if isinstance(request, wire.FlushRequest) else super().execute(request)


@mutant("4.2.2/1", "it takes an empty value for an absent one")
class EmptyIsAbsent(Store):
    def get(self, request: wire.GetRequest) -> Any:
        reply = super().get(request)
        return wire.NullReply() if isinstance(reply, wire.ValueReply) and not reply.value else reply


@mutant("5.0.2/1", "its items live a second longer")
class LivesLonger(Store):
    def end_of(self, ttl_ms: int) -> int | None:
        end = super().end_of(ttl_ms)
        return None if end is None else end + 1000


@mutant("5.2.1/1", "a PUT keeps the application flags of the item before")
class KeepsFlags(Store):
    def put(self, request: wire.PutRequest) -> Any:
        before = self.find(request.key)
        reply = super().put(request)
        if before and not request.flags & wire.PutRequest.APP_FLAGS:
            self.items[request.key].app_flags = before.app_flags
        return reply


@mutant("5.2.2/1", "it ignores IF_ABSENT")
class IgnoresAbsent(Store):
    def put(self, request: wire.PutRequest) -> Any:
        if request.flags & wire.PutRequest.IF_VERSION == wire.PutRequest.IF_ABSENT:
            request.flags &= ~wire.PutRequest.IF_ABSENT
        return super().put(request)


@mutant("5.2.4/1", "STORED names the version before")
class StaleVersion(Store):
    def put(self, request: wire.PutRequest) -> Any:
        reply = super().put(request)
        if isinstance(reply, wire.StoredReply):
            reply.version -= 1
        return reply


@mutant("5.2.5/1", "a PUT that does not fit takes the former item away")
class LosesOnFull(ReferenceServer):
    def on_items(self, request: Any) -> Any:
        reply = super().on_items(request)
        if isinstance(reply, wire.ErrorReply) and reply.code == ErrorCode.OUT_OF_MEMORY:
            self.store.items.pop(request.key, None)
        return reply


@mutant("5.3.2/1", "a touch gives a new version")
class TouchWrites(Store):
    def get(self, request: wire.GetRequest) -> Any:
        item = self.find(request.key)
        if item and request.flags & wire.GetRequest.TTL:
            item.version = self.version()
        return super().get(request)


@mutant("6.7.1/1", "it rounds the time left down")
class RoundsDown(Store):
    def left(self, item: Any) -> int:
        left = super().left(item)
        return left if left == wire.TTL_NEVER else left - 1


@mutant("5.4.1/1", "DEL says OK whether there was an item or not")
class DelAlwaysOk(Store):
    def delete(self, request: wire.DelRequest) -> Any:
        super().delete(request)
        return wire.OkReply()


@mutant("9.4.2/1", "EXPIRE gives a new version")
class ExpireWrites(Store):
    def expire(self, request: wire.ExpireRequest) -> Any:
        item = self.find(request.key)
        if item:
            item.version = self.version()
        return super().expire(request)


@mutant("9.2.2/1", "EXPIRE brings expired items back")
class Revives(Store):
    def expire(self, request: wire.ExpireRequest) -> Any:
        if request.key in self.items:
            self.items[request.key].expires_ms = None
        return super().expire(request)


@mutant("5.6.1/1", "its statistics do not end with a line feed")
class NoLastLine(Session):
    def stats(self, request: wire.StatsRequest) -> Any:
        reply = super().stats(request)
        if isinstance(reply, wire.StatsReply):
            reply.text = reply.text[:-1]
        return reply


@mutant("5.9.1/1", "FLUSH leaves the newest item")
class FlushLeavesOne(Store):
    def flush(self, request: wire.FlushRequest) -> Any:
        last = list(self.items.items())[-1:]
        reply = super().flush(request)
        self.items.update(last)
        return reply


@mutant("5.10.1/1", "numbers stop at the end of their range instead of refusing")
class Saturates(Store):
    def count(self, request: Any) -> Any:
        reply = super().count(request)
        if isinstance(reply, wire.ErrorReply) and reply.code == ErrorCode.OVERFLOW:
            return wire.NumberReply(value=2**63 - 1)
        return reply


@mutant("5.10.2/1", "it takes numbers with blanks and leading zeros")
class LaxNumbers(Store):
    def count(self, request: Any) -> Any:
        item = self.find(request.key)
        if item:
            try:
                item.value = b"%d" % int(item.value)
            except ValueError:
                pass
        return super().count(request)


@mutant("5.10.3/1", "it adds delta to `initial`")
class AddsToInitial(Store):
    def count(self, request: Any) -> Any:
        if self.find(request.key) is None and request.flags & wire.IncrRequest.INITIAL:
            request.initial += request.delta
        return super().count(request)


@mutant("5.10.4/1", "INCR lets a present item expire")
class IncrExpires(Store):
    def count(self, request: Any) -> Any:
        reply = super().count(request)
        if request.flags & wire.IncrRequest.TTL and request.key in self.items:
            self.items[request.key].expires_ms = self.end_of(request.ttl_ms)
        return reply


@mutant("10.1.1/1", "its keys have at most 250 bytes")
class ShortKeys(Session):
    def execute(self, request: Any) -> Any:
        return error(ErrorCode.BAD_KEY) if len(request.key) > 250 else super().execute(request)


# ------------------------------------------------------------------------------------------ QUIET and order


@mutant("5.12.1/1", "it answers NULL to quiet requests")
class QuietNull(Session):
    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        super().answer(flags & ~int(Flag.QUIET) if isinstance(reply, wire.NullReply) else flags, tag, reply)


@mutant("5.12.1/2", "LATE_ERROR names no request")
class LateWithoutTag(Session):
    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        super().answer(flags, 0 if flags & Flag.QUIET else tag, reply)


@mutant("5.12.3/1", "LATE_ERRORs come when there is nothing else to do")
class LateAtLast(Session):
    def feed(self, data: bytes) -> bytes:
        late: list[bytes] = []
        self.late = late
        return super().feed(data) + b"".join(late)

    def say(self, reply: wire.Reply) -> None:
        if isinstance(reply, wire.LateErrorPush):
            self.late.append(wire.encode_reply(reply))
        else:
            super().say(reply)


@mutant("9.1.1/1", "it answers what is quick before what is slow")
class OutOfOrder(Session):
    def feed(self, data: bytes) -> bytes:
        self.slow = bytearray()
        return super().feed(data) + bytes(self.slow)

    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        super().answer(flags, tag, reply)
        if isinstance(reply, wire.ValueReply):
            self.slow += self.output[-5 - len(reply.value):]
            del self.output[-5 - len(reply.value):]


@mutant("9.1.1/1", "it answers INCR twice")
class TwoAnswers(Session):
    def answer(self, flags: int, tag: int | None, reply: wire.Reply) -> None:
        super().answer(flags, tag, reply)
        if isinstance(reply, wire.NumberReply):
            super().answer(flags, tag, reply)


@mutant("9.2.1/1", "its INCR is a reading and a writing")
class NotAtomic(ReferenceServer):
    def on_items(self, request: Any) -> Any:
        if not isinstance(request, wire.IncrRequest):
            return super().on_items(request)
        value = self.store.items[request.key].value if request.key in self.store.items else None
        self.lock.release()
        time.sleep(0)
        self.lock.acquire()
        if value is not None and request.key in self.store.items:
            self.store.items[request.key].value = value
        return super().on_items(request)


@mutant("9.2.3/1", "META's flags are read after its value")
class TornMeta(ReferenceServer):
    def on_items(self, request: Any) -> Any:
        reply = super().on_items(request)
        if isinstance(reply, wire.MetaReply):
            self.lock.release()
            time.sleep(0.0005)
            self.lock.acquire()
            again = super().on_items(request)
            reply.app_flags = again.app_flags if isinstance(again, wire.MetaReply) else 0
        return reply


@mutant("9.4.3/1", "versions count from 1 for each item")
class CountsVersions(Store):
    def put(self, request: wire.PutRequest) -> Any:
        before = self.find(request.key)
        version = before.version + 1 if before else 1
        reply = super().put(request)
        if isinstance(reply, (wire.OkReply, wire.StoredReply)):
            self.items[request.key].version = version
        return reply


@mutant("9.4.1/1", "a PUT of the same bytes keeps the version")
class SameBytesSameVersion(Store):
    def put(self, request: wire.PutRequest) -> Any:
        before = self.find(request.key)
        reply = super().put(request)
        if before and isinstance(reply, wire.OkReply) and before.value == request.value:
            self.items[request.key].version = before.version
        return reply


# ----------------------------------------------------------------------------------------------- judging them


def server_of(broken: type, **options: Any) -> ReferenceServer:
    """The reference server with one of its parts replaced."""
    parts: dict[str, Any] = {"session_type": Session, "store_type": Store}
    base: type = ReferenceServer
    if issubclass(broken, Session):
        parts["session_type"] = broken
    elif issubclass(broken, Store):
        parts["store_type"] = broken
    else:
        base = broken
    return type(broken.__name__, (base,), parts)(**options)  # type: ignore[no-any-return]


@contextmanager
def started(broken: type = ReferenceServer, timeout_s: float = 5.0, stall_s: float = 2.0) -> Iterator[Options]:
    """Three servers of a kind, one for everything, one with users, and one that is soon full; and how to test them."""
    with server_of(broken, stall_s=stall_s) as plain, server_of(broken, users=USERS) as guarded, server_of(broken, memory=SMALL) as small:
        (user, secret), = USERS.items()
        yield Options(server=plain.address, auth_server=guarded.address, user=user, secret=secret, small_server=small.address,
                      stop=plain.stop, deadline_s=stall_s * 10, timeout_s=timeout_s, silence_s=0.05)


def judge(mutant: Mutant) -> Result:
    """What the case that must catch a mutant says of it."""
    (case,) = choose(CASES, [mutant.case])
    with started(mutant.broken, timeout_s=0.7, stall_s=0.2) as options:
        ServerContext.welcomes.clear()
        return run_one(case, ServerContext(case, options))
