"""``tamed twistd``."""

import atexit
import sys
from collections.abc import Sequence

import click

from tamed.cli.options import Command
from tamed.config.kinds import kind_of
from tamed.unix.process import end_by_signal

__all__ = ["twistd"]

_TWISTD_HELP = "Take twistd's command line, and run what it says, as a daemon unless it says --nodaemon."


@click.command(
    cls=Command,
    help=_TWISTD_HELP,
    add_help_option=False,  # it has one of its own
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF TWISTD]")
def twistd(words: tuple[str, ...]) -> int:
    """Run what a command line of twistd's says."""
    from tamed.control.launch import run, start

    said = kind_of("twisted").command_line(words)
    for remark in said.remarks:
        click.echo(f"tamed: {remark}", err=True)
    if said.foreground:
        told: list[int] = []
        atexit.register(_end_as_twistd, told)  # before the program registers anything, so called last
        ending = run(said.job)
        if ending.signal is not None:
            told.append(ending.signal)
        return ending.status
    report = start(said.job)
    if not report.ready:
        print(report.text, file=sys.stderr)
    return report.status


def _end_as_twistd(told: Sequence[int]) -> None:
    """End by the signal that has stopped the program, as twistd does when it has stopped all."""
    for number in told:
        sys.stdout.flush()
        end_by_signal(number)
