"""Compiles the typed lines into code, shows how it ended, and defines the names that it can use."""

import ast
import asyncio
import builtins
import codeop
import pydoc
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from inspect import CO_COROUTINE
from types import CodeType, FunctionType, TracebackType
from typing import Any, Final, NoReturn, ParamSpec, TextIO, TypeVar, cast

from tamed.builtin._prompt.line import Line, LoopLine, Outcome, ThreadLine, shield_others
from tamed.builtin._prompt.terminal import Output
from tamed.service.service import Service

__all__ = ["DISPLAY", "SHIELD", "Interpreter", "ServicesByName", "TasksByName", "namespace", "on_loop"]

_FILENAME: Final = "<prompt>"

_INVALID: Final = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
"""What the compiler raises for a text that is not Python."""

_FLAGS: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

DISPLAY: Final = "__display__"
"""The name of the function that shows the value of an expression statement."""

SHIELD: Final = "__shield__"
"""The name of the function that every awaited object passes through."""

P = ParamSpec("P")
T = TypeVar("T")

_HELP: Final = """\
application      the application that this process runs
services         its services by name: services["server"]; shows them with their states
tasks            the asyncio tasks by name: tasks["Task-1"]; shows them with the lines where they wait
on_loop(f, ...)  calls f on the event loop: await on_loop(f, 1)
help(thing)      shows the documentation of an object
exit()           ends the session, as Ctrl-D does

A line runs in its own thread, in parallel to the service; Ctrl-C interrupts it. Objects of the event loop
must not be changed from there. A line with an await runs on the event loop, as a task; Ctrl-C cancels it.
Until it awaits something, the service is blocked.
"""


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


class ServicesByName(Mapping[str, Service]):
    """The current services of an application by full name, or by the end of it if that is unique."""

    def __init__(self, root: Service) -> None:
        self._root = root

    def __getitem__(self, name: str) -> Service:
        """Return a service. Raises KeyError, which names the services that match if there are several."""
        services = self._by_full_name()
        if name in services:
            return services[name]
        ending = [full_name for full_name in services if full_name.endswith(f"/{name}")]
        if len(ending) != 1:
            raise KeyError(f"{name}: one of {', '.join(ending or services)}")
        return services[ending[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_full_name())

    def __len__(self) -> int:
        return len(self._by_full_name())

    def __repr__(self) -> str:
        rows = [(name, one.state.value, one.summary) for name, one in self._by_full_name().items()]
        return _table(rows)

    def _by_full_name(self) -> dict[str, Service]:
        return {service.full_name: service for service in self._root.walk()}


class TasksByName(Mapping[str, "asyncio.Task[Any]"]):
    """The current tasks of an event loop by name; a second task called ``name`` is ``name #2``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getitem__(self, name: str) -> "asyncio.Task[Any]":
        return self._by_name()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def __repr__(self) -> str:
        return _table([(name, *_place(task)) for name, task in self._by_name().items()])

    def _by_name(self) -> "dict[str, asyncio.Task[Any]]":
        tasks: dict[str, asyncio.Task[Any]] = {}
        for task in sorted(asyncio.all_tasks(self._loop), key=_number):
            name, number = task.get_name(), 1
            while name in tasks:
                number += 1
                name = f"{task.get_name()} #{number}"
            tasks[name] = task
        return tasks


class _Helper:
    """``help`` and ``help(thing)``; Python's own ``help`` would ask on the standard input."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, thing: object = None) -> None:
        text = _HELP if thing is None else pydoc.render_doc(thing, "%s", renderer=_PLAIN)
        self._output.write(text)

    def __repr__(self) -> str:
        return _HELP.rstrip()


class _Exit:
    """``exit()``; Python's own would close the standard input of the process."""

    def __call__(self, code: object = None) -> NoReturn:
        raise SystemExit(code)

    def __repr__(self) -> str:
        return "exit() or Ctrl-D ends the session"


def namespace(service: Service, output: Output) -> dict[str, Any]:
    """Return the names for a session in the application that a service is in.

    They have builtins of their own, in which ``print`` writes to the output. Functions that are defined at
    the prompt use these builtins too; other modules print to the usual place.
    """
    root = service.root_service
    return {
        "__name__": "__prompt__",
        "__builtins__": _builtins(output),
        "application": root,
        "services": ServicesByName(root),
        "tasks": TasksByName(asyncio.get_running_loop()),
        "on_loop": on_loop,
    }


async def on_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on the event loop, to be awaited by a line at the prompt."""
    return function(*args, **kwargs)


def _builtins(output: Output) -> dict[str, Any]:
    own = dict(vars(builtins))

    def show(*values: object, file: TextIO | None = None, **options: Any) -> None:
        builtins.print(*values, file=cast(TextIO, output) if file is None else file, **options)

    def display(value: object) -> None:
        if value is not None:
            output.write(f"{value!r}\n")
            own["_"] = value

    def no_terminal(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(
            "there is no terminal to read from; this would block on the service's standard input"
        )

    leave = _Exit()
    own |= {
        DISPLAY: display,
        SHIELD: shield_others,
        "print": show,
        "help": _Helper(output),
        "exit": leave,
        "quit": leave,
        "input": no_terminal,
        "breakpoint": no_terminal,
    }
    return own


class _PlainText(pydoc.TextDoc):
    """Documentation without overstriking, which is for printers."""

    def bold(self, text: str) -> str:
        """Return the text unchanged."""
        return text


_PLAIN: Final = _PlainText()


def _place(task: "asyncio.Task[Any]") -> tuple[str, str]:
    """Return the name of a task's coroutine, and the line at which it waits."""
    coroutine = task.get_coro()
    frames = task.get_stack(limit=1)
    where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else ""
    return getattr(coroutine, "__qualname__", type(coroutine).__name__), where


def _number(task: "asyncio.Task[Any]") -> tuple[int, str]:
    """Return a key that sorts Task-10 after Task-9."""
    return len(task.get_name()), task.get_name()


def _table(rows: list[tuple[str, str, str]]) -> str:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows)
