"""Readers of single values: texts, numbers, truth values, paths, choices and whatever reads itself."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from tamed.plugins._limits import Limits
from tamed.plugins._reader import Misfit, Reader, Source
from tamed.plugins._words import listed, noun


class Text(Reader):
    """A text, whatever is in it."""

    expected = "a text"
    metavar = "TEXT"

    def read(self, value: object, source: Source) -> str:
        """Take a text as it is."""
        if not isinstance(value, str):
            raise self.misfit(value)
        return value

    def holds(self, value: object) -> bool:
        """Take texts only."""
        return isinstance(value, str)


class Truth(Reader):
    """True or false; a flag for it needs no value."""

    expected = "true or false"
    boolean = True

    _WORDS: ClassVar[dict[str, bool]] = {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }

    def read(self, value: object, source: Source) -> bool:
        """Read one of several words, or take a truth value as it is."""
        if source.text and isinstance(value, str):
            value = self._WORDS.get(value.lower(), value)
        if not isinstance(value, bool):
            raise self.misfit(value)
        return value

    def holds(self, value: object) -> bool:
        """Take truth values only."""
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

    def read(self, value: object, source: Source) -> int | float:
        """Read a number from text, or take one as it is."""
        given = source.text and isinstance(value, str) and re.fullmatch(self._form, value)
        if not given and not self.holds(value):
            raise self.misfit(value)
        try:
            number = self.kind(cast("str | float", value))
            if _fits(number):
                return number
        except (OverflowError, ValueError):  # more digits than Python reads, or than a float can hold
            pass
        raise self.misfit(value)

    def holds(self, value: object) -> bool:
        """Take whole numbers for any number, as the type system does, but no truth value for a number."""
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

    def read(self, value: object, source: Source) -> Any:
        """Read the number, then check its limits."""
        read = self.reader.read(value, source)
        if not self.limits.hold(read):
            raise self.misfit(value)
        return read

    def holds(self, value: object) -> bool:
        """Take what is of the type and within the limits."""
        return self.reader.holds(value) and self.limits.hold(cast(float, value))

    def text(self, value: Any) -> str:
        """Write it as the type without limits does."""
        return self.reader.text(value)


class Paths(Reader):
    """A file or a folder. A relative one starts at the source's folder, when that is known.

    ``~`` is left to the shell: whose home a daemon would take is anybody's guess.
    """

    expected = "a path"
    metavar = "PATH"
    path = True

    def read(self, value: object, source: Source) -> Path:
        """Take any text but the empty one, which would be the current folder by accident."""
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.misfit(value)
        return source.folder / value if source.folder is not None else Path(value)

    def holds(self, value: object) -> bool:
        """Take paths only."""
        return isinstance(value, Path)


class Parsed(Reader):
    """A class with a class method ``parse``; one that is also a number takes numbers from a file.

    If values have a method ``relative_to(folder)``, which returns the value with its relative paths starting
    at that folder, they start at the source's folder, when that is known.
    """

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.expected = noun(kind.__name__)
        self.metavar = kind.__name__.upper()
        self.is_number = issubclass(kind, (int, float))

    def read(self, value: object, source: Source) -> Any:
        """Let the class read the text, or make one of the number that stands in the file."""
        read = self._read(value)
        if self.is_number and not _fits(read):
            raise self.misfit(value)
        has_paths = callable(getattr(self.kind, "relative_to", None))
        return read.relative_to(source.folder) if has_paths and source.folder is not None else read

    def _read(self, value: object) -> Any:
        try:
            if isinstance(value, str):
                return self.kind.parse(value)
            if self.is_number and isinstance(value, (int, float)) and not isinstance(value, bool):
                return self.kind(value)
        except (ValueError, OverflowError) as error:  # the latter for what no number of the kind can hold
            raise (Misfit(str(error)) if str(error) else self.misfit(value)) from error
        raise self.misfit(value)

    def holds(self, value: object) -> bool:
        """Take instances of the class."""
        return isinstance(value, self.kind)

    def within(self, limits: Limits) -> Reader:
        """Limit it, if it is a number."""
        return Limited(self, limits) if self.is_number else super().within(limits)


def _fits(number: float) -> bool:
    """Tell whether a number is one that a file of TOML, or a message to another process, can hold."""
    return -(2**63) <= number < 2**63 if isinstance(number, int) else math.isfinite(number)


class Choice(Reader):
    """One of a few values, each with the text that stands for it.

    ``by_text`` says that a file has the text too, not the value: the members of an enumeration have no
    other form there.
    """

    def __init__(self, members: Mapping[str, object], *, by_text: bool) -> None:
        self.members = members
        self.by_text = by_text
        self.choices = tuple(members)
        self.metavar = "|".join(members)
        self.expected = listed(members)

    def read(self, value: object, source: Source) -> Any:
        """Find the member by its text, or by itself, type included, so that ``true`` is not 1."""
        for text, member in self.members.items():
            written = text if source.text or self.by_text else member
            if value == written and type(value) is type(written):
                return member
        raise self.misfit(value)

    def holds(self, value: object) -> bool:
        """Take the members."""
        return any(value == member and type(value) is type(member) for member in self.members.values())

    def text(self, value: Any) -> str:
        """Return the text of the member that this is."""
        return next(text for text, member in self.members.items() if member == value)
