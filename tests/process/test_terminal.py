"""What a person sees who runs it in a terminal."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.process.conftest import told
from tests.supervised.daemon import wait_for

WARNING = """
class Wary(Service):
    async def start(self):
        log.warning("beware")

application = Application("verse", Wary("wary"))
"""


# The leader of a session gets the terminal that it opens first, and with it Ctrl-C (tty(4)).
_IN_THE_FOREGROUND = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""


class Terminal:
    """A terminal in which one command runs in the foreground."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.text = ""

    def close(self) -> None:
        """Close it, as closing its window does: the kernel sends SIGHUP to the command (tty(4))."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self.descriptor)
        os.close(null)

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self.descriptor, text.encode())

    def read_until(self, pattern: str) -> None:
        """Read until something is on the screen."""
        while not re.search(pattern, self.text):
            self.text += os.read(self.descriptor, 4096).decode()

    def read_all(self) -> None:
        """Read until the command has ended."""
        with suppress(OSError):  # EIO: nobody has the terminal open any more
            while some := os.read(self.descriptor, 4096):
                self.text += some.decode()

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return self.text.split("\r\n")


@contextmanager
def terminal(
    *arguments: str | Path, env: dict[str, str] | None = None
) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    """Run a command in a terminal of its own."""
    ours, its = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _IN_THE_FOREGROUND, "tamed", *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm", **(env or {})},
        start_new_session=True,
    ) as process:
        os.close(its)
        try:
            yield Terminal(ours), process
        finally:
            process.kill()
            os.close(ours)


def test_a_person_sees_time_level_and_colour(application: Callable[[str], Path]) -> None:
    """After Ctrl-C, which the terminal shows as ^C, the order of stopping is on lines of its own."""
    with terminal("run", application(WARNING)) as (screen, process):
        screen.read_until("is ready")
        screen.type("\x03")
        screen.read_all()
        assert process.wait(PATIENCE) == 0
    lines = [re.sub(r"\d\d:\d\d:\d\d", "TIME", line) for line in screen.lines]
    assert [line for line in lines if "running as root" not in line] == [
        "\x1b[33mTIME WARNING  app: beware\x1b[0m",
        "TIME INFO     tamed.service: started wary",
        "TIME INFO     tamed: verse is ready",
        "^C",
        "TIME INFO     tamed: SIGINT: stopping",
        "TIME INFO     tamed.service: stopped wary",
        "TIME INFO     tamed: stopped",
        "",
    ]


@pytest.mark.parametrize(
    ("env", "before", "expected"),
    [
        ({"NO_COLOR": "1"}, [], r"^\d\d:\d\d:\d\d WARNING  app: beware$"),
        ({}, ["--log-format", "plain"], r"^\d{4}-\d\d-\d\dT\S+ WARNING app: beware$"),
        ({"TERM": "dumb"}, [], r"^\d\d:\d\d:\d\d WARNING  app: beware$"),
    ],
    ids=["no colour", "plain", "dumb"],
)
def test_colour_can_be_refused(
    application: Callable[[str], Path], env: dict[str, str], before: list[str], expected: str
) -> None:
    """By NO_COLOR, by the layout, and by a terminal that has none."""
    with terminal("run", *before, application(WARNING), env=env) as (screen, _):
        screen.read_until("is ready")
    assert any(re.search(expected, line) for line in told(screen.lines))


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "supervised"])
def test_it_stops_when_its_terminal_is_closed(
    application: Callable[[str], Path], tmp_path: Path, options: list[str]
) -> None:
    """Nobody could see it any more; a supervisor does not take the hangup for a reload."""
    log = tmp_path / "verse.log"
    with terminal("run", *options, "--log-file", log, application(WARNING)) as (screen, process):
        wait_for("the daemon", lambda: log.exists() and "is ready" in log.read_text())
        screen.close()
        assert process.wait(PATIENCE) == 0
    assert "SIGHUP: stopping" in log.read_text()
    assert "reload" not in log.read_text()


def test_help_fits_the_terminal() -> None:
    """The width is that of the terminal, up to a limit that can be read."""
    with terminal("run", "--help", env={"COLUMNS": "70"}) as (screen, process):
        screen.read_all()
        assert process.wait(PATIENCE) == 0
    assert 50 < max(map(len, screen.lines)) <= 70
