"""From lines to what they do: compiling, names, output."""

import asyncio
from pathlib import Path

import pytest

from tamed.builtin._prompt.interpreter import Interpreter
from tamed.builtin._prompt.line import Line, LoopLine, Outcome
from tamed.builtin._prompt.terminal import Output
from tamed.service.application import Application
from tamed.service.service import MultiService, Service

pytestmark = pytest.mark.anyio


class Session:
    """An interpreter, and what it showed."""

    def __init__(self, limit: int = 10_000, longest: int = 10_000) -> None:
        self.shown = ""
        self.service = Service("poem")
        Application("verse", self.service, MultiService("a", Service("x")), MultiService("b", Service("x")))
        self.output = Output(self._show, limit)
        self.interpreter = Interpreter(self.service, self.output, longest)

    def _show(self, text: str) -> None:
        self.shown += text

    async def type(self, *lines: str) -> str:
        """Type lines, run what they make, and return what that printed."""
        self.shown = ""
        self.outcome: Outcome | None = None
        self.output.renew()
        for text in lines:
            line: Line | None = self.interpreter.push(text)
            if line is not None:
                self.outcome = await line.run()
        self.output.deliver()
        return self.shown


async def test_values_are_shown() -> None:
    """The value of an expression that stands alone is shown, and is `_`; None is not."""
    session = Session()
    assert await session.type("6 * 7") == "42\n"
    assert await session.type("_ + 1") == "43\n"
    assert await session.type("None") == ""
    assert await session.type("for i in range(2):", "  i", "") == "0\n1\n"
    assert await session.type("def f():", "  'not shown'", "") == ""
    assert await session.type("class A:", "  'not shown'", "") == ""
    assert await session.type("# a comment") == ""
    assert await session.type("x = 3; x") == "3\n"


async def test_what_awaits_runs_on_the_event_loop() -> None:
    """A line without `await` runs in a thread of its own, one with it in the loop's."""
    session = Session()
    await session.type("import threading, asyncio")
    assert await session.type("threading.current_thread().name") == "'prompt-line'\n"
    shown = await session.type("await asyncio.sleep(0, threading.current_thread().name)")
    assert shown == "'MainThread'\n"
    assert await session.type("await on_loop(threading.current_thread)") == await session.type(
        "threading.main_thread()"
    )


@pytest.mark.parametrize("how", ["await tasks['theirs']", "await f()", "[await each for each in [theirs]]"])
async def test_interrupting_a_line_leaves_the_tasks_of_others_alone(how: str) -> None:
    """However a line awaits a task of the service, an interruption ends the waiting and not the task."""
    session = Session()
    theirs = asyncio.create_task(asyncio.sleep(3600), name="theirs")
    await session.type("theirs = tasks['theirs']")
    await session.type("async def f(): await theirs", "")
    line = session.interpreter.push(how)
    assert isinstance(line, LoopLine)
    ending = asyncio.create_task(line.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.interrupt()
    assert await ending is Outcome.FAILED  # its CancelledError was shown
    assert theirs.cancelling() == 0
    theirs.cancel()


async def test_names_last() -> None:
    """Names that a line defines are available to later lines of its session only."""
    one, other = Session(), Session()
    await one.type("x = 7")
    await one.type("async def f(): return await asyncio.sleep(0, x)", "")
    await one.type("import asyncio")
    assert await one.type("await f()") == "7\n"
    assert "NameError: name 'x' is not defined" in await other.type("x")


async def test_services_by_name() -> None:
    """Services are found by their full names, or the ends of them; the error names those that there are."""
    session = Session()
    assert await session.type("services['poem'] is application['poem']") == "True\n"
    assert await session.type("services['a/x'].full_name") == "'a/x'\n"
    assert "KeyError: 'x: one of a/x, b/x'" in await session.type("services['x']")
    assert "poem   idle" in await session.type("services")
    assert await session.type("len(services), list(services)[1]") == "(6, 'poem')\n"


async def test_tasks_by_name() -> None:
    """Tasks are found by their names, and shown with what they run; a second of a name gets a number."""
    session = Session()
    tasks = [asyncio.create_task(asyncio.sleep(3600), name="slow") for _ in range(2)]
    await asyncio.sleep(0)
    assert await session.type("tasks['slow'] is tasks['slow #2'], len(tasks) > 1") == "(False, True)\n"
    shown = await session.type("tasks")
    assert "slow #2" in shown
    assert "sleep" in shown
    for task in tasks:
        task.cancel()


async def test_mistakes_are_reported() -> None:
    """Errors have a traceback of the line alone; those of the compiler too."""
    session = Session()
    assert await session.type("def f(): return 1/0", "") == ""
    shown = await session.type("f()")
    assert shown.splitlines() == [
        "Traceback (most recent call last):",
        '  File "<prompt>", line 1, in <module>',
        '  File "<prompt>", line 1, in f',
        "ZeroDivisionError: division by zero",
    ]
    assert session.outcome is Outcome.FAILED
    assert "SyntaxError" in await session.type("1 +")
    assert "SyntaxError" in await session.type("yield 3")
    assert "null bytes" in await session.type("'\0'")
    assert await session.type("1") == "1\n"


async def test_deep_nesting_is_a_mistake_like_others() -> None:
    """A line that the compiler cannot parse gives an error, and the session continues."""
    session = Session()
    assert "Error" in await session.type("(" * 3000 + ")" * 3000)
    assert "Error" in await session.type("-" * 9000 + "1")


async def test_help() -> None:
    """`help` tells of the prompt, and `help(thing)` of a thing, without a pager."""
    session = Session()
    assert "application      the application" in await session.type("help")
    assert await session.type("help") == await session.type("help()")
    assert "Number of bits" in await session.type("help(int.bit_length)")
    assert "sleep" in await session.type("help('asyncio.sleep')")
    assert "No Python documentation found" in await session.type("help('nonesuch')")


async def test_what_would_hurt_the_process() -> None:
    """`exit` ends the session only, and nothing waits on the service's own standard input."""
    session = Session()
    for line in ("exit()", "quit()", "raise SystemExit", "import sys; await on_loop(sys.exit)"):
        await session.type(line)
        assert session.outcome is Outcome.EXIT
    assert "there is no terminal" in await session.type("input()")
    assert "there is no terminal" in await session.type("breakpoint()")


async def test_output_stays_in_its_session(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`print` goes to the session, also from functions defined there, unless told where."""
    one, other = Session(), Session()
    await one.type("def f(): print('mine')", "")
    assert await one.type("f()") == "mine\n"
    await one.type(f"with open({str(tmp_path / 'file')!r}, 'w') as file: print('filed', file=file)", "")
    assert (tmp_path / "file").read_text() == "filed\n"
    assert other.shown == ""
    assert capsys.readouterr() == ("", "")


async def test_the_limit_of_output() -> None:
    """Output of a line beyond the limit is dropped with one message; the next line has its own limit."""
    session = Session(limit=10)
    assert await session.type("for i in range(9): print('abcd')", "") == (
        "abcd\nabcd\n\n... output truncated: the limit for a line is 10 characters\n"
    )
    assert await session.type("1") == "1\n"


async def test_the_limit_of_a_statement() -> None:
    """A statement that gets too long is given up."""
    session = Session(longest=20)
    assert (
        await session.type("if 1:", "  'abcdefghijklmnop'") == "the statement is longer than 20 characters\n"
    )
    assert session.interpreter.prompt == ">>> "
