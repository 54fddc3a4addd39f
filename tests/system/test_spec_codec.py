# SPDX-License-Identifier: MIT
"""The Python codec against the conformance vectors, and against itself: what it encodes it decodes."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spec_support import SPEC, errors, vector_files, wire

pytestmark = pytest.mark.once

w = wire()
e = errors()
FILES = vector_files()

CLASSES = {("request", kind.OP.name): kind for kind in w.REQUESTS.values()}
CLASSES |= {("reply", kind.OP.name): kind for kind in w.REPLIES.values()}


def decode(direction: str, vector: dict[str, Any], data: bytes) -> Any:
    if direction == "request":
        return w.decode_request(data, vector["max_value"])
    return w.decode_reply(data, vector["max_len"])


def expected(direction: str, vector: dict[str, Any]) -> Any:
    """The answer of a vector as the codec gives it."""
    expect = vector["expect"]
    if expect["result"] == "whole":
        return w.Whole(message_of(direction, expect["message"]), expect["used"])
    if expect["result"] == "need_more":
        return w.NeedMore(expect["size"])
    assert w.ErrorCode[expect["error"]] == expect["code"]
    return w.Malformed(w.ErrorCode(expect["code"]), expect["skip"], expect.get("op", 0), expect.get("flags", 0), expect.get("tag"))


def message_of(direction: str, data: dict[str, Any]) -> Any:
    """A vector's message as the codec's dataclass."""
    values = {}
    if data["name"] is None:
        return w.UnknownReply(op=data["op"], tag=data["tag"], payload=bytes.fromhex(data["payload"]))
    kind = CLASSES[direction, data["name"]]
    numbers = {part.name for part in kind.LAYOUT} | {"flags"}
    for name, value in data.items():
        if name in numbers:
            values[name] = int(value)
        elif name == "tag":
            values[name] = value if value is not None or direction == "reply" else 0
        elif name not in ("name", "op"):
            values[name] = bytes.fromhex(value)
    return kind(**values)


def same(direction: str, vector: dict[str, Any], got: Any) -> bool:
    """Whether an answer is that of a vector. Of fatal errors only the error counts."""
    want = expected(direction, vector)
    if isinstance(got, w.Malformed) and got.skip == 0:
        got = w.Malformed(got.error)
    return bool(got == want)


@pytest.mark.parametrize("name", FILES)
def test_vectors(name: str) -> None:
    direction = FILES[name]["direction"]
    for vector in FILES[name]["vectors"]:
        data = bytes.fromhex(vector["hex"])
        got = decode(direction, vector, data)
        assert same(direction, vector, got), (vector["id"], got, expected(direction, vector))
        if data:
            assert same(direction, vector, decode(direction, vector, data + b"\xff\xff\xff")), vector["id"]
        if vector.get("canonical"):
            encode = w.encode_request if direction == "request" else w.encode_reply
            assert encode(got.message) == data, vector["id"]


@pytest.mark.parametrize("name", FILES)
def test_vectors_cut(name: str) -> None:
    direction = FILES[name]["direction"]
    for vector in FILES[name]["vectors"]:
        data, needs = bytes.fromhex(vector["hex"]), vector.get("needs", [])
        for cut, need in enumerate(needs):
            assert need > cut, vector["id"]
            assert decode(direction, vector, data[:cut]) == w.NeedMore(need), (vector["id"], cut)
        if vector["expect"]["result"] == "malformed":
            for cut in range(len(needs), min(len(data), len(needs) + 64)):
                assert same(direction, vector, decode(direction, vector, data[:cut])), (vector["id"], cut)
        if vector["kind"] == "truncated" and data:
            assert len(needs) == len(data), vector["id"]


def test_vectors_cover_every_message_and_kind() -> None:
    names = {f"request-{m.name.lower()}" for m in w.Op} | {f"push-{m.name.lower()}" for m in w.PushOp}
    names |= {f"reply-{m.name.lower()}" for m in w.ReplyOp} | {"request-unknown", "reply-unknown"}
    assert set(FILES) == names
    for name, file in FILES.items():
        kinds = {vector["kind"] for vector in file["vectors"]}
        if name.startswith("request") and "unknown" not in name:
            assert kinds >= {"valid", "minimal", "truncated", "malformed", "must-ignore"}, name
    shown = {v["expect"]["error"] for f in FILES.values() for v in f["vectors"] if v["expect"]["result"] == "malformed"}
    assert shown == {"NOT_CRABCACHE", "QUIET_MISUSE", "BAD_FRAME", "UNKNOWN_OP", "BAD_KEY", "VALUE_TOO_LARGE", "BAD_FLAGS",
                     "BAD_EXTENSION", "UNKNOWN_EXTENSION", "BAD_FIELD"}


def test_vectors_name_clauses_that_exist() -> None:
    text = (SPEC / "PROTOCOL.md").read_text()
    clauses = re.findall(r"\*\*\[(P-[0-9A-Z.]+)\]\*\*", text)
    assert len(clauses) == len(set(clauses)), sorted({c for c in clauses if clauses.count(c) > 1})
    named = {vector["clause"] for file in FILES.values() for vector in file["vectors"]}
    assert named <= set(clauses), sorted(named - set(clauses))
    checks = {f"P-4.3.{n}" for n in (1, 3, 4, 5, 6, 7, 8, 9, 11, 12)}
    assert checks <= named


# ------------------------------------------------------------------------------------------ round trips

CODES = {"B": (0, 2**8 - 1), "H": (0, 2**16 - 1), "I": (0, 2**32 - 1), "Q": (0, 2**64 - 1), "q": (-(2**63), 2**63 - 1)}


def values(part: Any) -> st.SearchStrategy[int]:
    """The values that a field allows."""
    spans = part.ranges or (CODES[part.code],)
    return st.one_of(*(st.integers(low, high) for low, high in spans))


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """Any request that the specification allows."""
    kind = draw(st.sampled_from(list(w.REQUESTS.values())))
    common = [0, w.Flag.TAG, w.Flag.EXT, w.Flag.TAG | w.Flag.EXT]
    if kind.IS_WRITE:
        common += [w.Flag.TAG | w.Flag.QUIET, w.Flag.TAG | w.Flag.QUIET | w.Flag.EXT]
    flags = draw(st.integers(0, 0x1F)) & kind.OWN_FLAGS | draw(st.sampled_from(common))
    for rule in kind.REQUIREMENTS:
        if rule.broken(flags):
            flags |= rule.needs[1]
    message = kind(flags=int(flags))
    for part in kind.LAYOUT:
        setattr(message, part.name, draw(values(part)) if part.present(flags) else 0)
    if flags & w.Flag.TAG:
        message.tag = draw(st.integers(0, 2**32 - 1))
    if flags & w.Flag.EXT:
        pairs = draw(st.lists(st.tuples(st.integers(0, 0x7FFF), st.binary(max_size=20)), max_size=4))
        message.ext = w.pack_extensions(*pairs)
        assert list(w.extensions(message.ext)) == pairs
    message.key = draw(st.binary(min_size=kind.KEY_LENGTHS[0], max_size=min(kind.KEY_LENGTHS[1], 300)))
    if kind.HAS_VALUE:
        message.value = draw(st.binary(max_size=min(kind.VALUE_MAX or 300, 300)))
    return message


@st.composite
def replies(draw: st.DrawFn) -> Any:
    """Any reply or push that the specification allows."""
    kind = draw(st.sampled_from([*w.REPLIES.values(), w.UnknownReply]))
    if kind is w.UnknownReply:
        unknown = [op for op in [*range(0x13, 0x80), *range(0xC0, 0x100)] if op not in w.REPLIES and op != w.ReplyOp.TAGGED]
        message = kind(op=draw(st.sampled_from(unknown)), payload=draw(st.binary(max_size=100)))
        op = message.op
    else:
        message, op = kind(), kind.OP
        for part in kind.LAYOUT:
            setattr(message, part.name, draw(values(part)))
        if kind.TAIL is not None:
            setattr(message, kind.TAIL, draw(st.binary(max_size=min(kind.TAIL_MAX or 300, 300))))
    if not w.in_ranges(op, w.PUSH_OPS):
        message.tag = draw(st.none() | st.integers(0, 2**32 - 1))
    return message


@settings(max_examples=400, deadline=None)
@given(requests(), st.binary(max_size=9))
def test_request_round_trip(message: Any, after: bytes) -> None:
    frame = w.encode_request(message)
    assert w.decode_request(frame + after) == w.Whole(message, len(frame))
    for cut in range(0, len(frame), max(1, len(frame) // 16)):
        answer = w.decode_request(frame[:cut])
        assert isinstance(answer, w.NeedMore) and cut < answer.size <= len(frame)


@settings(max_examples=400, deadline=None)
@given(replies(), st.binary(max_size=9))
def test_reply_round_trip(message: Any, after: bytes) -> None:
    frame = w.encode_reply(message)
    assert w.decode_reply(frame + after) == w.Whole(message, len(frame))
    for cut in range(0, len(frame), max(1, len(frame) // 16)):
        answer = w.decode_reply(frame[:cut])
        assert isinstance(answer, w.NeedMore) and cut < answer.size <= len(frame)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([0, 10, 1000]))
def test_any_bytes_have_an_answer(data: bytes, limit: int) -> None:
    for answer in (w.decode_request(data, limit), w.decode_reply(data, limit)):
        if isinstance(answer, w.Whole):
            assert 0 < answer.used <= len(data)
        elif isinstance(answer, w.NeedMore):
            assert answer.size > len(data)
        else:
            assert answer.skip == 0 or answer.skip >= 8


@settings(max_examples=1000, deadline=None)
@given(requests(), st.data())
def test_changed_byte_never_confuses(message: Any, data: st.DataObject) -> None:
    """A frame with one byte changed has an answer, and if it is whole, encodes again to the same bytes."""
    frame = bytearray(w.encode_request(message))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    answer = w.decode_request(bytes(frame))
    if isinstance(answer, w.Whole):
        again = w.encode_request(answer.message)
        strange = answer.message.flags & ~(answer.message.OWN_FLAGS | w.Flag.QUIET | w.Flag.TAG | w.Flag.EXT)
        assert again[2:] == frame[2:answer.used] and again[1] == frame[1] & ~strange


# ----------------------------------------------------------------------------------- rules when encoding


@pytest.mark.parametrize(("message", "reason"), [
    (w.GetRequest(), "key of 0 bytes"),
    (w.GetRequest(key=b"k" * 65536), "key of 65536 bytes"),
    (w.PingRequest(key=b"k"), "key of 1 bytes"),
    (w.GetRequest(key=b"k", value=b"v"), "has no value"),
    (w.AuthRequest(key=b"u", value=b"s" * 1025), "value of 1025 bytes"),
    (w.PutRequest(key=b"k", flags=w.PutRequest.TTL, ttl_ms=0), "ttl_ms 0"),
    (w.PutRequest(key=b"k", flags=w.PutRequest.TTL, ttl_ms=2**53), "ttl_ms"),
    (w.PutRequest(key=b"k", flags=w.PutRequest.APP_FLAGS, app_flags=2**32), "app_flags"),
    (w.PutRequest(key=b"k", flags=w.Flag.QUIET), "QUIET"),
    (w.GetRequest(key=b"k", flags=w.Flag.QUIET | w.Flag.TAG), "QUIET"),
    (w.IncrRequest(key=b"k", flags=w.IncrRequest.TTL, ttl_ms=1), "requires"),
    (w.PingRequest(ext=b"\0\0\0\0"), "without EXT"),
    (w.PingRequest(flags=w.Flag.EXT, ext=b"\0\0\1\0"), "malformed"),
    (w.PingRequest(flags=w.Flag.EXT, ext=bytes(65536)), "too long"),
])
def test_encode_request_refuses(message: Any, reason: str) -> None:
    with pytest.raises(w.EncodeError, match=reason):
        w.encode_request(message)


@pytest.mark.parametrize(("message", "reason"), [
    (w.ErrorReply(text=b"t" * 513), "text of 513 bytes"),
    (w.NumberReply(value=2**63), "value"),
    (w.GoawayPush(tag=1), "push has no tag"),
])
def test_encode_reply_refuses(message: Any, reason: str) -> None:
    with pytest.raises(w.EncodeError, match=reason):
        w.encode_reply(message)


def test_codec_stands_alone() -> None:
    """It is an oracle for the C codec, so it must not be that codec."""
    text = Path(w.__file__).read_text()
    imports = re.findall(r"^(?:from|import) ([a-z_.]+)", text, re.M)
    assert sorted(set(imports)) == ["__future__", "collections.abc", "dataclasses", "enum", "struct", "typing"]


# -------------------------------------------------------------------------------------------- exceptions


def test_exceptions_follow_the_codes() -> None:
    bases = {w.ErrorClass.RETRY: e.RetryError, w.ErrorClass.PERMANENT: e.PermanentError, w.ErrorClass.UNKNOWN: e.UnknownOutcomeError}
    assert set(e.ERRORS) == set(w.ErrorCode)
    for code in w.ErrorCode:
        error = e.error_for(code, b"because", tag=7)
        assert type(error).__name__ == "".join(p.capitalize() for p in code.name.split("_")) + "Error"
        assert (error.code, error.name, error.text, error.tag) == (code, code.name, "because", 7)
        assert error.error_class == code >> 8 and isinstance(error, bases[w.ErrorClass(code >> 8)])
        assert isinstance(error, e.ServerError) and error.closes == (code in w.CLOSING_ERRORS)
        assert e.error_for(code).text == w.ERROR_TEXTS[code]
        assert str(error) == f"{code.name}: because"


@pytest.mark.parametrize(("code", "base"), [
    (0x01FF, e.RetryError), (0x02FF, e.PermanentError), (0x03FF, e.UnknownOutcomeError), (0x0901, e.UnknownOutcomeError),
])
def test_unknown_codes_act_by_their_class(code: int, base: type) -> None:
    error = e.error_for(code, "later")
    assert isinstance(error, base) and isinstance(error, e.ServerError) and error.code == code
    assert str(error) == f"error {code:#06x}: later"


def test_overflow_is_also_the_builtin() -> None:
    assert isinstance(e.error_for(w.ErrorCode.OVERFLOW), OverflowError)
