# SPDX-License-Identifier: MIT
"""The servers that run_peers.py compares: how each is started on a CPU of its own, and what crabcache-bench calls it."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
START_S = 10.0
SERVER_CPU, LOAD_CPU = "0", "1"

CRABCACHE, REDIS, MEMCACHED, NULL = "CrabCache", "Redis", "memcached", "null"
ALL = (CRABCACHE, REDIS, MEMCACHED, NULL)
KINDS = {CRABCACHE: "native", REDIS: "resp", MEMCACHED: "memcached", NULL: "native"}


def pinned(cpu: str, command: list[str]) -> list[str]:
    """The command on one CPU, if there are two to choose from."""
    return ["taskset", "-c", cpu, *command] if (os.cpu_count() or 1) > 1 else command


def program(name: str, build: Path) -> str | None:
    """Where a server's program is, or None."""
    if name == CRABCACHE or name == NULL:
        path = build / ("crabcache-server" if name == CRABCACHE else "tests/bench/null_server")
        return str(path) if path.exists() else None
    return shutil.which("redis-server" if name == REDIS else "memcached")


def version(name: str, build: Path) -> str:
    """What a program says of itself."""
    path = program(name, build)
    if path is None or name == NULL:
        return name
    flag = "-V" if name == MEMCACHED else "--version"
    text = subprocess.run([path, flag], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return text.split(" sha=")[0].replace("Redis server v=", "Redis ")


@dataclass(frozen=True)
class Setting:
    """What servers are started for: the room that their items need, and the length of the null server's values."""

    memory: int
    value_bytes: int


def command(name: str, path: str, port: int, setting: Setting) -> list[str]:
    """A server's command line: one thread that serves, no persistence, room for all items."""
    if name == CRABCACHE:
        return [path, "--port", str(port), "--memory", str(setting.memory), "--threads", "1", "--log-level", "error"]
    if name == REDIS:
        return [path, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    if name == MEMCACHED:
        # -R: with its default of 20 requests at a time deep pipelines cost it much more.  Twice the room, since an item
        # takes that of the next larger class of sizes.
        return [path, "-l", "127.0.0.1", "-p", str(port), "-t", "1", "-m", str(setting.memory * 2 // MIB), "-I", "8m",
                "-R", "1000", *(("-u", "nobody") if os.geteuid() == 0 else ())]
    return [path, str(port), str(setting.value_bytes)]


class Running:
    """A server that runs; leave the `with` block to end it."""

    def __init__(self, name: str, build: Path, setting: Setting) -> None:
        path = program(name, build)
        if path is None:
            raise FileNotFoundError(f"no program for {name}")
        self.name = name
        self.folder = tempfile.TemporaryDirectory(prefix="crabcache-bench-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.child = subprocess.Popen(pinned(SERVER_CPU, command(name, path, self.port, setting)), cwd=self.folder.name,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Until it accepts connections."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except ConnectionRefusedError:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} does not start") from None
                time.sleep(0.02)

    def rss(self) -> int:
        """Resident bytes, without pages of program files."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines())
        return (int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0])) * 1024

    def stop(self) -> None:
        """End it."""
        self.child.kill()
        self.child.wait()
        self.folder.cleanup()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
