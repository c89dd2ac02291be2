"""The options that a target has of its own, and the part of the command line behind TARGET that they make."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import click

from tamed.cli._command import Command
from tamed.cli._options import make_option
from tamed.config import Job, TargetKind
from tamed.plugins import Option

__all__ = ["OfService", "service_command", "services"]


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


def service_command(job: Job) -> click.Command:
    """Return the command that parses what stands behind the target."""
    return _ServiceCommand(job.target.kind, list(services(job)))


class _ServiceCommand(Command):
    def __init__(self, kind: TargetKind, several: Sequence[OfService]) -> None:
        self._sections = [
            (service.title, [_option(option, service) for option in service.options]) for service in several
        ]
        self._kind = kind
        super().__init__(
            None,
            params=[option for _, options in self._sections for option in options],
            help=_help(kind, several),
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options of each service of a deployment under its name."""
        if self._kind is not TargetKind.DEPLOYMENT:
            super().format_options(ctx, formatter)
            return
        for title, options in self._sections:
            with formatter.section(title):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])


def _option(option: Option, service: OfService) -> click.Option:
    in_file = service.table.get(option.key, service.table.get(option.name))
    return make_option(option, service.name, service.prefix, in_file)


def _help(kind: TargetKind, several: Sequence[OfService]) -> str:
    match kind:
        case TargetKind.PLUGIN:
            return several[0].title
        case TargetKind.DEPLOYMENT:
            return "An option that is given here goes before what the file says."
        case _:
            return "An application has no options of its own."
