# SPDX-License-Identifier: MIT
"""The manual pages of section 3 say what the headers say: the same functions, the same arguments, nothing else.

Their examples compile and run, and `make install` lets `man` find the page of each function.
"""
from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import BUILD, ROOT, Server

pytestmark = pytest.mark.once

HEADERS = sorted((ROOT / "include/crabcache").rglob("*.h"))
PAGES = sorted((ROOT / "docs").glob("*.3"))
PREFIX = "/opt/crab"


def run(*command: str, env: dict[str, str] | None = None) -> str:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, cwd=ROOT,
                            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})})
    assert result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "warning" not in result.stderr, result.stderr
    return result.stdout


def rendered(page: Path) -> str:
    return run("man", "--warnings=w", "-l", str(page), env={"MANWIDTH": "100", "MANPAGER": "cat", "MANROFFOPT": "-c"})


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def code_of(header: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)


def declared() -> dict[str, str]:
    """The functions that the library exports, by name, as one line each."""
    found = {}
    for header in HEADERS:
        for text in re.findall(r"\bCRAB_API\b([^;]*);", code_of(header)):
            line = one_line(text.replace("CRAB_MUST_USE", ""))
            found[re.search(r"\b(crab_\w+)\(", line)[1]] = line + ";"
    return found


def synopsis(page: Path) -> str:
    return one_line(re.search(r"^SYNOPSIS$(.*?)^DESCRIPTION$", rendered(page), re.M | re.S)[1])


def test_there_are_the_pages_that_a_programmer_looks_for() -> None:
    assert {page.name for page in PAGES} >= {"crabcache.3", "crab_conn.3", "crab_client.3"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_renders_without_warnings_and_within_the_columns(page: Path) -> None:
    text = rendered(page)
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "RETURN VALUE", "SEE ALSO"):
        assert re.search(rf"^{heading}$", text, re.M)
    assert max(map(len, text.splitlines())) <= 100


def test_each_function_stands_in_one_synopsis_as_it_is_declared() -> None:
    texts = {page.name: synopsis(page) for page in PAGES}
    functions = declared()
    assert len(functions) > 90
    for name, prototype in functions.items():
        assert sum(f" {prototype} " in f" {text} " for text in texts.values()) == 1, prototype
    shown = {name for text in texts.values() for name in re.findall(r"[ *](crab_\w+)\([^)]", text)}
    assert shown - set(functions) == {"crab_status_failed"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_nothing_that_the_headers_do_not(page: Path) -> None:
    code = "\n".join(code_of(header) for header in HEADERS)
    text = page.read_text()
    names = set(re.findall(r"\b(crab_\w+|CRAB_\w+)\b", text)) - {"CRAB_CLIENT", "CRAB_CONN", "crab_conn", "crab_client"}
    assert names
    for name in names:
        assert re.search(rf"\b{name}\b", code), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_function_shown_is_explained(page: Path) -> None:
    """By name below the synopsis; those that queue, or are quiet, go by what they queue."""
    text = rendered(page)
    shown, explained = text.split("\nDESCRIPTION\n")
    explained = re.sub(r"‐\n *", "", explained)
    for name in re.findall(r"[ *](crab_\w+)\([^)]", shown):
        if re.match(r"crab_conn_(queue|quiet)_|crab_client_submit_", name):
            continue
        assert f"{name}()" in explained, f"{page.name}: {name}"


def test_each_status_is_explained() -> None:
    statuses = set(re.findall(r"^ *(CRAB_\w+) = \d+", code_of(ROOT / "include/crabcache/status.h"), re.M))
    assert len(statuses) > 20
    description = rendered(ROOT / "docs/crabcache.3").split("\nDESCRIPTION\n")[1]
    terms = re.findall(r"^ {7}(CRAB_\w+(?:, CRAB_\w+)*)$", description, re.M)
    assert sorted(", ".join(terms).split(", ")) == sorted(statuses)


def test_each_parameter_of_a_uri_is_explained() -> None:
    source = (ROOT / "client/uri.c").read_text()
    parameters = set(re.findall(r'\[URI_\w+\] = "(\w+)"', source))
    assert len(parameters) > 10
    description = rendered(ROOT / "docs/crab_client.3").split("\n   The URI\n")[1].split("\n   Servers\n")[0]
    assert parameters <= set(re.findall(r"\w+", " ".join(re.findall(r"^ {7}(\w.*)$", description, re.M))))


EXAMPLES = {"crab_conn.3": ("", "blue\n"), "crab_client.3": ("from far away\n", "from far away\n")}


@pytest.mark.parametrize("page", sorted(EXAMPLES))
def test_the_example_runs(start_server, tmp_path: Path, page: str) -> None:
    """Twice: what the first run has stored, the second finds."""
    server: Server = start_server("--memory", "64M")
    (example,) = re.findall(r"^\.EX\n(.*?)^\.EE$", (ROOT / "docs" / page).read_text(), re.M | re.S)
    example = example.replace("\\e", "\\")
    assert example.count("2722") == 1
    source, program = tmp_path / "example.c", tmp_path / "example"
    source.write_text(example.replace("2722", str(server.port)))
    run("gcc", "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-Iinclude", str(source), str(BUILD / "libcrabcache.a"),
        "-pthread", "-o", str(program))
    for said in EXAMPLES[page]:
        assert run(str(program)) == said


def test_man_finds_the_page_of_each_function(tmp_path: Path) -> None:
    def make(target: str) -> None:
        run("make", "--no-print-directory", "MODE=release", target, f"DESTDIR={tmp_path}", f"PREFIX={PREFIX}",
            env={"MAKEFLAGS": "", "MAKELEVEL": ""})

    make("install")
    folder = tmp_path / PREFIX.lstrip("/") / "share/man"
    found = {path.name.removesuffix(".3"): path for path in (folder / "man3").iterdir()}
    assert set(found) == {*declared(), "crab_status_failed", *(page.name.removesuffix(".3") for page in PAGES)}
    for name in ("crab_conn_get", "crab_fetch", "crab_version"):
        assert name in run("man", "-M", str(folder), "3", name, env={"MANPAGER": "cat"})
    make("uninstall")
    assert not [path for path in folder.rglob("*") if not path.is_dir()]
