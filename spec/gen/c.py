# SPDX-License-Identifier: MIT
"""The C codec: include/crabcache/wire.h from the specification.

The header has three parts: what does not depend on the messages (cursors, the common checks of a request, the
skip rule of replies) is the template in wire.h.in beside this file; names and numbers come from lists; and every
message gets a struct with its decoder, size and encoder. Size and encoder are made from the same list of
fields, so that they cannot disagree.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

from .model import Field, Flag, Message, Spec

TEMPLATE = Path(__file__).with_name("wire.h.in")
OUTPUT = "include/crabcache/wire.h"

ENCODE_DOC = """ * @param m  the message; m->op is not looked at.
 * @param[out] buf  where to.
 * @param cap  room in buf, in bytes.
 * @return the bytes written; 0 if it does not fit or breaks a rule: then nothing was written.
 */
"""

C_TYPES = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i64": "int64_t"}


def emit(spec: Spec) -> dict[str, str]:
    """The header's text, by its path."""
    blocks = {
        "constants": constants(spec),
        "op_ranges": op_ranges(spec),
        "errors": errors(spec),
        "names": names(spec),
        "request_structs": "\n".join(request_struct(m) for m in spec.requests) + request_union(spec),
        "request_codecs": "\n".join(request_codec(spec, m) for m in spec.requests),
        "request_generic": request_generic(spec),
        "reply_structs": "\n".join(reply_struct(m) for m in answers(spec)) + reply_union(spec),
        "reply_codecs": reply_decoders(spec) + "\n".join(reply_encoder(spec, m) for m in answers(spec)),
        "reply_generic": reply_generic(spec),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, block in blocks.items():
        marker = f"@{name}@\n"
        if text.count(marker) != 1:
            raise ValueError(f"{TEMPLATE.name}: marker @{name}@ must stand exactly once")
        text = text.replace(marker, block.strip("\n") + "\n")
    return {OUTPUT: text}


# ------------------------------------------------------------------------------------------------- helpers


def doc(text: str, indent: str = "") -> str:
    """A Doxygen comment of one or more lines."""
    if len(indent) + len(text) <= 100:
        return f"{indent}/** {text} */\n"
    lines = wrap(text, 100 - len(indent))
    body = "".join(f"{indent} * {line}\n" for line in lines)
    return f"{indent}/**\n{body}{indent} */\n"


def literal(value: int) -> str:
    """A number as C likes it."""
    if value > 0xFFFFFFFF:
        return f"UINT64_C({value:#x})"
    return f"{value}U" if value >= 256 else str(value)


def define(name: str, value: str, text: str) -> str:
    return f"{doc(text)}#define {name} {value}\n"


def c_name(message: Message) -> str:
    """crab_req_put, crab_rep_value, crab_push_goaway."""
    prefix = {"request": "crab_req", "reply": "crab_rep", "push": "crab_push"}[message.kind]
    return f"{prefix}_{message.name.lower()}"


def op_name(message: Message) -> str:
    prefix = {"request": "CRAB_OP", "reply": "CRAB_REP", "push": "CRAB_PUSH"}[message.kind]
    return f"{prefix}_{message.name}"


def flag_name(message: Message, flag: str) -> str:
    return f"CRAB_{message.name}_{flag}"


def fixed(message: Message) -> list[Field]:
    """The fields with a size of their own: all but a last one that takes the rest."""
    return [f for f in message.fields if not f.type.rest]


def rest(message: Message) -> Field | None:
    """The field that takes the rest of the message, if it has one."""
    return next((f for f in message.fields if f.type.rest), None)


def fixed_bytes(message: Message) -> int:
    return sum(f.type.bytes or 0 for f in fixed(message) if f.when is None)


def answers(spec: Spec) -> list[Message]:
    """Every reply and push that has a struct: TAGGED is the wrapper of the others."""
    return [m for m in spec.replies if m.name != "TAGGED"] + list(spec.pushes)


def flag_test(message: Message, flag: Flag, flags: str) -> str:
    """The C condition that a flag is set; flags of several bits are compared under their mask."""
    name = flag_name(message, flag.name)
    if flag.mask.bit_count() == 1:
        return f"({flags} & {name}) != 0"
    return f"({flags} & {name}_MASK) == {name}"


def store(field: Field, at: str, value: str) -> str:
    """The statement that writes a field."""
    size = field.type.bytes or 0
    cast = f"(uint64_t){value}" if field.type.signed else value
    return f"crab_store_u{size * 8}({at}, {cast});"


def load(field: Field, at: str) -> str:
    """The expression that reads a field."""
    size = field.type.bytes or 0
    if field.type.signed:
        return f"crab_load_i{size * 8}({at})"
    return f"crab_load_u{size * 8}({at})"


# --------------------------------------------------------------------------------------- numbers and names


def constants(spec: Spec) -> str:
    out = [define("CRAB_PROTOCOL_VERSION", str(spec.protocol["version"]), "The version of the protocol.")]
    out += [define(f"CRAB_{c.name}", literal(c.value), c.doc) for c in spec.constants]
    out += [define(f"CRAB_{x.name}", literal(x.value), f"{x.doc} In {x.unit}.") for x in spec.limits]
    for message in list(spec.requests) + list(spec.replies) + list(spec.pushes):
        out.append(define(op_name(message), f"{message.op:#04x}", message.doc))
    out += [define(f"CRAB_FLAG_{f.name}", f"{f.mask:#04x}", f.doc) for f in spec.flags]
    for message in spec.requests:
        known = 0
        masks: set[int] = set()
        for flag in message.flags:
            if flag.reserved:
                continue
            known |= flag.mask
            name = flag_name(message, flag.name)
            out.append(define(name, f"{flag.value:#04x}", flag.doc))
            if flag.mask != flag.value or flag.mask & (flag.mask - 1):
                out.append(define(f"{name}_MASK", f"{flag.mask:#04x}", f"The bits that tell {flag.name}."))
                if flag.mask not in masks:
                    masks.add(flag.mask)
                    text = f"The bits that hold the condition of {message.name}."
                    out.append(define(f"CRAB_{message.name}_COND_MASK", f"{flag.mask:#04x}", text))
        text = f"The flags of {message.name} that this version knows, common ones left out."
        out.append(define(f"CRAB_{message.name}_FLAGS", f"{known:#04x}", text))
    out += [
        define(f"CRAB_FEATURE_{f.name}", f"0x{1 << f.bit:08x}U", f.doc) for f in spec.features if not f.reserved
    ]
    rows = "".join(f" \\\n    X({m.name.lower()}, {m.name})" for m in spec.requests)
    text = "Every request of this version: X(lower-case name, upper-case name)."
    out.append(f"{doc(text)}#define CRAB_FOR_EACH_REQUEST(X){rows}\n")
    return "\n".join(out)


def op_ranges(spec: Spec) -> str:
    out = []
    for kind in ("request", "reply", "push"):
        tests = []
        for r in spec.ranges:
            if r.name != kind:
                continue
            low = "" if r.first == 0 else f"op >= {r.first:#04x}"
            high = "" if r.last == 0xFF else f"op <= {r.last:#04x}"
            tests.append("(" + " && ".join(t for t in (low, high) if t) + ")")
        text = f"Whether a byte is in the range of {'pushes' if kind == 'push' else kind.replace('reply', 'replie') + 's'}."
        out.append(
            f"{predicate(text, 'op', 'a byte.')}static inline bool crab_op_is_{kind}(uint8_t op)\n{{\n    return {' || '.join(tests)};\n}}\n"
        )
    singles = [m for m in spec.replies if m.single]
    test = " || ".join(f"op == {op_name(m)}" for m in singles)
    text = "Whether a reply is a single byte."
    out.append(f"{predicate(text, 'op', 'a CRAB_REP_*.')}static inline bool crab_reply_is_single(uint8_t op)\n{{\n    return {test};\n}}\n")
    return "\n".join(out)


def errors(spec: Spec) -> str:
    out = ["/** The errors of the protocol; the high byte is the class. */\nenum crab_error {\n"]
    out += [f"{doc(e.text.capitalize() + '. ' + e.doc, '    ')}    CRAB_ERR_{e.name} = {e.code:#06x},\n" for e in spec.errors]
    out.append("};\n\n/** The classes of errors: what a caller can do. */\nenum crab_error_class {\n")
    out += [f"{doc(c.doc, '    ')}    CRAB_CLASS_{c.name} = {c.number},\n" for c in spec.error_classes]
    rows = "".join(f" \\\n    X({e.name})" for e in spec.errors)
    out.append(f"}};\n\n{doc('Every error: X(upper-case name).')}#define CRAB_FOR_EACH_ERROR(X){rows}\n\n")
    for error in spec.errors:
        out.append(
            f"CRAB_STATIC_ASSERT((CRAB_ERR_{error.name} >> 8) == {error.code >> 8}, \"{error.name}: class in the high byte\");\n"
        )
    return "".join(out)


def predicate(text: str, argument: str, what: str) -> str:
    """The comment of a function that says yes or no."""
    return f"/**\n * @brief {text}\n * @param {argument} {what}\n * @return true: it is so.\n */\n"


def name_function(function: str, argument: str, rows: list[tuple[str, str]], text: str) -> str:
    """A function from a number to a string; NULL for a number that has none."""
    cases = "".join(f'    case {case}:\n        return "{string}";\n' for case, string in rows)
    return (
        f"/**\n * @brief {text}\n * @param {argument.split()[-1]} its number.\n * @return a string that lives for ever, or NULL if there is none.\n */\n"
        f"static inline const char *{function}({argument})\n{{\n    switch ({argument.split()[-1]}) {{\n{cases}"
        "    default:\n        return NULL;\n    }\n}\n"
    )


def names(spec: Spec) -> str:
    replies = list(spec.replies) + list(spec.pushes)
    parts = [
        name_function("crab_op_name", "uint8_t op", [(op_name(m), m.name) for m in spec.requests], "Name of a request's op."),
        name_function("crab_reply_name", "uint8_t op", [(op_name(m), m.name) for m in replies], "Name of a reply's or push's op."),
        name_function("crab_error_name", "uint16_t code", [(f"CRAB_ERR_{e.name}", e.name) for e in spec.errors], "Name of an error."),
        name_function("crab_error_text", "uint16_t code", [(f"CRAB_ERR_{e.name}", e.text) for e in spec.errors], "What an error says to people."),
    ]
    closing = "".join(f"    case CRAB_ERR_{e.name}:\n" for e in spec.errors if e.closes)
    parts.append(
        predicate("Whether the server closes the connection after this error.", "code", "an enum crab_error.")
        + "static inline bool crab_error_closes(uint16_t code)\n{\n    switch (code) {\n"
        f"{closing}        return true;\n    default:\n        return false;\n    }}\n}}\n"
    )
    writes = "".join(f"    case {op_name(m)}:\n" for m in spec.requests if m.write)
    parts.append(
        predicate("Whether a request changes the store: only such a one may be QUIET.", "op", "a CRAB_OP_*.")
        + "static inline bool crab_op_is_write(uint8_t op)\n{\n    switch (op) {\n"
        f"{writes}        return true;\n    default:\n        return false;\n    }}\n}}\n"
    )
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------------ requests


def request_struct(message: Message) -> str:
    out = [doc(f"{message.name}: {message.doc}"), f"struct {c_name(message)} {{\n"]
    out.append("    uint8_t op;             /**< The message's op; set by decode, written by encode. */\n")
    out.append("    uint8_t flags;          /**< Common and own flags. */\n")
    out.append("    uint32_t tag;           /**< With CRAB_FLAG_TAG: the tag. */\n")
    out.append("    struct crab_slice ext;  /**< With CRAB_FLAG_EXT: the extensions, see crab_ext_next(). Borrowed. */\n")
    key = {"none": "Empty: this op has no key."}.get(message.key, f"The {message.key_name or 'key'}. Borrowed.")
    value = {"none": "Empty: this op has no value."}.get(message.value, f"The {(message.value_name or 'value').replace('_', ' ')}. Borrowed.")
    out.append(f"    struct crab_slice key;  /**< {key} */\n")
    out.append(f"    struct crab_slice value; /**< {value} */\n")
    for field in message.fields:
        when = f" With {flag_name(message, field.when)}, else 0." if field.when else ""
        out.append(f"    {C_TYPES[field.type.name]} {field.name}; /**< {field.doc}{when} */\n")
    out.append("};\n")
    return "".join(out)


def request_union(spec: Spec) -> str:
    rows = "".join(f"    struct {c_name(m)} {m.name.lower()}; /**< {m.name}. */\n" for m in spec.requests)
    asserts = "".join(
        f"CRAB_STATIC_ASSERT(offsetof(struct {c_name(m)}, value) == offsetof(struct crab_req_head, value), "
        f'"{m.name} begins with the head");\n'
        for m in spec.requests
    )
    return (
        "\n/** Any request; `head.op` says which. Every member begins with the fields of `head`. */\n"
        "union crab_request {\n    struct crab_req_head head; /**< What all requests share. */\n"
        f"{rows}}};\n\n{asserts}"
    )


def fields_size(message: Message) -> str:
    """The expression for the bytes of the fixed fields of a request, given `flags`."""
    terms = [str(fixed_bytes(message)) + "U"]
    for field in fixed(message):
        if field.when:
            terms.append(f"({flag_test(message, message.flag(field.when), 'flags')} ? {field.type.bytes}U : 0U)")
    return " + ".join(terms)


def range_test(spec: Spec, field: Field, value: str) -> str:
    """The condition that a field is outside its check's ranges."""
    check = spec.checks[field.check or ""]
    tops = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}
    top = tops[field.type.bytes or 8]
    inside = []
    for low, high in check.ranges:
        if low == high:
            inside.append(f"{value} == {literal(low)}")
            continue
        terms = [] if low == 0 else [f"{value} >= {literal(low)}" if low != 1 else f"{value} != 0"]
        terms += [] if high == top else [f"{value} <= {literal(high)}"]
        inside.append("(" + " && ".join(terms) + ")" if len(terms) > 1 else terms[0])
    return "!(" + " || ".join(inside) + ")"


