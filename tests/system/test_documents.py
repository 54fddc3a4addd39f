# SPDX-License-Identifier: MIT
"""The documents say what is so: their examples compile and run, their links and names lead somewhere."""
from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "build" / "release"
DOCUMENTS = ("README.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/HACKING.md", "docs/BENCHMARKS.md", "docs/STATS.md",
             "spec/README.md", "spec/PROTOCOL.md")


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a language in a document, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text_of(name), re.M | re.S)
    return ["".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)) for indent, body in found]


def run(*command: str, **more) -> subprocess.CompletedProcess:
    more.setdefault("cwd", ROOT)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, **more)


@contextmanager
def server(program: Path) -> Iterator[int]:
    """A server on a free port; it must stop as asked."""
    child = subprocess.Popen([str(program), "--port", "0", "--memory", "64M", "--threads", "1"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        ready = re.search(r"ready on 127\.0\.0\.1:(\d+)$", child.stdout.readline().strip())
        assert ready
        yield int(ready[1])
        child.terminate()
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# ---- README --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with server(RELEASE / "crabcache-server") as number:
        yield number


@pytest.mark.parametrize("compiler, library", [("gcc", "libcrabcache.a"), ("clang", "libcrabcache.so")])
def test_readme_c_example(port: int, tmp_path: Path, compiler: str, library: str) -> None:
    (example,) = blocks("README.md", "c")
    source, program = tmp_path / "example.c", tmp_path / "example"
    assert "2722" in example
    source.write_text(example.replace("2722", str(port)))
    built = run(compiler, "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-Iinclude", str(source),
                str(RELEASE / library), "-pthread", "-o", str(program))
    assert built.returncode == 0, built.stderr
    ran = run(str(program), env={**os.environ, "LD_LIBRARY_PATH": str(RELEASE)})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello from C\n", "")


def test_readme_python_example(port: int) -> None:
    (example,) = blocks("README.md", "python")
    assert "2722" in example
    ran = run("/usr/bin/python3", "-c", example.replace("2722", str(port)),
              env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1"})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "b'hello from Python'\n", "")


def test_readme_shell_example(port: int) -> None:
    """Each `$` line of the console block prints the lines that stand below it."""
    (block,) = blocks("README.md", "console")
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, expected = part.partition("\n")
        command = command.replace("crabcache-cli", f"{RELEASE}/crabcache-cli --port {port}")
        ran = run("bash", "-c", command)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.rstrip("\n") == expected.rstrip("\n")


def test_readme_wire_example(port: int) -> None:
    """The requests in hex get the replies that stand beside them."""
    lines = re.findall(r"^ (?:PUT|GET) .*?  ((?:[0-9A-F]{2} +)+)->  ((?:[0-9A-F]{2} ?)+)$", text_of("README.md"), re.M)
    assert len(lines) == 3
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"".join(bytes.fromhex(request) for request, _ in lines))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            assert stream.read() == b"".join(bytes.fromhex(reply) for _, reply in lines)


# ---- names and links ------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """How GitHub names the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", text_of(name), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{name}: {target}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name: str) -> None:
    makefile = text_of("Makefile")
    known = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    fuzzers = {path.stem.replace("_", "-", 1) for path in (ROOT / "tests/fuzz").glob("fuzz_*.c")}
    units = {"test-" + path.stem.removeprefix("test_") for path in (ROOT / "tests/unit").glob("test_*.c*")}
    for target in re.findall(r"(?:`|^)make (?:-j\d )?([a-z][\w-]*)", text_of(name), re.M):
        assert target in known | fuzzers | units or target.endswith("-NAME"), f"{name}: make {target}"


def sources() -> str:
    patterns = ("include/crabcache/*.h", "server/*.[ch]", "server/store/*.[ch]", "client/*.[ch]", "client/*/*.[ch]")
    return "\n".join(path.read_text() for pattern in patterns for path in sorted(ROOT.glob(pattern)))


@pytest.mark.parametrize("name", ["docs/ARCHITECTURE.md", "docs/HACKING.md"])
def test_functions_and_files_named_in_documents_exist(name: str) -> None:
    text, code = text_of(name), sources()
    for identifier in re.findall(r"`([a-z]+_[a-z_]+|[A-Z]+_[A-Z_]+)`", text):
        assert re.search(rf"\b{identifier}\b", code) or identifier == "do_len", f"{name}: {identifier}"
    for path in re.findall(r"`((?:server|client|spec|tests|include|docs|python)/[\w./-]+)`", text):
        if "NAME" not in path:
            assert (ROOT / path).exists(), f"{name}: {path}"


# ---- the guide ------------------------------------------------------------------------------------------------------

GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.name)
def test_code_in_the_guide_comes_from_the_examples(page: Path) -> None:
    """Which test_examples.py compiles and runs; that each piece is there, Doxygen checks."""
    text = page.read_text()
    assert "```c" not in text
    for name in re.findall(r"^@(?:snippet|include) (\S+)", text, re.M):
        assert (ROOT / "docs" / "examples" / name).is_file(), name
    code = sources() + "".join(path.read_text() for path in (ROOT / "include/crabcache/adapters").glob("*.h"))
    for name in re.findall(r"\b(crab_\w+|CRAB_\w+)\b", text):
        assert re.search(rf"\b{name}\b", code), f"{page.name}: {name}"
    for clause in re.findall(r"\bP-\d+\.\d+\.\d+", text):
        assert f"**[{clause}]**" in text_of("spec/PROTOCOL.md"), f"{page.name}: {clause}"


def test_the_guide_has_a_page_for_each_example() -> None:
    listed = set(re.findall(r"@example (\S+)", text_of("docs/guide/examples.dox")))
    folder = ROOT / "docs" / "examples"
    assert listed == {path.name for path in folder.glob("*.c")} | {"cmake/pieces.cc"}
    assert {f"@subpage guide_{page.stem} " for page in GUIDE if page.name != "index.md"} == set(
        re.findall(r"@subpage guide_\w+ ", text_of("docs/guide/index.md")))


# ---- HACKING: add a command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is needed to change the specification and build the server."""
    folder = tmp_path_factory.mktemp("tree")
    for part in ("spec", "include", "server", "python", "Makefile"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def build(tree: Path) -> subprocess.CompletedProcess:
    return run("make", "-j2", "WERROR=1", "build/debug/crabcache-server", "MODE=debug", cwd=tree,
               env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": ""})


def test_add_a_command_as_hacking_says(tree: Path) -> None:
    (entry,) = blocks("docs/HACKING.md", "toml")
    (handler,) = blocks("docs/HACKING.md", "c")
    with open(tree / "spec" / "crabcache.toml", "a") as specification:
        specification.write("\n" + entry)
    (section,) = blocks("docs/HACKING.md", "markdown")
    protocol = tree / "spec" / "PROTOCOL.md"
    text = protocol.read_text()
    assert "\n# 6 Replies\n" in text
    protocol.write_text(text.replace("\n# 6 Replies\n", f"\n{section}\n# 6 Replies\n"))
    generated = run("/usr/bin/python3", "spec/generate.py", cwd=tree)
    assert generated.returncode == 0, generated.stdout + generated.stderr

    missing = build(tree)
    assert missing.returncode != 0
    assert "do_len" in missing.stderr and "never defined" in missing.stderr

    command = tree / "server" / "command.c"
    text = command.read_text()
    assert text.count("\nvoid command_execute(") == 1
    command.write_text(text.replace("\nvoid command_execute(", f"\n{handler}\nvoid command_execute("))
    built = build(tree)
    assert built.returncode == 0, built.stderr

    put = struct.pack("<BBHI", 0x02, 0, 1, 6) + b"k" + b"12345"
    length = struct.pack("<BBHI", 0x90, 0, 1, 1)
    with server(tree / "build" / "debug" / "crabcache-server") as number:
        with socket.create_connection(("127.0.0.1", number), 10) as connection:
            connection.sendall(put + length + b"k" + length + b"?")
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as stream:
                assert stream.read() == b"\x10" + struct.pack("<BIq", 0x18, 8, 5) + b"\x12"
