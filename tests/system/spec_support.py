# SPDX-License-Identifier: MIT
"""What the tests of the specification share: the generated Python modules without the C library, and the generator."""
from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "spec"
GENERATE = SPEC / "generate.py"


def load(name: str, path: Path) -> ModuleType:
    """A module from its file, without what surrounds it: the package crabcache needs the C library."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def wire() -> Any:
    """The Python codec."""
    return load("crabcache_wire_alone", ROOT / "python" / "crabcache" / "wire.py")


def errors() -> Any:
    """The exceptions."""
    return load("crabcache_errors_alone", ROOT / "python" / "crabcache" / "errors.py")


def vector_files() -> dict[str, dict[str, Any]]:
    """Every file of vectors, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((SPEC / "vectors").glob("*.json"))}
