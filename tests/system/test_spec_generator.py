# SPDX-License-Identifier: MIT
"""The generator: every mistake in a specification is found and named, and its outputs are fresh.

The bad specifications are made from the real one, each by one edit, so that nothing else is wrong with them.
"""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spec_support import GENERATE, ROOT, SPEC

pytestmark = pytest.mark.once

TOML = (SPEC / "crabcache.toml").read_text()
LOCK = SPEC / "crabcache.lock"


def generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", str(GENERATE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def generate_in(tree: Path) -> subprocess.CompletedProcess[str]:
    """The generator of another tree, on that tree."""
    command = [sys.executable, "-B", str(tree / "spec/generate.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tree)


def edited(old: str, new: str) -> str:
    """The real specification with the first occurrence of a text replaced."""
    assert old in TOML, old
    return TOML.replace(old, new, 1)


def within(entry: str, old: str, new: str) -> str:
    """The real specification with a text replaced at its first occurrence after `entry`."""
    at = TOML.index(entry)
    assert old in TOML[at:], old
    return TOML[:at] + TOML[at:].replace(old, new, 1)


def table(kind: str, name: str) -> str:
    """How an entry begins."""
    return f'[[{kind}]]\nname = "{name}"\n'


def first(pattern: str) -> str:
    """The first text in the real specification that a pattern matches; its dots match line ends too."""
    match = re.search(pattern, TOML, re.S)
    assert match is not None, pattern
    return match[0]


def added(text: str) -> str:
    """The real specification with an entry at its end."""
    return TOML + "\n" + text


PUT, GET, HELLO, INCR = (table("request", name) for name in ("PUT", "GET", "HELLO", "INCR"))
TTL_FIELD = '  [[request.field]]\n  name = "ttl_ms"\n'
TTL_FLAG = '  [[request.flag]]\n  name = "TTL"\n'
NEW_REQUEST = """\
[[request]]
name = "TOUCH"
op = 0x81
since = 1
write = true
idempotent = true
key = "none"
value = "none"
replies = ["OK"]
doc = "New."
"""

# name: (the bad specification, the entry, what is said about it)
BAD: dict[str, tuple[str, str, str]] = {
    # numbers that are used twice or reserved
    "op used twice": (
        within(GET, "op = 0x03", "op = 0x02"),
        "request GET", r"op 0x02 is that of request PUT \(line \d+\) already",
    ),
    "op of another kind": (
        within(table("reply", "OK"), "op = 0x10", "op = 0x11"),
        "reply PONG", "op 0x11 is that of reply OK",
    ),
    "reserved op": (within(GET, "op = 0x03", "op = 0x0A"), "request GET", "op 0x0a is that of reserved_op LINE_FEED"),
    "error code used twice": (
        within(table("error", "BUSY"), "0x0102", "0x0101"),
        "error BUSY", "code 0x0101 is that of error OUT_OF_MEMORY",
    ),
    "feature bit used twice": (
        within(table("feature", "ZSTD"), "bit = 3", "bit = 1"),
        "feature ZSTD", "bit 1 is that of feature LEASE",
    ),
    "extension type used twice": (
        within(table("extension", "COMPRESSION"), "0x0003", "0x0001"),
        "extension COMPRESSION", "type 0x0001 is that",
    ),
    "error class used twice": (
        within(table("error_class", "UNKNOWN"), "number = 3", "number = 2"),
        "error_class UNKNOWN", "number 2 is that",
    ),
    # numbers out of their range
    "op out of the range": (
        within(GET, "op = 0x03", "op = 0x20"),
        "request GET", "op 0x20 is out of the range of a request: 0x01 to 0x0f or 0x80 to 0xbf",
    ),
    "reply in the range of pushes": (
        within(table("reply", "TAGGED"), "0x1F", "0xD0"),
        "reply TAGGED", "op 0xd0 is out of the range of a reply",
    ),
    "push in the range of replies": (
        within(table("push", "GOAWAY"), "0xC1", "0x70"),
        "push GOAWAY", "op 0x70 is out of the range of a push",
    ),
    "op over a byte": (within(GET, "op = 0x03", "op = 300"), "request GET", "op 0x12c is not in 0x00 to 0xff"),
    "feature bit": (
        within(table("feature", "ZSTD"), "bit = 3", "bit = 32"),
        "feature ZSTD", "bit 32 is not in 0 to 31",
    ),
    "extension type": (
        within(table("extension", "COMPRESSION"), "0x0003", "0x8003"),
        "extension COMPRESSION", "type 0x8003 is not in",
    ),
    "ranges overlap": (edited("first = 0x10\n", "first = 0x0F\n"), "range reply", "overlaps range request at line"),
    "range upside down": (edited("first = 0x80\n", "first = 0xC0\n"), "range request", "first is above last"),
    "range of what": (
        edited('name = "push"\nfirst', 'name = "pull"\nfirst'),
        "range pull", "unknown kind of message 'pull'",
    ),
    "error class unknown": (
        within(table("error", "BUSY"), "0x0102", "0x0902"),
        "error BUSY", "there is no error_class of the number 9",
    ),
    "limit of 0": (
        within(table("limit", "MAX_USER"), "value = 255", "value = 0"),
        "limit MAX_USER", "value 0 is not in 1 to",
    ),
    "key_max over klen": (
        within(PUT, '"MAX_KEY"', '"MAX_STATS_TEXT"'),
        "request PUT", "key_max MAX_STATS_TEXT is 1048576: klen has 16 bits",
    ),
    "protocol version": (edited("version = 1\n", "version = 256\n"), "protocol", "version 256 is not in 1 to 255"),
    "byte order": (
        edited('byte_order = "little"', 'byte_order = "big"'),
        "protocol", "byte_order 'big' is not 'little'",
    ),
    # names
    "request named twice": (within(GET, '"GET"', '"PUT"'), "request PUT", "name PUT is that of request PUT"),
    "field named twice": (
        within(PUT, '"app_flags"', '"ttl_ms"'),
        "request PUT, field ttl_ms", "name ttl_ms is that of",
    ),
    "flag named twice": (within(PUT, '"APP_FLAGS"', '"TTL"'), "request PUT, flag TTL", "name TTL is that of"),
    "limit named like a constant": (
        edited(table("limit", "MAX_USER"), table("limit", "TTL_NEVER")),
        "limit TTL_NEVER", "name TTL_NEVER is that of constant",
    ),
    "name in lower case": (edited(GET, table("request", "Get")), "request Get", "is not made of upper-case letters"),
    "field in upper case": (
        within(PUT, '"app_flags"', '"appFlags"'),
        "request PUT, field appFlags", "is not made of lower-case letters",
    ),
    "field named like a part of the head": (
        within(PUT, '"app_flags"', '"key"'),
        "request PUT, field key", "is that of a part every request has",
    ),
    # things that do not exist
    "unknown type": (
        within(PUT, 'type = "u64"', 'type = "u63"'),
        "request PUT, field ttl_ms", "unknown type 'u63'; known are u8, u16",
    ),
    "unknown flag": (within(PUT, 'when = "TTL"', 'when = "TLL"'), "request PUT, field ttl_ms", "unknown flag 'TLL'"),
    "reserved flag": (
        within(GET, 'when = "TTL"', 'when = "LEASE"'),
        "request GET, field ttl_ms", "unknown flag 'LEASE'",
    ),
    "unknown check": (
        within(PUT, 'check = "ttl"', 'check = "tll"'),
        "request PUT, field ttl_ms", "unknown check 'tll'",
    ),
    "unknown limit of keys": (within(PUT, '"MAX_KEY"', '"MAX_KEYS"'), "request PUT", "unknown limit 'MAX_KEYS'"),
    "unknown limit of values": (
        within(HELLO, '"MAX_CLIENT_NAME"', '"MAX_NAME"'),
        "request HELLO", "unknown limit 'MAX_NAME'",
    ),
    "unknown limit of texts": (
        within(table("reply", "ERROR"), '"MAX_ERROR_TEXT"', '"MAX_TEXT"'),
        "reply ERROR, field text", "unknown limit 'MAX_TEXT'",
    ),
    "limit in another unit": (
        within(HELLO, '"MAX_CLIENT_NAME"', '"MAX_IN_FLIGHT"'),
        "request HELLO", "unknown limit 'MAX_IN_FLIGHT'",
    ),
    "unknown reply": (within(PUT, '"STORED"', '"STORE"'), "request PUT", "unknown reply 'STORE'"),
    "unknown error of a check": (
        within(table("check", "ttl"), '"BAD_FIELD"', '"BAD_FEELD"'),
        "check ttl", "unknown error 'BAD_FEELD'",
    ),
    "unknown error of a rule": (
        within(INCR, '"BAD_FLAGS"', '"BAD_FLAG"'),
        "request INCR, requires", "unknown error 'BAD_FLAG'",
    ),
    "unknown flag of a rule": (
        within(INCR, 'needs = "INITIAL"', 'needs = "INITIALS"'),
        "request INCR, requires", "unknown flag 'INITIALS'",
    ),
    "unknown flag of idempotent_unless": (
        within(PUT, '"IF_ABSENT", ', '"IF_EVER", '),
        "request PUT", "unknown flag 'IF_EVER'",
    ),
    # keys of tables
    "unknown key": (
        within(PUT, "idempotent_unless", "idempotent_if"),
        "request PUT", "unknown key 'idempotent_if'; known are",
    ),
    "unknown key of a field": (
        within(PUT, 'when = "TTL"', 'wen = "TTL"'),
        "request PUT, field ttl_ms", "unknown key 'wen'",
    ),
    "unknown table": (added('[[requset]]\nname = "X"\n'), "unknown table 'requset'", ""),
    "not an array of tables": (
        re.sub(r"\[\[check\]\]", "[[old_check]]", TOML) + "\n[check]\nx = 1\n",
        "check", r"write \[\[check\]\]",
    ),
    "key without its value": (within(PUT, 'key = "required"\n', ""), "request PUT", "key is missing"),
    "op missing": (within(GET, "op = 0x03\n", ""), "request GET", "op is missing"),
    "name missing": (edited(GET, "[[request]]\n"), "request number 3", "name is missing"),
    "number as a string": (within(GET, "op = 0x03", 'op = "3"'), "request GET", "op must be a number, not '3'"),
    "truth as a number": (
        within(GET, "write = false", "write = 0"),
        "request GET", "write must be true or false, not 0",
    ),
    "number as truth": (within(GET, "op = 0x03", "op = true"), "request GET", "op must be a number, not True"),
    # documentation and versions
    "documentation missing": (
        within(GET, first(r'doc = "Read the value[^\n]*\n'), ""),
        "request GET", "documentation is missing: no doc",
    ),
    "documentation empty": (
        within(table("limit", "MAX_USER"), first(r'doc = "The longest user[^\n]*"'), 'doc = " "'),
        "limit MAX_USER", "documentation is missing: doc is empty",
    ),
    "field without documentation": (
        within(PUT, '  doc = "The application\'s own bits."\n', ""),
        "request PUT, field app_flags", "documentation is missing",
    ),
    "text of an error empty": (
        within(table("error", "BUSY"), 'text = "the server is short of resources"', 'text = ""'),
        "error BUSY", "text is empty",
    ),
    "since missing": (within(GET, "since = 1\n", ""), "request GET", "since is missing"),
    "since of a field missing": (
        within(TTL_FIELD, "  since = 1\n", ""),
        "request PUT, field ttl_ms", "since is missing",
    ),
    "since of a constant missing": (
        within(table("constant", "DEFAULT_PORT"), "since = 1\n", ""),
        "constant DEFAULT_PORT", "since is missing",
    ),
    "since in the future": (
        within(GET, "since = 1\n", "since = 2\n"),
        "request GET", "since 2 is not a version of the protocol, 1 to 1",
    ),
    "since of what is reserved": (
        within(table("feature", "ZSTD"), "reserved = true", "reserved = true\nsince = 1"),
        "feature ZSTD", "reserved entries have no since",
    ),
    # messages
    "op without replies": (
        within(GET, 'replies = ["VALUE", "META", "NULL"]', "replies = []"),
        "request GET", "has no replies",
    ),
    "replies missing": (within(GET, 'replies = ["VALUE", "META", "NULL"]\n', ""), "request GET", "has no replies"),
    "reply that is understood": (
        within(GET, '"VALUE", ', '"VALUE", "ERROR", '),
        "request GET", "reply ERROR is understood",
    ),
    "reply named twice": (
        within(GET, '"VALUE", ', '"VALUE", "VALUE", '),
        "request GET", "replies names VALUE more than once",
    ),
    "rest before the end": (
        within(table("reply", "ERROR"), 'type = "u16"', 'type = "bytes"'),
        "reply ERROR, field code", "takes the rest of the message, but it is not the last field",
    ),
    "rest in a request": (
        within(PUT, 'type = "u32"', 'type = "bytes"'),
        "request PUT, field app_flags", "takes the rest of the message, but key and value follow",
    ),
    "check of a rest": (
        within(table("reply", "VALUE"), 'type = "bytes"', 'type = "bytes"\n  check = "ttl"'),
        "reply VALUE, field value", "type bytes has no check",
    ),
    "max of a number": (
        within(table("reply", "EXISTS"), 'type = "u64"', 'type = "u64"\n  max = "MAX_KEY"'),
        "reply EXISTS, field version", "type u64 has no max",
    ),
    "when in a reply": (
        within(table("reply", "EXISTS"), 'type = "u64"', 'type = "u64"\n  when = "TTL"'),
        "reply EXISTS, field version", "a reply has no flags, so no when",
    ),
    "single byte with a field": (
        within(table("reply", "STORED"), "since = 1\n", "since = 1\nsingle = true\n"),
        "reply STORED", "a single byte has no fields",
    ),
    "key of a strange kind": (
        within(GET, 'key = "required"', 'key = "wanted"'),
        "request GET", "key 'wanted' is not required, optional or none",
    ),
    "key_max without a key": (within(GET, 'key = "required"', 'key = "none"'), "request GET", "key_max without a key"),
    "key_max missing": (within(GET, 'key_max = "MAX_KEY"\n', ""), "request GET", "key_max is missing"),
    "value_max missing": (within(PUT, 'value_max = "server"\n', ""), "request PUT", "value_max is missing"),
    "value_max without a value": (
        within(PUT, 'value = "optional"', 'value = "none"'),
        "request PUT", "value_max without a value",
    ),
    "idempotent unless what": (
        within(PUT, "idempotent = true", "idempotent = false"),
        "request PUT", "idempotent_unless without idempotent",
    ),
    # flags
    "flags overlap": (
        within(PUT, "mask = 0x02\n  value = 0x02", "mask = 0x03\n  value = 0x02"),
        "request PUT, flag APP_FLAGS", "mask 0x03 overlaps that of request PUT, flag TTL",
    ),
    "flags are the same": (
        within(PUT, "value = 0x08", "value = 0x04"),
        "request PUT, flag IF_PRESENT", r"has the bits of request PUT, flag IF_ABSENT",
    ),
    "flag overlaps a common one": (
        within(PUT, "mask = 0x10\n  value = 0x10", "mask = 0x20\n  value = 0x20"),
        "request PUT, flag WANT_VERSION", "mask 0x20 overlaps the common flag EXT 0x20",
    ),
    "flag named like a common one": (
        within(PUT, '"WANT_VERSION"', '"TAG"'),
        "request PUT, flag TAG", "name TAG is that of a common flag",
    ),
    "common flags overlap": (
        within(table("flag", "TAG"), "mask = 0x40\nvalue = 0x40", "mask = 0x60\nvalue = 0x40"),
        "flag TAG", "overlaps that of flag EXT",
    ),
    "value outside the mask": (
        within(TTL_FLAG, "value = 0x01", "value = 0x02"),
        "request PUT, flag TTL", "value 0x02 is not within the mask 0x01",
    ),
    "mask of 0": (within(TTL_FLAG, "mask = 0x01", "mask = 0x00"), "request PUT, flag TTL", "mask is 0"),
    "value of 0": (within(TTL_FLAG, "value = 0x01", "value = 0x00"), "request PUT, flag TTL", "value is 0"),
    "mask over a byte": (
        within(TTL_FLAG, "mask = 0x01", "mask = 0x100"),
        "request PUT, flag TTL", "mask 0x100 is not in 0x00 to 0xff",
    ),
    # checks and types
    "check outside the type": (
        within(HELLO, 'check = "protocol_version"', 'check = "ttl"'),
        "request HELLO, field version_min", "check ttl: the range 1 to 9007199254740991 is outside the type u8",
    ),
    "check without ranges": (
        within(table("check", "version"), "[[1, 0xFFFFFFFFFFFFFFFF]]", "[]"),
        "check version", "ranges is empty",
    ),
    "check upside down": (
        within(table("check", "version"), "[[1, 0xFFFFFFFFFFFFFFFF]]", "[[2, 1]]"),
        "check version", r"range \[2, 1\] is not \[first, last\]",
    ),
    "type of 3 bytes": (
        within(table("type", "u32"), "bytes = 4", "bytes = 3"),
        "type u32", "bytes 3 is not 1, 2, 4 or 8",
    ),
    "type without a size": (within(table("type", "u32"), "bytes = 4\n", ""), "type u32", "either bytes or rest"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_specification(name: str, tmp_path: Path) -> None:
    text, entry, message = BAD[name]
    assert text != TOML
    path = tmp_path / "bad.toml"
    path.write_text(text)
    done = generate("--spec", path, "--out", tmp_path / "out")
    assert done.returncode == 1 and not (tmp_path / "out").exists(), "a bad specification makes nothing"
    wanted = re.compile(rf"{re.escape(str(path))}:\d+: {re.escape(entry)}(: .*{message})?")
    assert any(wanted.match(line) and re.search(message, line) for line in done.stderr.splitlines()), done.stderr
    assert "Traceback" not in done.stderr


def test_line_is_that_of_the_entry(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(within(PUT, 'type = "u64"', 'type = "u63"'))
    line = generate("--spec", path).stderr.split(":")[1]
    assert path.read_text().splitlines()[int(line)].strip() == 'name = "ttl_ms"'


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(within(GET, "op = 0x03", "op = 0x20").replace('doc = "Done."', 'doc = ""').replace('type = "i64"', 'type = "i65"'))
    lines = generate("--spec", path).stderr.splitlines()
    assert len(lines) == 5
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)


@pytest.mark.parametrize(("text", "where"), [
    (edited("op = 0x03", "op = 0x"), TOML[:TOML.index("op = 0x03")].count("\n") + 1),
    (edited("since = 1", "since = 1\nsince = 1"), TOML[:TOML.index("since = 1")].count("\n") + 2),
    (TOML + '\n[[request]]\nname = "X', None),
])
def test_not_toml(text: str, where: int | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    done = generate("--spec", path)
    found = re.fullmatch(rf"{re.escape(str(path))}:(\d+): not TOML: .+\n", done.stderr)
    assert done.returncode == 1 and found, done.stderr
    assert int(found[1]) == (where or text.count("\n") + 1)


def test_no_such_file(tmp_path: Path) -> None:
    done = generate("--spec", tmp_path / "none.toml")
    assert done.returncode == 1 and f"{tmp_path}/none.toml: cannot be read" in done.stderr


# ---------------------------------------------------------------------------------------------- the lock


def locked(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The generator on a specification beside the real lock."""
    path = tmp_path / "crabcache.toml"
    path.write_text(text)
    shutil.copy(LOCK, tmp_path / "crabcache.lock")
    return generate("--spec", path, "--out", tmp_path / "out")


CHANGED: dict[str, tuple[str, str]] = {
    "op": (within(GET, "op = 0x03", "op = 0x81"), "op 0x03: released entries never go"),
    "message renamed": (edited(GET, table("request", "FETCH")), "request GET: released entries never go"),
    "limit": (
        within(table("limit", "MAX_USER"), "value = 255", "value = 254"),
        "limit MAX_USER: released entries never change",
    ),
    "constant": (
        within(table("constant", "DEFAULT_PORT"), "2722", "2723"),
        "constant DEFAULT_PORT: released entries never change",
    ),
    "error code": (within(table("error", "BUSY"), "0x0102", "0x0105"), "error BUSY: released entries never change"),
    "error that closes": (
        within(table("error", "BAD_KEY"), "since = 1", "closes = true\nsince = 1"),
        "error BAD_KEY: released entries never change",
    ),
    "type of a field": (
        within(PUT, 'type = "u32"', 'type = "u16"'),
        "request PUT, field app_flags: released entries never change",
    ),
    "check of a field": (
        within(PUT, '  check = "version"\n', ""),
        "request PUT, field version: released entries never change",
    ),
    "check": (within(table("check", "version"), "[[1,", "[[0,"), "check version: released entries never change"),
    "flag": (
        within(PUT, "mask = 0x10\n  value = 0x10", "mask = 0x10\n  value = 0x10\n  reserved = true").replace(
            "reserved = true\n  since = 1",
            "reserved = true",
            1,
        ),
        "request PUT, flag WANT_VERSION: released entries never go",
    ),
    "reply of a request": (
        within(GET, '"VALUE", "META", "NULL"', '"VALUE", "META"'),
        "request GET, reply NULL: released entries never go",
    ),
    "order of fields": (
        within(table("reply", "WELCOME"), "features", "max_key_").replace('"max_key"', '"features"', 1).replace(
            "max_key_",
            "max_key",
            1,
        ),
        "reply WELCOME: released entries never change",
    ),
    "new field that is always there": (
        within(
            table("reply", "NUMBER"),
            '  doc = "The number that is stored now."\n',
            '  doc = "The number that is stored now."\n\n  [[reply.field]]\n  name = "more"\n  type = "u8"\n  since = 1\n  doc = "New."\n',
        ),
        "reply NUMBER: released entries never change",
    ),
    "reserved op for something else": (
        edited(table("reserved_op", "TRACK"), table("reserved_op", "FOLLOW")),
        "op 0x0e: released entries never change",
    ),
    "reserved feature": (
        edited(table("feature", "ZSTD"), table("feature", "LZ4")),
        "feature bit 3: released entries never change",
    ),
    "reserved op given up": (
        edited(first(r'\[\[reserved_op\]\]\nname = "TRACK".*?\n\n'), ""),
        "op 0x0e: released entries never go",
    ),
    "range": (edited("last = 0xBF", "last = 0xBE"), "range 0x80 to 0xbf: released entries never go"),
    "idempotence": (
        within(GET, "idempotent = true", "idempotent = false"),
        "request GET: released entries never change",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_released_entries_never_change(name: str, tmp_path: Path) -> None:
    text, message = CHANGED[name]
    assert text != TOML
    done = locked(text, tmp_path)
    assert done.returncode == 1 and message in done.stderr and str(tmp_path / "crabcache.toml") in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [
    edited('doc = "Done."', 'doc = "It was done."'),
    within(table("error", "BUSY"), "the server is short of resources", "the server is busy"),
    TOML.replace("# --", "# -"),
])
def test_wording_is_free(text: str, tmp_path: Path) -> None:
    done = locked(text, tmp_path)
    assert done.returncode == 0, done.stderr


def test_reserved_numbers_become_what_they_are_for(tmp_path: Path) -> None:
    text = within(table("feature", "ZSTD"), "reserved = true", "since = 1")
    flag = '  name = "LEASE"\n  mask = 0x04\n  value = 0x04\n'
    assert flag + "  reserved = true" in text
    text = text.replace(flag + "  reserved = true", flag + "  since = 1")
    done = locked(text, tmp_path)
    assert done.returncode == 0, done.stderr


def test_lock_takes_new_entries_only_when_told(tmp_path: Path) -> None:
    text = within(table("feature", "ZSTD"), "reserved = true", "since = 1")
    assert locked(text, tmp_path).returncode == 0
    path, lock = tmp_path / "crabcache.toml", tmp_path / "crabcache.lock"
    assert lock.read_bytes() == LOCK.read_bytes(), "without --lock it stays as it is"
    done = generate("--check", "--spec", path, "--out", tmp_path / "out")
    assert done.returncode == 1 and "spec/crabcache.lock: stale: feature ZSTD not locked; run spec/generate.py --lock" in done.stderr
    done = generate("--lock", "--spec", path, "--out", tmp_path / "out")
    assert done.returncode == 0 and "1 entries added" in done.stdout
    assert generate("--check", "--spec", path, "--out", tmp_path / "out").returncode == 0
    old, new = LOCK.read_text().splitlines(), lock.read_text().splitlines()
    assert len(new) == len(old) + 1 and set(old) < set(new)
    path.write_text(TOML)
    done = generate("--spec", path, "--out", tmp_path / "out")
    assert done.returncode == 1 and "feature ZSTD: released entries never go" in done.stderr


def test_lock_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "crabcache.toml").write_text(TOML)
    (tmp_path / "crabcache.lock").write_text("0123 op\n")
    done = generate("--spec", tmp_path / "crabcache.toml")
    assert done.returncode == 1 and f"{tmp_path}/crabcache.lock:1: not 'digest  entry'" in done.stderr


# ------------------------------------------------------------------------------------------ the outputs


def made(tmp_path: Path) -> dict[str, bytes]:
    """All outputs of the real specification, made afresh."""
    done = generate("--out", tmp_path)
    assert done.returncode == 0, done.stderr
    return {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}


def test_outputs_are_fresh() -> None:
    done = generate("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_outputs_are_the_same_each_time_and_made_fast(tmp_path: Path) -> None:
    one = made(tmp_path / "one")
    start = time.monotonic()
    second = made(tmp_path / "two")
    assert time.monotonic() - start < 3 and one == second
    assert {
        "include/crabcache/wire.h", "python/crabcache/wire.py", "python/crabcache/errors.py", "spec/PROTOCOL.md",
        "spec/crabcache.lua", "spec/crabcache.dict", "tests/unit/vectors.inc", "spec/vectors/request-put.json",
    } <= set(one)
    assert generate("--out", tmp_path / "two").stdout == "", "what is fresh is not written again"
    for name, data in one.items():
        if name != "spec/PROTOCOL.md":
            assert b"Generated by spec/generate.py from spec/crabcache.toml; do not edit." in data[:300], name


def test_check_names_what_is_not_fresh(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "include/crabcache/wire.h").write_text("/* edited */\n")
    (tmp_path / "spec/crabcache.dict").unlink()
    (tmp_path / "spec/vectors/request-old.json").write_text("{}")
    done = generate("--check", "--out", tmp_path)
    assert done.returncode == 1
    assert set(done.stderr.splitlines()) == {
        "include/crabcache/wire.h: stale; run spec/generate.py", "spec/crabcache.dict: missing; run spec/generate.py",
        "spec/vectors/request-old.json: left over; run spec/generate.py",
    }
    assert (tmp_path / "include/crabcache/wire.h").read_text() == "/* edited */\n", "--check writes nothing"
    assert generate("--out", tmp_path).returncode == 0
    assert generate("--check", "--out", tmp_path).returncode == 0
    assert not (tmp_path / "spec/vectors/request-old.json").exists()


def test_check_and_lock_exclude_each_other() -> None:
    done = generate("--check", "--lock")
    assert done.returncode == 2 and "--check writes nothing" in done.stderr


def test_new_request_needs_its_block_in_the_document(tmp_path: Path) -> None:
    done = locked(added(NEW_REQUEST), tmp_path)
    assert done.returncode == 1 and done.stderr == "PROTOCOL.md: block request-TOUCH is missing\n"


def test_new_request_is_everywhere(tmp_path: Path) -> None:
    """The emitters know no message by name: a new one appears in all outputs."""
    tree = tmp_path / "tree"
    shutil.copytree(SPEC, tree / "spec", ignore=shutil.ignore_patterns("vectors", "__pycache__"))
    (tree / "spec/crabcache.toml").write_text(added(NEW_REQUEST))
    document = tree / "spec/PROTOCOL.md"
    document.write_text(document.read_text() + "\n<!-- generated: request-TOUCH -->\n<!-- end -->\n")
    done = generate_in(tree)
    assert done.returncode == 0, done.stderr
    for path, text in {
        "include/crabcache/wire.h": "#define CRAB_OP_TOUCH 0x81", "python/crabcache/wire.py": "class TouchRequest(Request):",
        "spec/crabcache.lua": 'name = "TOUCH"', "spec/crabcache.dict": 'op_touch="\\x81"', "spec/PROTOCOL.md": "**TOUCH**, op 0x81",
        "spec/vectors/request-touch.json": '"touch/valid/plain"', "tests/unit/vectors.inc": "vectors_request_touch",
    }.items():
        assert text in (tree / path).read_text(), path
    include = ["-I", str(tree / "include"), "-I", str(tree)]
    program = tree / "test_vectors"
    source = str(ROOT / "tests/unit/test_vectors.c")
    command = ["cc", "-std=gnu11", "-D_GNU_SOURCE", *include, source, "-lcmocka", "-o", str(program)]
    subprocess.run(command, check=True, timeout=120)
    ran = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0 and "request-touch" in ran.stdout + ran.stderr, ran.stdout + ran.stderr


@pytest.mark.parametrize(("edit", "message"), [
    (("<!-- generated: types -->", "<!-- generated: kinds -->"), "unknown block kinds"),
    (("<!-- generated: types -->\n", ""), "block types is missing"),
    (("<!-- generated: types -->", "<!-- generated: types -->\n<!-- end -->\n<!-- generated: types -->"), "block types is there twice"),
    (
        ("<!-- generated: types -->", "<!-- generated: types -->\n<!-- generated: limits -->"),
        "block types has no '<!-- end -->' before this line",
    ),
    (("<!-- generated: types -->", "<!-- end -->\n<!-- generated: types -->"), "'<!-- end -->' without a block"),
])
def test_bad_document(edit: tuple[str, str], message: str, tmp_path: Path) -> None:
    shutil.copytree(SPEC, tmp_path / "spec", ignore=shutil.ignore_patterns("vectors", "__pycache__"))
    document = tmp_path / "spec/PROTOCOL.md"
    text = document.read_text()
    assert edit[0] in text
    document.write_text(text.replace(*edit, 1))
    done = generate_in(tmp_path)
    assert done.returncode == 1 and re.search(rf"PROTOCOL\.md(:\d+)?: {re.escape(message)}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_dictionary_is_one_that_fuzzers_take() -> None:
    lines = (SPEC / "crabcache.dict").read_text().splitlines()
    words = [line for line in lines if line and not line.startswith("#")]
    assert len(words) > 100
    assert all(re.fullmatch(r'[a-z0-9_]+="(\\x[0-9a-f]{2})+"', word) for word in words)
    assert len({word.split("=")[0] for word in words}) == len(words)
