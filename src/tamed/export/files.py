"""Generated files: each contains the command that made it, and a digest that shows later edits.

The second line of a generated file is a digest of the rest. So a file that was edited by hand is recognised
and not overwritten, and one that Tamed generated earlier can be replaced.

Some are YAML, with comments. No library does this: PyYAML writes no comments, which these files have for
everything that needs a reason, and it would bring an unused parser. Only the parts of these files can be
written: mappings, lists, texts, numbers and booleans, in the block style of YAML 1.2. A text is plain only if
every version of YAML reads it as that text, a block if it has several lines, and otherwise quoted as in JSON.
"""

import hashlib
import json
import re
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tamed.errors import CannotCreate, from_creation_error, from_os_error

__all__ = ["MadeFile", "Noted", "Value", "differences", "is_untouched", "text_of", "to_yaml", "write_files"]

_HEAD = re.compile(r"\A# Made by: (?P<command>.*)\n# Digest: (?P<digest>[0-9a-f]{64}), for `--check`\n")
_LONGEST_HEAD = 65536  # bytes

Value: TypeAlias = "str | int | Sequence[Value] | Mapping[str, Value] | Noted"
"""The values that can be written; a bool is an int."""

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*")
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # of YAML 1.1, in any case
_STEP = "  "


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


class Noted(NamedTuple):
    """A value with a comment, which is written above its key or list item."""

    value: "Value"
    comment: str


def to_yaml(document: Mapping[str, "Value"]) -> str:
    """Return a document, without the ``---`` at its beginning."""
    return "".join(f"{line}\n" for line in _mapping(document, ""))


def _mapping(entries: Mapping[str, "Value"], indent: str) -> Iterator[str]:
    for key, entry in entries.items():
        value, comments = _unwrapped(entry, indent)
        yield from comments
        yield from _after(f"{indent}{_text(key, '')}:", value, indent)


def _sequence(entries: Sequence["Value"], indent: str) -> Iterator[str]:
    for entry in entries:
        value, comments = _unwrapped(entry, indent)
        yield from comments
        if isinstance(value, Mapping) and value:  # the first key follows the dash
            lines = list(_mapping(value, indent + _STEP))
            first = next(at for at, line in enumerate(lines) if not line.lstrip().startswith("#"))
            yield from (line.removeprefix(_STEP) for line in lines[:first])
            yield f"{indent}- {lines[first].removeprefix(indent + _STEP)}"
            yield from lines[first + 1 :]
        else:
            yield from _after(f"{indent}-", value, indent)


def _after(start: str, value: "Value", indent: str) -> Iterator[str]:
    """Yield the lines of a value that follows a key or a dash."""
    match value:
        case str() | int():
            yield f"{start} {_scalar(value, indent + _STEP)}"
        case Mapping() if value:
            yield start
            yield from _mapping(value, indent + _STEP)
        case Mapping():
            yield f"{start} {{}}"
        case Sequence() if value and not isinstance(value, Noted):
            yield start
            yield from _sequence(value, indent + _STEP)
        case _:
            yield f"{start} []"


def _unwrapped(value: "Value", indent: str) -> tuple["Value", list[str]]:
    if isinstance(value, Noted):
        return value.value, [f"{indent}# {line}" for line in value.comment.splitlines()]
    return value, []


def _scalar(value: str | int, indent: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return _text(value, indent)


def _text(text: str, indent: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if indent and _is_block(text):
        ending = "|" if text.endswith("\n") else "|-"
        return "\n".join([ending, *(f"{indent}{line}" if line else "" for line in text.splitlines())])
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08X}" for one in quoted)


def _is_block(text: str) -> bool:
    """Return whether a text can be a block: several lines, without white space at their edges."""
    lines = text.removesuffix("\n").split("\n")
    return (
        text.count("\n") > 0
        and all(line.replace("\t", "").isprintable() and line == line.rstrip() for line in lines)
        and lines[0] == lines[0].lstrip() != ""
        and lines[-1] != ""
    )
