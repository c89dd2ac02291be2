"""What the interpreter had when the command began, which imports this module first, and the way back there.

A process that is forked deep inside of the command goes back by `Unwind`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["MODULES", "PATH", "Unwind", "has_options", "leave_command", "words_of"]

MODULES = frozenset(sys.modules)
"""The names of the modules that were loaded."""
PATH = tuple(sys.path)
"""The folders of modules, usually with that of the command's script as the first."""


class Unwind(BaseException):
    """Raised in a forked process, for the outermost function to call ``rest``, with no frames but its own."""

    def __init__(self, rest: Callable[[], NoReturn]) -> None:
        super().__init__()
        self.rest = rest


def has_options() -> bool:
    """Return whether the interpreter was started with options, apart from ``-m tamed``."""
    first = "".join(sys.orig_argv[1:2])
    return first.startswith("-") and sys.orig_argv[1:3] != ["-m", "tamed"]


def leave_command() -> None:
    """Forget the modules of the command, and look for modules where a new interpreter would."""
    for name in [name for name in sys.modules if name.startswith(("tamed.cli", "tamed.control"))]:
        del sys.modules[name]
    script = os.path.dirname(os.path.realpath(sys.argv[0]))  # noqa: PTH120 - as the interpreter does it
    sys.path[:] = PATH[1:] if PATH[:1] == (script,) else PATH


def words_of(module: str, *words: str) -> list[str]:
    """Return what process listings show of a module that is run; empty if this process has no room for it."""
    for program in (sys.executable, os.path.basename(sys.executable)):  # noqa: PTH119 - without pathlib
        command = [program, "-m", module, *words]
        if len(" ".join(command)) <= len(" ".join(sys.orig_argv)):
            return command
    return []
