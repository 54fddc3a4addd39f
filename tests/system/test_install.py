# SPDX-License-Identifier: MIT
"""What `make install` puts in place is whole, can be built against, and `make uninstall` takes it all away again."""
from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/opt/crab"
PROGRAMS = ("crabcache-server", "crabcache-cli", "crabcache-replay", "crabcache-bench")

EXAMPLE = r"""
#include <crabcache/crabcache.h>
#include <crabcache/version.h>
#include <stdio.h>

int main(void)
{
    struct crab_req_ping ping = {.op = CRAB_OP_PING};
    uint8_t bytes[16];
    size_t len = crab_req_ping_encode(&ping, bytes, sizeof bytes);
    struct crab_conn *conn = NULL;
    crab_conn_close(conn);
    printf("%s %zu\n", CRAB_VERSION_STRING, len);
    return 0;
}
"""


def run(*command: str, env: dict[str, str] | None = None, **more) -> subprocess.CompletedProcess:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                            env={**os.environ, **(env or {})}, cwd=more.pop("cwd", ROOT), **more)
    assert result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def make(target: str, stage: Path) -> None:
    run("make", "--no-print-directory", "MODE=release", target, f"DESTDIR={stage}", f"PREFIX={PREFIX}",
        env={"MAKEFLAGS": "", "MAKELEVEL": ""})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    make("install", folder)
    return folder


@pytest.fixture(scope="module")
def installed(stage: Path) -> Path:
    return stage / PREFIX.lstrip("/")


def defined(library: Path, *options: str) -> set[str]:
    """Names of the functions and variables that a library defines for others."""
    lines = run("nm", "--defined-only", "--extern-only", "--format=posix", *options, str(library)).stdout.splitlines()
    return {line.split()[0] for line in lines if len(line.split()) > 1}


def test_everything_is_there(installed: Path) -> None:
    for program in PROGRAMS:
        assert os.access(installed / "bin" / program, os.X_OK)
        assert (installed / "share/man/man1" / f"{program}.1").is_file()
    for header in (ROOT / "include/crabcache").glob("*.h"):
        assert (installed / "include/crabcache" / header.name).read_bytes() == header.read_bytes()
    assert os.readlink(installed / "lib/libcrabcache.so") == "libcrabcache.so.0"
    assert os.readlink(installed / "lib/libcrabcache.so.0") == "libcrabcache.so.0.1.0"
    assert (installed / "lib/libcrabcache.a").is_file()


def test_soname(installed: Path) -> None:
    dynamic = run("readelf", "-d", str(installed / "lib/libcrabcache.so.0.1.0")).stdout
    assert "Library soname: [libcrabcache.so.0]" in dynamic


def test_only_public_names_are_exported(installed: Path) -> None:
    shared = defined(installed / "lib/libcrabcache.so", "-D")
    static = defined(installed / "lib/libcrabcache.a")
    assert shared
    assert not [name for name in shared if not name.startswith("crab_")]
    assert static == shared


def test_exported_names_are_declared(installed: Path) -> None:
    headers = "".join(path.read_text() for path in (installed / "include/crabcache").glob("*.h"))
    for name in defined(installed / "lib/libcrabcache.so", "-D"):
        assert re.search(rf"\b{name}\b", headers), f"{name} is exported, but no public header declares it"


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("kind", ["shared", "static"])
def test_builds_by_pkg_config(stage: Path, installed: Path, tmp_path: Path, compiler: str, kind: str) -> None:
    source, program = tmp_path / "example.c", tmp_path / "example"
    source.write_text(EXAMPLE)
    env = {"PKG_CONFIG_PATH": str(installed / "lib/pkgconfig"), "PKG_CONFIG_SYSROOT_DIR": str(stage)}
    options = ["--static"] if kind == "static" else []
    flags = run("pkg-config", *options, "--cflags", "--libs", "crabcache", env=env).stdout.split()
    if kind == "static":
        flags = ["-Wl,-Bstatic" if flag == "-lcrabcache" else flag for flag in flags]
        flags.insert(flags.index("-Wl,-Bstatic") + 1, "-lcrabcache")
        flags.insert(flags.index("-lcrabcache") + 1, "-Wl,-Bdynamic")
    run(compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program), *flags)
    needs = run("readelf", "-d", str(program)).stdout
    assert ("[libcrabcache.so.0]" in needs) == (kind == "shared")
    output = run(str(program), env={"LD_LIBRARY_PATH": str(installed / "lib")}).stdout
    assert output == "0.1.0 8\n"


def test_pkg_config_version(installed: Path) -> None:
    version = run("pkg-config", "--modversion", "crabcache", env={"PKG_CONFIG_PATH": str(installed / "lib/pkgconfig")})
    assert version.stdout.strip() == "0.1.0"


@pytest.mark.parametrize("program", PROGRAMS)
def test_installed_program_says_its_version(installed: Path, program: str) -> None:
    result = run(str(installed / "bin" / program), "--version")
    assert "0.1.0" in result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_man_page_renders_without_warnings(program: str) -> None:
    result = run("man", "--warnings=w", "-l", str(ROOT / "docs" / f"{program}.1"),
                 env={"MANWIDTH": "100", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"})
    assert result.stderr == ""
    assert program in result.stdout


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))


@pytest.mark.parametrize("program", PROGRAMS)
def test_man_page_and_help_name_the_same_flags(program: str) -> None:
    page = (ROOT / "docs" / f"{program}.1").read_text().replace("\\-", "-")
    told = run(str(ROOT / "build/release" / program), "--help").stdout
    assert flags_in(told), "--help names no flag"
    assert flags_in(page) == flags_in(told)


def test_a_changed_configuration_is_kept(tmp_path: Path) -> None:
    make("install", tmp_path)
    config = tmp_path / PREFIX.lstrip("/") / "etc/crabcache/crabcache.conf"
    assert config.read_bytes() == (ROOT / "packaging/crabcache.conf").read_bytes()
    config.write_text("memory = 2G\n")
    make("install", tmp_path)
    make("uninstall", tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [config]
    assert config.read_text() == "memory = 2G\n"


def test_units_name_what_is_installed(installed: Path) -> None:
    unit = (installed / "lib/systemd/system/crabcache-server.service").read_text()
    assert f"ExecStart={PREFIX}/bin/crabcache-server --config {PREFIX}/etc/crabcache/crabcache.conf\n" in unit
    assert "@" not in unit.replace("@system-service", "").replace("@privileged", "")
    assert (installed / "lib/systemd/system/crabcache-server.socket").is_file()
    assert "u crabcache " in (installed / "lib/sysusers.d/crabcache.conf").read_text()


def test_uninstall_leaves_nothing(tmp_path: Path) -> None:
    make("install", tmp_path)
    make("uninstall", tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
