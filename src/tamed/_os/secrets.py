"""The secrets that this process has read, so that they can be kept out of what it tells others.

A secret gets into a log by accident: an error of a library has the address with its password, a request is
logged as a whole. So whoever writes a text for people or for a file asks `Secrets.hidden` for it. This is a
net, not a wall: a secret that was encoded, cut or printed by other means is not recognised.
"""

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["SECRETS", "Secrets"]

_SHORTEST: Final = 4  # characters: a shorter one would be found everywhere
_SHORTEST_LINE: Final = 8
_INSTEAD: Final = "***"


class Secrets:
    """Secrets, and the texts in which they appear."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def remember(self, secret: str) -> None:
        """Hide this secret from now on, unless it has less than four characters."""
        fresh = {text for text in _forms(secret) if len(text) >= _SHORTEST} - self._known
        if fresh:
            self._known |= fresh
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def hidden(self, text: str) -> str:
        """Return a text with three asterisks in place of each secret."""
        return text if self._pattern is None else self._pattern.sub(_INSTEAD, text)

    def forget(self) -> None:
        """Forget all, in a process that begins anew, as a test does."""
        self._known.clear()
        self._pattern = None


SECRETS: Final = Secrets()
"""Those of this process; a forked child has those of its parent."""


def _forms(secret: str) -> Iterator[str]:
    """Yield how a secret appears in a text: as it is, inside of quotes, and line by line."""
    import json  # lazy import: every process loads this module, and few have a secret

    for text in (secret, *(line for line in secret.splitlines() if len(line) >= _SHORTEST_LINE)):
        yield text
        yield repr(text)[1:-1]
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
