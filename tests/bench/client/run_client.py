#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Measure the client library beside hiredis: crabcache-server and redis-server on one CPU, bench_client on another.

    run_client.py --build build/release [--seconds 0.5] [--value-bytes 64]

Prints a table in Markdown.  Redis is left out where it is not installed.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

import fleet  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the client library beside hiredis.")
    parser.add_argument("--build", type=Path, default=fleet.ROOT / "build" / "release")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each of seven pieces of each row (default 0.5)")
    parser.add_argument("--value-bytes", type=int, default=64)
    options = parser.parse_args()
    setting = fleet.Setting(memory=256 * fleet.MIB, value_bytes=options.value_bytes)
    build = options.build.resolve()
    with fleet.Running(fleet.CRABCACHE, build, setting) as ours:
        arguments = [str(options.seconds), str(options.value_bytes)]
        program = fleet.pinned(fleet.LOAD_CPU, [str(build / "tests/bench/bench_client"), str(ours.port)])
        if fleet.program(fleet.REDIS, build) is None:
            return subprocess.run([*program, "0", *arguments], check=False).returncode
        with fleet.Running(fleet.REDIS, build, setting) as redis:
            return subprocess.run([*program, str(redis.port), *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
