# SPDX-License-Identifier: MIT
"""The bugs of `make planted-bugs` still have their places in the sources; planting them all takes too long for here."""
from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from dataclasses import replace
from types import ModuleType

import pytest
from conftest import ROOT

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def planter() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("planted_bugs", str(ROOT / "tests" / "support" / "planted-bugs"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("planted_bugs", loader))
    sys.modules["planted_bugs"] = module
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = kept
    return module


def test_every_bug_applies(planter: ModuleType) -> None:
    bugs = planter.load()
    assert len(bugs) >= 12
    assert planter.problems(bugs, ROOT) == []


def test_what_does_not_apply_is_said(planter: ModuleType) -> None:
    bug = planter.load()[0]
    wrong = [replace(bug, name="gone", old="no such text anywhere"), replace(bug, name="often", old=";"),
             replace(bug, name="nothing", new=bug.old), replace(bug, name="nowhere", file="server/store/none.c"),
             replace(bug, name="uncaught", caught_by=()), replace(bug, name="unknown", caught_by=("release test_none",))]
    found = planter.problems(wrong, ROOT)
    assert [text.split(":")[0] for text in found] == ["gone", "often", "nothing", "nowhere", "uncaught", "unknown"]
