#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Put the same load on CrabCache, Redis, memcached and a server that does nothing, and report what it cost them.

    run_peers.py [--build FOLDER] [--out FOLDER] [--quick] [--parts matrix,keys,...] [--rounds N] [--append]

Servers run on CPU 0, each with one thread that serves; the load generator, crabcache-bench, on CPU 1.  The servers of a
part run at the same time, but only one has work; they are measured in turn, round after round, so that whatever else
happens on the machine happens to all of them.  What is reported are medians over the rounds.  Before, every key is put
twice, so that none of them still takes memory from the system for the first time.

    matrix    GET, PUT and 90 % GET, pipelines of 1, 16, 64 and 256, 1 M keys, values of 64 bytes
    latency   an open loop at half of Redis's throughput, P=16
    idle      one connection with one request at a time, alone and beside up to 20,000 idle ones (CrabCache only)
    memory    resident bytes of 2 M items
    values    values of 1 KiB (P=16), 64 KiB and 1 MiB (8 connections, P=4)
    keys      20 M keys, P=64: one server after the other, for the memory that they need

FOLDER/report.md is the report, beside it are its charts and samples.json with all that was measured.  --append adds to
the samples that are there; --publish FILE puts the report into a document.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import report
from fleet import ALL, CRABCACHE, KINDS, LOAD_CPU, MIB, NULL, REDIS, ROOT, Running, Setting, pinned, program, version
from samples import Cell, Collection, sample_of

RATIOS = {"get": "1:0", "put": "0:1", "mix": "90:10"}
PARTS = ("matrix", "latency", "idle", "memory", "values", "keys")
KEY_BYTES, VALUE_BYTES, CONNECTIONS = 16, 64, 50
LONG_BYTES, LONG_CONNECTIONS, LONG_PIPELINE = 64 << 10, 8, 4  # for long values: at most 32 are on their way
IDLE_CONNECTIONS = 20_000
OTHERS_S, OTHERS_MOST = 2.0, 0.1  # for so long others are looked at; a share of the processors that they may use
ROOM_PER_ITEM = 200  # bytes of a server's limit for each item of 64 bytes, so that nothing is evicted


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Scale:
    """How much is measured, and how long."""

    rounds: int
    seconds: float
    warm_up_s: float
    keys: int
    many_keys: int
    memory_items: int
    depths: tuple[int, ...] = (1, 16, 64, 256)
    ops: tuple[str, ...] = ("get", "put", "mix")


FULL = Scale(rounds=4, seconds=1.2, warm_up_s=0.3, keys=1_000_000, many_keys=20_000_000, memory_items=2_000_000)
QUICK = Scale(rounds=1, seconds=0.4, warm_up_s=0.1, keys=100_000, many_keys=1_000_000, memory_items=200_000)


