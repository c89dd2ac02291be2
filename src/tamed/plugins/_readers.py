"""Readers: each reads the values of one type, from any source.

There are two kinds of source. In a *text* source (the command line, the environment) everything is a text
or a list of texts, so numbers and truth values are read from text. In a deployment file values have types,
and the types must match: ``"10000"`` is not a number there. Each reader names what it expects, so the same
mistake has the same message in every source.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
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

    @abstractmethod
    def holds(self, value: object) -> bool:
        """Return whether ``read`` could return this value."""

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

    expected = "a text"
    metavar = "TEXT"

    def read(self, value: object, source: Source) -> str:
        """Return a text unchanged."""
        if not isinstance(value, str):
            raise self.invalid(value)
        return value

    def holds(self, value: object) -> bool:
        """Accept texts only."""
        return isinstance(value, str)


class Truth(Reader):
    """True or false; a flag for it needs no value."""

    expected = "true or false"
    boolean = True
    schema: Mapping[str, Any] = {"type": "boolean"}

    _WORDS: ClassVar[dict[str, bool]] = {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }

    def read(self, value: object, source: Source) -> bool:
        """Read one of several words, or return a truth value unchanged."""
        if source.text and isinstance(value, str):
            value = self._WORDS.get(value.lower(), value)
        if not isinstance(value, bool):
            raise self.invalid(value)
        return value

    def holds(self, value: object) -> bool:
        """Accept truth values only."""
        return isinstance(value, bool)

    def text(self, value: Any) -> str:
        """Write it in lower case."""
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
        """Read a number from text, or return one unchanged."""
        given = source.text and isinstance(value, str) and re.fullmatch(self._form, value)
        if not given and not self.holds(value):
            raise self.invalid(value)
        try:
            number = self.kind(cast("str | float", value))
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
        """Limit it."""
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
        """Read the number, then check its limits."""
        read = self.reader.read(value, source)
        if not self.limits.hold(read):
            raise self.invalid(value)
        return read

    def holds(self, value: object) -> bool:
        """Accept values of the type that are within the limits."""
        return self.reader.holds(value) and self.limits.hold(cast(float, value))

    def text(self, value: Any) -> str:
        """Write it as the type without limits does."""
        return self.reader.text(value)


class Paths(Reader):
    """A file or a folder. A relative one starts at the source's folder, when that is known.

    ``~`` is not expanded; the shell does that. In a daemon it would be unclear whose home it is.
    """

    expected = "a path"
    metavar = "PATH"
    path = True

    def read(self, value: object, source: Source) -> Path:
        """Accept any text except a blank one, which would be the current folder by accident."""
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise self.invalid(value)
        return source.folder / value if source.folder is not None else Path(value)

    def holds(self, value: object) -> bool:
        """Accept paths only."""
        return isinstance(value, Path)


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
        """Let the class parse the text, or convert the number in the file."""
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

    def holds(self, value: object) -> bool:
        """Accept instances of the class."""
        return isinstance(value, self.kind)

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
        """Accept the members."""
        return any(value == member and type(value) is type(member) for member in self.members.values())

    def text(self, value: Any) -> str:
        """Return the text of a member."""
        return next(text for text, member in self.members.items() if member == value)
