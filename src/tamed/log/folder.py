"""The folder of a log: its file is opened safely, and the old files are numbered and compressed.

A daemon that is started by root writes into directories that its user owns. That user may have put a symbolic
link to ``/etc/shadow`` or a hard link there. Those must not be opened, and no file is ever given to that user
with chown: root takes the user's identity while it opens the file (see ``acting_for``).

A forked child compresses the old files, without an exec. A new interpreter would take 14 ms of CPU instead of
3, and 2.9 MB instead of 1.3; and neither it nor gzip(1) exists for a daemon after a chroot. The child only
reads, compresses and writes, which is safe even if the parent has threads.
"""

import errno
import os
import signal
import stat
import time
from pathlib import Path
from typing import NamedTuple

from tamed._os.descriptors import close_all
from tamed._os.fork import fork_own
from tamed._os.trust import TO_CREATE, TO_READ
from tamed.errors import CannotCreate, PermissionRefused, SystemRefused, TamedError, from_creation_error
from tamed.log.plan import Rotation

__all__ = ["Archive", "Compressor", "Dropped", "explain", "open_directory", "open_log"]

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # not O_PATH: the directory is listed
_GZIP = 16 + 15  # a window of 32 KiB, in the format of gzip (zlib.h, deflateInit2)
_CHUNK = 1 << 18
_NICENESS = 10


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
        is_stream = path.parts[:2] in (("/", "dev"), ("/", "proc"))  # /dev/stdout, for example
        remedy = "log to stderr" if is_stream else "use the file that it points to"
        return CannotCreate(what, "it is a symbolic link", remedy)
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


class Dropped(NamedTuple):
    """Old files that were removed although ``keep_for`` protects them.

    Their number, their size in bytes, and the time of the oldest one's last line, in seconds since the epoch.
    """

    files: int
    size: int
    oldest: float

    def sentence(self, path: Path, most: int | None) -> str:
        """Return the notice for the log at ``path``, whose old files may take ``most`` bytes."""
        files = "an old file" if self.files == 1 else f"{self.files} old files"
        last = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(self.oldest))
        return (
            f"removed {files} of the log {path}, {self.size} bytes, the oldest written until {last}: "
            f"old files may take {most} bytes; allow more with --log-max-use"
        )


