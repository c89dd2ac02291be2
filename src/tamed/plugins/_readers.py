"""Readers: each reads the values of one type, from any source.

There are two kinds of source. In a *text* source (the command line, the environment) everything is a text
or a list of texts, so numbers and truth values are read from text. In a deployment file values have types,
and the types must match: ``"10000"`` is not a number there. Each reader names what it expects, so the same
mistake has the same message in every source.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

from tamed._os.text import listed, noun, value_text
from tamed.plugins.option import Limits


class InvalidValue(ValueError):
    """A value is invalid: ``why`` names the expected one.

    ``at`` is the place inside the option's value, such as ``[1]`` or ``.PATH``; empty for the whole value.
    """

    def __init__(self, why: str, at: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.at = at

    def inside(self, place: str) -> "InvalidValue":
        """Return the same error, with the place inside the value that contains this one."""
        return InvalidValue(self.why, place + self.at)


class Source(NamedTuple):
    """The source of a value: whether it is text, where relative paths start, and the variables.

    ``answer`` is the secret that the user typed at the prompt; None without a prompt.
    """

    text: bool
    folder: Path | None = None
    environ: Mapping[str, str] = {}
    answer: str | None = None


class Reader(ABC):
    """Reads the values of one type."""

    kind: Any
    """The type of the values."""
    expected: str
    """The expected value, with its article: ``a whole number``."""
    metavar: str = ""
    """The placeholder for a value in the help text."""
    choices: tuple[str, ...] = ()
    """All accepted texts; empty when there are too many to list."""
    many: bool = False
    """Whether a text source passes it a list of texts."""
    boolean: bool = False
    """Whether a flag for it needs no value."""
    path: bool = False
    """Whether values are files or folders."""
    schema: Mapping[str, Any] = {"type": "string"}
    """The JSON Schema (draft 2020-12) of the values that a deployment file may give."""

    @abstractmethod
    def read(self, value: object, source: Source) -> Any:
        """Return the value that the source means; raise InvalidValue if there is none."""

    def holds(self, value: object) -> bool:
        """Return whether ``read`` could return this value."""
        return isinstance(value, self.kind)

    def text(self, value: Any) -> str:
        """Return a value as it is written on the command line."""
        return str(value)

    def within(self, limits: Limits) -> "Reader":
        """Return a reader with these limits; raise TypeError for a type without numbers."""
        raise TypeError(f"the type has no number that could be {limits}")

    def invalid(self, value: object) -> InvalidValue:
        """Return the error for an invalid value."""
        return InvalidValue(f"expected {self.expected}, got {value_text(value)}")


class Text(Reader):
    """Any text."""

    kind = str
    expected = "a text"
    metavar = "TEXT"

    def read(self, value: object, source: Source) -> str:
        if not isinstance(value, str):
            raise self.invalid(value)
        return value


class Truth(Reader):
    """True or false; a flag for it needs no value."""

    kind = bool
    expected = "true or false"
    boolean = True
    schema: Mapping[str, Any] = {"type": "boolean"}

    _WORDS: ClassVar[dict[str, bool]] = {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }

    def read(self, value: object, source: Source) -> bool:
        if source.text and isinstance(value, str):
            value = self._WORDS.get(value.lower(), value)
        if not isinstance(value, bool):
            raise self.invalid(value)
        return value

    def text(self, value: Any) -> str:
        return str(value).lower()


class Number(Reader):
    """A whole number of at most 64 bits, as in TOML, or any number that is finite. In text, it is decimal."""

    metavar = "NUMBER"

    _KINDS: ClassVar[dict[type, tuple[str, str]]] = {
        int: ("a whole number", r"-?[0-9]+"),
        float: ("a number", r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"),
    }

    def __init__(self, kind: type[int | float]) -> None:
        self.kind = kind
        self.expected, self._form = self._KINDS[kind]
        self.schema = {"type": "integer" if kind is int else "number"}

    def read(self, value: object, source: Source) -> int | float:
        given = source.text and isinstance(value, str) and re.fullmatch(self._form, value)
        if not given and not self.holds(value):
            raise self.invalid(value)
        try:
            number: int | float = self.kind(value)
            if _fits(number):
                return number
        except (OverflowError, ValueError):  # more digits than Python reads, or than a float can hold
            pass
        raise self.invalid(value)

    def holds(self, value: object) -> bool:
        """Accept an int as a float, as type checkers do, but never a bool as a number."""
        kinds = (int, float) if self.kind is float else int
        return isinstance(value, kinds) and not isinstance(value, bool)

    def within(self, limits: Limits) -> Reader:
        return Limited(self, limits)


class Limited(Reader):
    """Numbers of a type, within limits."""

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self.reader = reader
        self.limits = limits
        self.expected = f"{reader.expected}, {limits}"
        self.metavar = reader.metavar
        self.schema = {**reader.schema, **limits.schema()}

    def read(self, value: object, source: Source) -> Any:
        read = self.reader.read(value, source)
        if not self.limits.hold(read):
            raise self.invalid(value)
        return read

    def holds(self, value: object) -> bool:
        return self.reader.holds(value) and self.limits.hold(cast(float, value))


class Paths(Reader):
    """A file or a folder. A relative one starts at the source's folder, when that is known.

    ``~`` is not expanded; the shell does that. In a daemon it would be unclear whose home it is.
    """

    kind = Path
    expected = "a path"
    metavar = "PATH"
    path = True

    def read(self, value: object, source: Source) -> Path:
        """Accept any text except a blank one, which would be the current folder by accident."""
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise self.invalid(value)
        return source.folder / value if source.folder is not None else Path(value)


class Parsed(Reader):
    """A class with a class method ``parse``; one that is also a number accepts numbers from a file.

    If values have a method ``relative_to(folder)``, which returns the value with its relative paths starting
    at that folder, they start at the source's folder, when that is known.
    """

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.expected = noun(kind.__name__)
        self.metavar = kind.__name__.upper()
        self.is_number = issubclass(kind, (int, float))
        if self.is_number:  # otherwise any text: only the class knows which ones are valid
            self.schema = {"type": ["string", "number"]}

    def read(self, value: object, source: Source) -> Any:
        read = self._read(value)
        if self.is_number and not _fits(read):
            raise self.invalid(value)
        has_paths = callable(getattr(self.kind, "relative_to", None))
        return read.relative_to(source.folder) if has_paths and source.folder is not None else read

    def _read(self, value: object) -> Any:
        try:
            if isinstance(value, str):
                return self.kind.parse(value)
            if self.is_number and isinstance(value, (int, float)) and not isinstance(value, bool):
                return self.kind(value)
        except (ValueError, OverflowError) as error:  # OverflowError: the class cannot hold the number
            raise (InvalidValue(str(error)) if str(error) else self.invalid(value)) from error
        raise self.invalid(value)

    def within(self, limits: Limits) -> Reader:
        """Limit it, if it is a number."""
        return Limited(self, limits) if self.is_number else super().within(limits)


def _fits(number: float) -> bool:
    """Return whether a TOML file, or a message to another process, can hold this number."""
    return -(2**63) <= number < 2**63 if isinstance(number, int) else math.isfinite(number)


class Choice(Reader):
    """One of a few values, each with its text.

    With ``by_text`` a file too has the text, not the value: the members of an enumeration have no other form
    there.
    """

    def __init__(self, members: Mapping[str, object], *, by_text: bool) -> None:
        self.members = members
        self.by_text = by_text
        self.choices = tuple(members)
        self.metavar = "|".join(members)
        self.expected = listed(members)
        self.schema = {"enum": list(members if by_text else members.values())}

    def read(self, value: object, source: Source) -> Any:
        """Find the member by its text, or by its value and type, so that ``true`` is not 1."""
        for text, member in self.members.items():
            written = text if source.text or self.by_text else member
            if value == written and type(value) is type(written):
                return member
        raise self.invalid(value)

    def holds(self, value: object) -> bool:
        return any(value == member and type(value) is type(member) for member in self.members.values())

    def text(self, value: Any) -> str:
        return next(text for text, member in self.members.items() if member == value)


class Many(Reader):
    """A list, a tuple of any length or a set. Text is split at commas; a list of texts is not.

    In a file, a single value means a list of one: ``listen = "localhost:10000"``.
    """

    many = True

    def __init__(self, item: Reader, kind: type[Collection[Any]]) -> None:
        self.item = item
        self.kind = kind
        self.expected = f"a list, each item {item.expected}"
        self.metavar, self.choices, self.path = item.metavar, item.choices, item.path
        self.schema = {"anyOf": [{"type": "array", "items": item.schema}, item.schema]}

    def read(self, value: object, source: Source) -> Any:
        if not source.text and not isinstance(value, list):
            return self.kind([self.item.read(value, source)])
        if source.text and isinstance(value, str):
            value = [item for item in map(str.strip, value.split(",")) if item]
        if not isinstance(value, list):
            raise self.invalid(value)
        return self.kind(_inside(f"[{index}]", self.item, item, source) for index, item in enumerate(value))

    def holds(self, value: object) -> bool:
        return isinstance(value, self.kind) and all(map(self.item.holds, value))

    def text(self, value: Any) -> str:
        return ",".join(map(self.item.text, value))

    def within(self, limits: Limits) -> "Many":
        return Many(self.item.within(limits), self.kind)


class Pairs(Reader):
    """A dict with texts as its keys: a table in a file, ``KEY=VALUE`` in text."""

    many = True

    def __init__(self, item: Reader) -> None:
        self.item = item
        self.expected = f"KEY=VALUE, each value {item.expected}"
        self.metavar = f"KEY={item.metavar or 'VALUE'}"
        self.schema = {"type": "object", "additionalProperties": item.schema}

    def read(self, value: object, source: Source) -> dict[str, Any]:
        """Read each value; an error has the value's key. Of two equal keys in text the later one counts."""
        pairs = self._split(value) if source.text else value
        if not isinstance(pairs, Mapping):
            raise InvalidValue(f"expected a table, each value {self.item.expected}, got {value_text(value)}")
        return {key: _inside(f".{key}", self.item, item, source) for key, item in pairs.items()}

    def holds(self, value: object) -> bool:
        return isinstance(value, dict) and all(map(self.item.holds, value.values()))

    def text(self, value: Any) -> str:
        return ",".join(f"{key}={self.item.text(item)}" for key, item in value.items())

    def within(self, limits: Limits) -> "Pairs":
        return Pairs(self.item.within(limits))

    def _split(self, value: object) -> dict[str, object]:
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, list):
            raise self.invalid(value)
        pairs: dict[str, object] = {}
        for text in filter(None, texts):
            key, equals, item = str(text).partition("=")
            if not key.strip() or not equals:
                raise self.invalid(text)
            pairs[key.strip()] = item
        return pairs


