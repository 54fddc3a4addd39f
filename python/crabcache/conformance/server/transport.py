# SPDX-License-Identifier: MIT
"""Sections 3.1, 3.2 and 13: the transport, the first byte, closing."""
from __future__ import annotations

import socket
import statistics
import time

from ... import wire
from ...wire import ErrorCode
from ..build import delete, get, hello, ping, put, raw
from ..case import Failed, Skipped
from .context import ServerContext, case


@case("3.1.1", 1, covers=("13.1.1",))
def no_datagrams(context: ServerContext) -> None:
    """there is no UDP behind the port"""
    address = context.options.server
    if isinstance(address, str):
        raise Skipped("the server listens on a unix socket")
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(context.options.silence_s)
        datagrams.connect(address)
        try:
            datagrams.send(wire.encode_request(ping()))
            answer = datagrams.recv(65536)
        except (socket.timeout, ConnectionRefusedError):
            return
    raise Failed(f"a datagram was answered: {answer[:32].hex(' ')}")


@case("3.1.2", 1, covers=("4.2.1", "2.1.3"))
def single_bytes(context: ServerContext) -> None:
    """frames that arrive byte by byte are served"""
    link, key = context.connect(), context.key()
    for frame in (put(key, b"v", ttl=60_000, app_flags=7, tag=5), get(key), ping(ext=b"")):
        for byte in wire.encode_request(frame):
            link.send(bytes([byte]))
    link.expect(wire.OkReply, tag=5)
    link.expect(wire.ValueReply, value=b"v")
    link.expect(wire.PongReply)


@case("3.1.2", 2)
def split_everywhere(context: ServerContext) -> None:
    """two frames cut at any place are served"""
    key = context.key()
    frames = wire.encode_request(put(key, b"value")) + wire.encode_request(get(key, tag=1))
    link = context.connect()
    for cut in range(1, len(frames)):
        link.send(frames[:cut])
        time.sleep(0.0005)
        link.send(frames[cut:])
        link.expect(wire.OkReply, f"cut after {cut} bytes")
        link.expect(wire.ValueReply, f"cut after {cut} bytes", value=b"value", tag=1)


@case("3.1.2", 3)
def many_at_once(context: ServerContext) -> None:
    """many frames that arrive at once are served, the last one unfinished"""
    link, last = context.connect(), wire.encode_request(ping(tag=77))
    link.send(*[ping(tag=n) for n in range(300)], last[:5])
    for number in range(300):
        link.expect(wire.PongReply, tag=number)
    link.send(last[5:])
    link.expect(wire.PongReply, tag=77)


@case("3.1.3", 1, should=True)
def no_delay(context: ServerContext) -> None:
    """small replies are not held back (TCP_NODELAY)"""
    link, times = context.connect(), []
    for _ in range(12):
        link.send(ping())
        time.sleep(0.001)
        began = time.monotonic()
        link.send(ping())
        link.expect(wire.PongReply)
        link.expect(wire.PongReply)
        times.append(time.monotonic() - began)
    if statistics.median(times) > 0.03:
        raise Failed(f"the second of two replies takes {statistics.median(times) * 1000:.0f} ms")


@case("3.1.4", 1)
def no_greeting(context: ServerContext) -> None:
    """the server says nothing first"""
    context.connect().expect_silence("on a new connection")


@case("3.2.2", 1, covers=("4.3.1",))
def first_bytes_of_others(context: ServerContext) -> None:
    """each byte outside the request ranges is refused by itself"""
    for byte in [0, *range(0x10, 0x80), *range(0xC0, 0x100)]:
        link = context.connect()
        link.send(bytes([byte]))
        link.expect_error(ErrorCode.NOT_CRABCACHE, what=f"first byte {byte:#04x}")
        link.expect_end(f"first byte {byte:#04x}")
        context.drop(link)


@case("3.2.2", 2)
def lost_in_the_middle(context: ServerContext) -> None:
    """a byte outside the ranges is refused in the middle of a stream, too"""
    link, key = context.connect(), context.key()
    link.send(put(key), b"G")
    link.expect(wire.OkReply)
    link.expect_error(ErrorCode.NOT_CRABCACHE)
    link.expect_end()


