# SPDX-License-Identifier: MIT
"""Requests from Python's arguments, and Python's answers from the library's results.

Each operation is written once, here: a function that checks its arguments and gives a Future, which names the
library's queue call, holds its arguments, and knows how to read the result.  Client sends one and waits for it;
Pipeline collects many.  Nothing here touches a connection.
"""
from __future__ import annotations

import ctypes
import math
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Callable, Generic, NamedTuple, Optional, TypeVar, Union, cast

from ._library import MAX_KEY, MAX_SECRET, MAX_SECTION, MAX_USER, TTL_MAX_MS, TTL_NEVER
from ._library import Condition, IncrOptions, PutOptions, Result, Status
from .errors import CrabError, InvalidArgument

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    Value = Union[str, ReadableBuffer]
else:
    Value = Any

Key = Union[str, bytes, bytearray, memoryview]
TTL = Union[int, float, timedelta]
T = TypeVar("T")
D = TypeVar("D")

_OK = int(Status.OK)
_MISS = int(Status.MISS)
_string_at = ctypes.string_at


class NotExecuted(CrabError, RuntimeError):
    """The answer of a pipelined request was asked for before the pipeline was executed."""


class Keep(Enum):
    """As a time to live of get_with_meta(): leave the item's own alone."""

    KEEP = "keep"


KEEP = Keep.KEEP


class Outcome(Enum):
    """What became of a put."""

    STORED = "stored"
    EXISTS = "exists"  # the condition excludes the item that is there
    ABSENT = "absent"  # the condition needs an item, and there is none


class PutResult(NamedTuple):
    """The answer to a put: true if and only if the value was stored.

    `version` is the stored item's version, or, with Outcome.EXISTS, that of the item which is there.  It is None where
    the server does not tell it.
    """

    outcome: Outcome
    version: Optional[int] = None

    @property
    def stored(self) -> bool:
        """Whether the value was stored."""
        return self.outcome is Outcome.STORED

    def __bool__(self) -> bool:
        return self.outcome is Outcome.STORED


class Item(NamedTuple):
    """A value and what the server knows of it."""

    value: bytes
    version: int
    ttl: Optional[float]  # seconds left; None: it does not expire
    flags: int


class Future(Generic[T]):
    """A request and, once its pipeline was executed, its answer."""

    __slots__ = ("_queue", "_arguments", "_convert", "_default", "_write", "_size", "_keep", "_done", "_value",
                 "_error")

    def __init__(self, queue: str, arguments: tuple[Any, ...], convert: Callable[[Result, Any], Any], *,
                 default: Any = None, write: bool = False, size: int = 0, keep: Any = None) -> None:
        self._queue = queue  # the library's function, called with the connection and `_arguments`
        self._arguments = arguments
        self._convert = convert  # makes the answer from the result and `_default`
        self._default = default
        self._write = write  # executing it changes something
        self._size = size  # bytes of key and value
        self._keep = keep  # what must live as long as `_arguments` are used
        self._done = False
        self._value: Any = None
        self._error: Optional[CrabError] = None

    def done(self) -> bool:
        """Whether the answer, or the reason why there is none, is here."""
        return self._done

    def result(self) -> T:
        """The answer; raises the error if the request failed, NotExecuted if it was not executed yet."""
        if not self._done:
            raise NotExecuted("the pipeline has not been executed yet")
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    def exception(self) -> Optional[CrabError]:
        """The error, or None if the request succeeded; raises NotExecuted if it was not executed yet."""
        if not self._done:
            raise NotExecuted("the pipeline has not been executed yet")
        return self._error

    def __repr__(self) -> str:
        name = self._queue.replace("crab_conn_queue_", "")
        if not self._done:
            return f"<Future {name}: not executed>"
        return f"<Future {name}: {self._value!r}>" if self._error is None else f"<Future {name}: {self._error!r}>"

    def _resolve(self, value: T) -> None:
        self._value = value
        self._finish()

    def _fail(self, error: CrabError) -> None:
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self._done = True
        self._arguments = ()
        self._keep = None


# ---- arguments


def key_bytes(key: Key) -> bytes:
    """A key as the protocol has it: 1 to 65,535 bytes; a str is encoded as UTF-8."""
    if type(key) is not bytes:
        if isinstance(key, str):
            key = key.encode("utf-8")
        elif isinstance(key, (bytes, bytearray, memoryview)):
            key = bytes(key)
        else:
            raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
    if not 1 <= len(key) <= MAX_KEY:
        raise InvalidArgument(f"a key has 1 to {MAX_KEY:,} bytes, this one has {len(key):,}")
    return key