def request_rule(message: Message) -> str:
    """The initialiser of struct crab_rule."""
    key_min = "1" if message.key == "required" else "0"
    key_max = "0" if message.key == "none" else f"CRAB_{message.key_max}"
    if message.value == "none":
        value_max = "0"
    elif message.value_max == "server":
        value_max = "UINT32_MAX"
    else:
        value_max = f"CRAB_{message.value_max}"
    has_value = "false" if message.value == "none" else "true"
    is_write = "true" if message.write else "false"
    return f"{{{is_write}, {has_value}, {key_min}, {key_max}, {value_max}}}"


def contradiction(message: Message, flags: str) -> str:
    """The condition that a flag lacks the one it needs; empty if no flag does."""
    tests = []
    for need in message.requires:
        has = flag_test(message, message.flag(need.flag), flags)
        needed = flag_test(message, message.flag(need.needs), flags)
        tests.append(f"({has} && !({needed}))")
    return " || ".join(tests)


def request_codec(spec: Spec, message: Message) -> str:
    name = c_name(message)
    label = message.name
    conflict = contradiction(message, "flags")
    checked = [f for f in fixed(message) if f.check]

    out = [f"\n/** @cond INTERNAL */ /* parts of the codec of {label} */\n"]
    out.append(f"static inline uint32_t {name}_fields(uint8_t flags)\n{{\n")
    if "flags" not in fields_size(message):
        out.append("    (void)flags;\n")
    out.append(f"    return {fields_size(message)};\n}}\n\n")
    out.append(f"static inline bool {name}_conflict(uint8_t flags)\n{{\n")
    out.append(f"    return {conflict};\n}}\n\n" if conflict else "    (void)flags;\n    return false;\n}\n\n")
    out.append(f"static inline bool {name}_bad_field(const struct {name} *m)\n{{\n")
    if checked:
        tests = []
        for field in checked:
            test = range_test(spec, field, f"m->{field.name}")
            if field.when:
                test = f"({flag_test(message, message.flag(field.when), 'm->flags')} && {test})"
            tests.append(test)
        joined = " ||\n           ".join(tests)
        out.append(f"    return {joined};\n}}\n")
    else:
        out.append("    (void)m;\n    return false;\n}\n")
    out.append("/** @endcond */\n\n")

    out.append(
        f"/**\n * @brief Decode one {label} frame; the op byte must be CRAB_OP_{label}.\n * @param buf  the bytes received.\n * @param len  how many, 0 on.\n"
        " * @param max_value  the server's limit for values, in bytes.\n * @param[out] m  the message; its slices borrow from buf.\n"
        " * @param[out] frame  size and error, see enum crab_decode.\n * @return CRAB_WHOLE, CRAB_NEED_MORE or CRAB_MALFORMED.\n */\n"
    )
    out.append(
        f"static inline enum crab_decode {name}_decode(const uint8_t *buf, size_t len, uint32_t max_value,\n"
        f"    struct {name} *m, struct crab_frame *frame)\n{{\n"
        f"    static const struct crab_rule rule = {request_rule(message)};\n"
        "    uint8_t flags = len >= 2 ? buf[1] : 0;\n"
        "    struct crab_req_head head;\n"
        f"    enum crab_decode result = crab_request_begin(buf, len, &rule, {name}_fields(flags),\n"
        f"        {name}_conflict(flags), max_value, &head, frame);\n"
        "    m->op = head.op;\n    m->flags = head.flags;\n    m->tag = head.tag;\n    m->ext = head.ext;\n    m->key = head.key;\n    m->value = head.value;\n"
        "    if (result != CRAB_WHOLE)\n        return result;\n"
    )
    if fixed(message):
        out.append("    const uint8_t *p = buf + CRAB_REQUEST_HEADER + ((flags & CRAB_FLAG_TAG) != 0 ? 4 : 0);\n")
        last = fixed(message)[-1]
        for field in fixed(message):
            advance = "" if field is last else f"        p += {field.type.bytes};\n"
            if field.when:
                test = flag_test(message, message.flag(field.when), "flags")
                out.append(
                    f"    m->{field.name} = 0;\n    if ({test}) {{\n        m->{field.name} = {load(field, 'p')};\n{advance}    }}\n"
                )
            else:
                out.append(f"    m->{field.name} = {load(field, 'p')};\n{advance[4:]}")
    if checked:
        out.append(
            f"    if ({name}_bad_field(m))\n        return crab_malformed(frame, CRAB_ERR_BAD_FIELD, frame->size);\n"
        )
    out.append("    return CRAB_WHOLE;\n}\n\n")

    out.append(
        f"/**\n * @brief Bytes of the frame of one {label}.\n * @param m  the message; m->op is not looked at.\n * @return the size, or 0 if the message breaks a rule of the specification.\n */\n"
        f"static inline size_t {name}_size(const struct {name} *m)\n{{\n"
        f"    static const struct crab_rule rule = {request_rule(message)};\n"
        f"    if ({name}_conflict(m->flags) || {name}_bad_field(m))\n        return 0;\n"
        f"    return crab_request_frame_size(&rule, m->flags, {name}_fields(m->flags), m->ext, m->key, m->value);\n}}\n\n"
    )
    out.append(
        f"/**\n * @brief Write one {label} but for the bytes of its value, which follow it on the wire.\n{ENCODE_DOC}"
        f"static inline size_t {name}_encode_head(const struct {name} *m, uint8_t *buf, size_t cap)\n{{\n"
        f"    size_t size = {name}_size(m);\n"
        "    if (size == 0 || size - m->value.len > cap)\n        return 0;\n"
        f"    uint8_t flags = m->flags & (uint8_t)(CRAB_{label}_FLAGS | CRAB_COMMON_FLAGS);\n"
        f"    uint8_t *p = crab_request_put_header(buf, {op_name(message)}, flags, m->tag, m->key.len, size);\n"
    )
    for field in fixed(message):
        size = field.type.bytes
        if field.when:
            test = flag_test(message, message.flag(field.when), "flags")
            out.append(f"    if ({test}) {{\n        {store(field, 'p', f'm->{field.name}')}\n        p += {size};\n    }}\n")
        else:
            out.append(f"    {store(field, 'p', f'm->{field.name}')}\n    p += {size};\n")
    out.append("    p = crab_request_put_ext(p, flags, m->ext);\n    p = crab_put_slice(p, m->key);\n    return (size_t)(p - buf);\n}\n\n")
    out.append(
        f"/**\n * @brief Write one {label}, whole.\n{ENCODE_DOC}"
        f"static inline size_t {name}_encode(const struct {name} *m, uint8_t *buf, size_t cap)\n{{\n"
        f"    size_t size = {name}_size(m);\n    if (size == 0 || size > cap)\n        return 0;\n"
        f"    size_t head = {name}_encode_head(m, buf, cap);\n    crab_put_slice(buf + head, m->value);\n    return size;\n}}\n"
    )
    return "".join(out)


