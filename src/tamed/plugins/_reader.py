"""Readers: how a value of one type is read from what was given, whatever it was given in.

There are two kinds of source. In a *text* source (the command line, the environment) everything is a text
or a list of texts, so numbers and truth values are read from text. In a deployment file values have types
of their own, which have to be right: ``"10000"`` is no number there. Each reader says in words what it
expects, so that the same mistake has the same message wherever it is made.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

from tamed.plugins._limits import Limits
from tamed.plugins._words import shown


class Misfit(ValueError):
    """A value does not fit: ``why`` says what was expected.

    ``at`` is the place inside of the option's value, such as ``[1]`` or ``.PATH``; empty for the whole.
    """

    def __init__(self, why: str, at: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.at = at

    def inside(self, place: str) -> "Misfit":
        """Return the same misfit, as seen from the value around it."""
        return Misfit(self.why, place + self.at)


class Source(NamedTuple):
    """Where a value comes from: whether it is text, and the folder where relative paths start."""

    text: bool
    folder: Path | None = None


class Reader(ABC):
    """Reads the values of one type."""

    expected: str
    """What is expected, with its article: ``a whole number``."""
    metavar: str = ""
    """What stands for a value in the help text."""
    choices: tuple[str, ...] = ()
    """All the texts that are accepted; empty when there are too many to list."""
    many: bool = False
    """Whether a text source gives it a list of texts."""
    boolean: bool = False
    """Whether a flag for it needs no value."""
    path: bool = False
    """Whether values are files or folders."""

    @abstractmethod
    def read(self, value: object, source: Source) -> Any:
        """Return the value that was meant; raise Misfit when it is none."""

    @abstractmethod
    def holds(self, value: object) -> bool:
        """Tell whether a value is one that ``read`` could have returned."""

    def text(self, value: Any) -> str:
        """Return a value as one would give it on the command line."""
        return str(value)

    def within(self, limits: Limits) -> "Reader":
        """Return a reader that takes no other numbers; raise TypeError if there are none in this type."""
        raise TypeError(f"there is no number in it to be {limits}")

    def misfit(self, value: object) -> Misfit:
        """Return the error for a value that does not fit."""
        return Misfit(f"expected {self.expected}, got {shown(value)}")
