# SPDX-License-Identifier: MIT
"""The lock: digests of the released entries of the specification, so that none of them ever changes.

An entry's digest covers everything that peers can see of it: names, numbers, layouts, rules; documentation and
other wording is free. What stays the same while the protocol grows is an entry of its own: a message's flags,
fields and replies can be added to, one by one, but not altered. A reserved number locks only its name, so that it
can become the real thing of this name and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .model import Message, Spec, SpecError

NAME = "crabcache.lock"
HEADER = """\
# SPDX-License-Identifier: MIT
# Written by spec/generate.py --lock; do not edit.
# The digest of each released entry of spec/crabcache.toml. These entries never change; new ones are added.
"""


def entries(spec: Spec) -> dict[str, Any]:
    """What is locked of each entry, by the entry's name."""
    out: dict[str, Any] = {"protocol": [spec.protocol["name"], spec.protocol["byte_order"]]}
    for type_ in spec.types.values():
        out[f"type {type_.name}"] = [type_.bytes, type_.signed, type_.rest]
    for constant in spec.constants:
        out[f"constant {constant.name}"] = [constant.value, constant.since]
    for limit in spec.limits:
        out[f"limit {limit.name}"] = [limit.value, limit.unit, limit.since]
    for range_ in spec.ranges:
        out[f"range {range_.first:#04x} to {range_.last:#04x}"] = [range_.name]
    for feature in spec.features:
        out[f"feature bit {feature.bit}"] = [feature.name]
        if not feature.reserved:
            out[f"feature {feature.name}"] = [feature.bit, feature.since]
    for extension in spec.extensions:
        out[f"extension type {extension.type:#06x}"] = [extension.name]
        if not extension.reserved:
            out[f"extension {extension.name}"] = [extension.type]
    for flag in spec.flags:
        out[f"flag {flag.name}"] = [flag.mask, flag.value, flag.since]
    for class_ in spec.error_classes:
        out[f"error class {class_.name}"] = [class_.number]
    for error in spec.errors:
        out[f"error {error.name}"] = [error.code, error.closes, error.since]
    for check in spec.checks.values():
        out[f"check {check.name}"] = [check.ranges, check.error]
    for op in spec.reserved_ops:
        out[f"op {op.op:#04x}"] = [op.name]
    for message in spec.messages:
        out |= message_entries(message)
    return out


def message_entries(message: Message) -> dict[str, Any]:
    """What is locked of a message: itself, with the fields that it always has, and its parts."""
    label = f"{message.kind} {message.name}"
    out: dict[str, Any] = {
        f"op {message.op:#04x}": [message.name],
        label: [
            message.op, message.since, message.single, message.write, message.idempotent, message.key,
            message.key_max, message.value, message.value_max, [f.name for f in message.fields if not f.when],
        ],
    }
    for flag in message.flags:
        out[f"{label}, flag {flag.mask:#04x}/{flag.value:#04x}"] = [flag.name]
        if not flag.reserved:
            out[f"{label}, flag {flag.name}"] = [flag.mask, flag.value, flag.since]
    before: list[str] = []
    for field in message.fields:
        # The order of the released fields: new ones come after them.
        out[f"{label}, field {field.name}"] = [field.type.name, field.when, field.check, field.max, field.since]
        if before:
            out[f"{label}, {before[-1]} before {field.name}"] = []
        before.append(field.name)
    for reply in message.replies:
        out[f"{label}, reply {reply}"] = []
    for flag_name in message.idempotent_unless:
        out[f"{label}, not idempotent with {flag_name}"] = []
    for need in message.requires:
        out[f"{label}, {need.flag} requires {need.needs}"] = [need.error]
    return out


def digests(spec: Spec) -> dict[str, str]:
    """The digest of each entry, by the entry's name."""
    return {
        name: hashlib.sha256(json.dumps([name, content]).encode()).hexdigest()[:16]
        for name, content in entries(spec).items()
    }


def read(path: Path) -> dict[str, str]:
    """The digests of a lock file; none if there is no file."""
    out: dict[str, str] = {}
    if not path.exists():
        return out
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        digest, _, name = line.partition("  ")
        if len(digest) != 16 or not name:
            raise SpecError([f"{path}:{number}: not 'digest  entry': {line!r}"])
        out[name] = digest
    return out


def verify(spec: Spec, path: Path) -> list[str]:
    """Hold the specification against its lock; SpecError if a released entry changed. Gives the entries not locked yet."""
    now, locked = digests(spec), read(path)
    problems = []
    for name, digest in locked.items():
        if name not in now:
            problems.append(f"{spec.path}: {name}: released entries never go, but this one is not there ({path.name})")
        elif now[name] != digest:
            problems.append(f"{spec.path}: {name}: released entries never change, but this one did ({path.name})")
    if problems:
        raise SpecError(problems)
    return [name for name in now if name not in locked]


def text(spec: Spec) -> str:
    """The lock file for a specification."""
    return HEADER + "".join(f"{digest}  {name}\n" for name, digest in digests(spec).items())
