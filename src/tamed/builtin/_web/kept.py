"""A cache of served files, which saves a thread to open them again, and the making of an answer.

Those would take several times as long as the rest of the work for a small file. Each request still checks,
in the event loop, whether the file has changed: the kernel has the name of a recently served file in memory.
A file that was changed just before it was read is not cached: it may change again within the same tick of
the file system's clock.
"""

import os
import time
from typing import Final, NamedTuple

__all__ = ["KeptFile", "KeptFiles", "identity_of"]

_SETTLED: Final = 2.0
"""Seconds after which a further change gives a file another modification time."""


class KeptFile(NamedTuple):
    """A cache entry."""

    identity: tuple[int, ...]
    """The result of `identity_of`."""
    content: bytes
    """All of it, if ``has_content``."""
    has_content: bool
    headers: list[tuple[bytes, bytes]]
    """The headers of the answer to an unconditional request."""


class KeptFiles:
    """A bounded cache of files by path; the oldest entries are dropped first.

    A file is not cached if it was changed less than ``settled`` seconds ago.
    """

    def __init__(
        self, most_files: int = 1024, most_bytes: int = 4 * 1024 * 1024, settled: float = _SETTLED
    ) -> None:
        self._settled = settled
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._files: dict[str, KeptFile] = {}
        self._bytes = 0

    def get(self, path: str) -> KeptFile | None:
        """Return the entry for a path; the file may have changed since."""
        return self._files.get(path)

    def keep(
        self, path: str, found: os.stat_result, content: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Cache a file, unless it was changed just now. ``content`` is empty unless the file is small."""
        self._forget(path)
        if time.time() - found.st_ctime < self._settled:
            return
        self._files[path] = KeptFile(identity_of(found), content, len(content) == found.st_size, headers)
        self._bytes += len(content)
        while len(self._files) > self._most_files or self._bytes > self._most_bytes:
            self._forget(next(iter(self._files)))

    def _forget(self, path: str) -> None:
        file = self._files.pop(path, None)
        if file is not None:
            self._bytes -= len(file.content)


def identity_of(found: os.stat_result) -> tuple[int, ...]:
    """Return values that change with the file at a path, its content, and its permissions."""
    return found.st_ctime_ns, found.st_ino, found.st_size, found.st_dev
