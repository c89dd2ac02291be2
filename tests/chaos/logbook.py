"""The log as it is written: every line is read once, whatever becomes of its file or its disk."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.referee import Referee

__all__ = ["Logbook"]

_LINE = re.compile(r"\S{29} (?:\[\d+\] )?INFO chaos: <(\S+) (\d+) (x*)>")
_LOST = re.compile(r"(\d+) (?:lines? (?:was|were)|records were) lost|(\d+) lines? lost")


class _File:
    """A log file that is held open, and how far it was read."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest_at = 0

    def lines(self) -> Iterator[str]:
        """Return the whole lines that are new. One that is written by half may yet be taken back."""
        while data := os.pread(self.descriptor, 1 << 20, self._rest_at):
            whole = data[: data.rfind(b"\n") + 1]
            if not whole:
                return
            self._rest_at += len(whole)
            yield from whole.decode(errors="replace").splitlines()


class Logbook:
    """Reads a log and those that were rotated away from it, and has the numbers of its lines checked.

    All of it goes into ``copy`` too, for whoever looks for a cause. ``lost`` is how many lines are missing,
    ``said`` how many the log itself says are.
    """

    def __init__(self, log: Path, referee: Referee, copy: Path) -> None:
        self._log = log
        self._copy = copy.open("w")
        self._referee = referee
        self._folders: dict[tuple[int, int], int] = {}
        self._files: dict[tuple[int, int], _File] = {}
        self._last: dict[str, int] = {}
        self._orphans: set[int] = set()
        self._missed: list[str] = []
        self.lost = 0
        self.said = 0

    def read(self) -> None:
        """Take all that is new, the oldest first."""
        folders = self._every_folder()
        self._read_files()
        # The latest folder is listed first: once there is a file in it, no other comes into those before.
        found = [self._new_files(folder) for folder in reversed(folders)]
        for descriptor in (each for files in reversed(found) for each in files):
            status = os.fstat(descriptor)
            self._files[status.st_dev, status.st_ino] = _File(descriptor)
        if any(found):
            self._read_files()

    def _is_log(self, name: str) -> bool:
        """Return whether a file is the log, or was: not that of the events beside it."""
        rest = name.removeprefix(self._log.name)
        return rest != name and not rest.startswith(".events")

    def orphaned(self, pid: int) -> None:
        """Take note that a process has lost its supervisor: what it logs from then on has no reader."""
        self._orphans.add(pid)

    def close(self) -> None:
        """Read what is left, and tell what is missing."""
        self.read()
        for name, number in self._referee.noted.items():
            missing = number - self._last.get(name, 0)
            if missing > 0 and int(name.split("-")[1]) not in self._orphans:
                self.lost += missing
                self._missed.append(name)
        self._referee.noted.clear()
        self._referee.figures["log lines"] += sum(self._last.values())
        self._referee.figures["log lines lost, and said so"] += min(self.lost, self.said)
        self._referee.expect(
            self.lost <= self.said,
            f"{self.lost} lines of the log are missing, it says {self.said}; the last of {self._missed}",
        )
        self._copy.close()
        for each in self._files.values():
            os.close(each.descriptor)
        for descriptor in self._folders.values():
            os.close(descriptor)

    def _every_folder(self) -> list[int]:
        """Return the log's folder, last, and those that it was before a disk was put there or taken away."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._log.parent, os.O_RDONLY | os.O_DIRECTORY)
            status = os.fstat(descriptor)
            key = status.st_dev, status.st_ino
            if key in self._folders:
                os.close(descriptor)
                descriptor = self._folders.pop(key)
            self._folders[key] = descriptor
        return list(self._folders.values())

    def _new_files(self, folder: int) -> list[int]:
        """Open all files that are new, the oldest first, also if the log is rotated meanwhile."""
        while True:
            found = self._opened(folder)
            if self._keys(folder) <= self._files.keys() | found.keys():
                return list(found.values())
            for descriptor in found.values():
                os.close(descriptor)

    def _opened(self, folder: int) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for name in self._names(folder):
            try:
                descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
            except FileNotFoundError:  # rotated meanwhile
                continue
            status = os.fstat(descriptor)
            key = status.st_dev, status.st_ino
            if key in self._files or key in found:
                os.close(descriptor)
            else:
                found[key] = descriptor
        return found

    def _keys(self, folder: int) -> set[tuple[int, int]]:
        keys = set()
        for name in self._names(folder):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder)
                keys.add((status.st_dev, status.st_ino))
        return keys

    def _names(self, folder: int) -> list[str]:
        """Return the names of the log's files, the oldest first."""
        return sorted(filter(self._is_log, os.listdir(folder)), key=_age, reverse=True)

    def _read_files(self) -> None:
        """Take what is new in the files, the oldest first, and those of the folder of now last.

        They are read in the other direction: what was written before it is then there as well.
        """
        places = {device: place for place, (device, _) in enumerate(self._folders)}
        files = sorted(self._files.items(), key=lambda item: places.get(item[0][0], -1))
        new = []
        for key, file in reversed(files):
            is_gone = os.fstat(file.descriptor).st_nlink == 0
            new.append((key, file, is_gone, list(file.lines())))
        for key, file, is_gone, lines in reversed(new):
            for line in lines:
                self._take(line)
            if is_gone:  # and was before it was read to its end, so nothing can come any more
                os.close(file.descriptor)
                del self._files[key]

    def _take(self, line: str) -> None:
        self._copy.write(f"{line}\n")
        if said := _LOST.search(line):
            self.said += int(said[1] or said[2])
        if "<" not in line or " chaos: " not in line:
            return
        found = _LINE.fullmatch(line)
        if found is None or len(found[3]) != int(found[2]) % 200:
            self._referee.violation(f"a torn line in the log: {line!r}")
            return
        name, number = found[1], int(found[2])
        last = self._last.get(name, 0)
        self._referee.expect(number > last, f"line {number} of {name} comes after {last} in the log")
        self.lost += max(0, number - last - 1)
        self._last[name] = max(number, last)


def _age(name: str) -> int:
    found = re.search(r"\.(\d+)$", name)
    return int(found[1]) if found else 0
