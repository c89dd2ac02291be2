"""``tamed start``."""

import sys

import click

from tamed.cli._target import TargetCommand, job_of
from tamed.runner import start as start_daemon

__all__ = ["start"]

_HELP = """Run TARGET as a daemon; return when it is ready, or say why it is not.

The daemon is an instance of the run directory: status, logs, stop and restart find it there by its name.

\b
Examples:
  tamed start fastpoetry --port 10007
  tamed start --workers auto --user nobody verse.toml
"""


@click.command(cls=TargetCommand, help=_HELP)
@click.pass_context
def start(ctx: click.Context, /, **_: object) -> int:
    """Run a target as a daemon."""
    report = start_daemon(job_of(ctx))
    print(report.text, file=sys.stdout if report.ready else sys.stderr)
    return report.status
