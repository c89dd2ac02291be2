"""Each command at each state of a daemon: an end, no traceback, and a line with a subject if it fails.

The command lines are made from the declarations of the commands, so a new one is tried without a word here.
"""

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

import tamed as package
from tamed.cli.commands import COMMANDS
from tamed.errors import ExitStatus
from tests.cli.outcomes import BLAMELESS, Done, faults_of, reported
from tests.patience import PATIENCE
from tests.stand_in import SLOW, stand_in
from tests.supervised.daemon import NOBODY, Daemon, Tamed, needs_root, wait_for
from tests.supervised.forked import forking

APPLICATION: Final = """
import asyncio
from pathlib import Path
from tamed import Application, Service

class Verse(Service):
    async def start(self):
        await self.held("start")

    async def stop(self):
        await self.held("stop")

    async def held(self, hook):
        while Path("hold", hook).exists():
            await asyncio.sleep(0.02)

if Path("broken").exists():
    raise KeyError("rhyme")
application = Application("app", Verse("verse"))
"""
DONE: Final = """
from tamed import Application, Service

class Done(Service):
    async def start(self):
        self.root_service.exit(0)

application = Application("app", Done("done"))
"""

GoOn = Callable[[], object]
"""Lets what the daemon waits for happen."""

State = Callable[[Tamed], AbstractContextManager[GoOn | None]]


def start(tamed: Tamed, *options: str) -> Daemon:
    """Start the application with two workers."""
    return tamed.start("--workers", "2", *options, "app.py")


def hold(tamed: Tamed, hook: str) -> GoOn:
    """Hold a hook until the returned function is called."""
    file = tamed.folder / "hold" / hook
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    return lambda: file.unlink(missing_ok=True)


@contextmanager
def _none(tamed: Tamed) -> Iterator[None]:
    yield


@contextmanager
def _starting(tamed: Tamed) -> Iterator[GoOn]:
    go_on = hold(tamed, "start")
    with tamed.begin("start", "--workers", "2", "app.py"):
        wait_for("a start", lambda: "starting" in tamed("status").out)
        yield go_on


@contextmanager
def _running(tamed: Tamed) -> Iterator[None]:
    start(tamed)
    yield


@contextmanager
def _degraded(tamed: Tamed, lost: int = 1) -> Iterator[None]:
    daemon = start(tamed)
    tamed.write("broken", "")
    for worker in daemon.workers()[:lost]:
        os.kill(worker, signal.SIGKILL)
    wait_for("a failure", lambda: "rhyme" in daemon.log)
    yield


def _failing(tamed: Tamed) -> AbstractContextManager[None]:
    return _degraded(tamed, lost=2)


@contextmanager
def _stopping(tamed: Tamed) -> Iterator[GoOn]:
    daemon = start(tamed)
    go_on = hold(tamed, "stop")
    daemon.signal(signal.SIGTERM)
    wait_for("a stop", lambda: daemon.status()["state"] == "stopping")
    yield go_on


@contextmanager
def _killed_with_workers_left(tamed: Tamed) -> Iterator[GoOn]:
    daemon = start(tamed)
    go_on = hold(tamed, "stop")
    daemon.signal(signal.SIGKILL)
    daemon.wait_gone()
    assert tamed.processes()
    yield go_on


@contextmanager
def _suspended(tamed: Tamed, change: Callable[[Daemon], object]) -> Iterator[GoOn]:
    daemon = start(tamed)
    daemon.signal(signal.SIGSTOP)
    change(daemon)
    yield lambda: daemon.signal(signal.SIGCONT)


def _deaf(tamed: Tamed) -> AbstractContextManager[GoOn]:
    return _suspended(tamed, lambda _: None)


def _swept_away(tamed: Tamed) -> AbstractContextManager[GoOn]:
    return _suspended(tamed, lambda daemon: shutil.rmtree(daemon.folder.parent))


def _file_as_folder(tamed: Tamed) -> AbstractContextManager[GoOn]:
    def change(daemon: Daemon) -> None:
        shutil.rmtree(daemon.folder)
        daemon.folder.write_text("in the way")

    return _suspended(tamed, change)


def _file_as_socket(tamed: Tamed) -> AbstractContextManager[GoOn]:
    def change(daemon: Daemon) -> None:
        (daemon.folder / "app.sock").unlink()
        (daemon.folder / "app.sock").write_text("in the way")

    return _suspended(tamed, change)


