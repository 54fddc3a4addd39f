# SPDX-License-Identifier: MIT
"""The worked transcript of spec/PROTOCOL.md, section 14, and the client of its section 15.

The transcript's bytes are read out of the document: each frame must be what the codec makes of it, and a real server
must answer the client's bytes with the server's, but for what the document calls an example: versions, the server's
name and its limit for values, and the time that is left of a time to live.
"""
from __future__ import annotations

import dataclasses
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT, Server, wire

LINE = re.compile(r"^    ([CS])  ((?:[0-9A-F]{2} )*[0-9A-F]{2}|) *\| ?(.*)$")
NOT_OURS = b"GET / HTTP/1.1\r\n"


def transcript() -> list[tuple[str, bytes]]:
    """The session as runs of bytes in one direction: ("C", ...), ("S", ...), ..."""
    text = (ROOT / "spec" / "PROTOCOL.md").read_text(encoding="utf-8")
    section = text[text.index("\n# 14 ") : text.index("\n# 15 ")]
    runs: list[tuple[str, bytes]] = []
    for line in section.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        side, data = match[1], bytes.fromhex(match[2])
        if runs and runs[-1][0] == side:
            runs[-1] = (side, runs[-1][1] + data)
        else:
            runs.append((side, data))
    return runs


def frames(side: str, data: bytes) -> list[tuple[object, bytes]]:
    """The messages in a run, each with its bytes; a frame that is meant to be malformed comes as wire.Malformed."""
    found = []
    while data:
        outcome = wire.decode_request(data) if side == "C" else wire.decode_reply(data)
        assert not isinstance(outcome, wire.NeedMore), f"cut off: {data.hex(' ')}"
        if isinstance(outcome, wire.Malformed):
            size = outcome.skip or len(data)
            found.append((outcome, data[:size]))
        else:
            size = outcome.used
            found.append((outcome.message, data[:size]))
        data = data[size:]
    return found


def test_the_transcript_covers_what_it_should() -> None:
    """A test over an empty list would pass."""
    runs = transcript()
    sent = [message for side, data in runs if side == "C" for message, _ in frames(side, data)]
    received = [message for side, data in runs if side == "S" for message, _ in frames(side, data)]
    assert {"HelloRequest", "PutRequest", "GetRequest", "IncrRequest", "PingRequest"} <= {type(m).__name__ for m in sent}
    assert {"WelcomeReply", "NullReply", "MetaReply", "ExistsReply", "StoredReply", "LateErrorPush", "ErrorReply"} <= {
        type(m).__name__ for m in received
    }
    assert sum(isinstance(m, wire.Malformed) for m in sent) == 3  # unknown op, ttl_ms 0, and the foolish one


def test_each_frame_is_what_the_codec_makes_of_it() -> None:
    """decode, encode: the same bytes."""
    for side, data in transcript():
        for message, raw in frames(side, data):
            if isinstance(message, wire.Malformed):
                continue
            encoded = wire.encode_request(message) if side == "C" else wire.encode_reply(message)
            assert encoded == raw, message


def without_examples(message: object, versions: dict[int, int]) -> object:
    """A reply with what may differ from server to server put out of sight; versions by the order of appearance."""
    known = {field.name for field in dataclasses.fields(message)}
    change: dict[str, object] = {}
    if "version" in known and not isinstance(message, wire.WelcomeReply):
        change["version"] = versions.setdefault(message.version, len(versions))
    if isinstance(message, wire.WelcomeReply):
        assert 0 < message.max_value <= 2**30
        change["server_name"] = b""
        change["max_value"] = 0
    if isinstance(message, wire.MetaReply):
        assert 0 < message.ttl_ms <= 60_000
        change["ttl_ms"] = 1
    return dataclasses.replace(message, **change)


def test_a_server_answers_as_the_transcript_says(start_server: Callable[..., Server]) -> None:
    """Replay the client's side against a new server; versions in requests are those that it gave out."""
    server = start_server()
    runs = transcript()
    told: dict[int, int] = {}  # the document's versions, in order of appearance
    given: dict[int, int] = {}  # the server's
    with server.connect() as peer:
        for side, data in runs:
            if side == "C":
                of_document = {order: version for version, order in told.items()}
                for version, order in given.items():
                    data = data.replace(struct.pack("<Q", of_document[order]), struct.pack("<Q", version))
                peer.send(data)
                continue
            for expected, _ in frames(side, data):
                reply = peer.receive()
                assert without_examples(reply, given) == without_examples(expected, told)
        assert runs[-2][1].endswith(NOT_OURS)
        assert peer.socket.recv(1) == b"", "the stream ends after a fatal error"


def test_the_client_in_15_minutes_runs(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """Section 15's program, cut out of the document, against a real server."""
    text = (ROOT / "spec" / "PROTOCOL.md").read_text(encoding="utf-8")
    section = text[text.index("\n# 15 ") : text.index("\n# 16 ")]
    programs = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(programs) == 1
    script = tmp_path / "mini.py"
    script.write_text(programs[0], encoding="utf-8")
    port = start_server().port
    done = subprocess.run(
        [sys.executable, script, str(port)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert shown[:3] == ["b'Recife' None", "10 15", "1000"]
    assert shown[3].startswith("(518, ")
