# SPDX-License-Identifier: MIT
"""Sections 5.1 to 5.11 and 6: what each request does and answers."""
from __future__ import annotations

import re
import time

from ... import wire
from ...wire import ErrorCode
from ..build import delete, expire, flush, get, hello, incr, ping, put, stats
from ..case import Failed, Skipped
from ..link import Link, show
from .context import ServerContext, case

INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)


def expect_item(link: Link, key: bytes, **fields: object) -> wire.MetaReply:
    """META of a key must have these fields."""
    meta = link.meta(key)
    for name, value in fields.items():
        if getattr(meta, name) != value:
            raise Failed(f"the item has {name} {getattr(meta, name)!r}, not {value!r}")
    return meta


# ------------------------------------------------------------------------------------------- time to live


@case("5.0.2", 1)
def time_to_live(context: ServerContext) -> None:
    """an item is there until its time to live is over, and then not"""
    link, key, never = context.connect(), context.key(), context.key("never")
    link.ok(put(never, ttl=wire.TTL_NEVER))
    for ttl in (200, 2000, 20_000):  # the longer ones only where the machine is so busy that the short one says nothing
        began = time.monotonic()
        link.ok(put(key, ttl=ttl))
        there = link.value(key) is not None
        if not there and time.monotonic() - began > ttl / 1000:
            continue
        if not there:
            raise Failed(f"an item with {ttl} ms to live is gone at once")
        context.sleep_ms(ttl + 30)
        if link.value(key) is not None:
            raise Failed(f"an item with {ttl} ms to live is there after {ttl + 30} ms")
        break
    expect_item(link, never, ttl_ms=wire.TTL_NEVER)


@case("5.0.2", 2, covers=("2.4.1",))
def ends_of_the_range(context: ServerContext) -> None:
    """a time to live may be 1 ms and 2^53 - 1 ms, and neither 0 nor 2^53"""
    link, key = context.connect(), context.key()
    link.ok(put(key, ttl=wire.TTL_MAX_MS))
    if not wire.TTL_MAX_MS - 60_000 < link.meta(key).ttl_ms <= wire.TTL_MAX_MS:
        raise Failed("the longest time to live is not kept")
    link.ok(expire(key, 1))
    context.sleep_ms(5)
    if link.value(key) is not None:
        raise Failed("an item with 1 ms to live is there after 5 ms")


# ---------------------------------------------------------------------------------------------------- PING


@case("5.1.1", 1)
def pong_in_turn(context: ServerContext) -> None:
    """PONG comes after the replies of all requests before it, LATE_ERRORs included"""
    link, key = context.push(), context.key()
    link.send(put(key, b"x"), incr(key, quiet=True, tag=5), ping(tag=6))
    link.expect(wire.OkReply)
    link.expect(wire.LateErrorPush, late_tag=5, code=ErrorCode.NOT_A_NUMBER)
    link.expect(wire.PongReply, tag=6)


# ----------------------------------------------------------------------------------------------------- PUT


@case("5.2.1", 1)
def put_replaces_all(context: ServerContext) -> None:
    """PUT replaces value, time to live and application flags"""
    link, key = context.connect(), context.key()
    link.ok(put(key, b"one", ttl=600_000, app_flags=0xFFFFFFFF))
    expect_item(link, key, value=b"one", app_flags=0xFFFFFFFF)
    link.ok(put(key, b"two"))
    expect_item(link, key, value=b"two", app_flags=0, ttl_ms=wire.TTL_NEVER)


@case("5.2.2", 1, covers=("5.2.3", "6.8.1"))
def conditions(context: ServerContext) -> None:
    """each line of the table of conditions"""
    link, key = context.connect(), context.key()
    for request in (put(key, present=True), put(key, version=1)):
        link.send(request)
        link.expect(wire.NullReply, "a condition that wants an item, without one")
    if link.value(key) is not None:
        raise Failed("a PUT answered NULL has stored")
    link.ok(put(key, b"1", absent=True))
    version = link.meta(key).version
    for request in (put(key, b"x", absent=True), put(key, b"x", version=version % wire.TTL_NEVER + 1)):
        link.send(request)
        link.expect(wire.ExistsReply, "a condition that does not hold", version=version)
    expect_item(link, key, value=b"1", version=version)
    link.ok(put(key, b"2", present=True))
    link.ok(put(key, b"3", version=link.meta(key).version))
    expect_item(link, key, value=b"3")


