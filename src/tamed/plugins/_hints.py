"""Annotations: which reader reads the values of a type."""

import enum
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tamed.plugins._compound import Limited, Many, OneOf, Pairs
from tamed.plugins._reader import Reader
from tamed.plugins._single import Choice, Parsed, Paths, Scalar


def reader_of(hint: Any) -> Reader:
    """Return the reader for an annotation; raise TypeError, saying why, when there is none."""
    while (alias := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        hint = alias  # a NewType, or what a `type` statement made
    if hint in Scalar.KINDS:
        return Scalar(hint)
    if hint is Path:
        return Paths()
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


def _limited(hint: Any) -> Reader:
    """Read ``Annotated`` with msgspec's limits; other annotations are not ours and mean nothing here."""
    import msgspec

    inner, *notes = get_args(hint)
    limits = [note for note in notes if isinstance(note, msgspec.Meta)]
    if limits and get_origin(inner) in {Union, types.UnionType}:
        members = get_args(inner)
        return _union(Union[tuple(m if m is type(None) else _annotated(m, limits) for m in members)])  # noqa: UP007
    reader = reader_of(inner)
    if not limits:
        return reader
    if reader.plain is None:
        raise TypeError(f"{_name(inner)} cannot have limits")
    checked = _annotated(reader.plain, limits)
    msgspec.json.Decoder(checked)  # raises TypeError when a limit does not go with the type
    return Limited(reader, checked, ", ".join([reader.expected, *_in_words(limits, reader.plain)]))


def _annotated(hint: Any, notes: Iterable[object]) -> Any:
    for note in notes:
        hint = Annotated[hint, note]
    return hint


def _in_words(limits: Iterable[object], plain: type) -> list[str]:
    unit = "characters" if plain is str else "items"
    words = {
        "gt": "more than {}",
        "ge": "at least {}",
        "lt": "less than {}",
        "le": "at most {}",
        "multiple_of": "a multiple of {}",
        "pattern": "matching {}",
        "min_length": "at least {} " + unit,
        "max_length": "at most {} " + unit,
    }
    return [
        text.format(limit)
        for meta in limits
        for name, text in words.items()
        if (limit := getattr(meta, name)) is not None
    ]


def _name(hint: Any) -> str:
    return (
        hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    )


_BUILDERS: dict[Any, Callable[[Any], Reader]] = {
    Literal: _literal,
    Union: _union,
    types.UnionType: _union,
    Annotated: _limited,
    list: _collection,
    tuple: _collection,
    set: _collection,
    frozenset: _collection,
    dict: _table,
}
