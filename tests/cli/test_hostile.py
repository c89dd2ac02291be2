"""Hostile values for each option and argument of each command, and each state of the files of an instance.

The cases are made from the declarations of the commands, so a new option is tried without a word here. No
value names a place outside the folder of the test: root may run this.
"""

import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tamed._os.text import shown
from tamed.cli.commands import COMMANDS
from tamed.cli.grammar import Command
from tests.cli.conftest import Tamed
from tests.cli.outcomes import BLAMELESS, Done, faults_of, reported
from tests.patience import ROUNDS
from tests.supervised.forked import forking

VALUES: Final = {
    "empty": "",
    "blank": " ",
    "negative": "-1",
    "zero": "0",
    "huge": "9" * 400,
    "exponent": "1e999",
    "no number": "nan",
    "here": ".",
    "folder": "folder",
    "missing": "none/none",
    "file": "file",
    "pipe": "pipe",
    "socket": "socket",
    "loop": "loop",
    "control characters": "\x1b[31mred\u202e\x07",
    "unicode": "é€\u0301",
    "long name": "x" * 256,
    "long path": "a" * 5000,
    "undecodable": "\udcff",
    "equals": "=",
    "dashes": "--",
    "commas": ",,",
    "placeholders": "%s{}$X${Y}",
}
WAITS: Final = {("--env-file", "pipe"), ("TARGET", "pipe"), ("FILE", "pipe")}
"""A named pipe is read to its end, as `tamed run <(make-it)` needs it: it waits for a writer."""

OF_DAEMONS: Final = ("check", "export")
RUNNING: Final = ("run", "start")  # they are tried in processes of their own
INTERACTIVE: Final = ("password", "top", "twistd")
CHOSEN: Final = {"TARGET": "app.py", "KIND": "systemd", "FILE": "verse.toml", "SHELL": "bash", "COUNT": "2"}
APPLICATION: Final = """
from tamed import Application, Service

class Ends(Service):
    async def start(self):
        self.root_service.exit(0)

application = Application("app", Ends("ends"))
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter a folder with an application, a deployment, and one file of each kind."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("TAMED_RUNDIR", str(tmp_path / "run"))
    for folder in ("home", "folder"):
        (tmp_path / folder).mkdir()
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "verse.toml").write_text('[services.verse]\nplugin = "fastpoetry"\nport = 0\n')
    (tmp_path / "file").write_text("not = what 'you' expect\n")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        yield tmp_path


def lines_of(command: Command, only: Sequence[str] = tuple(VALUES)) -> Iterator[tuple[str, str, list[str]]]:
    """Yield command lines with one hostile value each, the name of its option, and the value."""
    usual = [CHOSEN.get(each.metavar, "verse") for each in command.arguments]
    for option in command.all_options():
        for kind in only if option.metavar else ():
            flag = option.flags[-1] if option.flags[-1].startswith("--") else option.flags[0]
            if (flag, kind) not in WAITS:
                yield flag, VALUES[kind], [command.name, f"{flag}={VALUES[kind]}", "--", *usual]
    for at, argument in enumerate(command.arguments):
        for kind in only:
            if (argument.metavar, kind) not in WAITS:
                words = [*usual[:at], VALUES[kind], *usual[at + 1 :]]
                yield argument.metavar, VALUES[kind], [command.name, "--", *words]


def faults(done: Done, what: str, value: str) -> Iterator[str]:
    """Yield the faults in the outcome of a command line with a hostile value."""
    subjects = (
        what,
        " ".join(shown(value).split())[:40],
        repr(value)[:40],
        str(Path(value).absolute())[:100],
        "verse is not running",
        "needs a terminal",
    )
    return faults_of(done, BLAMELESS, subjects, program=value if what in ("TARGET", "FILE") else "")


@pytest.mark.parametrize(
    "command",
    [each for each in COMMANDS if each.name not in (*RUNNING, *INTERACTIVE)],
    ids=lambda command: command.name,
)
def test_no_value_is_too_hostile_for_a_message(stage: Path, tamed: Tamed, command: Command) -> None:
    """Each hostile value gives a status for the right party, and a message with a subject.

    Commands that have the options of a daemon meet a third of the values with each, every value with some.
    """
    found = []
    every = 3 if ROUNDS == 1 and command.name in OF_DAEMONS else 1
    for what, value, words in itertools.islice(lines_of(command), 0, None, every):
        done = tamed(*words)
        found += reported(faults(done, what, value), words, done)
    assert found == []


def run_all(stage: Path, before: Sequence[str], kinds: Sequence[Sequence[str]]) -> None:
    """Run an application that ends at once, with these kinds of values in turn for the options."""
    command = next(each for each in COMMANDS if each.name == "run")
    of_options: dict[str, list[tuple[str, list[str]]]] = {}
    for what, value, words in lines_of(command):
        of_options.setdefault(what, []).append((value, words))
    found = []
    for number, (what, cases) in enumerate(of_options.items()):
        only = {VALUES[kind] for kind in kinds[number % len(kinds)]}
        for value, words in cases:
            if value in only:
                words[1:1] = before
                done = Done(*forking(()).run(words, stage, os.environ))
                found += reported(faults(done, what, value), words, done)
    assert found == []


def test_no_value_is_too_hostile_for_a_run(stage: Path) -> None:
    """Hostile values are passed until the end of an application, in turn."""
    run_all(stage, (), [(kind,) for kind in VALUES])


@pytest.mark.long
@pytest.mark.parametrize("before", [(), ("--workers=1",)], ids=["alone", "supervised"])
def test_each_value_with_each_option_of_a_run(stage: Path, before: Sequence[str]) -> None:
    """All options are tried, with and without a supervisor."""
    run_all(stage, before, [tuple(VALUES)])


def _stale(folder: Path) -> None:
    (folder / "verse.pid").write_text("4194304\n")


def _garbage(folder: Path) -> None:
    (folder / "verse.pid").write_bytes(b"\xff\x00\x1b[31m" * 100)


def _folder_as_pid_file(folder: Path) -> None:
    (folder / "verse.pid").mkdir()


def _pipe_as_pid_file(folder: Path) -> None:
    os.mkfifo(folder / "verse.pid")


def _stale_socket(folder: Path) -> None:
    _stale(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "verse.sock"))


def _of_another_user(folder: Path) -> None:
    _stale(folder)
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(folder, 12345, 12345)


def _writable_for_all(folder: Path) -> None:
    _stale(folder)
    folder.chmod(0o777)


@pytest.mark.parametrize(
    "state",
    [
        _stale,
        _garbage,
        _folder_as_pid_file,
        _pipe_as_pid_file,
        _stale_socket,
        _of_another_user,
        _writable_for_all,
    ],
    ids=lambda state: state.__name__.strip("_"),
)
def test_no_state_of_the_files_confuses_a_command(stage: Path, tamed: Tamed, state: object) -> None:
    """Each command reports an instance that is not running, or a fault in its files."""
    assert callable(state)
    folder = stage / "run" / "verse"
    folder.mkdir(parents=True, mode=0o755)
    (stage / "run").chmod(0o755)
    state(folder)
    found = []
    for command in COMMANDS:
        if not any(each.name == "rundir" for each in command.options) or command.name in INTERACTIVE:
            continue
        words = [CHOSEN.get(each.metavar, "verse") for each in command.arguments]
        lines = [[command.name, *words]]
        if not command.arguments[-1].required:
            lines.append(lines[0][:-1])
        for line in lines:
            done = tamed(*line)
            found += reported(faults(done, "verse", "nothing is running"), line, done)
    assert found == []
