"""The line numbers of keys in a deployment file, for messages.

TOML parsers keep no line numbers, so they are found in the text, from table headers and keys at the beginning
of lines. A key in an inline table has the line of that table.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tamed.errors import ConfigurationError, TamedError

__all__ = ["place_of", "with_lines"]

_HEAD = re.compile(r"\s*\[([^\[\]]+)\]")
_KEY = re.compile(r"\s*([\w\"'. -]+?)\s*=")
_UNKNOWN = re.compile(r"unknown key '([^']+)'")


def place_of(file: Path, text: str, table: str, *keys: str) -> str:
    """Return the file, the line and the name of the first of these keys, or of their table.

    ``text`` is the content of the file. Without a line number if none of them is at the beginning of a line.
    """
    lines = _lines_of(text)
    names = [".".join(filter(None, (table, key))) for key in keys]
    parts = (each for each in lines if table and each.startswith(f"{table}."))
    name = next((each for each in (*names, table, *parts) if each in lines), table or keys[0])
    return f"{file}:{lines[name]}: {name}" if name in lines else f"{file}: {name}"


@contextmanager
def with_lines(file: Path) -> Iterator[None]:
    """Add the line number to each error of the block that names a key of this deployment file."""
    try:
        yield
    except TamedError as error:
        wrong = [each for each in (error, *error.others) if f"{each.what}: ".startswith(f"{file}: ")]
        if wrong:
            lines = _lines_of(file.read_text("utf-8", errors="replace"))
            for each in wrong:
                _add_line(each, file, lines)
        raise


def _add_line(error: TamedError, file: Path, lines: dict[str, int]) -> None:
    rest = error.what.removeprefix(str(file))
    name = rest.removeprefix(": ").partition(": ")[0]
    unknown = _UNKNOWN.match(error.why) if isinstance(error, ConfigurationError) else None
    parents = [name.rsplit(".", count)[0] for count in range(name.count(".") + 1)]
    names = [f"{name}.{unknown[1]}".lstrip(".")] if unknown else []
    if found := next((each for each in (*names, *parents) if each in lines), ""):
        error.what = f"{file}:{lines[found]}{rest}"


def _lines_of(text: str) -> dict[str, int]:
    """Return the line number of each key and each table, by its full name."""
    lines: dict[str, int] = {}
    head = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _HEAD.match(line):
            head = _dotted(found[1])
            lines.setdefault(head, number)
        elif key := _KEY.match(line):
            lines.setdefault(".".join(filter(None, (head, _dotted(key[1])))), number)
    return lines


def _dotted(key: str) -> str:
    """Return a TOML key without quotes and spaces. Quoted dots do not occur in the names here."""
    return re.sub("[\"' ]", "", key)
