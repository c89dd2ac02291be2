"""The keys of `tamed top`, without a terminal: the actions that each key causes."""

from collections.abc import Callable
from typing import Any

from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from tamed.cli._screen import Row, Screen
from tamed.errors import Unavailable
from tests.cli.test_board import status, worker

DOWN, UP, ESCAPE = "\x1b[B", "\x1b[A", "\x1b"


class Known:
    """Answers as instances do, and presses the next keys at each update until they have an effect."""

    def __init__(self, press: Callable[[str], object]) -> None:
        self._press = press
        self._keys = f"mnc{DOWN}s"
        self.done: list[str] = []

    def look(self) -> list[dict[str, Any]]:
        """Return two workers."""
        self._press(self._keys)
        return [status(worker(1), worker(2))]

    def stacks(self, row: Row) -> list[str]:
        """Show them; the user scrolls, goes back and looks for the log."""
        self.done.append(f"stacks {row.number}")
        self._keys = f"{DOWN}{UP}{ESCAPE}l"
        return ["a stack"]

    def log(self, row: Row) -> list[str]:
        """Fail; the user filters, hesitates, and reloads."""
        self.done.append(f"log {row.number}")
        self._keys = f"/{ESCAPE}/verses\x7f\rrnry"
        raise Unavailable("there is no log")

    def reload(self, row: Row) -> str:
        """Reload; the user has seen enough."""
        self.done.append(f"reload {row.instance}")
        self._keys = "q"
        return "reloaded"


def test_keys_do_what_the_last_line_says() -> None:
    """A key acts on the selected worker; an error is shown, and the screen continues."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        known = Known(keys.send_text)
        Screen(known).run()
    assert list(dict.fromkeys(known.done)) == ["stacks 2", "log 2", "reload verse"]
