"""Reloading at each change of the application's files, for development.

A helper process watches them: ``python -m tamed.supervisor.watcher NAME``. It waits until a file changes,
and then ends. Its order has the files, each with the last known time of its modification. New Python files in
the same folders count as changes.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from pathlib import Path

from tamed.errors import reason
from tamed.ipc.channel import answer_order
from tamed.ipc.message import Message, read_object
from tamed.supervisor.helpers import HelperProcess, HelperProcesses
from tamed.supervisor.platform import Platform

__all__ = ["Watching", "main"]

_WATCHER = "tamed.supervisor.watcher"
_MOST = 50_000  # files
_LOOK = 500  # milliseconds between two checks that the supervisor runs
_SETTLE = 100  # milliseconds in which changes are merged


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

        A watcher that has died is replaced. A report that exceeds the limit is ignored: no application reads
        so many files.
        """
        is_too_much = len(self._seen) + len(files) > _MOST
        if not files or self._is_over or is_too_much:
            return
        if self._helper is None:
            self._seen = self._seen | files  # what has changed meanwhile has just been read
            self._send()
        elif not files.keys() <= self._seen.keys():
            self._seen = files | self._seen
            self._send()

    def pause(self) -> None:
        """Stop watching until files are added again."""
        self._seen = {}
        helper, self._helper = self._helper, None
        if helper is not None:
            self._helpers.kill(helper)

    def end(self) -> None:
        """Stop watching for good."""
        self._is_over = True
        self.pause()

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
                    "ERROR",
                    f"files are not watched until the next reload: the watcher ended with {helper.code}",
                )


def main() -> None:
    """Answer one order, in the helper process."""
    answer_order(_wait)


def _wait(order: Message) -> Message:
    """Wait for a change; return the changed file, and the state of all files."""
    from watchfiles import watch  # lazy import: the supervisor must not load it

    seen: dict[str, int] = read_object(order, "seen")
    files = [Path(file) for file in seen]
    folders = {file.parent for file in files if file.parent.is_dir()}
    parent = os.getppid()
    looks = watch(
        *folders, recursive=False, rust_timeout=_LOOK, yield_on_timeout=True, debounce=_SETTLE, step=50
    )
    state = _state(files, folders)
    for _ in chain([None], looks):  # at once, and then at each change and interval
        if os.getppid() != parent:
            sys.exit()
        latest = _state(files, folders)
        changed = [file for file in {**state, **latest, **seen} if _differs(file, latest, seen, state)]
        if changed:
            return {"changed": changed[0], "seen": latest}
    sys.exit("the watch has ended")


def _differs(file: str, latest: dict[str, int], seen: dict[str, int], state: dict[str, int]) -> bool:
    """Return whether a file has changed: since it was seen, or if it was not, since the watch began."""
    return latest.get(file) != seen.get(file, state.get(file))


def _state(files: Collection[Path], folders: Iterable[Path]) -> dict[str, int]:
    """Return the modification time of each file, by its path; 0 for one that is gone, which may come back."""
    beside = (file for folder in folders for file in folder.glob("*.py"))
    found = dict.fromkeys(map(str, files), 0)
    for file in {*files, *beside}:
        try:
            found[str(file)] = file.stat().st_mtime_ns
        except (OSError, ValueError):  # it is gone, or its name is invalid
            continue
    return found


if __name__ == "__main__":
    main()