@contextmanager
def _strangers_socket(tamed: Tamed) -> Iterator[GoOn]:
    with socket.socket(socket.AF_UNIX) as stranger:

        def change(daemon: Daemon) -> None:
            (daemon.folder / "app.sock").unlink()
            stranger.bind(os.path.relpath(daemon.folder / "app.sock"))
            stranger.listen(100)

        with _suspended(tamed, change) as go_on:
            yield go_on


@contextmanager
def _unreadable_plan(tamed: Tamed) -> Iterator[None]:
    daemon = start(tamed)
    daemon.signal(signal.SIGKILL)
    wait_for("the end", lambda: not tamed.processes())
    (daemon.folder / "app.plan").write_text("{")
    yield


@contextmanager
def _log_removed(tamed: Tamed) -> Iterator[None]:
    daemon = start(tamed)
    daemon.log_file.unlink()
    daemon.log_file.with_name("app.log.events").unlink()
    yield


@contextmanager
def _killed(tamed: Tamed) -> Iterator[None]:
    daemon = start(tamed)
    daemon.signal(signal.SIGKILL)
    wait_for("the end", lambda: not tamed.processes())
    yield


@contextmanager
def _stopped(tamed: Tamed) -> Iterator[None]:
    start(tamed)
    assert tamed("stop").status == 0
    yield


@contextmanager
def _failed_to_start(tamed: Tamed) -> Iterator[None]:
    broken = tamed.write("broken", "")
    assert tamed("start", "app.py").status == ExitStatus.SOFTWARE
    broken.unlink()
    yield


@contextmanager
def _of_another_version(tamed: Tamed) -> Iterator[None]:
    copy = tamed.folder / "site" / "tamed"
    copy.mkdir(parents=True)
    for path in Path(package.__file__).parent.iterdir():
        if path.name != "_version.py":
            (copy / path.name).symlink_to(path)

    def become(version: str) -> None:
        (copy / "_version.py").write_text(f'__all__ = ["__version__"]\n__version__ = "{version}"\n')

    become("0.0.1")
    tamed.start("--workers", "2", "app.py", env={"PYTHONPATH": str(copy.parent)})
    become("999.0")
    yield


@contextmanager
def _answering(tamed: Tamed, answer: str, more: str = "") -> Iterator[GoOn]:
    start(tamed)
    instance = Daemon(tamed, "app", 0, []).instance()
    assert tamed("stop").status == 0
    instance.directory.mkdir(parents=True, mode=0o755)
    with stand_in(instance, answer, more) as process:
        yield process.kill


def _answering_nonsense(tamed: Tamed) -> AbstractContextManager[GoOn]:
    return _answering(tamed, "\x1b]0;owned\x07\n")


def _answering_the_unknown(tamed: Tamed) -> AbstractContextManager[GoOn]:
    return _answering(tamed, json.dumps({"name": "app", "mood": "serene"}) + "\n")


def _answering_nothing(tamed: Tamed) -> AbstractContextManager[GoOn]:
    return _answering(tamed, "")


def _answering_slowly(tamed: Tamed) -> AbstractContextManager[GoOn]:
    return _answering(tamed, "", SLOW)


STATES: Final[Sequence[State]] = (
    _none,
    _starting,
    _running,
    _degraded,
    _stopping,
    _of_another_version,
    _swept_away,
    _strangers_socket,
    _killed_with_workers_left,
)
LIKE_THEM: Final[Sequence[State]] = (
    _file_as_socket,
    _answering_nonsense,
    _stopped,
    _failing,
    _log_removed,
    _deaf,
    _file_as_folder,
    _answering_the_unknown,
    _answering_nothing,
    _answering_slowly,
    _killed,
    _failed_to_start,
    _unreadable_plan,
)

CHANGING: Final = ("reopen", "scale", "resign", "reload", "upgrade", "restart", "start", "run", "stop")
"""In this order each has something to change."""

OF_ARGUMENTS: Final = {
    "NAME": ("app", "none", "a/b"),
    "COUNT": ("2", "0", "9" * 9),
    "ROLE": ("verse", "\x1b"),
}
TARGETS: Final = {"run": ("--workers=1", "--name=app", "done.py"), "start": ("--name=app", "app.py")}
SUBJECTS: Final = ("app", "none", "a/b", "role", "COUNT", "workers", "a terminal", "nothing is running")


