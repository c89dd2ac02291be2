"""Compressing old log files, one at a time, while the supervisor goes on.

The supervisor has one thread and must not wait for a disk or a compressor, so a short-lived child does it.
It is forked and not executed: after a chroot there may be nothing to execute. Without threads that is safe;
the child first lets go of what it inherited, which are locks, sockets, pipes and signal handlers, and ends
without running anything of the parent's.

The child writes a hidden file. When it has ended well, the parent gives that the name of the old file with
``.gz``, whichever number the old file has by then, and removes the old file. So a crash, a kill or a full
disk at any moment loses nothing.

Rejected: a thread, since forking workers beside threads is not safe; and the program ``gzip``, which need
not be there.
"""

import os
import signal
import stat
import zlib

from tamed._fork import fork_own
from tamed.daemon._archive import Archive
from tamed.daemon._descriptors import close_all
from tamed.errors import SystemRefused

__all__ = ["Compressor"]

_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to ask for the format of gzip (zlib.h, deflateInit2)
_CHUNK = 1 << 18
_NICENESS = 10
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Compressor:
    """Turns the old files of one archive into ``.gz`` files. ``OSError`` comes through."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._hidden = f".{archive.name}.gz"
        self.pid = 0  # of the child that is at work
        self._source: os.stat_result | None = None

    def start(self) -> None:
        """Start with the youngest file that is not compressed, unless a child is at work."""
        if self.pid:
            return
        self._archive.remove(self._hidden)  # of a supervisor that was killed
        for _, entry in self._archive.files():
            if not entry.endswith(".gz") and self._start(entry):
                return

    def ended(self, status: int) -> None:
        """Hear that the child was reaped, with its wait status; raise SystemRefused if it failed."""
        self.pid = 0
        try:
            if status:
                raise SystemRefused("the compressor failed", f"wait status {status}")
            self._replace()
        finally:
            self._archive.remove(self._hidden)

    def stop(self) -> None:
        """End the child that is at work, if there is one; the file stays as it was."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
            self._archive.remove(self._hidden)

    def _start(self, entry: str) -> bool:
        """Start with a file; tell whether it is one: others may write in the folder, too."""
        if not self._archive.is_regular(entry):
            return False
        source = self._archive.open(entry, _READ)
        try:
            self._source = os.fstat(source)
            if not stat.S_ISREG(self._source.st_mode):
                return False
            target = self._archive.open(self._hidden, _NEW)
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
        """Put the compressed file in the place of the other, if that was not removed in the meantime."""
        for number, entry in self._archive.files():
            if not entry.endswith(".gz") and self._archive.is_file(entry, self._source):
                self._archive.rename(self._hidden, self._archive.entry(number, ".gz"))
                self._archive.remove(entry)
                return


def _fork(source: int, target: int) -> int:
    child = fork_own()
    if child == 0:
        _be_the_child(source, target)
    return child


def _be_the_child(source: int, target: int) -> None:
    status = 1
    try:
        close_all({source, target})
        os.nice(_NICENESS)
        _compress(source, target)
        status = 0
    finally:
        os._exit(status)


def _compress(source: int, target: int) -> None:
    packer = zlib.compressobj(wbits=_GZIP)
    offset = 0
    while chunk := os.pread(source, _CHUNK, offset):
        offset += len(chunk)
        _write_all(target, packer.compress(chunk))
    _write_all(target, packer.flush())
    status = os.fstat(source)
    os.utime(
        target, ns=(status.st_atime_ns, status.st_mtime_ns)
    )  # it is known by its last line how old it is
    os.fsync(target)


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
