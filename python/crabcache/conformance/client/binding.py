# SPDX-License-Identifier: MIT
"""The shim of CrabCache's own Python client: python3 -m crabcache.conformance.client.binding speaks the line protocol.

It has no QUIET writes.  HELLO it always says, so that `push` changes nothing.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import crabcache
from crabcache import errors

from ... import wire
from .lines import Failure, Outcome, serve


def seconds(ttl_ms: int) -> timedelta | None:
    """A time to live as the client takes it."""
    return None if ttl_ms == wire.TTL_NEVER else timedelta(milliseconds=ttl_ms)


def failure(error: BaseException) -> Failure:
    """What became of a request, by its exception."""
    code = error.code if isinstance(error, errors.ServerError) else None
    if isinstance(error, errors.InvalidArgument):
        return Failure("refused")
    if isinstance(error, (errors.UnknownOutcomeError, crabcache.NotExecuted)):
        return Failure("unknown", code)
    return Failure("retry" if isinstance(error, errors.RetryError) else "permanent", code)


def queue(p: crabcache.Pipeline, request: Any) -> Any:
    """Put a request into a pipeline."""
    flags = request.flags
    if isinstance(request, wire.PingRequest):
        return p.ping()
    if isinstance(request, wire.FlushRequest):
        return p.flush()
    if isinstance(request, wire.StatsRequest):
        return p.stats(request.key.decode() or None)
    if isinstance(request, wire.GetRequest):
        if flags & request.META:
            return p.get_with_meta(request.key)
        return p.get_and_touch(request.key, seconds(request.ttl_ms)) if flags & request.TTL else p.get(request.key)
    if isinstance(request, wire.PutRequest):
        condition = flags & request.IF_VERSION
        return p.put(request.key, request.value, seconds(request.ttl_ms) if flags & request.TTL else None, flags=request.app_flags,
                     only_if_absent=condition == request.IF_ABSENT, only_if_present=condition == request.IF_PRESENT,
                     version=request.version if condition == request.IF_VERSION else None,
                     want_version=bool(flags & request.WANT_VERSION))
    if isinstance(request, wire.DelRequest):
        return p.delete(request.key)
    if isinstance(request, wire.ExpireRequest):
        return p.touch(request.key, seconds(request.ttl_ms))
    count = p.incr if isinstance(request, wire.IncrRequest) else p.decr
    initial = request.initial if flags & request.INITIAL else None
    return count(request.key, request.delta, initial=initial, ttl=seconds(request.ttl_ms) if flags & request.TTL else None)


def reply_of(request: Any, value: Any) -> wire.Reply:
    """The reply that an answer of the client stands for."""
    if isinstance(value, crabcache.PutResult):
        if value.outcome is crabcache.Outcome.EXISTS:
            return wire.ExistsReply(version=value.version or 0)
        if value.outcome is crabcache.Outcome.ABSENT:
            return wire.NullReply()
        return wire.OkReply() if value.version is None else wire.StoredReply(version=value.version)
    if isinstance(value, crabcache.Item):
        ttl_ms = wire.TTL_NEVER if value.ttl is None else round(value.ttl * 1000)
        return wire.MetaReply(version=value.version, ttl_ms=ttl_ms, app_flags=value.flags, value=value.value)
    if isinstance(value, bytes):
        return wire.ValueReply(value=value)
    if isinstance(value, dict):
        return wire.StatsReply(text="".join(f"{name}:{number}\n" for name, number in value.items()).encode())
    if isinstance(value, int) and not isinstance(value, bool):
        return wire.NumberReply(value=value)
    return wire.OkReply() if value is True else wire.NullReply()


class Binding:
    """crabcache.Client as a driver."""

    def __init__(self) -> None:
        self.client: crabcache.Client | None = None

    def open(self, host: str, port: int, timeout_ms: int, words: dict[str, str]) -> Failure | None:
        """Connect."""
        self.close()
        user = bytes.fromhex(words["user"]).decode() if "user" in words else None
        try:
            self.client = crabcache.Client(host, port, timeout=timeout_ms / 1000, check_tags="tags" in words, user=user,
                                           secret=bytes.fromhex(words.get("secret", "")))
        except crabcache.CrabError as error:
            return failure(error)
        return None

    def execute(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        """Send requests by a pipeline."""
        if self.client is None:
            return [Failure("refused") for _ in requests]
        pipeline = self.client.pipeline()
        try:
            futures = [queue(pipeline, request) for request in requests]
        except errors.InvalidArgument:
            return [Failure("refused") for _ in requests]
        broken: BaseException = crabcache.NotExecuted("it was never sent")
        try:
            pipeline.execute()
        except crabcache.CrabError as error:
            broken = error
        outcomes: list[Outcome] = []
        for request, future in zip(requests, futures):
            if not future.done():
                outcomes.append(failure(broken))
                continue
            failed = future.exception()
            outcomes.append(reply_of(request, future.result()) if failed is None else failure(failed))
        return outcomes

    def quiet(self, request: wire.Request) -> Failure | None:
        """The client has none."""
        return Failure("unsupported")

    def barrier(self) -> Outcome:
        """The client has none."""
        return Failure("unsupported")

    def close(self) -> None:
        """Close the connection."""
        if self.client is not None:
            self.client.close()
        self.client = None


def main() -> None:
    """The line protocol on standard input and output."""

    def sink(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    serve(Binding(), sys.stdin, sink)


if __name__ == "__main__":
    main()
