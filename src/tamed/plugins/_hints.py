"""Annotations: which reader reads the values of a type."""

import enum
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tamed.plugins._compound import Many, OneOf, Pairs
from tamed.plugins._reader import Reader
from tamed.plugins._single import Choice, Number, Parsed, Paths, Text, Truth


def reader_of(hint: Any) -> Reader:
    """Return the reader for an annotation; raise TypeError, saying why, when there is none."""
    while (alias := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        hint = alias  # a NewType, or what a `type` statement made
    build = _BUILDERS.get(get_origin(hint) or hint)
    if build is not None:
        return build(hint)
    if isinstance(hint, type) and callable(getattr(hint, "parse", None)):
        return Parsed(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumeration(hint)
    raise TypeError(
        f"{_name(hint)} is no option type; take str, int, float, bool, Path, Duration, Size, an enumeration,"
        " Literal, a list, tuple, set or dict of those, or a class with a class method parse(text)"
    )


def _literal(hint: Any) -> Reader:
    values = get_args(hint)
    if not all(type(value) in {str, int} for value in values):
        raise TypeError(f"{_name(hint)}: only texts and whole numbers are possible in a Literal")
    return Choice({str(value): value for value in values}, by_text=False)


def _enumeration(kind: type[enum.Enum]) -> Reader:
    """Write members by their values when all are texts, else by their names, as in ``--level very-high``."""
    members = list(kind)
    if not members:
        raise TypeError(f"{_name(kind)} has no members")
    by_value = all(isinstance(member.value, str) for member in members)
    return Choice(
        {member.value if by_value else _dashed(member.name): member for member in members}, by_text=True
    )


def _dashed(name: str) -> str:
    return name.lower().replace("_", "-")


def _collection(hint: Any) -> Reader:
    kind = get_origin(hint) or hint
    arguments = get_args(hint)
    if kind is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        raise TypeError(f"{_name(hint)}: a tuple is of any length, such as tuple[int, ...]")
    item = reader_of(arguments[0] if arguments else str)
    if item.many:
        raise TypeError(f"{_name(hint)}: a list of lists cannot be written on the command line")
    return Many(item, kind)


def _table(hint: Any) -> Reader:
    key, value = get_args(hint) or (str, str)
    if key is not str:
        raise TypeError(f"{_name(hint)}: the keys of a table are texts, such as dict[str, int]")
    return Pairs(reader_of(value))


def _union(hint: Any) -> Reader:
    members = [member for member in get_args(hint) if member is not type(None)]
    readers = [reader_of(member) for member in members]
    if len(readers) > 1 and any(reader.many for reader in readers):
        raise TypeError(f"{_name(hint)}: a list or a table can only be alone or None")
    return OneOf(readers, optional=type(None) in get_args(hint))


def _annotated(hint: Any) -> Reader:
    """Read what is annotated; the notes are somebody else's, and mean nothing here."""
    return reader_of(get_args(hint)[0])


def _name(hint: Any) -> str:
    return (
        hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    )


_BUILDERS: dict[Any, Callable[[Any], Reader]] = {
    str: lambda _: Text(),
    bool: lambda _: Truth(),
    int: Number,
    float: Number,
    Path: lambda _: Paths(),
    Literal: _literal,
    Union: _union,
    types.UnionType: _union,
    Annotated: _annotated,
    list: _collection,
    tuple: _collection,
    set: _collection,
    frozenset: _collection,
    dict: _table,
}
