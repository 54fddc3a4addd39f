# SPDX-License-Identifier: MIT
"""The cache simulator checks itself, reads traces, and refuses what it does not know.

It is built here, with the sanitizers, because nothing else of the project needs it.
"""
from __future__ import annotations

import lzma
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("sim") / "crabcache-sim"
    folders = (ROOT / "tests" / "bench" / "sim", ROOT / "server" / "store")
    sources = sorted(str(path) for folder in folders for path in folder.glob("*.c"))
    subprocess.run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-pthread", "-fsanitize=address,undefined",
                    "-fno-sanitize-recover=all", f"-I{ROOT}", *sources, "-o", str(program), "-llzma", "-lxxhash", "-lm"],
                   check=True, timeout=120)
    return program


def simulate(sim: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(sim), *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def rows(output: str) -> dict[tuple[str, str], float]:
    lines = [line.split("\t") for line in output.splitlines()[1:]]
    return {(line[1], line[2]): float(line[4]) for line in lines}


def test_self_check(sim: Path) -> None:
    result = simulate(sim, "--self-check")
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith("ok: 0 failed\n")


def test_trace_plain_and_packed(sim: Path, tmp_path: Path) -> None:
    """Ten keys asked for twice, in memory for all of them: every second request hits."""
    text = "key,value_bytes\n" + "".join(f"key-{i % 10},{5000 + i % 10}\n" for i in range(20))
    plain, packed = tmp_path / "t.csv", tmp_path / "t.csv.xz"
    plain.write_text(text)
    packed.write_bytes(lzma.compress(text.encode()))
    for path in (plain, packed):
        result = simulate(sim, "--stream", str(path), "--memory", "400%", "--policy", "lru", "--policy", "segment")
        assert result.returncode == 0, result.stderr
        assert rows(result.stdout) == {("400%", "lru"): 0.5, ("400%", "segment"): 0.5}


def test_more_memory_never_hurts_lru(sim: Path) -> None:
    result = simulate(sim, "--stream", "zipf:alpha=0.9,keys=5000,requests=60000", "--memory", "5%", "--memory", "20%",
                      "--memory", "80%", "--policy", "lru")
    misses = list(rows(result.stdout).values())
    assert misses == sorted(misses, reverse=True) and misses[0] > misses[-1] > 0


@pytest.mark.parametrize("arguments", [
    ["--policy", "lru"],
    ["--stream", "zipf:keys=100,requests=100", "--memory", "100000", "--policy", "nothing"],
    ["--stream", "zipf:keys=100,requests=100", "--memory", "100000", "--policy", "lru:nothing=1"],
    ["--stream", "zipf:nothing=1", "--memory", "100000", "--policy", "lru"],
    ["--stream", "zipf:keys=100,requests=100", "--memory", "-1", "--policy", "lru"],
    ["--stream", "/nonexistent.csv", "--memory", "100000", "--policy", "lru"],
])
def test_refusals(sim: Path, arguments: list[str]) -> None:
    result = simulate(sim, *arguments)
    assert result.returncode in (1, 2) and result.stderr


def test_damaged_traces(sim: Path, tmp_path: Path) -> None:
    packed = lzma.compress(b"key,value_bytes\n" + b"a,1\n" * 1000)
    cut, broken = tmp_path / "cut.csv.xz", tmp_path / "broken.csv"
    cut.write_bytes(packed[:-20])
    broken.write_text("key,value_bytes\na,1\nnonsense\n")
    for path in (cut, broken):
        result = simulate(sim, "--stream", str(path), "--memory", "100000", "--policy", "lru")
        assert result.returncode == 1 and result.stderr