@case("5.2.4", 1, covers=("6.10.1",))
def want_version(context: ServerContext) -> None:
    """WANT_VERSION is answered with the new item's version, and changes no other answer"""
    link, key = context.connect(), context.key()
    link.send(put(key, want=True, present=True))
    link.expect(wire.NullReply)
    link.send(put(key, want=True))
    version = link.expect(wire.StoredReply).version
    link.send(put(key, want=True, absent=True))
    link.expect(wire.ExistsReply, version=version)
    expect_item(link, key, version=version)


@case("5.2.5", 1, needs=("small",), covers=("5.10.5", "8.1.2"))
def out_of_memory(context: ServerContext) -> None:
    """where an item does not fit, it is refused, and the former one stands"""
    link, value = context.connect(context.options.small_server), bytes(50_000)
    keys = [context.key(str(number)) for number in range(20_000)]
    stored: list[bytes] = []
    try:
        for key in keys:
            reply = link.call(put(key, value))
            if isinstance(reply, wire.ErrorReply):
                break
            stored.append(key)
        else:
            raise Skipped("1 GB fits: the server is not small")
        if reply.code != ErrorCode.OUT_OF_MEMORY:
            raise Failed(f"a full server answers {show(reply)}")
        reply = link.call(put(stored[0], bytes(min(1_000_000, context.welcome(context.options.small_server).max_value))))
        if isinstance(reply, wire.ErrorReply) and link.value(stored[0]) != value:
            raise Failed("the former item is gone after OUT_OF_MEMORY")
        if any(link.value(key) != value for key in stored[1:]):
            raise Failed("an item is gone from a server that does not evict")
    finally:
        for key in stored:
            link.call(delete(key))


# ----------------------------------------------------------------------------------------------------- GET


@case("5.3.1", 1, covers=("6.5.1", "6.7.1"))
def get_and_meta(context: ServerContext) -> None:
    """GET gives VALUE, META or NULL, and the value is exactly what was stored"""
    link, key = context.connect(), context.key()
    for request in (get(key), get(key, meta=True)):
        link.send(request)
        link.expect(wire.NullReply)
    for value in (b"", b"\0", bytes(range(256)) * 4, b"\r\n" * 50_000):
        link.ok(put(key, value, ttl=90_000, app_flags=0x80000001))
        if link.value(key) != value:
            raise Failed(f"a value of {len(value)} bytes came back changed")
        meta = expect_item(link, key, value=value, app_flags=0x80000001)
        if meta.version == 0 or not 60_000 < meta.ttl_ms <= 90_000:
            raise Failed(f"META says {show(meta)}")


@case("5.3.2", 1)
def touch(context: ServerContext) -> None:
    """GET with TTL gives a new time to live, changes no version and creates nothing"""
    link, key = context.connect(), context.key()
    link.send(get(key, ttl=1000))
    link.expect(wire.NullReply)
    if link.value(key) is not None:
        raise Failed("a touch has created an item")
    link.ok(put(key, b"v", ttl=3000))
    version = link.meta(key).version
    link.send(expire(key, 100), get(key, ttl=600_000, meta=True))
    link.expect(wire.OkReply)
    meta = link.expect(wire.MetaReply, version=version, value=b"v")
    if not 500_000 < meta.ttl_ms <= 600_000:
        raise Failed(f"META says the time to live {meta.ttl_ms}, not the new one")
    context.sleep_ms(130)
    link.send(get(key, ttl=wire.TTL_NEVER))
    link.expect(wire.ValueReply, "after the former time to live", value=b"v")
    expect_item(link, key, ttl_ms=wire.TTL_NEVER, version=version)


@case("6.7.1", 1)
def time_left(context: ServerContext) -> None:
    """the time left is rounded up and never 0"""
    link, key = context.connect(), context.key()
    for ttl in (1, 1, 2, 3) * 25:  # read at once, in the same pipeline
        link.send(put(key, ttl=ttl), *[get(key, meta=True) for _ in range(4)])
        link.expect(wire.OkReply)
        for _ in range(4):
            reply = link.receive()
            left = isinstance(reply, wire.MetaReply) and 1 <= reply.ttl_ms <= ttl
            if not left and not isinstance(reply, wire.NullReply):
                raise Failed(f"of {ttl} ms are left: {show(reply)}")


