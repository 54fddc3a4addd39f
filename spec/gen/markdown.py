# SPDX-License-Identifier: MIT
"""The tables and byte diagrams inside spec/PROTOCOL.md.

The document is written by hand but for what stands between `<!-- generated: NAME -->` and `<!-- end -->`. Every
block that this module makes must be in the document once, and no other.
"""

from __future__ import annotations

import re
from pathlib import Path

from .model import Field, Flag, Message, Spec, SpecError

DOCUMENT = Path(__file__).resolve().parents[1] / "PROTOCOL.md"
OUTPUT = "spec/PROTOCOL.md"
WIDTH = 100

BEGIN = re.compile(r"<!-- generated: (\S+) -->")
END = "<!-- end -->"


def emit(spec: Spec) -> dict[str, str]:
    """The document with its blocks filled, by its path."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return {OUTPUT: fill(text, blocks(spec), str(DOCUMENT.name))}


def fill(text: str, wanted: dict[str, str], name: str) -> str:
    """A document with its blocks filled; SpecError if one is unknown, missing, there twice or without its end."""
    out: list[str] = []
    problems: list[str] = []
    seen: set[str] = set()
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        begin = BEGIN.fullmatch(line.strip())
        where = f"{name}:{number}: "
        if begin:
            if inside:
                problems.append(f"{where}block {inside} has no '{END}' before this line")
            inside = begin.group(1)
            if inside not in wanted:
                problems.append(f"{where}unknown block {inside}")
            if inside in seen:
                problems.append(f"{where}block {inside} is there twice")
            seen.add(inside)
            out += [line, "", wanted.get(inside, "").strip("\n"), ""]
        elif line.strip() == END:
            if not inside:
                problems.append(f"{where}'{END}' without a block")
            inside = ""
            out.append(line)
        elif not inside:
            out.append(line)
    if inside:
        problems.append(f"{name}: block {inside} has no '{END}'")
    problems += [f"{name}: block {block} is missing" for block in wanted if block not in seen]
    if problems:
        raise SpecError(problems)
    return "\n".join(out) + "\n"


def blocks(spec: Spec) -> dict[str, str]:
    """Every block, by its name."""
    out = {
        "types": table(("type", "bytes", "what it is"), [
            (code(t.name), str(t.bytes) if t.bytes else "the rest", t.doc) for t in spec.types.values()
        ]),
        "constants": table(("constant", "value", "meaning"), [(code(c.name), big(c.value), c.doc) for c in spec.constants]),
        "limits": table(("limit", "value", "unit", "meaning"), [(code(x.name), f"{x.value:,}", x.unit, x.doc) for x in spec.limits]),
        "ranges": table(("first", "last", "kind", "meaning"), [(h8(r.first), h8(r.last), r.name, r.doc) for r in spec.ranges]),
        "features": table(("bit", "value", "feature", "meaning"), [
            (str(f.bit), f"0x{1 << f.bit:08X}", f.name, f.doc) for f in spec.features
        ]),
        "extensions": table(("type", "extension", "meaning"), [(h16(e.type), e.name, e.doc) for e in spec.extensions]),
        "common-flags": flag_table(spec.flags),
        "error-classes": table(("class", "name", "what a client can do"), [
            (f"0x{c.number:02X}", c.name, c.doc) for c in spec.error_classes
        ]),
        "errors": table(("code", "name", "class", "fatal", "when", "default text"), [
            (h16(e.code), e.name, class_name(spec, e.code), "yes" if e.closes else "", e.doc, e.text) for e in spec.errors
        ]),
        "checks": table(("check", "allowed values", "otherwise", "meaning"), [
            (code(c.name), spans(spec, c.ranges), c.error, c.doc) for c in spec.checks.values()
        ]),
        "request-ops": table(("op", "request", "key", "value", "write", "repeatable", "replies, besides ERROR"), [
            (h8(m.op), m.name, key_text(spec, m), value_text(spec, m), "yes" if m.write else "", repeatable(m), ", ".join(m.replies))
            for m in spec.requests
        ]),
        "reply-ops": table(("op", "reply", "size", "meaning"), [(h8(m.op), m.name, size_text(spec, m), m.doc) for m in spec.replies]),
        "push-ops": table(("op", "push", "size", "meaning"), [(h8(m.op), m.name, size_text(spec, m), m.doc) for m in spec.pushes]),
        "reserved": reserved(spec),
    }
    for message in spec.requests:
        out[f"request-{message.name}"] = request(spec, message)
    for message in [*spec.replies, *spec.pushes]:
        out[f"{message.kind}-{message.name}"] = reply(spec, message)
    return out


# --------------------------------------------------------------------------------------- cells and tables


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`"


def h8(value: int) -> str:
    return f"0x{value:02X}"


def h16(value: int) -> str:
    return f"0x{value:04X}"


def big(value: int) -> str:
    """A number as people write it: a large one in hex."""
    return f"{value:,}" if value < 2**53 else f"0x{value:X}"


def spans(spec: Spec, ranges: tuple[tuple[int, int], ...]) -> str:
    """The ranges of a check."""
    names = {c.value: c.name for c in spec.constants if c.value > 0xFFFFFFFF} | {x.value: x.name for x in spec.limits if x.value > 0xFFFFFFFF}

    def end(value: int) -> str:
        return f"{big(value)} ({names[value]})" if value in names else big(value)

    return " or ".join(end(low) if low == high else f"{big(low)} to {end(high) if high != 2**64 - 1 else '2^64 - 1'}" for low, high in ranges)


def class_name(spec: Spec, error: int) -> str:
    return next(c.name for c in spec.error_classes if c.number == error >> 8)


def key_text(spec: Spec, message: Message) -> str:
    if message.key == "none":
        return "none"
    return f"{1 if message.key == 'required' else 0} to {spec.limit(message.key_max or ''):,} bytes"


def value_text(spec: Spec, message: Message) -> str:
    if message.value == "none":
        return "none"
    if message.value_max == "server":
        return "0 to `max_value` bytes"
    return f"0 to {spec.limit(message.value_max or ''):,} bytes"


def repeatable(message: Message) -> str:
    """Whether a request whose outcome is unknown may simply be sent again."""
    if not message.idempotent:
        return "no"
    return f"unless {', '.join(message.idempotent_unless)}" if message.idempotent_unless else "yes"


def fixed_size(message: Message) -> int:
    return sum(f.type.bytes or 0 for f in message.fields)


def size_text(spec: Spec, message: Message) -> str:
    """The size of a reply or push, header included."""
    if message.single:
        return "1"
    base = spec.constant("REPLY_HEADER") + fixed_size(message)
    tail = next((f for f in message.fields if f.type.rest), None)
    return f"{base} + {tail.name}" if tail else f"{base}"


def flag_table(flags: list[Flag]) -> str:
    """Flags with their bits; one that shares its mask with others says so."""
    return table(("bits", "mask", "flag", "meaning"), [(h8(f.value), h8(f.mask), f.name, f.doc) for f in flags])


# ----------------------------------------------------------------------------------------------- diagrams


def diagram(cells: list[tuple[str, str]]) -> str:
    """Boxes in rows, each with its offset above its left border, as an indented block."""
    rows: list[list[tuple[str, str]]] = [[]]
    width = 5
    for offset, text in cells:
        size = max(len(text), len(offset)) + 3
        if width + size > WIDTH:
            rows.append([])
            width = 5
        rows[-1].append((offset, text))
        width += size
    out = []
    for row in rows:
        sizes = [max(len(text), len(offset)) + 2 for offset, text in row]
        border = "    +" + "+".join("-" * size for size in sizes) + "+"
        offsets = "    " + "".join(offset.ljust(size + 1) for (offset, _), size in zip(row, sizes))
        body = "    |" + "|".join(" " + text.ljust(size - 1) for (_, text), size in zip(row, sizes)) + "|"
        out += [offsets.rstrip(), border, body, border]
    return "\n".join(out)


def offset_text(base: int, optional: list[str]) -> str:
    """8 +TAG +TTL: eight, and the parts in front that flags announce."""
    return " ".join([str(base), *(f"+{name}" for name in optional)])


def field_range(spec: Spec, field: Field) -> str:
    if field.check:
        return spans(spec, spec.checks[field.check].ranges)
    if field.max:
        return f"at most {spec.limit(field.max):,} bytes"
    return "any"


def request(spec: Spec, message: Message) -> str:
    """A request: what it is, its diagram, fields, flags, rules and replies."""
    header = spec.constant("REQUEST_HEADER")
    key_name, value_name = message.key_name or "key", message.value_name or "value"
    cells = [("0", f"op {h8(message.op)}"), ("1", "flags"), ("2", "klen u16" if message.key != "none" else "klen u16 = 0"), ("4", "blen u32")]
    rows = [
        ("0", "`op`", "`u8`", "always", h8(message.op), "The op."),
        ("1", "`flags`", "`u8`", "always", "any", "The flags."),
        ("2", "`klen`", "`u16`", "always", klen_text(spec, message), f"Bytes of the {key_name.replace('_', ' ')}."),
        ("4", "`blen`", "`u32`", "always", "what follows", "Bytes of the body: all that follows the header."),
        (str(header), "`tag`", "`u32`", "TAG", "any", "Comes back with the reply."),
    ]
    cells.append((str(header), "tag u32?"))
    base, optional = header, ["TAG"]
    for field in message.fields:
        cells.append(("", f"{field.name} {field.type.name}{'?' if field.when else ''}"))
        rows.append((offset_text(base, optional), code(field.name), code(field.type.name), field.when or "always", field_range(spec, field), field.doc))
        if field.when:
            optional.append(field.when)
        else:
            base += field.type.bytes or 0
    cells += [("", "ext_len u16?"), ("", "ext[ext_len]?")]
    rows.append((offset_text(base, optional), "`ext_len`", "`u16`", "EXT", "0 to 65,535", "Bytes of the extensions."))
    rows.append(("behind it", "`ext`", "`bytes`", "EXT", "section 4.4", "The extensions."))
    if message.key != "none":
        cells.append(("", f"{key_name}[klen]"))
        rows.append(("behind it", code(key_name), "`bytes`", "always" if message.key == "required" else "`klen` > 0",
                     key_text(spec, message), f"The {key_name.replace('_', ' ')}."))
    if message.value != "none":
        cells.append(("", f"{value_name}[rest]"))
        rows.append(("behind it", code(value_name), "`bytes`", "always", value_text(spec, message), f"The {value_name.replace('_', ' ')}: the rest of the body."))
    sizes = [f"+{f.when} {f.type.bytes}" for f in message.fields if f.when]
    note = f"Parts with `?` are there only if their flag is set; in offsets, such a part counts with its size: +TAG 4{''.join(', ' + s for s in sizes)} bytes."
    parts = [f"**{message.name}**, op {h8(message.op)}, since version {message.since}. {message.doc}", diagram(cells), note,
             table(("offset", "part", "type", "there if", "allowed", "meaning"), rows)]
    own = [f for f in message.flags]
    parts.append(flag_table(own) if own else "Flags: none but the common ones.")
    parts += [f"{r.flag} without {r.needs} is {r.error}." for r in message.requires]
    parts.append(f"Replies: {', '.join(message.replies)}, or ERROR. Repeatable after an unknown outcome: {repeatable(message)}.")
    return "\n\n".join(parts)


def klen_text(spec: Spec, message: Message) -> str:
    if message.key == "none":
        return "0"
    return f"{1 if message.key == 'required' else 0} to {spec.limit(message.key_max or ''):,}"


def reply(spec: Spec, message: Message) -> str:
    """A reply or push: what it is, its diagram and fields."""
    lead = f"**{message.name}**, op {h8(message.op)}, since version {message.since}. {message.doc}"
    if message.single:
        return f"{lead}\n\n{diagram([('0', h8(message.op))])}"
    base = spec.constant("REPLY_HEADER")
    cells = [("0", f"op {h8(message.op)}"), ("1", "len u32")]
    rows = [("0", "`op`", "`u8`", h8(message.op), "The op."), ("1", "`len`", "`u32`", len_text(message), "Bytes that follow.")]
    for field in message.fields:
        cells.append((str(base), f"{field.name}[rest]" if field.type.rest else f"{field.name} {field.type.name}"))
        rows.append((str(base), code(field.name), code(field.type.name), field_range(spec, field), field.doc))
        base += field.type.bytes or 0
    return "\n\n".join([lead, diagram(cells), table(("offset", "part", "type", "allowed", "meaning"), rows)])


def len_text(message: Message) -> str:
    tail = next((f for f in message.fields if f.type.rest), None)
    fixed = fixed_size(message)
    if tail is None:
        return f"at least {fixed}; {fixed} in version 1"
    least = fixed + 1 if tail.type.name == "reply" else fixed
    return f"at least {least}" if least else "any"


def reserved(spec: Spec) -> str:
    """Every number that is set aside: ops, flags, features, extensions."""
    rows = [(h8(o.op), "op", o.name, o.doc) for o in sorted(spec.reserved_ops, key=lambda o: o.op)]
    for message in spec.requests:
        rows += [(h8(f.value), f"flag of {message.name}", f.name, f.doc) for f in message.flags if f.reserved]
    rows += [(f"bit {f.bit}", "feature", f.name, f.doc) for f in spec.features if f.reserved]
    rows += [(h16(e.type), "extension", e.name, e.doc) for e in spec.extensions if e.reserved]
    return table(("number", "kind", "name", "what for"), rows)
