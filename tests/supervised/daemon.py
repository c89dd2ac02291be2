"""Real daemons in tests: the command with its own run directory, and the daemons that it starts."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from tamed.control.instances import find_instance, status_of_instance, stop_instance
from tamed.testing.process import TamedProcess
from tamed.unix.rundir import Instance, RunDirectory
from tests.patience import PATIENCE
from tests.supervised.forked import Fork, ForkedProcess, Forking, Loaded, can_fork, forking
from tests.supervised.opened import OPENED

T = TypeVar("T")

NOBODY = 65534
POEM = b"Busy old fool, unruly sun,\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")

_LOG = re.compile(r"\.log(\.events)?(\.\d+(\.gz)?)?$")


class Done(NamedTuple):
    """The outcome of a command."""

    status: int
    out: str
    err: str


def wait_for(what: str, look: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Poll until a condition holds; return its value. For events without a notification."""
    began = time.monotonic()
    while not (found := look()):
        if (waited := time.monotonic() - began) > patience:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(min(0.1, max(0.02, waited / 10)))  # a look takes other processes some of their time
    return found


def is_there(pid: int) -> bool:
    """Return whether a process exists, and is no zombie and not being reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_poem(port: int) -> bytes:
    """Connect and read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        return sock.makefile("rb").read()