# --------------------------------------------------------------------------------- DEL, EXPIRE, STATS, FLUSH


@case("5.4.1", 1)
def del_(context: ServerContext) -> None:
    """DEL removes: OK, and then NULL"""
    link, key = context.connect(), context.key()
    link.ok(put(key))
    link.ok(delete(key))
    if link.value(key) is not None:
        raise Failed("a deleted item is there")
    link.send(delete(key))
    link.expect(wire.NullReply)


@case("5.5.1", 1, covers=("9.4.2",))
def expire_changes_one_thing(context: ServerContext) -> None:
    """EXPIRE gives any time to live and changes nothing else"""
    link, key = context.connect(), context.key()
    link.send(expire(key, 1000))
    link.expect(wire.NullReply)
    link.ok(put(key, b"v", app_flags=9))
    version = link.meta(key).version
    for ttl in (600_000, 60_000, wire.TTL_NEVER):
        link.ok(expire(key, ttl))
        meta = expect_item(link, key, value=b"v", app_flags=9, version=version)
        if not (meta.ttl_ms == ttl or ttl - 50_000 < meta.ttl_ms <= ttl):
            raise Failed(f"EXPIRE {ttl} left {meta.ttl_ms}")
    link.ok(expire(key, 60))
    context.sleep_ms(80)
    if link.value(key) is not None:
        raise Failed("an item is there after its new time to live")


STATS_LINE = re.compile(rb"([a-z0-9_]{1,64})\.([a-z0-9_.]+):([^\x00-\x1f\x7f]*)\n")


@case("5.6.1", 1, covers=("5.6.2", "10.3.1"))
def sections(context: ServerContext) -> None:
    """STATS has its five sections, and its text is what the ABNF says"""
    link = context.connect()
    link.send(stats())
    text = link.expect(wire.StatsReply).text
    rest = STATS_LINE.sub(b"", text)
    if rest or len(text) > wire.MAX_STATS_TEXT:
        raise Failed(f"not lines of statistics: {rest[:80]!r}")
    text.decode()
    found = {match[1] for match in STATS_LINE.finditer(text)}
    for section in (b"server", b"connections", b"store", b"workers", b"ops"):
        link.send(stats(section))
        alone = {match[1] for match in STATS_LINE.finditer(link.expect(wire.StatsReply).text)}
        if alone != {section} or section not in found:
            raise Failed(f"section {section!r} alone has lines of {alone}")
    for section in (b"Server", b"server.", b"serve", b"\0"):
        link.send(stats(section))
        link.expect_error(ErrorCode.UNKNOWN_SECTION, what=f"section {section!r}")


@case("5.9.1", 1, needs=("flush",), covers=("5.9.2",))
def flush_all(context: ServerContext) -> None:
    """FLUSH takes away what was written before it, and nothing that comes after"""
    link, other = context.push(), context.connect()
    first, second, third = (context.key(name) for name in "abc")
    other.ok(put(first))
    link.send(put(second, quiet=True, tag=1), flush(), put(third), get(first), get(second), get(third))
    link.expect(wire.OkReply, "FLUSH")
    link.expect(wire.OkReply, "PUT")
    link.expect(wire.NullReply, "an item of another connection")
    link.expect(wire.NullReply, "an item of a QUIET write before FLUSH")
    link.expect(wire.ValueReply, "an item written after FLUSH")


# --------------------------------------------------------------------------------------------- INCR, DECR


def expect_number(link: Link, number: int, request: wire.Request) -> None:
    """A request must be answered NUMBER, and the number must stand."""
    link.send(request)
    link.expect(wire.NumberReply, value=number)
    if link.value(request.key) != b"%d" % number:
        raise Failed(f"NUMBER {number} was answered, {link.value(request.key)!r} is stored")


