# SPDX-License-Identifier: MIT
"""The store that the specification describes, as plainly as it can be written: a dictionary and a clock.

It answers requests as a server would on which nothing is evicted, and so serves as an oracle: where a real server's
answer differs, one of the two is wrong.  Versions are opaque, so that the model hands out numbers of its own; who
compares maps them to those of the server.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .. import wire
from ..wire import ErrorCode

NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
INT64 = range(-(2**63), 2**63)

#: What the model answers: a reply without its tag.
Answer = wire.Reply


@dataclass
class Item:
    """What stands under a key."""

    value: bytes
    version: int
    expires_ms: int | None
    app_flags: int


def error(code: ErrorCode) -> wire.ErrorReply:
    """ERROR as a server says it."""
    return wire.ErrorReply(code=int(code), text=wire.ERROR_TEXTS[code].encode())


class Store:
    """Items by their keys; `clock_ms` tells the time."""

    def __init__(self, clock_ms: Callable[[], int], first_version: int = 1) -> None:
        self.clock_ms = clock_ms
        self.items: dict[bytes, Item] = {}
        self._next_version = first_version

    def find(self, key: bytes) -> Item | None:
        """The live item under a key [P-5.0.2]."""
        item = self.items.get(key)
        if item is not None and item.expires_ms is not None and item.expires_ms <= self.clock_ms():
            del self.items[key]
            return None
        return item

    def version(self) -> int:
        """A version that no item has had [P-9.4.1]."""
        self._next_version += 1
        return self._next_version

    def end_of(self, ttl_ms: int) -> int | None:
        """When a time to live ends."""
        return None if ttl_ms == wire.TTL_NEVER else self.clock_ms() + ttl_ms

    def left(self, item: Item) -> int:
        """What is left of an item's time to live [P-6.7.1]."""
        return wire.TTL_NEVER if item.expires_ms is None else item.expires_ms - self.clock_ms()

    def execute(self, request: wire.Request) -> Answer:
        """Execute one request on items and answer it."""
        action = {wire.PutRequest: self.put, wire.GetRequest: self.get, wire.DelRequest: self.delete,
                  wire.ExpireRequest: self.expire, wire.IncrRequest: self.count, wire.DecrRequest: self.count,
                  wire.FlushRequest: self.flush}[type(request)]
        answer: Answer = action(request)  # type: ignore[operator]
        return answer

    def put(self, request: wire.PutRequest) -> Answer:
        """[P-5.2]"""
        item = self.find(request.key)
        condition = request.flags & wire.PutRequest.IF_VERSION
        if condition == wire.PutRequest.IF_ABSENT and item is not None:
            return wire.ExistsReply(version=item.version)
        if condition in (wire.PutRequest.IF_PRESENT, wire.PutRequest.IF_VERSION) and item is None:
            return wire.NullReply()
        if condition == wire.PutRequest.IF_VERSION and item is not None and item.version != request.version:
            return wire.ExistsReply(version=item.version)
        expires = self.end_of(request.ttl_ms) if request.flags & wire.PutRequest.TTL else None
        app_flags = request.app_flags if request.flags & wire.PutRequest.APP_FLAGS else 0
        item = self.items[request.key] = Item(request.value, self.version(), expires, app_flags)
        return wire.StoredReply(version=item.version) if request.flags & wire.PutRequest.WANT_VERSION else wire.OkReply()

    def get(self, request: wire.GetRequest) -> Answer:
        """[P-5.3]"""
        item = self.find(request.key)
        if item is None:
            return wire.NullReply()
        if request.flags & wire.GetRequest.TTL:
            item.expires_ms = self.end_of(request.ttl_ms)
        if request.flags & wire.GetRequest.META:
            return wire.MetaReply(version=item.version, ttl_ms=self.left(item), app_flags=item.app_flags, value=item.value)
        return wire.ValueReply(value=item.value)

    def delete(self, request: wire.DelRequest) -> Answer:
        """[P-5.4]"""
        if self.find(request.key) is None:
            return wire.NullReply()
        del self.items[request.key]
        return wire.OkReply()

    def expire(self, request: wire.ExpireRequest) -> Answer:
        """[P-5.5]"""
        item = self.find(request.key)
        if item is None:
            return wire.NullReply()
        item.expires_ms = self.end_of(request.ttl_ms)
        return wire.OkReply()

    def count(self, request: wire.IncrRequest | wire.DecrRequest) -> Answer:
        """[P-5.10] [P-5.11]"""
        item = self.find(request.key)
        if item is None:
            if not request.flags & wire.IncrRequest.INITIAL:
                return wire.NullReply()
            expires = self.end_of(request.ttl_ms) if request.flags & wire.IncrRequest.TTL else None
            self.items[request.key] = Item(b"%d" % request.initial, self.version(), expires, 0)
            return wire.NumberReply(value=request.initial)
        if not NUMBER.fullmatch(item.value) or int(item.value) not in INT64:
            return error(ErrorCode.NOT_A_NUMBER)
        delta = request.delta if isinstance(request, wire.IncrRequest) else -request.delta
        number = int(item.value) + delta
        if number not in INT64:
            return error(ErrorCode.OVERFLOW)
        item.value, item.version = b"%d" % number, self.version()
        return wire.NumberReply(value=number)

    def flush(self, _request: wire.FlushRequest) -> Answer:
        """[P-5.9]"""
        self.items.clear()
        return wire.OkReply()
