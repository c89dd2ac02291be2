"""What the tests of `exec` and `inetd` share: running programs, and finding what is left of them."""

import asyncio
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tamed.builtin.exec import Options, ProgramService, exec_
from tamed.builtin.programs.options import Command
from tamed.builtin.programs.process import ForkServerService
from tamed.plugins.values import Duration
from tamed.service.service import MultiService
from tests.patience import PATIENCE
from tests.supervised.daemon import command_of


class Marked:
    """A mark in the environment of programs, by which all that descends from them is found."""

    def __init__(self) -> None:
        self.value = str(uuid.uuid4())
        self.environment = {"TAMED_TEST_MARK": self.value}
        self.passed = ["--pass-environment", "TAMED_TEST_MARK"]

    def processes(self) -> list[int]:
        """Return the pids of all that has the mark."""
        mark = f"TAMED_TEST_MARK={self.value}".encode()
        return [pid for pid in _pids() if mark in _environment(pid)]


def shell(script: str) -> Command:
    """Return the command that has a shell run a script."""
    return Command(("/bin/sh", "-c", script))


def python(script: str) -> Command:
    """Return the command that has Python run a script."""
    return Command((sys.executable, "-I", "-S", "-c", script))


def as_text(command: Command) -> str:
    """Return a command as one types it."""
    return shlex.join(command)


def run(command: Command, **options: Any) -> MultiService:
    """Return the service of `exec` for a command; it is ready as soon as the program runs."""
    settings: dict[str, Any] = {"ready_after": Duration(0), "stop_timeout": Duration(PATIENCE), **options}
    service = exec_(Options(command=command, **settings))
    assert isinstance(service, MultiService)
    return service


def program_of(service: MultiService) -> ProgramService:
    """Return the service of the program itself."""
    found = service["program"]
    assert isinstance(found, ProgramService)
    return found


def fork_server_pid(service: MultiService) -> int:
    """Return the pid of the fork server; 0 while there is none."""
    fork_server = service["fork-server"]
    assert isinstance(fork_server, ForkServerService)
    return fork_server.pid or 0


async def until(what: str, look: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until what is looked for is there, which gives no sign when it happens."""
    deadline = time.monotonic() + patience
    while not look():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


def wait_for(what: str, look: Callable[[], object]) -> None:
    """Do the same where there is no event loop."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


@contextmanager
def nothing_left(marked: Marked) -> Iterator[None]:
    """Hold that at the end no process has the mark."""
    yield
    assert marked.processes() == []


def lines(file: Path) -> list[str]:
    """Return the lines of a file that a program may not have made yet."""
    return file.read_text().splitlines() if file.exists() else []


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def living_children() -> set[int]:
    """Return the children of this process that are alive.

    Dead ones are not told from those of others: while a test of something else has made this process a
    subreaper, whatever anybody has left behind is its child. A process that forks commands for the tests (see
    `tests.supervised.forked`) stays when the first of them has begun it.
    """
    alive = {pid for pid in children_of(os.getpid()) if _state(pid) not in ("Z", "X", "")}
    return {pid for pid in alive if "forked_child.py" not in command_of(pid)}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    """Return the children of a process, dead ones too."""
    return [each for each in _pids() if _parent(each) == pid]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
