# SPDX-License-Identifier: MIT
"""The servers that run_hits.py compares: how each is started with a memory limit, and what it then takes."""
from __future__ import annotations

import json
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
FAST_CLOCK = 300
LONGEST_ITEM_MIB = 1024  # memcached takes no longer item


@dataclass(frozen=True)
class Stream:
    """A stream of requests: what tells the replay program about it, and what that program counted."""

    name: str
    arguments: tuple[str, ...]
    requests: int = 0
    keys: int = 0
    footprint: int = 0
    longest: int = 0


@dataclass(frozen=True)
class Run:
    """One replay against one server: its limit, what came out, and its resident memory at the end and at its peak.

    `files` is what VmRSS counts on top: pages of program files, which the system shares and can drop.
    """

    server: str
    limit: int
    rss: int
    peak: int
    files: int
    misses: int
    refused: int
    seconds: float


class Peer:
    """One kind of server.  `step` is the granularity of its limit in bytes, `least` the smallest limit that it takes."""

    name = ""
    protocol = ""
    program = ""
    step = 1
    least = 1 * MIB
    #: Resident bytes without items: only where calibration begins.
    base = 4 * MIB

    def __init__(self, build: Path) -> None:
        self.build = build

    def executable(self) -> str | None:
        """Where the program is, or None."""
        return shutil.which(self.program)

    def command(self, port: int, limit: int, longest: int) -> list[str]:
        """The command line for a limit in bytes."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What is added to the environment."""
        return {}

    def version(self) -> str:
        """What the program says of itself."""
        flag = "-V" if self.protocol == "memcached" else "--version"
        return subprocess.run([str(self.executable()), flag], capture_output=True, text=True,
                              check=True).stdout.splitlines()[0].split(" sha=")[0].strip()


class CrabCache(Peer):
    """Ours."""

    name = "crabcache"
    protocol = "native"
    program = "crabcache-server"
    least = 8 * MIB

    def executable(self) -> str | None:
        path = self.build / self.program
        return str(path) if path.exists() else None

    def command(self, port: int, limit: int, longest: int) -> list[str]:
        return [str(self.executable()), "--port", str(port), "--memory", str(limit), "--threads", "1",
                "--log-level", "error"]


class Redis(Peer):
    """Redis with one of its policies for all keys; `clock` times as fast as the true one (see fast_clock.c)."""

    protocol = "resp"
    program = "redis-server"
    base = 6 * MIB

    def __init__(self, build: Path, policy: str, clock: int) -> None:
        super().__init__(build)
        self.name = f"redis-{policy}"
        self.policy = policy
        self.clock = clock

    def command(self, port: int, limit: int, longest: int) -> list[str]:
        return [str(self.executable()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no",
                "--maxmemory", str(limit), "--maxmemory-policy", f"allkeys-{self.policy}",
                "--proto-max-bulk-len", str(LONGEST_ITEM_MIB * MIB), "--daemonize", "no",
                *(("--hz", "500") if self.clock != 1 else ())]

    def environment(self) -> dict[str, str]:
        if self.clock == 1:
            return {}
        return {"LD_PRELOAD": str(self.build / "fast_clock.so"), "FAST_CLOCK": str(self.clock)}


class Memcached(Peer):
    """memcached with one worker thread; items as long as needed, otherwise its defaults."""

    name = "memcached"
    protocol = "memcached"
    program = "memcached"
    step = MIB
    least = 2 * MIB
    base = 2 * MIB

    def command(self, port: int, limit: int, longest: int) -> list[str]:
        megabytes = limit // MIB
        # memcached refuses to start with items over half of its memory
        item = max(1, min(-(-(longest + 512) // MIB), megabytes // 2, LONGEST_ITEM_MIB))
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        return [str(self.executable()), *user, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "1", "-R", "500",
                "-m", str(megabytes), "-I", f"{item}m"]


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def status_bytes(pid: int, name: str) -> int:
    """A field of /proc/PID/status that is in KiB, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} of process {pid}")


def stop(child: subprocess.Popen) -> None:
    """End a server that was started here."""
    child.terminate()
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def start(peer: Peer, limit: int, longest: int, folder: str) -> tuple[subprocess.Popen, int]:
    """Start a server on a free port; another program may take the port first, so try again."""
    log = Path(folder) / "server.log"
    for _ in range(3):
        port = free_port()
        with open(log, "wb") as output:
            child = subprocess.Popen(peer.command(port, limit, longest), cwd=folder, stdin=subprocess.DEVNULL,
                                     stdout=output, stderr=output, env={**os.environ, **peer.environment()})
        deadline = time.monotonic() + START_S
        while child.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                time.sleep(0.05)  # if it was another server that answered, ours has ended by now
                if child.poll() is None:
                    return child, port
            except OSError:
                time.sleep(0.02)
        stop(child)
    raise RuntimeError(f"{peer.name} did not start: {log.read_text(errors='replace')[-500:]}")


def replay(peer: Peer, stream: Stream, limit: int, with_files: bool = False) -> Run:
    """Start a server, replay a stream against it, look at its memory, stop it."""
    with tempfile.TemporaryDirectory(prefix="crabcache-hits-") as folder:
        child, port = start(peer, limit, stream.longest, folder)
        try:
            done = subprocess.run([str(peer.build / "hit-ratio-replay"), "--server", peer.protocol, "--port", str(port),
                                   *stream.arguments], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{peer.name}, {stream.name}, limit {limit}: {done.stderr.strip()}")
            counted = json.loads(done.stdout)
            files = status_bytes(child.pid, "RssFile")
            left_out = 0 if with_files else files
            return Run(peer.name, limit, status_bytes(child.pid, "VmRSS") - left_out,
                       status_bytes(child.pid, "VmHWM") - left_out, files, counted["misses"], counted["refused"],
                       counted["seconds"])
        finally:
            stop(child)


def measure_stream(build: Path, name: str, arguments: tuple[str, ...]) -> Stream:
    """Count a stream's requests, keys and bytes."""
    done = subprocess.run([str(build / "hit-ratio-replay"), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    counted = json.loads(done.stdout)
    return Stream(name, arguments, counted["requests"], counted["keys"], counted["footprint"], counted["longest"])
