# SPDX-License-Identifier: MIT
"""The Python exceptions: python/crabcache/errors.py, a class for each error code."""

from __future__ import annotations

from pathlib import Path

from .model import Spec
from .python import camel, docstring, fill

TEMPLATE = Path(__file__).with_name("errors.py.in")
OUTPUT = "python/crabcache/errors.py"

CLASS_BASES = {"RETRY": "RetryError", "PERMANENT": "PermanentError", "UNKNOWN": "UnknownOutcomeError"}
CLASS_UNKNOWN = {"RETRY": "UnknownRetryError", "PERMANENT": "UnknownPermanentError", "UNKNOWN": "UnknownUnknownOutcomeError"}


# A class that is named like a Python exception is one too, so that it is caught under either name.
BUILTIN_BASES = {"OVERFLOW": ", builtins.OverflowError"}


def emit(spec: Spec) -> dict[str, str]:
    """The exceptions' text, by its path."""
    bases = {c.number: CLASS_BASES[c.name] for c in spec.error_classes}
    blocks = {
        "errors": "\n".join(
            f"\nclass {class_name(e.name)}(ServerError, {bases[e.code >> 8]}{BUILTIN_BASES.get(e.name, '')}):\n{docstring(e.doc)}\n"
            f'    code = {e.code:#06x}\n    name = "{e.name}"\n    default_text = "{e.text}"\n    closes = {e.closes}\n'
            for e in spec.errors
        ),
        "table": "".join(f"    {e.code:#06x}: {class_name(e.name)},\n" for e in spec.errors),
        "classes": "".join(f"        {c.number}: {CLASS_UNKNOWN[c.name]},\n" for c in spec.error_classes),
    }
    text = fill(TEMPLATE, blocks)
    for class_ in spec.error_classes:
        text = text.replace(f"@{class_.name}@", class_.doc)
    return {OUTPUT: text}


def class_name(code: str) -> str:
    """OUT_OF_MEMORY -> OutOfMemoryError."""
    return f"{camel(code)}Error"
