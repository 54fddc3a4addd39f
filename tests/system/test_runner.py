# SPDX-License-Identifier: MIT
"""The test runner itself: a failure of any kind is counted as one, whatever the program that failed says of it."""
from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]

RAN = "[ RUN      ] one\n[       OK ] one\n[ RUN      ] two\n"
BAD_PROGRAMS = {
    "asan": ("address", """
        #include <stdlib.h>
        int main(int count, char **arguments)
        {
            char *block = malloc(4);
            int read = block[3 + count];
            free(block);
            return read & (arguments == NULL);
        }"""),
    "leak": ("address", """
        #include <stdlib.h>
        void *volatile block;
        int main(void) { block = malloc(9); block = NULL; return 0; }"""),
    "ubsan": ("address,undefined", """
        int main(void) { volatile int x = 2147483647; x = x + 1; return 0; }"""),
    "tsan": ("thread", """
        #include <pthread.h>
        int shared;
        void *run(void *unused) { shared++; return unused; }
        int main(void)
        {
            pthread_t a, b;
            pthread_create(&a, 0, run, 0);
            pthread_create(&b, 0, run, 0);
            pthread_join(a, 0);
            pthread_join(b, 0);
            return 0;
        }"""),
}


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("run_tests", str(ROOT / "tests" / "support" / "run-tests"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_tests", loader))
    sys.modules["run_tests"] = module
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = kept
    return module


@pytest.mark.parametrize("output, status, expected", [
    (RAN + "[       OK ] two\n", 0, (2, 0, 0)),
    (RAN + "[  FAILED  ] two\n[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] two\n", 1, (1, 1, 0)),
    (RAN + "[  SKIPPED ] two\n[  SKIPPED ] 1 test(s), listed below:\n[  SKIPPED ] two\n", 0, (1, 0, 1)),
    (RAN, -11, (1, 1, 0)),
    (RAN + "[       OK ] two\n", 66, (2, 1, 0)),
    ("", 0, (1, 0, 0)),
    ("", 1, (0, 1, 0)),
])
def test_cmocka_counts(runner: ModuleType, output: str, status: int, expected: tuple[int, int, int]) -> None:
    result = runner.count_cmocka(output, status, "test_x")
    assert (result.passed, result.failed, result.skipped) == expected
    assert bool(result.notes) == bool(expected[1])


def test_pytest_counts(runner: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>')
    result = runner.count_pytest(report, 1)
    assert (result.passed, result.failed, result.skipped) == (3, 3, 3)


@pytest.mark.parametrize("status, failed", [(0, 0), (5, 0), (2, 1), (-9, 1)])
def test_pytest_without_a_report(runner: ModuleType, tmp_path: Path, status: int, failed: int) -> None:
    assert runner.count_pytest(tmp_path / "none.xml", status).failed == failed


@pytest.fixture
def logs(runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runner, "LOGS", tmp_path)
    monkeypatch.setattr(runner, "say", lambda text: None)
    return tmp_path


def perform(runner: ModuleType, run) -> tuple[int, int]:
    result = runner.perform(runner.Step("x", "x", run))
    return result.passed, result.failed


def test_a_step_without_tests_fails(runner: ModuleType, logs: Path) -> None:
    assert perform(runner, lambda step: runner.Result()) == (0, 1)


def test_a_step_that_breaks_fails(runner: ModuleType, logs: Path) -> None:
    assert perform(runner, lambda step: runner.nothing) == (0, 1)


def test_a_check_fails_by_its_status(runner: ModuleType, logs: Path) -> None:
    assert perform(runner, runner.check(["true"], ["true"])) == (1, 0)
    assert perform(runner, runner.check(["true"], ["false"], ["true"])) == (0, 1)


def test_a_program_that_hangs_is_stopped_with_its_children(runner: ModuleType, logs: Path) -> None:
    step = runner.Step("x", "x", lambda step: runner.Result())
    status, output = runner.run_program(step, ["sh", "-c", "sleep 60 & echo begun; wait"], timeout_s=1)
    assert status == -9
    assert "begun" in output and "not done after 1 s" in output


@pytest.mark.parametrize("kind", BAD_PROGRAMS)
def test_a_sanitizer_report_is_a_failure_whoever_hides_the_status(runner: ModuleType, logs: Path, kind: str) -> None:
    sanitizer, source = BAD_PROGRAMS[kind]
    (logs / "bad.c").write_text(source)
    subprocess.run(["gcc", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-static-libubsan",
                    "-o", str(logs / "bad"), str(logs / "bad.c"), "-pthread"], check=True, timeout=60)

    def run(step) -> object:
        runner.run_program(step, ["sh", "-c", f"{logs}/bad; true"], 60, runner.sanitizer_env(step))
        result = runner.Result(passed=1)
        result.add(runner.sanitizer_reports(step))
        return result

    assert perform(runner, run) == (1, 1)
    assert list(logs.glob("x.report.*"))
