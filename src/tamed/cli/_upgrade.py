"""``tamed upgrade``."""

from pathlib import Path

import click

from tamed._text import shown
from tamed.cli._instance import for_instance, instance_of, show_wait
from tamed.runner import upgrade_instance

__all__ = ["upgrade"]

_HELP = """Let the supervisor of the instance NAME become the program that is installed now, and reload.

That takes a new Tamed, or a new Python in the same place, into use. The process stays the same, with its pid,
its sockets and its workers, and no connection is lost. If the new program does not start, everything stays as
it was, and this says why. While a reload, another upgrade or scaling is under way, it waits for its turn.
NAME may be left out if only one instance runs.
"""


@for_instance(_HELP)
def upgrade(name: str | None, rundir: Path | None) -> int:
    """Upgrade an instance."""
    report = upgrade_instance(instance_of(name, rundir), show_wait)
    click.echo(shown(report.text), err=not report.ready)
    return report.status
