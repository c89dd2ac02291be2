"""A program in a terminal of its own, with somebody who types."""

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.patience import PATIENCE
from tests.supervised.forked import Fork, Forking

__all__ = ["ForkedCommand", "Terminal"]


class Terminal:
    """Runs a program in a pseudo-terminal, which is its controlling one, so that Ctrl-C is a signal."""

    def __init__(self, *command: str, env: Mapping[str, str] | None = None) -> None:
        self.command = command
        self.seen = ""
        self._env = {**os.environ, "TERM": "xterm", **(env or {})}

    def __enter__(self) -> Self:
        self._fd, inner = pty.openpty()
        self._process = self._begin(inner)
        os.close(inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def _begin(self, inner: int) -> subprocess.Popen[bytes] | Fork:
        command = ["setsid", "--ctty", *self.command]
        return subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=self._env)

    def type(self, text: str) -> None:
        """Press keys; a line ends with Return, and a control character is one."""
        os.write(self._fd, text.encode())

    def type_unseen(self, text: str) -> None:
        """Press keys once the program has turned the echo off, as a person does who looks first."""
        deadline = time.monotonic() + PATIENCE
        while termios.tcgetattr(self._fd)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "what is typed is shown"
            time.sleep(0.01)
        self.type(text)

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a pattern in what is shown behind the last one."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.seen)) is None:
            assert self._read(deadline), f"{pattern!r} is not in {self.seen!r}"
        self.seen = self.seen[found.end() :]
        return found

    def expect_end(self) -> int:
        """Wait until the program ends; return its status."""
        while self._read(time.monotonic() + PATIENCE):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._fd, 65536) if ready else b""
        except OSError:  # EIO: nobody has the other side open any more
            data = b""
        self.seen += data.decode(errors="replace").replace("\r", "")
        return bool(data)


class ForkedCommand(Terminal):
    """A command of ours that shows its output in a terminal, which has no keys for it; a fork."""

    def __init__(self, forks: Forking, words: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        super().__init__(*words, env={**env, "PWD": str(cwd)})
        self._forks = forks
        self._cwd = cwd

    def _begin(self, inner: int) -> Fork:
        return self._forks.begin(self.command, self._cwd, self._env, inner)
