# SPDX-License-Identifier: MIT
"""Section 9: order, atomicity, versions."""
from __future__ import annotations

import threading

from ... import wire
from ...wire import ErrorCode
from ..build import delete, expire, get, incr, ping, put
from ..case import Failed
from .context import ServerContext, case


@case("9.1.1", 1, covers=("5.0.1", "3.6.1"))
def own_writes(context: ServerContext) -> None:
    """the requests of a connection are executed and answered in their order, each exactly once"""
    link, keys = context.connect(), [context.key(str(number)) for number in range(150)]
    link.send(*[request for number, key in enumerate(keys) for request in
                (put(key, b"%d" % number, tag=number), get(key), incr(key, 1000), delete(key, tag=number), get(key))])
    for number in range(len(keys)):
        link.expect(wire.OkReply, tag=number)
        link.expect(wire.ValueReply, value=b"%d" % number)
        link.expect(wire.NumberReply, value=number + 1000)
        link.expect(wire.OkReply, tag=number)
        link.expect(wire.NullReply)
    link.expect_silence("after the last reply")


@case("9.1.2", 1)
def seen_means_done(context: ServerContext) -> None:
    """what one connection was answered, another one sees"""
    first, second, key = context.connect(), context.connect(), context.key()
    for number in range(100):
        first.ok(put(key, b"%d" % number))
        if second.value(key) != b"%d" % number:
            raise Failed("a PUT was answered, and another connection does not see it")
        second.ok(delete(key))
        if first.value(key) is not None:
            raise Failed("a DEL was answered, and another connection does not see it")


@case("9.1.3", 1)
def failure_stops_nothing(context: ServerContext) -> None:
    """a request that fails does not keep the later ones from being executed"""
    link, key = context.connect(), context.key()
    link.send(put(key, b"x"), incr(key), put(key, b"5"), incr(key), get(key))
    link.expect(wire.OkReply)
    link.expect_error(ErrorCode.NOT_A_NUMBER)
    link.expect(wire.OkReply)
    link.expect(wire.NumberReply, value=6)
    link.expect(wire.ValueReply, value=b"6")


@case("9.2.1", 1)
def counting_together(context: ServerContext) -> None:
    """INCRs of several connections lose no step"""
    key, links, each = context.key(), [context.connect() for _ in range(4)], 300
    seen: list[int] = []

    def count(number: int) -> None:
        links[number].send(*[incr(key, initial=1) for _ in range(each)])
        seen.extend(links[number].expect(wire.NumberReply).value for _ in range(each))

    def others(_over: threading.Event) -> None:
        threads = [threading.Thread(target=count, args=(number,)) for number in range(1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with context.meanwhile(others):
        count(0)
    if sorted(seen) != list(range(1, 4 * each + 1)):
        raise Failed(f"{4 * each} INCRs gave {len(set(seen))} different numbers up to {max(seen)}")


@case("9.2.2", 1)
def expired_is_gone(context: ServerContext) -> None:
    """an expired item never comes back: EXPIRE and a touch find nothing"""
    link, key = context.connect(), context.key()
    link.ok(put(key, ttl=30))
    context.sleep_ms(50)
    link.send(expire(key, 60_000), get(key, ttl=60_000), incr(key), delete(key), put(key, present=True))
    for what in ("EXPIRE", "a touch", "INCR", "DEL", "PUT with IF_PRESENT"):
        link.expect(wire.NullReply, f"{what} of an expired item")


@case("9.2.3", 1)
def no_mixtures(context: ServerContext) -> None:
    """a reader never sees a mixture of two values, nor one with the flags of another"""
    key, writer, reader = context.key(), context.connect(), context.connect()
    states = {(bytes([65 + number]) * (20_000 + 997 * number), number) for number in range(6)}

    def write(over: threading.Event) -> None:
        while not over.is_set():
            for value, number in states:
                writer.ok(put(key, value, app_flags=number))

    reader.ok(put(key, *[(value) for value, number in states if number == 0], app_flags=0))
    with context.meanwhile(write):
        for _ in range(400):
            meta = reader.meta(key)
            if (meta.value, meta.app_flags) not in states:
                raise Failed(f"a value of {len(meta.value)} bytes with the flags {meta.app_flags} was never stored")


@case("9.4.1", 1, covers=("9.4.3",))
def versions_are_new(context: ServerContext) -> None:
    """each write gives a version that the key has never had"""
    link, key = context.connect(), context.key()
    seen: set[int] = {0}
    for number in range(60):
        if number % 3 == 2:
            link.send(incr(key, 0))
            link.expect(wire.NumberReply)
        else:
            if number % 6 == 0:
                link.call(delete(key))
            link.ok(put(key, b"5"))
        version = link.meta(key).version
        if version in seen:
            raise Failed(f"version {version} came twice" if version else "a version is 0")
        seen.add(version)


@case("9.4.2", 1)
def versions_stay(context: ServerContext) -> None:
    """EXPIRE, a touch and reading change no version"""
    link, key = context.connect(), context.key()
    link.ok(put(key))
    version = link.meta(key).version
    for request in (expire(key, 60_000), get(key, ttl=70_000), get(key), expire(key, wire.TTL_NEVER)):
        link.call(request)
        if link.meta(key).version != version:
            raise Failed(f"{request.OP.name} has changed the version")
    link.ok(put(key, b"next", version=version))


@case("9.4.3", 1)
def old_versions_fail(context: ServerContext) -> None:
    """a PUT with a version that was replaced never succeeds"""
    link, key = context.connect(), context.key()
    link.ok(put(key, b"same"))
    old = link.meta(key).version
    for write in (put(key, b"same"), incr(key, initial=1), put(key, b"same", ttl=60_000)):
        if isinstance(write, wire.IncrRequest):
            link.ok(put(key, b"1"))
        link.call(write)
        link.send(put(key, b"lost", version=old))
        if link.expect(wire.ExistsReply).version == old:
            raise Failed("EXISTS names the version that was asked for")
        link.send(delete(key), put(key, b"same"), put(key, b"lost", version=old), ping())
        link.expect(wire.OkReply)
        link.expect(wire.OkReply)
        link.expect(wire.ExistsReply, "the version of an item that was deleted and stored again")
        link.expect(wire.PongReply)
