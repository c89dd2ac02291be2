"""Real ``tamed`` processes in tests; the daemons that they start are ended as well."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from tamed.control.instances import run_directory, stop_instance
from tamed.errors import Unavailable

__all__ = ["StartProcess", "TamedProcess", "end_instances"]

_PATIENCE = 30.0  # seconds for a daemon to stop before it is killed


class TamedProcess:
    r"""A ``tamed`` command in a separate process, run by the interpreter of the test.

    ::

        with TamedProcess("run", "fastpoetry", "--port", "0") as process:
            port = process.expect(r"listening on 127.0.0.1:(\d+)")[1]
            ...
            process.signal(signal.SIGINT)
            assert process.wait() == 0

    A thread reads stdout and stderr together, so the process never blocks on its output. Leaving the block
    kills the process if it still runs. ``patience`` is the longest time that `expect` and `wait` wait, in
    seconds; choose it far longer than a passing test needs. ``before`` is a command that runs the command,
    such as ``nice``.
    """

    def __init__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        patience: float = 120.0,
        before: Sequence[str] = (),
    ) -> None:
        self._before = before
        self.arguments = [str(argument) for argument in arguments]
        self.patience = patience
        self.lines: list[str] = []
        self._cwd = cwd
        self._env = {**os.environ, **(env or {})}
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._process = self._begin()
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """The output that `expect` and `wait` have read so far."""
        return "\n".join(self.lines)

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line that contains the pattern, and return the match; earlier lines are in ``lines``.

        Raises AssertionError, with the output, if the process or the patience ends before such a line.
        """
        while True:
            try:
                line = self._queue.get(timeout=self.patience)
            except queue.Empty:
                raise AssertionError(
                    f"no line with {pattern!r} within {self.patience} s:\n{self.output}"
                ) from None
            if line is None:
                raise AssertionError(f"it ended without a line with {pattern!r}:\n{self.output}")
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and return its status, negative if by a signal; all output is in ``lines``."""
        try:
            status = self._process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self._drain()
            raise AssertionError(f"it does not end within {self.patience} s:\n{self.output}") from None
        self._reader.join()
        self._drain()
        return status

    def _begin(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._before, sys.executable, "-m", "tamed", *self.arguments],
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _drain(self) -> None:
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)


def end_instances(folder: Path) -> None:
    """Stop the running daemons of a run directory."""
    for instance in run_directory(folder).running():
        with suppress(Unavailable):  # it has just ended
            stop_instance(instance, timeout=_PATIENCE, force=True, progress=lambda _: None)


class StartProcess(Protocol):
    """The type of the fixture ``tamed_process``: starts a ``tamed`` process, and ends it after the test."""

    def __call__(self, *words: str | Path, env: Mapping[str, str] | None = None) -> TamedProcess:
        """Start the command with these words, in the test's ``tmp_path``; see `TamedProcess`."""
