"""How a plugin's author declares an option: a dataclass field with a little more to say."""

import dataclasses
import enum
from copy import copy
from typing import Any, Final, Literal, NamedTuple

from tamed.plugins._limits import Limits


class Required(enum.Enum):
    """The type of ``REQUIRED``."""

    REQUIRED = enum.auto()


REQUIRED: Final[Literal[Required.REQUIRED]] = Required.REQUIRED
"""The default of an option that has none: it must be given."""

METADATA: Final = "tamed.option"
"""The key in a dataclass field's metadata under which its ``Declaration`` is kept."""


class Declaration(NamedTuple):
    """What ``option`` was told, beside the default."""

    help: str = ""
    short: str | None = None
    metavar: str | None = None
    env: bool = True
    secret: bool = False
    limits: Limits = Limits()


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
) -> Any:
    """Declare an option: a field of a dataclass that has more to say than its type.

    It stands where a default does: ``port: int = option(10000, "The port.", short="p")``.

    ``default`` is a value of the field's type, not a text that has to be converted; a list, a dict or a
    set is copied for each instance. Without a default the option must be given. ``help`` is a sentence.
    ``short`` is the letter of a short flag. ``metavar`` stands for the value in the help text. ``env``
    False means that no environment variable sets it. ``secret`` means that its value is in no message,
    no help text and no ``repr`` of the options. ``gt``, ``ge``, ``lt`` and ``le`` limit the numbers in its
    type: greater than, greater or equal, less than, less or equal.

    Options are keyword arguments of their class, so those with and without defaults may come in any order.
    Returns a ``dataclasses.field``; it is typed as Any so that it can stand where a value of any type does.
    """
    settings: dict[str, Any] = {
        "kw_only": True,
        "repr": not secret,
        "metadata": {METADATA: Declaration(help, short, metavar, env, secret, Limits(gt, ge, lt, le))},
    }
    if isinstance(default, (list, dict, set)):
        settings["default_factory"] = lambda: copy(default)
    elif default is not REQUIRED:
        settings["default"] = default
    return dataclasses.field(**settings)
