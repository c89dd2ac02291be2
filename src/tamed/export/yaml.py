"""A writer for YAML: deterministic, and with comments.

No library does this: PyYAML writes no comments, which these files have for everything that needs a reason,
and it would bring an unused parser. Only the parts of these files can be written: mappings, lists, texts,
numbers and booleans, in the block style of YAML 1.2. A text is plain only if every version of YAML reads it
as that text, a block if it has several lines, and otherwise quoted as in JSON.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["Noted", "Value", "to_yaml"]

Value: TypeAlias = "str | int | Sequence[Value] | Mapping[str, Value] | Noted"
"""The values that can be written; a bool is an int."""

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*")
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # of YAML 1.1, in any case
_STEP = "  "


class Noted(NamedTuple):
    """A value with a comment, which is written above its key or list item."""

    value: "Value"
    comment: str


def to_yaml(document: Mapping[str, "Value"]) -> str:
    """Return a document, without the ``---`` at its beginning."""
    return "".join(f"{line}\n" for line in _mapping(document, ""))


def _mapping(entries: Mapping[str, "Value"], indent: str) -> Iterator[str]:
    for key, entry in entries.items():
        value, comments = _unwrapped(entry, indent)
        yield from comments
        yield from _after(f"{indent}{_text(key, '')}:", value, indent)


def _sequence(entries: Sequence["Value"], indent: str) -> Iterator[str]:
    for entry in entries:
        value, comments = _unwrapped(entry, indent)
        yield from comments
        if isinstance(value, Mapping) and value:  # the first key follows the dash
            lines = list(_mapping(value, indent + _STEP))
            first = next(at for at, line in enumerate(lines) if not line.lstrip().startswith("#"))
            yield from (line.removeprefix(_STEP) for line in lines[:first])
            yield f"{indent}- {lines[first].removeprefix(indent + _STEP)}"
            yield from lines[first + 1 :]
        else:
            yield from _after(f"{indent}-", value, indent)


def _after(start: str, value: "Value", indent: str) -> Iterator[str]:
    """Yield the lines of a value that follows a key or a dash."""
    match value:
        case str() | int():
            yield f"{start} {_scalar(value, indent + _STEP)}"
        case Mapping() if value:
            yield start
            yield from _mapping(value, indent + _STEP)
        case Mapping():
            yield f"{start} {{}}"
        case Sequence() if value and not isinstance(value, Noted):
            yield start
            yield from _sequence(value, indent + _STEP)
        case _:
            yield f"{start} []"


def _unwrapped(value: "Value", indent: str) -> tuple["Value", list[str]]:
    if isinstance(value, Noted):
        return value.value, [f"{indent}# {line}" for line in value.comment.splitlines()]
    return value, []


def _scalar(value: str | int, indent: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return _text(value, indent)


def _text(text: str, indent: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if indent and _is_block(text):
        ending = "|" if text.endswith("\n") else "|-"
        return "\n".join([ending, *(f"{indent}{line}" if line else "" for line in text.splitlines())])
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08X}" for one in quoted)


def _is_block(text: str) -> bool:
    """Return whether a text can be a block: several lines, without white space at their edges."""
    lines = text.removesuffix("\n").split("\n")
    return (
        text.count("\n") > 0
        and all(line.replace("\t", "").isprintable() and line == line.rstrip() for line in lines)
        and lines[0] == lines[0].lstrip() != ""
        and lines[-1] != ""
    )
