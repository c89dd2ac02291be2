"""``tamed twistd``."""

import atexit
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tamed.cli._command import Command
from tamed.config.job import Job
from tamed.config.target import Target, TargetKind
from tamed.daemon import end_by_signal
from tamed.errors import ApplicationFailed
from tamed.twisted import is_installed

__all__ = ["twistd"]

_HELP = "Take twistd's command line, and run what it says, as a daemon unless it says --nodaemon."


@click.command(
    cls=Command,
    help=_HELP,
    add_help_option=False,  # it has one of its own
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF TWISTD]")
def twistd(words: tuple[str, ...]) -> int:
    """Run what a command line of twistd's says."""
    from tamed.runner import run, start

    if not is_installed():
        raise ApplicationFailed("twistd", "Twisted is not installed", "pip install 'tamed[twisted]'")
    from tamed.twisted import parse_twistd

    sys.argv[:] = [str(Path(sys.executable).with_name("twistd")), *words]  # what plugins may look at
    said = parse_twistd(words)
    for remark in said.remarks:
        click.echo(f"tamed: {remark}", err=True)
    target = Target(TargetKind.TWISTED, said.plugin) if said.plugin else Target(TargetKind.FILE, said.file)
    job = Job(
        target,
        said.daemon,
        said.log,
        plugin_dirs=said.plugin_dirs,
        words=said.words,
        twistd={"options": said.options, "effects": said.effects},
        argv=tuple(sys.argv),
        detached=not said.foreground,
    )
    if said.foreground:
        told: list[int] = []
        atexit.register(_end_as_twistd, told)  # before the program registers anything, so called last
        ending = run(job)
        if ending.signal is not None:
            told.append(ending.signal)
        return ending.status
    report = start(job)
    if not report.ready:
        print(report.text, file=sys.stderr)
    return report.status


def _end_as_twistd(told: Sequence[int]) -> None:
    """End by the signal that has stopped the program, as twistd does when it has stopped all."""
    for number in told:
        sys.stdout.flush()
        end_by_signal(number)
