"""``tamed run``."""

import click

from tamed.cli._jobs import run_job
from tamed.cli._target import TargetCommand, job_of

__all__ = ["run"]

_HELP = """Run TARGET in the foreground; Ctrl-C stops it.

The options of the daemon stand before TARGET, those of the service behind it: see TARGET --help.

\b
Examples:
  tamed run fastpoetry --port 10007 --poem ecstasy.txt
  tamed run --log-level debug fastpoetry.py
  tamed run verse.toml
  tamed run package.module:application
"""


@click.command(cls=TargetCommand, help=_HELP)
@click.pass_context
def run(ctx: click.Context, /, **_: object) -> int:
    """Run a target in the foreground."""
    return run_job(job_of(ctx))