def rotated(log: Path) -> list[Path]:
    """Return a log and its old files, the oldest first."""
    old = sorted(log.parent.glob(f"{log.name}.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
    return [*old, log]


def whole(log: Path) -> str:
    """Return the content of a log and its old files, read between two rotations."""
    while True:
        try:
            files = [(path, path.stat().st_ino) for path in rotated(log)]
            text = "".join(path.read_text() for path, _ in files)
            if files == [(path, path.stat().st_ino) for path in rotated(log)]:
                return text
        except FileNotFoundError:
            continue


class Command(subprocess.Popen[str]):
    """A command that is killed if it still runs at the end of the ``with``."""

    def __exit__(self, *exception: object) -> None:
        self.kill()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


class Tamed:
    """The command, with a run directory, a mark on all that comes of it, and ``folder`` as working directory.

    Leaving it ends what is left, and tells if that was anything at all.
    """

    def __init__(
        self,
        folder: Path,
        rundir: Path | None = None,
        before: Sequence[str] = (),
        *,
        loaded: Loaded = "",
    ) -> None:
        self.before = before  # the command that runs the command
        self.loaded: Loaded = loaded  # what the process has loaded that forks for the commands
        self.may_fork = True  # whether commands may be forks: else each is an interpreter of its own
        self.folder = folder
        self.rundir = rundir or folder / "run"
        self.logs = folder / "logs"
        self.mark = f"TAMED_TEST={uuid.uuid4()}"
        self.poem = folder / "poem.txt"
        self.poem.write_bytes(POEM)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of all processes, with the mark."""
        name, _, value = self.mark.partition("=")
        places = {"TAMED_RUNDIR": str(self.rundir), "LOGS_DIRECTORY": str(self.logs)}
        return {**os.environ, name: value, **places, **(more or {})}

    def popen(self, *arguments: str | Path, **options: Any) -> "Command":
        """Run the command and do not wait for it."""
        settings: dict[str, Any] = {
            "cwd": self.folder,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **options,
            "env": self.environment(options.get("env")),
        }
        command = [*self.before, sys.executable, "-m", "tamed", *map(str, arguments)]
        return Command(command, **settings)

    def begin(self, *arguments: str | Path) -> "Fork | Command":
        """Run the command and do not wait for it, in a fork if that shows the same."""
        words = list(map(str, arguments))
        if forks := self._forks(words, {}):
            return forks.begin(words, self.folder, self.environment(), apart=True)
        return self.popen(*arguments)

    def __call__(self, *arguments: str | Path, **options: Any) -> Done:
        """Run the command to its end, in a fork if that shows the same; return the outcome."""
        words = list(map(str, arguments))
        if forks := self._forks(words, options):
            env = self.environment(options.get("env"))
            return Done(*forks.run(words, options.get("cwd", self.folder), env))
        with self.popen(*arguments, **options) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return Done(process.returncode, out, err)

    def start(self, *arguments: str | Path, **options: Any) -> "Daemon":
        """Start a daemon, which must become ready."""
        done = self("start", *arguments, **options)
        assert (done.status, done.err) == (0, ""), done
        found = re.fullmatch(r"(\S+) is ready: pid (\d+)(?:, listening on (.+))?\n", done.out)
        assert found is not None, done
        return Daemon(self, found[1], int(found[2]), (found[3] or "").split(", "))

    def start_poetry(self, *arguments: str | Path, **options: Any) -> "Daemon":
        """Start a daemon that serves the poem on a free port."""
        return self.start(*arguments, "fastpoetry", "--port", "0", "--poem", self.poem, **options)

    def foreground(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> TamedProcess:
        """Return the command for a daemon in the foreground."""
        words = list(map(str, arguments))
        if forks := self._forks(words, {"env": env or {}}):
            return ForkedProcess(forks, words, self.folder, self.environment(env))
        return TamedProcess(*arguments, cwd=self.folder, env=self.environment(env), before=self.before)

    def _forks(self, words: Sequence[str], options: Mapping[str, Any]) -> Forking | None:
        """Return the process that forks this command; None if it needs an interpreter of its own."""
        if self.may_fork and list(self.before) in ([], OPENED) and can_fork(words, options):
            return forking(tuple(self.before), self.loaded)
        return None

    def write(self, name: str, text: str) -> Path:
        """Write a file into the folder."""
        path = self.folder / name
        path.write_text(text)
        return path

    def left(self) -> dict[str, str]:
        """Return the remains of daemons: processes, by pid, and files other than logs and kept plans."""
        found = {str(pid): command_of(pid) for pid in self.processes()}
        for folder, folders, files in os.walk(self.rundir):  # unlike rglob, it may meet what is being removed
            here = Path(folder)
            if not folders and not files and here != self.rundir:
                found[folder] = "file"
            elif here.name != ".plans":
                strange = [name for name in files if not _LOG.search(name)]
                found |= {str(here / name): "file" for name in strange}
        return found

    def processes(self) -> list[int]:
        """Return the pids of all running processes of the test."""
        mark = self.mark.encode()
        return [pid for pid in _all_pids() if _has_in_environment(pid, mark) and is_there(pid)]

    def close(self) -> None:
        """End the remaining processes."""
        while left := self.processes():
            for pid in left:
                _kill(pid)


class Daemon:
    """A daemon that was started."""

    def __init__(self, tamed: Tamed, name: str, pid: int, addresses: list[str]) -> None:
        self.tamed = tamed
        self.name = name
        self.pid = pid
        self.addresses = addresses

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def folder(self) -> Path:
        """The instance's own directory."""
        return self.tamed.rundir / self.name

    @property
    def log_file(self) -> Path:
        """The log file in its default place: in its own folder if it belongs to another user."""
        own = self.tamed.logs / self.name
        return (own if own.is_dir() else self.tamed.logs) / f"{self.name}.log"

    @property
    def log(self) -> str:
        """The content of the log file."""
        return self.log_file.read_text()

    def expect_log(self, pattern: str) -> re.Match[str]:
        """Wait until the log matches this pattern."""
        return wait_for(f"{pattern!r} in the log", lambda: re.search(pattern, self.log))

    def instance(self) -> Instance:
        """Find the instance as the commands do."""
        return find_instance(RunDirectory(self.tamed.rundir), self.name)

    def status(self) -> dict[str, Any]:
        """Request its status, as `tamed status --json` does, without a process for it."""
        return status_of_instance(self.instance(), PATIENCE)

    def workers(self) -> list[int]:
        """Return the pids of its workers that are ready."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["state"] == "ready"]

    def wait_workers(self, count: int, without: Iterable[int] = ()) -> list[int]:
        """Wait until so many workers are ready, none of them among some that were there before."""

        def look() -> list[int]:
            found = self.workers()
            return found if len(found) == count and not set(found) & set(without) else []

        return wait_for(f"{count} workers", look)

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    def wait_gone(self) -> None:
        """Wait until the supervisor has ended."""
        wait_for("the end of the supervisor", lambda: not is_there(self.pid))

    def stop(self) -> None:
        """Stop it as `tamed stop` does, without a process for it; nothing may be left behind."""
        assert stop_instance(self.instance(), timeout=PATIENCE, force=False, progress=lambda _: None)
        assert self.tamed.left() == {}


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - thrice as fast


def _has_in_environment(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123 - as above
            return mark in file.readall()
    except OSError:
        return False


def command_of(pid: int) -> str:
    """Return the command line of a process, with spaces; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
