# SPDX-License-Identifier: MIT
"""The Python codec: python/crabcache/wire.py from the specification.

How frames are read and written is the template wire.py.in beside this file; what the messages are made of comes
from the specification, as one dataclass for each.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

from .model import Field, Flag, Message, Spec

TEMPLATE = Path(__file__).with_name("wire.py.in")
OUTPUT = "python/crabcache/wire.py"
WIDTH = 118

STRUCT_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q",
                (1, True): "b", (2, True): "h", (4, True): "i", (8, True): "q"}


def emit(spec: Spec) -> dict[str, str]:
    """The codec's text, by its path."""
    blocks = {
        "constants": constants(spec),
        "enums": enums(spec),
        "tables": tables(spec),
        "requests": "\n".join(request(spec, m) for m in spec.requests),
        "replies": "\n".join(reply(spec, m) for m in [*spec.replies, *spec.pushes] if m.name != "TAGGED"),
    }
    return {OUTPUT: fill(TEMPLATE, blocks)}


def fill(template: Path, blocks: dict[str, str]) -> str:
    """A template with each line @name@ replaced by its block."""
    text = template.read_text(encoding="utf-8")
    for name, block in blocks.items():
        marker = f"\n@{name}@\n"
        if text.count(marker) != 1:
            raise ValueError(f"{template.name}: marker @{name}@ must stand exactly once")
        text = text.replace(marker, "\n" + block.strip("\n") + "\n")
    return text


def comment(text: str, indent: str = "") -> str:
    """A comment of one or more lines."""
    return "".join(f"{indent}# {line}\n" for line in wrap(text, WIDTH - len(indent) - 2))


def docstring(text: str, indent: str = "    ") -> str:
    """A docstring of one or more lines."""
    if len(indent) + len(text) + 6 <= WIDTH:
        return f'{indent}"""{text}"""\n'
    first, *others = wrap(text, WIDTH - len(indent) - 3)
    return f'{indent}"""{first}\n' + "".join(f"{indent}{line}\n" for line in others) + f'{indent}"""\n'


def camel(name: str) -> str:
    """LATE_ERROR -> LateError."""
    return "".join(part.capitalize() for part in name.split("_"))


def number(value: int) -> str:
    """A number as people read it."""
    return f"{value:#x}" if value > 0xFFFFFFFF else f"{value:_}" if value >= 10_000 else str(value)


def named(spec: Spec, value: int) -> str:
    """A number by the name of a constant or limit, if it is a large one that has a name."""
    names = [x.name for x in [*spec.constants, *spec.limits] if x.value == value]
    return names[0] if value > 0xFFFFFFFF and names else number(value)


def constants(spec: Spec) -> str:
    out = [f"# The version of the protocol.\nPROTOCOL_VERSION = {spec.protocol['version']}\n"]
    out += [f"{comment(c.doc)}{c.name} = {number(c.value)}\n" for c in spec.constants]
    out += [f"{comment(f'{x.doc} In {x.unit}.')}{x.name} = {number(x.value)}\n" for x in spec.limits]
    return "\n".join(out)


def enum(name: str, base: str, doc: str, rows: list[tuple[str, str, str]]) -> str:
    """An enumeration: (name, value, doc) of each member."""
    body = "".join(f"{comment(text, '    ')}    {member} = {value}\n" for member, value, text in rows)
    return f"\nclass {name}({base}):\n{docstring(doc)}\n{body}"


def enums(spec: Spec) -> str:
    def ops(messages: list[Message]) -> list[tuple[str, str, str]]:
        return [(m.name, f"{m.op:#04x}", m.doc) for m in messages]

    features = [(f.name, f"1 << {f.bit}", f.doc) for f in spec.features]
    return "\n".join([
        enum("Op", "IntEnum", "The ops of requests.", ops(spec.requests)),
        enum("ReplyOp", "IntEnum", "The ops of replies.", ops(spec.replies)),
        enum("PushOp", "IntEnum", "The ops of pushes.", ops(spec.pushes)),
        enum("Flag", "IntFlag", "The flags that all requests share.", [(f.name, f"{f.value:#04x}", f.doc) for f in spec.flags]),
        enum("Feature", "IntFlag", "The features that HELLO and WELCOME agree on.", features),
        enum("ErrorClass", "IntEnum", "What a caller can do about an error: the high byte of its code.",
             [(c.name, str(c.number), c.doc) for c in spec.error_classes]),
        enum("ErrorCode", "IntEnum", "The errors.", [(e.name, f"{e.code:#06x}", e.doc) for e in spec.errors]),
    ])


