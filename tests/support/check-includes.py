#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Check that includes point one way (docs/ARCHITECTURE.md, "Who may include whom").

    check-includes.py [--root FOLDER]

Each file of the product belongs to the first layer below whose patterns match its path.  A layer names the project
headers that it may include (a header of the same layer always may) and the system headers that it must not.
An include in quotes counts as a project header, and so does <crabcache/...>.  Besides, no header may include itself
by way of others.  Each breach is printed as `file:line: what is wrong`; the exit status is 1 if there is one.
"""
from __future__ import annotations

import argparse
import fnmatch
import re
import sys
from dataclasses import dataclass
from pathlib import Path

SOCKETS = ("sys/socket.h", "sys/epoll.h", "sys/un.h", "netinet/*", "arpa/*", "netdb.h", "poll.h", "sys/eventfd.h")
THREADS = ("pthread.h", "threads.h")


@dataclass(frozen=True)
class Layer:
    """A part of the program: which files it is, what it may know, and which system headers it must do without."""

    name: str
    files: tuple[str, ...]
    may: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


LAYERS = (
    # Public headers: the codec stands alone, the rest may use it.
    Layer("codec", ("include/crabcache/wire.h",), never=(*SOCKETS, *THREADS, "stdio.h", "stdlib.h", "unistd.h")),
    Layer("public version and status", ("include/crabcache/version.h", "include/crabcache/status.h"),
          may=("crabcache/version.h", "crabcache/status.h", "crabcache/wire.h")),
    Layer("adapters for event loops", ("include/crabcache/adapters/*.h",), may=("crabcache/event.h",)),
    Layer("public headers", ("include/crabcache/*.h",), may=("crabcache/*.h",)),

    # Client: the library, then programs that use only its public face.
    Layer("client library", ("client/*.[ch]",), may=("crabcache/*.h", "client/*.h")),
    Layer("command line", ("client/cli/*.[ch]",), may=("crabcache/*.h", "client/cli/*.h")),
    Layer("load", ("client/load/*.[ch]",), never=SOCKETS),
    Layer("replay", ("client/replay/*.[ch]",), may=("crabcache/*.h", "client/load/*.h", "client/replay/*.h")),
    Layer("adapters of the benchmark", ("client/bench/native.c", "client/bench/resp.c", "client/bench/memcached.c",
                                        "client/bench/protocol.h", "client/bench/inbox.[ch]", "client/bench/request.[ch]"),
          may=("crabcache/wire.h", "client/bench/protocol.h", "client/bench/inbox.h", "client/bench/request.h"),
          never=SOCKETS),
    Layer("benchmark", ("client/bench/*.[ch]",), may=("crabcache/*.h", "client/load/*.h", "client/bench/*.h")),

    # Server, from the bottom up.
    Layer("store", ("server/store/*.[ch]",), may=("server/store/*.h",), never=SOCKETS),
    Layer("log", ("server/log.[ch]",), never=tuple(header for header in SOCKETS if header != "poll.h")),
    Layer("buffers", ("server/buf.[ch]",), may=("server/log.h",), never=SOCKETS),
    Layer("throttle", ("server/throttle.[ch]",), never=SOCKETS),
    Layer("latency", ("server/latency.[ch]",), never=SOCKETS),
    Layer("dispatch", ("server/dispatch.[ch]", "server/batch.[ch]", "server/command*.[ch]", "server/auth.[ch]", "server/stats*.[ch]"),
          may=("crabcache/wire.h", "crabcache/version.h", "server/store/store.h", "server/dispatch.h", "server/batch.h",
               "server/command.h", "server/auth.h", "server/throttle.h", "server/stats*.h", "server/latency.h",
               "server/buf.h", "server/log.h"),
          never=SOCKETS),
    Layer("watch over grace periods", ("server/grace.[ch]",), may=("server/log.h", "server/store/store.h"), never=SOCKETS),
    Layer("memory ahead", ("server/ahead.[ch]",), may=("server/store/store.h",), never=SOCKETS),
    Layer("loop", ("server/worker.[ch]", "server/roster.[ch]", "server/conn*.[ch]"),
          may=("crabcache/wire.h", "crabcache/version.h", "server/worker.h", "server/roster.h", "server/conn.h", "server/conn_impl.h",
               "server/dispatch.h", "server/buf.h", "server/stats.h", "server/log.h")),
    Layer("notify", ("server/notify.[ch]",), never=SOCKETS),
    Layer("health", ("server/health.[ch]",), may=("server/stats.h", "server/log.h"), never=SOCKETS),
    Layer("configuration", ("server/config*.[ch]",),
          may=("crabcache/wire.h", "crabcache/version.h", "server/config*.h", "server/log.h", "server/store/store.h")),
    Layer("listening", ("server/listen.[ch]",), may=("server/config.h", "server/log.h")),
    Layer("metrics", ("server/metrics*.[ch]",),
          may=("crabcache/version.h", "server/metrics*.h", "server/stats*.h", "server/latency.h", "server/listen.h", "server/log.h"),
          never=SOCKETS),
    Layer("whole server", ("server/server.[ch]", "server/main.c"),
          may=("crabcache/*.h", "server/*.h", "server/store/store.h")),
)

FOLDERS = ("include", "client", "server")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def matches(path: str, pattern: str) -> bool:
    """Like fnmatch, but `*` stays within one folder, as in a shell."""
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def layer_of(path: str) -> Layer | None:
    return next((layer for layer in LAYERS if any(matches(path, p) for p in layer.files)), None)


def resolve(root: Path, including: str, name: str, quoted: bool) -> str | None:
    """The project file that an include names, as a path from the root; None for a system header."""
    folder = str(Path(including).parent)
    for candidate in ([f"{folder}/{name}"] if quoted else []) + [name, f"include/{name}"]:
        if (root / candidate).is_file():
            return candidate
    return None


def spelled(path: str) -> str:
    """How a project file is named in an include: the public headers without their folder."""
    return path.removeprefix("include/")


def check_file(root: Path, path: str, edges: dict[str, list[str]]) -> list[str]:
    layer = layer_of(path)
    if layer is None:
        return [f"{path}:1: belongs to no layer: name it in LAYERS of tests/support/check-includes.py"]
    problems = []
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        quoted, name = found[1] == '"', found[2]
        target = resolve(root, path, name, quoted)
        if target is None:
            if quoted or name.startswith("crabcache/"):
                problems.append(f"{path}:{number}: no such header: {name}")
            elif any(fnmatch.fnmatchcase(name, pattern) for pattern in layer.never):
                problems.append(f"{path}:{number}: the {layer.name} layer must do without <{name}>")
            continue
        edges.setdefault(path, []).append(target)
        if name != spelled(target):
            problems.append(f"{path}:{number}: write this include as {spelled(target)}")
        same = layer_of(target) is layer
        if not same and not any(matches(spelled(target), pattern) for pattern in layer.may):
            problems.append(f"{path}:{number}: the {layer.name} layer may not include {spelled(target)}")
    return problems


def cycles(edges: dict[str, list[str]]) -> list[str]:
    """Chains of includes that come back to where they began."""
    problems, done = [], set()

    def visit(path: str, chain: list[str]) -> None:
        if path in chain:
            problems.append(f"{path}:1: includes itself: {' -> '.join([*chain[chain.index(path):], path])}")
            return
        if path in done:
            return
        for target in edges.get(path, []):
            visit(target, [*chain, path])
        done.add(path)

    for path in sorted(edges):
        visit(path, [])
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the direction of includes.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    root = parser.parse_args().root
    files = sorted(str(path.relative_to(root)) for folder in FOLDERS for path in (root / folder).rglob("*.[ch]"))
    edges: dict[str, list[str]] = {}
    problems = [problem for path in files for problem in check_file(root, path, edges)] + cycles(edges)
    print("\n".join(problems) if problems else f"includes of {len(files)} files point one way")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
