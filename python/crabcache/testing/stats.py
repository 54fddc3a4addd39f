# SPDX-License-Identifier: MIT
"""What a piece of a test changed in the server's statistics."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import Server


def _numbers(server: "Server", section: str) -> dict[str, float]:
    with server.connect() as peer:
        lines = peer.stats(section.encode())
    numbers = {}
    for name, value in lines.items():
        try:
            numbers[name] = float(value) if "." in value else int(value)
        except ValueError:
            pass  # names and versions
    return numbers


@contextmanager
def stats_delta(server: "Server", section: str = "") -> Iterator[dict[str, float]]:
    """The numbers of STATS at the end less those at the beginning; filled when the block ends.

    Each of the two looks is a connection and a STATS request of its own, which some counters count.  A name that
    exists only at the end counts from 0.
    """
    before = _numbers(server, section)
    delta: dict[str, float] = {}
    yield delta
    delta.update({name: value - before.get(name, 0) for name, value in _numbers(server, section).items()})
