"""A session: shows a prompt, takes a line, runs it, shows what it printed, and so on to the end."""

import asyncio
import os
from typing import Final, Protocol

from tamed.builtin._prompt._interpreter import Interpreter
from tamed.builtin._prompt._keyboard import Interrupted, Keyboard, TooLong
from tamed.builtin._prompt._limits import Limits
from tamed.builtin._prompt._line import Line, Outcome, Running
from tamed.builtin._prompt._output import Output
from tamed.plugins.values import Duration
from tamed.service.service import Service

__all__ = ["Dialogue", "Screen"]

_LINES_OF_A_STATEMENT: Final = 16
"""A statement may be so many times as long as a line."""

_GRACE: Final = 2.0
"""Seconds that a line may take to end when it is interrupted."""

_MOST_STUCK: Final = 10
"""With so many lines that do not end, in the whole process, no other is begun."""


class Screen(Protocol):
    """Where a session shows things."""

    def write(self, text: str) -> None:
        r"""Show text, with ``\n`` as the end of a line."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...


class Dialogue:
    """A session in the application that ``service`` is in.

    ``grace`` is how many seconds a line that is interrupted may take to end.
    """

    def __init__(
        self, service: Service, screen: Screen, keyboard: Keyboard, limits: Limits, *, grace: float = _GRACE
    ) -> None:
        self._service = service
        self._screen = screen
        self._keyboard = keyboard
        self._limits = limits
        self._grace = grace
        self._output = Output(screen.write, limits.max_output)
        self._interpreter = Interpreter(service, self._output, _LINES_OF_A_STATEMENT * limits.max_line)

    async def converse(self, *, greeting: bool = True) -> None:
        """Take lines until somebody leaves, or is idle for too long.

        Without ``greeting`` there are no prompts either: it is a program that types.
        """
        if greeting:
            self._screen.write(self._greeting())
        try:
            while await self._take_turn(greeting):
                pass
        finally:
            self._end_output()

    async def run_script(self, source: str) -> bool:
        """Run statements, and tell whether they did not fail."""
        line = self._interpreter.script(source)
        try:
            return line is not None and await self._run(line) in {Outcome.DONE, Outcome.LEFT}
        finally:
            self._end_output()

    async def _take_turn(self, greeting: bool) -> bool:
        """Take a line and run it; tell whether there may be another."""
        try:
            await self._show(self._interpreter.prompt if greeting else "")
            text = await self._keyboard.next(self._limits.idle_timeout)
        except Interrupted:
            self._interpreter.reset()
            await self._show("\nKeyboardInterrupt\n")
            return True
        except TooLong:
            self._interpreter.reset()
            await self._show(f"a line may have {self._limits.max_line:,} bytes\n")
            return True
        except EOFError:
            return False
        except TimeoutError:
            self._screen.write(f"\nnothing was typed for {Duration(self._limits.idle_timeout)}: goodbye\n")
            return False
        self._output.renew()
        line = self._interpreter.push(text)
        return line is None or await self._run(line) is not Outcome.LEFT

    async def _run(self, line: Line) -> Outcome:
        if Running.stuck() >= _MOST_STUCK:
            self._screen.write(
                f"{_MOST_STUCK} lines do not end, and no other is begun: restart the service\n"
            )
            return Outcome.FAILED
        running = Running(line, self._limits.line_timeout, self._grace)
        self._keyboard.interrupted = running.interrupt
        try:
            outcome = await running.finish()
        finally:
            self._keyboard.interrupted = None
        if outcome is Outcome.INTERRUPTED:
            self._output.write("KeyboardInterrupt\n")
        if outcome is Outcome.STUCK:
            self._output.write("the line does not end when it is interrupted; it is left to itself\n")
        return outcome

    async def _show(self, text: str) -> None:
        """Show text behind what was printed, and wait for a reader who is slow; not for one who is idle."""
        self._output.deliver()
        if text:
            self._screen.write(text)
        async with asyncio.timeout(self._limits.idle_timeout):
            await self._screen.drain()

    def _end_output(self) -> None:
        self._output.deliver()
        self._output.close()

    def _greeting(self) -> str:
        return f"{self._service.root_service.full_name}, process {os.getpid()}; help tells what is here\n"