def tables(spec: Spec) -> str:
    def spans(kind: str) -> str:
        return "(" + ", ".join(f"({r.first:#04x}, {r.last:#04x})" for r in spec.ranges if r.name == kind) + ",)"

    closing = "".join(f"    ErrorCode.{e.name},\n" for e in spec.errors if e.closes)
    texts = "".join(f'    ErrorCode.{e.name}: "{e.text}",\n' for e in spec.errors)
    singles = ", ".join(f"ReplyOp.{m.name}" for m in spec.replies if m.single)
    wrapper = next(m for m in spec.replies if m.name == "TAGGED")
    least = sum(f.type.bytes or 0 for f in wrapper.fields) + 1
    return (
        "\n# The op bytes of each kind of message, as (first, last).\n"
        f"REQUEST_OPS = {spans('request')}\nREPLY_OPS = {spans('reply')}\nPUSH_OPS = {spans('push')}\n\n"
        "# Replies of one byte; all others have a header of REPLY_HEADER bytes.\n"
        f"SINGLE_BYTE_REPLIES = frozenset({{{singles}}})\n\n"
        "# The least that TAGGED holds: its fixed fields and a reply of one byte.\n"
        f"TAGGED_LEAST = {least}\n\n"
        f"# The server closes the connection after these.\nCLOSING_ERRORS = frozenset({{\n{closing}}})\n\n"
        f"# What errors say to people, unless the server says more.\nERROR_TEXTS: dict[int, str] = {{\n{texts}}}\n\n\n"
        "def in_ranges(op: int, ranges: tuple[tuple[int, int], ...]) -> bool:\n"
        '    """Whether an op byte is in one of the ranges."""\n'
        "    return any(first <= op <= last for first, last in ranges)\n"
    )


def bits(flag: Flag) -> str:
    return f"({flag.mask:#04x}, {flag.value:#04x})"


def layout(spec: Spec, message: Message, field: Field) -> str:
    """The FieldLayout of a fixed field."""
    arguments = [f'"{field.name}"', f'"{STRUCT_CODES[field.type.bytes or 0, field.type.signed]}"']
    if field.when:
        arguments.append(f"when={bits(message.flag(field.when))}")
    if field.check:
        check = spec.checks[field.check]
        arguments += [f"ranges={ranges(spec, check.ranges)}", f"error=ErrorCode.{check.error}"]
    line = f"        FieldLayout({', '.join(arguments)}),\n"
    if len(line) <= WIDTH:
        return line
    return "        FieldLayout(\n" + "".join(f"            {a},\n" for a in arguments) + "        ),\n"


def ranges(spec: Spec, pairs: tuple[tuple[int, int], ...]) -> str:
    """The ranges of a check as a tuple."""
    spans = [f"({named(spec, low)}, {named(spec, high)})" for low, high in pairs]
    return f"({spans[0]},)" if len(spans) == 1 else f"({', '.join(spans)})"


def layouts(spec: Spec, message: Message) -> str:
    rows = "".join(layout(spec, message, f) for f in message.fields if not f.type.rest)
    return f"    LAYOUT: ClassVar = (\n{rows}    )\n" if rows else ""


def request(spec: Spec, message: Message) -> str:
    out = [f"\n@dataclass(kw_only=True)\nclass {camel(message.name)}Request(Request):\n{docstring(message.doc)}\n"]
    for field in message.fields:
        when = f" With {field.when}, else 0." if field.when else ""
        first = spec.checks[field.check].ranges[0][0] if field.check and not field.when else 0
        out.append(f"{comment(field.doc + when, '    ')}    {field.name}: int = {first}\n")
    out.append("\n" if message.fields else "")
    own = 0
    for flag in message.flags:
        if not flag.reserved:
            own |= flag.mask
            out.append(f"{comment(flag.doc, '    ')}    {flag.name}: ClassVar = {flag.value:#04x}\n")
    out.append("\n" if own else "")
    out.append(f"    OP: ClassVar = Op.{message.name}\n{layouts(spec, message)}")
    if own:
        out.append(f"    OWN_FLAGS: ClassVar = {own:#04x}\n")
    if message.write:
        out.append("    IS_WRITE: ClassVar = True\n")
    if message.key != "none":
        low = 1 if message.key == "required" else 0
        out.append(f"    KEY_LENGTHS: ClassVar = ({low}, {message.key_max})\n")
    if message.value != "none":
        out.append("    HAS_VALUE: ClassVar = True\n")
        if message.value_max != "server":
            out.append(f"    VALUE_MAX: ClassVar = {message.value_max}\n")
    if message.requires:
        rows = "".join(
            f"        Requirement({bits(message.flag(r.flag))}, {bits(message.flag(r.needs))}, ErrorCode.{r.error}),\n"
            for r in message.requires
        )
        out.append(f"    REQUIREMENTS: ClassVar = (\n{rows}    )\n")
    return "".join(out)


def reply(spec: Spec, message: Message) -> str:
    suffix = "Push" if message.kind == "push" else "Reply"
    out = [f"\n@dataclass(kw_only=True)\nclass {camel(message.name)}{suffix}(Reply):\n{docstring(message.doc)}\n"]
    tail = None
    for field in message.fields:
        if field.type.rest:
            tail = field
        form = 'bytes = b""' if field.type.rest else "int = 0"
        out.append(f"{comment(field.doc, '    ')}    {field.name}: {form}\n")
    out.append("\n" if message.fields else "")
    out.append(f"    OP: ClassVar = {'PushOp' if message.kind == 'push' else 'ReplyOp'}.{message.name}\n{layouts(spec, message)}")
    if tail:
        out.append(f'    TAIL: ClassVar = "{tail.name}"\n')
        if tail.max:
            out.append(f"    TAIL_MAX: ClassVar = {tail.max}\n")
    return "".join(out)
