"""Commands without an interpreter for each: a process that has loaded the command forks itself.

Most of what a command costs is an interpreter that starts and loads the same modules again. A fork is a
process of its own all the same, with the directory, the environment and the descriptors that a command would
have. So are the daemon that it starts, and what the supervisor of that starts: templates, workers, planners.
What is loaded by whom, and what an exec does, is the matter of tests with interpreters of their own, as those
of `tests/process`, those as another user, and those of an upgrade; and `make coverage` runs no forks at all.
"""

import atexit
import functools
import json
import os
import resource
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal, Self, TextIO

from tamed.testing.process import TamedProcess
from tests.patience import PATIENCE

_CHILD = Path(__file__).with_name("forked_child.py")

_COMMANDS = {
    "check",
    "events",
    "logs",
    "reload",
    "reopen",
    "resign",
    "restart",
    "roles",
    "run",
    "scale",
    "stacks",
    "start",
    "status",
    "stop",
    "twistd",
    "upgrade",
    "why",
}

# What a process that forks has loaded beside the command: the services in the box, Twisted or nothing.
Loaded = Literal["", "services", "twisted"]

_OF_INTERPRETERS = ("LANG", "LC_", "PYTHON")  # what one reads from the environment when it starts


class Forking:
    """A process of ours that runs commands for us, each in a fork."""

    def __init__(self, before: Sequence[str], loaded: Loaded = "") -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*before, sys.executable, _CHILD, str(theirs.fileno()), loaded],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "TAMED_TEST": str(uuid.UUID(int=0))},  # as long as any other mark
            )

    def run(self, words: Sequence[str], cwd: str | Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a command to its end; return its status, as `subprocess` has it, its output and its errors."""
        with ExitStack() as stack:
            pipes = [os.pipe() for _ in range(3)]
            for reader, _ in pipes:
                stack.callback(os.close, reader)
            self._fork([writer for _, writer in pipes], words, cwd, env)
            told, out, err = _contents([reader for reader, _ in pipes])
        return int(told.split()[1]), out, err

    def begin(
        self,
        words: Sequence[str],
        cwd: str | Path,
        env: Mapping[str, str],
        output: int | None = None,
        *,
        apart: bool = False,
    ) -> "Fork":
        """Run a command and do not wait for it.

        It writes into a pipe, or two if its outputs are to be ``apart``, or to a descriptor of the caller's.
        """
        told, told_writer = os.pipe()
        if output is not None:
            self._fork([told_writer, os.dup(output), os.dup(output)], words, cwd, env)
            return Fork(told)
        out, out_writer = os.pipe()
        err, err_writer = os.pipe() if apart else (-1, os.dup(out_writer))
        self._fork([told_writer, out_writer, err_writer], words, cwd, env)
        return Fork(told, *[open(each) for each in (out, err) if each >= 0])  # noqa: PTH123 - the caller closes them

    def _fork(
        self, writers: list[int], words: Sequence[str], cwd: str | Path, env: Mapping[str, str]
    ) -> None:
        """Have a command run that has these outputs: where its pid and its status go, and its own two."""
        with ExitStack() as given:
            for writer in writers:
                given.callback(os.close, writer)
            request = given.enter_context(tempfile.TemporaryFile("w+"))  # longer than a message may be
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # which a test may have changed meanwhile
            json.dump({"words": words, "cwd": str(cwd), "env": dict(env), "limit": limit}, request)
            request.seek(0)
            socket.send_fds(self._channel, [b"request"], [request.fileno(), *writers])

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.wait(PATIENCE)


class Fork:
    """A command that runs in a fork: what `TamedProcess` and tests use of a `subprocess.Popen`.

    It is killed if it still runs at the end of the ``with``.
    """

    def __init__(self, told: int, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: Any = None  # as `subprocess` has it: a number at the end
        self._told = open(told, "rb", buffering=0)  # noqa: SIM115 - as above
        self.pid = int(self._told.read(8))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        for stream in filter(None, (self.stdout, self.stderr)):
            stream.close()
        self.wait()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what is left of its outputs when it has ended; they are less than a pipe holds."""
        self.wait(timeout)
        out, err = (stream.read() if stream else "" for stream in (self.stdout, self.stderr))
        return out, err

    def poll(self) -> int | None:
        """Return its status if it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        status: int | None = self.returncode
        return status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its status."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("tamed", timeout or 0)
            self.returncode = int(self._told.read(8))
            self._told.close()
        return int(self.returncode)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class ForkedProcess(TamedProcess):
    """A command in the foreground that is a fork."""

    def __init__(
        self,
        forks: Forking,
        words: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(*words, cwd=cwd, env=env, patience=patience)
        self._forks = forks

    def _begin(self) -> Any:
        return self._forks.begin(self.arguments, self._cwd or Path.cwd(), self._env)


@functools.cache
def forking(before: tuple[str, ...], loaded: Loaded = "") -> Forking:
    """Return the process that this command starts, until the end of this process."""
    made = Forking(before, loaded)
    atexit.register(made.close)
    return made


def is_measured() -> bool:
    """Tell whether coverage is to measure what tests execute."""
    return any(name.startswith("COVERAGE_") for name in os.environ)


def can_fork(words: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Tell whether a fork shows the same of a command as an interpreter of its own."""
    given = {**os.environ, **options.get("env", {})}
    differs = {name for name in given if given[name] != os.environ.get(name)}
    return (
        words[0] in _COMMANDS
        and options.keys() <= {"cwd", "env"}
        and not is_measured()
        and not any(name.startswith(_OF_INTERPRETERS) for name in differs)
    )


def service(
    *words: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> TamedProcess:
    """Return a process that runs services in the box: what they are tried for is how they serve clients."""
    arguments = ["run", *map(str, words)]
    if not can_fork(arguments, {"env": env or {}}):
        return TamedProcess(*arguments, cwd=cwd, env=env, patience=patience)
    return ForkedProcess(forking((), "services"), arguments, cwd or Path.cwd(), env or {}, patience)


def _contents(pipes: Sequence[int]) -> list[str]:
    """Read pipes to their ends, all at once, as any of them may become full."""
    found = dict.fromkeys(pipes, b"")
    deadline = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            assert ready, "the command does not end"
            for key, _ in ready:
                if data := os.read(key.fd, 1 << 16):
                    found[key.fd] += data
                else:
                    selector.unregister(key.fd)
    return [data.decode() for data in found.values()]
