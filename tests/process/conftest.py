"""What the tests with real processes need."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tamed.unix.privileges import AS_ROOT
from tests.patience import PATIENCE
from tests.supervised.forked import forking, is_measured

LISTENING = r"listening on (\S+)"
READY = "is ready$"


def told(lines: Iterable[str]) -> list[str]:
    """Return lines without the warning that root gets, if it is root who runs the tests."""
    return [line for line in lines if not line.endswith(AS_ROOT)]


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    """Write a poem that is not all text, so that nothing can translate it unseen."""
    file = tmp_path / "poem.txt"
    file.write_bytes(bytes(range(256)) * 20 + b"\r\n\n")
    return file


@pytest.fixture
def long_poem(tmp_path: Path) -> Path:
    """Write a poem of 16 MB, which no socket's buffers hold."""
    file = tmp_path / "long.txt"
    file.write_bytes(b"Where, like a pillow on a bed,\r\n" * (16 * 2**20 // 32))
    return file


@pytest.fixture
def application(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes an application file, with the usual imports."""

    def write(text: str) -> Path:
        file = tmp_path / "app.py"
        imports = "import asyncio, logging, sys, time\nfrom tamed import *\nlog = logging.getLogger('app')\n"
        file.write_text(imports + text)
        return file

    return write


def serving(process: TamedProcess) -> str:
    """Wait until a process with one server is ready, and return the server's address."""
    address = process.expect(LISTENING)[1]
    process.expect(READY)
    return address


def without_capabilities() -> list[str]:
    """Return what to put before a command so that even root has no privileges in it."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv, which takes root's privileges away, is not installed")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all"]


def run_tamed(
    *arguments: str | Path,
    cwd: Path,
    env: dict[str, str] | None = None,
    before: Sequence[str] = (),
    may_fork: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its outputs apart; the warning for root is left out.

    With ``may_fork`` it is one that ends before it runs an application.
    """
    words, environ = list(map(str, arguments)), {**os.environ, **(env or {})}
    command = [*before, sys.executable, "-m", "tamed", *words]
    if may_fork and not is_measured():
        done = subprocess.CompletedProcess(command, *forking(tuple(before)).run(words, cwd, environ))
    else:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    done.stderr = "".join(f"{line}\n" for line in told(done.stderr.splitlines()))
    return done
