"""The file that a log is appended to: opened safely, and always with whole records.

A daemon that is started by root writes into directories that its user owns. That user may have put a symbolic
link to ``/etc/shadow`` or a hard link there. Those must not be opened, and no file is ever given to that user
with chown: root takes the user's identity while it opens the file (see ``acting_for``).
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tamed.errors import CannotCreate, PermissionRefused, TamedError, from_creation_error

__all__ = ["Appender", "explain", "open_directory", "open_log"]

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # not O_PATH: the directory is listed


class Appender:
    """The one writer of a file that is open for appending.

    A write to a full disk may stop in the middle of a record. The file is then truncated to the end of the
    last whole record; if that fails, it is done before the next write. The length is read from the kernel
    each time, so that other programs may truncate the file (``copytruncate`` of logrotate). It is read with
    lseek, which has no effect on a file that is open for appending and takes a fifth of an ``fstat``.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end: int | None = None  # of the last whole record, while part of a record is after it

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._descriptor

    def size(self) -> int:
        """Return the size of the file in bytes."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def append(self, records: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Append records; return how many of them are in the file, and the error that stopped it, or None."""
        try:
            self._truncate()
        except OSError as error:
            return 0, error
        written, failure = _write(self._descriptor, b"".join(records))
        if failure is None:
            return len(records), None
        count, length = _whole(records, written)
        if written > length:
            self._end = os.lseek(self._descriptor, 0, os.SEEK_CUR) - (written - length)
            self._try_to_truncate()
        return count, failure

    def close(self) -> None:
        """Close the file; a later `append` fails."""
        self._try_to_truncate()
        os.close(self._descriptor)
        self._descriptor = -1

    def _truncate(self) -> None:
        if self._end is None:
            return
        if self.size() > self._end:
            os.ftruncate(self._descriptor, self._end)
        self._end = None

    def _try_to_truncate(self) -> None:
        try:
            self._truncate()
        except OSError:
            return


def _write(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write the data, or the part that fits; the error of a short write is only raised by the next try."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:] if written else data)
    except OSError as error:
        return written, error
    return written, None


def _whole(records: Sequence[bytes], written: int) -> tuple[int, int]:
    """Return the number and size of the records that are whole in the first ``written`` bytes of several."""
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
    """Open a log file for appending, create it if necessary, and end its last line.

    ``path`` is for messages; the file is ``name``, by default the path's, in the open directory. A new file
    gets ``mode``, regardless of the umask. Raises CannotCreate, PermissionRefused or SystemRefused.
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
    """Turn an OSError about a log file into an error with the remedy."""
    what, why = f"log file {path}", error.strerror or ""
    if error.errno == errno.ELOOP:
        return CannotCreate(what, "it is a symbolic link", "use the file that it points to")
    if error.errno in (errno.EISDIR, errno.ENXIO) or not path.name:  # as of /
        return CannotCreate(what, "it is not a regular file", "use another one, or log to stderr")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CannotCreate(what, f"there is no directory {path.parent}", "create it, or use another file")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(
            what, _foreign_owner(path) or why, "use another file, or start as a user who may write it"
        )
    return from_creation_error(what, error, "use another file")


def _foreign_owner(path: Path) -> str:
    """Return a sentence if a file belongs to another user; empty if not, or if the owner is unknown."""
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
        raise CannotCreate(what, "it is not a regular file", "use another one, or log to stderr")
    if status.st_nlink > 1:
        raise CannotCreate(what, "the file has a second name (a hard link)", "remove it, or use another one")


def _end_line(descriptor: int) -> None:
    """End a line that a crash of the machine truncated, so that the next record begins a new line."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        try:
            os.write(descriptor, b"\n")
        except OSError:
            return  # a full disk must not prevent a service from starting
