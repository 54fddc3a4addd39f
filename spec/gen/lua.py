# SPDX-License-Identifier: MIT
"""The Wireshark dissector: spec/crabcache.lua, its tables put into the template crabcache.lua.in."""

from __future__ import annotations

from pathlib import Path

from .model import Field, Flag, Message, Spec

TEMPLATE = Path(__file__).with_name("crabcache.lua.in")
OUTPUT = "spec/crabcache.lua"


def emit(spec: Spec) -> dict[str, str]:
    """The dissector's text, by its path."""
    flags = {f.name: f.value for f in spec.flags}
    tagged = next(m for m in spec.replies if m.name == "TAGGED")
    fixed = sum(f.type.bytes or 0 for f in tagged.fields)
    inner = spec.constant("REPLY_HEADER") + fixed
    blocks = {
        "port": str(spec.constant("DEFAULT_PORT")),
        "errors": "\n".join(f'    [{e.code:#06x}] = "{e.name}",' for e in spec.errors),
        "texts": "\n".join(f"    {e.name} = {quote(e.text)}," for e in spec.errors),
        "closes": "\n".join(f"    {e.name} = true," for e in spec.errors if e.closes),
        "checks": "\n".join(
            f'    {c.name} = {{ error = "{c.error}", ranges = {{ '
            + ", ".join(f"{{ {u64(low)}, {u64(high)} }}" for low, high in c.ranges) + " } },"
            for c in spec.checks.values()
        ),
        "common": ", ".join(f"{flags[name]:#04x}" for name in ("QUIET", "TAG", "EXT")),
        "ext": f"{spec.constant('EXT_HEADER')}, {spec.constant('EXT_CRITICAL'):#x}",
        "headers": f"{spec.constant('REQUEST_HEADER')}, {spec.constant('REPLY_HEADER')}",
        "requests": "\n".join(request(spec, m) for m in spec.requests),
        "replies": "\n".join(reply(m) for m in [*spec.replies, *spec.pushes]),
        "tagged": f"{{ op = {tagged.op:#04x}, least = {fixed + 1}, inner = {inner} }}",
    }
    for kind in ("request", "reply", "push"):
        pairs = ", ".join(f"{{ {r.first:#04x}, {r.last:#04x} }}" for r in spec.ranges if r.name == kind)
        blocks[f"{kind}_ops"] = f"{{ {pairs} }}"
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, block in blocks.items():
        if text.count(f"@{name}@") != 1:
            raise ValueError(f"{TEMPLATE.name}: marker @{name}@ must stand exactly once")
        text = text.replace(f"@{name}@", block)
    return {OUTPUT: text}


def quote(text: str) -> str:
    """A Lua string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def u64(value: int) -> str:
    return f"u64({value >> 32:#x}, {value & 0xFFFFFFFF:#x})"


def field(message: Message, part: Field) -> str:
    when = message.flag(part.when) if part.when else None
    parts = [f'name = "{part.name}"', f'type = "{part.type.name}"']
    if message.kind == "request":
        parts.append(f"mask = {when.mask if when else 0:#04x}, value = {when.value if when else 0:#04x}")
    if part.check:
        parts.append(f'check = "{part.check}"')
    parts.append(f"doc = {quote(part.doc)}")
    return f"            {{ {', '.join(parts)} }},\n"


def flag(item: Flag) -> str:
    return f'            {{ name = "{item.name}", mask = {item.mask:#04x}, value = {item.value:#04x}, doc = {quote(item.doc)} }},\n'


def listing(name: str, rows: list[str]) -> str:
    return f"        {name} = {{\n{''.join(rows)}        }},\n" if rows else f"        {name} = {{}},\n"


def request(spec: Spec, message: Message) -> str:
    """A request's table."""
    key_max = spec.limit(message.key_max) if message.key_max else 0
    value_max = spec.limit(message.value_max) if message.value_max not in (None, "server") else 0
    rules = []
    for rule in message.requires:
        one, other = message.flag(rule.flag), message.flag(rule.needs)
        rules.append(f'            {{ {one.mask:#04x}, {one.value:#04x}, {other.mask:#04x}, {other.value:#04x}, "{rule.error}" }},\n')
    return (
        f"    [{message.op:#04x}] = {{\n"
        f'        name = "{message.name}", prefix = "{message.name.lower()}", write = {str(message.write).lower()},\n'
        f"        key_min = {1 if message.key == 'required' else 0}, key_max = {key_max},\n"
        f"        has_value = {str(message.value != 'none').lower()}, value_max = {value_max or 0},\n"
        f"{listing('flags', [flag(f) for f in message.flags])}"
        f"{listing('fields', [field(message, f) for f in message.fields])}"
        f"{listing('rules', rules)}"
        "    },"
    )


def reply(message: Message) -> str:
    """A reply's or push's table. TAGGED has none of its fields: the dissector takes it apart itself."""
    fields = [] if message.name == "TAGGED" else message.fields
    least = sum(f.type.bytes or 0 for f in message.fields)
    return (
        f"    [{message.op:#04x}] = {{\n"
        f'        name = "{message.name}", prefix = "{message.kind}.{message.name.lower()}",\n'
        f"        single = {str(message.single).lower()}, least = {least},\n"
        f"{listing('fields', [field(message, f) for f in fields])}"
        "    },"
    )
