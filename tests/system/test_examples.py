# SPDX-License-Identifier: MIT
"""The examples in docs/examples build out of the tree against what `make install` installs, and do what they say.

Each is built with gcc and clang; those in C++ with g++.  A server that is not there, one that never answers and one that
ends the stream must end them, too: adapters for event loops have their own ways to break.
"""
from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PREFIX = "/opt/crab"
PACKAGES = {"event_libuv": ("libuv",), "event_libevent": ("libevent",)}
# What each prints, in any order of lines. Those of URIS take the URI of a server, the others its host and port.
URIS = {"quick_start", "tickets", "errors"}
SAYS = {
    "quick_start": {"colour: blue", "colour: not there", "visits: 1", "north: cold", "west: the key is absent", "south: warm"},
    "tickets": {"stored: 4", "spring: March", "summer: June", "autumn: September", "winter: December"},
    "errors": {"the server says NOT_A_NUMBER", "counting a name: not done, and never will be", "appending: an answer",
               "log: one two ", "a get from nobody: the cache is away: go on without it"},
    "pipelining": {"stored: 10000, refused: 0", "the second one failed: NOT_A_NUMBER", "sum of digits: 5"},
    "ownership": {"the tide takes what nobody holds", "allocations of 1000 reads: 0"},
    "codec": {"PUT: 02 01 06 00 12 00 00 00 60 ea 00 00 00 00 00 00 63 6f 6c 6f 75 72 62 6c 75 65", "OK", "VALUE blue", "NULL",
              "the next reply has 3 bytes of at least 5", "used 11 of 14 bytes"},
    "event_poll": {"left: hello", "right: hello"},
    "event_epoll": {"visits: 10"},
    "event_libuv": {"hello from libuv"},
    "event_libevent": {"hello from libevent"},
    "shared_client": {"visits: 400", "reports: 4, loaded when missing"},
}


def run(*command: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, **more)


def checked(*command: str, **more) -> str:
    result = run(*command, **more)
    assert result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    checked("make", "--no-print-directory", "MODE=release", "install", f"DESTDIR={folder}", f"PREFIX={PREFIX}", cwd=ROOT,
            env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": ""})
    return folder


@pytest.fixture(scope="module")
def libraries(stage: Path) -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(stage / PREFIX.lstrip("/") / "lib")}


def build(stage: Path, name: str, folder: Path, compiler: str = "gcc") -> Path:
    source, program = folder / f"{name}.c", folder / name
    shutil.copy(EXAMPLES / f"{name}.c", source)
    lib = stage / PREFIX.lstrip("/") / "lib/pkgconfig"
    ours = checked("pkg-config", "--cflags", "--libs", "crabcache",
                   env={**os.environ, "PKG_CONFIG_PATH": str(lib), "PKG_CONFIG_SYSROOT_DIR": str(stage)}).split()
    others = checked("pkg-config", "--cflags", "--libs", *PACKAGES[name]).split() if name in PACKAGES else []
    checked(compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program), *ours, *others)
    return program


