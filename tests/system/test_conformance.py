# SPDX-License-Identifier: MIT
"""The conformance kit: the server passes it, every rule has a case, and a server that breaks a rule is caught."""
from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, TIMEOUT_S, Server, crypt

from crabcache.conformance import report
from crabcache.conformance.case import Verdict, choose, run_all
from crabcache.conformance.clauses import CLAUSES, UNSEEN_OF_CLIENTS, UNSEEN_OF_SERVERS, order
from crabcache.conformance.mutants import clients as broken_clients
from crabcache.conformance.mutants import servers as broken_servers
from crabcache.conformance.server import CASES, Options, ServerContext
from crabcache.testing import ReferenceServer

once = pytest.mark.once


def kit(*arguments: str, status: int = 0) -> str:
    """What the command line prints."""
    ran = subprocess.run([sys.executable, "-m", "crabcache.conformance", *arguments], cwd=ROOT / "python", capture_output=True,
                         text=True, timeout=TIMEOUT_S * 3, stdin=subprocess.DEVNULL)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout if status < 2 else ran.stderr


# These are matters of speed, which a busy machine does not have.
TIMED = {"3.1.3/1", "5.8.2/1", "10.2.3/1"}


def failures(results: list) -> str:
    return "\n".join(report.as_text(result) for result in results if result.verdict is Verdict.FAIL
                     or result.verdict is Verdict.NON_STRICT and result.case.address not in TIMED)


# ---- the server


def test_the_server_conforms(start_server, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"Ada:{crypt('secret word')}\n")
    users.chmod(0o600)
    main = start_server("--memory", "256M", "--threads", "2", "--stall-timeout", "2")
    guarded = start_server("--memory", "64M", "--threads", "1", "--auth-file", str(users), "--auth-failures", "0")
    small = start_server("--memory", "8M", "--threads", "1", "--eviction", "none")
    options = Options(server=main.address, auth_server=guarded.address, user=b"Ada", secret=b"secret word",
                      small_server=small.address, stop=main.signal, deadline_s=TIMEOUT_S, timeout_s=TIMEOUT_S)
    results = run_all(choose(CASES, []), lambda case: ServerContext(case, options))
    assert not failures(results), failures(results)
    skipped = {result.case.address for result in results if result.verdict is Verdict.SKIPPED}
    assert skipped <= {"4.3.13/0", "5.10.6/1"}, "these need a server with tiny values"
    assert main.wait() == 0


def test_the_server_conforms_with_tiny_values(start_server) -> None:
    server = start_server("--memory", "64M", "--threads", "1", "--max-value", "16")
    options = Options(server=server.address, timeout_s=TIMEOUT_S)
    results = run_all(choose(CASES, ["5.10.6", "4.3.8", "4.3.13", "6.11.1"]), lambda case: ServerContext(case, options))
    assert not failures(results), failures(results)


@once
def test_the_reference_server_conforms() -> None:
    with broken_servers.started(ReferenceServer, timeout_s=TIMEOUT_S) as options:
        results = run_all(choose(CASES, []), lambda case: ServerContext(case, options))
    assert not failures(results), failures(results)


# ---- every rule has a case


@once
def test_the_table_of_clauses_is_that_of_the_document() -> None:
    text = (ROOT / "spec" / "PROTOCOL.md").read_text()
    found = re.findall(r"^\*\*\[P-([0-9A-Z.]+)\]\*\*(.*?)(?=\n\n|\Z)", text, re.M | re.S)
    assert [number for number, _ in found] == sorted(CLAUSES, key=order)
    for number, words in found:
        level = "MUST" if re.search(r"\bMUST\b", words) else "SHOULD" if re.search(r"\bSHOULD\b", words) else None
        if number == "2.1.1":  # which says what MUST means
            level = None
        assert CLAUSES[number].level == level or level is None and CLAUSES[number].level in ("rule", "text"), number


@once
@pytest.mark.parametrize("level", ["MUST", "SHOULD", "rule"])
def test_every_rule_that_binds_a_server_has_a_case(level: str) -> None:
    rows = [row for row in report.coverage("server", CASES) if row["level"] == level]
    assert [row["clause"] for row in rows if not row["cases"] and not row["unseen"]] == []
    if level == "MUST":
        assert {row["clause"] for row in rows if row["unseen"]} == {"3.2.3", "9.4.4", "10.2.1", "13.3.2", "13.3.4", "13.5.1"}


@once
def test_what_is_called_unseen_has_no_case() -> None:
    covered = {row["clause"]: row["cases"] for side, cases in (("server", CASES),) for row in report.coverage(side, cases)}
    assert [clause for clause in UNSEEN_OF_SERVERS if covered[clause]] == []
    assert set(UNSEEN_OF_SERVERS) | set(UNSEEN_OF_CLIENTS) <= set(CLAUSES)


