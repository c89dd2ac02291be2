"""Made files: each says how it was made, and whether somebody has changed it since.

The second line of a made file is a digest of the rest. So a file that was edited by hand is recognised, and
not overwritten, and one that Tamed has made before can be.
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
    """A file for another program: its name, its content without head, and the command that makes it."""

    name: str
    content: str
    command: str

    @property
    def text(self) -> str:
        """The whole file."""
        return f"# Made by: {self.command}\n# Digest: {_digest(self.content)}, for `--check`\n{self.content}"


def differences(files: Sequence[MadeFile], folder: Path) -> list[str]:
    """Return a sentence for each file that is missing in a folder or is not as it would be made now.

    A file that was made before of the same deployment, for the same kind of system, and would not be made now
    is a difference, too.
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
    return found + [f"{path} is left of an earlier export: remove it" for path in _left_over(files, folder)]


def _left_over(files: Sequence[MadeFile], folder: Path) -> list[Path]:
    """Return the files beside these that were made of the same deployment, with other options or before."""
    made = {folder / file.name for file in files}
    origins = {_origin(file.command) for file in files}
    beside = {
        path for parent in {path.parent for path in made} if parent.is_dir() for path in parent.iterdir()
    }
    return [path for path in sorted(beside - made) if _origin_of(path) in origins]


def _origin(command: str) -> tuple[str, ...]:
    """Return the part of a command that says for which system and of which deployment it makes files."""
    words = shlex.split(command)
    return (*words[:3], *words[-1:])


def _origin_of(path: Path) -> tuple[str, ...] | None:
    """Return the same for the command that has made a file; None if it was not made by this module."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with path.open("rb") as file:
            head = _HEAD.match(file.read(_LONGEST_HEAD).decode(errors="replace"))
        return None if head is None else _origin(head["command"])
    except (OSError, ValueError):  # it cannot be read, or its first line is no command
        return None


def write_files(files: Sequence[MadeFile], folder: Path, *, force: bool) -> list[Path]:
    """Write files into a folder, which is made if it is missing; return those that were not so before.

    A file that was not made by this module, or was changed since, is overwritten with ``force`` only: raises
    CannotCreate, before anything is written. Raises as `from_creation_error` does if one cannot be written.
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
            new.replace(path)  # whoever reads it meanwhile has the old one or the new one
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise from_creation_error(str(path), error, "name another folder with --to") from error
    return [path for path, _ in stale]


def is_untouched(text: str) -> bool:
    """Return whether a file was made by this module and not changed since."""
    head = _HEAD.match(text)
    return head is not None and head["digest"] == _digest(text[head.end() :])


def text_of(path: Path) -> str | None:
    """Return the text of a file, None if there is nothing, and an empty text for what is no file, as a link.

    So a link is never replaced without ``force``. Raises as `from_os_error` does.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return ""
        return path.read_bytes().decode("utf-8", errors="replace")  # as it is: line ends count, too
    except (FileNotFoundError, NotADirectoryError):  # the folder may be a file: that shows when it is made
        return None
    except OSError as error:
        raise from_os_error(f"cannot read {path}", error) from error


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
