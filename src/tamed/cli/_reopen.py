"""``tamed reopen``."""

from pathlib import Path

import click

from tamed._text import shown
from tamed.cli._instance import for_instance, instance_of
from tamed.runner import reopen_instance

__all__ = ["reopen"]

_HELP = """Let the instance NAME open its log file anew, because logrotate or somebody else has moved it away.

If that fails, it goes on in the old file, and this says why. NAME may be left out if only one instance runs.
"""


@for_instance(_HELP)
def reopen(name: str | None, rundir: Path | None) -> int:
    """Have the log of an instance opened anew."""
    report = reopen_instance(instance_of(name, rundir))
    click.echo(shown(report.text), err=not report.ready)
    return report.status
