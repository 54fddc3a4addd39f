#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Make the seeds of a fuzzer out of the conformance vectors.

    seed.py TARGET FOLDER

decode_request and decode_reply get one file for each vector of their direction.  dispatch reads a stream of requests,
so it gets each request vector, and pipelines: 16 valid requests of a file of vectors one after the other.  conn_reply
reads what requests there are and how the stream is cut (CONN_HEADS), then the stream: each reply vector, and 8 in a row.
The folder holds nothing but seeds; it is only written where something changed.
"""
from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_SEED = 4096  # the longest seed is the longest input that libFuzzer makes; the long ones run as unit tests
DIRECTION = {"decode_request": "request", "decode_reply": "reply", "dispatch": "request",
             "conn_reply": "reply"}
# Of fuzz_conn_reply.c: ways of the connection, bytes of a piece, how many requests, and which.
CONN_HEADS = (bytes([0, 0, 7, 0, 0, 1, 2, 3, 4, 5, 6]), bytes([6, 3, 7, 0, 1, 2, 3, 4, 5, 6, 7]),
              bytes([13, 1, 7, 0, 0, 0, 0, 7, 7, 5, 0]))


def vectors(direction: str) -> list[tuple[str, list[dict]]]:
    """The vectors of a direction, as (file's name, its vectors)."""
    found = []
    for path in sorted((ROOT / "spec" / "vectors").glob("*.json")):
        content = json.loads(path.read_text())
        if content["direction"] == direction:
            found.append((path.stem, content["vectors"]))
    return found


def seeds(target: str) -> dict[str, bytes]:
    """Name and bytes of each seed, equal bytes once."""
    inputs = []
    for _, group in vectors(DIRECTION[target]):
        frames = [bytes.fromhex(vector["hex"]) for vector in group]
        inputs += frames
        if target == "dispatch":
            valid = [frame for vector, frame in zip(group, frames)
                     if vector["expect"]["result"] == "whole" and len(frame) <= MAX_SEED // 16]
            inputs += [b"".join(valid[i:i + 16]) for i in range(0, len(valid), 16)]
    if target == "conn_reply":
        rows = [b"".join(inputs[i:i + 8]) for i in range(0, len(inputs), 8)]
        inputs = [head + stream for stream in inputs + rows for head in CONN_HEADS]
    return {hashlib.sha256(data).hexdigest()[:16]: data for data in inputs if 0 < len(data) <= MAX_SEED}


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] not in DIRECTION:
        print(f"usage: seed.py {'|'.join(DIRECTION)} FOLDER", file=sys.stderr)
        return 2
    wanted, folder = seeds(sys.argv[1]), Path(sys.argv[2])
    if not wanted:
        print("no vectors below spec/vectors: run make gen", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, data in wanted.items():
        path = folder / name
        if not path.exists():
            path.write_bytes(data)
    print(f"{len(wanted)} seeds in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
