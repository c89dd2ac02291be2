"""``tamed logs``."""

import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import click

from tamed._text import shown
from tamed.cli._instance import for_instance
from tamed.cli._status import ending_of
from tamed.errors import from_os_error
from tamed.runner import LogReader, last_state_of, log_of_instance, run_directory

__all__ = ["logs"]

_HELP = """Show the last lines of the log of the instance NAME.

NAME may be left out if only one instance runs.
"""
_MOST = 1_000_000_000  # lines
_LOOK = 0.2  # seconds between two looks for more


@for_instance(_HELP)
@click.option(
    "-n",
    "--lines",
    default=20,
    type=click.IntRange(0, _MOST),
    show_default=True,
    metavar="NUMBER",
    help="How many lines.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what is logged from now on, also in a new file."
)
def logs(name: str | None, rundir: Path | None, lines: int, follow: bool) -> None:
    """Show the log of an instance."""
    directory = run_directory(rundir)
    if (left := last_state_of(directory, name)) is not None:
        click.echo(shown("\n".join(ending_of(left))), err=True)
    file, owner = log_of_instance(directory, name)
    try:
        with closing(LogReader(file, owner)) as reader:
            _put(reader.last(lines))
            while follow:
                _put(reader.more())
                time.sleep(_LOOK)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise from_os_error(f"cannot read the log {file}", error) from error


def _put(lines: Iterable[bytes]) -> None:
    """Print lines. Ours are escaped already; but whoever may write the file can put anything into it."""
    for line in lines:
        text = line.decode(errors="backslashreplace").removesuffix("\n")
        sys.stdout.write(f"{shown(text)}\n" if line.endswith(b"\n") else shown(text))
    sys.stdout.flush()
