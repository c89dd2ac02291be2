"""Reloading whenever a file of the application changes, for those who work on it."""

from collections.abc import Callable

from tamed.errors import reason
from tamed.supervisor.helpers import Errand, Errands
from tamed.supervisor.platform import Station

__all__ = ["Watching"]

_WATCHER = "tamed.supervisor.watcher"
_MOST = 50_000  # files


class Watching:
    """Has a process watch the files that workers say they have read, and calls ``reload`` at a change."""

    def __init__(self, errands: Errands, station: Station, reload: Callable[[], object]) -> None:
        self._errands = errands
        self._station = station
        self._reload = reload
        self._seen: dict[str, int] = {}
        self._errand: Errand | None = None
        self._is_over = False

    def add(self, files: dict[str, int]) -> None:
        """Watch these files, too; each with the time at which it was written last, when it was read.

        No application has read so many that they are too many; one that says so is not heeded.
        """
        is_too_much = len(self._seen) + len(files) > _MOST
        if not files.keys() <= self._seen.keys() and not self._is_over and not is_too_much:
            self._seen = files | self._seen
            self._send()

    def end(self) -> None:
        """Watch no more."""
        self._is_over = True
        if self._errand is not None:
            self._errands.recall(self._errand)

    def export(self) -> dict[str, int]:
        """Return what was seen of the files, as data."""
        return self._seen

    def resume(self, seen: dict[str, int]) -> None:
        """Go on watching where the program before has stopped, if it did."""
        self.add(seen)

    def _send(self) -> None:
        """Have another process watch, which knows what the one before it has seen."""
        former, self._errand = self._errand, None
        if former is not None:
            self._errands.recall(former)
        try:
            self._errand = self._errands.send(_WATCHER, {"seen": self._seen}, self._ended, timeout=None)
        except OSError as error:
            self._station.say("ERROR", f"files cannot be watched: {reason(error)}")

    def _ended(self, errand: Errand) -> None:
        if errand is not self._errand or self._is_over:
            return
        match errand.answer:
            case {"changed": str(file), "seen": dict(seen)}:
                self._station.say("INFO", f"{file} has changed")
                self._seen = seen
                self._send()  # before anything reads the files: what changes from now on is another change
                self._reload()
            case _:
                self._errand = None
                self._station.say("ERROR", f"files are watched no more: the watcher ended with {errand.code}")