@case("3.2.2", 3, covers=("13.2.1", "12.1.3", "3.7.2"))
def nothing_after(context: ServerContext) -> None:
    """what comes after a foreign byte is not executed"""
    key, link = context.key(), context.connect()
    link.send(b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n", put(key))
    link.expect_error(ErrorCode.NOT_CRABCACHE)
    link.expect_end()
    if context.connect().value(key) is not None:
        raise Failed("a PUT in the body of an HTTP request was executed")


@case("3.2.2", 4, covers=("4.3.2",))
def header_is_awaited(context: ServerContext) -> None:
    """a byte inside the ranges is not answered before the header is whole"""
    for op in (0x01, 0x0F, 0x80, 0xBF):
        link = context.connect()
        link.send(raw(op)[:7])
        link.half_close()
        link.expect_end(f"7 bytes of a header, op {op:#04x}")
        context.drop(link)


@case("3.2.4", 1)
def line_ends(context: ServerContext) -> None:
    """CR LF CR LF is no foreign protocol yet, and then an unknown op"""
    link = context.connect()
    link.send(b"\r\n\r\n")
    link.expect_silence("after CR LF CR LF")
    link.send(b"\0\0\0\0")
    link.expect_error(ErrorCode.UNKNOWN_OP)
    link.alive()


@case("3.7.1", 1, covers=("3.6.1",))
def end_of_the_client(context: ServerContext) -> None:
    """requests before the end of the client's stream are executed and answered"""
    key, link = context.key(), context.connect()
    link.send(put(key), get(key), delete(key), ping())
    link.half_close()
    for kind in (wire.OkReply, wire.ValueReply, wire.OkReply, wire.PongReply):
        link.expect(kind)
    link.expect_end()


@case("3.7.1", 2, covers=("4.3.10",))
def end_inside_a_frame(context: ServerContext) -> None:
    """an incomplete frame at the end is neither executed nor answered"""
    key, link = context.key(), context.connect()
    link.send(ping(), wire.encode_request(put(key, b"whole"))[:-1])
    link.half_close()
    link.expect(wire.PongReply)
    link.expect_end()
    if context.connect().value(key) is not None:
        raise Failed("a PUT without its last byte was executed")


@case("3.7.1", 3)
def end_inside_a_refused_frame(context: ServerContext) -> None:
    """an incomplete frame whose answer is decided is answered"""
    link = context.connect()
    link.send(raw(0x8F, b"abc", blen=1000))
    link.half_close()
    link.expect_error(ErrorCode.UNKNOWN_OP)
    link.expect_end()


@case("3.7.2", 1, covers=("8.2.1", "4.6.4"))
def order_of_the_end(context: ServerContext) -> None:
    """a fatal error comes after the replies before it, unwrapped, and is the last frame"""
    key, link = context.key(), context.connect()
    link.send(put(key), get(key, tag=3), raw(0x01, b"\1\0\0\0x", flags=wire.Flag.TAG), delete(key))
    link.expect(wire.OkReply)
    link.expect(wire.ValueReply, tag=3)
    link.expect_error(ErrorCode.BAD_FRAME, what="a fatal error comes without its tag")
    link.expect_end()
    if context.connect().value(key) is None:
        raise Failed("a request after a fatal error was executed")


@case("3.7.3", 1, should=True)
def error_survives(context: ServerContext) -> None:
    """a fatal error arrives although the client is still sending"""
    link = context.connect()
    link.send(b"*" + bytes(1 << 20))
    link.expect_error(ErrorCode.NOT_CRABCACHE)
    link.expect_end()


@case("3.6.3", 1, should=True, needs=("deadline",), covers=("13.4.3",))
def deadline_of_a_frame(context: ServerContext) -> None:
    """a connection that stops inside a frame is closed, with GOAWAY IDLE_TIMEOUT"""
    link = context.push()
    link.send(wire.encode_request(put(context.key()))[:-1])
    message = link.receive(timeout_s=context.options.deadline_s)
    if not isinstance(message, wire.GoawayPush) or message.code != ErrorCode.IDLE_TIMEOUT:
        raise Failed(f"expected GOAWAY IDLE_TIMEOUT, got {message}")
    link.expect_end()


@case("11.1.6", 1, should=True, covers=("3.3.2",))
def version_1_without_hello(context: ServerContext) -> None:
    """without HELLO the server speaks version 1, and without features"""
    key, link = context.key(), context.connect()
    link.ok(put(key))
    link.send(put(key, quiet=True, tag=1))
    link.expect_error(ErrorCode.QUIET_MISUSE)
    other = context.connect()
    other.send(hello())
    other.expect(wire.WelcomeReply, version=1)
