#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Check what the compilers and clang-tidy do not: the plain rules of docs/HACKING.md that a script can see.

    check-style.py [--root FOLDER]

C, headers, Python, shell, the Makefile: the first line (the second, after `#!`) names the licence; a C file then opens
with a comment that says what it is for; no tabs (but in the Makefile), no blanks at line ends, no marks of unfinished
work, lines of at most 140 characters (except in spec/gen, where a line may be a whole line of the text that it
generates, with the names that it is made of), no typedef of a struct.  Generated files (`generated` in the first five
lines) are only checked for their licence line.
"""
from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

MAX_COLUMNS = 140
PATTERNS = ("include/**/*.h", "server/**/*.[ch]", "client/**/*.[ch]", "tests/**/*.[ch]", "tests/**/*.cc",
            "spec/**/*.py", "python/**/*.py", "python/**/*.c", "tests/**/*.py", "tests/support/*.sh", "tests/support/run-tests",
            "tests/support/planted-bugs", "Makefile")
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
TYPEDEF = re.compile(r"^\s*typedef\s+(struct|union|enum)\b")


def check_file(root: Path, path: Path) -> list[str]:
    name = path.relative_to(root)
    lines = path.read_text().splitlines()
    problems = []

    def report(number: int, what: str) -> None:
        problems.append(f"{name}:{number}: {what}")

    first = lines[1:2] if lines[:1] and lines[0].startswith("#!") else lines[:1]
    if not lines:
        return [] if path.name == "__init__.py" else [f"{name}:1: empty file"]
    if not first or "SPDX-License-Identifier: MIT" not in first[0]:
        report(1, "the first line must be SPDX-License-Identifier: MIT, in a comment")
    if any("generated" in line.lower() for line in lines[:5]):
        return problems
    is_c = path.suffix in (".c", ".h", ".cc")
    if is_c and not any(line.startswith(("/*", "//")) for line in lines[1:3]):
        report(2, "after the licence line comes a comment that says what the file is for")
    for number, line in enumerate(lines, 1):
        if "\t" in line and path.name != "Makefile":
            report(number, "tab")
        if line != line.rstrip():
            report(number, "blanks at the end of the line")
        if len(line) > MAX_COLUMNS and not str(name).startswith("spec/gen/"):
            report(number, f"{len(line)} columns, at most {MAX_COLUMNS}")
        if UNFINISHED.search(line):
            report(number, "a mark of unfinished work")
        if is_c and TYPEDEF.match(line):
            report(number, "typedef of a struct, union or enum")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Check plain rules of style.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    root = parser.parse_args().root
    files = sorted({path for pattern in PATTERNS for path in root.glob(pattern)})
    problems = [problem for path in files for problem in check_file(root, path)]
    print("\n".join(problems) if problems else f"style of {len(files)} files")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
