"""What a flood of clients causes is logged once, and then as a number."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

__all__ = ["QuietCount"]

_QUIET: Final = 1.0
"""Seconds for which more of the same is only counted after one was logged."""


class QuietCount:
    """Tells of the first of many, and of those that follow as a number, once a second.

    ``tell`` is given what is counted, and ``tell_more`` how many there were since the last time.
    """

    def __init__(self, tell: Callable[[Any], object], tell_more: Callable[[int], object]) -> None:
        self._tell = tell
        self._tell_more = tell_more
        self._unsaid = 0
        self._quiet: asyncio.TimerHandle | None = None

    def add(self, one: Any) -> None:
        """Count one, and tell of it if there was none for a while."""
        if self._quiet is not None:
            self._unsaid += 1
            return
        self._tell(one)
        self._be_quiet()

    def close(self) -> None:
        """Say what was not said yet: there will be no more. May be called again."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        self._say()

    def _be_quiet(self) -> None:
        self._quiet = asyncio.get_running_loop().call_later(_QUIET, self._look)

    def _look(self) -> None:
        """Let the next one be told at once, if there was none for a while."""
        self._quiet = None
        if self._say():
            self._be_quiet()

    def _say(self) -> bool:
        """Tell how many there were since the last time; return whether there were any."""
        unsaid, self._unsaid = self._unsaid, 0
        if unsaid:
            self._tell_more(unsaid)
        return bool(unsaid)
