"""A reader of the documentation, who saves its files and types its commands, and compares what comes.

A code block with a caption is a file of that name, and may be included from ``examples``; in the README the
name is a comment on the first line. A ``console`` block is what a terminal shows: commands after ``$``, and
their output. A block that begins without a command goes on with the last command of the block before it, or,
with a block of another terminal in between, of the one before that. ``^C`` is the key.
In an output, ``...`` stands for anything.
"""

import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from tests.builtin.terminal import ForkedCommand, Terminal
from tests.patience import PATIENCE
from tests.supervised.forked import Forking

_FENCE = re.compile(
    r"^```(?:\{(?P<directive>[\w-]+)\} )?(?P<argument>\S*)\n"
    r"(?P<options>(?::\w+: [^\n]*\n)*)\n?(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NAME = re.compile(r"# (\S+\.\w+)\n")

# What differs from run to run, and what it is like: a time, a date, a pid, an amount, the width of a column.
_VARIABLES = {
    r"\d\d:\d\d:\d\d(?:\.\d+)?": r"\d\d:\d\d:\d\d(?:\.\d+)?",
    r"\d{4}-\d\d-\d\d": r"\d{4}-\d\d-\d\d",
    r"(?<=pid )\d+|(?<=  )\d{4,7}(?= )": r"\d+",
    r"\b\d+(?:\.\d+)? ?(?:kB|MB|ms|s)\b": r"[\d.]+ ?(?:kB|MB|ms|s)",
    r"==+": "=+",
    r" +": " +",
    r"\.\.\.": ".*",
}
_VARIABLE = re.compile("|".join(f"({variable})" for variable in _VARIABLES))

# What a command that takes long shows in between, and then writes over.
_PROGRESS = r"\S+ is \w+: \d+ connections? open *(?:\x1b\[K)?"
_BOLD = r"\x1b\[\d*m"
_UNSEEN = re.compile(f"{_PROGRESS}|{_BOLD}")
_ANY_LINES = r"(?:.*\n)*?"


# What needs no interpreter and no keys of its own, if it needs no shell either.
_FORKED = {
    *("check", "events", "export", "logs", "reload", "scale", "stacks", "start", "status", "stop"),
    *("upgrade", "why"),
}
_LOOKING = "tamed events"  # connections drain after a reload, or before it is done; a reader looks again
_FOR_SHELLS = re.compile(r"[][$`\\|&;<>(){}?!~#\n]")


class Block(NamedTuple):
    """One code block of a page: a file if it has a name, else what a terminal shows."""

    language: str
    name: str
    text: str


def blocks_of(page: Path) -> Iterator[Block]:
    """Return the code blocks of a page, in order; pictures are none. A plain text is a terminal."""
    if page.suffix == ".txt":
        yield Block("console", "", page.read_text("utf-8"))
        return
    for found in _FENCE.finditer(page.read_text("utf-8")):
        options = dict(re.findall(r"^:(\w+): (.*)$", found["options"], re.MULTILINE))
        if found["directive"] == "picture":
            continue
        language, text = found["argument"], found["text"]
        if found["directive"] == "literalinclude":
            language, text = options["language"], (page.parent / language).read_text("utf-8")
        name = options.get("caption", "")
        if page.name == "README.md" and (first := _NAME.match(text)):
            name, text = first[1], text[first.end() :]
        yield Block(language, name, text)


class Reader:
    """Somebody with one folder and two terminals. As a context, it ends what still runs.

    ``before`` is the command that runs a shell, and ``forks`` runs commands of ours that need none.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        before: Sequence[str] = (),
        forks: Forking | None = None,
    ) -> None:
        self._environment = environment
        self._before = before
        self._forks = forks
        self._notes = folder.parent / "notes"  # the current folder and the last exit status of the terminal
        self._notes.mkdir()
        (self._notes / "folder").write_text(str(folder))
        (self._notes / "status").write_text("0")
        self._life = ExitStack()
        self._running: Terminal | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._life.close()

    def save(self, name: str, text: str) -> None:
        """Save a file."""
        file = Path((self._notes / "folder").read_text(), name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def follow(self, blocks: list[Block]) -> None:
        """Do what the blocks of a page show, in order. Raises AssertionError where something else comes."""
        for number, block in enumerate(blocks):
            if block.name:
                self.save(block.name, block.text)
                continue
            before, *commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
            if before:
                self._go_on(before)
            shown = [each.text for each in blocks[number + 1 :] if not each.name]
            goes_on = any(not text.startswith("$ ") for text in shown[:2])
            for index, command in enumerate(commands):
                self._type(command, is_left_running=goes_on and index == len(commands) - 1)

    def _type(self, shown: str, *, is_left_running: bool) -> None:
        command, _, output = shown.partition("\n")
        if is_left_running and self._running is None:
            self._running = self._life.enter_context(self._terminal(command))
            _expect(self._running, output)
            return
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._terminal(command) as terminal:
                    self._end(terminal, output, is_ordered=not command.startswith(_LOOKING))
            except AssertionError:
                if not command.startswith(_LOOKING) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _go_on(self, shown: str) -> None:
        assert self._running is not None, f"nothing is running, of which this could come: {shown}"
        if "^C\n" in shown:
            self._end(self._running, shown)
            self._running = None
        else:
            _expect(self._running, shown)

    def _end(self, terminal: Terminal, shown: str, *, is_ordered: bool = True) -> None:
        before, is_interrupted, after = shown.rpartition("^C\n")
        if is_interrupted:
            _expect(terminal, before)
            terminal.type("\x03")
        status = terminal.expect_end()
        if isinstance(terminal, ForkedCommand):  # a shell notes it itself
            (self._notes / "status").write_text(str(status))
        seen = _UNSEEN.sub("", terminal.seen)
        if not is_ordered:
            after, seen = (_by_kind(text) for text in (after, seen))
        pattern = pattern_of(after)
        if is_interrupted:
            pattern = (_ANY_LINES if before.endswith("...\n") else "") + r"\^C\n?" + pattern
        assert re.fullmatch(pattern, seen), _difference(after, seen)

    def _terminal(self, command: str) -> Terminal:
        words = [] if _FOR_SHELLS.search(command) else shlex.split(command)
        if self._forks and words[:1] == ["tamed"] and words[1] in _FORKED:
            folder = Path((self._notes / "folder").read_text())
            return ForkedCommand(self._forks, words[1:], folder, self._environment)
        return Terminal(*self._before, "bash", "-c", self._script(command), env=self._environment)

    def _script(self, command: str) -> str:
        folder, status = ((self._notes / name).read_text() for name in ("folder", "status"))
        keep = f'echo -n $? > "{self._notes}/status"; echo -n "$PWD" > "{self._notes}/folder"'
        return f"cd '{folder}'; trap '{keep}' EXIT; (exit {status}); {command}\n"


def _by_kind(events: str) -> str:
    """Order events by what comes after their time."""
    return "".join(
        sorted(events.splitlines(keepends=True), key=lambda line: line[len("2026-11-28 21:44:07") :])
    )


def _expect(terminal: Terminal, shown: str) -> None:
    try:
        terminal.expect(rf"\A{pattern_of(shown)}")
    except AssertionError:
        raise AssertionError(_difference(shown, terminal.seen)) from None


def _difference(shown: str, seen: str) -> str:
    return f"the page shows:\n{shown}\nwhat came:\n{seen}"


def pattern_of(shown: str) -> str:
    """Return the regular expression of an output that a page shows."""
    lines = [_pattern_of_line(line) for line in shown.splitlines()]
    return "".join(lines)


def _pattern_of_line(line: str) -> str:
    if line.strip() == "...":
        return _ANY_LINES
    patterns = [*_VARIABLES.values()]
    pattern, end = "", 0
    for found in _VARIABLE.finditer(line):
        assert found.lastindex is not None
        pattern += re.escape(line[end : found.start()]) + patterns[found.lastindex - 1]
        end = found.end()
    return f"{pattern}{re.escape(line[end:])} *\n"
