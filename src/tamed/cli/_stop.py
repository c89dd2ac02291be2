"""``tamed stop``."""

import sys
from pathlib import Path
from typing import Any

import click

from tamed._text import shown
from tamed.cli._instance import for_instance, instance_of
from tamed.errors import SystemRefused
from tamed.plugins.values import Duration
from tamed.runner import stop_instance

__all__ = ["show_progress", "stop"]

_HELP = """Stop the instance NAME and wait until it is gone: its open connections are served to the end.

NAME may be left out if only one instance runs.
"""


@for_instance(_HELP)
@click.option("--timeout", metavar="DURATION", help="How long to wait; without it, until it is gone.")
@click.option(
    "--force", is_flag=True, help="End it at once if it is not gone in time (10s without --timeout)."
)
def stop(name: str | None, rundir: Path | None, timeout: str | None, force: bool) -> None:
    """Stop an instance."""
    instance = instance_of(name, rundir)
    seconds = _seconds(timeout) if timeout else (10.0 if force else None)
    if not stop_instance(instance, timeout=seconds, force=force, progress=show_progress):
        remedy = "wait for it, or end it at once with --force"
        raise SystemRefused(f"{instance.name} is still there", f"{seconds:g} seconds have passed", remedy)
    click.echo(f"{instance.name} has stopped")


def show_progress(status: dict[str, Any]) -> None:
    """Say on a terminal how many connections are still open."""
    if sys.stderr.isatty():
        left = sum(worker.get("connections", 0) for worker in status["workers"])
        told = f"{status['name']} is {status['state']}: {left} connections open  "
        click.echo(f"\r{shown(told)}", err=True, nl=False)


def _seconds(text: str) -> float:
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
