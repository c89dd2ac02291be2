"""``tamed twistd``."""

import sys

import click

from tamed.cli._command import Command
from tamed.config import Job, Target, TargetKind
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

    said = parse_twistd(words)
    for remark in said.remarks:
        click.echo(f"tamed: {remark}", err=True)
    target = Target(TargetKind.TWISTED, said.plugin) if said.plugin else Target(TargetKind.FILE, said.file)
    job = Job(target, said.daemon, said.log, words=said.words, twistd=said.effects)
    if said.foreground:
        return run(job)
    report = start(job)
    if not report.ready:
        print(report.text, file=sys.stderr)
    return report.status
