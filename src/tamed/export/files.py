"""Generated files: each contains the command that made it, and a digest that shows later edits.

The second line of a generated file is a digest of the rest. So a file that was edited by hand is recognised
and not overwritten, and one that Tamed generated earlier can be replaced.
"""

import hashlib
import re
import shlex
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tamed.errors import CannotCreate, from_creation_error, from_os_error

__all__ = ["MadeFile", "differences", "is_untouched", "text_of", "write_files"]

_HEAD = re.compile(r"\A# Made by: (?P<command>.*)\n# Digest: (?P<digest>[0-9a-f]{64}), for `--check`\n")
_LONGEST_HEAD = 65536  # bytes


class MadeFile(NamedTuple):
    """A generated file: its name, its content without the head, and the command that makes it."""

    name: str
    content: str
    command: str

    @property
    def text(self) -> str:
        """The complete file."""
        return f"# Made by: {self.command}\n# Digest: {_digest(self.content)}, for `--check`\n{self.content}"


def differences(files: Sequence[MadeFile], folder: Path) -> list[str]:
    """Return a sentence for each file in a folder that is missing or differs from its current content.

    A file that an earlier export of the same deployment, for the same kind of system, left there is a
    difference, too.
    """
    found = []
    for file in files:
        path = folder / file.name
        there = text_of(path)
        if there is None:
            found.append(f"{path} is missing")
        elif there != file.text:
            how = "is out of date" if is_untouched(there) else "was edited by hand, or not made by Tamed"
            found.append(f"{path} {how}")
    return found + [
        f"{path} is left over from an earlier export: remove it" for path in _left_over(files, folder)
    ]


def _left_over(files: Sequence[MadeFile], folder: Path) -> list[Path]:
    """Return other files in the folder that were made from the same deployment."""
    made = {folder / file.name for file in files}
    origins = {_origin(file.command) for file in files}
    beside = {
        path for parent in {path.parent for path in made} if parent.is_dir() for path in parent.iterdir()
    }
    return [path for path in sorted(beside - made) if _origin_of(path) in origins]


def _origin(command: str) -> tuple[str, ...]:
    """Return the part of a command that names the kind of system and the deployment."""
    words = shlex.split(command)
    return (*words[:3], *words[-1:])


def _origin_of(path: Path) -> tuple[str, ...] | None:
    """Return the same for the command that made a file; None if this module did not make it."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with path.open("rb") as file:
            head = _HEAD.match(file.read(_LONGEST_HEAD).decode(errors="replace"))
        return None if head is None else _origin(head["command"])
    except (OSError, ValueError):  # unreadable, or the first line is not a command
        return None


def write_files(files: Sequence[MadeFile], folder: Path, *, force: bool) -> list[Path]:
    """Write files into a folder, which is created if necessary; return the files that changed.

    A file that this module did not make, or that was edited since, is overwritten only with ``force``:
    otherwise raises CannotCreate, before anything is written. Raises as `from_creation_error` does.
    """
    stale = [(folder / file.name, file) for file in files if text_of(folder / file.name) != file.text]
    for path, _ in stale:
        there = text_of(path)
        if there is not None and not force and not is_untouched(there):
            why = "it was edited by hand, or not made by Tamed"
            raise CannotCreate(f"cannot write {path}", why, "move it away, or pass --force")
    for path, file in stale:
        new = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            with new.open("x", encoding="utf-8", newline="") as stream:  # never through another user's link
                stream.write(file.text)
            new.replace(path)  # atomic: readers see the old file or the new one
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise from_creation_error(str(path), error, "use another folder with --to") from error
    return [path for path, _ in stale]


def is_untouched(text: str) -> bool:
    """Return whether this module made a file, and it was not edited since."""
    head = _HEAD.match(text)
    return head is not None and head["digest"] == _digest(text[head.end() :])


def text_of(path: Path) -> str | None:
    """Return the text of a file: None if it does not exist, empty if it is not a file, such as a link.

    So a link is never replaced without ``force``. Raises as `from_os_error` does.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return ""
        return path.read_bytes().decode("utf-8", errors="replace")  # unchanged: line endings count, too
    except (FileNotFoundError, NotADirectoryError):  # the folder may be a file: that shows when it is made
        return None
    except OSError as error:
        raise from_os_error(f"cannot read {path}", error) from error


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
