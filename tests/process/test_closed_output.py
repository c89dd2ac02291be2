"""Commands whose output nobody reads to its end, as in ``tamed plugins | head -1``."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE


def run_unread(
    words: Sequence[str], *, unread: Sequence[str] = ("stdout",), buffered: bool
) -> tuple[int, str]:
    """Run a command with these streams on a pipe without a reader; return its status, and what it printed."""
    environ = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    reading, writing = os.pipe()
    os.close(reading)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | dict.fromkeys(
        unread, writing
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tamed", *words],
            **streams,
            env=environ,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(writing)
    return done.returncode, f"{done.stdout or ''}{done.stderr or ''}"


@pytest.mark.parametrize(
    ("words", "buffered"),
    [
        ("--version", True),
        ("--help", False),
        ("run fastpoetry --help", True),
        ("__complete zsh r", False),
        ("completion bash", False),
    ],
)
def test_a_reader_that_has_gone_is_no_error(words: str, buffered: bool) -> None:
    """The rest of the output is dropped, whether it is written at once or at the end."""
    assert run_unread(words.split(), buffered=buffered) == (0, "")


def test_nor_is_it_for_what_twisted_prints() -> None:
    """Its options print their help themselves, and exit."""
    pytest.importorskip("twisted")
    assert run_unread(["twistd", "--help"], buffered=False) == (0, "")


@pytest.mark.parametrize("unread", [["stderr"], ["stdout", "stderr"]], ids="-".join)
def test_an_error_that_nobody_reads_keeps_its_status(unread: Sequence[str]) -> None:
    """The exit status still shows the kind of the error."""
    assert run_unread(["no-such-command"], unread=unread, buffered=False) == (64, "")


def test_another_pipe_without_a_reader_is_an_error(tmp_path: Path) -> None:
    """One of the application itself, while it is loaded, is reported as its fault."""
    file = tmp_path / "app.py"
    file.write_text("import os\nread, write = os.pipe()\nos.close(read)\nos.write(write, b'verse')\n")
    status, printed = run_unread(["check", str(file)], unread=[], buffered=False)
    assert status == 70
    assert "BrokenPipeError" in printed


@pytest.mark.parametrize(
    ("words", "buffered"), [("--version", True), ("--help", False), ("run fastpoetry --help", True)]
)
def test_an_output_that_cannot_be_written_is_reported(words: str, buffered: bool) -> None:
    """A full disk is an error of the system, in one line."""
    with Path("/dev/full").open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "tamed", *words.split()],
            stdout=output,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"},
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    reported = "tamed: cannot finish the command: No space left on device; look at where its output goes\n"
    assert (done.returncode, done.stderr) == (71, reported)
