#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Count misses of CrabCache, Redis (allkeys-lru, allkeys-lfu) and memcached at the same resident memory.

    run_hits.py [--traces FOLDER] [--only NAME]... [--sizes 10,20,40] [--json FILE] [--markdown FILE]

Each stream is replayed cache-aside (get; after a miss put a value of the request's size) against real servers, each
fresh and alone.  CrabCache runs first, with --memory SIZE % of the stream's footprint (the bytes of all its keys and
values).  Its peak resident memory is then the target for the others: their limits are changed, and the replay
repeated, until their resident memory at the end is at least the target and at most 2 % or one step of the limit above
it; so what remains of a difference is in their favour.  Pages of program files do not count, which is in favour of Redis
(9 MiB) and memcached (3.5 MiB against 1.9); with --with-files they do.  Whatever else a program takes without any items
counts, as it does for whoever runs it.

Traces are NAME.csv.xz or NAME.csv files of `key,value_bytes` lines.  Those whose sizes are made up anyway and whose
footprint is small are replayed with longer values (SCALES), so that no program's fixed needs decide.  Without traces
only a synthetic Zipf stream is run.  See docs/BENCHMARKS.md.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from servers import FAST_CLOCK, MIB, ROOT, CrabCache, Memcached, Peer, Redis, Run, Stream, measure_stream, replay

TOLERANCE = 0.02
MAX_RUNS = 6
MANY_REQUESTS, MAX_LONG_RUNS = 1_000_000, 4
SCALES = {"orm_busy": 16, "blockio": 4}
MUCH_MORE = 1.10
WANTED_MEAN, WANTED_EACH = 0.90, 1.0
ZIPF = ("--zipf", "0.9", "--keys", "400000", "--requests", "2000000", "--seed", "1", "--value-bytes", "64-2048")
ZIPF_NAME = "Zipf 0.9"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- the same resident memory ----------------------------------------------------------------------------------------


def next_limit(peer: Peer, target: int, runs: list[Run]) -> int:
    """The limit to try, from what the limits tried so far came to."""
    aim = int(target * (1 + TOLERANCE / 2))
    last = runs[-1]
    slope = 1.0
    if len(runs) > 1 and runs[-2].limit != last.limit:
        slope = min(2.0, max(0.5, (last.rss - runs[-2].rss) / (last.limit - runs[-2].limit)))
    wanted = last.limit + (aim - last.rss) / slope
    below = [run.limit for run in runs if run.rss < target]
    above = [run.limit for run in runs if run.rss >= target]
    if below and above and not max(below) < wanted < min(above):
        wanted = (max(below) + min(above)) / 2
    return max(peer.least, math.ceil(wanted / peer.step) * peer.step)


def calibrated(peer: Peer, stream: Stream, target: int, guess: int, with_files: bool = False) -> Run:
    """Replay until the resident memory is right, and return the run that counts.

    A server that holds the whole stream in less is right too: more memory would not change anything.  With long values
    an allocator's fragmentation differs from run to run by more than the tolerance; then the best of the runs that took
    about the target or less counts, or that which took the least above it if that is better.  A server that cannot do
    with so little (memcached keeps a page for each class of sizes) is compared with the least that it took.
    """
    most = target + max(int(target * TOLERANCE), peer.step if peer.step > 1 else 0)
    limit = max(peer.least, math.ceil(guess / peer.step) * peer.step)
    runs: list[Run] = []
    for _ in range(MAX_RUNS if stream.requests < MANY_REQUESTS else MAX_LONG_RUNS):
        runs.append(replay(peer, stream, limit, with_files))
        last = runs[-1]
        say(f"    {peer.name:10} limit {limit / MIB:7.1f} MiB  resident {last.rss / MIB:7.1f} MiB "
            f"({last.rss / target - 1:+.1%})  misses {last.misses}  {last.seconds:.1f} s")
        if target <= last.rss <= most or (last.rss < target and last.misses == stream.keys and not last.refused):
            return last
        limit = next_limit(peer, target, runs)
        if limit in [run.limit for run in runs]:
            break
    above = sorted((run for run in runs if run.rss >= target), key=lambda run: run.rss)
    return min([run for run in runs if run.rss <= most] + above[:1], key=lambda run: run.misses)


