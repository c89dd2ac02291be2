"""``tamed scale``."""

from pathlib import Path

import click

from tamed._text import shown
from tamed._workers import check_workers
from tamed.cli._instance import for_instance, instance_of, show_wait
from tamed.runner import scale_instance

__all__ = ["scale"]

_HELP = """Let the instance NAME run with COUNT workers from now on; return when they are ready.

Workers that are too many serve the connections they have to the end. The number holds until the instance is
restarted, or reloaded with another number in its files, also if some of them do not become ready. While a
reload or an upgrade is under way, it waits for its turn; a later number takes the place of an earlier one.
NAME may be left out if only one instance runs.
"""


@for_instance(_HELP)
@click.option("--yes", is_flag=True, help="Do it, also if it is more than 32 workers for each CPU.")
@click.argument("count", type=click.IntRange(min=1))
def scale(name: str | None, rundir: Path | None, count: int, yes: bool) -> int:
    """Scale an instance."""
    check_workers(count, yes=yes)
    instance = instance_of(name, rundir)
    report = scale_instance(instance, count, show_wait, yes=yes)
    workers = f"{count} worker{'s' * (count > 1)}"
    click.echo(f"{instance.name} has {workers}" if report.ready else shown(report.text), err=not report.ready)
    return report.status
