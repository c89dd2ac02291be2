"""The options that a target has of its own: those of each of its services."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tamed.config.job import Job
from tamed.config.target import TargetKind
from tamed.plugins.describe import Option

__all__ = ["OfService", "services"]


class OfService(NamedTuple):
    """One service of a target: what it is, its options with the prefix of their flags, what a file says."""

    name: str
    title: str
    options: Sequence[Option]
    prefix: str = ""
    table: Mapping[str, object] = {}


def services(job: Job) -> Iterator[OfService]:
    """Yield the services of a target that have options: one of a plugin, several of a deployment."""
    if job.target.kind is TargetKind.PLUGIN:
        plugin = job.find(job.target.name)
        yield OfService(job.target.name, plugin.description, plugin.describe())
    deployment = job.deployment()
    for entry in deployment.services if deployment else ():
        if entry.plugin is not None:
            title = f"{entry.name}, made by {entry.plugin}"
            yield OfService(
                entry.name, title, job.find(entry.plugin).describe(), f"{entry.name}.", entry.table
            )
