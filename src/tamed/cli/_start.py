"""``tamed start``."""

import click

from tamed.cli._jobs import start_job
from tamed.cli._target import TargetCommand, job_of

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
    return start_job(job_of(ctx))
