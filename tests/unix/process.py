"""Running a function of ours in a process of its own: a fresh interpreter, with one thread."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# The function's module must not import this one: pytest is slow to load, and the function does not need it.
PROGRAM = """
import importlib, json, sys
module, name, arguments = sys.argv[1:]
result = getattr(importlib.import_module(module), name)(*json.loads(arguments))
print(json.dumps(result))
"""


def command(function: Callable[..., object], *arguments: object) -> list[str]:
    """Return the command that calls a function and prints what it returns as JSON."""
    given = json.dumps([str(one) if isinstance(one, Path) else one for one in arguments])
    name = getattr(function, "__name__", "")
    return [sys.executable, "-W", "error", "-c", PROGRAM, function.__module__, name, given]


def environment() -> dict[str, str]:
    """Return an environment in which the package and the tests can be imported."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


def call(function: Callable[..., object], *arguments: object, **options: Any) -> Any:
    """Call a function in a process of its own and return what it returns; what it prints is an error."""
    done = subprocess.run(
        command(function, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Child:
    """A function that runs in a process of its own and talks in lines; it ends with the test."""

    def __init__(self, function: Callable[..., object], *arguments: object, **options: Any) -> None:
        self.process = subprocess.Popen(
            command(function, *arguments),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to: IO[str] = self.process.stdin
        self._from: IO[str] = self.process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self._to.close()
        self._from.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> str:
        """Wait for a line."""
        return self._from.readline().rstrip("\n")

    def tell(self, line: str = "") -> None:
        """Send a line."""
        self._to.write(f"{line}\n")
        self._to.flush()

    def result(self) -> Any:
        """Wait for what the function returns."""
        return json.loads(self.hear())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)
