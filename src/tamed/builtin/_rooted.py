"""Access to the files below a directory only, for any path, even while files are being renamed.

A path is resolved here, a component at a time: each is examined from the descriptor of the directory that it
is in, and opened with ``O_NOFOLLOW``. A symbolic link is read and resolved in the same way, and ``..`` in it
is a step back to a directory that was passed. So the kernel never resolves a path, and a directory cannot be
exchanged for a link between check and open: the examined file is opened, or the open fails.
``openat2(RESOLVE_BENEATH)`` does the same (openat2(2)), but cannot hide names behind links.

A hard link, or a mount, in the directory counts as a part of the directory.
"""

import asyncio
import errno
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

from tamed.errors import from_os_error
from tamed.service.service import Service

__all__ = ["DirEntry", "DirectoryService", "RootedDirectory", "open_in_thread"]

T = TypeVar("T")

_MOST_LINKS: Final = 40
"""The limit of Linux (path_resolution(7))."""

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_DOT_FILE: Final = "/."

_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and the surrogates of bytes that are not UTF-8 (PEP 383)."""


class DirEntry(NamedTuple):
    """A name in an open directory, which may exist or not."""

    directory: int
    name: str

    def stat(self) -> os.stat_result:
        """Return the status of the entry itself, not of what it is a link to."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)


