#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Makes from spec/crabcache.toml everything that is made from it.

    generate.py            check the specification and write all outputs
    generate.py --check    write nothing; exit 1 and name each output that is missing or not what would be written
    generate.py --lock     the same as without, and add new entries to spec/crabcache.lock: they never change again

Exit codes: 0 done; 1 the specification is wrong, or --check found something; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.dont_write_bytecode = True

from gen import c, errors, fuzzdict, lock, lua, markdown, model, python, vectors  # noqa: E402

EMITTERS = (c, python, errors, vectors, lua, fuzzdict, markdown)

# Outputs of which there can be more in the tree than the specification has any longer.
OWNED = ("spec/vectors/*.json",)


def outputs(spec: model.Spec) -> dict[str, str]:
    """The text of every output, by its path below the root."""
    out: dict[str, str] = {}
    for emitter in EMITTERS:
        for path, text in emitter.emit(spec).items():
            if path in out:
                raise AssertionError(f"two emitters write {path}")
            out[path] = text
    return out


def leftovers(root: Path, wanted: dict[str, str]) -> list[str]:
    """Outputs of an earlier specification."""
    found = (p.relative_to(root).as_posix() for pattern in OWNED for p in root.glob(pattern))
    return sorted(path for path in found if path not in wanted)


def check(root: Path, wanted: dict[str, str], unlocked: list[str]) -> list[str]:
    """What is not fresh, one line each."""
    problems = []
    for path, text in wanted.items():
        target = root / path
        if not target.exists():
            problems.append(f"{path}: missing; run spec/generate.py")
        elif target.read_bytes() != text.encode("utf-8"):
            problems.append(f"{path}: stale; run spec/generate.py")
    problems += [f"{path}: left over; run spec/generate.py" for path in leftovers(root, wanted)]
    if unlocked:
        more = f" and {len(unlocked) - 1} more" if len(unlocked) > 1 else ""
        problems.append(f"spec/{lock.NAME}: stale: {unlocked[0]}{more} not locked; run spec/generate.py --lock")
    return problems


def write(root: Path, wanted: dict[str, str]) -> list[str]:
    """Write what differs; gives the paths written or removed."""
    changed = []
    for path, text in wanted.items():
        target = root / path
        if target.exists() and target.read_bytes() == text.encode("utf-8"):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode("utf-8"))
        changed.append(path)
    for path in leftovers(root, wanted):
        (root / path).unlink()
        changed.append(f"{path} (removed)")
    return changed


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, name what is missing or stale, exit 1 if anything")
    parser.add_argument("--lock", action="store_true", help="add new entries to the lock file, after which they never change")
    parser.add_argument("--spec", type=Path, metavar="FILE", help="the specification; its lock is beside it (default spec/crabcache.toml)")
    parser.add_argument("--out", type=Path, metavar="DIR", default=ROOT, help="the folder that outputs are below (default the repository)")
    options = parser.parse_args(arguments)
    if options.check and options.lock:
        parser.error("--check writes nothing, --lock writes: give one of them")
    path = options.spec or relative(ROOT / "spec" / "crabcache.toml")
    lock_path = path.with_name(lock.NAME)
    try:
        spec = model.load(path)
        unlocked = lock.verify(spec, lock_path)
        wanted = outputs(spec)
    except model.SpecError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check:
        problems = check(options.out, wanted, unlocked)
        print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
        return 1 if problems else 0
    for name in write(options.out, wanted):
        print(name)
    if options.lock and unlocked:
        lock_path.write_text(lock.text(spec), encoding="utf-8")
        print(f"{lock_path}: {len(unlocked)} entries added")
    return 0


def relative(path: Path) -> Path:
    """A path as people at the root of the repository write it, where that is possible."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


if __name__ == "__main__":
    sys.exit(main())