@contextmanager
def serving() -> Iterator[int]:
    child = subprocess.Popen([str(ROOT / "build/release/crabcache-server"), "--port", "0", "--memory", "64M",
                              "--threads", "1"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        ready = re.search(r"ready on 127\.0\.0\.1:(\d+)$", child.stdout.readline().strip())
        assert ready
        yield int(ready[1])
    finally:
        child.terminate()
        assert child.wait(20) == 0
        child.stdout.close()


@pytest.fixture
def port() -> Iterator[int]:
    with serving() as number:
        yield number


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.c")} == {*SAYS, "plugin", "sharding"}


@pytest.mark.parametrize("name", sorted(SAYS))
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_example_does_what_it_says(stage: Path, libraries: dict[str, str], port: int, tmp_path: Path, name: str,
                                   compiler: str) -> None:
    program = build(stage, name, tmp_path, compiler)
    arguments = [f"crab://127.0.0.1:{port}"] if name in URIS else ["127.0.0.1", str(port)]
    result = run(str(program), *arguments, env=libraries)
    assert (result.returncode, result.stderr) == (0, "")
    assert set(result.stdout.splitlines()) == SAYS[name]


def test_keys_are_spread_over_servers_and_those_of_a_dead_one_go_to_others(stage: Path, libraries: dict[str, str], port: int,
                                                                           tmp_path: Path) -> None:
    program = build(stage, "sharding", tmp_path)
    with serving() as second, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        for third, options in ((None, "weights=1,2"), (nobody.getsockname()[1], "eject=1&retries=2"), (None, "distribution=rendezvous")):
            ports = [port, second, third] if third else [port, second]
            hosts = ",".join(f"127.0.0.1:{number}" for number in ports)
            result = run(str(program), f"crab://{hosts}?{options}", env=libraries)
            assert result.stderr == ""
            keys = [int(number) for number in re.findall(r"^server \d+: (\d+) keys$", result.stdout, re.M)]
            assert len(keys) == len(ports) and sum(keys) == 1000 and min(keys) > 100
            stored, found = map(int, re.search(r"^stored: (\d+), found: (\d+)$", result.stdout, re.M).groups())
            assert sum(keys[:2]) <= found <= stored <= 1000
            states = dict(re.findall(r"^127\.0\.0\.1:(\d+): (\w+), ", result.stdout, re.M))
            assert [states[str(number)] == "up" for number in ports] == [True, True, False][:len(ports)]
            assert third or result.returncode == 0


def test_a_plugin_comes_and_goes(stage: Path, libraries: dict[str, str], port: int, tmp_path: Path) -> None:
    lib = stage / PREFIX.lstrip("/") / "lib"
    source = EXAMPLES / "plugin.c"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", str(source)]
    for kind, link in (("shared", [f"-L{lib}", "-lcrabcache"]), ("static", [str(lib / "libcrabcache.a"), "-pthread"])):
        plugin = tmp_path / f"{kind}.so"
        checked("gcc", *flags, f"-I{lib.parent}/include", "-shared", "-fPIC", "-o", str(plugin), *link)
        checked("gcc", *flags, "-DHOST", "-o", str(tmp_path / "host"), "-ldl")
        first = 1 if kind == "shared" else 4
        said = checked(str(tmp_path / "host"), str(plugin), "127.0.0.1", str(port), env=libraries)
        assert said.splitlines() == [f"load {first + i}" for i in range(3)]


@pytest.mark.parametrize("prefix", ["", "/moved/elsewhere"])
def test_cmake_finds_the_library(stage: Path, port: int, tmp_path: Path, prefix: str) -> None:
    """Also after the installed tree was moved; a version that is too new, or another major one, is refused."""
    tree = stage / PREFIX.lstrip("/")
    if prefix:
        tree = shutil.copytree(tree, tmp_path / prefix.lstrip("/"), symlinks=True)
    shutil.copytree(EXAMPLES / "cmake", tmp_path / "project")
    checked("cmake", "-S", "project", "-B", "out", f"-DCMAKE_PREFIX_PATH={tree}", cwd=tmp_path)
    checked("cmake", "--build", "out", cwd=tmp_path)
    assert checked(str(tmp_path / "out/hello"), "127.0.0.1", str(port)) == "hello from C\n"
    assert checked(str(tmp_path / "out/pieces"), "127.0.0.1", str(port)) == "4000000 bytes, the same\n"
    needs = checked("readelf", "-d", str(tmp_path / "out/pieces"))
    assert "libcrabcache" not in needs
    lists = tmp_path / "project/CMakeLists.txt"
    text = lists.read_text()
    for version in ("0.99", "1.0"):
        lists.write_text(text.replace("crabcache 0.1", f"crabcache {version}"))
        result = run("cmake", "-S", "project", "-B", f"out-{version}", f"-DCMAKE_PREFIX_PATH={tree}", cwd=tmp_path)
        assert result.returncode != 0 and "crabcache" in result.stderr


def test_the_binary_interface_is_what_is_recorded() -> None:
    """Programs that were built before must go on; what is added is recorded by `make abi`, with a reason in the changelog."""
    result = run("make", "--no-print-directory", "MODE=release", "check-abi", cwd=ROOT,
                 env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": ""})
    assert result.returncode == 0, f"see what has changed, then make abi:\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("name", sorted(name for name in SAYS if name.startswith("event_")))
@pytest.mark.parametrize("server", ["nobody", "silent", "ends", "garbage"])
def test_example_ends_without_a_good_server(stage: Path, libraries: dict[str, str], tmp_path: Path, name: str,
                                            server: str) -> None:
    program = build(stage, name, tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        held = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                held.append(peer)
                if server == "garbage":
                    peer.sendall(b"\xff" * 100)
                if server == "ends":
                    peer.shutdown(socket.SHUT_WR)

        if server != "nobody":
            listener.listen()
            threading.Thread(target=serve, daemon=True).start()
        result = run(str(program), "127.0.0.1", str(listener.getsockname()[1]), env=libraries)
        assert result.returncode in (0, 1)
        assert result.stdout.count("hello") == 0
        if server != "nobody":
            listener.shutdown(socket.SHUT_RDWR)
        for peer in held:
            peer.close()
