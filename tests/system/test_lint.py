# SPDX-License-Identifier: MIT
"""The checks of `make lint` see what they are there for: each gets a small tree with one planted mistake."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
LICENCE = "/* SPDX-License-Identifier: MIT */\n/* What it is for. */\n"

GOOD_TREE = {
    "include/crabcache/wire.h": "#include <stdint.h>\n",
    "include/crabcache/crabcache.h": '#include "crabcache/wire.h"\n',
    "client/net.h": '#include "crabcache/wire.h"\n',
    "client/net.c": '#include "client/net.h"\n#include <sys/socket.h>\n',
    "client/cli/main.c": '#include "crabcache/crabcache.h"\n',
    "server/buf.h": "#include <stddef.h>\n",
    "server/store/store.h": "#include <stddef.h>\n",
    "server/store/store.c": '#include "server/store/store.h"\n#include <pthread.h>\n',
    "server/dispatch.h": "#include <stdint.h>\n",
    "server/dispatch.c": '#include "server/dispatch.h"\n#include "server/store/store.h"\n#include <crabcache/wire.h>\n',
    "server/conn.c": '#include "server/buf.h"\n#include "server/dispatch.h"\n#include <sys/socket.h>\n',
    "server/main.c": '#include "server/store/store.h"\n#include "server/dispatch.h"\n#include "server/buf.h"\n',
}

BAD_INCLUDES = [
    ("include/crabcache/wire.h", "<stdlib.h>", "the codec layer must do without <stdlib.h>"),
    ("include/crabcache/wire.h", '"server/store/store.h"', "the codec layer may not include server/store/store.h"),
    ("server/store/store.c", '"crabcache/wire.h"', "the store layer may not include crabcache/wire.h"),
    ("server/store/store.c", "<sys/socket.h>", "the store layer must do without <sys/socket.h>"),
    ("server/store/store.c", "<netinet/tcp.h>", "the store layer must do without <netinet/tcp.h>"),
    ("server/store/store.c", '"server/dispatch.h"', "the store layer may not include server/dispatch.h"),
    ("server/dispatch.c", "<sys/epoll.h>", "the dispatch layer must do without <sys/epoll.h>"),
    ("server/conn.c", '"server/store/store.h"', "the loop layer may not include server/store/store.h"),
    ("server/buf.h", '"server/dispatch.h"', "the buffers layer may not include server/dispatch.h"),
    ("client/net.c", '"server/dispatch.h"', "the client library layer may not include server/dispatch.h"),
    ("client/cli/main.c", '"client/net.h"', "the command line layer may not include client/net.h"),
    ("server/main.c", '"server/nothing.h"', "no such header: server/nothing.h"),
    ("server/main.c", '"buf.h"', "write this include as server/buf.h"),
    ("server/dispatch.h", '"server/dispatch.h"', "includes itself"),
]


def plant(root: Path, extra: dict[str, str]) -> None:
    for name, text in {**GOOD_TREE, **extra}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(script: str, root: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["/usr/bin/python3", str(ROOT / "tests" / "support" / script), "--root", str(root)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


def test_good_includes_pass(tmp_path: Path) -> None:
    plant(tmp_path, {})
    result = run("check-includes.py", tmp_path)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name, include, message", BAD_INCLUDES)
def test_bad_include_is_found(tmp_path: Path, name: str, include: str, message: str) -> None:
    plant(tmp_path, {name: GOOD_TREE[name] + f"#include {include}\n"})
    result = run("check-includes.py", tmp_path)
    assert result.returncode == 1
    assert message in result.stdout
    assert result.stdout.startswith(f"{name}:")


def test_file_of_no_layer_is_found(tmp_path: Path) -> None:
    plant(tmp_path, {"server/newthing.c": ""})
    result = run("check-includes.py", tmp_path)
    assert result.returncode == 1
    assert "server/newthing.c:1: belongs to no layer" in result.stdout


@pytest.mark.parametrize("text, message", [
    ("int x;\n", "a.c:1: the first line must be SPDX-License-Identifier"),
    ("/* SPDX-License-Identifier: MIT */\nint x;\n", "a.c:2: after the licence line comes a comment"),
    (LICENCE + "\tint x;\n", "a.c:3: tab"),
    (LICENCE + "int x; \n", "a.c:3: blanks at the end"),
    (LICENCE + "int x; /* " + "TO" + "DO */\n", "a.c:3: a mark of unfinished work"),
    (LICENCE + "int x; /*" + "y" * 140 + "*/\n", "a.c:3: 151 columns"),
    (LICENCE + "typedef struct a { int b; } a;\n", "a.c:3: typedef"),
])
def test_bad_style_is_found(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "a.c").write_text(text)
    result = run("check-style.py", tmp_path)
    assert result.returncode == 1
    assert message in result.stdout


def test_good_style_passes(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "a.c").write_text(LICENCE + "int x;\n")
    assert run("check-style.py", tmp_path).returncode == 0
