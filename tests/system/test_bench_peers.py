# SPDX-License-Identifier: MIT
"""What stands behind `make bench`: medians, verdicts, charts, and a run against whatever servers are installed."""
from __future__ import annotations

import importlib
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from conftest import BUILD, TIMEOUT_S

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "tests" / "bench" / "peers"


def load(name: str) -> ModuleType:
    """A module of the benchmark's driver."""
    sys.path.insert(0, str(PEERS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PEERS))


def collection(ns: dict[str, float], rates: dict[str, float], rounds: int = 3) -> object:
    """Samples that differ a little from round to round: with an outlier that a median does not follow."""
    samples = load("samples")
    made = samples.Collection(about={"machine": "made up"})
    for i in range(rounds):
        for server in ns:
            for depth in (1, 64):
                cell = samples.Cell("matrix", server, "get", depth, 64, 1000)
                cpu = ns[server] * (100 if i == 0 else 1)
                made.samples.append(samples.Sample(cell, rates[server], cpu / 4, cpu * 3 / 4, 50.0, 1.0, 2.0, 3.0))
    return made


def test_medians_and_verdicts() -> None:
    made = collection({"CrabCache": 100.0, "Redis": 750.0, "memcached": 300.0, "null": 80.0},
                      {"CrabCache": 6e6, "Redis": 1e6, "memcached": 2e6, "null": 1e7})
    text = load("report").Report(made).text("charts/")
    assert "| GET, times Redis's requests per CPU second | **7.50x** ≥ 1.4x | **7.50x** ≥ 7x |" in text
    assert "| GET, times memcached's | **3.00x** ≥ 1.25x | 3.00x < 4x |" in text
    assert "| GET, share of the null server's throughput | 60 % < 90 % | **60 %** ≥ 50 % |" in text
    losses = text[text.index("### Where CrabCache falls short"):text.index("### What was wanted")]
    assert losses.count("\n- ") == 2
    assert "- GET, P=64, times memcached's: 3.00x, wanted 4x\n" in losses
    assert "- GET, P=1, share of the null server's throughput: 60 %, wanted 90 %\n" in losses
    assert "![cpu-get.svg](charts/cpu-get.svg)" in text
    assert "| CrabCache, user + system ns | 25 + 75 | 25 + 75 |" in text


def test_on_a_busy_machine_only_cpu_time_is_judged() -> None:
    made = collection({"CrabCache": 100.0, "Redis": 50.0, "null": 80.0}, {"CrabCache": 6e6, "Redis": 1e6, "null": 1e7})
    made.about["caution"] = "busy"
    text = load("report").Report(made).text("")
    assert "throughput" not in text and "throughput-get.svg" not in text
    assert "| GET, share of the null server's requests per CPU second | 80 % | 80 % |" in text
    assert "- GET, P=64, times Redis's requests per CPU second: 0.50x, wanted 7x\n" in text


def test_how_busy_the_machine_is() -> None:
    busy_share = load("run_peers").busy_share
    before = "cpu  100 0 100 1000 50 0 0 0 0 0\ncpu0 1 1 1 1\n"
    assert busy_share(before, before) == 0
    assert busy_share(before, "cpu  110 5 110 1150 75 0 0 0 0 0\n") == 0.125
    assert busy_share(before, "cpu  100 0 100 1000 50 0 0 200 0 0\n") == 1, "another guest of the host"
    assert 0 <= load("run_peers").others() <= 1


def test_a_server_that_is_absent_leaves_dashes() -> None:
    made = collection({"CrabCache": 100.0, "null": 80.0}, {"CrabCache": 6e6, "null": 6e6})
    text = load("report").Report(made).text("")
    assert "| GET, times Redis's requests per CPU second | – | – |" in text
    assert "Redis, requests/s" not in text
    assert "Nowhere in this run." in text