class Calibration:
    """Remembers how far each server's resident memory was from its limit, to begin the next size better."""

    def __init__(self, with_files: bool, earlier: tuple[dict, ...] = ()) -> None:
        self.with_files = with_files
        self.factor: dict[tuple[str, str], float] = {}
        self.earlier = {(name, cell["stream"], cell["percent"]): (run["limit"], run["rss"])
                        for cell in earlier for name, run in cell["servers"].items()}

    def guess(self, peer: Peer, stream: Stream, percent: float, target: int) -> int:
        """A limit to begin with: from an earlier measurement of the same cell, from another size, or roughly."""
        aim = target * (1 + TOLERANCE / 2)
        if (peer.name, stream.name, percent) in self.earlier:
            limit, rss = self.earlier[peer.name, stream.name, percent]
            return limit if target <= rss <= target * (1 + TOLERANCE) else int(limit + aim - rss)
        return int((aim - peer.base) * self.factor.get((peer.name, stream.name), 1.0))

    def run(self, peer: Peer, stream: Stream, percent: float, target: int) -> Run:
        """The replay that counts."""
        last = calibrated(peer, stream, target, self.guess(peer, stream, percent, target), self.with_files)
        if last.rss > peer.base:
            self.factor[peer.name, stream.name] = last.limit / (last.rss - peer.base)
        return last


# ---- one cell and the whole table ------------------------------------------------------------------------------------


def measure_cell(ours: Peer, peers: list[Peer], stream: Stream, percent: float, calibration: Calibration) -> dict:
    """All servers on one stream at one size."""
    limit = max(int(stream.footprint * percent / 100), ours.least)
    say(f"  {stream.name}, {percent:g} % of {stream.footprint / MIB:.1f} MiB")
    own = replay(ours, stream, limit, calibration.with_files)
    say(f"    {ours.name:10} limit {limit / MIB:7.1f} MiB  resident {own.peak / MIB:7.1f} MiB at its peak  "
        f"misses {own.misses}  {own.seconds:.1f} s")
    runs = [calibration.run(peer, stream, percent, own.peak) for peer in peers]
    cell = {"stream": stream.name, "percent": percent, "requests": stream.requests, "keys": stream.keys,
            "footprint": stream.footprint, "target_rss": own.peak,
            "servers": {run.server: asdict(run) for run in [own, *runs]}}
    if runs:
        best = min(runs, key=lambda run: run.misses)
        cell |= {"best": best.server, "ratio": own.misses / best.misses}
        if best.misses > stream.keys:  # the first request for a key misses everywhere
            cell["avoidable"] = (own.misses - stream.keys) / (best.misses - stream.keys)
    return cell


def table(cells: list[dict], names: list[str]) -> list[str]:
    """The cells as a Markdown table: miss ratios, resident memory, CrabCache against the best."""
    lines = ["| stream | memory | " + " | ".join(f"{name}: misses | resident" for name in names) +
             " | best of the others | CrabCache against it | in avoidable misses |", "|---" * (2 * len(names) + 5) + "|"]
    for cell in cells:
        columns = []
        for name in names:
            run = cell["servers"][name]
            rss = run["peak"] if name == "crabcache" else run["rss"]
            mark = " (more)" if rss > cell["target_rss"] * MUCH_MORE else ""
            columns += [f"{100 * run['misses'] / cell['requests']:.2f} %", f"{rss / MIB:.1f}{mark}"]
        columns.append(cell.get("best", "-"))
        columns += [f"{100 * (cell[name] - 1):+.1f} %" if name in cell else "-" for name in ("ratio", "avoidable")]
        lines.append(f"| {cell['stream']} | {cell['percent']:g} % | {' | '.join(columns)} |")
    return lines


def verdict(cells: list[dict]) -> tuple[list[str], dict]:
    """What the cells come to.  The synthetic stream counts only if there is nothing else."""
    counted = [cell for cell in cells if "ratio" in cell and cell["stream"] != ZIPF_NAME]
    counted = counted or [cell for cell in cells if "ratio" in cell]
    if not counted:
        return ["No other server to compare with."], {"mean": None, "worst": None, "reached": None}

    def mean(some: list[dict]) -> float:
        return math.exp(sum(math.log(cell["ratio"]) for cell in some) / len(some))

    worst = max(counted, key=lambda cell: cell["ratio"])
    streams = list(dict.fromkeys(cell["stream"] for cell in counted))
    means = {name: mean([cell for cell in counted if cell["stream"] == name]) for name in streams}
    total = mean(counted)
    lost = [f"{cell['stream']} at {cell['percent']:g} %" for cell in counted if cell["ratio"] >= WANTED_EACH]
    reached = total <= WANTED_MEAN and not lost
    lines = [f"Misses against the best of the others, geometric mean of {len(counted)}: {total:.3f} "
             f"(wanted: at most {WANTED_MEAN:.2f}); by stream: " +
             ", ".join(f"{name} {value:.3f}" for name, value in means.items()) +
             f"; worst cell: {worst['stream']} at {worst['percent']:g} %, {worst['ratio']:.3f}.",
             ("Not fewer misses than the best of the others: " + ", ".join(lost) + ".") if lost
             else "Fewer misses than the best of the others in every cell.",
             "Verdict: " + ("reached." if reached else "not reached.")]
    return lines, {"mean": total, "streams": means, "worst": worst["ratio"], "lost": lost, "reached": reached}


# ---- what to run ---------------------------------------------------------------------------------------------------------


