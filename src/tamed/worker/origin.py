"""The files that a process was loaded from, and whether a new interpreter would load others.

A template forks processes long after it has loaded the interpreter and Tamed. After an installation of
another release, and when a link in a path leads elsewhere, a template has to be replaced.

Files are not compared with a recorded state: recording some hundred files would slow down each start. The
time of the last change of an inode (``st_ctime``, inode(7)) serves as well: no program can set it back, and
installing a file from an archive, which may keep an old ``st_mtime``, updates it.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tamed._os.proc import process_begin

__all__ = ["Origin"]

_LAG = 0.02  # seconds by which a file's time may lag behind the clock


class Origin:
    """The origin of this process. Create it early: a link that changes before is not noticed."""

    def __init__(self) -> None:
        self._began = process_begin(os.getpid()) - _LAG
        self._places = _places()

    def loaded_since(self, moment: float) -> None:
        """Take into account that modules were loaded before this process was forked, since this moment."""
        self._began = min(self._began, moment - _LAG)

    @property
    def has_changed(self) -> bool:
        """Whether a file that was loaded has changed, a package was installed, or a path leads elsewhere."""
        return self._places != _places() or any(map(self._is_newer, _files()))

    def _is_newer(self, file: Path) -> bool:
        status = _status(file)
        return status is None or status.st_ctime >= self._began


def _places() -> list[tuple[int, int]]:
    """Return the device and inode numbers of the folders of the interpreter and the modules."""
    folders = (Path(sys.executable).parent, *map(Path, sys.path))
    return [(status.st_dev, status.st_ino) for each in folders if (status := _status(each)) is not None]


def _files() -> Iterator[Path]:
    yield Path(sys.executable)
    for module in list(sys.modules.values()):
        if isinstance(file := getattr(module, "__file__", None), str):
            yield Path(file)
    for name in sys.path:
        if name.endswith("-packages") and (folder := Path(name)).is_dir():
            yield folder  # installing a package changes it
            yield from folder.glob("*.pth")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
