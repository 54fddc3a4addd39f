# SPDX-License-Identifier: MIT
"""What the server needs to start fails, call by call: it says so and ends, or does without; it never crashes or hangs."""
from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BUILD, ROOT, SANITIZED, TIMEOUT_S, Peer, wire

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's runtime must be loaded first")

# Each with what the message must name; which of several it is depends on whose call it was.
CALLS = {
    "mmap": "memory",
    "getrandom": "memory|random numbers",
    "pthread_mutex_init": "memory",
    "pthread_cond_init": "memory",
    "malloc": "",
    "calloc": "",
    "signalfd": "signals",
    "eventfd": "",
    "epoll_create1": "worker",
    "epoll_ctl": "worker",
    "pthread_attr_init": "worker",
    "pthread_attr_setstacksize": "worker",
    "pthread_create": "worker",
    "socket": "cannot listen",
    "bind": "cannot listen",
    "listen": "cannot listen",
}
MOST_CALLS = 200


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that makes one call fail."""
    library = tmp_path_factory.mktemp("faults") / "startup.so"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-Wall", "-Werror", "-shared", "-fPIC", "-O1", "-o", str(library),
                    str(ROOT / "tests" / "system" / "faults" / "startup.c"), "-ldl"], check=True)
    return str(library)


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of users, so that reading it can fail, too."""
    path = tmp_path_factory.mktemp("users") / "users"
    path.write_text("someone:$6$salt$" + "x" * 86 + "\n")
    path.chmod(0o600)
    return path


def answers(address: tuple[str, int]) -> bool:
    try:
        with Peer(address) as peer:
            return isinstance(peer.call(wire.PingRequest()), wire.PongReply)
    except ConnectionError:
        return False


def start(preload: str, users: Path, call: str, nth: int, forever: bool) -> tuple[bool, str]:
    """One start with one fault; returns whether there was one, and what stands on standard error."""
    env = {**os.environ, "LD_PRELOAD": preload, "FAULT_CALL": call, "FAULT_NTH": str(nth)}
    if forever:
        env["FAULT_FOREVER"] = "1"
    with subprocess.Popen([str(BUILD / "crabcache-server"), "--port", "0", "--memory", "8M", "--threads", "2",
                           "--auth-file", str(users)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=env, text=True) as server:
        try:
            ready = server.stdout.readline()
            if "ready on " in ready:  # It does without; or, if there was no fault, all is well.
                host, port = ready.rsplit(" ", 1)[1].strip().rsplit(":", 1)
                if not forever:  # The fault may have met the first connection: then only that is lost.
                    assert answers((host, int(port))) or answers((host, int(port)))
                server.terminate()
            _, errors = server.communicate(timeout=TIMEOUT_S)
        finally:
            server.kill()
    faulty = "fault: " in errors
    said = [line for line in errors.splitlines() if not line.startswith("fault: ")]
    if "ready on " in ready:
        assert server.returncode == 0, errors
    else:
        assert faulty, f"it did not start without a fault: {errors}"
        assert server.returncode in (1, 2), f"{call} {nth}: exit status {server.returncode}: {errors}"
        assert any(re.search(CALLS[call], line) for line in said), f"{call} {nth}: no clear message: {errors}"
    return faulty, errors


def faults(preload: str, users: Path, call: str, forever: bool) -> Iterator[str]:
    for nth in range(1, MOST_CALLS):
        faulty, errors = start(preload, users, call, nth, forever)
        if not faulty:
            return
        yield errors
    pytest.fail(f"{call} is called more than {MOST_CALLS} times")


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for-ever"])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_at_start_may_fail(preload: str, users: Path, call: str, forever: bool) -> None:
    assert sum(1 for _ in faults(preload, users, call, forever)) > 0, "no call was made to fail: the test tests nothing"


def test_memory_need_not_be_touched_ahead(preload: str, users: Path) -> None:
    """The thread behind the two workers: the server runs without it, and says so."""
    _, errors = start(preload, users, "pthread_create", 3, False)
    assert "warning memory is not touched ahead of its use, no thread: " in errors


def test_the_message_names_the_memory(preload: str, users: Path) -> None:
    """Of all causes the likeliest: more memory than there is."""
    _, errors = start(preload, users, "mmap", 1, False)
    assert "error cannot reserve the memory of --memory: Cannot allocate memory" in errors