def find_streams(options: argparse.Namespace) -> list[Stream]:
    """The traces of the folder and the synthetic stream, those that were asked for."""
    found: list[tuple[str, tuple[str, ...]]] = []
    if options.traces:
        paths = sorted([*options.traces.glob("*.csv.xz"), *options.traces.glob("*.csv")])
        if not paths:
            raise SystemExit(f"no traces (NAME.csv.xz or NAME.csv) in {options.traces}")
        found += [(path.name.split(".csv")[0], (str(path),)) for path in paths]
    else:
        say("No traces: only the synthetic stream is run. Name a folder of NAME.csv.xz files by --traces FOLDER "
            "(make bench-hits TRACES=FOLDER).")
    found.append((ZIPF_NAME, tuple(options.zipf.split()) if options.zipf else ZIPF))
    if options.only:
        unknown = set(options.only) - {name for name, _ in found}
        if unknown:
            raise SystemExit(f"no such stream: {', '.join(sorted(unknown))}; there are: "
                             f"{', '.join(name for name, _ in found)}")
        found = [(name, arguments) for name, arguments in found if name in options.only]
    scales, copies = SCALES | dict(options.scale), dict(options.copies)
    more = ("--limit", str(options.limit)) if options.limit else ()
    return [measure_stream(options.build, name, ("--scale", str(scales.get(name, 1)),
                                                "--copies", str(copies.get(name, 1)), *more, *arguments))
            for name, arguments in found]


def scale(text: str) -> tuple[str, int]:
    """NAME=N."""
    name, _, number = text.rpartition("=")
    return name, int(number)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=lambda text: Path(text) if text else None, default=None, metavar="FOLDER",
                        help="folder of NAME.csv.xz or NAME.csv files")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this stream; may be repeated")
    parser.add_argument("--sizes", default="10,20,40", metavar="LIST",
                        help="memory in percent of the footprint (default 10,20,40)")
    parser.add_argument("--scale", action="append", type=scale, default=[], metavar="NAME=N",
                        help="values of this stream N times as long (default orm_busy=16, blockio=4)")
    parser.add_argument("--copies", action="append", type=scale, default=[], metavar="NAME=N",
                        help="each request of this stream for N different keys (default 1): N times the keys and the time")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N requests of each stream")
    parser.add_argument("--zipf", default="", metavar="OPTIONS", help="the synthetic stream, as hit-ratio-replay takes it")
    parser.add_argument("--redis-clock", type=int, default=FAST_CLOCK, metavar="N",
                        help=f"Redis's clock runs N times as fast as the true one (default {FAST_CLOCK})")
    parser.add_argument("--with-files", action="store_true", help="resident pages of program files count, too")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release", metavar="FOLDER",
                        help="folder of the programs")
    parser.add_argument("--guess", type=Path, metavar="FILE", help="begin with the limits of an earlier --json FILE: fewer replays")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here too")
    options = parser.parse_args()
    options.build = options.build.resolve()
    try:
        options.sizes = [float(size) for size in options.sizes.split(",")]
    except ValueError:
        parser.error("--sizes must be numbers with commas between them")
    if not all(0 < size <= 400 for size in options.sizes):
        parser.error("--sizes must be over 0 and at most 400")
    return options


def main() -> int:
    options = read_options()
    ours = CrabCache(options.build)
    if ours.executable() is None or not (options.build / "hit-ratio-replay").exists():
        raise SystemExit(f"crabcache-server and hit-ratio-replay are not built in {options.build}: run make bench-hits")
    peers: list[Peer] = [Redis(options.build, "lru", options.redis_clock), Redis(options.build, "lfu", options.redis_clock),
                         Memcached(options.build)]
    for peer in [peer for peer in peers if peer.executable() is None]:
        say(f"{peer.program} is not installed: {peer.name} is left out.")
        peers.remove(peer)
    streams = find_streams(options)
    began, load = time.monotonic(), os.getloadavg()[0]
    earlier = json.loads(options.guess.read_text())["cells"] if options.guess else ()
    calibration = Calibration(options.with_files, tuple(earlier))
    cells = [measure_cell(ours, peers, stream, percent, calibration) for stream in streams for percent in options.sizes]
    lines, summary = verdict(cells)
    versions = [server.version() for server in (ours, *peers)]
    text = "\n".join([*table(cells, [server.name for server in (ours, *peers)]), "", *lines, "",
                      f"Resident memory in MiB, {'with' if options.with_files else 'without'} pages of program files: CrabCache's "
                      f"highest, the others' at the end. {';  '.join(dict.fromkeys(versions))}. "
                      f"{time.monotonic() - began:.0f} s; load at the start {load:.1f}."])
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.json:
        options.json.write_text(json.dumps({"cells": cells, "summary": summary, "versions": versions,
                                            "redis_clock": options.redis_clock, "with_files": options.with_files}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