def request_generic(spec: Spec) -> str:
    decode = "".join(
        f"    case {op_name(m)}:\n        return {c_name(m)}_decode(buf, len, max_value, &out->{m.name.lower()}, frame);\n"
        for m in spec.requests
    )
    out = [
        """/**
 * @brief Decode one request from the start of a buffer.
 * @param buf  the bytes received; borrowed.
 * @param len  how many, 0 on.
 * @param max_value  the server's limit for values, in bytes.
 * @param[out] out  with CRAB_WHOLE the message, whose slices borrow from buf; with CRAB_MALFORMED head.op, and,
 *             unless the error closes the connection, head.flags and head.tag.
 * @param[out] frame  size and error, see enum crab_decode.
 * @return CRAB_WHOLE, CRAB_NEED_MORE or CRAB_MALFORMED.
 * Implements the order of checks [P-4.3].
 */
static inline enum crab_decode crab_request_decode(const uint8_t *buf, size_t len, uint32_t max_value,
    union crab_request *out, struct crab_frame *frame)
{
    if (len == 0)
        return crab_need_more(frame, 1);
    switch (buf[0]) {
""",
        decode,
        """    default:
        return crab_request_unknown(buf, len, &out->head, frame);
    }
}
""",
    ]
    for verb, arguments, call, text in (
        ("size", "", "", "Bytes of the frame of any request; head.op says which it is."),
        ("encode_head", ", uint8_t *buf, size_t cap", ", buf, cap", "Write any request but for the bytes of its value."),
        ("encode", ", uint8_t *buf, size_t cap", ", buf, cap", "Write any request, whole."),
    ):
        cases = "".join(
            f"    case {op_name(m)}:\n        return {c_name(m)}_{verb}(&m->{m.name.lower()}{call});\n" for m in spec.requests
        )
        extra = " * @param[out] buf  where to.\n * @param cap  room in buf, in bytes.\n" if call else ""
        out.append(
            f"\n/**\n * @brief {text}\n * @param m  the message, head.op set.\n{extra} * @return bytes; 0 if the op is unknown, it breaks a rule{' or it does not fit' if call else ''}.\n */\n"
            f"static inline size_t crab_request_{verb}(const union crab_request *m{arguments})\n{{\n"
            f"    switch (m->head.op) {{\n{cases}    default:\n        return 0;\n    }}\n}}\n"
        )
    return "".join(out)


