# SPDX-License-Identifier: MIT
"""A real crabcache-server as a child process: on a free port, with its log captured, killed and started again at will."""
from __future__ import annotations

import mmap
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from .peer import Address, Peer
from .waiting import TIMEOUT_S

PROGRAM = "crabcache-server"


class ServerFailed(RuntimeError):
    """The server did not start, or what it has logged says that it is broken."""


def find_program(name: str = PROGRAM) -> str:
    """Where a program of CrabCache is.

    Looked for in the folder $CRABCACHE_BUILD, in build/release of the source tree that this file stands in, and where
    the shell would look.  ServerFailed if it is nowhere.
    """
    root = Path(__file__).resolve().parents[3]
    for folder in (os.environ.get("CRABCACHE_BUILD"), "build/release"):
        if folder and os.access(root / folder / name, os.X_OK):
            return str(root / folder / name)
    found = shutil.which(name)
    if found is None:
        raise ServerFailed(f"{name} is not built and not installed; CRABCACHE_BUILD names the folder that it is in")
    return found


class StoppedClock:
    """The clock by which a server's items expire: it stands still until it is moved.

    It is a library that is compiled when first needed (by `cc`) and preloaded into the server.  Only CLOCK_BOOTTIME is
    changed; the deadlines of connections stay true.
    """

    START_NS = 1_000_000 * 1_000_000_000

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="crabcache-clock-")
        folder = Path(self._folder.name)
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise ServerFailed("the stopped clock needs a C compiler")
        source, self._library = Path(__file__).with_name("clock.c"), folder / "clock.so"
        subprocess.run([compiler, "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-o", str(self._library), str(source)],
                       check=True, stdin=subprocess.DEVNULL)
        self._path = folder / "now"
        self._path.write_bytes(struct.pack("<q", self.START_NS))
        with open(self._path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    @property
    def environment(self) -> dict[str, str]:
        """What the server's environment needs."""
        return {"LD_PRELOAD": str(self._library), "CRABCACHE_TEST_CLOCK": str(self._path)}

    @property
    def now_ms(self) -> int:
        """What it shows, in milliseconds."""
        return int(struct.unpack("<q", self._memory[:8])[0] // 1_000_000)

    def advance(self, seconds: float) -> None:
        """Move it on."""
        now = struct.unpack("<q", self._memory[:8])[0] + round(seconds * 1e9)
        self._memory[:8] = struct.pack("<q", now)

    def close(self) -> None:
        """Take its files away."""
        self._memory.close()
        self._folder.cleanup()


class Server:
    """A running crabcache-server.

    Server("--memory", "64M") passes flags as they are; `clock` makes items expire by a StoppedClock.  It listens on a free
    port unless a flag says otherwise.  As a context manager it stops at the end, and must stop well.
    """

    def __init__(self, *flags: str, env: dict[str, str] | None = None, program: str | None = None,
                 clock: StoppedClock | None = None, **popen: Any) -> None:
        self.flags = flags
        self.program = program or find_program()
        self.clock = clock
        self._environment = {**os.environ, **(clock.environment if clock else {}), **(env or {})}
        self._popen = popen
        self._log = tempfile.TemporaryFile()
        self._read_from = 0
        self._start("0")

    def _start(self, port: str) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [self.program, "--port", port, *self.flags], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._log, env=self._environment, **self._popen)
        try:
            self._read_ready_line()
        except BaseException:  # a time-out of the test, say, or Ctrl-C: nobody would end it
            self.kill()
            self._close_pipe()
            raise

    def _close_pipe(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read_ready_line(self) -> None:
        assert self.process.stdout is not None
        poll = select.poll()  # select() takes no descriptors from 1024 on
        poll.register(self.process.stdout, select.POLLIN)
        ready = poll.poll(TIMEOUT_S * 1000)
        self.ready_line = self.process.stdout.readline().decode() if ready else ""
        if "ready on " not in self.ready_line:
            raise ServerFailed(f"{self.program} {self.flags} did not start: {self.log()}")
        self.places = self.ready_line.split("ready on ")[1].strip().split(", ")
        host, number = self.places[0].rsplit(":", 1)
        if host == "unix":
            self.host, self.port = number, 0
        else:
            self.host, self.port = host.strip("[]"), int(number)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def address(self) -> Address:
        """Where it listens: (host, port), or the path of a unix socket."""
        return (self.host, self.port) if self.port else self.host

    def connect(self, receive_buffer: int | None = None) -> Peer:
        """A new connection."""
        return Peer(self.address, receive_buffer)

    # ---- looking at it

    def rss(self) -> int:
        """Resident memory in bytes, pages of its program file left out."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) * 1024

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """All that it has logged, before a restart, too."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def errors(self) -> str:
        """What it has logged since the last call."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), size - self._read_from, self._read_from)
        self._read_from = size
        return text.decode(errors="replace")

    # ---- ending it

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end; the exit status."""
        return self.process.wait(TIMEOUT_S if timeout_s is None else timeout_s)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """End it at once, if it still runs, and start it again on the same port, empty."""
        self.kill()
        self._close_pipe()
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return self._start(str(self.port))
            except ServerFailed:  # the kernel may hold the port for a moment
                if time.monotonic() > deadline:
                    raise

    def stop(self) -> None:
        """End it if it still runs; ServerFailed if it does not end, or a sanitizer has found something."""
        if self._log.closed:
            return
        stuck = False
        if self.process.poll() is None:
            self.signal()
            try:
                self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
                stuck = True
        log = self.log()
        self._close_pipe()
        self._log.close()
        if stuck or "Sanitizer" in log or "runtime error" in log:
            raise ServerFailed(f"{self.program} {self.flags} {'did not stop' if stuck else 'is broken'}: {log}")
