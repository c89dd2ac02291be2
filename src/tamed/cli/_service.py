"""The part of the command line behind TARGET: the options that the target has of its own."""

from collections.abc import Sequence

import click

from tamed.cli._command import Command
from tamed.cli._options import make_option
from tamed.cli._service_options import OfService, services
from tamed.config.job import Job
from tamed.config.target import TargetKind
from tamed.plugins.describe import Option

__all__ = ["service_command"]


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
