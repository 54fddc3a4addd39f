# SPDX-License-Identifier: MIT
"""The conformance kit, for clients: ours pass it, every rule has a case, and a client that breaks a rule is caught."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TIMEOUT_S

from crabcache.conformance import report
from crabcache.conformance.case import Verdict, choose, run_all
from crabcache.conformance.client import CASES, ClientContext, Options
from crabcache.conformance.client.play import ProcessClient, ThreadClient
from crabcache.conformance.client.reference import ReferenceClient
from crabcache.conformance.mutants import clients as broken_clients

pytestmark = pytest.mark.once  # Python always loads the release library

# A reply that lies in the socket when nothing is asked: libcrabcache does not look before it sends.  With tags it finds out.
BLOCKING = {"12.1.4/1"}
# A matter of speed, which a busy machine does not have.
TIMED = {"3.1.3/1"}


def judge(start, *patterns: str) -> tuple[set[str], set[str]]:
    """The cases that were non-strict and those that were skipped; none may fail."""
    options = Options(start=start, timeout_s=TIMEOUT_S, silence_s=0.05)
    results = run_all(choose(CASES, patterns), lambda case: ClientContext(case, options))
    if options.client is not None:
        options.client.end()
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    assert not failed, "\n".join(report.as_text(result) for result in failed)
    by = {verdict: {result.case.address for result in results if result.verdict is verdict} for verdict in Verdict}
    return by[Verdict.NON_STRICT] - TIMED, by[Verdict.SKIPPED]


def test_the_reference_client_conforms() -> None:
    assert judge(lambda: ThreadClient(ReferenceClient())) == (set(), set())


@pytest.fixture(scope="module")
def c_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("shim") / "conformance_client"
    subprocess.run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror",
                    "-Iinclude", "docs/examples/conformance-client/conformance_client.c", "build/release/libcrabcache.a",
                    "-pthread", "-o", str(program)],
                   cwd=ROOT, check=True, stdin=subprocess.DEVNULL, timeout=120)
    return program


def test_the_c_client_conforms(c_client: Path) -> None:
    assert judge(lambda: ProcessClient(str(c_client))) == (BLOCKING, set())


def test_the_python_client_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "python"))
    non_strict, skipped = judge(lambda: ProcessClient(f"{sys.executable} -m crabcache.conformance.client.binding"))
    assert non_strict <= BLOCKING | {"3.8.2/2"}, "it notices GOAWAY only when the stream ends"
    assert skipped == {"3.4.5/1", "3.4.5/2", "5.12.5/1", "6.11.2/2", "7.1.1/1"}, "these need QUIET"


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60).stdout if program else ""
    if not version or int(version.lstrip("v").split(".")[0]) < 18:
        pytest.skip("Node 18 or later is not installed")
    return program


def test_the_node_client_conforms(node: str) -> None:
    assert judge(lambda: ProcessClient(f"{node} {ROOT}/docs/examples/node-client/shim.mjs")) == (set(), set())


def test_the_node_clients_example(node: str, start_server, tmp_path: Path) -> None:
    folder = ROOT / "docs" / "examples" / "node-client"
    (example,) = re.findall(r"^```js\n(.*?)^```$", (folder / "README.md").read_text(), re.M | re.S)
    program = tmp_path / "example.mjs"
    server = start_server("--memory", "16M", "--threads", "1")
    program.write_text(example.replace("./client.mjs", f"{folder}/client.mjs").replace("2722", str(server.port)))
    ran = subprocess.run([node, str(program)], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("Recife null\n10n\n", "")


@pytest.mark.parametrize("level", ["MUST", "SHOULD", "rule"])
def test_every_rule_that_binds_a_client_has_a_case(level: str) -> None:
    rows = [row for row in report.coverage("client", CASES) if row["level"] == level]
    assert [row["clause"] for row in rows if not row["cases"] and not row["unseen"]] == []
    if level == "MUST":
        assert {row["clause"] for row in rows if row["unseen"]} == {"4.2.3", "13.3.2"}


@pytest.mark.parametrize("mutant", broken_clients.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_client_is_caught(mutant) -> None:
    result = broken_clients.judge(mutant)
    (case,) = choose(CASES, [mutant.case])
    assert result.verdict is (Verdict.NON_STRICT if case.should else Verdict.FAIL), f"a client was not caught: {mutant.what}"
    assert "the kit failed" not in result.reason and result.transcript


# ---- the command line, and shims that misbehave


def kit(client: str, *cases: str, status: int = 0) -> str:
    ran = subprocess.run([sys.executable, "-m", "crabcache.conformance", "--client", client, *cases], cwd=ROOT / "python",
                         capture_output=True, text=True, timeout=TIMEOUT_S * 3, stdin=subprocess.DEVNULL)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout


def test_the_command_line(c_client: Path) -> None:
    text = kit(str(c_client), "--coverage", "--timeout", str(TIMEOUT_S), "6.3", "6.4")
    assert "pass       6.3.1/1    NULL, an empty value and an error are three different answers" in text
    assert "P-6.3.1    MUST    6.3.1/1  (1 pass)" in text and text.endswith("2 pass, 0 non-strict, 0 fail, 0 skipped\n")
    run = json.loads(kit(str(c_client), "--format", "json", "6.3.1"))
    assert run["side"] == "client" and run["cases"][0]["clause"] == "P-6.3.1"


@pytest.mark.parametrize("shim, reason", [
    ("true", "the client has ended"),
    ("sh -c 'read line; echo ok; sleep 60'", "the client takes no commands|does not connect|does not send"),
    ("cat", "answered 'open"),
    ("sh -c 'while read line; do echo failed retry; done'", "answered 'failed retry'"),
])
def test_shims_that_are_none(shim: str, reason: str) -> None:
    text = kit(shim, "--timeout", "0.5", "6.3.1", status=1)
    assert any(part in text for part in reason.split("|")), text


def test_a_shim_that_can_do_nothing() -> None:
    text = kit("sh -c 'while read line; do echo unsupported; done'", "--timeout", "0.5", "6.3.1", "4.6.2")
    assert text.endswith("0 pass, 0 non-strict, 0 fail, 3 skipped\n")
