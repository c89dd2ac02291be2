"""Leaving the frames of a program, in a process that was forked deep inside of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["Unwind"]


class Unwind(BaseException):
    """Raised in a forked process, for the outermost function to call ``rest``, with no frames but its own."""

    def __init__(self, rest: Callable[[], NoReturn]) -> None:
        super().__init__()
        self.rest = rest
