# SPDX-License-Identifier: MIT
"""The line protocol between the kit and a client under test, for shims written in Python.

serve() reads commands and writes answers; what it needs is a driver: an object that opens a connection and executes
requests of crabcache.wire.  README.md describes the lines, so that other languages can do without this module.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from ... import wire
from .. import build


@dataclass(frozen=True)
class Failure:
    """A request that failed: `how` is retry, permanent, unknown, refused (by the client itself) or unsupported."""

    how: str
    code: int | None = None


@dataclass(frozen=True)
class Late:
    """QUIET requests that failed: how manieth since the last barrier, and the code."""

    errors: tuple[tuple[int, int], ...]


Outcome = Any  # a reply of crabcache.wire, a Failure, or a Late


class Driver(Protocol):
    """A client under test."""

    def open(self, host: str, port: int, timeout_ms: int, words: dict[str, str]) -> Failure | None:
        """Prepare to talk to a server, or connect to it.  `words` may have push, tags, user and secret."""

    def execute(self, requests: Sequence[wire.Request]) -> Sequence[Outcome]:
        """Send requests, all of them before waiting for replies as far as may be, and give their outcomes in order."""

    def quiet(self, request: wire.Request) -> Failure | None:
        """Send, or queue, a QUIET request."""

    def barrier(self) -> Outcome:
        """Find out what became of the QUIET requests: Late or a Failure."""

    def close(self) -> None:
        """Close the connection."""


def unhex(word: str) -> bytes:
    """Bytes from a word."""
    return b"" if word == "-" else bytes.fromhex(word)


def to_hex(data: bytes) -> str:
    """A word from bytes."""
    return data.hex() or "-"


def options(words: Sequence[str]) -> dict[str, str]:
    """Words of the form name=value, or name alone."""
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def number(word: str) -> int:
    """A number, or a time to live."""
    return wire.TTL_NEVER if word == "never" else int(word)


def parse(words: Sequence[str]) -> wire.Request:
    """The request that a command asks for."""
    command, arguments = words[0], words[1:]
    if command == "ping":
        return build.ping()
    if command == "flush":
        return build.flush()
    if command == "stats":
        return build.stats(arguments[0].encode() if arguments else b"")
    key = unhex(arguments[0])
    if command == "get":
        return build.get(key)
    if command == "meta":
        return build.get(key, meta=True)
    if command == "touch":
        return build.get(key, ttl=number(arguments[1]))
    if command == "del":
        return build.delete(key)
    if command == "expire":
        return build.expire(key, number(arguments[1]))
    more = options(arguments[2:])
    numbers = {name: number(more[name]) for name in ("ttl", "version", "initial") if name in more}
    if command == "put":
        return build.put(key, unhex(arguments[1]), app_flags=int(more["flags"]) if "flags" in more else None,
                         absent="absent" in more, present="present" in more, want="want" in more, **numbers)
    if command in ("incr", "decr"):
        count: wire.Request = build.incr(key, int(arguments[1]), down=command == "decr", **numbers)
        return count
    raise ValueError(f"no such command: {command}")


def ttl_word(ttl_ms: int) -> str:
    """A time to live as a word."""
    return "never" if ttl_ms == wire.TTL_NEVER else str(ttl_ms)


def format_outcome(outcome: Outcome) -> str:
    """The line that answers a command."""
    if isinstance(outcome, Failure):
        if outcome.how in ("refused", "unsupported"):
            return outcome.how
        return f"failed {outcome.how}" + (f" {outcome.code:04x}" if outcome.code is not None else "")
    if isinstance(outcome, Late):
        return "late " + " ".join(f"{index}:{code:04x}" for index, code in outcome.errors) if outcome.errors else "ok"
    if isinstance(outcome, (wire.OkReply, wire.PongReply, wire.WelcomeReply)):
        return "ok"
    if isinstance(outcome, wire.NullReply):
        return "miss"
    if isinstance(outcome, wire.ValueReply):
        return f"value {to_hex(outcome.value)}"
    if isinstance(outcome, wire.MetaReply):
        return f"meta {outcome.version} {ttl_word(outcome.ttl_ms)} {outcome.app_flags} {to_hex(outcome.value)}"
    if isinstance(outcome, wire.NumberReply):
        return f"number {outcome.value}"
    if isinstance(outcome, wire.StoredReply):
        return f"stored {outcome.version}"
    if isinstance(outcome, wire.ExistsReply):
        return f"exists {outcome.version}"
    if isinstance(outcome, wire.StatsReply):
        return f"text {to_hex(outcome.text)}"
    raise ValueError(f"no line for {outcome!r}")


def one(driver: Driver, words: list[str], lines: Iterator[str]) -> list[Outcome]:
    """Do what a command says."""
    if words[0] == "open":
        return [driver.open(words[1], int(words[2]), int(words[3]), options(words[4:])) or wire.OkReply()]
    if words[0] == "close":
        driver.close()
        return [wire.OkReply()]
    if words[0] == "barrier":
        return [driver.barrier()]
    if words[0] == "quiet":
        return [driver.quiet(parse(words[1:])) or wire.OkReply()]
    if words[0] == "pipeline":
        return list(driver.execute([parse(next(lines).split()) for _ in range(int(words[1]))]))
    return list(driver.execute([parse(words)]))


def serve(driver: Driver, source: TextIO, sink: Callable[[str], object]) -> None:
    """Do what the lines of `source` say until it ends; each answer goes to `sink`."""
    lines = iter(source)
    for line in lines:
        for outcome in one(driver, line.split(), lines):
            sink(format_outcome(outcome) + "\n")
    driver.close()