@case("5.10.1", 1, covers=("5.11.1",))
def sums(context: ServerContext) -> None:
    """sums are exact, and those outside 64 bits are OVERFLOW and change nothing"""
    link, key = context.connect(), context.key()
    for start, delta, down, result in ((5, 10, False, 15), (5, 10, True, -5), (-1, 1, False, 0), (0, 1, True, -1),
                                       (INT64_MIN, 2**64 - 1, False, INT64_MAX), (INT64_MAX, 2**64 - 1, True, INT64_MIN),
                                       (-10, 0, False, -10), (INT64_MAX - 1, 1, False, INT64_MAX)):
        link.ok(put(key, b"%d" % start))
        expect_number(link, result, incr(key, delta, down=down))
    for start, delta, down in ((INT64_MAX, 1, False), (INT64_MIN, 1, True), (1, 2**64 - 1, False), (-2, 2**64 - 1, True)):
        link.ok(put(key, b"%d" % start))
        link.send(incr(key, delta, down=down))
        link.expect_error(ErrorCode.OVERFLOW, what=f"{start} {'-' if down else '+'} {delta}")
        if link.value(key) != b"%d" % start:
            raise Failed("OVERFLOW has changed the value")


@case("5.10.2", 1)
def what_is_a_number(context: ServerContext) -> None:
    """only the shortest decimal form of a 64-bit number is a number"""
    link, key = context.connect(), context.key()
    wrong = [b"", b"-", b"-0", b"+1", b"007", b"1 ", b" 1", b"1\n", b"1\0", b"0x10", b"1e3", b"1.0", b"--1", b"9223372036854775808",
             b"-9223372036854775809", b"99999999999999999999", b"184467440737095516160", "١".encode()]
    for value in wrong:
        link.ok(put(key, value))
        link.send(incr(key))
        link.expect_error(ErrorCode.NOT_A_NUMBER, what=f"{value!r} + 1")
        if link.value(key) != value:
            raise Failed(f"NOT_A_NUMBER has changed {value!r}")
    for number in (0, 7, -7, INT64_MAX, INT64_MIN, 10**18):
        link.ok(put(key, b"%d" % number))
        expect_number(link, number, incr(key, 0))


@case("5.10.3", 1)
def absent_numbers(context: ServerContext) -> None:
    """an absent key is NULL, or gets `initial` where that is given"""
    link, key = context.connect(), context.key()
    link.send(incr(key), get(key))
    link.expect(wire.NullReply)
    link.expect(wire.NullReply)
    expect_number(link, -3, incr(key, 10, initial=-3, ttl=60_000))
    meta = expect_item(link, key, app_flags=0)
    if not 50_000 < meta.ttl_ms <= 60_000:
        raise Failed(f"the time to live is {meta.ttl_ms}")
    other = context.key("other")
    expect_number(link, INT64_MIN, incr(other, 1, initial=INT64_MIN, down=True))
    expect_item(link, other, ttl_ms=wire.TTL_NEVER)


@case("5.10.4", 1)
def present_numbers(context: ServerContext) -> None:
    """a present item keeps its time to live and flags, and gets a new version, also by 0"""
    link, key = context.connect(), context.key()
    link.ok(put(key, b"1", ttl=600_000, app_flags=77))
    version = link.meta(key).version
    for delta in (1, 0):
        expect_number(link, 2, incr(key, delta, initial=500, ttl=5))
        meta = expect_item(link, key, app_flags=77)
        if meta.version == version or meta.ttl_ms < 500_000:
            raise Failed(f"INCR by {delta} left {show(meta)}")
        version = meta.version


@case("5.10.6", 1)
def numbers_are_not_limited(context: ServerContext) -> None:
    """`max_value` does not limit what INCR stores"""
    if context.welcome().max_value >= 20:
        raise Skipped("the server takes values of 20 bytes")
    expect_number(context.connect(), INT64_MIN, incr(context.key(), initial=INT64_MIN))


# ------------------------------------------------------------------------------------------------- WELCOME


@case("6.11.1", 1, covers=("6.11.2", "10.3.1"))
def limits_of_welcome(context: ServerContext) -> None:
    """the limits in WELCOME are those that the specification allows"""
    link = context.connect()
    link.send(hello())
    welcome = link.expect(wire.WelcomeReply, max_key=wire.MAX_KEY)
    if not 0 < welcome.max_value <= wire.CEILING_MAX_VALUE or welcome.max_in_flight < 1 or len(welcome.server_name) > 255:
        raise Failed(f"WELCOME says {show(welcome)}")
