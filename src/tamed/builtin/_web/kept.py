"""Files that were served before: neither has a thread to open them again, nor an answer to be made.

That would take several times as long as all else that a small file needs. Whether a file has changed is
looked up for each request all the same, in the event loop: the kernel has the name of a file that was just
served in memory. A file that was changed just before it was read is not kept: it may change again within the
same tick of the file system's clock.
"""

import os
import time
from typing import Final, NamedTuple

__all__ = ["KeptFile", "KeptFiles", "identity_of"]

_SETTLED: Final = 2.0
"""Seconds after which another change of a file gives it another time of change."""


class KeptFile(NamedTuple):
    """What is known of a file."""

    identity: tuple[int, ...]
    """That of `identity_of`."""
    content: bytes
    """All of it, if ``has_content``."""
    has_content: bool
    headers: list[tuple[bytes, bytes]]
    """Those of the answer to a request without conditions."""


class KeptFiles:
    """A bounded number of files by their paths; the first to come are the first to go.

    A file is not kept if it was changed less than ``settled`` seconds ago.
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
        """Return what is known of the file at a path, which may have changed since."""
        return self._files.get(path)

    def keep(
        self, path: str, found: os.stat_result, content: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Keep a file, unless it was changed just now. Its content is empty if it is not a small one."""
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
    """Return what changes with the file at a path, its content, and its permissions."""
    return found.st_ctime_ns, found.st_ino, found.st_size, found.st_dev
