# SPDX-License-Identifier: MIT
"""The specification as Python objects: read, checked and frozen.

`load` parses spec/crabcache.toml and finds every mistake in it, not only the first: a table that is not known, a
number that is used twice, a type that does not exist, an entry without documentation. Emitters get a Spec that
is sound, so that none of them has to check anything again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class SpecError(Exception):
    """The specification breaks rules; `problems` has one line for each, with file, line and entry."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Type:
    """The type of a field: an integer of some bytes, or one that takes the rest of the message."""

    name: str
    bytes: int | None
    signed: bool
    rest: bool
    doc: str

    @property
    def lowest(self) -> int:
        """The least number that an integer type holds."""
        return -(1 << (8 * (self.bytes or 0) - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The greatest number that an integer type holds."""
        return (1 << (8 * (self.bytes or 0) - self.signed)) - 1


@dataclass(frozen=True)
class Constant:
    """A number of the protocol."""

    name: str
    value: int
    since: int
    doc: str


@dataclass(frozen=True)
class Limit:
    """The most of something, in a unit."""

    name: str
    value: int
    unit: str
    since: int
    doc: str


@dataclass(frozen=True)
class Range:
    """A range of op bytes, `first` and `last` included, for messages of the kind `name`."""

    name: str
    first: int
    last: int
    doc: str


@dataclass(frozen=True)
class Feature:
    """A bit that HELLO and WELCOME agree on."""

    name: str
    bit: int
    reserved: bool
    since: int | None
    doc: str


@dataclass(frozen=True)
class Extension:
    """The type of an extension TLV."""

    name: str
    type: int
    reserved: bool
    doc: str


@dataclass(frozen=True)
class Flag:
    """A flag of requests: it is set if the bits of `mask` have the value `value`."""

    name: str
    mask: int
    value: int
    reserved: bool
    since: int | None
    doc: str


@dataclass(frozen=True)
class ErrorClass:
    """What a caller can do about an error; the high byte of its code."""

    name: str
    number: int
    doc: str


@dataclass(frozen=True)
class Error:
    """An error; `text` is what it says to people unless the server says more, `closes` that it ends the connection."""

    name: str
    code: int
    closes: bool
    since: int
    text: str
    doc: str


@dataclass(frozen=True)
class Check:
    """The ranges, ends included, that a field is in; outside it is `error`."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    error: str
    doc: str


@dataclass(frozen=True)
class Field:
    """A field of a message; with `when` it is there only if that flag is set."""

    name: str
    type: Type
    when: str | None
    check: str | None
    max: str | None
    since: int
    doc: str


@dataclass(frozen=True)
class Requires:
    """`flag` without `needs` is `error`."""

    flag: str
    needs: str
    error: str


@dataclass(frozen=True)
class ReservedOp:
    """An op byte that no message of this version uses."""

    name: str
    op: int
    doc: str


@dataclass(frozen=True)
class Message:
    """A request, a reply or a push: `fields` in the order of the wire. What follows `single` is of requests only."""

    kind: str
    name: str
    op: int
    since: int
    doc: str
    fields: list[Field]
    flags: list[Flag] = field(default_factory=list)
    single: bool = False
    write: bool = False
    idempotent: bool = False
    idempotent_unless: list[str] = field(default_factory=list)
    key: str = "none"
    key_max: str | None = None
    key_name: str | None = None
    value: str = "none"
    value_max: str | None = None
    value_name: str | None = None
    replies: list[str] = field(default_factory=list)
    requires: list[Requires] = field(default_factory=list)

    def flag(self, name: str) -> Flag:
        """The message's own flag of this name; KeyError if it has none."""
        for flag in self.flags:
            if flag.name == name:
                return flag
        raise KeyError(name)


@dataclass(frozen=True)
class Spec:
    """The whole specification, sound."""

    path: Path
    protocol: dict[str, Any]
    types: dict[str, Type]
    constants: list[Constant]
    limits: list[Limit]
    ranges: list[Range]
    features: list[Feature]
    extensions: list[Extension]
    flags: list[Flag]
    error_classes: list[ErrorClass]
    errors: list[Error]
    checks: dict[str, Check]
    requests: list[Message]
    replies: list[Message]
    pushes: list[Message]
    reserved_ops: list[ReservedOp]

    @property
    def messages(self) -> list[Message]:
        """Requests, replies and pushes, in this order."""
        return [*self.requests, *self.replies, *self.pushes]

    def limit(self, name: str) -> int:
        """The value of a limit; KeyError if there is none of this name."""
        for limit in self.limits:
            if limit.name == name:
                return limit.value
        raise KeyError(name)

    def constant(self, name: str) -> int:
        """The value of a constant; KeyError if there is none of this name."""
        for constant in self.constants:
            if constant.name == name:
                return constant.value
        raise KeyError(name)

    def error(self, name: str) -> Error:
        """The error of this name; KeyError if there is none."""
        for error in self.errors:
            if error.name == name:
                return error
        raise KeyError(name)


# --------------------------------------------------------------------------------- the form of the tables


@dataclass(frozen=True)
class Key:
    """A key of a table: its Python type, and what it is if it is left out (REQUIRED: it must not be)."""

    type: type
    default: Any = None


REQUIRED = object()
TEXT, NUMBER = Key(str, REQUIRED), Key(int, REQUIRED)
SINCE = Key(int)

# since is wanted of all that is not reserved: see Reader.since.
FLAG_KEYS = {"mask": NUMBER, "value": NUMBER, "reserved": Key(bool, False), "since": SINCE}
FIELD_KEYS = {"type": TEXT, "when": Key(str), "check": Key(str), "max": Key(str), "since": SINCE}
TABLES: dict[str, dict[str, Key]] = {
    "type": {"bytes": Key(int), "signed": Key(bool, False), "rest": Key(bool, False)},
    "constant": {"value": NUMBER, "since": SINCE},
    "limit": {"value": NUMBER, "unit": TEXT, "since": SINCE},
    "range": {"first": NUMBER, "last": NUMBER},
    "feature": {"bit": NUMBER, "reserved": Key(bool, False), "since": SINCE},
    "extension": {"type": NUMBER, "reserved": Key(bool, False), "since": SINCE},
    "flag": FLAG_KEYS,
    "error_class": {"number": NUMBER},
    "error": {"code": NUMBER, "closes": Key(bool, False), "since": SINCE, "text": TEXT},
    "check": {"ranges": Key(list, REQUIRED), "error": TEXT},
    "request": {
        "op": NUMBER,
        "since": SINCE,
        "write": Key(bool, REQUIRED),
        "idempotent": Key(bool, REQUIRED),
        "idempotent_unless": Key(list, ()),
        "key": TEXT,
        "key_max": Key(str),
        "key_name": Key(str),
        "value": TEXT,
        "value_max": Key(str),
        "value_name": Key(str),
        "replies": Key(list, ()),
        "requires": Key(list, ()),
        "flag": Key(list, ()),
        "field": Key(list, ()),
    },
    "reserved_op": {"op": NUMBER},
    "reply": {"op": NUMBER, "since": SINCE, "single": Key(bool, False), "field": Key(list, ())},
    "push": {"op": NUMBER, "since": SINCE, "field": Key(list, ())},
}
PROTOCOL_KEYS = {"name": TEXT, "version": NUMBER, "byte_order": TEXT, "doc": TEXT}

UPPER_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
LOWER_NAME = re.compile(r"[a-z][a-z0-9_]*")
LOWER_KINDS = {"type", "range", "check", "field"}
KIND_NAMES = {"bool": "true or false", "int": "a number", "str": "a string", "list": "an array"}
HEAD_NAMES = {"request": ("op", "flags", "tag", "ext", "key", "value"), "reply": ("op", "tagged", "tag"), "push": ("op", "tagged", "tag")}


class Lines:
    """Where the tables stand in the file, for messages: tomllib does not tell."""

    HEADER = re.compile(r"\s*\[\[?\s*([a-z_]+)(?:\.([a-z_]+))?\s*\]\]?")

    def __init__(self, text: str) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        last: dict[str, int] = {}
        sub: dict[tuple[str, int, str], int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            match = self.HEADER.match(line)
            if not match:
                continue
            kind, inner = match.groups()
            if inner is None:
                last[kind] = last.get(kind, -1) + 1
                self.lines[kind, last[kind]] = number
            else:
                key = (kind, last.get(kind, 0), inner)
                sub[key] = sub.get(key, -1) + 1
                self.lines[(*key, sub[key])] = number

    def of(self, *where: str | int) -> int:
        """The line of the header of a table such as ("request", 1, "field", 0); 1 if it is written another way."""
        return self.lines.get(where, self.lines.get(where[:2], 1))


@dataclass
class Entry:
    """A table with what messages need to name it."""

    kind: str
    label: str
    line: int
    data: dict[str, Any]


class Reader:
    """Turns tables into objects and collects what is wrong with them."""

    def __init__(self, path: Path, text: str, data: dict[str, Any]) -> None:
        self.path, self.lines, self.data = path, Lines(text), data
        self.problems: list[tuple[int, str]] = []
        self.version = 1

    def bad(self, entry: Entry, text: str) -> None:
        """Note a problem with an entry."""
        self.problems.append((entry.line, f"{self.path}:{entry.line}: {entry.label}: {text}"))

    # ---- form: keys, their types, documentation

    def entries(self, kind: str) -> list[Entry]:
        """The tables of a kind, their form checked and left-out keys filled in."""
        tables = self.data.get(kind, [])
        if not isinstance(tables, list):
            line = self.lines.of(kind, 0)
            self.problems.append((line, f"{self.path}:{line}: {kind}: write [[{kind}]], one for each"))
            return []
        return [self.entry(kind, kind, TABLES[kind], table, kind, at) for at, table in enumerate(tables)]

    def parts(self, of: Entry, index: int, kind: str, keys: dict[str, Key]) -> list[Entry]:
        """The sub-tables of a message: its fields or its flags."""
        tables = of.data.get(kind) or []
        return [self.entry(kind, f"{of.label}, {kind}", keys, table, of.kind, index, kind, at) for at, table in enumerate(tables)]

    def entry(self, kind: str, label: str, keys: dict[str, Key], table: Any, *where: str | int) -> Entry:
        """One table, its form checked."""
        line = self.lines.of(*where)
        table = table if isinstance(table, dict) else {}
        name = table.get("name")
        number = next((w for w in reversed(where) if isinstance(w, int)), 0)
        entry = Entry(kind, f"{label} {name}" if isinstance(name, str) and name else f"{label} number {number + 1}", line, {})
        entry.data = self.form(entry, table, {"name": TEXT, "doc": TEXT, **keys})
        if isinstance(name, str):
            pattern = LOWER_NAME if kind in LOWER_KINDS else UPPER_NAME
            if not pattern.fullmatch(name):
                case = "lower" if kind in LOWER_KINDS else "upper"
                self.bad(entry, f"name {name!r} is not made of {case}-case letters, digits and '_'")
        return entry

    def form(self, entry: Entry, table: dict[str, Any], keys: dict[str, Key]) -> dict[str, Any]:
        """The values of a table's keys; unknown, missing, mistyped and empty ones are noted."""
        for key in table:
            if key not in keys:
                self.bad(entry, f"unknown key {key!r}; known are {', '.join(sorted(keys))}")
        out = {}
        for key, form in keys.items():
            if key not in table:
                if form.default is REQUIRED:
                    self.bad(entry, "documentation is missing: no doc" if key == "doc" else f"{key} is missing")
                    out[key] = {str: "", int: 0, bool: False, list: []}[form.type]
                else:
                    out[key] = form.default
                continue
            value = table[key]
            if type(value) is not form.type:
                self.bad(entry, f"{key} must be {KIND_NAMES[form.type.__name__]}, not {value!r}")
                value = form.type() if form.default is REQUIRED else form.default
            elif form.type is str and not value.strip():
                self.bad(entry, "documentation is missing: doc is empty" if key == "doc" else f"{key} is empty")
            out[key] = value
        return out

    def since(self, entry: Entry) -> int:
        """The version an entry is of; a reserved one has none."""
        value = entry.data.get("since")
        if entry.data.get("reserved"):
            if value is not None:
                self.bad(entry, "reserved entries have no since")
            return 0
        if value is None:
            self.bad(entry, "since is missing")
            return 1
        if not 1 <= value <= self.version:
            self.bad(entry, f"since {value} is not a version of the protocol, 1 to {self.version}")
        return int(value)

    # ---- rules

    def unique(self, entries: Iterable[Entry], key: str, show: str = "{}", what: str = "") -> None:
        """No two of the entries have the same value of a key."""
        seen: dict[Any, Entry] = {}
        for entry in entries:
            value = entry.data[key]
            if value in seen and value != "":
                self.bad(entry, f"{what or key} {show.format(value)} is that of {seen[value].label} (line {seen[value].line}) already")
            seen.setdefault(value, entry)

    def within(self, entry: Entry, key: str, low: int, high: int, show: str = "{}") -> bool:
        """A number is in a range."""
        value = entry.data[key]
        if low <= value <= high:
            return True
        self.bad(entry, f"{key} {show.format(value)} is not in {show.format(low)} to {show.format(high)}")
        return False

    def known(self, entry: Entry, what: str, name: Any, names: Iterable[str]) -> bool:
        """A name refers to something that exists."""
        names = list(names)
        if name in names:
            return True
        self.bad(entry, f"unknown {what} {name!r}; known are {', '.join(names) if names else 'none'}")
        return False

    def read(self) -> Spec:
        """Everything, in an order in which what is referred to comes first."""
        for kind in self.data:
            if kind != "protocol" and kind not in TABLES:
                line = self.lines.of(kind, 0)
                self.problems.append((line, f"{self.path}:{line}: unknown table {kind!r}; known are protocol, {', '.join(TABLES)}"))
        protocol = self.protocol()
        types = self.types()
        constants, limits = self.numbers()
        ranges = self.ranges()
        features, extensions = self.features(), self.extensions()
        classes, errors = self.errors()
        checks = self.checks({e.name for e in errors})
        flags, flag_entries = [], self.entries("flag")
        for entry in flag_entries:
            flags.append(self.flag(entry))
        self.flag_rules(flag_entries, [])
        reply_names = [e.get("name") for e in self.data.get("reply", []) if isinstance(e, dict)]
        scope = Scope(types, limits, errors, checks, flags, [n for n in reply_names if isinstance(n, str)])
        entries = {kind: self.entries(kind) for kind in ("request", "reply", "push", "reserved_op")}
        for kind in entries:
            self.unique(entries[kind], "name")
        self.ops(entries, ranges)
        messages = {
            kind: [self.message(entry, at, scope) for at, entry in enumerate(entries[kind])] for kind in ("request", "reply", "push")
        }
        reserved = [ReservedOp(e.data["name"], e.data["op"], e.data["doc"]) for e in entries["reserved_op"]]
        if self.problems:
            raise SpecError([text for _, text in sorted(self.problems, key=lambda p: p[0])])
        return Spec(
            self.path, protocol, types, constants, limits, ranges, features, extensions, flags, classes, errors,
            checks, messages["request"], messages["reply"], messages["push"], reserved,
        )

    def protocol(self) -> dict[str, Any]:
        table = self.data.get("protocol", {})
        entry = Entry("protocol", "protocol", self.lines.of("protocol", 0), {})
        entry.data = self.form(entry, table if isinstance(table, dict) else {}, PROTOCOL_KEYS)
        if not 1 <= entry.data["version"] <= 255:
            self.bad(entry, f"version {entry.data['version']} is not in 1 to 255")
        if entry.data["byte_order"] not in ("little", ""):
            self.bad(entry, f"byte_order {entry.data['byte_order']!r} is not 'little'")
        self.version = entry.data["version"]
        return entry.data

    def types(self) -> dict[str, Type]:
        entries = self.entries("type")
        self.unique(entries, "name")
        for entry in entries:
            if entry.data["rest"] == (entry.data["bytes"] is not None):
                self.bad(entry, "a type has either bytes or rest = true")
            elif not entry.data["rest"] and entry.data["bytes"] not in (1, 2, 4, 8):
                self.bad(entry, f"bytes {entry.data['bytes']} is not 1, 2, 4 or 8")
        return {d["name"]: Type(d["name"], d["bytes"], d["signed"], d["rest"], d["doc"]) for d in (e.data for e in entries)}

    def numbers(self) -> tuple[list[Constant], list[Limit]]:
        constants, limits = self.entries("constant"), self.entries("limit")
        self.unique(constants + limits, "name")
        for entry in constants:
            self.within(entry, "value", 0, 2**64 - 1)
        for entry in limits:
            self.within(entry, "value", 1, 2**64 - 1)
        return (
            [Constant(e.data["name"], e.data["value"], self.since(e), e.data["doc"]) for e in constants],
            [Limit(e.data["name"], e.data["value"], e.data["unit"], self.since(e), e.data["doc"]) for e in limits],
        )

    def ranges(self) -> list[Range]:
        entries = self.entries("range")
        seen: list[Entry] = []
        for entry in entries:
            self.known(entry, "kind of message", entry.data["name"], ("request", "reply", "push"))
            ends = [self.within(entry, key, 0, 255, "{:#04x}") for key in ("first", "last")]
            if all(ends) and entry.data["first"] > entry.data["last"]:
                self.bad(entry, "first is above last")
            for other in seen:
                if entry.data["first"] <= other.data["last"] and other.data["first"] <= entry.data["last"]:
                    self.bad(entry, f"overlaps {other.label} at line {other.line}")
            seen.append(entry)
        return [Range(d["name"], d["first"], d["last"], d["doc"]) for d in (e.data for e in entries)]

    def features(self) -> list[Feature]:
        entries = self.entries("feature")
        self.unique(entries, "name")
        self.unique(entries, "bit")
        for entry in entries:
            self.within(entry, "bit", 0, 31)
        return [Feature(e.data["name"], e.data["bit"], e.data["reserved"], self.since(e) or None, e.data["doc"]) for e in entries]

    def extensions(self) -> list[Extension]:
        entries = self.entries("extension")
        self.unique(entries, "name")
        self.unique(entries, "type", "{:#06x}")
        for entry in entries:
            self.within(entry, "type", 1, 0x7FFF, "{:#06x}")
            self.since(entry)
        return [Extension(d["name"], d["type"], d["reserved"], d["doc"]) for d in (e.data for e in entries)]

    def errors(self) -> tuple[list[ErrorClass], list[Error]]:
        classes, entries = self.entries("error_class"), self.entries("error")
        self.unique(classes, "name")
        self.unique(classes, "number")
        self.unique(entries, "name")
        self.unique(entries, "code", "{:#06x}")
        numbers = {e.data["number"] for e in classes}
        for entry in classes:
            self.within(entry, "number", 1, 255)
        for entry in entries:
            if self.within(entry, "code", 1, 0xFFFF, "{:#06x}") and entry.data["code"] >> 8 not in numbers:
                self.bad(entry, f"code {entry.data['code']:#06x}: there is no error_class of the number {entry.data['code'] >> 8}")
        return (
            [ErrorClass(d["name"], d["number"], d["doc"]) for d in (e.data for e in classes)],
            [Error(e.data["name"], e.data["code"], e.data["closes"], self.since(e), e.data["text"], e.data["doc"]) for e in entries],
        )

    def checks(self, errors: set[str]) -> dict[str, Check]:
        entries = self.entries("check")
        self.unique(entries, "name")
        out = {}
        for entry in entries:
            self.known(entry, "error", entry.data["error"], sorted(errors))
            ranges = []
            for pair in entry.data["ranges"]:
                if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair) and pair[0] <= pair[1]):
                    self.bad(entry, f"range {pair!r} is not [first, last]")
                else:
                    ranges.append((pair[0], pair[1]))
            if not entry.data["ranges"]:
                self.bad(entry, "ranges is empty")
            out[entry.data["name"]] = Check(entry.data["name"], tuple(ranges), entry.data["error"], entry.data["doc"])
        return out

    def flag(self, entry: Entry) -> Flag:
        d = entry.data
        if self.within(entry, "mask", 0, 0xFF, "{:#04x}") and d["mask"] == 0:
            self.bad(entry, "mask is 0")
        elif d["value"] & ~d["mask"] or d["value"] == 0:
            self.bad(entry, f"value {d['value']:#04x} is not within the mask {d['mask']:#04x}" if d["value"] else "value is 0")
        return Flag(d["name"], d["mask"], d["value"], d["reserved"], self.since(entry) or None, d["doc"])

    def flag_rules(self, entries: list[Entry], common: list[Flag]) -> None:
        """Flags have bits of their own, or share a mask and differ in its value."""
        self.unique(entries, "name")
        for entry in entries:
            for flag in common:
                if entry.data["mask"] & flag.mask:
                    self.bad(entry, f"mask {entry.data['mask']:#04x} overlaps the common flag {flag.name} {flag.mask:#04x}")
                if entry.data["name"] == flag.name:
                    self.bad(entry, f"name {flag.name} is that of a common flag")
        for at, entry in enumerate(entries):
            for other in entries[:at]:
                if entry.data["mask"] == other.data["mask"]:
                    if entry.data["value"] == other.data["value"]:
                        self.bad(entry, f"has the bits of {other.label} (line {other.line})")
                elif entry.data["mask"] & other.data["mask"]:
                    self.bad(entry, f"mask {entry.data['mask']:#04x} overlaps that of {other.label}, {other.data['mask']:#04x}")

    def ops(self, entries: dict[str, list[Entry]], ranges: list[Range]) -> None:
        """Every op byte has one meaning and is in a range of its kind."""
        self.unique([e for kind in ("reserved_op", "request", "reply", "push") for e in entries[kind]], "op", "{:#04x}")
        for kind in entries:
            allowed = [r for r in ranges if r.name == kind]
            for entry in entries[kind]:
                if not self.within(entry, "op", 0, 255, "{:#04x}") or kind == "reserved_op":
                    continue
                if not any(r.first <= entry.data["op"] <= r.last for r in allowed):
                    where = " or ".join(f"{r.first:#04x} to {r.last:#04x}" for r in allowed)
                    self.bad(entry, f"op {entry.data['op']:#04x} is out of the range of a {kind}: {where}")

    def message(self, entry: Entry, index: int, scope: Scope) -> Message:
        d = entry.data
        flag_entries = self.parts(entry, index, "flag", FLAG_KEYS) if entry.kind == "request" else []
        flags = [self.flag(e) for e in flag_entries]
        self.flag_rules(flag_entries, scope.flags)
        field_entries = self.parts(entry, index, "field", FIELD_KEYS)
        self.unique(field_entries, "name")
        usable = [f.name for f in flags if not f.reserved]
        fields = [
            self.field(e, entry.kind, usable, scope, e is field_entries[-1]) for e in field_entries
        ]
        since = self.since(entry)
        if entry.kind != "request":
            if d.get("single") and fields:
                self.bad(entry, "a single byte has no fields")
            return Message(entry.kind, d["name"], d["op"], since, d["doc"], fields, single=d.get("single", False))
        self.key_and_value(entry, scope)
        if not d["replies"]:
            self.bad(entry, "has no replies")
        for name in d["replies"]:
            if self.known(entry, "reply", name, scope.replies) and name in ("ERROR", "TAGGED"):
                self.bad(entry, f"reply {name} is understood; leave it out")
        self.no_repeats(entry, "replies", d["replies"])
        for name in d["idempotent_unless"]:
            self.known(entry, "flag", name, usable)
        self.no_repeats(entry, "idempotent_unless", d["idempotent_unless"])
        if d["idempotent_unless"] and not d["idempotent"]:
            self.bad(entry, "idempotent_unless without idempotent = true")
        return Message(
            "request", d["name"], d["op"], since, d["doc"], fields, flags, False, d["write"], d["idempotent"],
            list(d["idempotent_unless"]), d["key"], d["key_max"], d["key_name"], d["value"], d["value_max"],
            d["value_name"], list(d["replies"]), self.requires(entry, usable, scope),
        )

    def no_repeats(self, entry: Entry, key: str, names: list[str]) -> None:
        for name in sorted({str(n) for n in names if names.count(n) > 1}):
            self.bad(entry, f"{key} names {name} more than once")

    def requires(self, entry: Entry, flags: list[str], scope: Scope) -> list[Requires]:
        out = []
        for table in entry.data["requires"]:
            part = Entry("requires", f"{entry.label}, requires", entry.line, {})
            if not isinstance(table, dict):
                self.bad(part, f"{table!r} is not a table of flag, needs and error")
                continue
            part.data = self.form(part, table, {"flag": TEXT, "needs": TEXT, "error": TEXT})
            for key in ("flag", "needs"):
                self.known(part, "flag", part.data[key], flags)
            self.known(part, "error", part.data["error"], [e.name for e in scope.errors])
            out.append(Requires(part.data["flag"], part.data["needs"], part.data["error"]))
        return out

    def key_and_value(self, entry: Entry, scope: Scope) -> None:
        """The rules of key, key_max, value and value_max of a request."""
        d = entry.data
        limits = [x.name for x in scope.limits if x.unit == "bytes"]
        for part, allowed in (("key", ("required", "optional", "none")), ("value", ("optional", "none"))):
            if d[part] not in allowed:
                self.bad(entry, f"{part} {d[part]!r} is not {', '.join(allowed[:-1])} or {allowed[-1]}")
                continue
            most = d[f"{part}_max"]
            if d[part] == "none":
                for key in (f"{part}_max", f"{part}_name"):
                    if d[key] is not None:
                        self.bad(entry, f"{key} without a {part}")
            elif most is None:
                self.bad(entry, f"{part}_max is missing")
            elif part == "key" or most != "server":
                if self.known(entry, "limit", most, limits) and part == "key":
                    value = next(x.value for x in scope.limits if x.name == most)
                    if value > 0xFFFF:
                        self.bad(entry, f"key_max {most} is {value}: klen has 16 bits")
            name = d[f"{part}_name"]
            if name is not None and not LOWER_NAME.fullmatch(name):
                self.bad(entry, f"{part}_name {name!r} is not made of lower-case letters, digits and '_'")

    def field(self, entry: Entry, kind: str, flags: list[str], scope: Scope, last: bool) -> Field:
        d = entry.data
        self.known(entry, "type", d["type"], scope.types)
        of = scope.types.get(d["type"], Type(d["type"], 1, False, False, ""))
        if d["name"] in HEAD_NAMES[kind] and entry.label != "reply TAGGED, field tag":  # that one is the head's tag
            self.bad(entry, f"name {d['name']!r} is that of a part every {kind} has")
        if of.rest and (kind == "request" or not last):
            why = "key and value follow the fields of a request" if kind == "request" else "it is not the last field"
            self.bad(entry, f"type {of.name} takes the rest of the message, but {why}")
        if of.rest and d["check"]:
            self.bad(entry, f"type {of.name} has no check")
        if d["when"] is not None:
            if kind == "request":
                self.known(entry, "flag", d["when"], flags)
            else:
                self.bad(entry, f"a {kind} has no flags, so no when")
        if d["max"] is not None:
            if not of.rest:
                self.bad(entry, f"type {of.name} has no max")
            self.known(entry, "limit", d["max"], [x.name for x in scope.limits if x.unit == "bytes"])
        if d["check"] is not None and self.known(entry, "check", d["check"], scope.checks) and not of.rest:
            for low, high in scope.checks[d["check"]].ranges:
                if low < of.lowest or high > of.highest:
                    self.bad(entry, f"check {d['check']}: the range {low} to {high} is outside the type {of.name}")
        return Field(d["name"], of, d["when"], d["check"], d["max"], self.since(entry), d["doc"])


@dataclass(frozen=True)
class Scope:
    """What messages refer to."""

    types: dict[str, Type]
    limits: list[Limit]
    errors: list[Error]
    checks: dict[str, Check]
    flags: list[Flag]
    replies: list[str]


def load(path: Path | str) -> Spec:
    """Read a specification and check it; SpecError names all that is wrong."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([f"{path}: cannot be read: {error}"]) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = match.group(1) if match else str(text.count("\n") + 1)
        reason = re.sub(r" \(at (line \d+, column \d+|end of document)\)", "", str(error))
        raise SpecError([f"{path}:{line}: not TOML: {reason}"]) from error
    return Reader(path, text, data).read()