def test_samples_outlive_the_file(tmp_path: Path) -> None:
    made = collection({"CrabCache": 100.0}, {"CrabCache": 6e6})
    made.save(tmp_path / "samples.json")
    again = load("samples").Collection.load(tmp_path / "samples.json")
    assert again == made
    assert again.spread(again.cells("matrix"), "cpu_ns") == 99.0


def test_a_document_gets_the_report_between_its_marks(tmp_path: Path) -> None:
    made = collection({"CrabCache": 100.0, "Redis": 750.0}, {"CrabCache": 6e6, "Redis": 1e6})
    document = tmp_path / "BENCHMARKS.md"
    document.write_text("# Before\n\n<!-- make bench: begin -->\nold\n<!-- make bench: end -->\n\nafter\n")
    report = load("report")
    report.publish(made, document)
    first = document.read_text()
    report.publish(made, document)
    assert document.read_text() == first
    assert first.startswith("# Before\n\n<!-- make bench: begin -->\n") and first.endswith("end -->\n\nafter\n")
    assert "old" not in first and "7.50x" in first and "(bench/cpu-get.svg)" in first
    ElementTree.fromstring((tmp_path / "bench" / "cpu-get.svg").read_text())


def test_charts_are_svg_with_a_bar_for_each_value() -> None:
    plot = load("plot")
    chart = plot.bars("a < b", "c & d", ["x", "y"], [("one", [1.0, 200.0]), ("two", [None, 50.0])])
    tree = ElementTree.fromstring(chart)
    titles = [title.text for title in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["one, x: 1", "one, y: 200", "two, y: 50"]
    assert [plot.short(n) for n in (0.5, 12, 1234, 999_900, 2.5e6, 3e9)] == ["0.5", "12", "1.23k", "999.9k", "2.5M", "3G"]
    for value in (0.003, 1, 9, 12, 26, 9_999_999):
        assert value <= plot.nice_top(value) <= 2.6 * value


def test_a_short_run(tmp_path: Path) -> None:
    """The driver itself, with every server that is here, and once more in addition."""
    command = [sys.executable, str(PEERS / "run_peers.py"), "--build", str(BUILD), "--out", str(tmp_path), "--quick",
               "--ops", "get", "--depths", "16", "--seconds", "0.1"]
    done = subprocess.run([*command, "--parts", "matrix,latency,idle,memory"], capture_output=True, text=True,
                          timeout=TIMEOUT_S * 6, check=False)
    assert done.returncode == 0, done.stderr
    assert "### What was wanted" in done.stdout and "### Latency at half" in done.stdout and "### Memory per item" in done.stdout
    data = json.loads((tmp_path / "samples.json").read_text())
    cells = [s["cell"] for s in data["samples"] if s["cell"]["part"] == "matrix"]
    assert {"CrabCache", "null"} <= {cell["server"] for cell in cells}
    assert all(s["per_second"] > 0 for s in data["samples"])
    assert set(data["about"]) - {"caution"} == {"date", "machine", "versions", "commit", "load", "idle"}
    ElementTree.fromstring((tmp_path / "cpu-get.svg").read_text())
    done = subprocess.run([*command, "--parts", "matrix", "--servers", "CrabCache", "--append"], capture_output=True,
                          text=True, timeout=TIMEOUT_S * 6, check=False)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "samples.json").read_text())
    assert len(data["samples"]) <= len(again["samples"]) <= len(data["samples"]) + 1


@pytest.mark.parametrize("arguments, complaint", [
    (["--parts", "matrix,nothing"], "unknown: nothing"),
    (["--servers", "Dragonfly"], "unknown: Dragonfly"),
    (["--build", "/nonexistent"], "has no crabcache-server or crabcache-bench: make all"),
])
def test_mistakes_are_named(arguments: list[str], complaint: str) -> None:
    done = subprocess.run([sys.executable, str(PEERS / "run_peers.py"), *arguments], capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False)
    assert done.returncode == 2 and complaint in done.stderr
