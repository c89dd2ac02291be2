"""The declaration of an option: what its type cannot express, such as help text, flags and limits."""

import dataclasses
import enum
import operator
from collections.abc import Callable
from copy import copy
from typing import Any, Final, Literal, NamedTuple

__all__ = ["METADATA", "REQUIRED", "Declaration", "Limits", "Required", "option"]


_CHECKS: Final[dict[str, tuple[Callable[[float, float], bool], str, str]]] = {
    "gt": (operator.gt, "more than", "exclusiveMinimum"),
    "ge": (operator.ge, "at least", "minimum"),
    "lt": (operator.lt, "less than", "exclusiveMaximum"),
    "le": (operator.le, "at most", "maximum"),
}


class Limits(NamedTuple):
    """Bounds of a number, each None if unset: greater than, or equal; less than, or equal."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def hold(self, number: float) -> bool:
        """Return whether a number is within them."""
        return all(_CHECKS[name][0](number, limit) for name, limit in self._given())

    def schema(self) -> dict[str, float]:
        """Return them in the words of JSON Schema."""
        return {_CHECKS[name][2]: limit for name, limit in self._given()}

    def __str__(self) -> str:
        return ", ".join(f"{_CHECKS[name][1]} {limit}" for name, limit in self._given())

    def _given(self) -> list[tuple[str, float]]:
        return [(name, limit) for name, limit in self._asdict().items() if limit is not None]


class Required(enum.Enum):
    """The type of ``REQUIRED``."""

    REQUIRED = enum.auto()


REQUIRED: Final[Literal[Required.REQUIRED]] = Required.REQUIRED
"""The default of an option that must be given."""

METADATA: Final = "tamed.option"
"""The key in a dataclass field's metadata under which its ``Declaration`` is kept."""


class Declaration(NamedTuple):
    """The arguments of ``option``, except the default."""

    help: str = ""
    short: str | None = None
    metavar: str | None = None
    env: bool = True
    secret: bool = False
    limits: Limits = Limits()
    section: str = ""


def option(
    default: Any = REQUIRED,
    help: str = "",  # noqa: A002 - the word that click, argparse and typer have for it
    *,
    short: str | None = None,
    metavar: str | None = None,
    env: bool = True,
    secret: bool = False,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    section: str = "",
) -> Any:
    """Declare an option: a field of a dataclass with a help text, flags and limits.

    Write it in place of the default: ``port: int = option(10000, "The port.", short="p")``.

    ``default`` is a value of the field's type, not a text that has to be converted; a list, a dict or a
    set is copied for each instance. Without a default the option must be given. ``help`` is a sentence.
    ``short`` is the letter of a short flag. ``metavar`` is the placeholder for the value in the help text.
    With ``env=False`` no environment variable sets it. The value of a ``secret`` option is in no message,
    no help text and no ``repr`` of the options; it may be ``file:PATH``, ``credential:NAME``, ``env:NAME`` or
    ``prompt:``, and on the command line it must be. ``gt``, ``ge``, ``lt`` and ``le`` limit the numbers in
    its type: greater than, greater or equal, less than, less or equal. ``section`` is its heading in the
    help text.

    Options are keyword arguments of their class, so those with and without defaults may come in any order.
    Returns a ``dataclasses.field``; it is typed as Any, so type checkers accept it for a field of any type.
    """
    settings: dict[str, Any] = {
        "kw_only": True,
        "repr": not secret,
        "metadata": {
            METADATA: Declaration(help, short, metavar, env, secret, Limits(gt, ge, lt, le), section)
        },
    }
    if isinstance(default, (list, dict, set)):
        settings["default_factory"] = lambda: copy(default)
    elif default is not REQUIRED:
        settings["default"] = default
    return dataclasses.field(**settings)