class Archive:
    """The old files of one log: ``NAME.1`` is the youngest; compressed ones end in ``.gz``.

    ``directory`` is a descriptor, which is valid after a chroot too. All methods may raise ``OSError``.
    """

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self.name = name

    def files(self) -> list[tuple[int, str]]:
        """List the old files, each with its number, the youngest first."""
        with os.scandir(self._directory) as entries:
            found = [(self._number(entry.name), entry.name) for entry in entries]
        return sorted(one for one in found if one[0])

    def make_room(self, rotation: Rotation, coming: int, now: float) -> Dropped:
        """Free the number 1 for a file of ``coming`` bytes; return the young files that were removed.

        The oldest files are removed first, which makes room on a full disk.
        """
        files = self.files()
        moving = _up_to_gap(files)
        found = {entry: self._status(entry) for _, entry in files}
        used = coming + sum(status.st_size for status in found.values() if status is not None)
        dropped: list[os.stat_result] = []
        for number, entry in reversed(files):
            new_number = number + 1 if (number, entry) in moving else number
            status = found[entry]
            if status is not None and rotation.keep is not None and new_number > rotation.keep:
                is_young = rotation.is_young(status.st_mtime, now)
                if not is_young or (rotation.max_use is not None and used > rotation.max_use):
                    self.remove(entry)
                    used -= status.st_size
                    dropped += [status] * is_young
                    continue
            if new_number != number:
                suffix = entry.removeprefix(self.entry(number))
                self.rename(entry, self.entry(new_number, suffix))
        oldest = min((status.st_mtime for status in dropped), default=0.0)
        return Dropped(len(dropped), sum(status.st_size for status in dropped), oldest)

    def begin_file(self, path: Path, mode: int, *, keeps_old: bool) -> int:
        """Create a new file for the log at ``path``, and rename the current one; return its descriptor.

        It is created beside the current one, so if a step fails there is still a file to write to. Raises as
        `open_log` does, too.
        """
        fresh = f".{self.name}.new"
        self.remove(fresh)
        descriptor = open_log(path, self._directory, mode, fresh)
        try:
            if keeps_old:
                self.rename(self.name, self.entry(1))
            self.rename(fresh, self.name)
        except OSError:
            os.close(descriptor)
            self.remove(fresh)
            raise
        return descriptor

    def entry(self, number: int, suffix: str = "") -> str:
        """Return the name of the old file with this number."""
        return f"{self.name}.{number}{suffix}"

    def open(self, entry: str, flags: int) -> int:
        """Open a file of the directory; only the owner can read a new one until its mode is changed."""
        return os.open(entry, flags, 0o600, dir_fd=self._directory)

    def is_file(self, entry: str, file: os.stat_result | None) -> bool:
        """Return whether a name in the directory is this file."""
        found = self._status(entry)
        return found is not None and file is not None and os.path.samestat(found, file)

    def is_regular(self, entry: str) -> bool:
        """Return whether a name in the directory is a regular file, and not a link."""
        found = self._status(entry)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_other(self, entry: str, file: os.stat_result) -> bool:
        """Return whether a name in the directory exists and is not this file."""
        found = self._status(entry)
        return found is not None and not os.path.samestat(found, file)

    def rename(self, old: str, new: str) -> None:
        """Rename a file of the directory."""
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def remove(self, entry: str) -> None:
        """Remove a file of the directory if it is there."""
        try:
            os.unlink(entry, dir_fd=self._directory)
        except FileNotFoundError:
            return

    def _status(self, entry: str) -> os.stat_result | None:
        try:
            return os.stat(entry, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _number(self, entry: str) -> int:
        """Return the number of an old file of this log, 0 for any other entry."""
        if not entry.startswith(f"{self.name}."):
            return 0
        number = entry[len(self.name) + 1 :].removesuffix(".gz")
        is_ours = number.isascii() and number.isdigit() and not number.startswith("0")
        return int(number) if is_ours else 0


def _up_to_gap(files: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the files to rename so that number 1 is free: those before the first free number."""
    numbers = {number for number, _ in files}
    free = next(number for number in range(1, len(numbers) + 2) if number not in numbers)
    return [one for one in files if one[0] < free]


class Compressor:
    """Turns the old files of one archive into ``.gz`` files. All methods may raise ``OSError``."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._hidden = f".{archive.name}.gz"
        self.pid = 0  # pid of the running child
        self._source: os.stat_result | None = None

    def start(self) -> None:
        """Compress the youngest uncompressed file, unless a child is running."""
        if self.pid:
            return
        self._archive.remove(self._hidden)  # left by a killed supervisor
        for _, entry in self._archive.files():
            if not entry.endswith(".gz") and self._start(entry):
                return

    def ended(self, status: int) -> None:
        """Finish after the child was reaped with this wait status; raise SystemRefused if it failed."""
        self.pid = 0
        try:
            if status:
                raise SystemRefused("the compressor failed", f"wait status {status}")
            self._replace()
        finally:
            self._archive.remove(self._hidden)

    def stop(self) -> None:
        """Kill the running child, if there is one; the file stays uncompressed."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
            self._archive.remove(self._hidden)

    def _start(self, entry: str) -> bool:
        """Start with a file; return False unless it is a regular file, as others may write in the folder."""
        if not self._archive.is_regular(entry):
            return False
        source = self._archive.open(entry, TO_READ)
        try:
            self._source = os.fstat(source)
            if not stat.S_ISREG(self._source.st_mode):
                return False
            target = self._archive.open(self._hidden, TO_CREATE)
            try:
                os.fchmod(target, self._source.st_mode & 0o777)
                if os.geteuid() == 0:
                    os.fchown(target, self._source.st_uid, self._source.st_gid)
                self.pid = _fork(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return True

    def _replace(self) -> None:
        """Replace the file with the compressed one, if it was not removed in the meantime."""
        for number, entry in self._archive.files():
            if not entry.endswith(".gz") and self._archive.is_file(entry, self._source):
                self._archive.rename(self._hidden, self._archive.entry(number, ".gz"))
                self._archive.remove(entry)
                return


def _fork(source: int, target: int) -> int:
    """Return the pid of a child that compresses an open file into another one, and exits with 0 if it did."""
    if child := fork_own():
        return child
    status = 1
    try:
        close_all({source, target})
        os.nice(_NICENESS)
        _compress(source, target)
        status = 0
    finally:
        os._exit(status)


def _compress(source: int, target: int) -> None:
    import zlib  # not at the top: few logs are compressed

    packer = zlib.compressobj(wbits=_GZIP)
    offset = 0
    while chunk := os.pread(source, _CHUNK, offset):
        offset += len(chunk)
        _write_all(target, packer.compress(chunk))
    _write_all(target, packer.flush())
    status = os.fstat(source)  # the age of a file is that of its last line
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.fsync(target)


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
