"""Readers of collections and unions: each reads its parts with other readers."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tamed._os.text import value_text
from tamed.plugins._readers import InvalidValue, Reader, Source
from tamed.plugins.option import Limits


class Many(Reader):
    """A list, a tuple of any length or a set. Text is split at commas; a list of texts is not.

    In a file, a single value means a list of one: ``listen = "localhost:10000"``.
    """

    many = True

    def __init__(self, item: Reader, kind: type[Collection[Any]]) -> None:
        self.item = item
        self.kind: Callable[[Iterable[Any]], Collection[Any]] = kind
        self.type = kind
        self.expected = f"a list, each item {item.expected}"
        self.metavar, self.choices, self.path = item.metavar, item.choices, item.path
        self.schema = {"anyOf": [{"type": "array", "items": item.schema}, item.schema]}

    def read(self, value: object, source: Source) -> Any:
        """Read each item; an error has the item's index."""
        if not source.text and not isinstance(value, list):
            return self.kind([self.item.read(value, source)])
        return self.kind(
            _inside(f"[{index}]", self.item, item, source)
            for index, item in enumerate(self.items(value, source))
        )

    def items(self, value: object, source: Source) -> Sequence[object]:
        """Return the items, not yet read."""
        if source.text and isinstance(value, str):
            return [item for item in map(str.strip, value.split(",")) if item]
        if not isinstance(value, list):
            raise self.invalid(value)
        return value

    def holds(self, value: object) -> bool:
        """Accept collections of this kind with valid items only."""
        return isinstance(value, self.type) and all(map(self.item.holds, value))

    def text(self, value: Any) -> str:
        """Write the items with commas between them."""
        return ",".join(map(self.item.text, value))

    def within(self, limits: Limits) -> "Many":
        """Limit each item."""
        return Many(self.item.within(limits), self.type)


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
        """Accept dicts with valid values only."""
        return isinstance(value, dict) and all(map(self.item.holds, value.values()))

    def text(self, value: Any) -> str:
        """Write the pairs with commas between them."""
        return ",".join(f"{key}={self.item.text(item)}" for key, item in value.items())

    def within(self, limits: Limits) -> "Pairs":
        """Limit each value."""
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
        self.schema = {"anyOf": [reader.schema for reader in readers]}
        if len(readers) == 1:
            self.choices, self.many, self.boolean = first.choices, first.many, first.boolean
            self.schema = first.schema

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
        """Accept a value that one of the types accepts."""
        return (self.optional and value is None) or any(reader.holds(value) for reader in self.readers)

    def text(self, value: Any) -> str:
        """Write the value by its own type; None is the empty text."""
        return next((reader.text(value) for reader in self.readers if reader.holds(value)), "")

    def within(self, limits: Limits) -> "OneOf":
        """Limit the types that have numbers."""
        limited = [_limited(reader, limits) for reader in self.readers]
        if limited == list(self.readers):
            raise TypeError(f"the type has no number that could be {limits}")
        return OneOf(limited, optional=self.optional)


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