# ------------------------------------------------------------------------------------------------- replies


def reply_struct(message: Message) -> str:
    out = [doc(f"{message.name}: {message.doc}"), f"struct {c_name(message)} {{\n"]
    out.append("    uint8_t op;   /**< The message's op; set by decode, written by encode. */\n")
    wrapped = "Always false: a push is never wrapped." if message.kind == "push" else "Whether it is wrapped in TAGGED."
    out.append(f"    bool tagged;  /**< {wrapped} */\n    uint32_t tag; /**< If tagged: the request's tag. */\n")
    for field in message.fields:
        if field.type.rest:
            out.append(f"    struct crab_slice {field.name}; /**< {field.doc} Borrowed. */\n")
        else:
            out.append(f"    {C_TYPES[field.type.name]} {field.name}; /**< {field.doc} */\n")
    out.append("};\n")
    return "".join(out)


def reply_union(spec: Spec) -> str:
    rows = "".join(f"    struct {c_name(m)} {m.name.lower()}; /**< {m.name}. */\n" for m in answers(spec))
    return (
        "\n/** Any reply or push; `head.op` says which. Every member begins with the fields of `head`. */\n"
        "union crab_reply {\n    struct crab_rep_head head; /**< What all replies share. */\n"
        f"{rows}    struct crab_rep_unknown unknown; /**< A reply or push of an op that this version does not know. */\n}};\n"
    )


