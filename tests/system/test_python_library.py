# SPDX-License-Identifier: MIT
"""The binding's picture of libcrabcache is what the C compiler sees, and a library that does not fit is named clearly."""
from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "crabcache"
LIBRARY = ROOT / "build" / "release" / "libcrabcache.so.0"
sys.path.insert(0, str(ROOT / "python"))

import crabcache  # noqa: E402
from crabcache import _library  # noqa: E402

pytestmark = pytest.mark.once

HEADERS = [path for path in sorted((ROOT / "include" / "crabcache").glob("*.h")) if path.name not in ("wire.h", "version.h")]
ENUMS = [_library.Status, _library.Condition, _library.Distribution, _library.ServerState]
MACROS = [name for name in vars(_library) if re.fullmatch(r"[A-Z][A-Z_]+", name)
          and isinstance(getattr(_library, name), int) and not name.startswith("LIBRARY_")]
IN_C = {"value_data": "value.data", "value_len": "value.len"}  # fields that Python names differently


def compile_and_run(folder: Path, source: str) -> str:
    (folder / "print.c").write_text(source)
    program = folder / "print"
    subprocess.run(["gcc", "-std=c11", f"-I{ROOT}/include", "-o", program, folder / "print.c"], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Sizes, offsets and numbers by the C compiler."""
    expressions = [f"CRAB_{name}" for name in MACROS]
    expressions += [f"CRAB_{member.name}" for enum in ENUMS for member in enum]
    for name, structure in _library.STRUCTURES.items():
        expressions.append(f"sizeof(struct {name})")
        for field, *_ in structure._fields_:
            field = IN_C.get(field, field)
            expressions.append(f"offsetof(struct {name}, {field})")
            expressions.append(f"sizeof(((struct {name} *)0)->{field})")
    lines = "".join(f'    printf("%s=%llu\\n", "{text}", (unsigned long long)({text}));\n' for text in expressions)
    source = f"#include <crabcache/crabcache.h>\n#include <stdio.h>\nint main(void)\n{{\n{lines}    return 0;\n}}\n"
    output = compile_and_run(tmp_path_factory.mktemp("layout"), source)
    return {name: int(value) for name, value in (line.rsplit("=", 1) for line in output.splitlines())}


@pytest.mark.parametrize("name", _library.STRUCTURES)
def test_layout(compiled: dict[str, int], name: str) -> None:
    structure = _library.STRUCTURES[name]
    assert ctypes.sizeof(structure) == compiled[f"sizeof(struct {name})"]
    for field, *_ in structure._fields_:
        mine, in_c = getattr(structure, field), IN_C.get(field, field)
        assert mine.offset == compiled[f"offsetof(struct {name}, {in_c})"], field
        assert mine.size == compiled[f"sizeof(((struct {name} *)0)->{in_c})"], field


def test_every_structure_and_field_is_mirrored() -> None:
    text = "".join(path.read_text() for path in HEADERS)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    bodies = dict(re.findall(r"^struct (crab_\w+) \{\n(.*?)^\};", text, re.M | re.S))
    assert set(bodies) | {"crab_slice"} == set(_library.STRUCTURES)
    for name, body in bodies.items():
        in_c = re.findall(r"\(?\*?(\w+)\)?(?:\[[^\]]+\]|\([^)]*\))?;", body)
        mine = [IN_C.get(field, field).split(".")[0] for field, *_ in _library.STRUCTURES[name]._fields_]
        assert list(dict.fromkeys(mine)) == in_c, name


def test_numbers(compiled: dict[str, int]) -> None:
    assert len(MACROS) >= 10
    for name in MACROS:
        assert getattr(_library, name) == compiled[f"CRAB_{name}"], name
    for member in [member for enum in ENUMS for member in enum]:
        assert member.value == compiled[f"CRAB_{member.name}"], member


def test_every_status_is_mirrored() -> None:
    text = (ROOT / "include/crabcache/status.h").read_text()
    assert {f"CRAB_{status.name}" for status in _library.Status} == set(re.findall(r"^    (CRAB_\w+) = ", text, re.M))


SIMPLE_TYPES = {
    "void": None, "bool": c_bool, "int": c_int, "unsigned": c_uint, "size_t": c_size_t, "uint16_t": c_uint16,
    "uint32_t": c_uint32, "uint64_t": c_uint64, "int64_t": c_int64, "enum crab_status": c_int,
    "const char *": c_char_p, "void *": c_void_p, "const union crab_request *": c_void_p,
    "uint16_t *": POINTER(c_uint16), "uint32_t *": POINTER(c_uint32), "uint64_t *": POINTER(c_uint64),
    "int64_t *": POINTER(c_int64), "size_t *": POINTER(c_size_t), "enum crab_status *": POINTER(c_int),
    "crab_each": c_void_p, "crab_done": c_void_p, "crab_sink": c_void_p,
}
OPAQUE = re.compile(r"(?:const )?struct crab_(conn|client|ticket) \*(\*?)")


def ctypes_types(in_c: str) -> set[object]:
    """What may stand in argtypes for a type of C."""
    if in_c == "const void *":
        return {c_char_p, c_void_p}
    structure = re.fullmatch(r"(?:const )?struct (crab_\w+) \*", in_c)
    if structure and structure[1] in _library.STRUCTURES:
        return {POINTER(_library.STRUCTURES[structure[1]])}
    opaque = OPAQUE.fullmatch(in_c)
    if opaque:
        return {POINTER(c_void_p) if opaque[2] else c_void_p}
    return {SIMPLE_TYPES[in_c]}


def declared() -> dict[str, tuple[str, list[str]]]:
    """Every function of the headers with the types of its result and its parameters."""
    functions = {}
    for path in HEADERS:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        for result, name, inside in re.findall(r"CRAB_API (?:CRAB_MUST_USE )?([\w \n*]+?)(crab_\w+)\(([^;]*)\);", text):
            inside = re.sub(r"[\w ]+ \*?\(\*(\w+)\)\([^()]*\)", r"void *\1", inside)  # a function to be called back
            parameters = [" ".join(one.split()) for one in inside.split(",")]
            types = [re.sub(r"\w+$", "", one).strip() for one in parameters if one != "void"]
            functions[name] = (result.strip(), types)
    return functions


def test_every_function_is_declared_as_in_the_headers() -> None:
    functions = declared()
    assert set(functions) == set(_library.FUNCTIONS)
    for name, (result, parameters) in functions.items():
        restype, argtypes = _library.FUNCTIONS[name]
        assert restype in ctypes_types(result), name
        assert len(argtypes) == len(parameters), name
        for mine, in_c in zip(argtypes, parameters):
            assert mine in ctypes_types(in_c), (name, in_c)


def test_version_is_that_of_the_tree() -> None:
    text = (ROOT / "include/crabcache/version.h").read_text()
    numbers = [re.search(rf"#define CRAB_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH")]
    assert crabcache.__version__ == ".".join(numbers)
    assert _library.the_library().crab_version().decode() == crabcache.__version__


# ---- finding the library


def python(code: str, package: Path = ROOT / "python", **env: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name not in ("CRABCACHE_LIBRARY", "LD_LIBRARY_PATH")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**clean, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", **env})


LOAD = "from crabcache._library import the_library; print(the_library()._name)"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A copy of the package outside the source tree."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "crabcache", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "site"


def library_of_version(folder: Path, version: str) -> Path:
    source, path = folder / "fake.c", folder / f"libfake-{version}.so"
    source.write_text(f'const char *crab_version(void) {{ return "{version}"; }}\n')
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


def test_found_in_the_tree() -> None:
    assert python(LOAD).stdout.strip() == str(LIBRARY)


def test_found_by_the_loader(elsewhere: Path) -> None:
    result = python(LOAD, elsewhere, LD_LIBRARY_PATH=str(LIBRARY.parent))
    assert result.stdout.strip() == "libcrabcache.so.0", result.stderr


def test_named_by_the_environment(elsewhere: Path) -> None:
    assert python(LOAD, elsewhere, CRABCACHE_LIBRARY=str(LIBRARY)).stdout.strip() == str(LIBRARY)


def test_nowhere(elsewhere: Path) -> None:
    result = python(LOAD, elsewhere)
    assert result.returncode == 1
    assert re.search(r"LibraryError: cannot load libcrabcache: .*libcrabcache\.so\.0.*CRABCACHE_LIBRARY", result.stderr)


def test_a_named_library_is_not_replaced_by_another() -> None:
    result = python(LOAD, CRABCACHE_LIBRARY="/nowhere/libcrabcache.so.0")
    assert result.returncode == 1
    assert "LibraryError: cannot load libcrabcache: /nowhere/libcrabcache.so.0" in result.stderr


def test_codec_and_exceptions_need_no_library(elsewhere: Path) -> None:
    code = "import crabcache.wire, crabcache.errors; print(crabcache.wire.encode_request(crabcache.wire.PingRequest()))"
    result = python(code, elsewhere)
    assert result.stdout.startswith("b'\\x01"), result.stderr


@pytest.mark.parametrize("version", ["1.0.0", "0.0.9", "nonsense"])
def test_wrong_version(tmp_path: Path, version: str) -> None:
    with pytest.raises(crabcache.LibraryError, match=rf"is libcrabcache {version}, but this package needs 0\.1 or"):
        _library.load(str(library_of_version(tmp_path, version)))


@pytest.mark.parametrize("version", ["0.1.0", "0.1.7", "0.2.0", "0.10.1"])
def test_good_version(version: str) -> None:
    _library.check_version(version, "libcrabcache.so.0")


def test_another_library() -> None:
    with pytest.raises(crabcache.LibraryError, match=r"libc\.so\.6 is not libcrabcache"):
        _library.load("libc.so.6")


def test_library_without_a_function(tmp_path: Path) -> None:
    with pytest.raises(crabcache.LibraryError, match="lacks a function: .*undefined symbol: crab_"):
        _library.load(str(library_of_version(tmp_path, "0.1.0")))


def test_is_caught_as_import_error() -> None:
    assert issubclass(crabcache.LibraryError, ImportError) and issubclass(crabcache.LibraryError, crabcache.CrabError)


# ---- the package


def test_pip_installs_the_package(tmp_path: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("pip", "setuptools", "wheel")):
        pytest.skip("pip, setuptools or wheel is not installed")
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(ROOT / "python", source, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
               "--no-warn-script-location", "--target", str(target), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    installed = {path.name for path in (target / "crabcache").iterdir()}
    assert {path.name for path in PACKAGE.iterdir()} - {"__pycache__"} == installed - {"__pycache__"}
    assert (target / f"crabcache-{crabcache.__version__}.dist-info").is_dir()
    result = python("import crabcache; print(crabcache.__version__)", target)
    assert result.stdout.strip() == crabcache.__version__, result.stderr


def test_mypy_strict() -> None:
    mypy = shutil.which("mypy")
    if mypy is None:
        pytest.skip("mypy is not installed")
    files = [str(path) for path in sorted(PACKAGE.rglob("*.py"))]
    result = subprocess.run([mypy, "--strict", "--follow-imports=silent", "--cache-dir", "/dev/null", *files],
                            capture_output=True, text=True, timeout=300, cwd=ROOT / "python")
    assert result.returncode == 0, result.stdout
