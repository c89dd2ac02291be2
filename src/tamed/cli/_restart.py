"""``tamed restart``."""

from pathlib import Path

import click

from tamed.cli._instance import for_instance, instance_of
from tamed.cli._stop import show_progress
from tamed.runner import restart_instance

__all__ = ["restart"]

_HELP = """Stop the instance NAME, wait until it is gone, and start it again as it was started.

NAME may be left out if only one instance runs. The environment is that of this command.
"""


@for_instance(_HELP)
def restart(name: str | None, rundir: Path | None) -> int:
    """Stop an instance and start it again."""
    report = restart_instance(instance_of(name, rundir), show_progress)
    click.echo(report.text, err=not report.ready)
    return report.status
