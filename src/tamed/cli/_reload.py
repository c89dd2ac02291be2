"""``tamed reload``."""

from pathlib import Path

import click

from tamed._text import shown
from tamed.cli._instance import for_instance, instance_of, show_wait
from tamed.runner import reload_instance

__all__ = ["reload"]

_HELP = """Let new workers, which read the files and the code anew, take over from those of the instance NAME.

No connection is lost: the old workers serve those they have let in to the end. If one of the new workers
does not become ready, everything stays as it was, and this says why. While another reload, an upgrade or
scaling is under way, it waits for its turn. NAME may be left out if only one instance runs.
"""


@for_instance(_HELP)
def reload(name: str | None, rundir: Path | None) -> int:
    """Reload an instance."""
    report = reload_instance(instance_of(name, rundir), show_wait)
    click.echo(shown(report.text), err=not report.ready)
    return report.status
