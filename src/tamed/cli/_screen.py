"""The full screen of ``tamed top``: its table of workers, which prompt_toolkit draws, and the keys.

Everything that blocks (requests to an instance, reading a log) runs in threads, so keys always work.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Point
from prompt_toolkit.filters import Always, Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.output.color_depth import ColorDepth

from tamed._os.text import counted, shown
from tamed.cli._text import cell, colours, one_line, shown_lines, size, table, uptime
from tamed.cli.status import failed_reload
from tamed.errors import TamedError

__all__ = ["SORTS", "Board", "Operator", "Row", "Screen"]

T = TypeVar("T")

_PAUSE: Final = 1.0  # seconds between two updates
_PAGE: Final = 10  # lines
_HEAD: Final = ("INSTANCE", "#", "PID", "GENERATION", "STATE", "UP", "CONNECTIONS", "MEMORY", "CPU")
_STYLES: Final = {
    "running": "fg:ansigreen",
    "degraded": "fg:ansiyellow",
    "starting": "fg:ansiyellow",
    "stopping": "fg:ansiyellow",
}
_KEYS: Final = "c CPU  m memory  n connections  / filter  s stacks  l log  r reload  q quit"
_KEYS_OF_TEXT: Final = "up, down, page up, page down  q back"


class Row(NamedTuple):
    """A worker: ``uptime`` in seconds, ``memory`` in bytes, ``cpu`` as a share of one CPU (None: unknown)."""

    instance: str
    number: int
    pid: int
    generation: int
    state: str
    uptime: float
    connections: int
    memory: int
    cpu: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            cell(self.instance),
            str(self.number),
            str(self.pid),
            str(self.generation),
            cell(self.state),
            uptime(self.uptime),
            str(self.connections),
            size(self.memory),
            "" if self.cpu is None else f"{self.cpu * 100:.0f} %",
        )


SORTS: Final[Mapping[str, Callable[[Row], float]]] = {
    "CPU": lambda row: row.cpu or 0.0,
    "memory": lambda row: row.memory,
    "connections": lambda row: row.connections,
}
"""The sort keys by name; rows are sorted in descending order."""


class Board:
    """The last statuses, the filter and sort order, and the selected worker.

    ``sort`` is one of `SORTS`. ``pattern`` is a text that a row must contain. ``selected`` is the pid of a
    worker; the selection follows it when rows move.
    """

    def __init__(self) -> None:
        self.sort = "CPU"
        self.pattern = ""
        self.selected = 0
        self._found: Sequence[Mapping[str, Any]] = ()
        self._shares: dict[int, float | None] = {}
        self._times: dict[int, tuple[float, float]] = {}  # CPU seconds, and the time of the measurement

    def update(self, found: Sequence[Mapping[str, Any]], now: float) -> None:
        """Store new statuses; an instance without one has the reason as ``error``. ``now`` is in seconds."""
        before, self._times, self._shares = self._times, {}, {}
        for worker in (worker for status in found for worker in status.get("workers", ())):
            pid, cpu = worker["pid"], worker["cpu"]
            if cpu is None:
                continue
            self._times[pid] = cpu, now
            used, seen = before.get(pid, (cpu, now))
            self._shares[pid] = max(0.0, cpu - used) / (now - seen) if now > seen else None
        self._found = found

    def rows(self) -> list[Row]:
        rows = [row for row in self._all() if self.pattern in " ".join(row.cells)]
        return sorted(rows, key=lambda row: (-SORTS[self.sort](row), row.instance, row.number, row.pid))

    def selection(self) -> Row | None:
        """Return the selected worker, or the first row if it is gone; None if no row matches."""
        rows = self.rows()
        return next((row for row in rows if row.pid == self.selected), rows[0] if rows else None)

    def move(self, steps: int) -> None:
        """Move the selection down by ``steps`` rows; up if negative."""
        pids = [row.pid for row in self.rows()]
        if pids:
            chosen = self.selection()
            at = 0 if chosen is None else pids.index(chosen.pid)
            self.selected = pids[max(0, min(at + steps, len(pids) - 1))]

    def head(self) -> Iterator[tuple[str, str]]:
        """Yield the state and a line for each instance, then ``warning`` lines for its problems."""
        for status in self._found:
            name = cell(status["name"])
            if "workers" not in status:
                why = one_line(status["error"])
                yield "unknown", shown(why if why.startswith(f"{name} ") else f"{name}: {why}")
                continue
            yield status["state"], shown(_summary(status))
            yield from (("warning", f"  {shown(cell(why))}") for why in _wrong(status))

    def table(self) -> list[str]:
        return list(table(_HEAD, [row.cells for row in self.rows()]))

    def _all(self) -> Iterator[Row]:
        for status in self._found:
            for worker in status.get("workers", ()):
                yield Row(
                    status["name"],
                    worker["number"],
                    worker["pid"],
                    worker["generation"],
                    worker["state"],
                    worker["uptime"],
                    worker.get("connections", 0),
                    worker["memory"] or 0,
                    self._shares.get(worker["pid"]),
                )


def _summary(status: Mapping[str, Any]) -> str:
    reloading = ", reloading" if status["reloading"] else ""
    facts = [
        f"pid {status['pid']}",
        f"up {uptime(status['uptime'])}",
        f"{status['ready']} of {status['wanted']} workers ready",
        counted(sum(worker.get("connections", 0) for worker in status["workers"]), "connection"),
        size(sum(worker["memory"] or 0 for worker in status["workers"])),
    ]
    if status["restarts"]:
        facts.append(counted(status["restarts"], "restart"))
    return f"{cell(status['name'])} is {cell(status['state'])}{reloading}: {', '.join(facts)}"


def _wrong(status: Mapping[str, Any]) -> Iterator[str]:
    if (reload := failed_reload(status)) is not None:
        yield f"last reload, at {reload['time']}: {reload['text']}"
    if status["state"] == "running":
        return
    for check in status["checks"]:
        if check["failing"]:
            yield f"the check of {check['name']} fails: {check['why']}"
    if status["last_error"]:
        yield f"last error, at {status['last_error_at']}: {status['last_error']}"


class Operator(Protocol):
    """The actions behind the screen. Each may block, and may raise a TamedError or an OSError."""

    def look(self) -> list[dict[str, Any]]: ...

    def stacks(self, row: Row) -> list[str]: ...

    def log(self, row: Row) -> list[str]: ...

    def reload(self, row: Row) -> str: ...


class Screen:
    """The screen and its key bindings: the table, a text, the filter, and a yes-or-no question."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._board = Board()
        self._mode = "table"
        self._message = ""
        self._text: list[str] = []
        self._at = 0  # the line of the text
        self._question: Row | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        body = FormattedTextControl(self._body, get_cursor_position=self._cursor, show_cursor=False)
        head = FormattedTextControl(self._head)
        foot = FormattedTextControl(self._foot)
        self._app: Application[None] = Application(
            Layout(
                HSplit(
                    [
                        Window(head, dont_extend_height=True, wrap_lines=True),
                        Window(body),
                        Window(foot, height=1, style="reverse"),
                    ]
                )
            ),
            key_bindings=self._bindings(),
            full_screen=True,
            color_depth=None if colours() else ColorDepth.DEPTH_1_BIT,
        )

    def run(self) -> None:
        """Show it, until the user quits."""
        self._app.run(pre_run=lambda: self._begin(self._look_again))

    # What is seen.

    async def _look_again(self) -> None:
        while True:
            found = await asyncio.to_thread(self._operator.look)
            self._board.update(found, time.monotonic())
            self._app.invalidate()
            await asyncio.sleep(_PAUSE)

    def _head(self) -> StyleAndTextTuples:
        lines = list(self._board.head()) or [("", "nothing is running")]
        pattern = f", with {shown(self._board.pattern)!r}" if self._board.pattern else ""
        lines.append(("", f"workers by {self._board.sort}{pattern}"))
        return [(_STYLES.get(state, "fg:ansired" * bool(state)), f"{line}\n") for state, line in lines]

    def _body(self) -> StyleAndTextTuples:
        if self._mode == "text":
            return [("", shown_lines(self._text))]
        head, *lines = self._board.table()
        chosen = self._board.selection()
        marked = zip(self._board.rows(), lines, strict=True)
        return [
            ("bold", f"{head}\n"),
            *(("reverse" if row == chosen else "", f"{line}\n") for row, line in marked),
        ]

    def _cursor(self) -> Point:
        if self._mode == "text":
            return Point(0, self._at)
        chosen = self._board.selection()
        return Point(0, 0 if chosen is None else 1 + self._board.rows().index(chosen))

    def _foot(self) -> str:
        if self._mode == "filter":
            return f"filter: {shown(self._board.pattern)}_  (Enter: keep, Escape: clear)"
        if self._question is not None:
            return f"reload {shown(self._question.instance)}? y or n"
        keys = _KEYS_OF_TEXT if self._mode == "text" else _KEYS
        return f"{shown(self._message)}  {keys}" if self._message else keys

    # The keys.

    def _bindings(self) -> KeyBindings:
        keys = KeyBindings()
        asks = Condition(lambda: self._question is not None)
        in_table = Condition(lambda: self._mode == "table") & ~asks
        in_text = Condition(lambda: self._mode == "text")
        in_filter = Condition(lambda: self._mode == "filter")

        def bind(key: str, when: Any, act: Callable[[], object]) -> None:
            keys.add(key, filter=when, eager=key == "escape")(lambda _: act())

        for key, sort in zip("cmn", SORTS, strict=True):
            bind(key, in_table, lambda sort=sort: self._sort_by(sort))  # type: ignore[misc]
        for key, steps in (("up", -1), ("down", 1), ("pageup", -_PAGE), ("pagedown", _PAGE)):
            bind(key, in_table, lambda steps=steps: self._board.move(steps))  # type: ignore[misc]
            bind(key, in_text, lambda steps=steps: self._scroll(steps))  # type: ignore[misc]
        bind("s", in_table, lambda: self._show("its stacks", self._operator.stacks))
        bind("l", in_table, lambda: self._show("its log", self._operator.log, at_end=True))
        bind("r", in_table, self._ask)
        bind("/", in_table, lambda: self._enter("filter"))
        bind("q", in_table, self._app_exit)
        for key in ("q", "escape"):
            bind(key, in_text, lambda: self._enter("table"))
        bind("y", asks, self._reload)
        for key in ("n", "escape"):
            bind(key, asks, self._forget)
        bind("c-c", Always(), self._app_exit)
        bind("c-z", Always(), self._app_suspend)
        bind("enter", in_filter, lambda: self._enter("table"))
        bind("escape", in_filter, lambda: self._filter_by(""))
        bind("backspace", in_filter, lambda: self._filter_by(self._board.pattern[:-1], "filter"))

        @keys.add(Keys.Any, filter=in_filter)
        def _(event: KeyPressEvent) -> None:
            self._filter_by(self._board.pattern + event.data, "filter")

        return keys

    def _app_exit(self) -> None:
        self._app.exit()

    def _app_suspend(self) -> None:
        """Stop until the shell continues this process: the terminal does not do that in raw mode."""
        self._app.renderer.erase()  # with the alternate screen, which `suspend_to_background` would leave on
        self._app.suspend_to_background()

    def _sort_by(self, sort: str) -> None:
        self._board.sort = sort

    def _filter_by(self, pattern: str, mode: str = "table") -> None:
        self._board.pattern = pattern
        self._mode = mode

    def _enter(self, mode: str) -> None:
        self._mode, self._message = mode, ""

    def _scroll(self, steps: int) -> None:
        self._at = max(0, min(self._at + steps, len(self._text) - 1))

    def _ask(self) -> None:
        self._question = self._board.selection()

    def _forget(self) -> None:
        self._question = None

    # What takes its time.

    def _begin(self, work: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _show(self, what: str, get: Callable[[Row], list[str]], *, at_end: bool = False) -> None:
        row = self._board.selection()
        if row is None:
            return
        self._message = f"reading {what}"

        async def work() -> None:
            lines = await self._result(lambda: get(row))
            if lines is not None:
                self._text, self._at = lines, len(lines) - 1 if at_end else 0
                self._enter("text")
            self._app.invalidate()

        self._begin(work)

    def _reload(self) -> None:
        row, self._question = self._question, None
        if row is None:
            return
        self._message = f"reloading {row.instance}"

        async def work() -> None:
            said = await self._result(lambda: self._operator.reload(row))
            if said is not None:
                self._message = said
            self._app.invalidate()

        self._begin(work)

    async def _result(self, work: Callable[[], T]) -> T | None:
        """Return what ``work`` returns in a thread; show why it fails."""
        try:
            return await asyncio.to_thread(work)
        except (TamedError, OSError) as error:
            self._message = str(error)
            return None