def lines_for(name: str) -> Iterator[list[str]]:
    """Yield command lines, first the usual one, then those with one argument or option that is not."""
    if name in TARGETS:
        yield [name, *TARGETS[name]]
        return
    command = next(each for each in COMMANDS if each.name == name)
    usual = [OF_ARGUMENTS[each.metavar][0] for each in command.arguments]
    yield [name, *usual]
    if not command.arguments[-1].required:
        yield [name, *usual[:-1]]
    for option in command.all_options():
        if option.name in ("as_json", "every", "force"):
            yield [name, *usual, option.flags[-1]]
    for at, argument in enumerate(command.arguments):
        for other in OF_ARGUMENTS[argument.metavar][1:]:
            yield [name, *usual[:at], other, *usual[at + 1 :]]


def lines_of(commands: Iterable[str]) -> list[list[str]]:
    """Return all lines for these commands."""
    return [line for name in commands for line in lines_for(name)]


def reading() -> list[str]:
    """Return the names of the commands that look into the run directory, and change nothing."""
    names = [each.name for each in COMMANDS if any(option.name == "rundir" for option in each.options)]
    return [name for name in names if name not in CHANGING]


class Trial:
    """Runs command lines, and keeps what is wrong with their outcomes."""

    def __init__(self, tamed: Tamed, *before: str) -> None:
        self.faults: list[str] = []
        self._tamed = tamed
        self._before = (*tamed.before, *before)

    def run(self, line: Sequence[str]) -> None:
        """Run a line to its end."""
        done = Done(*forking(self._before).run(line, self._tamed.folder, self._tamed.environment()))
        expected = {*BLAMELESS, ExitStatus.SOFTWARE} if line[0] in CHANGING else BLAMELESS
        self.faults += reported(faults_of(done, expected, SUBJECTS, program="app.py"), line, done)

    def run_at_once(self, lines: Iterable[Sequence[str]], go_on: GoOn | None = None) -> None:
        """Run lines, all at the same time; then let the daemon go on."""
        with ThreadPoolExecutor(100) as pool:
            running = [pool.submit(self.run, line) for line in lines]
            if go_on is not None:
                go_on()
            for each in running:
                each.result(PATIENCE)

    def run_all(self, go_on: GoOn | None) -> None:
        """Run all lines: what reads, which leaves the daemon as it is, and then what changes it."""
        self.run_at_once(lines_of(reading()))
        if go_on is not None:
            self.run_at_once(lines_of(CHANGING), go_on)
            return
        for line in lines_of(CHANGING):
            self.run(line)


@contextmanager
def trial_at(tamed: Tamed, state: State) -> Iterator[tuple[Trial, GoOn | None]]:
    """Bring a daemon into a state, and yield what tries it."""
    tamed.write("app.py", APPLICATION)
    tamed.write("done.py", DONE)
    with state(tamed) as go_on:
        yield Trial(tamed), go_on


def name_of(state: State) -> str:
    """Return the name of a state."""
    return state.__name__.strip("_")


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_each_command_ends_with_a_message_in_each_state(tamed: Tamed, state: State) -> None:
    """It ends within patience, blames whose fault it is, and names what it is about."""
    with trial_at(tamed, state) as (trial, go_on):
        trial.run_at_once(next(lines_for(name)) for name in reading())
        trial.run_at_once([next(lines_for(name)) for name in ("reopen", "resign")], go_on)
        trial.run(["stop", "--force", "app"])
    assert trial.faults == []


@pytest.mark.long
@pytest.mark.parametrize("state", [*STATES, *LIKE_THEM], ids=name_of)
def test_no_argument_is_too_hostile_for_a_state(tamed: Tamed, state: State) -> None:
    """The same with those that restart it, and with all arguments and options."""
    with trial_at(tamed, state) as (trial, go_on):
        trial.run_all(go_on)
    assert trial.faults == []


@needs_root
@pytest.mark.parametrize(
    ("user", "lines"),
    [
        ("nobody", "usual"),
        pytest.param("nobody", "all", marks=pytest.mark.long),
        pytest.param("root", "all", marks=pytest.mark.long),
    ],
)
def test_a_command_of_another_user_ends_with_a_message(public_tamed: Tamed, user: str, lines: str) -> None:
    """Nobody may change what is root's; root may change what is nobody's."""
    public_tamed.write("app.py", APPLICATION)
    public_tamed.write("done.py", DONE)
    start(public_tamed, "--user", "nobody" if user == "root" else "root")
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    if user == "root":
        trial = Trial(public_tamed)
        trial.run_all(None)
    else:
        trial = Trial(public_tamed, *become)
        names = [*reading(), *CHANGING]
        trial.run_at_once(lines_of(names) if lines == "all" else [next(lines_for(name)) for name in names])
    assert trial.faults == []
