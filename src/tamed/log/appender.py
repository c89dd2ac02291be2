"""The file that a log is appended to: opened so that nothing else is ever written to, and of whole records.

A daemon that is started by root writes into directories that its user owns. Whatever that user could have
put there, a symbolic link to ``/etc/shadow`` or a hard link, must not be opened, and nothing is ever given to
that user: whoever is root acts as that user meanwhile (see ``acting_for``).
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tamed.errors import CannotCreate, PermissionRefused, TamedError, from_creation_error

__all__ = ["Appender", "explain", "open_directory", "open_log"]

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # O_PATH would do for all but listing it


class Appender:
    """The one writer of a file that is open for appending.

    A write to a full disk may stop in the middle of a record. The file is then cut back to the end of the
    last whole one; where even that fails, it is done before the next write. The length is asked of the
    kernel each time, so others may cut the file to nothing (``copytruncate`` of logrotate). It is asked by
    seeking, which has no effect on a file that is open for appending and takes a fifth of an ``fstat``.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end: int | None = None  # of the last whole record, while there is a piece of one behind it

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._descriptor

    def size(self) -> int:
        """Return how many bytes the file has."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def append(self, records: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Append records; return how many of the first ones are in the file, and what stopped it."""
        try:
            self._mend()
        except OSError as error:
            return 0, error
        written, failure = _write(self._descriptor, b"".join(records))
        if failure is None:
            return len(records), None
        count, length = _whole(records, written)
        if written > length:
            self._end = os.lseek(self._descriptor, 0, os.SEEK_CUR) - (written - length)
            self._try_to_mend()
        return count, failure

    def close(self) -> None:
        """Close the file; what is appended after that is refused."""
        self._try_to_mend()
        os.close(self._descriptor)
        self._descriptor = -1

    def _mend(self) -> None:
        if self._end is None:
            return
        if self.size() > self._end:
            os.ftruncate(self._descriptor, self._end)
        self._end = None

    def _try_to_mend(self) -> None:
        try:
            self._mend()
        except OSError:
            return


def _write(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all of it, or what there is room for; a short write says why only when it is tried again."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:] if written else data)
    except OSError as error:
        return written, error
    return written, None


def _whole(records: Sequence[bytes], written: int) -> tuple[int, int]:
    """Return how many records are whole in the first ``written`` bytes, which are not all, and their size."""
    count = length = 0
    while length + len(records[count]) <= written:
        length += len(records[count])
        count += 1
    return count, length


def open_directory(path: Path) -> int:
    """Open the directory that a log file is in. Raises CannotCreate or PermissionRefused."""
    try:
        return os.open(path.parent, _DIRECTORY)
    except OSError as error:
        raise explain(path, error) from error


def open_log(path: Path, directory: int, mode: int, name: str = "") -> int:
    """Open a log file for appending, making it if need be, and end its last line.

    ``path`` is for messages; the file is ``name``, by default the path's, in the open directory. A new file
    gets ``mode``, whatever the umask. Raises CannotCreate, PermissionRefused or SystemRefused.
    """
    name = name or path.name
    try:
        try:
            descriptor = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, mode, dir_fd=directory)
            is_new = True
        except FileExistsError:
            descriptor = os.open(name, _FLAGS, dir_fd=directory)
            is_new = False
    except OSError as error:
        raise explain(path, error) from error
    try:
        if is_new:
            os.fchmod(descriptor, mode)
        _check(path, os.fstat(descriptor))
        _end_line(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise explain(path, error) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def explain(path: Path, error: OSError) -> TamedError:
    """Turn what the system said about a log file into the error that tells what to do about it."""
    what, why = f"log file {path}", error.strerror or ""
    if error.errno == errno.ELOOP:
        return CannotCreate(what, "it is a symbolic link", "name the file that it points to")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CannotCreate(what, f"there is no directory {path.parent}", "make it, or name another file")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(
            what, _whose(path) or why, "name another file, or start as a user who may write it"
        )
    if error.errno in (errno.EISDIR, errno.ENXIO):
        return CannotCreate(what, "it is no regular file", "name another one, or log to stderr")
    return from_creation_error(what, error, "name another file")


def _whose(path: Path) -> str:
    """Say that a file belongs to somebody else; nothing if it does not, or if that cannot be told."""
    try:
        owner = path.lstat().st_uid
    except OSError:
        return ""
    return (
        ""
        if owner == os.geteuid()
        else f"it belongs to user {owner}, and user {os.geteuid()} may not write it"
    )


def _check(path: Path, status: os.stat_result) -> None:
    what = f"log file {path}"
    if not stat.S_ISREG(status.st_mode):
        raise CannotCreate(what, "it is no regular file", "name another one, or log to stderr")
    if status.st_nlink > 1:
        raise CannotCreate(
            what, "the file has another name too (a hard link)", "remove it, or name another one"
        )


def _end_line(descriptor: int) -> None:
    """End a line that was cut off when the machine went down, so that no new one is glued to it."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        try:
            os.write(descriptor, b"\n")
        except OSError:
            return  # a full disk keeps no service from starting
