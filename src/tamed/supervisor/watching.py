"""Reloading at each change of the application's files, for development."""

from collections.abc import Callable

from tamed.errors import reason
from tamed.supervisor.helpers import HelperProcess, HelperProcesses
from tamed.supervisor.platform import Platform

__all__ = ["Watching"]

_WATCHER = "tamed.supervisor.watcher"
_MOST = 50_000  # files


class Watching:
    """Watches the files that workers report, in a helper process, and calls ``reload`` at a change."""

    def __init__(self, helpers: HelperProcesses, platform: Platform, reload: Callable[[], object]) -> None:
        self._helpers = helpers
        self._platform = platform
        self._reload = reload
        self._seen: dict[str, int] = {}
        self._helper: HelperProcess | None = None
        self._is_over = False

    def add(self, files: dict[str, int]) -> None:
        """Watch these files, too; each with its modification time when it was read.

        A report that exceeds the limit is ignored: no application reads so many files.
        """
        is_too_much = len(self._seen) + len(files) > _MOST
        if not files.keys() <= self._seen.keys() and not self._is_over and not is_too_much:
            self._seen = files | self._seen
            self._send()

    def end(self) -> None:
        """Stop watching."""
        self._is_over = True
        if self._helper is not None:
            self._helpers.kill(self._helper)

    def export(self) -> dict[str, int]:
        """Return the files and their modification times, as data."""
        return self._seen

    def _send(self) -> None:
        """Start another watcher, with the modification times that the previous one has seen."""
        former, self._helper = self._helper, None
        if former is not None:
            self._helpers.kill(former)
        try:
            self._helper = self._helpers.send(_WATCHER, {"seen": self._seen}, self._ended, timeout=None)
        except OSError as error:
            self._platform.log("ERROR", f"files cannot be watched: {reason(error)}")

    def _ended(self, helper: HelperProcess) -> None:
        if helper is not self._helper or self._is_over:
            return
        match helper.answer:
            case {"changed": str(file), "seen": dict(seen)}:
                self._platform.log("INFO", f"{file} has changed")
                self._seen = seen
                self._send()  # before the reload reads the files: a change from now on is another change
                self._reload()
            case _:
                self._helper = None
                self._platform.log(
                    "ERROR", f"files are not watched any more: the watcher ended with {helper.code}"
                )
