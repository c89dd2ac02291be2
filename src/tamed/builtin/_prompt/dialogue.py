"""A session: shows a prompt, reads a line, runs it, shows its output, and repeats; limited and counted."""

import asyncio
import logging
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from tamed.builtin._prompt.interpreter import Interpreter
from tamed.builtin._prompt.line import Line, Outcome, Running
from tamed.builtin._prompt.terminal import Interrupted, Keyboard, Output, Screen, TooLong
from tamed.log.logger import own_logger
from tamed.plugins.option import option
from tamed.plugins.values import Duration, Size
from tamed.service.service import Service

__all__ = ["Dialogue", "Limits", "Sessions", "quieten"]

log = own_logger("tamed.builtin")

_LINES_OF_A_STATEMENT: Final = 16
"""A statement may have this many times the length of a line."""

_GRACE: Final = 2.0
"""Seconds that a line may take to end when it is interrupted."""

_MOST_ABANDONED: Final = 10
"""With this many abandoned lines in the process, no further line is run."""


@dataclass
class Limits:
    """The limits of sessions, as options of every plugin with a prompt."""

    max_sessions: int = option(10, "Maximum number of sessions.")
    max_line: Size = option(Size("4 KiB"), "Maximum length of a line.")
    max_output: Size = option(Size("1 MB"), "Maximum output of a line; the rest is dropped.")
    line_timeout: Duration = option(Duration("10m"), "Interrupt a line that runs for longer.")
    login_timeout: Duration = option(Duration("1m"), "Longest time for a login.")
    idle_timeout: Duration = option(Duration("1h"), "End a session without input for this long.")

    def __post_init__(self) -> None:
        if self.max_sessions < 1:
            raise ValueError(f"max-sessions must be at least 1, not {self.max_sessions}")
        if self.max_line < 1:
            raise ValueError("max-line must be at least 1 B")


class Dialogue:
    """A session in the application that ``service`` is in."""

    def __init__(self, service: Service, screen: Screen, keyboard: Keyboard, limits: Limits) -> None:
        self._service = service
        self._screen = screen
        self._keyboard = keyboard
        self._limits = limits
        self._output = Output(screen.write, limits.max_output)
        self._interpreter = Interpreter(service, self._output, _LINES_OF_A_STATEMENT * limits.max_line)

    async def converse(self, *, greeting: bool = True) -> None:
        """Run lines until the end of the input, ``exit()``, or too long a pause.

        Without ``greeting`` there are no prompts either, for clients that are programs.
        """
        if greeting:
            self._screen.write(self._greeting())
        try:
            while await self._take_turn(greeting):
                pass
        finally:
            self._end_output()

    async def run_script(self, source: str) -> bool:
        """Run statements, and return whether they succeeded."""
        line = self._interpreter.script(source)
        try:
            return line is not None and await self._run(line) in {Outcome.DONE, Outcome.EXIT}
        finally:
            self._end_output()

    async def _take_turn(self, greeting: bool) -> bool:
        """Run the next line; return whether there may be another."""
        try:
            await self._show(self._interpreter.prompt if greeting else "")
            text = await self._keyboard.next(self._limits.idle_timeout)
        except Interrupted:
            self._interpreter.reset()
            await self._show("\nKeyboardInterrupt\n")
            return True
        except TooLong:
            self._interpreter.reset()
            await self._show(f"the line is longer than {self._limits.max_line:,} bytes\n")
            return True
        except EOFError:
            return False
        except TimeoutError:
            self._screen.write(f"\nno input for {Duration(self._limits.idle_timeout)}: goodbye\n")
            return False
        self._output.renew()
        line = self._interpreter.push(text)
        return line is None or await self._run(line) is not Outcome.EXIT

    async def _run(self, line: Line) -> Outcome:
        if Running.abandoned() >= _MOST_ABANDONED:
            self._screen.write(
                f"{_MOST_ABANDONED} lines do not end, so no further line is run: restart the service\n"
            )
            return Outcome.FAILED
        running = Running(line, self._limits.line_timeout, _GRACE)
        self._keyboard.on_interrupt = running.interrupt
        try:
            outcome = await running.finish()
        finally:
            self._keyboard.on_interrupt = None
        if outcome is Outcome.INTERRUPTED:
            self._output.write("KeyboardInterrupt\n")
        if outcome is Outcome.STUCK:
            self._output.write(
                "the line does not end when it is interrupted; it continues in the background\n"
            )
        return outcome

    async def _show(self, text: str) -> None:
        """Show text after the output, and wait for a slow reader, but no longer than the idle timeout."""
        self._output.deliver()
        if text:
            self._screen.write(text)
        async with asyncio.timeout(self._limits.idle_timeout):
            await self._screen.drain()

    def _end_output(self) -> None:
        self._output.deliver()
        self._output.close()

    def _greeting(self) -> str:
        return f"{self._service.root_service.full_name}, process {os.getpid()}; help lists the names\n"


class Sessions(Service):
    """Counts the sessions of a server, ``most`` at a time. A connection without a login is not one yet.

    It is a service, so that the application that the sessions show includes it.
    """

    def __init__(self, most: int) -> None:
        super().__init__("sessions")
        self.most = most
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def summary(self) -> str:
        """The number of sessions, and the limit."""
        return f"{self._open} of {self.most} sessions"

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._open >= self.most

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a session while it lasts."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def watch(self, session: Coroutine[object, object, None], peer: str) -> "asyncio.Task[None]":
        """Run a session, its login included, in a task. If it raises, that is logged."""
        task = asyncio.create_task(session, name=f"session with {peer}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, peer))
        return task

    def _ended(self, peer: str, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the session with %s failed", peer, exc_info=error)


def quieten(logger: str, level: int) -> None:
    """Set the level of a library's logger, unless it has one."""
    log = logging.getLogger(logger)
    if log.level == logging.NOTSET:
        log.setLevel(level)
