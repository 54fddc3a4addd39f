# SPDX-License-Identifier: MIT
"""The C codec and the Python codec agree: on every generated message, on every truncation, on bytes changed and at random."""
from __future__ import annotations

import ctypes
import subprocess
from ctypes import c_char_p, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from test_spec_codec import replies, requests, w

pytestmark = pytest.mark.once

MAX_VALUE, MAX_LEN = 500, 1000
CAPACITY = 1 << 17
WHOLE, NEED_MORE, MALFORMED = range(3)


class View(ctypes.Structure):
    """struct view of codec_view.c."""

    _fields_ = [("size", c_uint64), ("fields", c_uint64 * 6), *[(name, c_uint64) for name in (
        "ext_at", "ext_len", "key_at", "key_len", "tail_at", "tail_len")], ("tag", c_uint32), ("error", c_uint16), ("kind", c_uint8),
        ("op", c_uint8), ("flags", c_uint8), ("tagged", c_uint8)]


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("codec") / "codec_view.so"
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Wconversion",
                    "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-Iinclude", "tests/system/codec_view.c", "-o", str(library)],
                   cwd=ROOT, check=True, stdin=subprocess.DEVNULL, timeout=120)
    loaded = ctypes.CDLL(str(library))
    for function in (loaded.view_request, loaded.view_reply):
        function.argtypes = [c_char_p, c_size_t, c_uint32, ctypes.POINTER(View), c_char_p, c_size_t]
        function.restype = c_size_t
    loaded.view_size.restype = c_size_t
    assert loaded.view_size() == ctypes.sizeof(View)
    return loaded


def bytes_at(data: bytes, at: int, size: int) -> bytes:
    return data[at:at + size]


def numbers(message: Any) -> list[int]:
    """The fixed fields as 64 bits without a sign, as the view has them."""
    return [getattr(message, part.name) % 2**64 for part in message.LAYOUT]


def agree(codec: ctypes.CDLL, direction: str, data: bytes) -> None:
    """Both codecs must say the same of some bytes, and encode what they have decoded alike."""
    if not data:
        return  # how many bytes a decoder wants that has none is its own matter
    view, again = View(), ctypes.create_string_buffer(CAPACITY)
    is_request = direction == "request"
    if is_request:
        size = codec.view_request(data, len(data), MAX_VALUE, ctypes.byref(view), again, CAPACITY)
        found = w.decode_request(data, MAX_VALUE)
    else:
        size = codec.view_reply(data, len(data), MAX_LEN, ctypes.byref(view), again, CAPACITY)
        found = w.decode_reply(data, MAX_LEN)
    if isinstance(found, w.NeedMore):
        assert (view.kind, view.size) == (NEED_MORE, found.size)
        return
    if isinstance(found, w.Malformed):
        assert (view.kind, view.error, view.size) == (MALFORMED, found.error, found.skip)
        if is_request and found.skip:
            tag = view.tag if view.flags & w.Flag.TAG else None
            assert (view.op, view.flags, tag) == (found.op, found.flags, found.tag)
        return
    message = found.message
    assert (view.kind, view.size) == (WHOLE, found.used)
    unknown = isinstance(message, w.UnknownReply)
    assert view.op == (message.op if unknown else message.OP)
    tail = bytes_at(data, view.tail_at, view.tail_len)
    if is_request:
        assert (view.flags, view.tag if view.flags & w.Flag.TAG else 0) == (message.flags, message.tag)
        assert bytes_at(data, view.ext_at, view.ext_len) == message.ext
        assert bytes_at(data, view.key_at, view.key_len) == message.key
        assert tail == message.value
    else:
        assert (view.tag if view.tagged else None) == message.tag
        if unknown or message.TAIL:
            assert tail == (message.payload if unknown else getattr(message, message.TAIL))
    if not unknown:
        fields = numbers(message)
        assert list(view.fields[:len(fields)]) == fields
    try:
        encoded = w.encode_request(message) if is_request else w.encode_reply(message)
    except w.EncodeError:
        encoded = b""  # a text that is too long to be sent
    if unknown:
        encoded = b""  # the C encoder makes only what version 1 knows
    assert again.raw[:size] == encoded


@settings(max_examples=120, deadline=None)
@given(message=requests())
def test_requests(codec: ctypes.CDLL, message: Any) -> None:
    data = w.encode_request(message)
    agree(codec, "request", data)
    for cut in range(len(data)):
        agree(codec, "request", data[:cut])


@settings(max_examples=120, deadline=None)
@given(message=replies())
def test_replies(codec: ctypes.CDLL, message: Any) -> None:
    data = w.encode_reply(message)
    agree(codec, "reply", data)
    for cut in range(len(data)):
        agree(codec, "reply", data[:cut])


CHANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=3)


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    result = bytearray(data)
    for at, byte in changes:
        result[at % len(result)] = byte
    return bytes(result)


@settings(max_examples=200, deadline=None)
@given(message=requests(), changes=CHANGES, after=st.binary(max_size=40))
def test_requests_with_changed_bytes(codec: ctypes.CDLL, message: Any, changes: list, after: bytes) -> None:
    agree(codec, "request", changed(w.encode_request(message), changes) + after)


@settings(max_examples=200, deadline=None)
@given(message=replies(), changes=CHANGES, after=st.binary(max_size=40))
def test_replies_with_changed_bytes(codec: ctypes.CDLL, message: Any, changes: list, after: bytes) -> None:
    agree(codec, "reply", changed(w.encode_reply(message), changes) + after)


HEADERS = st.builds(lambda op, flags, klen, blen: bytes([op, flags]) + klen.to_bytes(2, "little") + blen.to_bytes(4, "little"),
                    st.sampled_from([*range(16), 0x80, 0x90, 0xBF]), st.integers(0, 255), st.integers(0, 40) | st.integers(0, 0xFFFF),
                    st.integers(0, 90) | st.integers(0, 0xFFFFFFFF))
REPLY_HEADERS = st.builds(lambda op, size: bytes([op]) + size.to_bytes(4, "little"),
                          st.sampled_from([*range(0x10, 0x21), 0x7F, 0x80, 0xC0, 0xC1, 0xC2, 0xFF]),
                          st.integers(0, 50) | st.integers(0, 0xFFFFFFFF))


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(max_size=120), st.builds(bytes.__add__, HEADERS, st.binary(max_size=100))))
@example(data=b"\x02\xe3\xff\xff\xff\xff\xff\xff" + bytes(40))
def test_requests_at_random(codec: ctypes.CDLL, data: bytes) -> None:
    agree(codec, "request", data)


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(max_size=120), st.builds(bytes.__add__, REPLY_HEADERS, st.binary(max_size=100)),
                      st.builds(lambda tag, a, b: b"\x1f" + (len(tag + a + b)).to_bytes(4, "little") + tag + a + b,
                                st.binary(min_size=4, max_size=4), REPLY_HEADERS, st.binary(max_size=60))))
@example(data=b"\x1f\xff\xff\xff\xff" + bytes(40))
def test_replies_at_random(codec: ctypes.CDLL, data: bytes) -> None:
    agree(codec, "reply", data)
