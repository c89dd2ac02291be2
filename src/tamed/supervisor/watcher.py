"""The watcher: a process that waits until a file changes, and then ends.

The supervisor runs it as ``python -m tamed.supervisor.watcher NAME``. Its order has the files to watch, each
with the last known time of its modification. New Python files in the same folders count as changes.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from watchfiles import watch

from tamed.ipc.channel import answer_order
from tamed.ipc.message import Message, read_object

__all__ = ["main"]

_LOOK = 500  # milliseconds between two checks that the supervisor runs
_SETTLE = 100  # milliseconds in which changes are merged


def main() -> None:
    """Answer one order."""
    answer_order(_wait)


def _wait(order: Message) -> Message:
    """Wait for a change; return the changed file, and the state of all files."""
    seen: dict[str, int] = read_object(order, "seen")
    files = [Path(file) for file in seen]
    folders = {file.parent for file in files if file.parent.is_dir()}
    parent = os.getppid()
    looks = watch(
        *folders, recursive=False, rust_timeout=_LOOK, yield_on_timeout=True, debounce=_SETTLE, step=50
    )
    state = _state(files, folders)
    for _ in _first_now(looks):
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


def _first_now(looks: Iterable[object]) -> Iterator[object]:
    """Yield at once, and then whenever something has changed or time has passed."""
    yield None
    yield from looks


def _state(files: Iterable[Path], folders: Iterable[Path]) -> dict[str, int]:
    """Return the modification time of each existing file, by its path."""
    beside = (file for folder in folders for file in folder.glob("*.py"))
    found = {}
    for file in {*files, *beside}:
        try:
            found[str(file)] = file.stat().st_mtime_ns
        except (OSError, ValueError):  # it is gone, or its name is invalid
            continue
    return found


if __name__ == "__main__":
    main()
