"""The log file: whole lines only, rotation between them, and a full disk that stops nothing.

The supervisor is the only writer of the file. It calls `LogFile.write` with records, each of them one or more
whole lines that belong together, and `LogFile.housekeep` about once a second. Neither ever raises: a service
is worth more than its log. What could not be written is counted, and one line tells how much it
was and when, as soon as there is room for that line. Nothing is held back for later: how long a disk stays
full nobody knows, and memory is what the service needs.

In a rotation the new file is made first, beside the old one, and the names are changed after that. So if
anything fails there is still a file to write to, and it is said once that rotation does not work.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tamed._os.identity import Identity, acting_for
from tamed.errors import TamedError, reason
from tamed.log.appender import Appender, explain, open_directory, open_log
from tamed.log.archive import Archive, Compressor, Dropped
from tamed.log.outbox import Loss
from tamed.log.plan import Rotation

__all__ = ["LogFile", "remark"]


_PATIENCE = 60.0  # seconds until a rotation or compression that failed is tried again
_AS_DEFAULT = Rotation()


def remark(text: str) -> bytes:
    """Make a line of what the log says about itself."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S%z')} tamed: {text}\n".encode()


class LogFile:
    """A log file with one writer, this one.

    Opening it raises CannotCreate, PermissionRefused or SystemRefused, and ConfigurationError for a
    rotation that makes no sense; after that nothing raises. ``owner`` is the user whose file it is. While
    this process is root, it does all that concerns the file as that user, who must be able to write in the
    directory: see ``Identity.can_write_in``.
    ``comment`` makes a line of what the log says about itself. ``clock`` gives the seconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        rotation: Rotation = _AS_DEFAULT,
        *,
        mode: int = 0o640,
        owner: Identity | None = None,
        comment: Callable[[str], bytes] = remark,
        clock: Callable[[], float] = time.time,
    ) -> None:
        rotation.check()
        self.path = path
        self.rotation = rotation
        self._mode = mode
        self._owner = owner
        self._comment = comment
        self._clock = clock
        self._loss = Loss(clock)
        self._remarks: list[bytes] = []  # yet to be written
        self._troubles: dict[str, str] = {}  # what does not work at the moment, and why
        self._not_before: dict[str, float] = {}  # when that is tried again
        self._directory, file = self._open()
        self._root = Path("/").stat()
        self._folder_mode = os.fstat(self._directory).st_mode & 0o7777
        self._archive = Archive(self._directory, path.name)
        self._file = Appender(file)
        self._seen = self._size()  # how much of the file was there when it was last looked for, and found
        self._is_gone = False  # nobody will ever read what is written into the file
        self._is_childs = False
        self._compressor = Compressor(self._archive) if rotation.compress else None
        self._period = self._period_of_file()

    def _open(self) -> tuple[int, int]:
        """Open the directory, and the file in it."""
        try:
            with acting_for(self._owner):
                directory = open_directory(self.path)
                try:
                    return directory, open_log(self.path, directory, self._mode)
                except BaseException:
                    os.close(directory)
                    raise
        except OSError as error:
            raise explain(self.path, error) from error

    @property
    def lost(self) -> int:
        """How many lines could not be written since the file was opened."""
        return self._loss.total

    @property
    def unreported(self) -> Loss:
        """What was lost, and could not be reported in the log yet."""
        return self._loss

    @property
    def trouble(self) -> str:
        """What does not work at the moment, in a sentence; empty if all does."""
        troubles = [self._sentence(what, why) for what, why in self._troubles.items()]
        if self._loss:
            troubles.append(f"log {self.path}: {self._loss.sentence()}")
        return "; ".join(troubles)

    def write(self, records: Sequence[bytes]) -> None:
        """Write records; each is one or more whole lines, and they stay together in one file."""
        now = self._clock()
        if self._is_childs and self._may("reopen"):
            self._attempt("reopen", self._follow)
        filled = self._size()
        if filled and not self._is_due(filled, sum(map(len, records)), now):
            self._put(records)  # as nearly always: all of them fit
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
        """Go on in the file that has the path now, or in a new one: logrotate has moved the old one away.

        Its directory is made anew if it is gone. If any of that fails, the old file is written on, unless it
        has no name any more: then lines are lost, and counted. Returns why it failed, in a sentence, or an
        empty text.
        """
        if self._directory >= 0:
            self._attempt("reopen", self._reopen)
        why = self._troubles.get("reopen", "")
        return self._sentence("reopen", why) if why else ""

    def housekeep(self) -> None:
        """Do what is due without a line being written. About once a second is right.

        A deleted file is replaced, with what was written into it since the last time, and one whose name was
        given to another file is left for that one; a file that was only renamed is followed until
        `reopen`, since who renamed it is about to ask for that. A directory that was removed or renamed
        is made anew. What was lost is reported if there is room again, and an old file is compressed.
        """
        if self._directory < 0:
            return
        self._attempt("reopen", self._follow)
        self._put([])
        if self._compressor is not None and self._may("compress"):
            self._attempt("compress", self._compressor.start)

    @property
    def child(self) -> int:
        """The pid of the compressor that is at work, for who reaps children; 0 if there is none."""
        return 0 if self._compressor is None else self._compressor.pid

    def child_ended(self, pid: int, status: int) -> bool:
        """Hear that a child was reaped, with its wait status; tell whether it was ours, a compressor.

        Whoever reaps the children of the process says this of each that is nobody else's.
        """
        compressor = self._compressor
        if compressor is None or pid != compressor.pid:
            return False
        self._attempt("compress", lambda: compressor.ended(status))
        return True

    def disown(self) -> None:
        """Only append from now on, in a forked child, to whichever file has the name.

        The parent rotates, and compresses. The file is opened anew, because the child is not to cut off what
        the parent writes, should the disk be full.
        """
        self.rotation = Rotation(None, None, None)
        self._compressor = None
        self._is_childs = True
        self._loss = Loss(self._clock)
        self._remarks.clear()
        self._file = Appender(self._file.fileno())  # that forgets what it was about to cut off
        self._attempt("reopen", self._reopen)

    def close(self) -> None:
        """Close the file. What is being compressed stays as it was. May be called again."""
        if self._directory < 0:
            return
        self._put([])
        if self._compressor is not None:
            self._attempt("compress", self._compressor.stop)
        self._file.close()
        os.close(self._directory)
        self._directory = -1

    def _put(self, batch: Sequence[bytes]) -> None:
        """Write what the log has to say about itself, and then records."""
        said = self._remarks.copy()
        if self._loss:
            said.append(self._comment(self._loss.sentence()))
        if not said and not batch:
            return
        if self._is_gone:
            self._lose(batch, "the file was removed")
            return
        count, failure = self._file.append([*said, *batch])
        del self._remarks[:count]
        if count >= len(said):
            self._loss.reported()
        if failure is not None:
            self._lose(batch[max(count - len(said), 0) :], reason(failure))

    def _lose(self, records: Sequence[bytes], why: str) -> None:
        if lines := sum(record.count(b"\n") for record in records):
            self._loss.add(lines, why)

    def _is_due(self, filled: int, more: int, now: float) -> bool:
        return self.rotation.is_due(filled, more, self._period, now) and self._may("rotate")

    def _rotate(self) -> None:
        current = os.fstat(self._file.fileno())
        if not self._archive.is_file(self.path.name, current):
            self._reopen()  # the name is somebody else's by now: theirs is not ours to rotate
            return
        self._tell_of(self._archive.make_room(self.rotation, current.st_size, self._clock()))
        fresh = f".{self.path.name}.new"
        self._archive.remove(fresh)
        descriptor = open_log(self.path, self._directory, current.st_mode & 0o777, fresh)
        try:
            if not self.rotation.keeps_none:
                self._archive.rename(self.path.name, self._archive.entry(1))
            self._archive.rename(fresh, self.path.name)
        except OSError:
            os.close(descriptor)
            self._archive.remove(fresh)
            raise
        self._go_on_in(descriptor)

    def _tell_of(self, dropped: Dropped) -> None:
        """Have the log report which lines are gone though they were young."""
        if not dropped.files:
            return
        files = "an old file" if dropped.files == 1 else f"{dropped.files} old files"
        last = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(dropped.oldest))
        text = (
            f"removed {files} of the log {self.path}, {dropped.size} bytes, the oldest written until {last}: "
            f"old files may take {self.rotation.max_use} bytes; allow more with --log-max-use"
        )
        self._remarks.append(self._comment(text))

    def _reopen(self) -> None:
        try:
            self._find_folder()
            descriptor = open_log(self.path, self._directory, self._mode)
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
        """Have the directory that the path leads to, which is made if it is not there."""
        if not self._folder_is_other():
            return
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.parent.chmod(self._folder_mode)
            self._remarks.append(self._comment(f"directory {self.path.parent} was gone, and was made anew"))
        directory = open_directory(self.path)
        os.dup2(directory, self._directory, inheritable=False)  # the archive has the number, too
        os.close(directory)

    def _folder_is_other(self) -> bool:
        """Tell whether the path leads to another directory than the one that is open, or to none."""
        if not os.path.samestat(self._root, Path("/").stat()):
            return False  # after a chroot the path means something else
        try:
            return not os.path.samestat(self.path.parent.stat(), os.fstat(self._directory))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    def _has_no_name(self) -> bool:
        return os.fstat(self._file.fileno()).st_nlink == 0

    def _take_tail(self) -> bytes:
        """Return what was written since the file was last found in its place; that is at most a second's."""
        size = self._size()
        seen, self._seen = min(self._seen, size), size
        return os.pread(self._file.fileno(), size - seen, seen)

    def _go_on_in(self, descriptor: int) -> None:
        self._file.close()
        self._file = Appender(descriptor)
        self._seen = self._size()
        self._period = self._period_of_file()

    def _is_abandoned(self) -> bool:
        """Tell whether the file has no name any more, or its name means another file now."""
        current = os.fstat(self._file.fileno())
        return current.st_nlink == 0 or self._archive.is_other(self.path.name, current)

    def _period_of_file(self) -> int:
        """Return the period of the last write, so that a daemon which was down at midnight rotates too."""
        status = os.fstat(self._file.fileno())
        return self.rotation.period(status.st_mtime if status.st_size else self._clock())

    def _size(self) -> int:
        try:
            return self._file.size()
        except OSError:
            return 0  # it is closed, or its disk is gone; writing will tell

    def _may(self, what: str) -> bool:
        return self._clock() >= self._not_before.get(what, 0.0)

    def _attempt(self, what: str, call: Callable[[], None]) -> None:
        """Do what may fail without harm; say so once, until it succeeds or fails for another reason."""
        try:
            with acting_for(self._owner):
                call()
        except (OSError, TamedError) as error:
            why = reason(error)
            self._not_before[what] = self._clock() + _PATIENCE
            if self._troubles.get(what) != why:
                self._troubles[what] = why
                self._remarks.append(self._comment(self._sentence(what, why)))
        else:
            self._troubles.pop(what, None)
            self._not_before.pop(what, None)

    def _sentence(self, what: str, why: str) -> str:
        return f"cannot {what} the log {self.path}: {why}"
