"""Readers of single values: texts, numbers, truth values, paths, choices and whatever reads itself."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tamed.plugins._reader import Misfit, Reader, Source
from tamed.plugins._words import listed, noun


class Scalar(Reader):
    """A text, a number or a truth value."""

    _WORDS: ClassVar[dict[type, tuple[str, str]]] = {
        str: ("a text", "TEXT"),
        int: ("a whole number", "NUMBER"),
        float: ("a number", "NUMBER"),
        bool: ("true or false", ""),
    }
    _TRUTH: ClassVar[dict[object, bool]] = {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }
    KINDS: ClassVar[Collection[object]] = _WORDS.keys()

    def __init__(self, kind: type) -> None:
        self.kind = self.plain = kind
        self.expected, self.metavar = self._WORDS[kind]
        self.boolean = kind is bool

    def read(self, value: object, source: Source) -> Any:
        """Read a number or a truth value from text, or take one as it is."""
        import msgspec

        if self.boolean and source.text and isinstance(value, str):
            value = self._TRUTH.get(value.lower(), value)
        try:
            read: Any = msgspec.convert(value, self.kind, strict=not source.text or self.boolean)
        except msgspec.ValidationError:
            raise self.misfit(value) from None
        if self.kind is float and not math.isfinite(read):
            raise self.misfit(value)
        return read

    def holds(self, value: object) -> bool:
        """Take whole numbers for any number, as the type system does, but no truth value for a number."""
        if self.kind is float:
            return isinstance(value, (float, int)) and not isinstance(value, bool)
        return isinstance(value, self.kind) and (self.boolean or not isinstance(value, bool))

    def text(self, value: Any) -> str:
        """Write truth values in lower case."""
        return str(value).lower() if self.boolean else str(value)


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
        self.plain = next((base for base in (int, float, str) if issubclass(kind, base)), None)

    def read(self, value: object, source: Source) -> Any:
        """Let the class read the text, or make one of the number that stands in the file."""
        read = self._read(value)
        has_paths = callable(getattr(self.kind, "relative_to", None))
        return read.relative_to(source.folder) if has_paths and source.folder is not None else read

    def _read(self, value: object) -> Any:
        try:
            if isinstance(value, str):
                return self.kind.parse(value)
            if self.is_number and isinstance(value, (int, float)) and not isinstance(value, bool):
                return self.kind(value)
        except ValueError as error:
            raise (Misfit(str(error)) if str(error) else self.misfit(value)) from error
        raise self.misfit(value)

    def holds(self, value: object) -> bool:
        """Take instances of the class."""
        return isinstance(value, self.kind)


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
