# SPDX-License-Identifier: MIT
"""Proof that the kit can fail: servers and clients that break one rule each, and the case that must catch each of them."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A broken server or client: what is wrong with it, the class that is broken, and the case that must not pass."""

    case: str
    what: str
    broken: type

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.broken.__name__


def register(mutants: list[Mutant]) -> Callable[[str, str], Callable[[type], type]]:
    """A decorator that puts classes into a list of mutants."""

    def mutant(case: str, what: str) -> Callable[[type], type]:
        def put(broken: type) -> type:
            mutants.append(Mutant(case, what, broken))
            return broken

        return put

    return mutant
