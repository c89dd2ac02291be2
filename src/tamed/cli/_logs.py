"""``tamed logs``."""

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO

import click

from tamed.cli._instance import for_instance, instance_of
from tamed.errors import MissingInput, from_os_error
from tamed.runner import status_of_instance

__all__ = ["logs"]

_HELP = """Show the last lines of the log of the instance NAME.

NAME may be left out if only one instance runs.
"""
_LOOK = 0.2  # seconds between two looks for more


@for_instance(_HELP)
@click.option("-n", "--lines", default=20, show_default=True, metavar="NUMBER", help="How many lines.")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what is logged from now on, also in a new file."
)
def logs(name: str | None, rundir: Path | None, lines: int, follow: bool) -> None:
    """Show the log of an instance."""
    instance = instance_of(name, rundir)
    file = status_of_instance(instance)["log"]
    if not file:
        remedy = f"it goes to the journal or to syslog: journalctl -t {instance.name}"
        raise MissingInput(f"{instance.name} has no log file", remedy=remedy)
    try:
        _show(Path(file), lines, follow)
    except OSError as error:
        raise from_os_error(f"cannot read the log {file}", error) from error


def _show(file: Path, lines: int, follow: bool) -> None:
    stream: BinaryIO = file.open("rb")
    try:
        for line in deque(stream, maxlen=lines):
            _put(line)
        while follow:
            stream = _go_on(file, stream)
            time.sleep(_LOOK)
    finally:
        stream.close()


def _go_on(file: Path, stream: BinaryIO) -> BinaryIO:
    """Show what is new; return the stream to go on with, which is another one once the file was rotated."""
    is_rotated = _is_rotated(file, stream)
    for line in stream:
        _put(line)
    if not is_rotated:
        return stream
    stream.close()
    return file.open("rb")


def _is_rotated(file: Path, stream: BinaryIO) -> bool:
    try:
        return not os.path.samestat(file.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _put(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
