"""The old files of a log: their names and numbers, and their compression.

A forked child compresses them, without an exec. A new interpreter would take 14 ms of CPU instead of 3, and
2.9 MB instead of 1.3; and neither it nor gzip(1) exists for a daemon after a chroot. The child only reads,
compresses and writes, which is safe even if the parent has threads.
"""

import os
import signal
import stat
from typing import NamedTuple

from tamed._os.descriptors import close_all
from tamed._os.fork import fork_own
from tamed._os.trust import TO_CREATE, TO_READ
from tamed.errors import SystemRefused
from tamed.log.plan import Rotation

__all__ = ["Archive", "Compressor", "Dropped"]


_GZIP = 16 + 15  # a window of 32 KiB, in the format of gzip (zlib.h, deflateInit2)
_CHUNK = 1 << 18
_NICENESS = 10


class Dropped(NamedTuple):
    """Old files that were removed although ``keep_for`` protects them.

    Their number, their size in bytes, and the time of the oldest one's last line, in seconds since the epoch.
    """

    files: int
    size: int
    oldest: float


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
