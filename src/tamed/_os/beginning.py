"""What the interpreter had when the command began, which imports this module first, and the way back there.

A process that is forked deep inside of the command goes back by `Unwind`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["MODULES", "PATH", "Unwind"]

MODULES = frozenset(sys.modules)
"""The names of the modules that were loaded."""
PATH = tuple(sys.path)
"""The folders of modules, usually with that of the command's script as the first."""


class Unwind(BaseException):
    """Raised in a forked process, for the outermost function to call ``rest``, with no frames but its own."""

    def __init__(self, rest: Callable[[], NoReturn]) -> None:
        super().__init__()
        self.rest = rest