class OneOf(Reader):
    """A union: the first type that accepts the value reads it; with ``optional``, None is allowed.

    An empty text means None: the command line and the environment have no other way to unset a value of the
    file.
    """

    def __init__(self, readers: Sequence[Reader], *, optional: bool) -> None:
        first = readers[0]
        self.readers = readers
        self.optional = optional
        self.expected = " or ".join(reader.expected for reader in readers)
        self.metavar = "|".join(dict.fromkeys(filter(None, (reader.metavar for reader in readers))))
        self.path = any(reader.path for reader in readers)
        self.schema = {"anyOf": [each.schema for each in readers]} if len(readers) > 1 else first.schema
        if len(readers) == 1:
            self.choices, self.many, self.boolean = first.choices, first.many, first.boolean

    def read(self, value: object, source: Source) -> Any:
        """Try each type in the order in which they are declared."""
        if self.optional and source.text and value in ("", []):
            return None
        errors: list[InvalidValue] = []
        for reader in self.readers:
            try:
                return reader.read(value, source)
            except InvalidValue as error:
                errors.append(error)
        raise errors[0] if len(errors) == 1 else self.invalid(value)

    def holds(self, value: object) -> bool:
        return (self.optional and value is None) or any(reader.holds(value) for reader in self.readers)

    def text(self, value: Any) -> str:
        return next((reader.text(value) for reader in self.readers if reader.holds(value)), "")

    def within(self, limits: Limits) -> Reader:
        """Limit the types that have numbers."""
        limited = [_limited(reader, limits) for reader in self.readers]
        is_same = limited == list(self.readers)
        return super().within(limits) if is_same else OneOf(limited, optional=self.optional)


def _inside(place: str, reader: Reader, value: object, source: Source) -> Any:
    try:
        return reader.read(value, source)
    except InvalidValue as error:
        raise error.inside(place) from error


def _limited(reader: Reader, limits: Limits) -> Reader:
    try:
        return reader.within(limits)
    except TypeError:
        return reader