def reply_decoders(spec: Spec) -> str:
    sizes = "".join(
        f"    case {op_name(m)}:\n        return {fixed_bytes(m)};\n"
        for m in list(spec.replies) + list(spec.pushes)
        if fixed_bytes(m) and m.name != "TAGGED"
    )
    cases = []
    for message in answers(spec):
        body = []
        offset = 0
        name = message.name.lower()
        for field in message.fields:
            if field.type.rest:
                body.append(f"        out->{name}.{field.name} = crab_slice_of(p + {offset}, len - {offset});\n" if offset else f"        out->{name}.{field.name} = crab_slice_of(p, len);\n")
            else:
                at = f"p + {offset}" if offset else "p"
                body.append(f"        out->{name}.{field.name} = {load(field, at)};\n")
                offset += field.type.bytes or 0
        if body:
            cases.append(f"    case {op_name(message)}:\n{''.join(body)}        break;\n")
    singles = "".join(f"    case {op_name(m)}:\n" for m in spec.replies if m.single)
    return (
        "/** @cond INTERNAL */ /* parts of the reply decoder */\n"
        "/* The bytes of a reply's fixed fields: what it has at the least after its header. */\n"
        "static inline uint32_t crab_reply_fixed(uint8_t op)\n{\n    switch (op) {\n"
        f"{sizes}    case CRAB_REP_TAGGED:\n        return 5; /* the tag and a reply of one byte */\n    default:\n        return 0;\n    }}\n}}\n\n"
        "/* Read the fields of a reply that is whole: len bytes from p, at least crab_reply_fixed(op). */\n"
        "static inline void crab_reply_fields(uint8_t op, const uint8_t *p, size_t len, union crab_reply *out)\n"
        "{\n    switch (op) {\n"
        f"{''.join(cases)}{singles}        break;\n    default:\n        out->unknown.payload = crab_slice_of(p, len);\n        break;\n    }}\n}}\n"
        "/** @endcond */\n\n"
    )


