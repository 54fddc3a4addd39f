# SPDX-License-Identifier: MIT
"""What was measured: one sample for each run of crabcache-bench, and medians over those of the same cell."""
from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

LATENCIES = ("p50", "p99", "p99_9")


@dataclass(frozen=True)
class Cell:
    """What is compared: the same load for each server."""

    part: str
    server: str
    op: str
    pipeline: int
    value_bytes: int
    keys: int


@dataclass(frozen=True)
class Sample:
    """One run: throughput, CPU time of server and load generator in ns per request, latencies in microseconds."""

    cell: Cell
    per_second: float
    user_ns: float
    system_ns: float
    client_ns: float
    p50: float
    p99: float
    p99_9: float
    rate: int | None = None

    @property
    def cpu_ns(self) -> float:
        """User and system time."""
        return self.user_ns + self.system_ns


def sample_of(cell: Cell, result: dict) -> Sample:
    """From the JSON object of crabcache-bench."""
    server, client = result["cpu_ns_per_request"]["server"], result["cpu_ns_per_request"]["client"]
    latency = result["latency_us"]["all"]
    return Sample(cell, result["requests_per_second"], server["user"], server["system"], client["total"],
                  *(latency[name] for name in LATENCIES), rate=result["rate"])


@dataclass
class Collection:
    """All samples of a report, memory per item, and what they were measured with."""

    about: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    memory: list[dict] = field(default_factory=list)  # server, items, value_bytes, bytes_per_item

    def cells(self, part: str) -> list[Cell]:
        """The cells of a part, in the order in which they were first measured."""
        return list(dict.fromkeys(s.cell for s in self.samples if s.cell.part == part))

    def find(self, part: str, **wanted: object) -> list[Cell]:
        """The cells of a part with these properties."""
        return [c for c in self.cells(part) if all(getattr(c, name) == value for name, value in wanted.items())]

    def median(self, cell: Cell, name: str) -> float | None:
        """The median of a property over the samples of a cell; None if there are none."""
        values = [getattr(s, name) for s in self.samples if s.cell == cell]
        return statistics.median(values) if values else None

    def spread(self, cells: Iterable[Cell], name: str) -> float:
        """How far samples of the same cell differ: the median over cells of (largest - smallest) / median."""
        spreads = []
        for cell in cells:
            values = [getattr(s, name) for s in self.samples if s.cell == cell]
            if len(values) > 1:
                spreads.append((max(values) - min(values)) / (statistics.median(values) or 1.0))
        return statistics.median(spreads) if spreads else 0.0

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> "Collection":
        """Read what save() has written."""
        data = json.loads(path.read_text())
        samples = [Sample(**{**s, "cell": Cell(**s["cell"])}) for s in data["samples"]]
        return Collection(data["about"], samples, data["memory"])