class RootedDirectory:
    """A directory that no path can leave; see the top of this file.

    Paths are texts with slashes, relative to the directory; empty components and ``.`` are ignored, and
    ``..`` does not exist. A link is followed if every step of it is in the directory, so an absolute one is
    not. With ``dot_files`` False, names that begin with a dot do not exist, not even behind a link.

    For a path that does not exist by these rules FileNotFoundError is raised, and the system's OSError for
    other failures. All methods access the disk: call them in a thread.
    """

    def __init__(self, folder: Path, *, dot_files: bool = False) -> None:
        self.folder = folder
        self._folder = os.fspath(folder)  # to make it a text each time would be 2 % of a small file
        self._dot_files = dot_files

    def check(self) -> None:
        """Raise OSError if the directory does not exist, or may not be listed."""
        os.close(os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def stat(self, path: str) -> os.stat_result:
        """Return the status of a file or directory, through links; PermissionError for anything else."""
        found = self._plain_stat(path)
        if found is not None:
            return found
        with self.resolve(path) as entry:
            found = entry.stat()
        if not stat.S_ISDIR(found.st_mode):
            _require_regular(found, path)
        return found

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a regular file; return its descriptor.

        With ``O_CREAT`` in the flags it is created if it does not exist, and with ``O_TRUNC`` truncated once
        it is known to be a regular file. Anything else (a directory, a pipe, a device) raises
        IsADirectoryError or PermissionError, and is not opened.
        """
        return self.open_with_status(path, flags)[0]

    def open_with_status(self, path: str, flags: int = os.O_RDONLY) -> tuple[int, os.stat_result]:
        """Do the same; return the descriptor, and the status of the file that it is of."""
        descriptor = self._plain_open(path) if flags == os.O_RDONLY else None
        if descriptor is None:
            with self.resolve(path) as entry:
                try:
                    _require_regular(entry.stat(), path)
                except FileNotFoundError:
                    if not flags & os.O_CREAT:
                        raise
                descriptor = os.open(entry.name, (flags & ~os.O_TRUNC) | _FILE, 0o666, dir_fd=entry.directory)
        try:
            found = os.fstat(descriptor)
            _require_regular(found, path)
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, found

    def entries(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Return the files and directories in a directory, sorted, each with its status, through links.

        Names that are not UTF-8 or contain control characters are left out: no client could send them.
        """
        with self.resolve(path) as entry:
            descriptor = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | _FILE, dir_fd=entry.directory)
        try:
            with os.scandir(descriptor) as scan:
                names = [entry.name for entry in scan if self._is_listed(entry.name)]
            statuses = ((name, self._status(DirEntry(descriptor, name), path)) for name in sorted(names))
            return [(name, status) for name, status in statuses if status is not None]
        finally:
            os.close(descriptor)

    @contextmanager
    def resolve(self, path: str, *, through_link: bool = True) -> Iterator[DirEntry]:
        """Resolve a path to an entry in an open directory; only its last component may not exist.

        With ``through_link`` False, a link at the end is not followed; removals need that.
        """
        way = [part for part in path.split("/") if part not in {"", "."}]
        if ".." in way:
            raise _not_there(path)
        passed = [os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            yield self._walk(passed, deque(way), path, through_link)
        except ValueError:  # a zero byte, or a character that cannot be encoded
            raise _not_there(path) from None
        finally:
            for descriptor in passed:
                os.close(descriptor)

    def _plain_stat(self, path: str) -> os.stat_result | None:
        """Return the status of a file with no link on its way, in half the time; None for all else."""
        entry = self._plain_entry(path)
        if entry is None:
            return None
        directory, name = entry
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except (OSError, ValueError):
            return None
        finally:
            os.close(directory)
        return found if stat.S_ISREG(found.st_mode) else None

    def _plain_open(self, path: str) -> int | None:
        """Open such a file for reading; None for all else."""
        entry = self._plain_entry(path)
        if entry is None:
            return None
        directory, name = entry
        try:
            if stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return os.open(name, os.O_RDONLY | _FILE, dir_fd=directory)
        except (OSError, ValueError):
            return None
        finally:
            os.close(directory)
        return None

    def _plain_entry(self, path: str) -> tuple[int, str] | None:
        """Open the directory of a path without dot files; return it and the name, None if it is none."""
        *way, name = path.strip("/").split("/")
        if path.find(_DOT_FILE) >= 0 or path.startswith(".") or not name:
            return None
        directory = -1
        try:
            directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for each in way:
                directory, passed = os.open(each, _DIRECTORY, dir_fd=directory), directory
                os.close(passed)
        except (OSError, ValueError):
            if directory >= 0:
                os.close(directory)
            return None
        return directory, name

    def _walk(self, passed: list[int], way: deque[str], path: str, through_link: bool) -> DirEntry:
        links = 0
        while way:
            name = way.popleft()
            if name == "..":
                if len(passed) == 1:
                    raise _not_there(path)
                os.close(passed.pop())
                continue
            if not self._is_shown(name):
                raise _not_there(path)
            entry = DirEntry(passed[-1], name)
            if (way or through_link) and _is_link(entry, may_be_missing=not way):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                way.extendleft(reversed(_steps(entry, path)))
            elif way:
                passed.append(os.open(name, _DIRECTORY, dir_fd=passed[-1]))
            else:
                return entry
        return DirEntry(passed[-1], ".")

    def _status(self, entry: DirEntry, folder: str) -> os.stat_result | None:
        try:
            found = entry.stat()
            if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
                return found
            return self.stat(f"{folder}/{entry.name}")
        except OSError:  # removed, or a link that leads out
            return None

    def _is_shown(self, name: str) -> bool:
        return self._dot_files or not name.startswith(".")

    def _is_listed(self, name: str) -> bool:
        return self._is_shown(name) and not _UNSENDABLE.search(name)


def _is_link(entry: DirEntry, *, may_be_missing: bool) -> bool:
    try:
        return stat.S_ISLNK(entry.stat().st_mode)
    except FileNotFoundError:
        if may_be_missing:
            return False
        raise


def _steps(link: DirEntry, path: str) -> list[str]:
    target = os.readlink(link.name, dir_fd=link.directory)
    if target.startswith("/"):
        raise _not_there(path)
    return [part for part in target.split("/") if part not in {"", "."}]


def _require_regular(found: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise PermissionError(errno.EACCES, "it is not a regular file", path)


def _not_there(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


async def open_in_thread(make: Callable[[], T], close: Callable[[T], object]) -> T:
    """Call ``make`` in a thread, and return its result; its exceptions are raised here.

    A thread cannot be cancelled. If the caller is cancelled, the result is closed, by the thread if it is
    not available yet. That does not need the event loop, which may have ended by then.
    """
    opening = _Opening(make, close)
    try:
        return await asyncio.get_running_loop().run_in_executor(None, opening.make)
    except asyncio.CancelledError:
        opening.abandon()
        raise


class _Opening(Generic[T]):
    """Closes the result as soon as it is both available and abandoned."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], object]) -> None:
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._made: list[T] = []
        self._abandoned = False

    def make(self) -> T:
        made = self._make()
        with self._lock:
            self._made.append(made)
            abandoned = self._abandoned
        if abandoned:
            self._close(made)
        return made

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            made = self._made.copy()
        for one in made:
            self._close(one)


class DirectoryService(Service):
    """Fails the start, and not each request later, if the directory does not exist or may not be listed.

    ``check`` may require more: it is called in a thread, and raises a TamedError.
    """

    def __init__(
        self, root: RootedDirectory, name: str = "files", check: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name)
        self.root = root
        self._check = check

    @property
    def summary(self) -> str:
        return str(self.root.folder)

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self.root.check)
        except OSError as error:
            what = f"cannot serve {self.root.folder}"
            raise from_os_error(what, error, "use a readable directory") from error
        await asyncio.to_thread(self._check)