def value_pointer(value: Value, copy: bool) -> tuple[Any, int, Any]:
    """What to pass for a value: pointer, length, and the object that keeps the pointer valid.

    A bytes object is passed as it is; other buffers too if their memory can be named, unless a `copy` is wanted because
    they could change before they are sent.
    """
    if type(value) is bytes:
        return value, len(value), None
    if isinstance(value, str):
        data = value.encode("utf-8")
        return data, len(data), None
    try:
        view = memoryview(value)
    except TypeError:
        raise TypeError(f"a value is bytes, str or another buffer, not {type(value).__name__}") from None
    if copy or view.readonly or not view.c_contiguous or view.nbytes == 0:
        data = view.tobytes()
        return data, len(data), None
    keep = ctypes.c_char.from_buffer(view.cast("B"))
    return ctypes.addressof(keep), view.nbytes, keep


def ttl_ms(ttl: TTL) -> int:
    """A time to live in milliseconds, rounded, at least 1."""
    if isinstance(ttl, timedelta):
        milliseconds = round(ttl / timedelta(milliseconds=1)) if ttl > timedelta(0) else 0
        positive = ttl > timedelta(0)
    elif isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"a time to live is a number of seconds or a timedelta, not {type(ttl).__name__}")
    elif isinstance(ttl, float) and not math.isfinite(ttl):
        raise InvalidArgument(f"a time to live is finite, not {ttl}; None means for ever")
    else:
        milliseconds = ttl * 1000 if isinstance(ttl, int) else round(ttl * 1000)
        positive = ttl > 0
    if not positive:
        raise InvalidArgument(f"a time to live is more than 0 seconds, not {ttl}")
    if milliseconds > TTL_MAX_MS:
        raise InvalidArgument(f"a time to live is at most {TTL_MAX_MS // 1000:,} seconds, not {ttl}; or None: for ever")
    return max(1, milliseconds)


def ttl_or_never(ttl: Optional[TTL]) -> int:
    """As ttl_ms(), and None means for ever."""
    return TTL_NEVER if ttl is None else ttl_ms(ttl)


def integer(value: int, low: int, high: int, what: str) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise InvalidArgument(f"{what} is from {low} to {high}, not {value}")
    return value


def encoded(text: Union[str, bytes], what: str) -> bytes:
    """The bytes of a text."""
    if isinstance(text, str):
        return text.encode("utf-8")
    if not isinstance(text, bytes):
        raise TypeError(f"{what} is str or bytes, not {type(text).__name__}")
    return text


def c_string(text: Union[str, bytes], low: int, high: int, what: str) -> bytes:
    """Bytes for C that have no zero inside."""
    data = encoded(text, what)
    if not low <= len(data) <= high:
        raise InvalidArgument(f"{what} has {low} to {high} bytes, not {len(data)}")
    if b"\0" in data:
        raise InvalidArgument(f"{what} has no zero byte")
    return data


# ---- answers


def _read_true(_result: Result, _default: Any) -> bool:
    return True


def _read_found(result: Result, _default: Any) -> bool:
    return bool(result.status == _OK)


def _read_value(result: Result, default: Any) -> Any:
    if result.status == _OK:
        return _string_at(result.value_data, result.value_len)
    return default


def _read_item(result: Result, default: Any) -> Any:
    if result.status != _OK:
        return default
    ttl = result.ttl_ms
    return Item(_string_at(result.value_data, result.value_len), result.version,
                None if ttl == TTL_NEVER else ttl / 1000, result.app_flags)


def _read_number(result: Result, _default: Any) -> Optional[int]:
    return result.number if result.status == _OK else None


_STORED = PutResult(Outcome.STORED)
_ABSENT = PutResult(Outcome.ABSENT)


def _read_put_result(result: Result, _default: Any) -> PutResult:
    if result.status == _OK:
        return PutResult(Outcome.STORED, result.version) if result.version else _STORED
    if result.status == _MISS:
        return _ABSENT
    return PutResult(Outcome.EXISTS, result.version)