def reply_encoder(spec: Spec, message: Message) -> str:
    name = c_name(message)
    label = message.name
    tail = rest(message)
    limit = ""
    if tail and tail.max:
        limit = f"    if (m->{tail.name}.len > CRAB_{tail.max})\n        return 0;\n"
    tail_len = f"m->{tail.name}.len" if tail else "0"
    tagged = "false" if message.kind == "push" else "m->tagged"
    out = [
        f"/**\n * @brief Bytes of one {label}, its TAGGED wrapper included.\n * @param m  the message; m->op is not looked at.\n * @return the size, or 0 if the message breaks a rule of the specification.\n */\n"
        f"static inline size_t {name}_size(const struct {name} *m)\n{{\n{limit}"
    ]
    if message.single:
        out.append("    return m->tagged ? CRAB_TAGGED_HEAD + 1 : 1;\n}\n\n")
    else:
        body = f"{fixed_bytes(message)}U" if fixed_bytes(message) else "0U"
        ignore = "    (void)m;\n" if not tail and message.kind == "push" else ""
        out.append(f"{ignore}    return crab_reply_frame_size({tagged}, {body}, {tail_len});\n}}\n\n")
    what = f" but for the bytes of its {tail.name}, which follow it on the wire" if tail else ""
    verb = "encode_head" if tail else "encode"
    out.append(
        f"/**\n * @brief Write one {label}{what}.\n{ENCODE_DOC}"
        f"static inline size_t {name}_{verb}(const struct {name} *m, uint8_t *buf, size_t cap)\n{{\n"
        f"    size_t size = {name}_size(m);\n"
    )
    room = f"size - {tail_len}" if tail else "size"
    out.append(f"    if (size == 0 || {room} > cap)\n        return 0;\n")
    if message.single:
        out.append(f"    uint8_t *p = m->tagged ? crab_put_tagged(buf, m->tag, 1) : buf;\n    *p = {op_name(message)};\n    return size;\n}}\n")
        return "\n" + "".join(out)
    out.append(f"    uint8_t *p = crab_reply_put_header(buf, {op_name(message)}, {tagged}, m->tag, size);\n")
    for field in fixed(message):
        out.append(f"    {store(field, 'p', f'm->{field.name}')}\n    p += {field.type.bytes};\n")
    out.append("    return (size_t)(p - buf);\n}\n")
    if tail:
        out.append(
            f"\n/**\n * @brief Write one {label}, whole.\n{ENCODE_DOC}"
            f"static inline size_t {name}_encode(const struct {name} *m, uint8_t *buf, size_t cap)\n{{\n"
            f"    size_t size = {name}_size(m);\n    if (size == 0 || size > cap)\n        return 0;\n"
            f"    size_t head = {name}_encode_head(m, buf, cap);\n    crab_put_slice(buf + head, m->{tail.name});\n    return size;\n}}\n"
        )
    return "\n" + "".join(out)


def reply_generic(spec: Spec) -> str:
    out = []
    for verb, arguments, call, text in (
        ("size", "", "", "Bytes of any reply or push, its TAGGED wrapper included; head.op says which it is."),
        ("encode", ", uint8_t *buf, size_t cap", ", buf, cap", "Write any reply or push, whole."),
    ):
        cases = "".join(
            f"    case {op_name(m)}:\n        return {c_name(m)}_{verb}(&m->{m.name.lower()}{call});\n" for m in answers(spec)
        )
        extra = " * @param[out] buf  where to.\n * @param cap  room in buf, in bytes.\n" if call else ""
        out.append(
            f"\n/**\n * @brief {text}\n * @param m  the message, head.op set.\n{extra} * @return bytes; 0 if the op is unknown, it breaks a rule{' or it does not fit' if call else ''}.\n */\n"
            f"static inline size_t crab_reply_{verb}(const union crab_reply *m{arguments})\n{{\n"
            f"    switch (m->head.op) {{\n{cases}    default:\n        return 0;\n    }}\n}}\n"
        )
    return "".join(out)
