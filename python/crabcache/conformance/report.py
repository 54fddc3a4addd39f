# SPDX-License-Identifier: MIT
"""What a run found: as text, as JSON, as JUnit's XML, and clause by clause."""
from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .case import Case, Result, Verdict
from .clauses import CLAUSES, UNSEEN_OF_CLIENTS, UNSEEN_OF_SERVERS, order


def line(result: Result) -> str:
    """One result in a line."""
    text = f"{result.verdict.value:<10} {result.case.address:<10} {result.case.title}"
    return text + (f"\n           {result.reason}" if result.reason else "")


def totals(results: Sequence[Result]) -> str:
    """The numbers of each verdict."""
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)


def as_text(result: Result, verbose: bool = False) -> str:
    """A result for people; with the bytes if it is none that passed."""
    lines = [line(result)]
    if result.verdict in (Verdict.FAIL, Verdict.NON_STRICT) or verbose:
        lines += ["           " + text for text in result.transcript]
    return "\n".join(lines)


def as_json(side: str, results: Sequence[Result]) -> str:
    """The whole run for programs."""
    counts = Counter(result.verdict.value for result in results)
    return json.dumps({
        "side": side,
        "totals": {verdict.value: counts[verdict.value] for verdict in Verdict},
        "cases": [{"case": result.case.address, "clause": f"P-{result.case.clause}", "also": [f"P-{c}" for c in result.case.covers],
                   "level": CLAUSES[result.case.clause].level, "title": result.case.title, "verdict": result.verdict.value,
                   "reason": result.reason, "seconds": round(result.seconds, 6), "transcript": result.transcript}
                  for result in results],
    }, indent=1)


def printable(text: str) -> str:
    """Text that XML can hold."""
    return "".join(char if char in "\n\t" or " " <= char < "\ud800" or "\ue000" <= char <= "\ufffd" else "?" for char in text)


def as_junit(side: str, results: Sequence[Result]) -> str:
    """The whole run as JUnit's XML; `non-strict` counts as passed, and says so in system-out."""
    counts = Counter(result.verdict for result in results)
    suite = ElementTree.Element("testsuite", name=f"crabcache.conformance.{side}", tests=str(len(results)), errors="0",
                                failures=str(counts[Verdict.FAIL]), skipped=str(counts[Verdict.SKIPPED]),
                                time=f"{sum(result.seconds for result in results):.3f}")
    for result in results:
        test = ElementTree.SubElement(suite, "testcase", classname=f"P-{result.case.clause}",
                                      name=printable(f"{result.case.address} {result.case.title}"), time=f"{result.seconds:.6f}")
        if result.verdict is Verdict.FAIL:
            failure = ElementTree.SubElement(test, "failure", message=printable(result.reason))
            failure.text = printable("\n".join(result.transcript))
        elif result.verdict is Verdict.SKIPPED:
            ElementTree.SubElement(test, "skipped", message=printable(result.reason))
        elif result.verdict is Verdict.NON_STRICT:
            ElementTree.SubElement(test, "system-out").text = printable(f"non-strict: {result.reason}")
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def cases_by_clause(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """The cases that test each clause, as their own or besides."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        for clause in (case.clause, *case.covers):
            found.setdefault(clause, []).append(case)
    return found


def coverage(side: str, cases: Sequence[Case], results: Sequence[Result] = ()) -> list[dict[str, Any]]:
    """For each clause that binds the side: its level, its cases, the verdicts if there are results, and why there is no case."""
    unseen = UNSEEN_OF_SERVERS if side == "server" else UNSEEN_OF_CLIENTS
    verdicts = {result.case.address: result.verdict.value for result in results}
    found = cases_by_clause(cases)
    rows = []
    for number in sorted(CLAUSES, key=order):
        clause = CLAUSES[number]
        if clause.binds_a(side):
            addresses = [case.address for case in found.get(number, [])]
            rows.append({"clause": number, "level": clause.level, "cases": addresses,
                         "verdicts": [verdicts[address] for address in addresses if address in verdicts],
                         "unseen": "" if addresses else unseen.get(number, "")})
    return rows


def coverage_text(side: str, cases: Sequence[Case], results: Sequence[Result] = ()) -> str:
    """The coverage as a table, and the clauses that bind only the other side."""
    rows = coverage(side, cases, results)
    lines = []
    for row in rows:
        what = " ".join(row["cases"]) or (f"not visible: {row['unseen']}" if row["unseen"] else "no case")
        verdicts = f"  ({', '.join(f'{n} {v}' for v, n in Counter(row['verdicts']).items())})" if row["verdicts"] else ""
        lines.append(f"P-{row['clause']:<8} {row['level']:<7} {what}{verdicts}")
    for level in ("MUST", "SHOULD", "rule"):
        here = [row for row in rows if row["level"] == level]
        lines.append(f"{level}: {sum(bool(row['cases']) for row in here)} of {len(here)} clauses that bind a {side} have cases, "
                     f"{sum(bool(row['unseen']) for row in here)} are not visible to a peer")
    other = "client" if side == "server" else "server"
    only = [number for number in sorted(CLAUSES, key=order) if CLAUSES[number].binds == other and CLAUSES[number].level == "MUST"]
    lines.append(f"MUSTs that bind only a {other}: {', '.join('P-' + number for number in only)}")
    return "\n".join(lines)
