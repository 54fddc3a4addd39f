# SPDX-License-Identifier: MIT
"""From samples to a Markdown report with plots: what was wanted and what came out, then all numbers."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fleet import ALL, CRABCACHE, MEMCACHED, NULL, REDIS
from plot import bars, short
from samples import Cell, Collection

#: What docs and issues promise: depth -> least ratio.
WANTED_REDIS = {1: 1.4, 16: 3.5, 64: 7.0, 256: 10.0}
WANTED_MEMCACHED = {1: 1.25, 16: 2.5, 64: 4.0}
WANTED_NULL = {1: 0.9, 16: 0.7, 64: 0.5, 256: 0.3}
WANTED_KEYS_REDIS = 6.0
OPS = {"get": "GET", "put": "PUT", "mix": "90 % GET"}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table; all columns but the first to the right."""
    return ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1),
            *("| " + " | ".join(row) + " |" for row in rows), ""]


def number(value: float | None, digits: int = 0) -> str:
    """For a table; missing values are a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


class Report:
    """The report of a collection."""

    def __init__(self, collection: Collection) -> None:
        self.all = collection
        self.lost: list[str] = []

    # ---- numbers ---------------------------------------------------------------------------------------------------

    def value(self, part: str, server: str, name: str, **wanted: object) -> float | None:
        """A median."""
        cells = self.all.find(part, server=server, **wanted)
        return self.all.median(cells[0], name) if cells else None

    def times(self, part: str, server: str, **wanted: object) -> float | None:
        """How many times the requests per CPU second of a server CrabCache has."""
        ours, theirs = (self.value(part, s, "cpu_ns", **wanted) for s in (CRABCACHE, server))
        return theirs / ours if ours and theirs else None

    def share_of_null(self, part: str, **wanted: object) -> float | None:
        """CrabCache's throughput as a share of the null server's."""
        ours, null = (self.value(part, s, "per_second", **wanted) for s in (CRABCACHE, NULL))
        return ours / null if ours and null else None

    @property
    def busy(self) -> bool:
        """Whether other work had the processor, too: then only CPU time says something."""
        return "caution" in self.all.about

    def judged(self, what: str, value: float | None, wanted: float | None, unit: str = "x") -> str:
        """A ratio with its verdict; what is missed is noted."""
        if value is None:
            return "–"
        text = f"{value * 100:.0f} %" if unit == "%" else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"
        if wanted is None:
            return text
        target = f"{wanted * 100:.0f} %" if unit == "%" else f"{wanted:g}x"
        if value >= wanted:
            return f"**{text}** ≥ {target}"
        self.lost.append(f"{what}: {text}, wanted {target}")
        return f"{text} < {target}"

    # ---- sections --------------------------------------------------------------------------------------------------

    def depths(self) -> list[int]:
        return sorted({cell.pipeline for cell in self.all.cells("matrix")})

    def servers(self, part: str) -> list[str]:
        present = {cell.server for cell in self.all.cells(part)}
        return [name for name in ALL if name in present]

    def verdict(self) -> list[str]:
        """What was wanted."""
        rows = []
        kinds: list[tuple[str, dict[int, float], Callable[..., float | None], str]] = [
            ("times Redis's requests per CPU second", WANTED_REDIS, lambda **k: self.times("matrix", REDIS, **k), "x"),
            ("times memcached's", WANTED_MEMCACHED, lambda **k: self.times("matrix", MEMCACHED, **k), "x"),
            ("share of the null server's requests per CPU second", {}, lambda **k: self.times("matrix", NULL, **k), "%"),
        ]
        if not self.busy:
            kinds.append(("share of the null server's throughput", WANTED_NULL,
                          lambda **k: self.share_of_null("matrix", **k), "%"))
        for op in ("get", "put", "mix"):
            if not self.all.find("matrix", op=op):
                continue
            for label, wanted, ratio, unit in kinds:
                row = [f"{OPS[op]}, {label}"]
                for depth in self.depths():
                    target = wanted.get(depth) if op != "mix" else None
                    row.append(self.judged(f"{OPS[op]}, P={depth}, {label}", ratio(op=op, pipeline=depth), target, unit))
                rows.append(row)
        return ["### What was wanted", "", *table(["", *(f"P={d}" for d in self.depths())], rows)]

    def matrix(self) -> list[str]:
        """All numbers of the main part."""
        out: list[str] = []
        for op in ("get", "put", "mix"):
            if not self.all.find("matrix", op=op):
                continue
            rows = []
            for server in self.servers("matrix"):
                for label, name, digits in (("requests/s", "per_second", 0), ("CPU ns", "cpu_ns", 0)):
                    rows.append([f"{server}, {label}", *(
                        number(self.value("matrix", server, name, op=op, pipeline=d), digits) for d in self.depths())])
                rows.append([f"{server}, user + system ns", *(
                    f"{number(self.value('matrix', server, 'user_ns', op=op, pipeline=d))} + "
                    f"{number(self.value('matrix', server, 'system_ns', op=op, pipeline=d))}" for d in self.depths())])
                rows.append([f"{server}, p50 / p99 / p99.9 µs", *(
                    " / ".join(number(self.value("matrix", server, name, op=op, pipeline=d)) for name in ("p50", "p99", "p99_9"))
                    for d in self.depths())])
            out += [f"### {OPS[op]}", "", *table(["", *(f"P={d}" for d in self.depths())], rows)]
        return out

    def many_keys(self) -> list[str]:
        """More keys than any cache of the processor holds."""
        cells = self.all.cells("keys")
        if not cells:
            return []
        rows = []
        for op in dict.fromkeys(cell.op for cell in cells):
            for server in self.servers("keys"):
                rows.append([f"{OPS[op]}, {server}", number(self.value("keys", server, "per_second", op=op)),
                             number(self.value("keys", server, "cpu_ns", op=op)),
                             number(self.value("keys", server, "p99", op=op)),
                             self.judged(f"{OPS[op]} of {cells[0].keys:,} keys, times {server}",
                                         self.times("keys", server, op=op),
                                         WANTED_KEYS_REDIS if server == REDIS else None)
                             if server != CRABCACHE else ""])
        return [f"### {cells[0].keys:,} keys, P={cells[0].pipeline}", "",
                *table(["", "requests/s", "CPU ns", "p99 µs", "CrabCache, times"], rows)]

    def values(self) -> list[str]:
        """Longer values."""
        rows = []
        for cell in self.all.find("values", server=CRABCACHE):
            for server in self.servers("values"):
                wanted = {"op": cell.op, "value_bytes": cell.value_bytes}
                rate = self.value("values", server, "per_second", **wanted)
                rows.append([f"{OPS[cell.op]} {cell.value_bytes // 1024:,} KiB, {server}", number(rate),
                             number(rate * cell.value_bytes / 1e6 if rate else None),
                             number(self.value("values", server, "cpu_ns", **wanted)),
                             self.judged("", self.times("values", server, **wanted), None) if server != CRABCACHE else ""])
                if server in (REDIS, MEMCACHED) and (self.times("values", server, **wanted) or 1) < 1:
                    self.lost.append(f"{OPS[cell.op]} of {cell.value_bytes // 1024:,} KiB: {server} needs less CPU time")
        if not rows:
            return []
        return ["### Longer values (1 KiB: 50 connections, P=16; others: 8 connections, P=4)", "",
                *table(["", "requests/s", "MB/s", "CPU ns", "CrabCache, times"], rows)]

    def latency(self) -> list[str]:
        """The open loop."""
        cells = self.all.cells("latency")
        if not cells:
            return []
        rates = {s.rate for s in self.all.samples if s.cell.part == "latency"}
        rows = [[server, *(number(self.value("latency", server, name), 1) for name in ("p50", "p99", "p99_9"))]
                for server in self.servers("latency")]
        ours, theirs = (self.value("latency", s, "p99_9") for s in (CRABCACHE, REDIS))
        if ours and theirs and ours >= theirs:
            self.lost.append(f"open loop: p99.9 of {ours:,.0f} µs, Redis {theirs:,.0f} µs")
        return [f"### Latency at half of Redis's throughput (open loop, {'/'.join(f'{r:,}' for r in sorted(rates))} "
                f"requests/s, P={cells[0].pipeline}), µs", "", *table(["", "p50", "p99", "p99.9"], rows)]

    def idle(self) -> list[str]:
        """A busy connection beside idle ones."""
        if not self.all.cells("idle"):
            return []
        rows = [[label, *(number(self.value(part, CRABCACHE, name), 1) for name in ("p50", "p99", "p99_9"))]
                for part, label in (("alone", "alone"), ("idle", f"beside {self.all.about.get('idle', '')} idle connections"))]
        alone, beside = (self.value(part, CRABCACHE, "p99") for part in ("alone", "idle"))
        if alone and beside and beside > 1.1 * alone and not self.busy:
            self.lost.append(f"idle connections change the p99 of a busy one from {alone:,.0f} to {beside:,.0f} µs")
        return ["### One connection, one request at a time, µs", "", *table(["", "p50", "p99", "p99.9"], rows)]

    def memory(self) -> list[str]:
        """Bytes beyond key and value."""
        if not self.all.memory:
            return []
        rows = [[f"{entry['server']}, {entry['items']:,} items of {entry['key_bytes']} + {entry['value_bytes']} bytes",
                 number(entry["overhead"], 1)] for entry in self.all.memory]
        return ["### Memory per item beyond key and value, bytes", "", *table(["", "bytes"], rows)]

    def losses(self) -> list[str]:
        """Said plainly."""
        if not self.lost:
            return ["### Where CrabCache falls short", "", "Nowhere in this run.", ""]
        return ["### Where CrabCache falls short", "", *(f"- {line}" for line in dict.fromkeys(self.lost)), ""]

    def about(self) -> list[str]:
        """With what it was measured."""
        spread = self.all.spread(self.all.cells("matrix"), "cpu_ns")
        own = self.value("matrix", NULL, "client_ns", op="get", pipeline=64)
        generator = [f"- the load generator itself needs {own:.0f} ns of CPU time for a GET at P=64: up to {short(1e9 / own)} "
                     "requests/s from one CPU"] if own else []
        return [*(f"- {name}: {value}" for name, value in self.all.about.items() if name != "idle"),
                f"- medians of {self.rounds()}; samples of CPU time of the same cell differ by {spread * 100:.0f} %", *generator, ""]

    def rounds(self) -> str:
        counts = [sum(s.cell == c for s in self.all.samples) for c in self.all.cells("matrix")]
        low, high = min(counts, default=0), max(counts, default=0)
        return f"{low} samples" if low == high else f"{low} to {high} samples"

    def plots(self) -> dict[str, str]:
        """The charts, by file name."""
        charts = {}
        groups = [f"P={d}" for d in self.depths()]
        for op in ("get", "put"):
            if not self.all.find("matrix", op=op):
                continue
            per_cpu, rate = [], []
            for server in self.servers("matrix"):
                ns = [self.value("matrix", server, "cpu_ns", op=op, pipeline=d) for d in self.depths()]
                if server != NULL:
                    per_cpu.append((server, [1e9 / v if v else None for v in ns]))
                rate.append((server, [self.value("matrix", server, "per_second", op=op, pipeline=d) for d in self.depths()]))
            charts[f"cpu-{op}.svg"] = bars(f"{OPS[op]}: requests per second of the server's CPU",
                                           "16-byte keys out of 1 M, 64-byte values, 50 connections, pipelines of P",
                                           groups, per_cpu)
            if self.busy:
                continue
            charts[f"throughput-{op}.svg"] = bars(f"{OPS[op]}: requests per second",
                                                  "one CPU for the server, one for the load; null: the limit of the kernel",
                                                  groups, rate)
        return charts

    def text(self, plots: str) -> str:
        """The whole report; `plots` is the folder of the charts as the report sees it."""
        body = [*self.verdict(), *(f"![{name}]({plots}{name})\n" for name in self.plots()), *self.matrix(),
                *self.many_keys(), *self.values(), *self.latency(), *self.idle(), *self.memory()]
        return "\n".join([*self.about(), *self.losses(), *body]).rstrip() + "\n"


def summary(collection: Collection, cell: Cell) -> str:
    """A line for the terminal while it goes on."""
    rate, cpu = collection.median(cell, "per_second"), collection.median(cell, "cpu_ns")
    return (f"{cell.part} {OPS[cell.op]} P={cell.pipeline} {cell.value_bytes} B {cell.server:10} "
            f"{short(rate or 0):>7}/s {cpu or 0:9.0f} CPU ns")


def write(collection: Collection, folder: Path) -> str:
    """Write report.md, the charts and samples.json. The report's text."""
    report = Report(collection)
    folder.mkdir(parents=True, exist_ok=True)
    text = report.text("")
    for name, chart in report.plots().items():
        (folder / name).write_text(chart)
    (folder / "report.md").write_text("# CrabCache beside Redis and memcached\n\n" + text)
    collection.save(folder / "samples.json")
    return text


def publish(collection: Collection, document: Path) -> None:
    """Put the report between the marks of a document, and its charts into the folder `bench` beside it."""
    begin, end = "<!-- make bench: begin -->\n", "<!-- make bench: end -->\n"
    report = Report(collection)
    charts = document.parent / "bench"
    charts.mkdir(exist_ok=True)
    for name, chart in report.plots().items():
        (charts / name).write_text(chart)
    text = document.read_text()
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    document.write_text(before + begin + "\n" + report.text("bench/") + "\n" + end + after)