def parse_stats(text: str) -> dict[str, Union[int, float, str]]:
    """Lines "section.name:value" as a dictionary; what looks like a number becomes one."""
    stats: dict[str, Union[int, float, str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            stats[name] = _number_or_text(value)
    return stats


def _number_or_text(value: str) -> Union[int, float, str]:
    if value.lstrip("-").isdigit() and value.isascii():
        return int(value)
    try:
        return float(value) if "." in value else value
    except ValueError:
        return value


def _read_stats(result: Result, _default: Any) -> dict[str, Union[int, float, str]]:
    return parse_stats(_string_at(result.value_data, result.value_len).decode("utf-8", "replace"))


# ---- requests


def ping() -> Future[bool]:
    return Future("crab_conn_queue_ping", (), _read_true)


def get(key: Key, default: Any) -> Future[Any]:
    data = key_bytes(key)
    return Future("crab_conn_queue_get", (data, len(data)), _read_value, default=default, size=len(data))


def get_and_touch(key: Key, ttl: Optional[TTL], default: Any) -> Future[Any]:
    data = key_bytes(key)
    return Future("crab_conn_queue_get_touch", (data, len(data), ttl_or_never(ttl)), _read_value, default=default,
                  size=len(data))


def get_with_meta(key: Key, ttl: Union[TTL, None, Keep], default: Any) -> Future[Any]:
    data = key_bytes(key)
    touch = 0 if isinstance(ttl, Keep) else ttl_or_never(ttl)
    return Future("crab_conn_queue_get_meta", (data, len(data), touch), _read_item, default=default, size=len(data))


def put(key: Key, value: Value, ttl: Optional[TTL] = None, *, only_if_absent: bool = False,
        only_if_present: bool = False, version: Optional[int] = None, flags: int = 0, want_version: bool = False,
        copy: bool = False) -> Future[PutResult]:
    data = key_bytes(key)
    pointer, length, keep = value_pointer(value, copy)
    options = None
    if ttl is not None or only_if_absent or only_if_present or version is not None or flags or want_version:
        options = PutOptions(condition=_condition(only_if_absent, only_if_present, version),
                             app_flags=integer(flags, 0, 0xFFFFFFFF, "flags"), want_version=want_version)
        if ttl is not None:
            options.ttl_ms = ttl_ms(ttl)
        if version is not None:
            options.version = integer(version, 1, 0xFFFFFFFFFFFFFFFF, "a version")
    return Future("crab_conn_queue_put", (data, len(data), pointer, length, options), _read_put_result, write=True,
                  size=len(data) + length, keep=keep)


def _condition(only_if_absent: bool, only_if_present: bool, version: Optional[int]) -> int:
    if only_if_absent + only_if_present + (version is not None) > 1:
        raise InvalidArgument("only_if_absent, only_if_present and version exclude each other")
    if only_if_absent:
        return Condition.IF_ABSENT
    if only_if_present:
        return Condition.IF_PRESENT
    return Condition.ALWAYS if version is None else Condition.IF_VERSION


def delete(key: Key) -> Future[bool]:
    data = key_bytes(key)
    return Future("crab_conn_queue_del", (data, len(data)), _read_found, write=True, size=len(data))


def touch(key: Key, ttl: Optional[TTL]) -> Future[bool]:
    data = key_bytes(key)
    return Future("crab_conn_queue_expire", (data, len(data), ttl_or_never(ttl)), _read_found, write=True,
                  size=len(data))


def count(up: bool, key: Key, delta: int, initial: Optional[int], ttl: Optional[TTL]) -> Future[Optional[int]]:
    data = key_bytes(key)
    limit = 0xFFFFFFFFFFFFFFFF
    integer(delta, -limit, limit, "a delta")
    up = up == (delta >= 0)
    options = None
    if initial is not None:
        options = IncrOptions(initial=integer(initial, -(1 << 63), (1 << 63) - 1, "an initial number"), create=True,
                              ttl_ms=0 if ttl is None else ttl_ms(ttl))
    elif ttl is not None:
        raise InvalidArgument("a ttl needs an initial number: an item that exists keeps its own time to live")
    return Future("crab_conn_queue_incr" if up else "crab_conn_queue_decr", (data, len(data), abs(delta), options),
                  _read_number, write=True, size=len(data))


def stats(section: Optional[str]) -> Future[dict[str, Union[int, float, str]]]:
    name = None if section is None else c_string(section, 1, MAX_SECTION, "a section")
    return Future("crab_conn_queue_stats", (name,), _read_stats)


def flush() -> Future[bool]:
    return Future("crab_conn_queue_flush_all", (), _read_true, write=True)


def auth(user: str, secret: Union[str, bytes]) -> Future[bool]:
    name = c_string(user, 1, MAX_USER, "a user's name")
    data = secret_bytes(secret)
    return Future("crab_conn_queue_auth", (name, data, len(data)), _read_true)


def secret_bytes(secret: Union[str, bytes]) -> bytes:
    """A secret as the protocol has it; it may have zero bytes inside."""
    data = encoded(secret, "a secret")
    if len(data) > MAX_SECRET:
        raise InvalidArgument(f"a secret has at most {MAX_SECRET} bytes, not {len(data)}")
    return data
