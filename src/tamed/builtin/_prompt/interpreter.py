"""Compiles the typed lines into code that can be run, and shows how the code ended."""

import ast
import codeop
import traceback
from collections.abc import Callable, Coroutine
from inspect import CO_COROUTINE
from types import CodeType, FunctionType, TracebackType
from typing import Any, Final, TypeVar

from tamed.builtin._prompt.line import Line, LoopLine, Outcome, ThreadLine
from tamed.builtin._prompt.names import DISPLAY, SHIELD, namespace
from tamed.builtin._prompt.terminal import Output
from tamed.service.service import Service

__all__ = ["Interpreter"]

_FILENAME: Final = "<prompt>"

_INVALID: Final = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
"""What the compiler raises for a text that is not Python."""

_FLAGS: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Interpreter:
    """A session's lines and names, in the application of ``service``.

    ``longest`` is the number of characters that a statement of many lines may have.
    """

    def __init__(self, service: Service, output: Output, longest: int) -> None:
        self._output = output
        self._longest = longest
        self._names = namespace(service, output)
        self._typed: list[str] = []

    @property
    def prompt(self) -> str:
        """The prompt for the next line."""
        return "... " if self._typed else ">>> "

    def push(self, text: str) -> Line | None:
        """Add a line; if it completes a statement, return the code to run. Errors are shown."""
        self._typed.append(text)
        source = "\n".join(self._typed)
        if len(source) > self._longest:
            self.reset()
            self._output.write(f"the statement is longer than {self._longest:,} characters\n")
            return None
        try:
            if not _is_complete(source):
                return None
        except _INVALID as error:
            self._output.write("".join(traceback.format_exception_only(error)))
            self.reset()
            return None
        self.reset()
        return self.script(source)

    def script(self, source: str) -> Line | None:
        """Return statements that can be run; None, and the error is shown, if they are not Python."""
        try:
            code = _compile(source)
        except _INVALID as error:
            self._output.write("".join(traceback.format_exception_only(error)))
            return None
        function = FunctionType(code, self._names)
        if code.co_flags & CO_COROUTINE:
            return LoopLine(self._await(function))
        return ThreadLine(lambda: self._call(function))

    def reset(self) -> None:
        """Drop the lines of an incomplete statement."""
        self._typed.clear()

    def _call(self, function: Callable[[], object]) -> Outcome:
        try:
            function()
        except BaseException as error:
            return self._failed(error)
        return Outcome.DONE

    async def _await(self, function: Callable[[], Coroutine[Any, Any, object]]) -> Outcome:
        try:
            await function()
        except BaseException as error:  # a cancellation too: it is shown, and affects nothing else
            return self._failed(error)
        return Outcome.DONE

    def _failed(self, error: BaseException) -> Outcome:
        if isinstance(error, SystemExit):
            return Outcome.EXIT
        # Here, where it can be interrupted: formatting an exception runs code of its class.
        shown = error.with_traceback(_from_prompt(error.__traceback__))
        self._output.write("".join(traceback.format_exception(shown)))
        return Outcome.FAILED


def _from_prompt(trace: TracebackType | None) -> TracebackType | None:
    """Remove the frames above the line, which are Tamed's."""
    while trace is not None and trace.tb_frame.f_code.co_filename != _FILENAME:
        trace = trace.tb_next
    return trace


def _is_complete(source: str) -> bool:
    """Return whether lines make a statement, by the rules of Python's own prompt.

    Raises one of ``_INVALID`` for text that is not Python, and for more than one statement.
    """
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= _FLAGS
    return compiler(source, _FILENAME, "single") is not None


def _compile(source: str) -> CodeType:
    """Return the code of statements; if there is an ``await`` in it, calling it makes a coroutine."""
    tree = compile(source, _FILENAME, "exec", _FLAGS | ast.PyCF_ONLY_AST)
    tree = ast.fix_missing_locations(_Awaits().visit(_Values().visit(tree)))
    code: CodeType = compile(tree, _FILENAME, "exec", _FLAGS)
    return code


Definition = TypeVar("Definition", ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _Values(ast.NodeTransformer):
    """Passes the value of each expression statement to a function of the session, which shows it.

    The interpreter would call ``sys.displayhook``, of which a process has one for all sessions.
    """

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        """Show the value of an expression statement."""
        return ast.copy_location(ast.Expr(_call_of(DISPLAY, node.value)), node)

    def _leave(self, node: Definition) -> Definition:
        return node

    visit_FunctionDef = _leave  # noqa: N815 - the name that ast requires
    visit_AsyncFunctionDef = _leave  # noqa: N815
    visit_ClassDef = _leave  # noqa: N815


class _Awaits(ast.NodeTransformer):
    """Passes every awaited object through a function; see `shield_others`."""

    def visit_Await(self, node: ast.Await) -> ast.Await:
        """Wrap the awaited object."""
        self.generic_visit(node)
        return ast.copy_location(ast.Await(_call_of(SHIELD, node.value)), node)


def _call_of(name: str, value: ast.expr) -> ast.Call:
    return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), [value], []), value)
