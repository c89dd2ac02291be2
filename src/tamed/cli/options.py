"""The options of the daemon and of the services, made from their descriptions for the command line.

The command line keeps the word of an option as it is: `tamed.plugins.build` reads and validates it, together
with the environment and the deployment file.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tamed._os.text import nearest
from tamed._os.trust import TRUST_WRITABLE
from tamed.cli.grammar import Command, Option
from tamed.config.job import Job, TargetKind
from tamed.config.settings import Daemon, Log
from tamed.plugins.describe import Option as Description
from tamed.plugins.describe import describe
from tamed.plugins.discovery import plugin_folders

__all__ = ["daemon_options", "folders", "misspelt_variables", "service_command", "services"]

_ALIASES: Final = {"--log-file": ("--log",)}
_PREFIX: Final = "TAMED_"
_OWN_VARIABLES: Final = {"TAMED_PLUGIN_PATH", "TAMED_RUNDIR", TRUST_WRITABLE}


def folders(named: Iterable[str]) -> tuple[Path, ...]:
    """Return the plugin folders: those named on the command line, and those of the environment."""
    return plugin_folders(named, os.environ)


def daemon_options() -> tuple[Option, ...]:
    """Return the options of the tables ``[daemon]`` and ``[log]``, which go before TARGET."""
    daemon = (_option_of(each, "daemon", section=each.section) for each in describe(Daemon))
    log = (
        _option_of(each, "log", service="log", prefix="log-", section=each.section) for each in describe(Log)
    )
    return (*daemon, *log)


class _Service(NamedTuple):
    """A service of a target: its title, its options, the prefix of their flags, its table in the file."""

    name: str
    title: str
    options: Sequence[Description]
    prefix: str = ""
    table: Mapping[str, object] = {}


def services(job: Job) -> Iterator[_Service]:
    """Yield the services of a target that have options: one of a plugin, several of a deployment."""
    if job.target.kind is TargetKind.PLUGIN:
        plugin = job.find(job.target.name)
        yield _Service(job.target.name, plugin.description, plugin.describe())
    deployment = job.deployment()
    for entry in deployment.services if deployment else ():
        if entry.plugin is not None:
            title = f"{entry.name}, made by {entry.plugin}"
            described = job.find(entry.plugin).describe()
            yield _Service(entry.name, title, described, f"{entry.name}.", entry.table)


def service_command(job: Job) -> Command:
    """Return the command that reads the words after the target, with a group for each service."""
    several = list(services(job))
    by_name = job.target.kind is TargetKind.DEPLOYMENT
    options = tuple(
        _option_of(
            each,
            service.name,
            service=service.name,
            prefix=service.prefix,
            in_file=service.table.get(each.key, service.table.get(each.name)),
            section=service.title if by_name else each.section or "Options",
        )
        for service in several
        for each in service.options
    )
    match job.target.kind:
        case TargetKind.PLUGIN:
            summary = several[0].title
        case TargetKind.DEPLOYMENT:
            summary = "An option given here overrides the file."
        case _:
            summary = "An application has no options of its own."
    return Command(job.target.name, summary, options=options)


def misspelt_variables(job: Job, *, of_services: bool) -> Iterator[str]:
    """Yield a warning for each ignored environment variable whose name resembles one of Tamed's.

    With ``of_services`` also for those of the services: this imports their plugins.
    """
    given = {name for name in job.environ if name.startswith(_PREFIX)} - _OWN_VARIABLES
    if not given:
        return
    known = {*_OWN_VARIABLES, *(each.variable() for each in describe(Daemon))}
    known |= {each.variable("log") for each in describe(Log)}
    if of_services:
        known |= {option.variable(each.name) for each in services(job) for option in each.options}
    for name in sorted(given - known):
        if near := nearest(name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in known], 0.8):
            yield f"the variable {name} has no effect; did you mean {_PREFIX}{near}?"


def _option_of(
    described: Description,
    group: str,
    *,
    service: str = "",
    prefix: str = "",
    in_file: object = None,
    section: str = "Options",
) -> Option:
    """Return the option for a description.

    The environment variable has its name from ``service``; ``prefix`` precedes the name in the flag; and
    ``in_file`` is the value in the deployment file, shown instead of the default.
    """
    flag = f"--{prefix}{described.key}"
    short = (described.short,) if described.short and not prefix else ()
    return Option(
        " ".join((*short, flag, *_ALIASES.get(flag, ()))),
        described.help,
        described.metavar,
        name=described.name,
        off_flags=(f"--{prefix}no-{described.key}",) if described.boolean else (),
        repeatable=described.repeatable,
        group=group,
        read=str,
        choices=described.choices,
        complete="file" if described.path else "",
        env=described.variable(service) if described.env else "",
        facts=tuple(_facts(described, in_file)),
        section=section,
    )


def _facts(described: Description, in_file: object) -> Iterator[str]:
    if in_file is not None and not described.secret:
        yield f"file: {_written(in_file)}"
    elif described.default_text:
        yield f"default: {described.default_text}"
    if described.required and in_file is None:
        yield "required"


def _written(value: object) -> str:
    """Return a value of a deployment file as a short text."""
    if isinstance(value, list):
        return ",".join(map(_written, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
