"""The secrets that this process has read, which are masked in its output.

A secret gets into a log by accident: an error of a library contains the address with its password, or a
request is logged completely. So code that writes a text for people or to a file passes it through
`Secrets.hidden`. This is a safety net, not a guarantee: a secret that was encoded, truncated or printed by
other means is not masked.
"""

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["SECRETS", "Secrets"]

_SHORTEST: Final = 4  # characters: shorter ones would match everywhere
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
        """Mask this secret from now on, unless it has fewer than four characters."""
        fresh = {text for text in _forms(secret) if len(text) >= _SHORTEST} - self._known
        if fresh:
            self._known |= fresh
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def hidden(self, text: str) -> str:
        """Return a text with each secret replaced by three asterisks."""
        return text if self._pattern is None else self._pattern.sub(_INSTEAD, text)

    def forget(self) -> None:
        """Forget all secrets, as tests do between two cases."""
        self._known.clear()
        self._pattern = None


SECRETS: Final = Secrets()
"""The secrets of this process; a forked child inherits them."""


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms of a secret in a text: plain, quoted, and line by line."""
    import json  # lazy import: every process loads this module, and few have a secret

    for text in (secret, *(line for line in secret.splitlines() if len(line) >= _SHORTEST_LINE)):
        yield text
        yield repr(text)[1:-1]
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
