"""The log file: whole lines only, rotation between lines, and a full disk does not stop the daemon.

The supervisor is the only writer of the file. Nothing raises once it is open: the service is more important
than its log. Lines that cannot be written are counted, and one line reports their number and time as soon as
there is room for it. They are not kept for later: a disk may stay full for a long time, and the service needs
the memory.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tamed._os.identity import Identity, acting_for
from tamed.errors import TamedError, reason
from tamed.log.folder import Archive, Compressor, explain, open_directory, open_log
from tamed.log.outbox import Loss
from tamed.log.plan import Rotation, Sink
from tamed.log.record import Record

__all__ = ["Appender", "LogFile"]

_RETRY_AFTER = 60.0  # seconds until a rotation or compression that failed is tried again
_MODE = 0o640


def _notice(text: str) -> bytes:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S%z')} tamed: {text}\n".encode()


class LogFile(Sink):
    """A log file with one writer, this one.

    Opening it raises CannotCreate, PermissionRefused or SystemRefused, and ConfigurationError for an invalid
    rotation; after that no method raises. ``owner`` is the user who owns the file. While this process is
    root, it accesses the file as that user, who must be able to write in the directory: see
    ``Identity.can_write_in``. ``notice`` formats a line about the log itself. ``clock`` returns the seconds
    since the epoch.
    """

    takes_origin = False

    def __init__(
        self,
        path: Path,
        rotation: Rotation = Rotation(),  # noqa: B008 - it is immutable
        *,
        owner: Identity | None = None,
        notice: Callable[[str], bytes] = _notice,
        clock: Callable[[], float] = time.time,
    ) -> None:
        rotation.check()
        self.path = path
        self.rotation = rotation
        self._owner = owner
        self._notice = notice
        self._clock = clock
        self._loss = Loss(clock)
        self._notices: list[bytes] = []  # yet to be written
        self._troubles: dict[str, str] = {}  # failing operations, each with the reason
        self._not_before: dict[str, float] = {}  # the time of the next attempt
        self._directory, file = self._open()
        self._root = Path("/").stat()
        self._folder_mode = os.fstat(self._directory).st_mode & 0o7777
        self._archive = Archive(self._directory, path.name)
        self._file = Appender(file)
        self._seen = self._size()  # the size of the file when its name was last checked
        self._is_gone = False  # the file was deleted: nothing written into it can be read
        self._is_in_child = False
        self._compressor = Compressor(self._archive) if rotation.compress else None
        self._period = self._period_of_file()

    def _open(self) -> tuple[int, int]:
        """Open the directory, and the file in it."""
        try:
            with acting_for(self._owner):
                directory = open_directory(self.path)
                try:
                    return directory, open_log(self.path, directory, _MODE)
                except BaseException:
                    os.close(directory)
                    raise
        except OSError as error:
            raise explain(self.path, error) from error

    @property
    def lost(self) -> int:
        """The number of lines that could not be written since the file was opened."""
        return self._loss.total

    @property
    def trouble(self) -> str:
        """A sentence about the current failures; empty if there are none."""
        lost = [f"log {self.path}: {self._loss.sentence()}"] if self._loss else []
        return "; ".join([*(self._sentence(what, why) for what, why in self._troubles.items()), *lost])

    def write(self, records: Sequence[Record]) -> None:
        """Write the texts of records."""
        self.append([record.text + b"\n" for record in records])

    def append(self, records: Sequence[bytes]) -> None:
        """Write records; each is one or more whole lines, which stay together in one file."""
        now = self._clock()
        if self._is_in_child and self._may("reopen"):
            self._attempt("reopen", self._follow)
        filled = self._size()
        if filled and not self._is_due(filled, sum(map(len, records)), now):
            self._put(records)  # usually all of them fit
            return
        batch: list[bytes] = []
        for record in records:
            if self._is_due(filled, len(record), now):
                self._put(batch)
                batch = []
                self._attempt("rotate", self._rotate)
                filled = self._size()
            if not filled:
                self._period = self.rotation.period(now)
            batch.append(record)
            filled += len(record)
        self._put(batch)

    def reopen(self) -> str:
        """Open the path again, or create a new file: logrotate has renamed the old one.

        A missing directory is created again. If that fails, lines are written to the old file. If that one
        was removed, they are lost and counted. Return the reason of a failure, or an empty text.
        """
        if self._directory >= 0:
            self._attempt("reopen", self._reopen)
        why = self._troubles.get("reopen", "")
        return self._sentence("reopen", why) if why else ""

    def housekeep(self) -> None:
        """Replace a deleted file, report lost lines if there is room again, and compress an old file.

        The new file gets the lines that were written since the last call. If another file has the name now,
        that one is used. A file that was only renamed stays in use until `reopen`, which the program that
        renamed it will request. A directory that was removed or renamed is created again.
        """
        if self._directory < 0:
            return
        self._attempt("reopen", self._follow)
        self._put([])
        period = self.rotation.period(self._clock())
        if period < self._period - 1:  # a clock that was ahead was set right; summer time ends by one at most
            self._period = period
        if self._compressor is not None and self._may("compress"):
            self._attempt("compress", self._compressor.start)

    @property
    def child(self) -> int:
        """The pid of the running compressor, for the reaper; 0 if there is none."""
        return 0 if self._compressor is None else self._compressor.pid

    def child_ended(self, pid: int, status: int) -> bool:
        """Finish a compressor that was reaped with this wait status; return False for another child."""
        compressor = self._compressor
        if compressor is None or pid != compressor.pid:
            return False
        self._attempt("compress", lambda: compressor.ended(status))
        return True

    def disown(self) -> None:
        """In a forked child: only append from now on, to the file that has the name.

        The parent rotates and compresses. The file is opened again, because a child must not truncate lines
        of the parent when the disk is full.
        """
        self.rotation = Rotation(None, None, None)
        self._compressor = None
        self._is_in_child = True
        self._loss = Loss(self._clock)
        self._notices.clear()
        self._file = Appender(self._file.fileno())  # without a pending truncation
        self._attempt("reopen", self._reopen)

    def export(self) -> list[Any]:
        """Return the loss that the next program has to report, as plain data."""
        return self._loss.export()

    def resume(self, left: Sequence[Any]) -> None:
        """Add the loss that the previous program had yet to report."""
        self._loss.resume(left)

    def close(self) -> None:
        """Close the file. A file that is being compressed stays uncompressed. Idempotent."""
        if self._directory < 0:
            return
        self._put([])
        if self._compressor is not None:
            self._attempt("compress", self._compressor.stop)
        self._file.close()
        os.close(self._directory)
        self._directory = -1

    def _put(self, batch: Sequence[bytes]) -> None:
        """Write the pending notices, and then records."""
        notices = self._notices.copy()
        if self._loss:
            notices.append(self._notice(self._loss.sentence()))
        if not notices and not batch:
            return
        if self._is_gone:
            self._lose(batch, "the file was removed")
            return
        count, failure = self._file.append([*notices, *batch])
        del self._notices[:count]
        if count >= len(notices):
            self._loss.reported()
        if failure is not None:
            self._lose(batch[max(count - len(notices), 0) :], reason(failure))

    def _lose(self, records: Sequence[bytes], why: str) -> None:
        if lines := sum(record.count(b"\n") for record in records):
            self._loss.add(lines, why)

    def _is_due(self, filled: int, more: int, now: float) -> bool:
        return self.rotation.is_due(filled, more, self._period, now) and self._may("rotate")

    def _rotate(self) -> None:
        current = os.fstat(self._file.fileno())
        if not self._archive.is_file(self.path.name, current):
            self._reopen()  # another program has replaced the file: do not rotate that one
            return
        dropped = self._archive.make_room(self.rotation, current.st_size, self._clock())
        if dropped.files:
            self._note(dropped.sentence(self.path, self.rotation.max_use))
        mode = current.st_mode & 0o777
        self._go_on_in(self._archive.begin_file(self.path, mode, keeps_old=not self.rotation.keeps_none))

    def _reopen(self) -> None:
        try:
            self._find_folder()
            descriptor = open_log(self.path, self._directory, _MODE)
        except (OSError, TamedError):
            if self._has_no_name():
                self._lose([self._take_tail()], "the file was removed")
                self._is_gone = True
            raise
        tail = self._take_tail() if self._has_no_name() else b""
        self._go_on_in(descriptor)
        self._is_gone = False
        self._put([tail] if tail else [])

    def _follow(self) -> None:
        if self._folder_is_other() or self._is_abandoned():
            self._reopen()
        else:
            self._seen = self._size()

    def _find_folder(self) -> None:
        """Open the directory of the path, and create it if it does not exist."""
        if not self._folder_is_other():
            return
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.parent.chmod(self._folder_mode)
            self._note(f"directory {self.path.parent} was missing and was created again")
        directory = open_directory(self.path)
        os.dup2(directory, self._directory, inheritable=False)  # the archive uses the same descriptor
        os.close(directory)

    def _folder_is_other(self) -> bool:
        """Return whether the path's directory is not the open one, or does not exist."""
        if not os.path.samestat(self._root, Path("/").stat()):
            return False  # after a chroot the path is another one
        try:
            return not os.path.samestat(self.path.parent.stat(), os.fstat(self._directory))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    def _has_no_name(self) -> bool:
        return os.fstat(self._file.fileno()).st_nlink == 0

    def _take_tail(self) -> bytes:
        """Return the data written since the name was last checked: about one second of lines."""
        size = self._size()
        seen, self._seen = min(self._seen, size), size
        return os.pread(self._file.fileno(), size - seen, seen)

    def _go_on_in(self, descriptor: int) -> None:
        self._file.close()
        self._file = Appender(descriptor)
        self._seen = self._size()
        self._period = self._period_of_file()

    def _is_abandoned(self) -> bool:
        """Return whether the file was removed, or another file has its name now."""
        return self._has_no_name() or self._archive.is_other(self.path.name, os.fstat(self._file.fileno()))

    def _period_of_file(self) -> int:
        """Return the period of the last write, so that a daemon that was down at midnight rotates, too."""
        status = os.fstat(self._file.fileno())
        return self.rotation.period(status.st_mtime if status.st_size else self._clock())

    def _size(self) -> int:
        try:
            return self._file.size()
        except OSError:
            return 0  # closed, or its disk is gone: the write reports it

    def _may(self, what: str) -> bool:
        # If it is longer until then than any wait, the clock was set back.
        return not 0 < self._not_before.get(what, 0.0) - self._clock() <= _RETRY_AFTER

    def _attempt(self, what: str, call: Callable[[], None]) -> None:
        """Call ``call``; log a failure once, until it succeeds or fails for another reason."""
        try:
            with acting_for(self._owner):
                call()
        except (OSError, TamedError) as error:
            why = reason(error)
            self._not_before[what] = self._clock() + _RETRY_AFTER
            if self._troubles.get(what) != why:
                self._troubles[what] = why
                self._note(self._sentence(what, why))
        else:
            self._troubles.pop(what, None)
            self._not_before.pop(what, None)

    def _note(self, text: str) -> None:
        self._notices.append(self._notice(text))

    def _sentence(self, what: str, why: str) -> str:
        return f"cannot {what} the log {self.path}: {why}"


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
        count = length = 0
        while length + len(records[count]) <= written:
            length += len(records[count])
            count += 1
        if written > length:
            self._end = os.lseek(self._descriptor, 0, os.SEEK_CUR) - (written - length)
            with suppress(OSError):
                self._truncate()
        return count, failure

    def close(self) -> None:
        """Close the file; a later `append` fails."""
        with suppress(OSError):
            self._truncate()
        os.close(self._descriptor)
        self._descriptor = -1

    def _truncate(self) -> None:
        if self._end is None:
            return
        if self.size() > self._end:
            os.ftruncate(self._descriptor, self._end)
        self._end = None


def _write(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write the data, or the part that fits; the error of a short write is only raised by the next try."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:] if written else data)
    except OSError as error:
        return written, error
    return written, None
