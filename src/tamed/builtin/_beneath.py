"""Files below a directory, and no others, whatever their names are and whoever changes them meanwhile.

A path is gone along by hand, a component at a time: each is looked at from the descriptor of the directory
that it is in, and opened with ``O_NOFOLLOW``. A symbolic link is read and gone along in the same way, and
``..`` in it is a step back to a directory that was passed. So the kernel is never asked for a path, and there
is no moment between looking and opening in which a directory could be exchanged for a link: what was looked
at is what is opened, or the opening fails. ``openat2(RESOLVE_BENEATH)`` does the same on Linux (openat2(2)).

What it cannot know: a hard link, or a mount, in the directory is a part of the directory.
"""

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Beneath", "Place"]

_MOST_LINKS: Final = 40
"""As many as Linux goes along (path_resolution(7))."""

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNSPEAKABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and what stands for bytes that are no UTF-8 (PEP 383)."""

_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Place(NamedTuple):
    """Where something is, or could be made: a name in a directory that is open."""

    directory: int
    name: str

    def stat(self) -> os.stat_result:
        """Look at what is there, itself and not what it is a link to."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)


class Beneath:
    """A directory out of which nothing leads; see above for how that is kept.

    Paths are texts with slashes, from the directory; empty components and ``.`` in them mean nothing and
    ``..`` is never there. Links are gone along if all of their way is in the directory: an absolute one is
    not. With ``dot_files`` False, nothing whose name begins with a dot is there, nor behind a link.

    What is not there, in any of these senses, raises FileNotFoundError; what the system refuses raises the
    OSError that it gives. All methods look at the disk: call them in a thread.
    """

    def __init__(self, folder: Path, *, dot_files: bool = False) -> None:
        self.folder = folder
        self._dot_files = dot_files

    def check(self) -> None:
        """Raise OSError if the directory is not there, or may not be listed."""
        os.close(os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def stat(self, path: str) -> os.stat_result:
        """Look at a file or directory, through links; anything else raises PermissionError."""
        with self.place(path) as place:
            found = place.stat()
        if not stat.S_ISDIR(found.st_mode):
            _demand_regular(found, path)
        return found

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a regular file; return its descriptor.

        With ``O_CREAT`` in the flags it is made if it is not there, and with ``O_TRUNC`` emptied once it is
        known to be a regular file. Anything else (a directory, a pipe, a device) raises IsADirectoryError or
        PermissionError, and is not opened.
        """
        with self.place(path) as place:
            try:
                _demand_regular(place.stat(), path)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
            descriptor = os.open(place.name, (flags & ~os.O_TRUNC) | _FILE, 0o666, dir_fd=place.directory)
        try:
            _demand_regular(os.fstat(descriptor), path)
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def entries(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Return the files and directories in a directory, by name, with what links lead to.

        Names that are no UTF-8, or have control characters in them, are left out: no client could say them.
        """
        with self.place(path) as place:
            descriptor = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | _FILE, dir_fd=place.directory)
        try:
            with os.scandir(descriptor) as scan:
                names = [entry.name for entry in scan if self._is_listed(entry.name)]
            looked_at = ((name, self._look(Place(descriptor, name), path)) for name in sorted(names))
            return [(name, found) for name, found in looked_at if found is not None]
        finally:
            os.close(descriptor)

    @contextmanager
    def place(self, path: str, *, through_link: bool = True) -> Iterator[Place]:
        """Go to where a path ends; that it exists is certain for all but its last component.

        With ``through_link`` False a link at the end is the place, not what it leads to, as removals want it.
        """
        way = [part for part in path.split("/") if part not in {"", "."}]
        if ".." in way:
            raise _not_there(path)
        passed = [os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            yield self._go(passed, deque(way), path, through_link)
        except ValueError:  # a zero byte, or what cannot be encoded
            raise _not_there(path) from None
        finally:
            for descriptor in passed:
                os.close(descriptor)

    def _go(self, passed: list[int], way: deque[str], path: str, through_link: bool) -> Place:
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
            place = Place(passed[-1], name)
            if (way or through_link) and _is_link(place, may_be_missing=not way):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                way.extendleft(reversed(_steps(place, path)))
            elif way:
                passed.append(os.open(name, _DIRECTORY, dir_fd=passed[-1]))
            else:
                return place
        return Place(passed[-1], ".")

    def _look(self, place: Place, folder: str) -> os.stat_result | None:
        try:
            found = place.stat()
            if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
                return found
            return self.stat(f"{folder}/{place.name}")
        except OSError:  # it is gone, or a link that leads out
            return None

    def _is_shown(self, name: str) -> bool:
        return self._dot_files or not name.startswith(".")

    def _is_listed(self, name: str) -> bool:
        return self._is_shown(name) and not _UNSPEAKABLE.search(name)


def _is_link(place: Place, *, may_be_missing: bool) -> bool:
    try:
        return stat.S_ISLNK(place.stat().st_mode)
    except FileNotFoundError:
        if may_be_missing:
            return False
        raise


def _steps(link: Place, path: str) -> list[str]:
    target = os.readlink(link.name, dir_fd=link.directory)
    if target.startswith("/"):
        raise _not_there(path)
    return [part for part in target.split("/") if part not in {"", "."}]


def _demand_regular(found: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise PermissionError(errno.EACCES, "it is no regular file", path)


def _not_there(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
