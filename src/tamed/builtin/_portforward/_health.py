"""Whether an upstream is worth a try: arithmetic with somebody else's clock."""

from typing import Final

__all__ = ["Health"]

_FALL: Final = 2
"""How many failures in a row make an upstream one that is down."""


class Health:
    """Judges an upstream by its last connections, those of clients and those of checks alike.

    After two failures in a row it is down for ``pause`` seconds; then one more failure is enough. The first
    success brings it up. Times are seconds of any clock.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._failures = 0
        self._down_until = 0.0

    def failed(self, now: float) -> bool:
        """Take note of a failure; return whether it is this one that has brought the upstream down."""
        was_up = self._failures < _FALL
        self._failures += 1
        if self._failures < _FALL:
            return False
        self._down_until = now + self._pause
        return was_up

    def succeeded(self) -> bool:
        """Take note of a success; return whether the upstream was down until now."""
        was_down = self._failures >= _FALL
        self._failures = 0
        self._down_until = 0.0
        return was_down

    def down_for(self, now: float) -> float:
        """Return for how many more seconds it is down: 0 if it is worth a try."""
        return max(0.0, self._down_until - now)
