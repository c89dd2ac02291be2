"""The part of the command line that all commands with a TARGET share: from its words to a job."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete

from tamed._os.text import shown
from tamed.cli._quick import (
    ALIASES,
    DAEMON_OPTIONS,
    PLUGIN_DIR,
    OfService,
    folders,
    run_job,
    services,
    start_job,
    trust_if_told,
)
from tamed.cli.options import Command, given_flags, make_option
from tamed.config.job import Job
from tamed.config.kinds import kind_of, resolve
from tamed.config.load import load
from tamed.config.reading import Reading
from tamed.config.target import TargetKind
from tamed.errors import TamedError, UsageError
from tamed.plugins.describe import Option
from tamed.plugins.discovery import names
from tamed.service.service import MultiService, Service

__all__ = [
    "TargetCommand",
    "check",
    "job_of",
    "run",
    "service_command",
    "start",
]


class TargetCommand(Command):
    """A command with the options of the daemon, a TARGET, and the target's own options behind it."""

    def __init__(self, name: str | None, **attributes: Any) -> None:
        # What stands behind the target is the target's, even if it looks like an option of ours.
        super().__init__(name, context_settings={"allow_interspersed_args": False}, **attributes)
        self.params += [
            make_option(each, prefix.rstrip("-"), prefix, alias=ALIASES.get(f"{prefix}{each.key}", ""))
            for prefix, options in DAEMON_OPTIONS
            for each in options
        ]
        self.params += [
            click.Option(
                ["plugin_dirs", PLUGIN_DIR],
                multiple=True,
                type=click.Path(),
                metavar="FOLDER",
                help="A folder with plugins, a file NAME.py for each.  [repeatable; env: TAMED_PLUGIN_PATH]",
            ),
            click.Argument(["target"], type=_TargetType(), metavar="TARGET"),
            click.Argument(["words"], nargs=-1, type=_WordType(), metavar="[SERVICE OPTIONS]"),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; say of an option that is not ours where the others stand."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            remedy = f"the options of the service stand behind TARGET; see `{ctx.command_path} --help`"
            raise UsageError(f"unknown option {error.option_name!r}", remedy=remedy) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete our options before the target, and the target's own behind it."""
        if ctx.params.get("target"):
            return _complete_word(ctx, incomplete)
        return super().shell_complete(ctx, incomplete)


def job_of(ctx: click.Context) -> Job:
    """Make the job from a parsed command line; parse the target's own options, or show their help."""
    job = _job(ctx.params)
    words = ctx.params["words"]
    if not words:
        return job
    if job.target.kind is TargetKind.FOREIGN:
        job = job._replace(words=tuple(words), detached=ctx.info_name == "start")
        kind_of(job.target.prefix).check(job)  # says what is wrong with the words, or shows the help
        return job
    inner = service_command(job)
    try:
        params = inner.make_context(f"{ctx.command_path} {ctx.params['target']}", list(words)).params
    except click.NoSuchOption as error:
        if any(error.option_name in param.opts for param in ctx.command.params):
            remedy = f"it is one of Tamed's own, which stand before {ctx.params['target']!r}"
            raise UsageError(f"option {error.option_name!r} is not of the service", remedy=remedy) from None
        raise
    given = {service.name: given_flags(service.options, params, service.prefix) for service in services(job)}
    return Job(job.target, job.daemon, job.log, given, job.plugin_dirs)


def _job(params: Mapping[str, Any]) -> Job:
    daemon, log = (given_flags(options, params, prefix) for prefix, options in DAEMON_OPTIONS)
    trust_if_told(daemon)
    dirs = folders(params["plugin_dirs"])
    return Job(resolve(params["target"], dirs), daemon, log, plugin_dirs=dirs)


class _TargetType(click.ParamType[str]):
    name = "target"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of plugins, without importing any, and files that can be targets."""
        try:
            plugins = [
                CompletionItem(name)
                for name in names(folders(ctx.params.get("plugin_dirs") or ()))
                if name.startswith(incomplete)
            ]
        except TamedError:  # a plugin folder that cannot be read
            plugins = []
        return [*plugins, CompletionItem(incomplete, type="file")]


class _WordType(click.ParamType[str]):
    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete what stands behind the target."""
        return _complete_word(ctx, incomplete)


def _complete_word(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    try:
        inner = service_command(_job(ctx.params))
    except TamedError:  # there is no such target, or not yet
        return []
    return ShellComplete(inner, {}, "", "").get_completions(list(ctx.params.get("words") or ()), incomplete)


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


_RUN_HELP = """Run TARGET in the foreground; Ctrl-C stops it.

The options of the daemon stand before TARGET, those of the service behind it: see TARGET --help.

\b
Examples:
  tamed run fastpoetry --port 10007 --poem ecstasy.txt
  tamed run --log-level debug fastpoetry.py
  tamed run verse.toml
  tamed run package.module:application
"""


@click.command(cls=TargetCommand, help=_RUN_HELP)
@click.pass_context
def run(ctx: click.Context, /, **_: object) -> int:
    """Run a target in the foreground."""
    return run_job(job_of(ctx))


_START_HELP = """Run TARGET as a daemon; return when it is ready, or say why it is not.

The daemon is an instance of the run directory: status, logs, stop and restart find it there by its name.

\b
Examples:
  tamed start fastpoetry --port 10007
  tamed start --workers auto --user nobody verse.toml
"""


@click.command(cls=TargetCommand, help=_START_HELP)
@click.pass_context
def start(ctx: click.Context, /, **_: object) -> int:
    """Run a target as a daemon."""
    return start_job(job_of(ctx))


_CHECK_HELP = """Load and validate TARGET and show its services; run nothing, bind nothing.

Takes the same options as run, so that exactly what would be run is checked.
"""


@click.command(cls=TargetCommand, help=_CHECK_HELP)
@click.pass_context
def check(ctx: click.Context, /, **_: object) -> None:
    """Load and validate a target and show its services."""
    rows = list(_tree(load(Reading.entering(job_of(ctx)))))
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
