# SPDX-License-Identifier: MIT
"""Cases, their verdicts, and the run of many cases.

A case is a function that raises Failed if the peer breaks a rule and Skipped if it cannot tell; otherwise it passes.  Where
the rule is only a SHOULD, a failure is the verdict `non-strict`.
"""
from __future__ import annotations

import enum
import fnmatch
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .clauses import CLAUSES, order


class Failed(Exception):
    """The peer broke the rule."""


class Skipped(Exception):
    """It cannot be told, with this peer or these options."""


class Verdict(enum.Enum):
    """What came out of a case."""

    PASS = "pass"
    NON_STRICT = "non-strict"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """One case: the clause it tests, its number there, what it says, and its function."""

    clause: str
    number: int
    title: str
    run: Callable[[Any], None]
    should: bool = False  # the rule is a SHOULD
    covers: tuple[str, ...] = ()  # other clauses that it tests as well
    needs: tuple[str, ...] = ()  # what must be given for it; see the contexts
    last: bool = False  # it ends the server

    @property
    def address(self) -> str:
        """Its name: clause/number."""
        return f"{self.clause}/{self.number}"


@dataclass
class Result:
    """A case's verdict, why, and the bytes that crossed the wire if it did not pass."""

    case: Case
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    transcript: list[str] = field(default_factory=list)


class Context(Protocol):
    """What cases of one side get; a new one for each case."""

    def check_needs(self) -> None:
        """Skipped if the case needs what is not given."""

    def close(self) -> None:
        """End what the case has opened."""

    def transcript(self) -> list[str]:
        """The bytes of its connections, as lines for people."""


def register(cases: list[Case]) -> Callable[..., Callable[[Callable[[Any], None]], Callable[[Any], None]]]:
    """A decorator that puts functions into a list of cases: @case("4.3.7", 1).  The title is the docstring's first line."""

    def case(clause: str, number: int, **options: Any) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        for one in (clause, *options.get("covers", ())):
            if one not in CLAUSES:
                raise ValueError(f"there is no clause {one}")

        def put(function: Callable[[Any], None]) -> Callable[[Any], None]:
            title = (function.__doc__ or "").strip().split("\n")[0]
            added = Case(clause, number, title, function, **options)
            if any(other.address == added.address for other in cases):
                raise ValueError(f"two cases {added.address}")
            cases.append(added)
            return function

        return put

    return case


def choose(cases: Iterable[Case], patterns: Sequence[str]) -> list[Case]:
    """The cases that an address, a clause, a section or a shell pattern names, in the order of the document."""

    def named(case: Case) -> bool:
        return not patterns or any(
            fnmatch.fnmatchcase(case.address, pattern) or case.clause == pattern or case.clause.startswith(pattern + ".")
            for pattern in patterns)

    return sorted(filter(named, cases), key=lambda case: (case.last, order(case.clause), case.number))


def run_one(case: Case, context: Context) -> Result:
    """Run a case and judge it."""
    began = time.monotonic()
    try:
        context.check_needs()
        case.run(context)
        result = Result(case, Verdict.PASS)
    except Skipped as reason:
        result = Result(case, Verdict.SKIPPED, str(reason))
    except Failed as reason:
        result = Result(case, Verdict.NON_STRICT if case.should else Verdict.FAIL, str(reason))
    except (socket.timeout, OSError, EOFError) as reason:
        result = Result(case, Verdict.FAIL, f"{type(reason).__name__}: {reason}")
    except Exception:  # a mistake of the kit must not look like one of the peer, nor end the run
        result = Result(case, Verdict.FAIL, "the kit failed: " + traceback.format_exc(limit=-3))
    result.seconds = time.monotonic() - began
    if result.verdict in (Verdict.FAIL, Verdict.NON_STRICT):
        result.transcript = context.transcript()
    context.close()
    return result


def run_all(cases: Sequence[Case], make_context: Callable[[Case], Context],
            report: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Run cases one after the other, each with a context of its own."""
    results = []
    for case in cases:
        results.append(run_one(case, make_context(case)))
        report(results[-1])
    return results
