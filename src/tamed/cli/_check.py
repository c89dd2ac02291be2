"""``tamed check``."""

from collections.abc import Iterator

import click

from tamed._text import shown
from tamed.cli._target import TargetCommand, job_of
from tamed.config.load import load
from tamed.runner import enter_environment
from tamed.service.service import MultiService, Service

__all__ = ["check"]

_HELP = """Load and validate TARGET and show its services; run nothing, bind nothing.

Takes the same options as run, so that exactly what would be run is checked.
"""


@click.command(cls=TargetCommand, help=_HELP)
@click.pass_context
def check(ctx: click.Context, /, **_: object) -> None:
    """Load and validate a target and show its services."""
    job = job_of(ctx)
    deployment = job.deployment()
    job = enter_environment(job, deployment)
    job.settings(deployment)
    rows = list(_tree(load(job, deployment)))
    width = max(len(left) for left, _ in rows)
    for left, right in rows:
        click.echo(shown(f"{left:{width}}  {right}".rstrip()))


def _tree(service: Service, first: str = "", rest: str = "") -> Iterator[tuple[str, str]]:
    """Yield a line for each service: its name, drawn as a branch, and what it is."""
    yield f"{first}{service.name}", " ".join(filter(None, (type(service).__name__, service.summary)))
    children = list(service) if isinstance(service, MultiService) else []
    for child in children:
        last = child is children[-1]
        yield from _tree(child, f"{rest}{'└── ' if last else '├── '}", f"{rest}{'    ' if last else '│   '}")
