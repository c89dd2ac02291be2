"""Takes lines as they are typed, and makes of them something that can be run."""

import traceback
from collections.abc import Callable, Coroutine
from inspect import CO_COROUTINE
from types import FunctionType, TracebackType
from typing import Any, Final

from tamed.builtin._prompt._line import Line, LoopLine, Outcome, ThreadLine
from tamed.builtin._prompt._names import namespace
from tamed.builtin._prompt._output import Output
from tamed.builtin._prompt._source import compile_source, is_complete
from tamed.service.service import Service

__all__ = ["Interpreter"]

_FILENAME: Final = "<prompt>"

_NO_PYTHON: Final = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
"""What the compiler raises for a text that it does not take."""


class Interpreter:
    """A session's lines and names, in the application that ``service`` is in.

    ``longest`` is the number of characters that a statement of many lines may have.
    """

    def __init__(self, service: Service, output: Output, longest: int) -> None:
        self._output = output
        self._longest = longest
        self._names = namespace(service, output)
        self._typed: list[str] = []

    @property
    def prompt(self) -> str:
        """What to show before the next line."""
        return "... " if self._typed else ">>> "

    def push(self, text: str) -> Line | None:
        """Take a line; return what is to be run, if it completes a statement."""
        self._typed.append(text)
        source = "\n".join(self._typed)
        if len(source) > self._longest:
            self.reset()
            self._output.write(f"a statement may have {self._longest:,} characters\n")
            return None
        try:
            if not is_complete(source, _FILENAME):
                return None
        except _NO_PYTHON as error:
            self._output.write("".join(traceback.format_exception_only(error)))
            self.reset()
            return None
        self.reset()
        return self.script(source)

    def script(self, source: str) -> Line | None:
        """Return statements that can be run; None if they are no Python, which is told."""
        try:
            code = compile_source(source, _FILENAME)
        except _NO_PYTHON as error:
            self._output.write("".join(traceback.format_exception_only(error)))
            return None
        function = FunctionType(code, self._names)
        if code.co_flags & CO_COROUTINE:
            return LoopLine(self._awaited(function))
        return ThreadLine(lambda: self._called(function))

    def reset(self) -> None:
        """Forget the lines of an incomplete statement."""
        self._typed.clear()

    def _called(self, function: Callable[[], object]) -> Outcome:
        try:
            function()
        except BaseException as error:
            return self._ended_by(error)
        return Outcome.DONE

    async def _awaited(self, function: Callable[[], Coroutine[Any, Any, object]]) -> Outcome:
        try:
            await function()
        except BaseException as error:  # a cancellation too: nobody is interested but who typed the line
            return self._ended_by(error)
        return Outcome.DONE

    def _ended_by(self, error: BaseException) -> Outcome:
        if isinstance(error, SystemExit):
            return Outcome.LEFT
        # Here, where it can be interrupted: an exception's text is made by code of its own.
        told = error.with_traceback(_from_prompt(error.__traceback__))
        self._output.write("".join(traceback.format_exception(told)))
        return Outcome.FAILED


def _from_prompt(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames above the line: they are ours."""
    while trace is not None and trace.tb_frame.f_code.co_filename != _FILENAME:
        trace = trace.tb_next
    return trace