class Bench:
    """The measurements of one run."""

    def __init__(self, build: Path, scale: Scale, servers: list[str], collection: Collection) -> None:
        self.build = build
        self.scale = scale
        self.servers = servers
        self.collection = collection

    def load(self, server: Running, *arguments: str) -> dict:
        """Run crabcache-bench against a server; anything that goes wrong ends the program."""
        command = [str(self.build / "crabcache-bench"), "--json", "--server", KINDS[server.name], "-p", str(server.port),
                   "--pid", str(server.child.pid), "-c", str(CONNECTIONS), "--key-bytes", str(KEY_BYTES), *arguments]
        done = subprocess.run(pinned(LOAD_CPU, command), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{server.name}: {' '.join(command)}:\n{done.stderr}")
        return json.loads(done.stdout)

    def preload(self, server: Running, keys: int, value_bytes: int) -> None:
        """Put every key."""
        if server.name != NULL:
            self.load(server, "--preload", "--keys", str(keys), "-d", str(value_bytes), "-n", "1", "--warm-up", "0",
                      "--timeout", "60s")

    def heat(self, server: Running, keys: int, value_bytes: int) -> None:
        """Put as many items again: what a server writes later is then memory that it has touched before."""
        self.load(server, "--keys", str(keys), "-d", str(value_bytes), "-n", str(max(keys, 1000)), "--warm-up", "0",
                  "--ratio", "0:1", "--timeout", "60s", "-P", "256", *self.shape(value_bytes))

    @staticmethod
    def shape(value_bytes: int) -> tuple[str, ...]:
        """Fewer requests on their way with long values."""
        return ("-c", str(LONG_CONNECTIONS), "-P", str(LONG_PIPELINE)) if value_bytes >= LONG_BYTES else ()

    def start(self, stack: ExitStack, keys: int, value_bytes: int, names: list[str]) -> list[Running]:
        """Servers that hold every key and are warm."""
        room = keys * ROOM_PER_ITEM if value_bytes < 1024 else max(1024 * MIB, 3 * keys * value_bytes)
        setting = Setting(memory=max(64 * MIB, room), value_bytes=value_bytes)
        running = [stack.enter_context(Running(name, self.build, setting)) for name in names]
        for server in running:
            self.preload(server, keys, value_bytes)
            self.heat(server, keys, value_bytes)
        return running

    def measure(self, server: Running, cell: Cell, *more: str) -> None:
        """One sample."""
        result = self.load(server, "-P", str(cell.pipeline), "--keys", str(cell.keys), "-d", str(cell.value_bytes),
                           "--ratio", RATIOS[cell.op], "--duration", f"{int(self.scale.seconds * 1000)}ms",
                           "--warm-up", f"{int(self.scale.warm_up_s * 1000)}ms", "--seed", str(time.time_ns() % 10**9),
                           *self.shape(cell.value_bytes), *more)
        if result["requests"] == 0:
            say(f"{server.name} got no CPU time at all: this sample is left out")
            return
        if server.name != NULL and result["misses"] > result["gets"] / 100:
            raise SystemExit(f"{server.name} misses {result['misses']} of {result['gets']}: it has lost items")
        self.collection.samples.append(sample_of(cell, result))
        say(report.summary(self.collection, cell))

    # ---- the parts -------------------------------------------------------------------------------------------------

    def matrix(self) -> None:
        """The main table."""
        with ExitStack() as stack:
            running = self.start(stack, self.scale.keys, VALUE_BYTES, self.servers)
            for _ in range(self.scale.rounds):
                for op in self.scale.ops:
                    for depth in self.scale.depths:
                        for server in running:
                            self.measure(server, Cell("matrix", server.name, op, depth, VALUE_BYTES, self.scale.keys))

    def latency(self) -> None:
        """The open loop, at half of what Redis does in the closed one."""
        with ExitStack() as stack:
            names = [name for name in self.servers if name != NULL]
            running = self.start(stack, self.scale.keys, VALUE_BYTES, names)
            slowest = next((s for s in running if s.name == REDIS), running[-1])
            closed = self.load(slowest, "-P", "16", "--keys", str(self.scale.keys), "--duration", "2s")
            rate = int(closed["requests_per_second"] / 2) // 1000 * 1000 or 1000
            for _ in range(self.scale.rounds):
                for server in running:
                    self.measure(server, Cell("latency", server.name, "mix", 16, VALUE_BYTES, self.scale.keys),
                                 "--rate", str(rate))

    def idle(self) -> None:
        """Who asks while others only stand there; descriptors limit how many."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = min(IDLE_CONNECTIONS if self.scale.rounds > 1 else 1000, hard - 200)
        with Running(CRABCACHE, self.build, Setting(memory=512 * MIB, value_bytes=VALUE_BYTES)) as server:
            self.preload(server, 100_000, VALUE_BYTES)
            for _ in range(self.scale.rounds):
                self.measure(server, Cell("alone", CRABCACHE, "get", 1, VALUE_BYTES, 100_000), "-c", "1")
                with ExitStack() as stack:
                    for _ in range(count):
                        stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                    self.measure(server, Cell("idle", CRABCACHE, "get", 1, VALUE_BYTES, 100_000), "-c", "1")
                time.sleep(1.5)  # the ports of closed connections can be used again after a second
        self.collection.about["idle"] = f"{count:,}"

    def memory(self) -> None:
        """What an item costs beyond its key and value."""
        for name in self.servers:
            if name != NULL:
                with Running(name, self.build, Setting(memory=2048 * MIB, value_bytes=VALUE_BYTES)) as server:
                    self.fill(server, self.scale.memory_items)

    def fill(self, server: Running, items: int) -> None:
        """Put so many items into an empty server, and see what it takes."""
        before = server.rss()
        self.preload(server, items, VALUE_BYTES)
        overhead = (server.rss() - before) / items - KEY_BYTES - VALUE_BYTES
        self.collection.memory = [m for m in self.collection.memory if (m["server"], m["items"]) != (server.name, items)]
        self.collection.memory.append({"server": server.name, "items": items, "key_bytes": KEY_BYTES,
                                       "value_bytes": VALUE_BYTES, "overhead": overhead})
        say(f"memory {items} items {server.name:10} {overhead:9.1f} bytes per item beyond key and value")

    def values(self) -> None:
        """Longer values, of which as many as fit 256 MiB."""
        for value_bytes in (1 << 10, 64 << 10, 1 << 20):
            keys = min(200_000, (256 * MIB if self.scale.rounds > 1 else 32 * MIB) // value_bytes)
            with ExitStack() as stack:
                running = self.start(stack, keys, value_bytes, self.servers)
                for _ in range(self.scale.rounds):
                    for op in ("get", "put"):
                        for server in running:
                            depth = LONG_PIPELINE if value_bytes >= LONG_BYTES else 16
                            self.measure(server, Cell("values", server.name, op, depth, value_bytes, keys))

    def keys(self) -> None:
        """More keys than the processor's caches hold."""
        setting = Setting(memory=self.scale.many_keys * ROOM_PER_ITEM, value_bytes=VALUE_BYTES)
        for name in self.servers:
            if name == NULL:
                continue
            with Running(name, self.build, setting) as server:
                self.fill(server, self.scale.many_keys)
                self.heat(server, self.scale.many_keys, VALUE_BYTES)
                for _ in range(self.scale.rounds):
                    for op in ("get", "put"):
                        self.measure(server, Cell("keys", name, op, 64, VALUE_BYTES, self.scale.many_keys))


# ---- what it was measured with ---------------------------------------------------------------------------------------


def output_of(*command: str) -> str:
    """What a program says; nothing if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def busy_share(before: str, after: str) -> float:
    """Of all processors' time between two states of /proc/stat, the share in which they did something, or others had them."""
    first, last = ([int(ticks) for ticks in text.splitlines()[0].split()[1:9]] for text in (before, after))
    spent = [b - a for a, b in zip(first, last)]
    idle = spent[3] + spent[4]  # idle, and waiting for disks
    return 1 - idle / sum(spent) if sum(spent) else 0.0


def others() -> float:
    """What others do with the processors, before anything is started here."""
    before = Path("/proc/stat").read_text()
    time.sleep(OTHERS_S)
    return busy_share(before, Path("/proc/stat").read_text())


def about(build: Path, servers: list[str], scale: Scale) -> dict[str, str]:
    """Machine, versions, commit."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    changed = "" if not output_of("git", "status", "--porcelain", "--untracked-files=no") else ", changed"
    busy = others()
    caution = {"caution": "other work had the processor, too: requests/s and latencies are those of a busy machine; "
                          "CPU times are what to compare, and somewhat too high for all"} if busy > OTHERS_MOST else {}
    return {
        **caution,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{cpu}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB; Linux {platform.release()}; "
                   f"{busy * 100:.0f} % busy before the start",
        "versions": ", ".join(version(name, build) for name in servers if name != NULL),
        "commit": (output_of("git", "rev-parse", "--short=12", "HEAD") or "unknown") + changed,
        "load": f"crabcache-bench, {CONNECTIONS} connections, {KEY_BYTES}-byte keys out of {scale.keys:,} at random, "
                f"{VALUE_BYTES}-byte values, {scale.seconds:g} s each; TCP on the loopback interface; server on CPU 0 with one "
                "thread, load on CPU 1",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare CrabCache with Redis and memcached.")
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--quick", action="store_true", help="a minute, and rough numbers")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ",".join(PARTS))
    parser.add_argument("--servers", default=",".join(ALL), help="some of " + ",".join(ALL))
    parser.add_argument("--ops", help="of matrix: some of get,put,mix")
    parser.add_argument("--depths", help="of matrix: such as 1,16")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each sample")
    parser.add_argument("--append", action="store_true", help="add to the samples that are in the folder")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="put the report into a document")
    options = parser.parse_args()
    parts = [part for part in options.parts.split(",") if part]
    servers = options.servers.split(",")
    if unknown := [*(set(parts) - set(PARTS)), *(set(servers) - set(ALL))]:
        parser.error(f"unknown: {', '.join(unknown)}")
    build = options.build.resolve()
    absent = [name for name in servers if program(name, build) is None]
    if CRABCACHE in absent or not (build / "crabcache-bench").exists():
        parser.error(f"{build} has no crabcache-server or crabcache-bench: make all")
    for name in absent:
        say(f"{name} is not there, and is left out")
    servers = [name for name in servers if name not in absent]

    scale = QUICK if options.quick else FULL
    scale.rounds = options.rounds or scale.rounds
    scale.seconds = options.seconds or scale.seconds
    scale.ops = tuple(options.ops.split(",")) if options.ops else scale.ops
    scale.depths = tuple(int(depth) for depth in options.depths.split(",")) if options.depths else scale.depths
    saved = options.out / "samples.json"
    collection = Collection.load(saved) if options.append and saved.exists() else Collection()
    collection.about = collection.about or about(build, servers, scale)
    bench = Bench(build, scale, servers, collection)
    for part in parts:
        getattr(bench, part)()
    text = report.write(collection, options.out)
    if options.publish:
        report.publish(collection, options.publish)
    print(text, end="")
    say(f"{os.path.relpath(options.out / 'report.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
