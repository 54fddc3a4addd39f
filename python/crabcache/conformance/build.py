# SPDX-License-Identifier: MIT
"""Requests from the few words that matter: the flags follow from the fields that are given."""
from __future__ import annotations

import struct
from typing import Any, TypeVar

from .. import wire
from ..wire import Flag


R = TypeVar("R", bound=wire.Request)


def _common(kind: type[R], flags: int, fields: dict[str, Any]) -> R:
    """A request of any kind; tag, ext and quiet mean the same for all."""
    if fields.get("tag") is None:
        fields.pop("tag", None)
    else:
        flags |= Flag.TAG
    if fields.get("ext") is None:
        fields.pop("ext", None)
    else:
        flags |= Flag.EXT
    if fields.pop("quiet", False):
        flags |= Flag.QUIET
    return kind(flags=flags, **fields)


def put(key: bytes, value: bytes = b"value", *, ttl: int | None = None, app_flags: int | None = None, absent: bool = False,
        present: bool = False, version: int | None = None, want: bool = False, **more: Any) -> wire.PutRequest:
    """PUT."""
    flags = (wire.PutRequest.TTL * (ttl is not None) | wire.PutRequest.APP_FLAGS * (app_flags is not None)
             | wire.PutRequest.IF_ABSENT * absent | wire.PutRequest.IF_PRESENT * present
             | wire.PutRequest.IF_VERSION * (version is not None) | wire.PutRequest.WANT_VERSION * want)
    return _common(wire.PutRequest, flags, {"key": key, "value": value, "ttl_ms": ttl or 0, "app_flags": app_flags or 0,
                                            "version": version or 0, **more})


def get(key: bytes, *, ttl: int | None = None, meta: bool = False, **more: Any) -> wire.GetRequest:
    """GET."""
    flags = wire.GetRequest.TTL * (ttl is not None) | wire.GetRequest.META * meta
    return _common(wire.GetRequest, flags, {"key": key, "ttl_ms": ttl or 0, **more})


def delete(key: bytes, **more: Any) -> wire.DelRequest:
    """DEL."""
    return _common(wire.DelRequest, 0, {"key": key, **more})


def expire(key: bytes, ttl: int, **more: Any) -> wire.ExpireRequest:
    """EXPIRE."""
    return _common(wire.ExpireRequest, 0, {"key": key, "ttl_ms": ttl, **more})


def incr(key: bytes, delta: int = 1, *, initial: int | None = None, ttl: int | None = None, down: bool = False,
         **more: Any) -> Any:
    """INCR, or DECR if `down`."""
    flags = wire.IncrRequest.TTL * (ttl is not None) | wire.IncrRequest.INITIAL * (initial is not None)
    fields = {"key": key, "delta": delta, "initial": initial or 0, "ttl_ms": ttl or 0, **more}
    return _common(wire.DecrRequest, flags, fields) if down else _common(wire.IncrRequest, flags, fields)


def ping(**more: Any) -> wire.PingRequest:
    """PING."""
    return _common(wire.PingRequest, 0, more)


def flush(**more: Any) -> wire.FlushRequest:
    """FLUSH."""
    return _common(wire.FlushRequest, 0, more)


def stats(section: bytes = b"", **more: Any) -> wire.StatsRequest:
    """STATS."""
    return _common(wire.StatsRequest, 0, {"key": section, **more})


def hello(low: int = 1, high: int = 1, features: int = 0, name: bytes = b"crabcache conformance", **more: Any) -> wire.HelloRequest:
    """HELLO."""
    return _common(wire.HelloRequest, 0, {"version_min": low, "version_max": high, "features": features, "value": name, **more})


def auth(user: bytes, secret: bytes, **more: Any) -> wire.AuthRequest:
    """AUTH."""
    return _common(wire.AuthRequest, 0, {"key": user, "value": secret, **more})


def raw(op: int, body: bytes = b"", *, flags: int = 0, klen: int = 0, blen: int | None = None) -> bytes:
    """Any frame, right or wrong."""
    return struct.pack("<BBHI", op, flags, klen, len(body) if blen is None else blen) + body