@once
def test_the_vectors_are_those_of_the_specification() -> None:
    assert (ROOT / "python/crabcache/conformance/vectors").resolve() == ROOT / "spec" / "vectors"


# ---- it can fail


@once
@pytest.mark.parametrize("mutant", broken_servers.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_server_is_caught(mutant) -> None:
    result = broken_servers.judge(mutant)
    (case,) = choose(CASES, [mutant.case])
    assert result.verdict is (Verdict.NON_STRICT if case.should else Verdict.FAIL), f"a server was not caught: {mutant.what}"
    assert "the kit failed" not in result.reason and result.transcript


@once
def test_the_manual_counts_right() -> None:
    text = (ROOT / "python/crabcache/conformance/README.md").read_text()
    assert f"{len(broken_servers.MUTANTS)} servers and {len(broken_clients.MUTANTS)} clients" in text


# ---- the command line


@pytest.fixture(scope="module")
def reference() -> Iterator[str]:
    with ReferenceServer() as server:
        yield f"127.0.0.1:{server.port}"


@once
def test_list_and_choice() -> None:
    lines = kit("--list").splitlines()
    assert len(lines) == len(CASES) and lines[0].startswith("1.1.1/1 ")
    assert [line.split()[0] for line in kit("--list", "4.3.8/1", "5.1", "13.*").splitlines()] == [
        "4.3.8/1", "5.1.1/0", "5.1.1/1", "13.4.2/1"]
    assert "no case is called" in kit("--list", "77", status=2)
    assert "one of --server and --client" in kit(status=2)
    assert "neither HOST:PORT" in kit("--server", "nowhere", status=2)


@once
def test_output(reference: str, tmp_path: Path) -> None:
    as_json, as_xml = tmp_path / "run.json", tmp_path / "run.xml"
    text = kit("--server", reference, "--json", str(as_json), "--junit", str(as_xml), "--coverage", "4.2", "5.2.5")
    assert "pass       4.2.2/1    an empty value is a value" in text
    assert "skipped    5.2.5/1" in text and "needs --small-server" in text
    assert re.search(r"^P-4.2.2 +rule +4.2.2/1 4.2.2/0  \(2 pass\)$", text, re.M)
    assert re.search(r"^MUSTs that bind only a client: P-1.1.2, ", text, re.M)
    assert text.endswith("6 pass, 0 non-strict, 0 fail, 1 skipped\n")
    run = json.loads(as_json.read_text())
    assert run["totals"] == {"pass": 6, "non-strict": 0, "fail": 0, "skipped": 1}
    assert [case["case"] for case in run["cases"]][:2] == ["4.2.1/0", "4.2.2/0"]
    suite = ElementTree.parse(as_xml).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("7", "0", "1")
    assert json.loads(kit("--server", reference, "--format", "json", "5.1"))["totals"]["pass"] == 2
    assert ElementTree.fromstring(kit("--server", reference, "--format", "junit", "5.1")).get("tests") == "2"


@once
def test_failures_show_the_bytes(tmp_path: Path) -> None:
    with broken_servers.server_of(broken_servers.LongNull) as server, broken_servers.server_of(broken_servers.Resets) as resets:
        where = f"127.0.0.1:{server.port}"
        text = kit("--server", where, "--quiet", "4.5.1", "5.1.1/1", status=1)
        assert text.startswith("fail       4.5.1/1    OK, PONG and NULL are one byte\n           the server sent what is no reply: 00")
        assert re.search(r"^ +C  02 00 ", text, re.M) and re.search(r"^ +S  10", text, re.M)
        failure = ElementTree.fromstring(kit("--server", where, "--format", "junit", "4.5.1", status=1)).find("testcase/failure")
        assert "C  02 00" in failure.text and "no reply" in failure.get("message")
        where = f"127.0.0.1:{resets.port}"
        assert "non-strict 3.7.3/1" in kit("--server", where, "3.7.3")
        kit("--server", where, "--strict", "3.7.3", status=1)


@once
def test_a_server_that_is_not_there() -> None:
    assert "ConnectionRefusedError" in kit("--server", "127.0.0.1:1", "5.1.1/1", status=1)


@once
def test_keys_are_of_this_run_alone() -> None:
    first, second = (ServerContext(CASES[0], Options(server=("127.0.0.1", 1))).key() for _ in range(2))
    assert first != second and first.startswith(b"conformance/")


def test_stop_command(start_server) -> None:
    server: Server = start_server("--memory", "16M", "--threads", "1")
    text = kit("--server", f"127.0.0.1:{server.port}", "--stop-command", f"kill {server.pid}", "--timeout", str(TIMEOUT_S), "3.8.1/1")
    assert text.startswith("pass ")
    assert server.wait() == 0
